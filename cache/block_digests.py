"""Digests of every block of a file, appended behind its end, so that a flipped bit is found and located.

HDF5 reads a file up to the end that its superblock declares, and ignores what follows. There we append the SHA-256
of each block of 64 KiB, and a footer with the length of the file proper and a digest of all this.
"""

import hashlib
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

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


@dataclass(frozen=True)
class BlockDigests:
    """The digests behind the end of a file.

    Parameters
    ----------
    length : int
        Length of the file proper, in bytes.
    size : int
        Length of the file with its digests.
    digests : bytes
        The digests of its blocks, 32 bytes each.
    is_sealed : bool
        Whether the digests themselves are as they were written.
    """

    length: int
    size: int
    digests: bytes
    is_sealed: bool

    @classmethod
    def read(cls, file: BinaryIO, path: Path) -> "BlockDigests":
        """Read the digests of a file.

        Raises
        ------
        StoreError
            The file does not end with digests: it was cut, or something was written to it.
        """
        size = os.fstat(file.fileno()).st_size
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
        return cls(length, size, digests, magic == _MAGIC and seal == _seal(length, digests))

    def read_blocks(self, file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, Damage | None]]:
        """Read the blocks that have some of the bytes from `start` to `end`, each with its damage if it has any."""
        for first in range(start - start % DIGESTED_BYTES, end, DIGESTED_BYTES):
            file.seek(first)
            last = min(first + DIGESTED_BYTES, self.length)
            data = file.read(last - first)
            number = first // DIGESTED_BYTES
            is_whole = hashlib.sha256(data).digest() == self.digests[32 * number : 32 * number + 32]
            yield data, None if is_whole else Damage(first, last)

    def read_checked(self, file: BinaryIO, start: int, end: int) -> tuple[memoryview, Damage | None]:
        """Read the bytes from `start` to `end`, with the first damage in the blocks that they are in."""
        blocks = list(self.read_blocks(file, start, end))
        damage = next((damage for _, damage in blocks if damage), None)
        offset = start % DIGESTED_BYTES
        return memoryview(b"".join(data for data, _ in blocks))[offset : offset + end - start], damage


def append_digests(path: Path, known: Mapping[int, bytes] | None = None) -> None:
    """Append the digests of a file's blocks to it.

    Parameters
    ----------
    path : Path
    known : mapping of int to bytes, optional
        Digests that `digest_stretch` found, by number of the block. These blocks are not read again.
    """
    known = known or {}
    with open(path, "r+b") as file:
        length, digests = os.fstat(file.fileno()).st_size, bytearray()
        for number, start in enumerate(range(0, length, DIGESTED_BYTES)):
            if number in known:
                digests += known[number]
            else:
                file.seek(start)
                digests += hashlib.sha256(file.read(min(DIGESTED_BYTES, length - start))).digest()
        file.seek(0, os.SEEK_END)
        file.write(digests + _FOOTER.pack(_MAGIC, length, _seal(length, digests)))


def digest_stretch(file: BinaryIO, start: int, end: int, known: dict[int, bytes]) -> Iterator[bytes]:
    """Read the bytes from `start` to `end` once for two purposes: whoever iterates has them, `known` gets digests.

    Yields
    ------
    bytes
        The bytes, in order. Afterwards `known` has the digests of all blocks that lie within the stretch.
    """
    file.seek(start)
    while start < end:
        stop = min(start - start % DIGESTED_BYTES + DIGESTED_BYTES, end)
        data = file.read(stop - start)
        if len(data) == DIGESTED_BYTES:
            known[start // DIGESTED_BYTES] = hashlib.sha256(data).digest()
        yield data
        start = stop


def find_damage(path: Path, unread: Sequence[tuple[int, int]] = ()) -> list[Damage]:
    """Check the bytes of a file against its digests.

    Parameters
    ----------
    path : Path
    unread : sequence of pairs of int
        Stretches, from the first byte up to, not including, the last: blocks that lie within one are not read.

    Returns
    -------
    list of Damage
        The damaged blocks in their order; empty if every bit is as it was written.

    Raises
    ------
    StoreError
        The file does not end with digests: it was cut, or something was written to it.
    """
    with open(path, "rb") as file:
        known = BlockDigests.read(file, path)
        damage = [] if known.is_sealed else [Damage(known.length, known.size)]
        for start, end in _find_rest(known.length, unread):
            damage += [each for _, each in known.read_blocks(file, start, end) if each]
    return sorted(damage, key=lambda each: each.start)


def _find_rest(length: int, unread: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The stretches between those whose whole blocks are not read, each from the start of a block."""
    start = 0
    for first, last in sorted(unread):
        first, last = first + -first % DIGESTED_BYTES, last - last % DIGESTED_BYTES
        if first < last:
            yield start, first
            start = last
    yield start, length


def _seal(length: int, digests: bytes | bytearray) -> bytes:
    return hashlib.sha256(_MAGIC + struct.pack("<Q", length) + digests).digest()
