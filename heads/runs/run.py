"""A run: a fitted head with everything that turns its scores into sets of concepts."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from cache.provenance import Provenance, WeightsOrigin
from cache.store import FeatureStore
from cache.support.errors import StoreError
from cache.support.files import write_text
from cache.support.json_file import DamagedFileError
from cache.support.messages import describe_error
from eval.run_folder import VOCABULARY
from heads.data.blocks import split_rows
from heads.data.split import select_readable
from heads.data.vocabulary import columns_to_concepts
from heads.estimators.storage import ARRAYS, PARAMETERS, load_head, save_head
from heads.registry import make_decoder
from heads.runs.files import RunFiles, damaged
from heads.runs.folder import DECODER, METRICS
from heads.runs.metrics import RunMetrics

if TYPE_CHECKING:
    from heads.decoders.base import Decoder
    from heads.estimators.base import Head


BLOCK_IMAGES = 16_384
"""Images whose scores are in memory at a time: 0.1 GB for 2,000 concepts."""


class SavedDecoder(TypedDict):
    """What ``decoder.json`` holds."""

    decoder: str
    """As it was requested, such as ``fixed:0.3``."""
    state: dict[str, Any]


class SavedVocabulary(TypedDict):
    """What ``vocabulary.json`` holds."""

    vocabulary: list[str]
    usual: list[str]
    """The fallback set."""


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
        Names of the parts of the store's features that the head uses; all parts if empty.
    vocabulary : list of str, length n_concepts
        The concept of each column of the scores.
    fallback : list of str
        The concepts of an image that cannot be read: the set that scores best on all training images.
    """

    name: str
    head: "Head"
    decoder: "Decoder"
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

    def predict(self, features: Any, readable: NDArray[np.bool_]) -> list[list[str]]:
        """The sorted concepts of each image; the fallback set if it cannot be read.

        Parameters
        ----------
        features : ndarray of float, shape (n_images, n_features), or Maps
        readable : ndarray of bool, shape (n_images,)
        """
        concepts: list[list[str]] = []
        for block in split_rows(len(readable), BLOCK_IMAGES):
            scores = self.score(select_readable(features[block], readable[block]))
            concepts += self.decode(scores, readable[block])
        return concepts

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
        files = RunFiles.open(folder)
        metrics = files.read_json(METRICS, RunMetrics)
        decoder, vocabulary, fallback = load_decoder(files)
        try:
            files.check(PARAMETERS), files.check(ARRAYS)
        except (DamagedFileError, OSError) as error:
            raise damaged(folder, describe_error(error)) from error
        head = load_head(folder, len(vocabulary))
        return cls(metrics["head"], head, decoder, metrics["decoder"]["name"], metrics["pooling"], vocabulary, fallback)


def save_decoder(
    folder: Path, decoder: "Decoder", text: str, vocabulary: Sequence[str], fallback: Sequence[str]
) -> None:
    """Write what turns scores into concepts: the fitted decoder, the vocabulary and the fallback set."""
    fitted: SavedDecoder = {"decoder": text, "state": decoder.get_state()}
    concepts: SavedVocabulary = {"vocabulary": list(vocabulary), "usual": list(fallback)}
    write_text(folder / DECODER, json.dumps(fitted, indent=1))
    write_text(folder / VOCABULARY, json.dumps(concepts, indent=1))


def load_decoder(files: RunFiles) -> tuple["Decoder", list[str], list[str]]:
    """Read what `save_decoder` wrote: decoder, vocabulary and fallback set.

    Raises
    ------
    RunError
        It is missing or damaged, or one does not fit the other.
    """
    concepts, fitted = files.read_json(VOCABULARY, SavedVocabulary), files.read_json(DECODER, SavedDecoder)
    vocabulary, fallback = concepts["vocabulary"], concepts["usual"]
    if not vocabulary or vocabulary != sorted(set(vocabulary)):
        raise damaged(files.folder, "a vocabulary that is empty, not sorted, or has a concept twice")
    if not set(fallback) <= set(vocabulary):
        raise damaged(files.folder, "a fallback set with a concept that is not in the vocabulary")
    try:
        decoder = make_decoder(fitted["decoder"]).set_state(fitted["state"])
        decoder.check_concepts(len(vocabulary))
    # What a decoder refuses is a DamagedFileError or a ParameterError, and both are a ValueError.
    except ValueError as error:
        raise damaged(files.folder, error) from error
    return decoder, vocabulary, fallback


def refuse_other_features(folder: Path, metrics: RunMetrics, store: FeatureStore) -> None:
    """Refuse a store whose features are of another kind than those that a run was trained on.

    Raises
    ------
    StoreError
        The features differ; the message lists how.
    RunError
        The run does not say what it was trained on.
    """
    source = metrics["store"]["weights"]
    try:
        trained_on = Provenance.from_json(json.dumps(metrics["store"].get("provenance")))
    except ValueError as error:
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
