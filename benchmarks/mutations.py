"""Damage to files: of their bytes, and of what the bytes mean (headers, numbers, JSON values, cells, HDF5 objects)."""

import io
import json
import random
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import h5py
import numpy as np

NUMBERS = (0, 1, 2, 7, 8, 9, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000,
           0xFFFFFFFF, 0x100000000, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)  # fmt: skip
"""Numbers at which something overflows, or a size becomes absurd."""

TOKENS = (
    "", ",", ";", "|", '"', '""', "\n", "\r", "\r\n", "\t", " ", "\0", "\ufeff", "\xa0", "\u200b", "C0000001",
    "ID,CUIs\n", "=1+1", "'", "[", "]", "\x1b[2J", "\u202e", "e\u0301", "C" * 70_000, "," * 3_000, '"' * 999, "ID",
    "NaN", "-1",
)  # fmt: skip
"""Pieces of text that a reader of tables may trip over."""

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, "", "x", "\0", "../../etc/passwd", [], [[]],
    {}, {"a": {}}, [0] * 1000, float("nan"), float("inf"), "\ud800", "9" * 400,
)  # fmt: skip
"""What may stand in JSON where something else was expected."""


NESTED = (b"[" * 100_000, b'{"a":' * 50_000, b"[" * 900 + b"]" * 900, b'"' + b"a" * 10**6, b"1" * 5_000)
"""JSON that takes much of a reader: depth, length, digits."""


def damage_bytes(data: bytes, rng: random.Random, places: Sequence[int] = (), others: Sequence[bytes] = ()) -> bytes:
    """One to four changes of bytes; half of them near the places that matter, if there are any."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        if not changed:
            return bytes(changed)
        at = rng.randrange(len(changed))
        if places and rng.random() < 0.5:
            at = min(max(rng.choice(places) + rng.randrange(16), 0), len(changed) - 1)
        match rng.randrange(10):
            case 0 | 1:
                changed[at] ^= 1 << rng.randrange(8)
            case 2:
                changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 3 | 4:
                width, order = rng.choice((2, 4, 8)), rng.choice(("little", "big"))
                number = rng.choice((*NUMBERS, len(data), rng.randrange(1 << 32))) % (1 << 8 * width)
                changed[at : at + width] = number.to_bytes(width, order)
            case 5:
                del changed[at:]
            case 6:
                del changed[at : at + rng.choice((1, 2, 4, 8, 100, 1000))]
            case 7:
                size = rng.choice((1, 2, 4, 16, 200, 4000))
                changed[at:at] = changed[at : at + size] * rng.choice((1, 2, 10))
            case 8:
                changed[at : at + rng.choice((1, 8, 64, 512))] = bytes(rng.choice((1, 8, 64, 512)))
            case 9:
                other = rng.choice(others) if others else data
                start = rng.randrange(len(other)) if other else 0
                changed[at : at + 256] = other[start : start + rng.choice((4, 64, 1024))]
    return bytes(changed)


def damage_text(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Change cells and rows of a table, or its encoding; sometimes any bytes."""
    if rng.random() < 0.25:
        return damage_bytes(data, rng, (), others)
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        row = rng.randrange(len(lines))
        at = rng.randrange(len(lines[row]) + 1)
        match rng.randrange(7):
            case 0 | 1 | 2:
                lines[row] = lines[row][:at] + rng.choice(TOKENS) + lines[row][at:]
            case 3:
                lines[row] = lines[row][:at]
            case 4:
                lines.insert(row, rng.choice(lines))
            case 5:
                lines[row] = rng.choice((",", ";", "\t", "|")).join(lines[row].replace(";", ",").split(","))
            case 6:
                lines[row] = rng.choice(TOKENS)
    text = "\n".join(lines)
    encoding = rng.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-32"))
    if encoding == "utf-8":
        return text.encode("utf-8", "surrogateescape")
    return text.encode(encoding, "replace")


def damage_json(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Change values and keys; sometimes nest deeply, or change any bytes."""
    kind = rng.random()
    if kind < 0.4:
        return damage_bytes(data, rng, (), others)
    if kind < 0.42:
        return rng.choice(NESTED)
    return damage_values(data, rng)


def damage_values(data: bytes, rng: random.Random) -> bytes:
    """JSON with another value, a missing or an unknown key anywhere."""
    root = json.loads(data)
    holders = [([root], 0)]
    for holder, key in holders:
        value = holder[key]
        keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        holders += [(value, each) for each in keys]
    for _ in range(rng.choice((1, 1, 2))):
        holder, key = rng.choice(holders)
        if isinstance(holder, dict) and rng.random() < 0.3:
            holder.pop(key, None)
        elif isinstance(holder, dict) and rng.random() < 0.2:
            holder[rng.choice(("", "x", "format", "\0", "\x1b[2J"))] = rng.choice(VALUES)
        elif isinstance(holder, dict) or key < len(holder):
            holder[key] = rng.choice(VALUES)
    try:
        return json.dumps(holders[0][0][0]).encode()
    except ValueError:  # a value now holds itself
        return b"{}"


def find_chunks(data: bytes) -> list[int]:
    """Where headers and fields begin in a picture: JPEG markers, PNG chunks, RIFF chunks, the beginning and the end."""
    places = [*range(0, min(len(data), 64), 4), max(len(data) - 64, 0)]
    if data[:2] == b"\xff\xd8":
        places += [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] not in (0, 0xFF)]
    if data[:4] == b"\x89PNG":
        at = 8
        while at + 8 < len(data):
            places.append(at)
            at += 12 + int.from_bytes(data[at : at + 4], "big")
    if data[:4] in (b"II*\0", b"MM\0*"):
        first = int.from_bytes(data[4:8], "little" if data[:2] == b"II" else "big")
        places += range(first, min(first + 260, len(data)), 4)
    return places


def mend_png(data: bytes) -> bytes:
    """A PNG file with the right checksum for every chunk, so that readers look at what is in it."""
    mended, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + size]
        mended += data[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + size
    return bytes(mended + data[at:])


def damage_hdf5(data: bytes, rng: random.Random, outside: str) -> bytes:
    """Rebuild an HDF5 file with one object that is of another kind, size or place than it was.

    Parameters
    ----------
    data : bytes
    rng : random.Random
    outside : str
        Path of another HDF5 file, which must not be opened.
    """
    image = io.BytesIO(data)
    with h5py.File(image, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = rng.choice(names)
        parent, found = file[name].parent, file[name]
        shape, kind = (found.shape, found.dtype) if isinstance(found, h5py.Dataset) else ((3,), np.dtype("f4"))
        leaf = name.rsplit("/", 1)[-1]
        del parent[leaf]
        _CHANGES[rng.randrange(len(_CHANGES))](parent, leaf, shape, kind, rng, outside)
    return image.getvalue()


def _link(parent: Any, name: str, shape: Any, kind: Any, rng: random.Random, outside: str) -> None:
    parent[name] = h5py.ExternalLink(outside, rng.choice(("/", "x", name)))


def _loop(parent: Any, name: str, shape: Any, kind: Any, rng: random.Random, outside: str) -> None:
    parent[name] = rng.choice((h5py.SoftLink("/"), h5py.SoftLink(f"{parent.name}/{name}"), parent))


def _external(parent: Any, name: str, shape: Any, kind: Any, rng: random.Random, outside: str) -> None:
    kind = kind if kind.kind != "O" else np.dtype("f4")
    parent.create_dataset(name, shape or (1,), kind, external=[(outside, 0, h5py.h5f.UNLIMITED)])


def _virtual(parent: Any, name: str, shape: Any, kind: Any, rng: random.Random, outside: str) -> None:
    layout = h5py.VirtualLayout(shape or (1,), kind)
    layout[...] = h5py.VirtualSource(outside, "x", shape or (1,))
    parent.create_virtual_dataset(name, layout)


def _huge(parent: Any, name: str, shape: Any, kind: Any, rng: random.Random, outside: str) -> None:
    sides = [rng.choice((1, 3, 10**4, 10**6, 2**31, 2**40)) for _ in range(rng.choice((1, 2, max(len(shape), 1))))]
    chunks = tuple(min(side, 1000) for side in sides[:1]) + (1,) * (len(sides) - 1)
    packed = rng.choice(({}, {"chunks": chunks, "compression": "gzip"}, {"chunks": chunks, "fletcher32": True}))
    parent.create_dataset(name, sides, kind if kind.kind != "O" else "f4", **packed)


def _unpacks(parent: Any, name: str, shape: Any, kind: Any, rng: random.Random, outside: str) -> None:
    side = rng.choice((10**5, 10**7))
    parent.create_dataset(name, data=np.zeros(side, "u1"), chunks=(side,), compression="gzip", shuffle=True)


def _group(parent: Any, name: str, shape: Any, kind: Any, rng: random.Random, outside: str) -> None:
    parent.create_group(name).attrs["x"] = np.arange(3)


def _other(parent: Any, name: str, shape: Any, kind: Any, rng: random.Random, outside: str) -> None:
    sides = shape or (1,)
    made = rng.choice((
        np.zeros(sides, "f8"), np.full(sides, np.nan, "f4"), np.zeros((0,), "u1"), np.array(b"x" * 50), "text",
        np.zeros((2, 2), "i8"), np.full(sides, -1, "i8"), np.frombuffer(rng.randbytes(64), "u1"), h5py.Empty("f4"),
        np.zeros(3, [("a", "f4"), ("b", "S3")]), np.array(["text"] * 3, h5py.string_dtype()),
    ))  # fmt: skip
    parent.create_dataset(name, data=made)


def _nothing(parent: Any, name: str, shape: Any, kind: Any, rng: random.Random, outside: str) -> None:
    """The object is gone."""


_CHANGES: tuple[Callable[..., None], ...] = (
    _link,
    _loop,
    _external,
    _virtual,
    _huge,
    _unpacks,
    _group,
    _other,
    _other,
    _nothing,
)
