"""Part files: the finished work units of a store that is not finished yet.

Each unit is a file of its own in ``STORE.parts/FINGERPRINT/``, so a killed run loses at most the units that were
under way. A part file is complete or absent.

A part is not HDF5, whose structure can be damaged in ways that no reader survives. It is one line of JSON, the head,
and then the plain bytes of the embeddings. The head has a digest of itself and one of the embeddings, so no byte of a
part is believed before it has been checked.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from cache.provenance import Provenance
from cache.rows import DIGEST_BYTES, Rows
from cache.support.files import replacing, write_text, writing
from cache.support.json_file import DamagedFileError, parse_sealed_json, read_json, seal_json
from cache.support.messages import count, describe_error
from cache.support.reporting import warn

PROVENANCE_FILE = "provenance.json"

MAX_HEAD_BYTES = 1 << 24
"""Longest head that is read, in bytes (16 MiB). A unit of a thousand images has 0.1 MB."""

_T = TypeVar("_T")


class _Head(TypedDict):
    """The first line of a part: everything but the embeddings."""

    fingerprint: str
    digests: str
    status: list[Literal[0, 1]]
    reasons: list[str]
    shape: list[int]
    dtype: Literal["float32", "float16"]
    embeddings: str


class Parts:
    """The finished work units of one store with one fingerprint.

    A damaged part is passed over with a warning, so that its images are embedded again.

    Parameters
    ----------
    store : Path
        The store that the parts are for.
    provenance : Provenance
        The facts that decide the embeddings. Parts with other facts are in another folder; they are neither used nor
        removed.
    """

    def __init__(self, store: Path, provenance: Provenance) -> None:
        self.root = find_root(store)
        self.fingerprint = provenance.fingerprint
        self.folder = self.root / self.fingerprint[:16]
        self._provenance = provenance

    def start(self, record: Mapping[str, Any]) -> None:
        """Make the folder, and write down what it is for.

        Raises
        ------
        StoreError
            The disk is full or cannot be written to.
        """
        facts = {"provenance": json.loads(self._provenance.to_json()), "record": dict(record)}
        with writing(self.folder):
            write_text(self.folder / PROVENANCE_FILE, json.dumps(facts, indent=1))

    def add(self, rows: Rows) -> None:
        """Write one finished unit. Its name is the digest of its images, so writing it twice changes nothing.

        Raises
        ------
        StoreError
            The disk is full or cannot be written to.
        """
        name = hashlib.sha256(rows.digests.tobytes()).hexdigest()[:32]
        embeddings = np.ascontiguousarray(rows.embeddings)
        head = {
            "fingerprint": self.fingerprint,
            "digests": rows.digests.tobytes().hex(),
            "status": rows.status.tolist(),
            "reasons": rows.reasons,
            "shape": embeddings.shape,
            "dtype": embeddings.dtype.name,
            "embeddings": hashlib.sha256(embeddings.data).hexdigest(),
        }
        path = self.folder / f"{name}.part"
        with writing(path), replacing(path) as temporary, open(temporary, "wb") as file:
            file.write(seal_json(head))
            file.write(embeddings.data)

    def __iter__(self) -> Iterator[Rows]:
        """Read the parts."""
        return self._read_all(_read_rows)

    def digests(self) -> Iterator[NDArray[np.uint8]]:
        """Read only the digests of each part, shape (n_images, 32).

        Embeddings take a hundred times as much, or more, so only the head and the length of each part are checked. A
        part whose embeddings are damaged is found by iteration.
        """
        return self._read_all(lambda file, head: _unpack_digests(head))

    def remove_damaged(self) -> int:
        """Read every part and remove the damaged ones, so that their images are embedded again; returns how many."""
        n_removed = 0
        for path in self._paths():
            try:
                self._read(path, _read_rows)
            except (OSError, ValueError):
                path.unlink(missing_ok=True)
                n_removed += 1
        return n_removed

    def remove(self) -> None:
        """Remove these parts once the store holds them, and the folder around them if nothing else is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.root.is_dir() and not any(self.root.iterdir()):
            self.root.rmdir()

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.part") if path.is_file())

    def _read_all(self, read: Callable[[BinaryIO, _Head], _T]) -> Iterator[_T]:
        """What a function reads from each part, without the damaged ones."""
        reasons = []
        for path in self._paths():
            try:
                found = self._read(path, read)
            except (OSError, ValueError) as error:
                reasons.append(f"{path.name}: {describe_error(error)}")
            else:
                yield found
        if reasons:
            warn(
                f"{self.folder}: {count(len(reasons), 'damaged part')} passed over ({reasons[0]}); "
                "`make features` embeds their images again"
            )

    def _read(self, path: Path, read: Callable[[BinaryIO, _Head], _T]) -> _T:
        """What a function reads from a part behind its head.

        Raises
        ------
        ValueError
            The part is damaged, or belongs to other facts.
        """
        with open(path, "rb") as file:
            head = parse_sealed_json(file.readline(MAX_HEAD_BYTES), _Head)
            n_rows, *rest = head["shape"]
            lengths = {n_rows, len(head["status"]), len(head["reasons"]), len(head["digests"]) / (2 * DIGEST_BYTES)}
            if len(lengths) > 1 or len(rest) not in (1, 3) or min(rest) < 1:  # vectors or maps
                raise DamagedFileError("its arrays do not fit together")
            if head["fingerprint"] != self.fingerprint or head["dtype"] != self._provenance.dtype:
                raise DamagedFileError("it is a part of other features")
            if file.tell() + _count_bytes(head) != os.fstat(file.fileno()).st_size:
                raise DamagedFileError("it is shorter or longer than it was written")
            return read(file, head)


def find_root(store: Path) -> Path:
    """The folder of a store's parts, of all fingerprints."""
    return store.with_name(store.name + ".parts")


def find_unfinished(store: Path) -> list[Parts]:
    """The parts of every unfinished run beside a store, with whatever fingerprint."""
    found = []
    for path in sorted(find_root(store).glob(f"*/{PROVENANCE_FILE}")):
        try:
            facts = read_json(path, dict[str, Any])["provenance"]
            parts = Parts(store, Provenance.from_json(json.dumps(facts)))
        except (OSError, ValueError, KeyError):
            continue  # damaged, or written by another version
        if parts.folder == path.parent:  # else it tells of other facts than those of the parts beside it
            found.append(parts)
    return found


def _count_bytes(head: _Head) -> int:
    return math.prod(head["shape"]) * np.dtype(head["dtype"]).itemsize


def _unpack_digests(head: _Head) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(head["digests"]), np.uint8).reshape(head["shape"][0], DIGEST_BYTES)


def _read_rows(file: BinaryIO, head: _Head) -> Rows:
    content = file.read(_count_bytes(head))
    if hashlib.sha256(content).hexdigest() != head["embeddings"]:
        raise DamagedFileError("its embeddings are not what was written")
    return Rows(
        digests=_unpack_digests(head),
        status=np.array(head["status"], np.uint8),
        reasons=head["reasons"],
        embeddings=np.frombuffer(content, head["dtype"]).reshape(head["shape"]),
    )
