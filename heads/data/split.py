"""One split of a store joined with its labels, by image id."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from cache.packed_files import describe_packed
from cache.rows import Embeddings, row_blocks
from cache.store import FeatureStore
from cache.support.errors import DataError, ParameterError, StoreError, UserError
from cache.support.files import digest_file
from cache.support.image_ids import IdIndex
from cache.support.messages import quote, some
from cache.support.reporting import warn
from eval.editions import MAX_CONCEPTS
from eval.form_check import CUI
from eval.labels import find_label_file, image_id, read_concept_sets
from heads.data.maps import Maps
from heads.data.official_score import OfficialScore, score_concepts
from heads.data.types import Groups
from heads.data.vocabulary import Concepts, columns_to_concepts, fallback_set, find_vocabulary, indicator


@dataclass(frozen=True, eq=False, repr=False)
class LabelledSplit:
    """The labelled images of one split, in the store's order.

    `X`, `Y`, `groups` and `n_true` have one row per image that can be read. `ids`, `readable`, `concepts` and
    `features` have one per image.

    Parameters
    ----------
    name : str
        ``train`` or ``valid``.
    ids : list of str, length n_images
    features : ndarray of float32 or float16, shape (n_images, n_features), or Maps
        Embeddings, NaN where `readable` is False. Of a store of maps, the maps, which stay on the disk.
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
    readable: NDArray[np.bool_]
    concepts: list[Concepts]
    manual: dict[str, Concepts] | None
    files: dict[str, str]
    vocabulary: list[str]
    groups: Groups = None
    train: "LabelledSplit | None" = None

    def __repr__(self) -> str:
        n_unreadable, groups = int((~self.readable).sum()), "" if self.groups is None else ", in groups"
        return (
            f"<LabelledSplit '{self.name}': {len(self.ids):,} images ({n_unreadable:,} unreadable{groups}), "
            f"{len(self.vocabulary):,} concepts, features of shape {self.features.shape[1:]}>"
        )

    @cached_property
    def X(self) -> Any:
        """Features of the images that can be read, shape (n_readable, n_features), or Maps.

        They are copied once if an image cannot be read, and not at all otherwise.
        """
        return select_readable(self.features, self.readable)

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
        One of the store's poolings; all of them, side by side, if empty.

    Raises
    ------
    DataError
        There are no labels, or none of them is for an image of the split.
    StoreError
        An embedding is not finite.
    """
    path = find_label_file(data, name)
    if path is None:
        raise DataError(
            f"{data}: no labels for split '{name}'; expected {name}_concepts.csv in it{_describe_others(data, name)}"
        )
    rows = store.split(name)
    labels = _join_labels(path, rows.ids)
    known = np.array([id in labels.of_image for id in rows.ids])
    if not known.any():
        raise DataError(
            f"{path}: none of its {len(labels.without_image):,} ids is an image of split '{name}'; "
            f"it has {quote(labels.without_image[0])}, the images have {quote(rows.ids[0])}"
        )
    # A file for all splits has the images of the others, too.
    shared = path.stem.lower() == "concepts" and path.parent == data
    without_image = [] if shared else labels.without_image
    if without_image:
        warn(f"{path}: {len(without_image):,} labels without an image are left out ({some(without_image)})")
    if not known.all():
        without_labels = [id for id, has in zip(rows.ids, known, strict=True) if not has]
        warn(f"{name}: {len(without_labels):,} images without labels are left out ({some(without_labels)})")
    ids = [id for id, has in zip(rows.ids, known, strict=True) if has]
    features = find_features(store, name, pooling)
    features = features if known.all() else features[known]
    readable = rows.readable[known]
    if not store.has_maps:  # maps are checked when they are read
        _refuse_unfinite(store, name, ids, features, readable)
    concepts = [labels.of_image[id] for id in ids]
    _warn_of_odd_concepts(path, {concept for each in concepts for concept in each})
    manual_path = find_label_file(data, name, "manual") if name == "valid" else None
    return LabelledSplit(
        name=name,
        ids=ids,
        features=features,
        readable=readable,
        concepts=concepts,
        manual=None if manual_path is None else _read_manual(manual_path, rows.ids),
        files={each.name: digest_file(each).hex() for each in (path, manual_path) if each is not None},
        vocabulary=find_vocabulary([each for each, can_read in zip(concepts, readable, strict=True) if can_read]),
    )


def find_features(store: FeatureStore, split: str, pooling: str = "") -> Any:
    """What heads learn from and score, of every image of a split.

    Parameters
    ----------
    store : FeatureStore
    split : str
    pooling : str
        One of the store's poolings; all of them, side by side, if empty.

    Returns
    -------
    ndarray of float32 or float16, shape (n_images, n_features), or Maps
        Both stay on the disk.
    """
    rows = store.split(split)
    if store.has_maps:
        return Maps.from_array(rows.embeddings)
    return rows.pooled(pooling) if pooling else rows.embeddings


def select_readable(features: Any, readable: NDArray[np.bool_]) -> Any:
    """Features of the images that can be read; no copy if all can."""
    return features if readable.all() else features[readable]


def join_features(parts: Sequence[Any]) -> Any:
    """Features of the images of several splits, one after another."""
    if isinstance(parts[0], Maps):
        return Maps.join(parts)
    return np.concatenate([np.asarray(part, np.float32) for part in parts])


@dataclass(frozen=True)
class _Labels:
    """The concepts of images by their ids in the store, and the ids in the label file that are those of no image."""

    of_image: dict[str, Concepts]
    without_image: list[str]


def _join_labels(path: Path, ids: Sequence[str]) -> _Labels:
    """Read labels, and find the image of each id, which the file may spell in another way."""
    concepts = read_concept_sets(path, spelled=True)
    try:
        rows = dict(zip(concepts, IdIndex(ids).find_rows(list(concepts)), strict=True))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    of_image: dict[str, Concepts] = {}
    for id, row in rows.items():
        if row >= 0 and of_image.setdefault(ids[row], concepts[id]) != concepts[id]:
            raise DataError(
                f"{path}: {quote(id)} is image {quote(ids[row])}, which has an earlier row with other concepts; "
                "keep one of them"
            )
    return _Labels(of_image, list(dict.fromkeys(image_id(id) for id, row in rows.items() if row < 0)))


def _read_manual(path: Path, ids: Sequence[str]) -> dict[str, Concepts] | None:
    try:
        return _join_labels(path, ids).of_image
    except UserError as error:
        warn(f"no secondary score: {error}")
        return None


def _describe_others(data: Path, split: str) -> str:
    """What a data folder without labels has instead, as the end of a message; first what is called like labels."""
    names = [path.name for path in data.glob("[!.]*") if path.suffix.lower() in (".csv", ".tsv", ".txt", ".json")]
    tables = sorted(names, key=lambda name: (not re.search(f"concept|label|cui|{split}", name, re.IGNORECASE), name))
    return (f"; it has {some(tables)}" if tables else "") + describe_packed(data, labels=True)


def _warn_of_odd_concepts(path: Path, concepts: set[str]) -> None:
    odd = sorted(concept for concept in concepts if not CUI.fullmatch(concept))
    if odd:
        warn(f"{path}: {len(odd):,} concepts are not 'C' and digits ({some(odd)}); 2026 refuses a submission with them")


def _refuse_unfinite(
    store: FeatureStore, split: str, ids: list[str], X: Embeddings, readable: NDArray[np.bool_]
) -> None:
    """Refuse NaN and infinity in a row whose status is fine: they would spoil every score."""
    for part in row_blocks(X):
        bad = part.start + np.flatnonzero(readable[part] & ~np.isfinite(X[part]).all(axis=1))
        if len(bad):
            raise StoreError(
                f"{store.path}: the embedding of image '{ids[bad[0]]}' of {split} is not finite, though its "
                "status says fine; the store is damaged: move it away and run `make features` again"
            )
