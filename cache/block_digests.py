"""Digests of every block of a file, kept behind its end, so that a flipped bit is found and located.

HDF5 reads a file up to the end that its superblock names and leaves alone what follows. There stand the SHA-256
of each block of 64 KiB, and a footer with their number and their own digest.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cache.support.errors import UserError

BLOCK_BYTES = 64 * 1024
_MAGIC = b"blocks1\n"
_FOOTER = struct.Struct("<8sQ32s")
"""Magic, length of the file that is digested, SHA-256 of magic, length and block digests."""


@dataclass(frozen=True)
class Damage:
    """Bytes that are not what was written: from `start` up to `end`."""

    start: int
    end: int


def append_digests(path: Path) -> None:
    """Append the digests of a file's blocks to it."""
    with open(path, "r+b") as file:
        digests = b"".join(_block_digests(path, os.fstat(file.fileno()).st_size))
        length = file.seek(0, os.SEEK_END)
        file.write(digests + _FOOTER.pack(_MAGIC, length, _seal(length, digests)))


def find_damage(path: Path) -> list[Damage]:
    """Check every byte of a file against its digests.

    Returns
    -------
    list of Damage
        The damaged blocks in their order; empty if every bit is as it was written.

    Raises
    ------
    UserError
        The file ends without digests: it was cut, or something was written to it.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - _FOOTER.size))
        tail = file.read()
        magic, length, seal = _FOOTER.unpack(tail) if len(tail) == _FOOTER.size else (b"", 0, b"")
        n_blocks = (size - _FOOTER.size) - length
        if not 0 <= length <= size or n_blocks != 32 * -(-length // BLOCK_BYTES):
            raise UserError(
                f"{path}: its last {_FOOTER.size} bytes do not name the digests of its {size:,} bytes: "
                "it was cut, written to, or damaged there; make it again with `make features`"
            )
        file.seek(length)
        digests = file.read(n_blocks)
    damage = []
    if magic != _MAGIC or seal != _seal(length, digests):
        damage.append(Damage(length, size))
    for number, digest in enumerate(_block_digests(path, length)):
        if digest != digests[32 * number : 32 * number + 32]:
            damage.append(Damage(number * BLOCK_BYTES, min((number + 1) * BLOCK_BYTES, length)))
    return sorted(damage, key=lambda each: each.start)


def _block_digests(path: Path, length: int) -> Iterator[bytes]:
    with open(path, "rb") as file:
        for start in range(0, length, BLOCK_BYTES):
            yield hashlib.sha256(file.read(min(BLOCK_BYTES, length - start))).digest()


def _seal(length: int, digests: bytes) -> bytes:
    return hashlib.sha256(_MAGIC + struct.pack("<Q", length) + digests).digest()
