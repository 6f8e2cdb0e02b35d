"""Part files: what a store holds while it is being made.

Each finished work unit is a file of its own in ``STORE.parts/FINGERPRINT/``, so a killed run loses at most the
units that were under way. A part is there in full or not at all.
"""

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py

from cache.provenance import Provenance
from cache.rows import Rows, pack_reasons, unpack_reasons
from cache.support.files import replacing, write_text, writing

FACTS = "provenance.json"


class Parts:
    """The finished work units of one store with one fingerprint.

    Parameters
    ----------
    store : Path
        The store that the parts are for.
    provenance : Provenance
        The declared facts. Parts made under other facts stand in another folder, and are neither used nor lost.
    """

    def __init__(self, store: Path, provenance: Provenance) -> None:
        self.root = find_root(store)
        self.fingerprint = provenance.fingerprint
        self.folder = self.root / self.fingerprint[:16]
        self._provenance = provenance

    def start(self, record: Mapping[str, Any]) -> None:
        """Make the folder and note what it is for."""
        facts = {"provenance": json.loads(self._provenance.to_json()), "record": dict(record)}
        with writing(self.folder):
            write_text(self.folder / FACTS, json.dumps(facts, indent=1))

    def add(self, rows: Rows) -> None:
        """Write one finished unit. The name is the digest of what it holds, so doing it twice changes nothing.

        Raises
        ------
        UserError
            The disk is full or cannot be written to.
        """
        name = hashlib.sha256(rows.digests.tobytes()).hexdigest()[:32]
        numbers, texts = pack_reasons(rows.reasons)
        arrays = {"digests": rows.digests, "status": rows.status, "embeddings": rows.embeddings}
        # Built in memory: HDF5 on a full disk can neither write nor close.
        image = io.BytesIO()
        with h5py.File(image, "w") as file:
            for key, array in (arrays | {"reason_rows": numbers, "reasons": texts}).items():
                checked = array.size > 0  # HDF5 has no chunks of nothing
                file.create_dataset(key, data=array, chunks=array.shape if checked else None, fletcher32=checked)
        path = self.folder / f"{name}.h5"
        with writing(path), replacing(path) as temporary:
            temporary.write_bytes(image.getbuffer())

    def __iter__(self) -> Iterator[Rows]:
        """Read the parts; a damaged one is passed over, so that its images are embedded again."""
        for path in sorted(self.folder.glob("*.h5")):
            rows = None
            with contextlib.suppress(OSError, KeyError, ValueError, RuntimeError):
                rows = _read(path)
            if rows is not None:
                yield rows

    def remove(self) -> None:
        """Remove these parts once the store holds them, and the folder around them if nothing else is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.root.is_dir() and not any(self.root.iterdir()):
            self.root.rmdir()


def find_root(store: Path) -> Path:
    """The folder of a store's parts, of all fingerprints."""
    return store.with_name(store.name + ".parts")


def find_unfinished(store: Path) -> list[Parts]:
    """The parts of every unfinished run beside a store, whatever features it made."""
    found = []
    for path in sorted(find_root(store).glob(f"*/{FACTS}")):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))["provenance"]
            found.append(Parts(store, Provenance.from_json(json.dumps(facts))))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # of another version, whose business it is
    return found


def _read(path: Path) -> Rows:
    with h5py.File(path, "r", locking=False) as file:
        digests = file["digests"][:]
        return Rows(
            digests=digests,
            status=file["status"][:],
            reasons=unpack_reasons(len(digests), file["reason_rows"][:], file["reasons"][:]),
            embeddings=file["embeddings"][:],
        )
