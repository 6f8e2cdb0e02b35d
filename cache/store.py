"""The feature store: for each split the ids, image digests, status and embeddings, row by row.

One surprise: embeddings are not read through HDF5. The packed file keeps them contiguous, so they are mapped
from the file at their offset: opening costs nothing and any number of processes share the pages.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.errors import UserError, some
from cache.guard import Refused, open_dataset, open_group, read_array, read_text
from cache.provenance import SCHEMA, Provenance
from cache.rows import DIGEST_BYTES, OK, Embeddings, Rows, unpack_reasons

BLOCK_ROWS = 4096
"""How many rows are handled at a time where a whole split need not be in memory (16 MiB at 1,024 features)."""


@dataclass(frozen=True)
class Split:
    """The rows of one split, all in the same order.

    Parameters
    ----------
    ids : list of str, length n_images
        Image ids, no two alike.
    rows : Rows
        Digests, status, reasons and embeddings; the embeddings are a read-only memory map.
    """

    ids: list[str]
    rows: Rows

    @property
    def embeddings(self) -> Embeddings:
        """Embeddings, shape (n_images, n_features); NaN where `readable` is False."""
        return self.rows.embeddings

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
            with h5py.File(self.path, "r", locking=False) as file:
                self._read(file)
        except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError) as error:
            raise UserError(
                f"{path}: not a finished feature store ({' '.join(str(error).split())}); expected the file that "
                "`python -m featurize` makes; move it away and run `make features` again"
            ) from error

    def _read(self, file: h5py.File) -> None:
        schema = file.attrs.get("schema")
        if schema is None:
            raise Refused("it has no layout version")
        if schema != SCHEMA:
            raise UserError(
                f"{self.path}: layout version {schema}, expected {SCHEMA}; "
                "use the version of this software that made it, or make it again under another name"
            )
        self.provenance = Provenance.from_json(read_text(file, "provenance"))
        self.record = dict(json.loads(read_text(file, "record")))
        self.content = read_text(file, "content")
        group = open_group(file, "splits")
        self.splits = {name: self._read_split(open_group(group, name)) for name in group}

    def _read_split(self, group: h5py.Group) -> Split:
        ids = [id.decode("utf-8") for id in read_array(group, "ids", "S").tolist()]
        digests, status = read_array(group, "digests", "u", 2), read_array(group, "status", "u")
        stored = open_dataset(group, "embeddings", "f", 2)
        n_rows = len(ids)
        if digests.shape != (n_rows, DIGEST_BYTES) or status.shape != (n_rows,) or len(stored) != n_rows:
            raise Refused(f"ids, digests, status and embeddings of {group.name} differ in length")
        if len(set(ids)) != n_rows:
            raise Refused(f"ids of {group.name} are not unique")
        if stored.dtype != self.provenance.dtype:
            raise Refused(f"embeddings of {group.name} are {stored.dtype}, the provenance says {self.provenance.dtype}")
        embeddings = np.memmap(self.path, stored.dtype, "r", stored.id.get_offset(), stored.shape)
        reasons = unpack_reasons(n_rows, read_array(group, "reason_rows", "i"), read_array(group, "reasons", "S"))
        return Split(ids, Rows(digests, status, reasons, embeddings))

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
        """All rows, a block at a time."""
        for split in self.splits.values():
            rows = split.rows
            for start in range(0, len(rows.digests), BLOCK_ROWS):
                part = slice(start, start + BLOCK_ROWS)
                yield Rows(rows.digests[part], rows.status[part], rows.reasons[part], rows.embeddings[part])
