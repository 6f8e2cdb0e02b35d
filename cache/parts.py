"""Part files: the finished work units of a store that is not finished yet.

Each unit is a file of its own in ``STORE.parts/FINGERPRINT/``, so a killed run loses at most the units that were
under way. A part file is complete or absent.
"""

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.provenance import Provenance
from cache.rows import Rows, pack_reasons, unpack_reasons
from cache.support.files import replacing, write_text, writing

PROVENANCE_FILE = "provenance.json"

_T = TypeVar("_T")


class Parts:
    """The finished work units of one store with one fingerprint.

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
        numbers, texts = pack_reasons(rows.reasons)
        arrays = {"digests": rows.digests, "status": rows.status, "embeddings": rows.embeddings}
        # Built in memory: on a full disk HDF5 can neither write nor close.
        image = io.BytesIO()
        with h5py.File(image, "w") as file:
            for key, array in (arrays | {"reason_rows": numbers, "reasons": texts}).items():
                checked = array.size > 0  # an empty data set has no chunks, and so no checksum
                file.create_dataset(key, data=array, chunks=array.shape if checked else None, fletcher32=checked)
        path = self.folder / f"{name}.h5"
        with writing(path), replacing(path) as temporary:
            temporary.write_bytes(image.getbuffer())

    def __iter__(self) -> Iterator[Rows]:
        """Read the parts. A damaged one is skipped, so that its images are embedded again."""
        return self._read_all(_read_rows)

    def digests(self) -> Iterator[NDArray[np.uint8]]:
        """Read only the digests of each part, shape (n_images, 32).

        Embeddings take a hundred times as much, or more. They are not checked here: a part may be counted that
        iteration skips.
        """
        return self._read_all(lambda file: file["digests"][:])

    def remove_damaged(self) -> int:
        """Read every part and remove the damaged ones, so that their images are embedded again; returns how many."""
        damaged = [path for path in self._paths() if _read(path, _read_rows) is None]
        for path in damaged:
            path.unlink()
        return len(damaged)

    def remove(self) -> None:
        """Remove these parts once the store holds them, and the folder around them if nothing else is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.root.is_dir() and not any(self.root.iterdir()):
            self.root.rmdir()

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.h5"))

    def _read_all(self, read: Callable[[h5py.File], _T]) -> Iterator[_T]:
        for path in self._paths():
            found = _read(path, read)
            if found is not None:
                yield found


def find_root(store: Path) -> Path:
    """The folder of a store's parts, of all fingerprints."""
    return store.with_name(store.name + ".parts")


def find_unfinished(store: Path) -> list[Parts]:
    """The parts of every unfinished run beside a store, with whatever fingerprint."""
    found = []
    for path in sorted(find_root(store).glob(f"*/{PROVENANCE_FILE}")):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))["provenance"]
            found.append(Parts(store, Provenance.from_json(json.dumps(facts))))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # written by another version
    return found


def _read(path: Path, read: Callable[[h5py.File], _T]) -> _T | None:
    """What a function reads from a part; None where the part is damaged."""
    with contextlib.suppress(OSError, KeyError, ValueError, RuntimeError), h5py.File(path, "r", locking=False) as file:
        return read(file)
    return None


def _read_rows(file: h5py.File) -> Rows:
    digests = file["digests"][:]
    return Rows(
        digests=digests,
        status=file["status"][:],
        reasons=unpack_reasons(len(digests), file["reason_rows"][:], file["reasons"][:]),
        embeddings=file["embeddings"][:],
    )
