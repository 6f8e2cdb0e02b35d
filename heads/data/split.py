"""One split of a store joined with its labels, by image id."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from cache.provenance import NO_POOLING
from cache.rows import row_blocks
from cache.store import FeatureStore, Split
from cache.support.errors import DataError, ParameterError, StoreError
from eval.editions import MAX_CONCEPTS
from heads.data.labels import SplitLabels
from heads.data.maps import Maps
from heads.data.official_score import OfficialScore, score_concepts
from heads.data.types import Groups
from heads.data.vocabulary import Concepts, columns_to_concepts, fallback_set, find_vocabulary, indicator

TUNING_IMAGES = 100_000
"""About as many training images have scores at most, on which decoders are tuned: one per concept takes 0.8 GB. What a
concept's threshold could gain from more images is less than what it would differ by with others."""


@dataclass(frozen=True, eq=False, repr=False)
class LabelledSplit:
    """The labelled images of one split, in the store's order.

    `X`, `Y`, `groups` and `n_true` have one row per image that can be read. `ids`, `rows`, `readable` and `concepts`
    have one per image. `features` has one per image of the store, also of those without labels.

    Parameters
    ----------
    name : str
        ``train`` or ``valid``.
    ids : list of str, length n_images
    features : ndarray of float32 or float16, shape (n_stored, n_features), or Maps
        Embeddings, NaN where an image cannot be read; the maps of a store of maps. Both stay on the disk.
    rows : ndarray of int, shape (n_images,)
        The row of each image in `features`.
    readable : ndarray of bool, shape (n_images,)
    concepts : list of tuple of str, length n_images
        The concepts of each image, also those outside the vocabulary.
    manual : dict of str to tuple of str, or None
        The manual annotations by id, if the split is valid and the data folder has them.
    files : dict of str to str
        SHA-256 of each label file that was read, by name.
    vocabulary : list of str, length n_concepts
        The concept of each column of `Y`, sorted.
    groups : ndarray of int, shape (n_readable,), or None
        The group of each image, such as its patient.
    train : LabelledSplit or None
        The split whose most frequent concepts are the fallback set; None if it is this one.
    """

    name: str
    ids: list[str]
    features: Any
    rows: NDArray[np.int64]
    readable: NDArray[np.bool_]
    concepts: list[Concepts]
    manual: dict[str, Concepts] | None
    files: dict[str, str]
    vocabulary: list[str]
    groups: Groups = None
    train: "LabelledSplit | None" = None

    @classmethod
    def join(
        cls, name: str, ids: Sequence[str], labels: SplitLabels, readable: NDArray[np.bool_], features: Any
    ) -> "LabelledSplit":
        """Join images with their labels; those without are left out. The vocabulary is that of the readable images.

        Parameters
        ----------
        name : str
        ids : sequence of str, length n_images
        labels : SplitLabels
            The labels of these images.
        readable : ndarray of bool, shape (n_images,)
        features : ndarray or Maps
            Of all images, also those without labels; None if they are not embedded yet.
        """
        known = labels.known
        readable = readable[known]
        return cls(
            name=name,
            ids=[id for id, is_known in zip(ids, known, strict=True) if is_known],
            features=features,
            rows=np.flatnonzero(known),
            readable=readable,
            concepts=labels.concepts,
            manual=labels.manual,
            files=labels.files,
            vocabulary=find_vocabulary(
                [each for each, can_read in zip(labels.concepts, readable, strict=True) if can_read]
            ),
        )

    def __repr__(self) -> str:
        n_unreadable, groups = int((~self.readable).sum()), "" if self.groups is None else ", in groups"
        return (
            f"<LabelledSplit '{self.name}': {len(self.ids):,} images ({n_unreadable:,} unreadable{groups}), "
            f"{len(self.vocabulary):,} concepts, features of shape {self.features.shape[1:]}>"
        )

    @cached_property
    def X(self) -> Any:
        """Features of the images that can be read, shape (n_readable, n_features), or Maps.

        They are copied once if an image has no labels or cannot be read, and not at all otherwise.
        """
        rows = self.rows[self.readable]
        return self.features if len(rows) == len(self.features) else self.features[rows]

    @cached_property
    def Y(self) -> scipy.sparse.csr_matrix:
        """Indicator matrix of the images that can be read, shape (n_readable, n_concepts)."""
        return indicator(self.readable_concepts, self.vocabulary)

    @cached_property
    def n_true(self) -> NDArray[np.int64]:
        """How many concepts each image that can be read has, shape (n_readable,).

        Concepts without a column are counted, so this may be more than a row sum of `Y`.
        """
        return np.array([len(each) for each in self.readable_concepts], dtype=np.int64)

    @property
    def tuning(self) -> "LabelledSplit":
        """The images that decoders are tuned on: all, or about `TUNING_IMAGES` if there are more."""
        return self if len(self.ids) <= TUNING_IMAGES else self._sample

    @property
    def tuning_rows(self) -> NDArray[np.int64]:
        """Which rows of `X` are those of `tuning`."""
        rows, chosen = (each.rows[each.readable] for each in (self, self.tuning))
        return np.searchsorted(rows, chosen)

    @cached_property
    def _sample(self) -> "LabelledSplit":
        # Chosen by their ids, so that runs on several stores of the same images can be combined.
        share = 2**64 * TUNING_IMAGES // len(self.ids)
        return self.select(np.array([row for row, id in enumerate(self.ids) if _draw(id) < share], np.int64))

    def select(self, images: NDArray[np.int64]) -> "LabelledSplit":
        """Some of the images, readable or not.

        Parameters
        ----------
        images : ndarray of int
            Places in `ids`, in ascending order.
        """
        groups = self.groups
        if groups is not None:
            groups = groups[(np.cumsum(self.readable) - 1)[images[self.readable[images]]]]
        return replace(
            self,
            ids=[self.ids[image] for image in images],
            rows=self.rows[images],
            readable=self.readable[images],
            concepts=[self.concepts[image] for image in images],
            groups=groups,
            train=self.train or self,
        )

    def count_concepts(self) -> dict[str, int]:
        """How many images that can be read have each concept of the vocabulary."""
        counts = np.asarray(self.Y.sum(axis=0)).ravel().tolist()
        return dict(zip(self.vocabulary, counts, strict=True))

    @cached_property
    def fallback(self) -> list[str]:
        """The concepts given to an image that cannot be read: the set that scores best on all of train."""
        return self.train.fallback if self.train else fallback_set(self.Y, self.vocabulary, MAX_CONCEPTS)

    @property
    def readable_ids(self) -> list[str]:
        """The ids of the images that can be read."""
        return [id for id, readable in zip(self.ids, self.readable, strict=True) if readable]

    @property
    def readable_concepts(self) -> list[Concepts]:
        """The concepts of the images that can be read."""
        return [each for each, readable in zip(self.concepts, self.readable, strict=True) if readable]

    def score(self, Y_pred: ArrayLike) -> OfficialScore:
        """Score predictions by the official rules of the latest edition.

        Images that cannot be read are counted with the fallback set. Concepts without a column count as missed.

        Parameters
        ----------
        Y_pred : array or sparse matrix of {0, 1}, shape (n_readable, n_concepts)
            The predicted concepts of the images of `X`.

        Returns
        -------
        OfficialScore
            Primary and secondary F1 with their 95% intervals. ``print`` shows them on one line.

        Raises
        ------
        ParameterError
            The predictions have another shape.
        DataError
            The evaluator counts none of the images.
        """
        predicted = scipy.sparse.csr_matrix(Y_pred)
        if predicted.shape != self.Y.shape:
            raise ParameterError(
                f"Y_pred has shape {predicted.shape}, expected {self.Y.shape}: one row per image of {self.name} that "
                "can be read and one column per concept"
            )
        predicted.eliminate_zeros()
        concepts = columns_to_concepts(predicted, self.vocabulary, self.readable, self.fallback)
        score = self.score_concepts(concepts)
        if score is None:
            raise DataError(f"the official evaluator counts no image of {self.name}; rename the images")
        return score

    def score_concepts(self, predicted: Sequence[Sequence[str]]) -> OfficialScore | None:
        """Score the predicted concepts of each image, readable or not; None if the evaluator counts no image."""
        truth, sets = (dict(zip(self.ids, each, strict=True)) for each in (self.concepts, predicted))
        return score_concepts(truth, self.manual, sets, int((~self.readable).sum()), self.name)


def load_split(store: FeatureStore, data: Path, name: str, pooling: str = "") -> LabelledSplit:
    """Join a split of a store with the labels of a data folder.

    Its vocabulary is that of its own readable images.

    Parameters
    ----------
    store : FeatureStore
    data : Path
        The data folder, with a label file under any edition's name.
    name : str
    pooling : str
        Names of parts of the store's features, with commas between them; all parts if empty.

    Raises
    ------
    DataError
        There are no labels, or none of them is for an image of the split.
    StoreError
        An embedding is not finite.
    """
    rows = store.split(name)
    labels = SplitLabels.read(data, name, rows.ids)
    features = find_features(store, name, pooling)
    split = LabelledSplit.join(name, rows.ids, labels, rows.readable, features)
    if not store.has_maps:  # maps are checked when they are read
        _refuse_unfinite(store, split)
    return split


def expect_split(data: Path, name: str, ids: Sequence[str]) -> LabelledSplit:
    """The labelled images of a split that is not embedded yet: all count as readable, and there are no features.

    Parameters
    ----------
    data : Path
        The data folder.
    name : str
    ids : sequence of str
        The images of the split.

    Raises
    ------
    DataError
        There are no labels, or none of them is for an image of the split.
    """
    return LabelledSplit.join(name, ids, SplitLabels.read(data, name, ids), np.ones(len(ids), dtype=bool), None)


def find_features(store: FeatureStore, split: str, pooling: str = "") -> Any:
    """What heads learn from and score, of every image of a split.

    Parameters
    ----------
    store : FeatureStore
    split : str
    pooling : str
        Names of parts of the store's features, with commas between them; all parts if empty.

    Returns
    -------
    ndarray of float32 or float16, shape (n_images, n_features), or Maps
        Both stay on the disk.
    """
    return pick_features(store.split(split), pooling)


def pick_features(rows: Split, pooling: str = "") -> Any:
    """What heads learn from and score, of every image of some rows; see `find_features`."""
    if NO_POOLING in rows.parts.names:
        return Maps.from_array(rows.embeddings)
    return rows.select(pooling) if pooling else rows.embeddings


def select_readable(features: Any, readable: NDArray[np.bool_]) -> Any:
    """Features of the images that can be read; no copy if all can."""
    return features if readable.all() else features[readable]


def join_features(parts: Sequence[Any]) -> Any:
    """Features of the images of several splits, one after another."""
    if isinstance(parts[0], Maps):
        return Maps.join(parts)
    return np.concatenate([np.asarray(part, np.float32) for part in parts])


def _draw(id: str) -> int:
    """A number of 64 bits that depends on an image's id alone."""
    return int.from_bytes(hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _refuse_unfinite(store: FeatureStore, split: LabelledSplit) -> None:
    """Refuse NaN and infinity in a row whose status is fine: they would spoil every score."""
    X, is_used = split.features, np.zeros(len(split.features), dtype=bool)
    is_used[split.rows[split.readable]] = True
    for part in row_blocks(X):
        bad = part.start + np.flatnonzero(is_used[part] & ~np.isfinite(X[part]).all(axis=1))
        if len(bad):
            raise StoreError(
                f"{store.path}: the embedding of image '{store.split(split.name).ids[bad[0]]}' of {split.name} is not "
                "finite, though its status says fine; the store is damaged: move it away and run `make features` again"
            )
