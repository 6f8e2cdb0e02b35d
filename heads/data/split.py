"""Rows of a store joined with labels, by id."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray
from sklearn.preprocessing import MultiLabelBinarizer

from cache.rows import Embeddings, row_blocks
from cache.store import FeatureStore
from cache.support.errors import UserError
from cache.support.files import digest_file
from cache.support.messages import some
from cache.support.reporting import warn
from eval.form_check import CUI
from eval.labels import find_label_file, read_concepts
from heads.data.maps import Maps

Concepts = tuple[str, ...]


@dataclass(frozen=True)
class LabelledSplit:
    """The labelled images of one split, all in the store's order.

    Parameters
    ----------
    ids : list of str
    X : ndarray of float32 or float16, shape (n_images, n_features), or Maps
        Embeddings; NaN where `readable` is False. Of a store of maps, those, which stay on the disk.
    readable : ndarray of bool, shape (n_images,)
    concepts : list of tuple of str
        The concepts of each image.
    manual : dict of str to tuple of str, or None
        The manual annotations by id, if the split is valid and the data has them.
    files : dict of str to str
        SHA-256 of each label file that was read, by name.
    """

    ids: list[str]
    X: Any
    readable: NDArray[np.bool_]
    concepts: list[Concepts]
    manual: dict[str, Concepts] | None
    files: dict[str, str]

    @property
    def readable_ids(self) -> list[str]:
        """The ids of the images that can be read."""
        return [id for id, readable in zip(self.ids, self.readable, strict=True) if readable]

    @property
    def readable_concepts(self) -> list[Concepts]:
        """The concepts of the images that can be read."""
        return [each for each, readable in zip(self.concepts, self.readable, strict=True) if readable]


def load_labelled(store: FeatureStore, data: Path, split: str, pooling: str = "") -> LabelledSplit:
    """Join a split of a store with the labels of a data folder.

    Parameters
    ----------
    store : FeatureStore
    data : Path
        The data folder, with a label file under any edition's name.
    split : str
    pooling : str
        Which of the store's poolings; all, side by side, if empty.

    Raises
    ------
    UserError
        There are no labels, or none of them is for an image of the split.
    """
    path = find_label_file(data, split)
    if path is None:
        raise UserError(f"{data}: no labels for split '{split}'; expected {split}_concepts.csv in it")
    labels = read_concepts(path)
    rows = store.split(split)
    known = pd.Index(rows.ids).isin(labels.index)
    if not known.any():
        raise UserError(
            f"{path}: none of its {len(labels):,} ids is an image of split '{split}'; "
            f"it has '{labels.index[0]}', the images have '{rows.ids[0]}'"
        )
    # A file for all splits names the images of the others too.
    shared = path.name == "concepts.csv" and path.parent == data
    without_image = [] if shared else labels.index[~labels.index.isin(rows.ids)].tolist()
    if without_image:
        warn(f"{path}: {len(without_image):,} labels without an image are left out ({some(without_image)})")
    if not known.all():
        without_labels = [id for id, has in zip(rows.ids, known, strict=True) if not has]
        warn(f"{split}: {len(without_labels):,} images without labels are left out ({some(without_labels)})")
    ids = [id for id, has in zip(rows.ids, known, strict=True) if has]
    features = take_features(store, split, pooling)
    chosen = features if known.all() else features[known]
    readable = rows.readable[known]
    if not store.has_maps:  # maps are looked at when they are read
        _refuse_unfinite(store, split, ids, chosen, readable)
    concepts = labels.loc[ids].tolist()
    _tell_odd(path, {concept for each in concepts for concept in each})
    manual_path = find_label_file(data, split, "manual") if split == "valid" else None
    return LabelledSplit(
        ids=ids,
        X=chosen,
        readable=readable,
        concepts=concepts,
        manual=None if manual_path is None else _read_manual(manual_path),
        files={each.name: digest_file(each).hex() for each in (path, manual_path) if each is not None},
    )


def take_features(store: FeatureStore, split: str, pooling: str = "") -> Any:
    """What heads learn from and score: embeddings of one pooling or of all, or maps, which stay on the disk."""
    rows = store.split(split)
    if store.has_maps:
        return Maps.of(rows.embeddings)
    return rows.pooled(pooling) if pooling else rows.embeddings


def join_features(parts: Sequence[Any]) -> Any:
    """Features of the images of several splits, one after another."""
    if isinstance(parts[0], Maps):
        return Maps.join(parts)
    return np.concatenate([np.asarray(part, np.float32) for part in parts])


def _read_manual(path: Path) -> dict[str, Concepts] | None:
    try:
        return {str(id): concepts for id, concepts in read_concepts(path).items()}
    except UserError as error:
        warn(f"no secondary score: {error}")
        return None


def _tell_odd(path: Path, concepts: set[str]) -> None:
    odd = sorted(concept for concept in concepts if not CUI.fullmatch(concept))
    if odd:
        warn(f"{path}: {len(odd):,} concepts are not 'C' and digits ({some(odd)}); 2026 refuses a submission with them")


def _refuse_unfinite(
    store: FeatureStore, split: str, ids: list[str], X: Embeddings, readable: NDArray[np.bool_]
) -> None:
    """A row that is said to be fine and is not would poison every score."""
    for part in row_blocks(X):
        bad = part.start + np.flatnonzero(readable[part] & ~np.isfinite(X[part]).all(axis=1))
        if len(bad):
            raise UserError(
                f"{store.path}: the embedding of image '{ids[bad[0]]}' of {split} is not finite, though its "
                "status says fine; the store is damaged: move it away and run `make features` again"
            )


def find_vocabulary(concepts: Sequence[Concepts]) -> list[str]:
    """The sorted concepts of some images, the columns of every score and indicator.

    >>> find_vocabulary([("C2", "C1"), ("C2",)])
    ['C1', 'C2']
    """
    return sorted({concept for each in concepts for concept in each})


def indicator(concepts: Sequence[Concepts], vocabulary: Sequence[str]) -> scipy.sparse.csr_matrix:
    """Indicator matrix of images and concepts, shape (n_images, n_concepts).

    Concepts outside the vocabulary have no column; they still count in the official score.

    >>> indicator([("C2", "C9"), ()], ["C1", "C2"]).toarray().tolist()
    [[0, 1], [0, 0]]
    """
    known = set(vocabulary)
    binarizer = MultiLabelBinarizer(classes=list(vocabulary), sparse_output=True)
    return binarizer.fit_transform([[concept for concept in each if concept in known] for each in concepts])
