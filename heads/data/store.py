"""A store joined with the labels of a data folder: everything that runs are made from."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache.store import FeatureStore
from cache.support.errors import DataError
from cache.support.messages import some
from cache.support.reporting import warn
from heads.data.groups import find_groups
from heads.data.split import LabelledSplit, load_split


@dataclass(frozen=True, eq=False)
class LabelledStore:
    """Train and valid of a store with their concepts and groups.

    Parameters
    ----------
    store : FeatureStore
    train : LabelledSplit
    valid : LabelledSplit or None
        None if the store has no such split.
    """

    store: FeatureStore
    train: LabelledSplit
    valid: LabelledSplit | None

    @classmethod
    def load(
        cls,
        store: str | os.PathLike[str],
        data: str | os.PathLike[str],
        pooling: str = "",
        concepts: Sequence[str] = (),
    ) -> "LabelledStore":
        """Open a store and join it with labels.

        Parameters
        ----------
        store : path
            The feature store.
        data : path
            The data folder with ``train_concepts.csv`` and ``valid_concepts.csv``, or any edition's names for them.
        pooling : str
            Names of parts of the store's features, with commas between them; all parts if empty.
        concepts : sequence of str
            The concepts to learn; those of the readable training images if empty.

        Raises
        ------
        StoreError
            The store is missing or damaged.
        DataError
            The labels are missing, or they do not fit the store.
        """
        opened, folder = FeatureStore(Path(store)), Path(data)
        train = load_split(opened, folder, "train", pooling)
        valid = load_split(opened, folder, "valid", pooling) if "valid" in opened.splits else None
        return cls(opened, *join_splits(folder, train, valid, concepts))

    @property
    def vocabulary(self) -> list[str]:
        """The concept of each column of labels and scores."""
        return self.train.vocabulary

    @property
    def groups_digest(self) -> str:
        """Digest of the groups of train and valid; empty if there are none."""
        groups = [split.groups.tobytes() for split in (self.train, self.valid) if split and split.groups is not None]
        return hashlib.sha256(b"".join(groups)).hexdigest() if groups else ""


def load_each(sources: Iterable[tuple[Path | str, Path | str, str, Sequence[str]]]) -> list[LabelledStore]:
    """Open the stores of several runs with their labels.

    Runs on the same features share one `LabelledStore`, so that there is one copy of its readable rows in memory.

    Parameters
    ----------
    sources : iterable of tuple
        The arguments of `LabelledStore.load` for each run.
    """
    opened: dict[tuple[str, str, str, tuple[str, ...]], LabelledStore] = {}
    found = []
    for store, data, pooling, concepts in sources:
        key = str(store), str(data), pooling, tuple(concepts)
        if key not in opened:
            opened[key] = LabelledStore.load(store, data, pooling, concepts)
        found.append(opened[key])
    return found


def join_splits(
    data: Path, train: LabelledSplit, valid: LabelledSplit | None, concepts: Sequence[str] = ()
) -> tuple[LabelledSplit, LabelledSplit | None]:
    """Give train and valid one vocabulary, and their groups.

    Parameters
    ----------
    data : Path
        The data folder.
    train, valid : LabelledSplit
        Each with a vocabulary of its own.
    concepts : sequence of str
        The concepts to learn; those of the readable training images if empty.

    Raises
    ------
    DataError
        No training image has a concept, or none has one that is to be learnt; or groups are at fault.

    Warns
    -----
    DataWarning
        Some of the concepts to learn are in no training image.
    """
    if not train.vocabulary:
        raise DataError("no training image that can be read has a concept; check the images and train_concepts.csv")
    unknown = sorted(set(concepts) - set(train.vocabulary))
    if unknown and len(unknown) == len(set(concepts)):
        raise DataError(f"none of the concepts to learn is in a training image ({some(unknown)}), which have "
                        f"{some(train.vocabulary)}; correct CONCEPTS (--concepts)")  # fmt: skip
    if unknown:
        warn(f"{len(unknown):,} of the concepts to learn are in no training image ({some(unknown)}); they cannot "
             "be learnt")  # fmt: skip
    groups, valid_groups = find_groups(data, train.readable_ids, valid.readable_ids if valid else [])
    train = replace(train, vocabulary=sorted(set(concepts)) or train.vocabulary, groups=groups)
    if valid:
        valid = replace(valid, vocabulary=train.vocabulary, groups=valid_groups, train=train)
    return train, valid
