"""What names the concepts of a split's images: a run with a store, or an ensemble of them."""

from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cache.store import FeatureStore, Split
from heads.data.split import take_features
from heads.runs.run import Run, read_metrics, refuse_other_store


class Predictor(Protocol):
    """Names the concepts of every image of a split."""

    @property
    def usual(self) -> list[str]:
        """The concepts of an image that cannot be read."""

    @property
    def content(self) -> str:
        """Digest of the stores that it reads."""

    def images(self, split: str) -> tuple[list[str], NDArray[np.bool_]]:
        """Ids of a split, and whether each image can be read."""

    def name(self, split: str) -> list[list[str]]:
        """The sorted concepts of each image of a split, in the order of `images`."""


class StoredRun:
    """A finished run with a store of the features that it was trained on.

    Parameters
    ----------
    folder : Path
        The run.
    store_path : Path

    Raises
    ------
    UserError
        The run or the store is at fault, or they do not belong together.
    """

    def __init__(self, folder: Path, store_path: Path) -> None:
        self.folder, self.metrics, self.store = folder, read_metrics(folder), FeatureStore(store_path)
        refuse_other_store(folder, self.metrics, self.store)

    @cached_property
    def run(self) -> Run:
        """The run, loaded once it is needed."""
        return Run.load(self.folder)

    @property
    def usual(self) -> list[str]:
        """The concepts of an image that cannot be read."""
        return self.run.usual

    @property
    def content(self) -> str:
        """Digest of all that the store holds."""
        return self.store.content

    def split(self, name: str) -> Split:
        """The store's rows."""
        return self.store.split(name)

    def images(self, split: str) -> tuple[list[str], NDArray[np.bool_]]:
        """Ids of a split, and whether each image can be read."""
        rows = self.split(split)
        return rows.ids, rows.readable

    def features(self, split: str) -> Any:
        """What the head scores, of every image of a split."""
        return take_features(self.store, split, self.run.pooling)

    def scores(self, split: str) -> NDArray[np.float32]:
        """Scores of the images of a split that can be read, shape (n_readable, n_concepts)."""
        return self.run.score(self.features(split), self.split(split).readable)

    def name(self, split: str) -> list[list[str]]:
        """The sorted concepts of each image of a split."""
        return self.run.name_concepts(self.scores(split), self.split(split).readable)
