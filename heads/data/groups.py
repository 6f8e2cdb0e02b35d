"""Groups of images that belong together, such as those of one patient: read from the data folder.

Images of a group stay on one side of every split into folds. Otherwise a head is scored on patients that it knows.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.support.errors import DataError
from eval.labels import image_id, read_concepts

GROUPS, SOURCES = "groups.csv", "sources.csv"
"""A file with the rows ``ID,group``, or a larger table with these two columns. Both are optional."""


def find_groups(
    data: Path, train: Sequence[str], valid: Sequence[str]
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Find the group of each image of train and of valid.

    Parameters
    ----------
    data : Path
        The data folder.
    train, valid : sequence of str
        Ids of images.

    Returns
    -------
    train, valid : ndarray of int, or None
        The number of each image's group, counted within the split. None if the data folder has no groups; for valid
        also if one of its images has none.

    Raises
    ------
    DataError
        Some training images have a group, and others have none.
    """
    path = next((data / name for name in (GROUPS, SOURCES) if (data / name).is_file()), None)
    groups = _read_groups(path) if path else {}
    if not groups:
        return None, None
    ungrouped = [id for id in train if id not in groups]
    if ungrouped:
        raise DataError(f"{path}: {len(ungrouped):,} training images have no group, such as '{ungrouped[0]}'; add them")
    return _number(groups, train), _number(groups, valid) if all(id in groups for id in valid) else None


def _read_groups(path: Path) -> dict[str, str]:
    """The group of each image. An image with an empty cell is a group by itself. Empty without such a column."""
    if path.name == GROUPS:
        return {str(id): ";".join(names) or str(id) for id, names in read_concepts(path).items()}
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        if not {"ID", "group"} <= set(rows.fieldnames or ()):
            return {}
        return {image_id(row["ID"]): row["group"] or row["ID"] for row in rows if row["ID"]}


def _number(groups: Mapping[str, str], ids: Sequence[str]) -> NDArray[np.int64]:
    numbers: NDArray[Any] = np.unique([groups[id] for id in ids], return_inverse=True)[1]
    return numbers
