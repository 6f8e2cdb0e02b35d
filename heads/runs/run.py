"""A run: a fitted head with everything that turns its scores into sets of concepts."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.provenance import Provenance, WeightsOrigin
from cache.store import FeatureStore
from cache.support.errors import StoreError
from cache.support.files import write_text
from eval.run_folder import VOCABULARY
from heads.data.vocabulary import columns_to_concepts
from heads.decoders.base import Decoder
from heads.estimators.base import Head
from heads.estimators.storage import load_head, save_head
from heads.registry import make_decoder
from heads.runs.folder import DAMAGE, DECODER, damaged, read_json, read_metrics
from heads.runs.metrics import RunMetrics


@dataclass(frozen=True)
class Run:
    """A fitted head with its decoder, vocabulary and fallback set.

    Parameters
    ----------
    name : str
        The head's name in the registry.
    head : Head
        Fitted.
    decoder : Decoder
        Fitted.
    decoder_text : str
        The decoder as it was requested, such as ``fixed:0.3``.
    pooling : str
        The pooling of the store that the head uses; all of them, side by side, if empty.
    vocabulary : list of str, length n_concepts
        The concept of each column of the scores.
    fallback : list of str
        The concepts of an image that cannot be read: the set that scores best on all training images.
    """

    name: str
    head: Head
    decoder: Decoder
    decoder_text: str
    pooling: str
    vocabulary: list[str] = field(repr=False)
    fallback: list[str] = field(repr=False)

    def score(self, X: Any) -> NDArray[np.float32]:
        """Score images.

        Parameters
        ----------
        X : ndarray of float, shape (n_images, n_features), or Maps
            Features of images that can be read; there may be none.

        Returns
        -------
        ndarray of float32, shape (n_images, n_concepts)

        Raises
        ------
        ParameterError
            A score is not finite.
        """
        if not len(X):
            return np.zeros((0, len(self.vocabulary)), np.float32)
        return self.head.predict_proba(X)

    def decode(self, scores: NDArray[np.float32], readable: NDArray[np.bool_]) -> list[list[str]]:
        """The sorted concepts of each image; the fallback set if it cannot be read.

        Parameters
        ----------
        scores : ndarray of float32, shape (n_readable, n_concepts)
        readable : ndarray of bool, shape (n_images,)
        """
        return columns_to_concepts(self.decoder.predict(scores), self.vocabulary, readable, self.fallback)

    def save(self, folder: Path) -> None:
        """Write head, decoder and vocabulary into a folder from `heads.runs.folder.replacing_results`."""
        save_head(self.head, self.name, folder)
        save_decoder(folder, self.decoder, self.decoder_text, self.vocabulary, self.fallback)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Run":
        """Read a finished run. Nothing of its files is executed.

        Raises
        ------
        RunError
            The folder holds no finished run, or a damaged one.
        """
        folder = Path(folder)
        metrics = read_metrics(folder)
        head = load_head(folder)
        decoder, vocabulary, fallback = load_decoder(folder)
        if len(vocabulary) != head.n_concepts_:
            raise damaged(folder, f"{head.n_concepts_:,} concepts in the head, {len(vocabulary):,} in the vocabulary")
        return cls(metrics["head"], head, decoder, metrics["decoder"]["name"], metrics["pooling"], vocabulary, fallback)


def save_decoder(folder: Path, decoder: Decoder, text: str, vocabulary: Sequence[str], fallback: Sequence[str]) -> None:
    """Write what turns scores into concepts: the fitted decoder, the vocabulary and the fallback set."""
    write_text(folder / DECODER, json.dumps({"decoder": text, "state": decoder.get_state()}, indent=1))
    write_text(folder / VOCABULARY, json.dumps({"vocabulary": vocabulary, "usual": fallback}, indent=1))


def load_decoder(folder: Path) -> tuple[Decoder, list[str], list[str]]:
    """Read what `save_decoder` wrote.

    Raises
    ------
    RunError
        It is missing or damaged.
    """
    try:
        concepts, fitted = read_json(folder / VOCABULARY), read_json(folder / DECODER)
        decoder = make_decoder(fitted["decoder"]).set_state(fitted["state"])
        return decoder, list(map(str, concepts["vocabulary"])), list(map(str, concepts["usual"]))
    except DAMAGE as error:
        raise damaged(folder, error) from error


def refuse_other_features(folder: Path, metrics: RunMetrics, store: FeatureStore) -> None:
    """Refuse a store whose features are of another kind than those that a run was trained on.

    Raises
    ------
    StoreError
        The features differ; the message lists how.
    RunError
        The run does not say what it was trained on.
    """
    try:
        trained_on = Provenance.from_json(json.dumps(metrics["store"]["provenance"]))
        source = str(metrics["store"]["weights"])
    except DAMAGE as error:
        raise damaged(folder, error) from error
    here = store.provenance
    if metrics["pooling"] in here.pooling.split(","):
        trained_on, here = replace(trained_on, pooling=metrics["pooling"]), replace(here, pooling=metrics["pooling"])
    differences = trained_on.differences(here, (WeightsOrigin("", source), store.weights_origin))
    if differences:
        raise StoreError(
            f"{folder} was trained on other features than {store.path} holds: {'; '.join(differences)}; "
            "name the STORE it was trained on, or train it again on this one"
        )
