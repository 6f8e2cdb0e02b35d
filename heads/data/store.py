"""A store joined with the labels of a data folder: all that runs are made from."""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.store import FeatureStore
from cache.support.errors import UserError
from cache.support.messages import some
from cache.support.reporting import warn
from eval.labels import image_id, read_concepts
from heads.data.split import LabelledSplit, find_vocabulary, indicator, load_labelled
from heads.estimators.base import Head
from heads.networks.stored import TAIL, KeptNetwork

GROUPS, SOURCES = "groups.csv", "sources.csv"
"""``ID,group`` of the images, such as their patients, or a larger table with these two columns; optional."""


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
    groups, valid_groups : ndarray or None
        The group of each image of train and of valid that can be read.
    """

    store: FeatureStore
    train: LabelledSplit
    valid: LabelledSplit | None
    vocabulary: list[str]
    groups: NDArray[Any] | None
    valid_groups: NDArray[Any] | None

    @classmethod
    def load(cls, store_path: Path, data: Path, pooling: str, concepts: Sequence[str] = ()) -> "LabelledStore":
        """Open a store and join it.

        Parameters
        ----------
        store_path, data : Path
        pooling : str
            Which of several poolings; all if empty.

        Raises
        ------
        UserError
            The store or the labels are at fault.
        """
        store = FeatureStore(store_path)
        train = load_labelled(store, data, "train", pooling)
        valid = load_labelled(store, data, "valid", pooling) if "valid" in store.splits else None
        vocabulary = find_vocabulary(train.readable_concepts)
        if not vocabulary:
            raise UserError("no training image that can be read has a concept; check the images and train_concepts.csv")
        unknown = sorted(set(concepts) - set(vocabulary))
        if unknown:
            warn(f"{len(unknown):,} of the concepts to learn are in no training image ({some(unknown)}); nothing is "
                 "learnt of them")  # fmt: skip
        vocabulary = sorted(concepts) or vocabulary
        return cls(store, train, valid, vocabulary, *_read_groups(data, train, valid))

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
        given = [each.tobytes() for each in (self.groups, self.valid_groups) if each is not None]
        return hashlib.sha256(b"".join(given)).hexdigest() if given else ""

    def learn_from(self, split: LabelledSplit) -> tuple[Any, scipy.sparse.csr_matrix]:
        """Features and indicator matrix of the images of a split that can be read."""
        X = split.X if split.readable.all() else split.X[split.readable]
        return X, indicator(split.readable_concepts, self.vocabulary)


def _read_groups(
    data: Path, train: LabelledSplit, valid: LabelledSplit | None
) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """The groups of the images of train and of valid that can be read; those of valid may be left out."""
    path = next((data / name for name in (GROUPS, SOURCES) if (data / name).is_file()), None)
    groups = _read_column(path) if path else {}
    if not groups:
        return None, None
    ungrouped = [id for id in train.readable_ids if id not in groups]
    if ungrouped:
        raise UserError(f"{path}: {len(ungrouped):,} training images have no group, such as '{ungrouped[0]}'; add them")
    ids = valid.readable_ids if valid and all(id in groups for id in valid.readable_ids) else None
    return _number(groups, train.readable_ids), None if ids is None else _number(groups, ids)


def _read_column(path: Path) -> dict[str, str]:
    """The group of each image; an image whose group is empty is one by itself. Empty if there is no such column."""
    if path.name == GROUPS:
        return {str(id): ";".join(names) or str(id) for id, names in read_concepts(path).items()}
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        if not {"ID", "group"} <= set(rows.fieldnames or ()):
            return {}
        return {image_id(row["ID"]): row["group"] or row["ID"] for row in rows if row["ID"]}


def _number(groups: dict[str, str], ids: list[str]) -> NDArray[Any]:
    return np.unique([groups[id] for id in ids], return_inverse=True)[1]
