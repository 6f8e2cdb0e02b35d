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
from cache.support.image_ids import IdIndex
from cache.support.messages import quote
from eval.label_rows import GROUP_COLUMNS, read_label_rows
from eval.labels import image_id

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
    spelled = _read_groups(path) if path else {}
    if path is None or not spelled:
        return None, None
    groups = _join_groups(path, spelled, [*train, *valid])
    ungrouped = [id for id in train if id not in groups]
    if ungrouped:
        raise DataError(f"{path}: {len(ungrouped):,} training images have no group, such as '{ungrouped[0]}'; add them")
    return _number(groups, train), _number(groups, valid) if all(id in groups for id in valid) else None


def _join_groups(path: Path, groups: Mapping[str, str], ids: Sequence[str]) -> dict[str, str]:
    """The group of each image that has one; the file may spell ids in another way."""
    try:
        rows = IdIndex(ids).find_rows(list(groups))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    found: dict[str, str] = {}
    for (id, group), row in zip(groups.items(), rows, strict=True):
        if row >= 0 and found.setdefault(ids[row], group) != group:
            raise DataError(f"{path}: {quote(id)} is image {quote(ids[row])}, which has another group, too; keep one")
    return found


def _read_groups(path: Path) -> dict[str, str]:
    """The group of each id. An image with an empty cell is a group by itself. Empty without such a column."""
    if path.name == GROUPS:
        groups: dict[str, str] = {}
        for line, id, cell in read_label_rows(path, GROUP_COLUMNS):
            names = dict.fromkeys(part.strip().upper() for part in cell.split(";") if part.strip())
            group = ";".join(names) or image_id(id)
            if groups.setdefault(id, group) != group:
                raise DataError(
                    f"{path}: line {line}: image {quote(id)} has an earlier row with another group; keep one"
                )
        if not groups:
            raise DataError(f"{path}: no image in it; expected an id and its group per row")
        return groups
    return _read_sources(path)


def _read_sources(path: Path) -> dict[str, str]:
    """The groups of a table that has a column of them, among others; empty without it."""
    remedy = "mend the file, or move it away if it has no groups"
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        try:
            names = rows.fieldnames or ()
            if any("\0" in name for name in names):
                raise DataError(f"{path}: has zero bytes, as UTF-16 has, expected UTF-8; {remedy}")
            if not {"ID", "group"} <= set(names):
                return {}
            return {row["ID"].strip(): row["group"] or row["ID"] for row in rows if row["ID"]}
        except UnicodeDecodeError:
            raise DataError(f"{path}: not a text file in UTF-8; {remedy}") from None
        except csv.Error as error:
            place = f"{path}: line {rows.line_num + 1}"
            raise DataError(f"{place}: {error}; expected a table with columns ID and group; {remedy}") from None


def _number(groups: Mapping[str, str], ids: Sequence[str]) -> NDArray[np.int64]:
    numbers: NDArray[Any] = np.unique([groups[id] for id in ids], return_inverse=True)[1]
    return numbers
