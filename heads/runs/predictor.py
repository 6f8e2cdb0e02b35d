"""Predictors of a split: a run with its store, or an ensemble of such runs."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cache.store import FeatureStore, Split
from heads.data.split import find_features, select_readable
from heads.runs.folder import read_metrics
from heads.runs.run import Run, refuse_other_features


class Predictor(Protocol):
    """Predicts the concepts of every image of a split."""

    @property
    def fallback(self) -> list[str]:
        """The concepts of an image that cannot be read."""

    @property
    def content(self) -> str:
        """Digest of the stores that it reads."""

    def images(self, split: str) -> tuple[list[str], NDArray[np.bool_]]:
        """Ids of a split, and whether each image can be read."""

    def predict(self, split: str) -> list[list[str]]:
        """The sorted concepts of each image of a split, in the order of `images`."""

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
        return self.run.score(select_readable(self.features(split), self.split(split).readable))

    def predict(self, split: str) -> list[list[str]]:
        """The sorted concepts of each image of a split."""
        return self.run.decode(self.scores(split), self.split(split).readable)

    def check_unchanged(self) -> None:
        """Check that the store was not changed in place since it was opened.

        Raises
        ------
        StoreError
            It was.
        """
        self.store.check_unchanged()
