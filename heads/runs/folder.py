"""The folder of a run: the names of its files, and how they are read and removed.

``run.json``, the request, comes first and marks the folder as a run. ``metrics.json`` comes last. A folder without it
is an unfinished run.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cache.support.errors import RunError
from cache.support.files import digest_file, replacing, replacing_files, write_text
from eval.run_folder import VALID, VOCABULARY
from heads.estimators.storage import ARRAYS, PARAMETERS
from heads.runs.metrics import RunMetrics

FORMAT = 3
"""Version of a run's files and of what a head computes from its parameters. Raise it when results change."""

REQUEST, METRICS, DECODER = "run.json", "metrics.json", "decoder.json"
SUBMISSION, SUBMISSION_ZIP, SUBMISSION_RECORD = "submission.csv", "submission.zip", "submission.json"

SCORES, VALID_SCORES = "out_of_fold.npy", "valid_scores.npy"
"""Out-of-fold scores of train, and scores of valid by a head that had not yet learnt from it."""

EXPORTED = "model.keras"
"""The run as a Keras model that takes images. Its description is beside it, with ``.json`` at the end."""

MEMBERS = "members"
"""Folder of an ensemble with copies of its runs, so that it needs nothing else but the stores."""

RESULTS = (
    METRICS, f"{EXPORTED}.json", EXPORTED, SUBMISSION_RECORD, SUBMISSION, SUBMISSION_ZIP, VALID, DECODER, VOCABULARY,
    PARAMETERS, ARRAYS, SCORES, VALID_SCORES,
)  # fmt: skip
"""The files of an earlier run. They are removed in this order: first the proof that it is finished."""

DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What a missing, damaged or foreign JSON file may raise while it is read and used."""


def read_json(path: Path) -> Any:
    """Read a JSON file. What may go wrong, here and with what the file holds, is in `DAMAGE`."""
    return json.loads(path.read_text(encoding="utf-8"))


def is_up_to_date(record: Path, request: Mapping[str, Any]) -> bool:
    """Whether files were made for a request and have not changed since.

    Parameters
    ----------
    record : Path
        A JSON file beside them. It has the keys of the request, and the SHA-256 of each file by name under ``files``;
        or under ``sha256`` that of the one file with the name of the record without ``.json``.
    request : mapping
        What decides the files.
    """
    try:
        found = read_json(record)
        files = found["files"] if "files" in found else {record.stem: found["sha256"]}
        same = {key: found[key] for key in request} == json.loads(json.dumps(request))
        return same and all(digest_file(record.with_name(name)).hex() == digest for name, digest in files.items())
    except DAMAGE:
        return False


def damaged(folder: Path, why: object) -> RunError:
    """The error of a run that is there and cannot be used."""
    return RunError(f"{folder}: a damaged run ({why}); train it again with `make head`")


def read_request(folder: Path) -> dict[str, Any] | None:
    """The request of the run in a folder, finished or not; None if there is no run of this version."""
    request = _read_any_version(folder)
    return request if request is not None and request["format"] == FORMAT else None


def _read_any_version(folder: Path) -> dict[str, Any] | None:
    try:
        request = read_json(folder / REQUEST)
    except DAMAGE:
        return None
    return request if isinstance(request, dict) and "format" in request else None


def read_metrics(folder: Path) -> RunMetrics:
    """Read the metrics of a finished run.

    Raises
    ------
    RunError
        The run is missing, unfinished or of another version.
    """
    metrics = find_metrics(folder)
    if metrics is None:
        raise RunError(f"{folder}: no finished run in it; make it with `make head RUN={folder}`")
    return metrics


def find_metrics(folder: Path) -> RunMetrics | None:
    """The metrics of the finished run in a folder; None if there is none of this version."""
    try:
        metrics = read_json(folder / METRICS)
    except DAMAGE:
        return None
    return cast(RunMetrics, metrics) if isinstance(metrics, dict) and metrics.get("format") == FORMAT else None


def check_folder(folder: Path) -> None:
    """Check that a folder can become that of a run, before anything is computed.

    Raises
    ------
    RunError
        It is a file, it has files in it and is not a run, or it has a folder where a result has to be.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RunError(f"{folder}: is a file, expected a folder for the run; name another RUN (--out)")
    if any(folder.iterdir()) and _read_any_version(folder) is None:
        raise RunError(f"{folder}: has files in it and is not a run; name another RUN (--out)")
    odd = [name for name in (REQUEST, *RESULTS) if (folder / name).is_dir()]
    if odd:
        raise RunError(f"{folder / odd[0]}: is a folder where a file has to be; move it away or name another RUN")


@contextmanager
def replacing_results(folder: Path, request: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a folder in which to write the results of a run, and move them to the folder of the run at the end.

    An earlier run stays whole until then: a full disk does not harm it. Its results are then removed; other files stay.
    The caller holds the lock of the run.

    Parameters
    ----------
    folder : Path
    request : mapping
        What ``run.json`` gets.

    Yields
    ------
    Path
        A folder within that of the run.

    Raises
    ------
    RunError
        As `check_folder`.
    """
    check_folder(folder)
    with replacing_files(folder, stale=RESULTS, first=REQUEST, last=METRICS) as new:
        write_text(new / REQUEST, json.dumps({"format": FORMAT} | dict(request), indent=1))
        yield new


def save_scores(scores: NDArray[np.float32], folder: Path, name: str = SCORES) -> None:
    """Save scores in a run, so that another decoder or an ensemble needs no training."""
    with replacing(folder / name) as temporary, open(temporary, "wb") as file:
        np.save(file, scores, allow_pickle=False)


def load_scores(folder: Path, shape: tuple[int, int], name: str = SCORES) -> NDArray[np.float32] | None:
    """Load the scores of a run as a memory map; None if they are missing or of another shape."""
    try:
        scores = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return scores if scores.shape == shape and scores.dtype == np.float32 else None
