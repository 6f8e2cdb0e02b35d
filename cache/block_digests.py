"""Digests of every block of a file, appended behind its end, so that a flipped bit is found and located.

HDF5 reads a file up to the end that its superblock declares, and ignores what follows. There we append the SHA-256
of each block of 64 KiB, and a footer with the length of the file proper and a digest of all this.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cache.support.errors import StoreError

DIGESTED_BYTES = 64 * 1024
"""Size of a block with a digest of its own: damage is located as exactly as this."""

_MAGIC = b"blocks1\n"
_FOOTER = struct.Struct("<8sQ32s")
"""Magic, length of the file proper, SHA-256 of magic, length and block digests."""


@dataclass(frozen=True)
class Damage:
    """Bytes that differ from what was written: from `start` up to, not including, `end`."""

    start: int
    end: int


def append_digests(path: Path) -> None:
    """Append the digests of a file's blocks to it."""
    with open(path, "r+b") as file:
        digests = b"".join(_digest_blocks(path, os.fstat(file.fileno()).st_size))
        length = file.seek(0, os.SEEK_END)
        file.write(digests + _FOOTER.pack(_MAGIC, length, _seal(length, digests)))


def find_damage(path: Path) -> list[Damage]:
    """Check every byte of a file against its digests.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of Damage
        The damaged blocks in their order; empty if every bit is as it was written.

    Raises
    ------
    StoreError
        The file does not end with digests: it was cut, or something was written to it.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - _FOOTER.size))
        footer = file.read()
        magic, length, seal = _FOOTER.unpack(footer) if len(footer) == _FOOTER.size else (b"", 0, b"")
        n_bytes = (size - _FOOTER.size) - length
        if not 0 <= length <= size or n_bytes != 32 * -(-length // DIGESTED_BYTES):
            raise StoreError(
                f"{path}: its last {_FOOTER.size} bytes are not the footer of its {size:,} bytes: "
                "the file was cut, written to, or damaged there; make it again with `make features`"
            )
        file.seek(length)
        digests = file.read(n_bytes)
    damage = []
    if magic != _MAGIC or seal != _seal(length, digests):
        damage.append(Damage(length, size))
    for number, digest in enumerate(_digest_blocks(path, length)):
        if digest != digests[32 * number : 32 * number + 32]:
            damage.append(Damage(number * DIGESTED_BYTES, min((number + 1) * DIGESTED_BYTES, length)))
    return sorted(damage, key=lambda each: each.start)


def _digest_blocks(path: Path, length: int) -> Iterator[bytes]:
    with open(path, "rb") as file:
        for start in range(0, length, DIGESTED_BYTES):
            yield hashlib.sha256(file.read(min(DIGESTED_BYTES, length - start))).digest()


def _seal(length: int, digests: bytes) -> bytes:
    return hashlib.sha256(_MAGIC + struct.pack("<Q", length) + digests).digest()
