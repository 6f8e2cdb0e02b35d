"""Runs: a folder with everything a result needs: head, decoder, vocabulary, scores, submission.

``run.json``, what was asked, is written first and marks the folder as a run; ``metrics.json`` is written last, and a
folder without it is an unfinished run.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.provenance import Provenance
from cache.store import FeatureStore
from cache.support.errors import UserError
from cache.support.files import write_text
from eval.run_folder import VALID, VOCABULARY
from heads.data.folds import SCORES, VALID_SCORES
from heads.decoders.base import Decoder
from heads.estimators.base import Head
from heads.estimators.storage import ARRAYS, PARAMETERS, load_head, save_head
from heads.registry import make_decoder

FORMAT = 3
"""Version of a run's files and of what a head makes of its parameters: raise it when results change."""

ASKED, METRICS, DECODER = "run.json", "metrics.json", "decoder.json"
SUBMISSION, SUBMISSION_ZIP, SUBMISSION_RECORD = "submission.csv", "submission.zip", "submission.json"

EXPORTED = "model.keras"
"""The run as a Keras model, from images on; its description stands beside, with ``.json``."""

MEMBERS = "members"
"""Folder of an ensemble with copies of its runs, so that it needs nothing else but the stores."""

RESULTS = (
    METRICS, f"{EXPORTED}.json", EXPORTED, SUBMISSION_RECORD, SUBMISSION, SUBMISSION_ZIP, VALID, DECODER, VOCABULARY,
    PARAMETERS, ARRAYS, SCORES, VALID_SCORES,
)  # fmt: skip
"""What an earlier run leaves; removed in this order, the proof that it is finished first."""


@dataclass(frozen=True)
class Run:
    """A fitted head with all that turns its scores into concept sets.

    Parameters
    ----------
    name : str
        The head's name in the registry.
    head : Head
    decoder : Decoder
        Fitted.
    decoder_text : str
        The decoder as it was asked for, such as ``fixed:0.3``.
    pooling : str
        Which of a store's several poolings it scores; all of them, side by side, if empty.
    vocabulary : list of str
        The concept of each column of the scores.
    usual : list of str
        The one set of concepts that scores best on all training images: for an image that cannot be read.
    """

    name: str
    head: Head
    decoder: Decoder
    decoder_text: str
    pooling: str
    vocabulary: list[str]
    usual: list[str]

    def score(self, X: Any, readable: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Scores of the readable images, shape (n_readable, n_concepts).

        Raises
        ------
        UserError
            The head gives no finite score.
        """
        if not readable.any():
            return np.zeros((0, len(self.vocabulary)), np.float32)
        try:
            return self.head.predict_proba(X if readable.all() else X[readable])
        except ValueError as error:
            raise UserError(f"head '{self.name}': {error}") from error

    def name_concepts(self, scores: NDArray[np.float32], readable: NDArray[np.bool_]) -> list[list[str]]:
        """The sorted concepts of each image, the usual ones where it cannot be read."""
        return name_columns(self.decoder.predict(scores), self.vocabulary, readable, self.usual)

    def save(self, folder: Path) -> None:
        """Write head, decoder and vocabulary into a folder from `prepare_folder`."""
        save_head(self.head, self.name, folder)
        save_decoded(folder, self.decoder, self.decoder_text, self.vocabulary, self.usual)

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """Read a finished run; executes nothing of it.

        Raises
        ------
        UserError
            The folder holds no finished run, or a damaged one.
        """
        metrics = read_metrics(folder)
        head = load_head(folder)
        decoder, vocabulary, usual = load_decoded(folder)
        if len(vocabulary) != head.n_concepts_:
            found = f"{head.n_concepts_:,} concepts in the head, {len(vocabulary):,} in the vocabulary"
            raise UserError(f"{folder}: a damaged run ({found}); train it again with `make head`")
        return cls(metrics["head"], head, decoder, metrics["decoder"]["name"], metrics["pooling"], vocabulary, usual)


def save_decoded(folder: Path, decoder: Decoder, text: str, vocabulary: list[str], usual: list[str]) -> None:
    """Write what turns scores into concept sets: the fitted decoder, the concepts, and those of an unreadable image."""
    write_text(folder / DECODER, json.dumps({"decoder": text, "state": decoder.get_state()}, indent=1))
    write_text(folder / VOCABULARY, json.dumps({"vocabulary": vocabulary, "usual": usual}, indent=1))


def load_decoded(folder: Path) -> tuple[Decoder, list[str], list[str]]:
    """Read what `save_decoded` wrote.

    Raises
    ------
    UserError
        It is missing or damaged.
    """
    try:
        kept, decoded = _read_json(folder / VOCABULARY), _read_json(folder / DECODER)
        decoder = make_decoder(decoded["decoder"]).set_state(decoded["state"])
        return decoder, list(map(str, kept["vocabulary"])), list(map(str, kept["usual"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: a damaged run ({error}); train it again with `make head`") from error


def name_columns(
    named: scipy.sparse.csr_matrix, vocabulary: Sequence[str], readable: NDArray[np.bool_], usual: list[str]
) -> list[list[str]]:
    """The sorted concepts of each image.

    Parameters
    ----------
    named : sparse matrix of {0, 1}, shape (n_readable, n_concepts)
    vocabulary : sequence of str
    readable : ndarray of bool, shape (n_images,)
    usual : list of str
        The concepts of an image that cannot be read.
    """
    named.sort_indices()
    rows = zip(named.indptr[:-1], named.indptr[1:], strict=True)
    found = iter([[vocabulary[column] for column in named.indices[start:end]] for start, end in rows])
    return [next(found) if is_readable else usual for is_readable in readable]


def read_asked(folder: Path) -> dict[str, Any] | None:
    """What was asked of the run in a folder, finished or not; None if there is no run of this version."""
    asked = _read_any_version(folder)
    return asked if asked is not None and asked["format"] == FORMAT else None


def _read_any_version(folder: Path) -> dict[str, Any] | None:
    try:
        asked = _read_json(folder / ASKED)
    except (OSError, ValueError):
        return None
    return asked if isinstance(asked, dict) and "format" in asked else None


def prepare_folder(folder: Path, asked: dict[str, Any]) -> None:
    """Make a run's folder, or take the results of an earlier run out of it; other files stay.

    Raises
    ------
    UserError
        The folder has files in it, but no run; or a folder stands where a result has to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and _read_any_version(folder) is None:
        raise UserError(f"{folder}: has files in it and is not a run; name another RUN (--out)")
    odd = [name for name in RESULTS if (folder / name).is_dir()]
    if odd:
        raise UserError(f"{folder / odd[0]}: is a folder where a file has to be; move it away or name another RUN")
    for name in RESULTS:
        (folder / name).unlink(missing_ok=True)
    write_text(folder / ASKED, json.dumps(asked, indent=1))


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read a run's metrics.

    Raises
    ------
    UserError
        The run is missing, unfinished or of another version.
    """
    try:
        metrics = _read_json(folder / METRICS)
        if isinstance(metrics, dict) and metrics.get("format") == FORMAT:
            return metrics
    except (OSError, ValueError):
        pass
    raise UserError(f"{folder}: no finished run in it; make it with `make head RUN={folder}`")


def finished(folder: Path) -> dict[str, Any] | None:
    """Metrics of the finished run in a folder, None if there is none."""
    try:
        return read_metrics(folder)
    except UserError:
        return None


def refuse_other_store(folder: Path, metrics: dict[str, Any], store: FeatureStore) -> None:
    """Refuse to score with embeddings of another kind than the head was trained on.

    Raises
    ------
    UserError
        Names each fact that differs.
    """
    try:
        trained_on = Provenance.from_json(json.dumps(metrics["store"]["provenance"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: a damaged run ({error}); train it again with `make head`") from error
    here = store.provenance
    if metrics["pooling"] in here.pooling.split(","):
        trained_on, here = replace(trained_on, pooling=metrics["pooling"]), replace(here, pooling=metrics["pooling"])
    differences = trained_on.differences(here)
    if differences:
        raise UserError(
            f"{folder} was trained on other features than {store.path} holds: {'; '.join(differences)}; "
            "name the STORE it was trained on, or train it again on this one"
        )


def usual_set(Y: scipy.sparse.csr_matrix, vocabulary: list[str], most: int) -> list[str]:
    """The most frequent concepts, as many as give all images together the best mean F1.

    Parameters
    ----------
    Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
    vocabulary : list of str
    most : int
        How many may be named.

    Examples
    --------
    >>> Y = scipy.sparse.csr_matrix([[1, 1, 0], [1, 1, 0], [1, 0, 1]])
    >>> usual_set(Y, ["C1", "C2", "C3"], 100)
    ['C1', 'C2']
    """
    counts = np.asarray(Y.sum(axis=0)).ravel()
    order = np.argsort(-counts, kind="stable")[:most]
    hits = np.asarray(Y[:, order].toarray(), dtype=np.float64).cumsum(axis=1)
    true = np.asarray(Y.sum(axis=1)).reshape(-1, 1)
    f1 = (2 * hits / (np.arange(1, len(order) + 1) + true)).mean(axis=0)
    return sorted(vocabulary[column] for column in order[: int(f1.argmax()) + 1])


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
