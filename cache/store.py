"""The feature store: for each split the ids, image digests, status and embeddings, row by row.

One surprise: embeddings are not read through HDF5. The packed file keeps them contiguous, so they are mapped
from the file at their offset: opening costs nothing and any number of processes share the pages.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.provenance import NO_POOLING, SCHEMA, Provenance
from cache.rows import DIGEST_BYTES, OK, Embeddings, Rows, block_rows, unpack_reasons
from cache.safe_hdf5 import UnsafeFileError, open_dataset, open_group, read_array, read_text
from cache.support.errors import UserError
from cache.support.messages import some

MOST_ID_BYTES = 512
"""File names are shorter on every file system."""


@dataclass(frozen=True)
class Split:
    """The rows of one split, all in the same order.

    Parameters
    ----------
    ids : list of str, length n_images
        Image ids, no two alike.
    rows : Rows
        Digests, status, reasons and embeddings; the embeddings are a read-only memory map.
    poolings : tuple of str
        How maps became embeddings; several stand side by side, each as wide as the others.
    """

    ids: list[str]
    rows: Rows
    poolings: tuple[str, ...]

    @property
    def embeddings(self) -> Embeddings:
        """Embeddings, shape (n_images, n_features), those of all poolings side by side; NaN where unreadable.

        Maps, shape (n_images, height, width, n_features), where the one pooling is ``none``.
        """
        return self.rows.embeddings

    def pooled(self, pooling: str) -> Embeddings:
        """Embeddings of one pooling of several, or of all of them (``avg,gem``), with no copy.

        Raises
        ------
        UserError
            There are none of that pooling.
        """
        if set(pooling.split(",")) == set(self.poolings):
            return self.embeddings
        if pooling not in self.poolings:
            raise UserError(f"no embeddings of pooling '{pooling}'; there are {', '.join(self.poolings)}")
        width = self.embeddings.shape[1] // len(self.poolings)
        start = self.poolings.index(pooling) * width
        return self.embeddings[:, start : start + width]

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Whether each image has an embedding, shape (n_images,)."""
        return self.rows.status == OK

    def unreadable(self) -> list[str]:
        """Each image without an embedding as ``id: reason``."""
        return [f"{self.ids[row]}: {self.rows.reasons[row]}" for row in np.flatnonzero(~self.readable)]


class FeatureStore:
    """A finished store, opened for reading.

    A stranger's file may be opened: nothing of it is executed, nothing outside it is read, and no size that it
    declares is believed.

    Parameters
    ----------
    path : Path
        The HDF5 file.

    Attributes
    ----------
    provenance : Provenance
        The declared facts.
    record : dict
        What is recorded beside the facts: where the weights came from, library versions, date.
    content : str
        Digest of everything that the store says; changes whenever an id, an image or an embedding does.
    splits : dict of str to Split

    Raises
    ------
    UserError
        There is no such file, it is not a finished store, or its layout is of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"{path}: no such store; make it with `make features` or name another STORE")
        try:
            # Readers take no lock: a store on a read-only or network file system must open.
            # And one descriptor serves HDF5 and the map: by name, a writer could put another file between them.
            with open(self.path, "rb") as raw, h5py.File(raw, "r") as file:
                self._read(file, raw)
        except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError) as error:
            raise UserError(
                f"{path}: not a finished feature store ({' '.join(str(error).split())}); expected the file that "
                "`python -m featurize` makes; move it away and run `make features` again"
            ) from error

    def _read(self, file: h5py.File, raw: BinaryIO) -> None:
        schema = read_text(file, "schema")
        if schema != str(SCHEMA):
            raise UserError(
                f"{self.path}: layout version {schema}, expected {SCHEMA}; "
                "use the version of this software that made it, or make it again under another name"
            )
        self.provenance = Provenance.from_json(read_text(file, "provenance"))
        self.record = _check_record(json.loads(read_text(file, "record")))
        self.content = read_text(file, "content")
        group = open_group(file, "splits")
        self.splits = {name: self._read_split(open_group(group, name), raw) for name in group}
        if len({split.embeddings.shape[1:] for split in self.splits.values()}) != 1:
            raise UnsafeFileError("it has no split, or splits whose embeddings differ in shape")

    def _read_split(self, group: h5py.Group, raw: BinaryIO) -> Split:
        stored, digests = (
            open_dataset(group, "embeddings", "f", 4 if self.has_maps else 2),
            open_dataset(group, "digests", "u", 2),
        )
        status, names = open_dataset(group, "status", "u", 1), open_dataset(group, "ids", "S", 1)
        n_rows = len(stored)
        if digests.shape != (n_rows, DIGEST_BYTES) or status.shape != (n_rows,) or names.shape != (n_rows,):
            raise UnsafeFileError(f"ids, digests, status and embeddings of {group.name} differ in length")
        if names.dtype.itemsize > MOST_ID_BYTES:
            raise UnsafeFileError(f"ids of {group.name} are longer than {MOST_ID_BYTES} bytes")
        ids = [id.decode("utf-8") for id in names[...].tolist()]
        if len(set(ids)) != n_rows or not all(id.isprintable() for id in ids):
            raise UnsafeFileError(f"ids of {group.name} are not unique, or not printable")
        if stored.dtype != self.provenance.dtype:
            raise UnsafeFileError(
                f"embeddings of {group.name} are {stored.dtype}, the provenance says {self.provenance.dtype}"
            )
        embeddings = np.memmap(raw, stored.dtype, "r", stored.id.get_offset(), stored.shape)
        reasons = unpack_reasons(n_rows, read_array(group, "reason_rows", "i"), read_array(group, "reasons", "S"))
        poolings = tuple(self.provenance.pooling.split(","))
        if stored.shape[1] % len(poolings):
            raise UnsafeFileError(f"embeddings of {group.name} cannot be divided by {len(poolings)} poolings")
        return Split(ids, Rows(digests[...], status[...], reasons, embeddings), poolings)

    @property
    def has_maps(self) -> bool:
        """Whether it holds maps for what follows the cut, rather than vectors."""
        return self.provenance.pooling == NO_POOLING

    @property
    def fingerprint(self) -> str:
        """Digest of the declared facts."""
        return self.provenance.fingerprint

    def split(self, name: str) -> Split:
        """One split's rows.

        Raises
        ------
        UserError
            The store has no such split.
        """
        if name not in self.splits:
            raise UserError(f"{self.path}: no split '{name}'; it holds {some(sorted(self.splits))}")
        return self.splits[name]

    def blocks(self) -> Iterator[Rows]:
        """All rows, a block at a time, read anew: what is mapped would count as this process's memory."""
        for split in self.splits.values():
            rows = split.rows
            stored = rows.embeddings
            assert isinstance(stored, np.memmap)
            step, row_bytes = block_rows(stored), math.prod(stored.shape[1:]) * stored.itemsize
            for start in range(0, len(rows.digests), step):
                part = slice(start, start + step)
                shape, place = stored[part].shape, stored.offset + start * row_bytes
                numbers: Any = np.fromfile(self.path, stored.dtype, math.prod(shape), offset=place)
                block = numbers.reshape(shape)
                yield Rows(rows.digests[part], rows.status[part], rows.reasons[part], block)


def _check_record(record: object) -> dict[str, Any]:
    """What the project reads of a record is there and text."""
    if not isinstance(record, dict) or not isinstance(asked := record.get("asked"), dict):
        raise UnsafeFileError("its record does not say what was asked")
    if not all(
        isinstance(text, str) for text in (asked.get("weights"), asked.get("layer"), record.get("weights_source"))
    ):
        raise UnsafeFileError("its record does not say which weights and layer were asked for")
    return record
