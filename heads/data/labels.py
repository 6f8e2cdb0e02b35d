"""The label files of a data folder, joined with the ids of the images of a split. No embeddings are needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.packed_files import describe_packed
from cache.support.errors import DataError, UserError
from cache.support.files import digest_file
from cache.support.image_ids import IdIndex
from cache.support.messages import quote, some
from cache.support.reporting import warn
from eval.form_check import CUI
from eval.labels import describe_names, find_label_file, image_id, read_concept_sets
from heads.data.unused import list_tables
from heads.data.vocabulary import Concepts


@dataclass(frozen=True)
class SplitLabels:
    """The labels of the images of one split.

    Parameters
    ----------
    known : ndarray of bool, shape (n_images,)
        Whether each image has labels.
    concepts : list of tuple of str, length n_labelled
        The concepts of each image that has labels.
    manual : dict of str to tuple of str, or None
        The manual annotations by id, if the split is valid and the data folder has them.
    files : dict of str to str
        SHA-256 of each label file that was read, by name.
    """

    known: NDArray[np.bool_]
    concepts: list[Concepts]
    manual: dict[str, Concepts] | None
    files: dict[str, str]

    @classmethod
    def read(cls, data: Path, name: str, ids: Sequence[str]) -> "SplitLabels":
        """Find and read the label files of a split.

        Parameters
        ----------
        data : Path
            The data folder, with a label file under any edition's name.
        name : str
            The split.
        ids : sequence of str, length n_images
            The images of the split.

        Raises
        ------
        DataError
            There are no labels, or none of them is for an image of the split.

        Warns
        -----
        DataWarning
            Labels have no image, images have no labels, or a concept is not 'C' and digits.
        """
        path = find_label_file(data, name)
        if path is None:
            raise DataError(
                f"{data}: no labels for split '{name}'; expected {describe_names(name)}{_describe_others(data, name)}"
            )
        labels = _join_labels(path, ids)
        known = np.array([id in labels.of_image for id in ids], dtype=bool)
        if not known.any():
            raise DataError(
                f"{path}: none of its {len(labels.without_image):,} ids is an image of split '{name}'; "
                f"it has {quote(labels.without_image[0])}, the images have {quote(ids[0])}"
            )
        # A file for all splits has the images of the others, too.
        shared = path.stem.lower() == "concepts" and path.parent == data
        without_image = [] if shared else labels.without_image
        if without_image:
            warn(f"{path}: {len(without_image):,} labels without an image are left out ({some(without_image)})")
        if not known.all():
            without_labels = [id for id, has in zip(ids, known, strict=True) if not has]
            warn(f"{name}: {len(without_labels):,} images without labels are left out ({some(without_labels)})")
        concepts = [labels.of_image[id] for id, has in zip(ids, known, strict=True) if has]
        _warn_of_odd_concepts(path, {concept for each in concepts for concept in each})
        manual_path = find_label_file(data, name, "manual") if name == "valid" else None
        return cls(
            known=known,
            concepts=concepts,
            manual=None if manual_path is None else _read_manual(manual_path, ids),
            files={each.name: digest_file(each).hex() for each in (path, manual_path) if each is not None},
        )


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
    """What a data folder without labels has instead, as the end of a message."""
    tables = list_tables(data, split)
    return f"; it has {some(tables, 8) or 'no table'}" + describe_packed(data, labels=True)


def _warn_of_odd_concepts(path: Path, concepts: set[str]) -> None:
    odd = sorted(concept for concept in concepts if not CUI.fullmatch(concept))
    if odd:
        warn(f"{path}: {len(odd):,} concepts are not 'C' and digits ({some(odd)}); 2026 refuses a submission with them")
