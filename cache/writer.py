"""Write a store: rows from parts and from an earlier store, keyed by digest, become one contiguous file."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.block_digests import append_digests, digest_stretch
from cache.images import Listing
from cache.parts import find_root
from cache.provenance import SCHEMA, Provenance
from cache.rows import OK, UNREADABLE, Rows, pack_reasons
from cache.support.errors import DataError, StoreError
from cache.support.files import SteadyFile, replacing, writing
from cache.support.messages import count, describe_shape, some


def write_store(
    path: Path,
    provenance: Provenance,
    record: Mapping[str, Any],
    listings: Mapping[str, Listing],
    sources: Iterable[Rows],
    shape: tuple[int, ...],
) -> None:
    """Write a finished store, completely or not at all.

    Parameters
    ----------
    path : Path
        The store. An earlier one stays as it is until the new one is complete.
    provenance : Provenance
        The facts that decide the embeddings.
    record : mapping
        What is recorded beside these facts; anything that JSON can represent.
    listings : mapping of str to Listing
        The rows that each split must have, in order.
    sources : iterable of Rows
        The embeddings. Where several sources have the same digest, the first one counts.
    shape : tuple of int
        Shape of one embedding: ``(n_features,)``, or ``(height, width, n_features)`` for a map.

    Raises
    ------
    DataError
        A listed image is in none of the sources.
    StoreError
        The disk is full or cannot be written to, or a source has embeddings of another shape.
    """
    with writing(path), replacing(path) as temporary:
        with open(temporary, "w+b", buffering=0) as raw:
            steady, known = SteadyFile(raw), dict[int, bytes]()
            with h5py.File(steady, "w") as file:
                splits = _write(file, provenance.dtype, listings, _checked(sources, steady, path, shape), shape)
                file.flush()
                steady.check()
                with open(temporary, "rb") as written:
                    content = _digest_content(provenance, splits, written, known)
                _write_texts(file, provenance, record, content)
            steady.check()
        append_digests(temporary, known)


def _checked(sources: Iterable[Rows], steady: SteadyFile, path: Path, shape: tuple[int, ...]) -> Iterator[Rows]:
    """Stop at the first error of the file that the rows are written to, and at rows that do not fit into it."""
    for rows in sources:
        if rows.embeddings.shape[1:] != shape:
            found, expected = describe_shape(rows.embeddings.shape[1:]), describe_shape(shape)
            raise StoreError(
                f"{path}: finished units have {found} features, expected {expected}; remove {find_root(path)} and run "
                "the same command again"
            )
        yield rows
        steady.check()


def _write(
    file: h5py.File, dtype: str, listings: Mapping[str, Listing], sources: Iterable[Rows], shape: tuple[int, ...]
) -> dict[str, h5py.Group]:
    """Write everything but the texts; returns the group of each split."""
    file.create_group("splits", track_order=True)
    groups = {name: _lay_out(file, name, listing, shape, np.dtype(dtype)) for name, listing in listings.items()}
    status, reasons = _fill(groups, listings, sources)
    for name, group in groups.items():
        rows, why = pack_reasons(reasons[name])
        for key, array in (("status", status[name]), ("reason_rows", rows), ("reasons", why)):
            group.create_dataset(key, data=array)
    return groups


def _write_texts(file: h5py.File, provenance: Provenance, record: Mapping[str, Any], content: str) -> None:
    texts = {
        "schema": str(SCHEMA),
        "provenance": provenance.to_json(),
        "record": json.dumps(dict(record), sort_keys=True),
        "content": content,
    }
    for name, text in texts.items():
        file.create_dataset(name, data=np.frombuffer(text.encode(), np.uint8))


def _lay_out(file: h5py.File, name: str, listing: Listing, shape: tuple[int, ...], dtype: np.dtype[Any]) -> h5py.Group:
    group = file["splits"].create_group(name)
    group.create_dataset("ids", data=np.char.encode(np.array(listing.ids), "utf-8"))
    group.create_dataset("digests", data=listing.digest_array())
    # Filled by HDF5, every byte would be written twice; `_fill` writes the rows of unreadable images.
    group.create_dataset("embeddings", (len(listing.ids), *shape), dtype, fillvalue=np.nan, fill_time="never")
    group["embeddings"][0] = np.nan  # so that HDF5 allocates it even if no image can be read
    return group


def _fill(
    groups: Mapping[str, h5py.Group], listings: Mapping[str, Listing], sources: Iterable[Rows]
) -> tuple[dict[str, NDArray[np.uint8]], dict[str, list[str]]]:
    """Copy each row to every place where its digest is listed; returns status and reasons of each split."""
    places: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    for name, listing in listings.items():
        for row, digest in enumerate(listing.digests):
            if digest is not None:
                places[digest].append((name, row))
    status = {name: np.full(len(listing.ids), UNREADABLE, np.uint8) for name, listing in listings.items()}
    reasons = {name: list(listing.reasons) for name, listing in listings.items()}
    stored = {name: group["embeddings"] for name, group in groups.items()}
    for rows in sources:
        moves: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for index, digest in enumerate(rows.digests):
            for name, row in places.pop(digest.tobytes(), ()):
                status[name][row] = rows.status[index]
                reasons[name][row] = rows.reasons[index]
                if rows.status[index] == OK:
                    moves[name].append((row, index))
        for name, pairs in moves.items():
            _write_rows(stored[name], np.array(sorted(pairs)), rows)
    if places:
        missing = [listings[name].ids[row] for found in places.values() for name, row in found]
        raise DataError(
            f"{count(len(missing), 'image')} changed or vanished while being embedded ({some(missing)}); "
            "run the same command again: it continues from what is finished"
        )
    for name, dataset in stored.items():
        for unreadable in np.flatnonzero(status[name] != OK):
            dataset[unreadable] = np.nan
    return status, reasons


def _write_rows(stored: h5py.Dataset, moves: NDArray[np.int64], rows: Rows) -> None:
    """Write embeddings to their rows: `moves` has target rows, sorted, and indices into `rows`, shape (n, 2)."""
    # Neighbouring rows are written together: HDF5 takes a slice much faster than row after row.
    for stretch in np.split(moves, np.flatnonzero(np.diff(moves[:, 0]) != 1) + 1):
        stored[stretch[0, 0] : stretch[-1, 0] + 1] = rows.embeddings[stretch[:, 1]]


def _digest_content(
    provenance: Provenance, groups: Mapping[str, h5py.Group], written: BinaryIO, known: dict[int, bytes]
) -> str:
    """SHA-256 over the provenance and the data sets of all splits.

    Embeddings are read back for it, in the order of their rows, whatever the order in which they came. `known` gets the
    digests of their blocks, so that they are read back once.
    """
    content = hashlib.sha256(provenance.fingerprint.encode())
    for name, group in groups.items():
        digest = hashlib.sha256()
        for key in sorted(group):
            digest.update(key.encode())
            if key == "embeddings":
                start = group[key].id.get_offset()
                for data in digest_stretch(written, start, start + group[key].nbytes, known):
                    digest.update(data)
            else:
                digest.update(group[key][...].tobytes())
        content.update(name.encode() + digest.digest())
    return content.hexdigest()
