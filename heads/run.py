"""Runs: a folder with everything a result needs: head, decoder, vocabulary, scores, submission.

`metrics.json` is written last; a folder without it is an unfinished run.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.errors import UserError
from cache.files import write_text
from cache.provenance import Provenance
from cache.store import FeatureStore
from heads.base import Head
from heads.decoders import Decoder, make_decoder
from heads.saving import load_head, save_head

METRICS, DECODER, VOCABULARY = "metrics.json", "decoder.json", "vocabulary.json"
SUBMISSION, SUBMISSION_RECORD = "submission.csv", "submission.json"


@dataclass(frozen=True)
class Run:
    """A fitted head with all that turns its scores into concept sets.

    Parameters
    ----------
    head : Head
    name : str
        The head's name in the registry.
    decoder : Decoder
        Fitted.
    decoder_text : str
        The decoder as it was asked for, such as ``fixed:0.3``.
    vocabulary : list of str
        The concept of each column of the scores.
    frequency : list of float
        How often each concept is in the training images: the scores of an image that cannot be read.
    """

    head: Head
    name: str
    decoder: Decoder
    decoder_text: str
    vocabulary: list[str]
    frequency: list[float]

    def score(self, X: NDArray[np.float32], readable: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Scores of some images, shape (n_images, n_concepts); training frequencies where not readable."""
        scores = np.tile(np.asarray(self.frequency, np.float32), (len(X), 1))
        if readable.any():
            scores[readable] = self.head.predict_proba(X if readable.all() else X[readable])
        return scores

    def name_concepts(self, named: scipy.sparse.csr_matrix) -> list[list[str]]:
        """The concepts of each row of an indicator matrix, sorted."""
        named.sort_indices()
        return [
            [self.vocabulary[column] for column in named.indices[start:end]]
            for start, end in zip(named.indptr[:-1], named.indptr[1:], strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write everything but the metrics, replacing an earlier run of this project and nothing else."""
        prepare_folder(folder)
        save_head(self.head, self.name, folder)
        decoder = {"decoder": self.decoder_text, "threshold": self.decoder.threshold_}
        write_text(folder / DECODER, json.dumps(decoder, indent=1))
        kept = {"vocabulary": self.vocabulary, "frequency": self.frequency}
        write_text(folder / VOCABULARY, json.dumps(kept, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """Read a finished run; executes nothing of it.

        Raises
        ------
        UserError
            The folder holds no finished run.
        """
        read_metrics(folder)
        head = load_head(folder)
        try:
            kept = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
            decoded = json.loads((folder / DECODER).read_text(encoding="utf-8"))
            name = json.loads((folder / METRICS).read_text(encoding="utf-8"))["head"]
            decoder = make_decoder(decoded["decoder"])
            decoder.threshold_ = float(decoded["threshold"])
            vocabulary, frequency = list(map(str, kept["vocabulary"])), list(map(float, kept["frequency"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder}: a damaged run ({error}); train it again with `make head`") from error
        if len(vocabulary) != head.n_concepts_ or len(frequency) != head.n_concepts_:
            raise UserError(
                f"{folder}: a damaged run (its head has {head.n_concepts_:,} concepts, its vocabulary "
                f"{len(vocabulary):,}); train it again with `make head`"
            )
        return cls(head, name, decoder, decoded["decoder"], vocabulary, frequency)


def prepare_folder(folder: Path) -> None:
    """Make a run's folder, or take the results of an earlier run out of it; other files stay.

    Raises
    ------
    UserError
        The folder has files in it, but no run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ours = {METRICS, "head.json", DECODER, VOCABULARY}
    names = {path.name for path in folder.iterdir()}
    if names and not names & ours:
        raise UserError(f"{folder}: has files in it that are not a run; name another RUN (--out)")
    # Results of the earlier head must not stand beside the new one, the proof that it is finished first.
    for name in (METRICS, SUBMISSION_RECORD):
        (folder / name).unlink(missing_ok=True)
    for path in folder.glob("submission*"):
        path.unlink()


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read a run's metrics.

    Raises
    ------
    UserError
        The run is missing or unfinished.
    """
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        if isinstance(metrics, dict) and "request" in metrics:
            return metrics
    except (OSError, ValueError):
        pass
    raise UserError(f"{folder}: no finished run in it; make it with `make head RUN={folder}`")


def digest_request(request: dict[str, Any]) -> str:
    """Digest of everything that decides a result: head, parameters, decoder, store, labels."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


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
    differences = trained_on.differences(store.provenance)
    if differences:
        raise UserError(
            f"{folder} was trained on other features than {store.path} holds: {'; '.join(differences)}; "
            "name the STORE it was trained on, or train it again on this one"
        )
