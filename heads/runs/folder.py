"""The folder of a run: the names of its files, how they are read, and how another run takes its place.

``run.json``, the request, comes first and marks the folder as a run. ``digests.json`` comes last. A folder without it
is an unfinished run.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from cache.support.errors import RunError
from cache.support.files import replacing_files
from cache.support.json_file import DamagedFileError, check_type, read_json
from eval.run_folder import VALID, VOCABULARY
from heads.estimators.storage import ARRAYS, PARAMETERS
from heads.runs.concept_table import CONCEPTS
from heads.runs.files import (
    DIGESTS,
    FORMAT,
    MEMBERS,
    REQUEST,
    SCORES,
    VALID_SCORES,
    RunFiles,
    digest_plain,
    find_version,
    read_sealed,
    write_digests,
    write_sealed,
    writing,
)
from heads.runs.metrics import RunMetrics

METRICS, DECODER, CARD = "metrics.json", "decoder.json", "MODEL_CARD.md"
SUBMISSION, SUBMISSION_ZIP, SUBMISSION_RECORD = "submission.csv", "submission.zip", "submission.json"

EXPORTED = "model.keras"
"""The run as a Keras model that takes images. Its description is beside it, with ``.json`` at the end."""

REPORT = "report.html"
"""The page that ``python -m show report`` makes of the run."""

RESULTS = (
    DIGESTS, REPORT, f"{EXPORTED}.json", EXPORTED, SUBMISSION_RECORD, SUBMISSION, SUBMISSION_ZIP, VALID, CONCEPTS, CARD,
    METRICS, DECODER, VOCABULARY, PARAMETERS, ARRAYS, SCORES, VALID_SCORES,
)  # fmt: skip
"""The files of an earlier run. They are removed in this order: first the proof that it is finished."""

TEMPORARY = ".*.[0-9]*.????????.tmp"
"""Files and folders that were not yet finished; named by `cache.support.files.name_temporary`."""


class StoredRequest(TypedDict):
    """What ``run.json`` holds: the options of a run, or those of an ensemble."""

    format: int
    name: str
    decoder: str
    tune: str
    nested: bool
    store: NotRequired[str]
    data: NotRequired[str]
    params: NotRequired[dict[str, Any]]
    concepts: NotRequired[list[str]]
    pooling: NotRequired[str]
    train: NotRequired[str]
    how: NotRequired[str]
    members: NotRequired[list[str]]


def read_request(folder: Path) -> StoredRequest | None:
    """The request of the run in a folder, finished or not; None if there is no run of this version."""
    try:
        request = read_sealed(folder / REQUEST, StoredRequest)
    except (DamagedFileError, OSError):
        return None
    return request if request["format"] == FORMAT else None


def read_metrics(folder: Path) -> RunMetrics:
    """Read the metrics of a finished run.

    Raises
    ------
    RunError
        The run is missing, unfinished, damaged or of another version.
    """
    return RunFiles.open(folder).read_json(METRICS, RunMetrics)


def find_metrics(folder: Path) -> RunMetrics | None:
    """The metrics of the finished run in a folder; None if there is none of this version, or a damaged one."""
    try:
        return read_metrics(folder)
    except RunError:
        return None


def find_whole(folder: Path) -> RunMetrics | None:
    """The metrics of the finished run in a folder; None also if any of its files is damaged."""
    metrics = find_metrics(folder)
    return metrics if metrics and RunFiles.open(folder).is_whole() else None


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
        found = read_json(record, dict[str, Any])
        files = check_type(found.get("files", {record.stem: found.get("sha256")}), dict[str, str])
        same = {key: found.get(key) for key in request} == json.loads(json.dumps(request))
        return same and all(digest_plain(record.parent / Path(name).name) == files[name] for name in files)
    except (DamagedFileError, OSError):
        return False


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
    if any(folder.iterdir()) and find_version(folder) is None:
        raise RunError(f"{folder}: has files in it and is not a run; name another RUN (--out)")
    odd = [name for name in (REQUEST, *RESULTS) if (folder / name).is_dir()]
    if odd:
        raise RunError(f"{folder / odd[0]}: is a folder where a file has to be; move it away or name another RUN")
    if (folder / MEMBERS).is_symlink():
        raise RunError(f"{folder / MEMBERS}: is a link, expected a folder of the run; remove it or name another RUN")


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
    with writing(folder), replacing_files(folder, stale=RESULTS, first=REQUEST, last=DIGESTS) as new:
        write_sealed(new / REQUEST, {"format": FORMAT} | dict(request))
        yield new
        write_digests(new)
