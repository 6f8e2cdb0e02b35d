"""Check every byte of a store, and say what stands where one is wrong."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from cache.block_digests import find_damage
from cache.rows import block_rows
from cache.store import FeatureStore
from cache.support.errors import UserError


@dataclass(frozen=True)
class Defect:
    """Something wrong: bytes from `start` up to `end`, and what stands there."""

    start: int
    end: int
    where: str


def verify_store(path: Path) -> list[Defect]:
    """Check a store.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of Defect
        Empty if every byte is as it was written and every readable row is finite.

    Raises
    ------
    UserError
        There is no such file, or its end is missing.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such store; make it with `make features` or name another STORE")
    places = _find_places(path)
    defects = [
        Defect(damage.start, damage.end, _say_where(damage.start, damage.end, places)) for damage in find_damage(path)
    ]
    return defects or _find_unfinite(path)


@dataclass(frozen=True)
class _Place:
    """Where a data set stands in the file."""

    name: str
    start: int
    end: int
    row_bytes: int


def _find_places(path: Path) -> list[_Place]:
    """The data sets that HDF5 can still find."""
    places: list[_Place] = []

    def note(name: str, each: object) -> None:
        if isinstance(each, h5py.Dataset) and each.id.get_offset() is not None and len(each):
            start = each.id.get_offset()
            places.append(_Place(name, start, start + each.nbytes, each.nbytes // len(each)))

    try:
        with h5py.File(path, "r", locking=False) as file:
            file.visititems(note)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError):
        pass  # the damage is in HDF5's own structure, and is located by its bytes alone
    return places


def _say_where(start: int, end: int, places: list[_Place]) -> str:
    found = []
    for place in places:
        low, high = max(start, place.start), min(end, place.end)
        if low < high:
            first, last = (low - place.start) // place.row_bytes, (high - 1 - place.start) // place.row_bytes
            found.append(f"{place.name} rows {first:,} to {last:,}")
    return "; ".join(found) or "the file's structure or its digests"


def _find_unfinite(path: Path) -> list[Defect]:
    """Rows whose status says fine and whose embedding is not finite: written so, not damaged."""
    defects = []
    for name, split in FeatureStore(path).splits.items():
        step = block_rows(split.embeddings)
        for start in range(0, len(split.ids), step):
            part = slice(start, start + step)
            finite = np.isfinite(split.embeddings[part])
            bad = split.readable[part] & ~finite.all(axis=tuple(range(1, finite.ndim)))
            defects += [
                Defect(0, 0, f"splits/{name}/embeddings row {start + row:,} ({split.ids[start + row]}) is not finite")
                for row in np.flatnonzero(bad)
            ]
    return defects
