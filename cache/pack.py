"""Packing: rows keyed by digest, from parts and from an earlier store, become the one contiguous file."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.errors import UserError, some
from cache.files import replacing
from cache.provenance import Provenance
from cache.rows import DIGEST_BYTES, OK, UNREADABLE, Rows, pack_reasons
from cache.store import BLOCK_ROWS, SCHEMA


@dataclass(frozen=True)
class Listing:
    """What one split must hold: its images in order.

    Parameters
    ----------
    ids : list of str
        Image ids, no two alike.
    digests : list of bytes or None
        SHA-256 of each image's bytes, None where the bytes cannot be had.
    reasons : list of str
        Why they cannot; empty where they can.
    """

    ids: list[str]
    digests: list[bytes | None]
    reasons: list[str]

    def digest_array(self) -> NDArray[np.uint8]:
        """The digests as stored, shape (n_images, 32): zeros for None."""
        joined = b"".join(digest or bytes(DIGEST_BYTES) for digest in self.digests)
        return np.frombuffer(joined, np.uint8).reshape(-1, DIGEST_BYTES)


def pack_store(
    path: Path,
    provenance: Provenance,
    record: Mapping[str, Any],
    listings: Mapping[str, Listing],
    sources: Iterable[Rows],
    n_features: int,
) -> None:
    """Write a finished store, whole or not at all.

    Parameters
    ----------
    path : Path
        The store. An earlier one stays as it is until the new one is complete.
    provenance : Provenance
        The declared facts.
    record : mapping
        What is recorded beside them; anything JSON can hold.
    listings : mapping of str to Listing
        The rows that each split must have, in order.
    sources : iterable of Rows
        Where embeddings come from; a digest that is in several is taken once.
    n_features : int
        Length of an embedding.

    Raises
    ------
    UserError
        A listed image is in none of the sources.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_group("splits", track_order=True)
        groups = {name: _lay_out(file, name, listing, n_features) for name, listing in listings.items()}
        status, reasons = _fill(groups, listings, sources)
        content = hashlib.sha256(provenance.fingerprint.encode())
        for name, group in groups.items():
            numbers, texts = pack_reasons(reasons[name])
            for key, array in (("status", status[name]), ("reason_rows", numbers), ("reasons", texts)):
                group.create_dataset(key, data=array)
            content.update(name.encode() + _digest_group(group))
        file.attrs["schema"] = SCHEMA
        file.attrs["provenance"] = provenance.to_json()
        file.attrs["fingerprint"] = provenance.fingerprint
        file.attrs["record"] = json.dumps(dict(record), sort_keys=True)
        file.attrs["content"] = content.hexdigest()


def _lay_out(file: h5py.File, name: str, listing: Listing, n_features: int) -> h5py.Group:
    group = file["splits"].create_group(name)
    group.create_dataset("ids", data=np.char.encode(np.array(listing.ids), "utf-8"))
    group.create_dataset("digests", data=listing.digest_array())
    group.create_dataset("embeddings", (len(listing.ids), n_features), np.float32, fillvalue=np.nan)
    return group


def _fill(
    groups: Mapping[str, h5py.Group], listings: Mapping[str, Listing], sources: Iterable[Rows]
) -> tuple[dict[str, NDArray[np.uint8]], dict[str, list[str]]]:
    """Copy each row to every place that its digest is listed at; return status and reasons a split."""
    places: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    for name, listing in listings.items():
        for row, digest in enumerate(listing.digests):
            if digest is not None:
                places[digest].append((name, row))
    status = {name: np.full(len(listing.ids), UNREADABLE, np.uint8) for name, listing in listings.items()}
    reasons = {name: list(listing.reasons) for name, listing in listings.items()}
    for rows in sources:
        for index, digest in enumerate(rows.digests):
            for name, row in places.pop(digest.tobytes(), ()):
                status[name][row] = rows.status[index]
                reasons[name][row] = rows.reasons[index]
                if rows.status[index] == OK:
                    groups[name]["embeddings"][row] = rows.embeddings[index]
    if places:
        missing = [listings[name].ids[row] for found in places.values() for name, row in found]
        raise UserError(
            f"{len(missing):,} images changed while they were being embedded ({some(missing)}); "
            "run the same command again, it goes on from what is finished"
        )
    return status, reasons


def _digest_group(group: h5py.Group) -> bytes:
    """SHA-256 over a split's data sets, each of which also keeps its own."""
    whole = hashlib.sha256()
    for key in sorted(group):
        dataset, digest = group[key], hashlib.sha256()
        for start in range(0, len(dataset), BLOCK_ROWS):
            digest.update(dataset[start : start + BLOCK_ROWS].tobytes())
        dataset.attrs["sha256"] = digest.hexdigest()
        whole.update(key.encode() + digest.digest())
    return whole.digest()
