"""Check every byte of a store, and say which rows are damaged."""

import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from cache.block_digests import find_damage
from cache.rows import row_blocks
from cache.store import FeatureStore, require_store


@dataclass(frozen=True)
class Defect:
    """Something wrong in a store.

    Parameters
    ----------
    start, end : int
        The damaged bytes, from `start` up to, not including, `end`; both 0 where no byte is damaged.
    where : str
        The data sets and rows that these bytes belong to.
    """

    start: int
    end: int
    where: str


def verify_store(path: str | os.PathLike[str], *, embeddings: bool = True) -> list[Defect]:
    """Check every byte of a store against its digest.

    Parameters
    ----------
    path : path-like
        The HDF5 file.
    embeddings : bool
        Whether to check embeddings. `FeatureStore.blocks` checks them as they are read, so whoever copies them all
        need not read them twice.

    Returns
    -------
    list of Defect
        Empty if every byte is as it was written and every readable row is finite.

    Raises
    ------
    StoreError
        There is no such file, or its end is missing.
    """
    path = require_store(path)
    places = _find_places(path)
    unread = [] if embeddings else [(each.start, each.end) for each in places if each.name.endswith("/embeddings")]
    defects = [
        Defect(damage.start, damage.end, _locate(damage.start, damage.end, places))
        for damage in find_damage(path, unread)
    ]
    return defects or (_find_not_finite(path) if embeddings else [])


@dataclass(frozen=True)
class _Place:
    """The bytes of a data set in the file."""

    name: str
    start: int
    end: int
    row_bytes: int


def _find_places(path: Path) -> list[_Place]:
    """The data sets that HDF5 can still find."""
    places: list[_Place] = []

    def add(name: str, each: object) -> None:
        if isinstance(each, h5py.Dataset) and each.id.get_offset() is not None and len(each):
            start = each.id.get_offset()
            places.append(_Place(name, start, start + each.nbytes, each.nbytes // len(each)))

    try:
        with h5py.File(path, "r", locking=False) as file:
            file.visititems(add)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError):
        pass  # HDF5's own structure is damaged: the damage is reported by its bytes alone
    return places


def _locate(start: int, end: int, places: list[_Place]) -> str:
    found = []
    for place in places:
        low, high = max(start, place.start), min(end, place.end)
        if low < high:
            first, last = (low - place.start) // place.row_bytes, (high - 1 - place.start) // place.row_bytes
            found.append(f"{place.name} rows {first:,} to {last:,}")
    return "; ".join(found) or "the file's structure or its digests"


def _find_not_finite(path: Path) -> list[Defect]:
    """Rows that are marked as readable and have an embedding that is not finite: a fault of the writer, not damage."""
    defects = []
    for name, split in FeatureStore(path).splits.items():
        for part in row_blocks(split.embeddings):
            finite = np.isfinite(split.embeddings[part])
            bad = split.readable[part] & ~finite.all(axis=tuple(range(1, finite.ndim)))
            for row in part.start + np.flatnonzero(bad):
                where = f"splits/{name}/embeddings row {row:,} ({split.ids[row]}) is not finite"
                defects.append(Defect(0, 0, where))
    return defects
