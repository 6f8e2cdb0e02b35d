"""Predictors of a split: a run with its store, or an ensemble of such runs."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cache.provenance import N_DIGITS, OF_FILE
from cache.store import FeatureStore, Split
from cache.support.errors import RunError, StoreError
from heads.data.split import find_features, pick_features, select_readable
from heads.data.store import LabelledStore
from heads.data.types import Scores
from heads.runs.folder import read_metrics, read_request
from heads.runs.metrics import RunMetrics
from heads.runs.request import BOTH, RunRequest
from heads.runs.run import Run, refuse_other_features


@dataclass(frozen=True)
class Scored:
    """What is predicted for some images, in their order.

    Parameters
    ----------
    readable : ndarray of bool, shape (n_images,)
    probabilities : ndarray of float32, shape (n_images, n_concepts)
        Scores as the decoder sees them, calibrated if it calibrates; NaN where an image cannot be read.
    concepts : list of list of str, length n_images
        The sorted concepts; the fallback set where an image cannot be read.
    """

    readable: NDArray[np.bool_]
    probabilities: Scores
    concepts: list[list[str]]

    @classmethod
    def from_readable(cls, readable: NDArray[np.bool_], probabilities: Scores, concepts: list[list[str]]) -> "Scored":
        """Give images that cannot be read a row of NaN."""
        rows = np.full((len(readable), probabilities.shape[1]), np.nan, np.float32)
        rows[readable] = probabilities
        return cls(readable, rows, concepts)


class Predictor(Protocol):
    """Predicts the concepts of every image of a split."""

    @property
    def fallback(self) -> list[str]:
        """The concepts of an image that cannot be read."""

    @property
    def vocabulary(self) -> list[str]:
        """The concept of each column of the scores."""

    @property
    def stores(self) -> list[FeatureStore]:
        """The stores whose features it needs of an image."""

    @property
    def data_folders(self) -> list[Path]:
        """The folders with the labels that it was trained on; they need not exist any more."""

    @property
    def content(self) -> str:
        """Digest of the stores that it reads."""

    def images(self, split: str) -> tuple[list[str], NDArray[np.bool_]]:
        """Ids of a split, and whether each image can be read."""

    def predict(self, split: str) -> list[list[str]]:
        """The sorted concepts of each image of a split, in the order of `images`."""

    def predict_rows(self, rows: Mapping[Path, Split]) -> Scored:
        """Predict images from their features of each store, by the store's path. They need not be in the store."""

    def check_unchanged(self) -> None:
        """Check that its stores were not changed in place since they were opened."""


class StoredRun:
    """A finished run with a store of the features that it was trained on.

    Parameters
    ----------
    folder : path
        The run.
    store : path

    Raises
    ------
    RunError
        The run is missing or damaged.
    StoreError
        The store is missing or damaged, or it holds other features than the run was trained on.
    """

    def __init__(self, folder: str | os.PathLike[str], store: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.metrics, self.store = read_metrics(self.folder), FeatureStore(Path(store))
        refuse_other_features(self.folder, self.metrics, self.store)

    @classmethod
    def reopen(cls, folder: str | os.PathLike[str]) -> Self:
        """Open a run with the store that it was trained on.

        Raises
        ------
        RunError
            The run is missing or damaged, or does not say which store it was trained on.
        StoreError
            The store is missing or damaged, or holds other features now.
        """
        metrics = read_metrics(Path(folder))
        request = read_request(Path(folder))
        if request is None or not request.get("store"):
            raise RunError(f"{folder}: does not say which store it was trained on; name it with --store")
        store = Path(request["store"])
        if not store.exists():
            remedy = describe_features(metrics, request.get("data", "DATA"), store)
            raise StoreError(f"{folder}: its store {store} is gone; make it again with `{remedy}`")
        return cls(folder, store)

    def __repr__(self) -> str:
        return f"<StoredRun '{self.folder}' with '{self.store.path}'>"

    @cached_property
    def run(self) -> Run:
        """The run, loaded when it is first used."""
        return Run.load(self.folder)

    @property
    def fallback(self) -> list[str]:
        """The concepts of an image that cannot be read."""
        return self.run.fallback

    @property
    def vocabulary(self) -> list[str]:
        """The concept of each column of the scores."""
        return self.run.vocabulary

    @property
    def stores(self) -> list[FeatureStore]:
        """The store."""
        return [self.store]

    @property
    def data_folders(self) -> list[Path]:
        """The folder with the labels that it was trained on, if the run says which."""
        request = read_request(self.folder)
        return [Path(request["data"])] if request and request.get("data") else []

    @property
    def content(self) -> str:
        """Digest of everything in the store."""
        return self.store.content

    def split(self, name: str) -> Split:
        """The rows of a split of the store."""
        return self.store.split(name)

    def images(self, split: str) -> tuple[list[str], NDArray[np.bool_]]:
        """Ids of a split, and whether each image can be read."""
        rows = self.split(split)
        return rows.ids, rows.readable

    def features(self, split: str) -> Any:
        """What the head scores, of every image of a split."""
        return find_features(self.store, split, self.run.pooling)

    def scores(self, split: str) -> NDArray[np.float32]:
        """Scores of the images of a split that can be read, shape (n_readable, n_concepts)."""
        return self.score_rows(self.split(split))

    def score_rows(self, rows: Split) -> NDArray[np.float32]:
        """Scores of images that can be read, in the store or not, shape (n_readable, n_concepts)."""
        return self.run.score(select_readable(pick_features(rows, self.run.pooling), rows.readable))

    def training_ids(self) -> list[str]:
        """The ids of the images that the head learnt from, in the order of its training data.

        Raises
        ------
        UserError
            The data folder is gone, or its labels are not those of then.
        """
        request = RunRequest.read(self.folder)
        data = LabelledStore.load(self.store.path, request.data, request.pooling, request.concepts)
        splits = (data.train, data.valid) if request.train == BOTH else (data.train,)
        ids = [id for split in splits if split for id in split.readable_ids]
        if len(ids) != self.metrics["train"]["n_images"]:
            raise RunError(
                f"{self.folder}: its head learnt from {self.metrics['train']['n_images']:,} images, {request.data} has "
                f"labels for {len(ids):,} now; train it again with `make head RUN={self.folder}`"
            )
        return ids

    def predict(self, split: str) -> list[list[str]]:
        """The sorted concepts of each image of a split."""
        rows = self.split(split)
        return self.run.predict(pick_features(rows, self.run.pooling), rows.readable)

    def predict_rows(self, rows: Mapping[Path, Split]) -> Scored:
        """Predict images from their features, in the store or not."""
        split = rows[self.store.path]
        scores = self.score_rows(split)
        concepts = self.run.decode(scores, split.readable)
        return Scored.from_readable(split.readable, self.run.decoder.calibrate(scores), concepts)

    def check_unchanged(self) -> None:
        """Check that the store was not changed in place since it was opened.

        Raises
        ------
        StoreError
            It was.
        """
        self.store.check_unchanged()


def describe_features(metrics: RunMetrics, data: str, store: Path) -> str:
    """The command that makes the features again that a run was trained on."""
    facts, source = metrics["store"].get("provenance", {}), metrics["store"]["weights"]
    weights = f"FILE (of {source[: len(OF_FILE) + N_DIGITS]})" if source.startswith(OF_FILE) else source
    options = {"BACKBONE": "backbone", "SIZE": "size", "LAYER": "layer", "POOLING": "pooling", "ENGINE": "engine",
               "PRECISION": "precision", "DTYPE": "dtype"}  # fmt: skip
    words = [f"DATA={shlex.quote(data)}", f"STORE={shlex.quote(str(store))}", f"WEIGHTS={weights}"]
    words += [f"{name}={facts[key]}" for name, key in options.items() if key in facts]
    return f"make features {' '.join(words)}"
