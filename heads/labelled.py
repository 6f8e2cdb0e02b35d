"""A store joined with the labels of a data folder: all that runs are made from."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.errors import UserError
from cache.store import FeatureStore
from eval.labels import read_concepts
from heads.base import Head
from heads.dataset import Concepts, LabelledSplit, find_vocabulary, indicator, load_labelled
from heads.front import TAIL, KeptNetwork

GROUPS = "groups.csv"
"""``ID,group`` of the training images, such as their patients; optional."""


@dataclass(frozen=True)
class LabelledStore:
    """Train and valid of a store with their concepts.

    Parameters
    ----------
    store : FeatureStore
    train : LabelledSplit
    valid : LabelledSplit or None
    vocabulary : list of str
        The concepts of the training images that can be read.
    groups : ndarray or None
        The group of each training image that can be read.
    """

    store: FeatureStore
    train: LabelledSplit
    valid: LabelledSplit | None
    vocabulary: list[str]
    groups: NDArray[Any] | None

    @classmethod
    def load(cls, store_path: Path, data: Path, pooling: str, warn: Callable[[str], None]) -> "LabelledStore":
        """Open a store and join it.

        Parameters
        ----------
        store_path, data : Path
        pooling : str
            Which of several poolings; all if empty.
        warn : callable
            Told what is left out.

        Raises
        ------
        UserError
            The store or the labels are at fault.
        """
        store = FeatureStore(store_path)
        train = load_labelled(store, data, "train", warn, pooling)
        valid = load_labelled(store, data, "valid", warn, pooling) if "valid" in store.splits else None
        vocabulary = find_vocabulary(train.readable_concepts)
        if not vocabulary:
            raise UserError("no training image that can be read has a concept; check the images and train_concepts.csv")
        return cls(store, train, valid, vocabulary, _read_groups(data, train))

    def serve(self, head: Head) -> None:
        """See to it that a head learns from what the store holds, and has what it needs of the network.

        Raises
        ------
        UserError
            It learns from maps and the store holds embeddings, or the other way round; or the network is missing.
        """
        held = self.store.provenance
        if head.takes_maps and not self.store.has_maps:
            raise UserError(
                f"{self.store.path}: holds embeddings ({held.pooling} pooling after {held.layer}), expected maps, from "
                "which what follows a cut is trained; name a store that was made with POOLING=none LAYER=276"
            )
        if self.store.has_maps and not head.takes_maps:
            raise UserError(
                f"{self.store.path}: holds maps after {held.layer} (POOLING=none), expected embeddings; name a store "
                "that was made with POOLING=avg, or train what follows the cut (HEAD=tail)"
            )
        if head.takes_maps:
            head.take_network(KeptNetwork.find(self.store, TAIL).path)

    @property
    def groups_digest(self) -> str:
        """Digest of the groups, empty if there are none."""
        return "" if self.groups is None else hashlib.sha256(self.groups.tobytes()).hexdigest()

    def learn_from(self, split: LabelledSplit) -> tuple[Any, scipy.sparse.csr_matrix]:
        """Features and indicator matrix of the images of a split that can be read."""
        X = split.X if split.readable.all() else split.X[split.readable]
        return X, indicator(split.readable_concepts, self.vocabulary)


def _read_groups(data: Path, train: LabelledSplit) -> NDArray[Any] | None:
    path = data / GROUPS
    if not path.is_file():
        return None
    groups = read_concepts(path)
    ids = [id for id, readable in zip(train.ids, train.readable, strict=True) if readable]
    missing = [id for id in ids if id not in groups.index]
    if missing:
        raise UserError(f"{path}: {len(missing):,} training images have no group, such as '{missing[0]}'; add them")
    names: list[Concepts] = groups.loc[ids].tolist()
    return np.unique([";".join(each) for each in names], return_inverse=True)[1]
