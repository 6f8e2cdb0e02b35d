"""The feature store: for each split the ids, image digests, status and embeddings, row by row.

One surprise: embeddings are not read through HDF5. The file stores them contiguously, so they are mapped into memory
from their offset: opening costs nothing, and any number of processes share the pages.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.block_digests import BlockDigests
from cache.feature_parts import FeatureParts
from cache.provenance import NO_POOLING, SCHEMA, Provenance, WeightsOrigin
from cache.rows import DIGEST_BYTES, OK, Embeddings, Rows, row_blocks, unpack_reasons
from cache.safe_hdf5 import UnsafeFileError, open_dataset, open_group, read_array, read_text
from cache.support.errors import StoreError
from cache.support.image_ids import MAX_ID_BYTES, find_id_fault
from cache.support.json_file import check_type, parse_json
from cache.support.messages import count, describe_error, describe_shape, some


class _Asked(TypedDict):
    """What was requested, as the user spelled it."""

    weights: str
    layer: str


class _Record(TypedDict):
    """What the project reads of a store's record."""

    asked: _Asked
    weights_source: str


@dataclass(frozen=True, repr=False)
class Split:
    """The rows of one split, all in the same order.

    Parameters
    ----------
    ids : list of str, length n_images
        Image ids, each once.
    rows : Rows
        Digests, status, reasons and embeddings; the embeddings are a read-only memory map.
    parts : FeatureParts
        What stands side by side in an embedding: one part per pooling, layer or joined store.
    """

    ids: list[str]
    rows: Rows
    parts: FeatureParts

    def __repr__(self) -> str:
        return (
            f"Split({count(len(self.ids), 'image')}, {int((~self.readable).sum()):,} unreadable, embeddings "
            f"{describe_shape(self.embeddings.shape)} {self.embeddings.dtype} of {', '.join(self.parts.names)})"
        )

    @property
    def embeddings(self) -> Embeddings:
        """Embeddings, shape (n_images, n_features), all parts side by side; NaN where unreadable.

        Maps, shape (n_images, height, width, n_features), where the only pooling is ``none``.
        """
        return self.rows.embeddings

    def select(self, parts: str) -> Embeddings:
        """Embeddings of some parts, without a copy where these are neighbours.

        Parameters
        ----------
        parts : str
            Such as ``avg``, or several with commas between them.

        Returns
        -------
        ndarray of float32 or float16, shape (n_images, n_features)

        Raises
        ------
        ParameterError
            The store has no such part.
        """
        return self.embeddings[:, self.parts.find_columns(parts)]

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Whether each image has an embedding, shape (n_images,)."""
        readable: NDArray[np.bool_] = self.rows.status == OK
        return readable

    def describe_unreadable(self) -> list[str]:
        """Each image without an embedding, as ``id: reason``."""
        return [f"{self.ids[row]}: {self.rows.reasons[row]}" for row in np.flatnonzero(~self.readable)]


class FeatureStore:
    """A finished feature store, opened for reading.

    The file may come from a stranger: nothing in it is executed, nothing outside it is read, and no size that it
    declares is believed.

    Embeddings are a memory map of the file. Replacing it by another file of its name is safe, and `featurize` does so:
    the memory map keeps the old one. But a file must not be changed in place while it is in use. If it is cut, the
    system ends the process that reads what was cut off (SIGBUS), and Python cannot prevent that. If it is overwritten,
    other numbers are read; `check_unchanged` tells afterwards.

    Parameters
    ----------
    path : path-like
        The HDF5 file that ``python -m featurize`` makes.

    Attributes
    ----------
    path : Path
    provenance : Provenance
        The facts that decide the embeddings.
    record : dict
        What is recorded beside these facts: the source of the weights, library versions, date.
    content : str
        Digest of ids, images and embeddings; it changes whenever one of them does.
    splits : dict of str to Split

    Raises
    ------
    StoreError
        There is no such file, it is not a finished store, or its layout has another version.

    Examples
    --------
    Open a store, and take the ids and the embeddings of one split::

        store = FeatureStore("data/my_images.densenet121.h5")
        train = store.split("train")
        ids, X = train.ids, train.embeddings  # X: shape (n_images, n_features), NaN where an image is unreadable
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = require_store(path)
        try:
            # Readers take no lock: a store on a read-only or network file system must open.
            # One descriptor serves HDF5 and the memory map: between two openings by name, a writer could replace the
            # file.
            with open(self.path, "rb") as raw, h5py.File(raw, "r") as file:
                self._opened = os.fstat(raw.fileno())
                self._read(file, raw)
        except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError) as error:
            raise StoreError(
                f"{path}: not a finished feature store ({describe_error(error)}); expected the file that "
                "`python -m featurize` makes; move it away and run `make features` again"
            ) from error

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(split.ids):,} {name}" for name, split in self.splits.items())
        shape = next(iter(self.splits.values())).embeddings.shape[1:]
        return (
            f"FeatureStore('{self.path}': {counts} images of {describe_shape(shape)} features, "
            f"fingerprint {self.fingerprint[:16]})"
        )

    def _read(self, file: h5py.File, raw: BinaryIO) -> None:
        schema = read_text(file, "schema")
        if schema != str(SCHEMA):
            raise StoreError(
                f"{self.path}: layout version {schema}, expected {SCHEMA}; "
                "use the version of this software that made it, or make it again under another name"
            )
        self.provenance = Provenance.from_json(read_text(file, "provenance"))
        record = parse_json(read_text(file, "record"), dict[str, Any])
        self.record = record | dict(check_type(record, _Record))
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
        if names.dtype.itemsize > MAX_ID_BYTES:
            raise UnsafeFileError(f"ids of {group.name} are longer than {MAX_ID_BYTES} bytes")
        ids = [id.decode("utf-8") for id in names[...].tolist()]
        if len(set(ids)) != n_rows:
            raise UnsafeFileError(f"ids of {group.name} are not unique")
        fault = next(filter(None, map(find_id_fault, ids)), "")
        if fault:
            raise UnsafeFileError(f"an id of {group.name} {fault}")
        if stored.dtype != self.provenance.dtype:
            raise UnsafeFileError(
                f"embeddings of {group.name} are {stored.dtype}, the provenance says {self.provenance.dtype}"
            )
        embeddings = np.memmap(raw, stored.dtype, "r", stored.id.get_offset(), stored.shape)
        reasons = unpack_reasons(n_rows, read_array(group, "reason_rows", "i"), read_array(group, "reasons", "S"))
        parts = FeatureParts.read(self.provenance.pooling, self.record, stored.shape[-1])
        return Split(ids, Rows(digests[...], status[...], reasons, embeddings), parts)

    @property
    def has_maps(self) -> bool:
        """Whether the store holds maps for the rest of a cut network, instead of vectors."""
        return self.provenance.pooling == NO_POOLING

    @property
    def weights_origin(self) -> WeightsOrigin:
        """Where the weights of the network came from."""
        return WeightsOrigin(self.record["asked"]["weights"], self.record["weights_source"])

    @property
    def fingerprint(self) -> str:
        """Digest of the provenance."""
        return self.provenance.fingerprint

    def split(self, name: str) -> Split:
        """The rows of one split.

        Parameters
        ----------
        name : str
            ``train``, ``valid`` or ``test``.

        Returns
        -------
        Split

        Raises
        ------
        StoreError
            The store has no such split.
        """
        if name not in self.splits:
            raise StoreError(f"{self.path}: no split '{name}'; it has {some(sorted(self.splits))}")
        return self.splits[name]

    def check_unchanged(self) -> None:
        """Check that what was read is what was opened; call it before a result of the store is saved.

        It looks at size and time of the file, which costs nothing. That a file has been replaced or removed is no error
        for embeddings, because the memory map keeps the one that was opened. It is one for maps, which are read from
        the file by its name.

        Raises
        ------
        StoreError
            The file was changed in place since it was opened, or it has maps and was replaced.
        """
        try:
            now = self.path.stat()
        except OSError:
            return  # whoever reads it by its name has had an error
        before = self._opened
        is_same = os.path.samestat(now, before)
        has_changed = (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns)
        if has_changed if is_same else self.has_maps:
            raise StoreError(
                f"{self.path}: was changed while it was in use, so what was computed from it may be wrong; check it "
                "with `python -m cache verify`, then run the same command again"
            )

    def blocks(self) -> Iterator[Rows]:
        """Iterate over all rows, some at a time, read from the file instead of the map.

        Pages of the map that were read would count as memory of this process. Every byte is checked against its digest
        as it is read, so that a copy reads the embeddings once.

        Yields
        ------
        Rows

        Raises
        ------
        StoreError
            The file was changed or replaced since it was opened, or embeddings are damaged.
        """
        with open(self.path, "rb") as file:
            if not os.path.samestat(os.fstat(file.fileno()), self._opened):
                raise StoreError(f"{self.path}: was replaced while it was in use; run the same command again")
            self.check_unchanged()
            digests = BlockDigests.read(file, self.path)
            for name, split in self.splits.items():
                rows = split.rows
                stored = rows.embeddings
                assert isinstance(stored, np.memmap)
                row_bytes = math.prod(stored.shape[1:]) * stored.itemsize
                for part in row_blocks(stored):
                    start, end = (stored.offset + row * row_bytes for row in (part.start, part.stop))
                    numbers, damage = digests.read_checked(file, start, end)
                    self.check_unchanged()
                    if damage:
                        raise self.name_damage(f"bytes {damage.start:,} to {damage.end:,}")
                    block: Any = np.frombuffer(numbers, stored.dtype).reshape(-1, *stored.shape[1:])
                    if not np.isfinite(block[rows.status[part] == OK]).all():
                        raise self.name_damage(f"rows {part.start:,} to {part.stop:,} of {name}: not finite")
                    yield Rows(rows.digests[part], rows.status[part], rows.reasons[part], block)

    def name_damage(self, where: str) -> StoreError:
        """The error that a damaged store is no source of another one."""
        return StoreError(
            f"{self.path}: damaged ({where}; `python -m cache verify` lists all); "
            "run with --rebuild (make REBUILD=1) to embed it anew, or copy a whole one here"
        )


def require_store(path: str | os.PathLike[str]) -> Path:
    """The path of a store, if there is a file.

    Raises
    ------
    StoreError
        There is none.
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"{path}: no such store; make it with `make features`, or give the path of another STORE")
    return path
