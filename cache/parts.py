"""Part files: what a store holds while it is being made.

Each finished work unit is a file of its own in ``STORE.parts/FINGERPRINT/``, so a killed run loses at most the
units that were under way. A part is there in full or not at all.
"""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py

from cache.files import replacing
from cache.rows import Rows, pack_reasons, unpack_reasons


class Parts:
    """The finished work units of one store with one fingerprint.

    Parameters
    ----------
    store : Path
        The store that the parts are for.
    fingerprint : str
        Digest of the declared facts; parts made under other facts stand in another folder and are not seen.
    """

    def __init__(self, store: Path, fingerprint: str) -> None:
        self.root = store.with_name(store.name + ".parts")
        self.folder = self.root / fingerprint[:16]

    def paths(self) -> list[Path]:
        """The part files, in a fixed order."""
        return sorted(self.folder.glob("*.h5"))

    def add(self, rows: Rows) -> None:
        """Write one finished unit. The name is the digest of what it holds, so doing it twice changes nothing."""
        name = hashlib.sha256(rows.digests.tobytes()).hexdigest()[:32]
        with replacing(self.folder / f"{name}.h5") as temporary, h5py.File(temporary, "w") as file:
            for key, array in (("digests", rows.digests), ("status", rows.status), ("embeddings", rows.embeddings)):
                file.create_dataset(key, data=array, chunks=array.shape, fletcher32=True)
            numbers, texts = pack_reasons(rows.reasons)
            file.create_dataset("reason_rows", data=numbers)
            file.create_dataset("reasons", data=texts)

    def __iter__(self) -> Iterator[Rows]:
        for path in self.paths():
            with h5py.File(path, "r", locking=False) as file:
                digests = file["digests"][:]
                yield Rows(
                    digests=digests,
                    status=file["status"][:],
                    reasons=unpack_reasons(len(digests), file["reason_rows"][:], file["reasons"][:]),
                    embeddings=file["embeddings"][:],
                )

    def remove(self) -> None:
        """Remove these parts once the store holds them, and the folder around them if nothing else is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.root.is_dir() and not any(self.root.iterdir()):
            self.root.rmdir()
