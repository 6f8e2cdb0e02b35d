"""DICOM files: where the data set begins, how it is encoded, and in which transfer syntax the pixels are.

A file has a preamble of 128 bytes, four letters, and elements of group 0002 that name the transfer syntax (PS3.10,
section 7). Archives hold files without any of the three; then the encoding is derived from the elements themselves.
"""

import io
import re
import struct
import zlib
from typing import Any, NamedTuple

from cache.remote_path import AnyPath
from featurize.decoding.packages import Unsupported, load_pydicom

MAX_INFLATED = 2**28
"""Most bytes that a deflated file may unpack to: no image of the allowed size needs more."""

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
"""Transfer syntaxes of pixels that are not compressed."""

HEADER_BYTES = 4096
"""The part of a file in which the transfer syntax is named."""

_N_PLAUSIBLE = 3
"""Elements that must follow each other: no other kind of file begins like that."""

_FIRST_GROUPS = (0x0008, 0x0010, 0x0018, 0x0020, 0x0028)
_LONG_TYPES = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_UNDEFINED = 0xFFFFFFFF
_SYNTAX = re.compile(rb"\x02\x00\x10\x00(?:UI..|..\x00\x00)([0-9]+(?:\.[0-9]+)+)", re.DOTALL)


class Encoding(NamedTuple):
    """How elements are written: with their types (explicit VR) or without, and in which byte order."""

    is_implicit: bool
    is_little_endian: bool


class DicomFile(NamedTuple):
    """What a file holds: its data set, as pydicom reads it, and the transfer syntax that the file names."""

    dataset: Any
    syntax: str


def is_dicom(data: bytes) -> bool:
    """Whether these bytes are a DICOM file, with or without its preamble."""
    begin = _skip_meta(data, 0)
    return bool(_find_prefix(data) or find_transfer_syntax(data[:begin]) or find_encoding(data, begin))


def read_header(path: AnyPath) -> bytes:
    """The first bytes of a file, from which `is_dicom` tells; none if it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(HEADER_BYTES)
    except OSError:
        return b""


def find_transfer_syntax(header: bytes) -> str:
    """Find the transfer syntax that a file names in its first bytes; empty if there is none."""
    found = _SYNTAX.search(header)
    return found[1].decode() if found else ""


def read_transfer_syntax(path: AnyPath) -> str:
    """Read only the beginning of a file; empty if it cannot be read, or names no transfer syntax."""
    try:
        with path.open("rb", buffering=0) as file:
            return find_transfer_syntax(file.read(HEADER_BYTES))
    except OSError:
        return ""


def open_dicom(data: bytes) -> DicomFile:
    """Read the data set of a file.

    Parameters
    ----------
    data : bytes
        The content of the file.

    Returns
    -------
    DicomFile

    Raises
    ------
    Unsupported
        A deflated file unpacks to too many bytes, or pydicom is not installed.
    Exception
        Whatever pydicom raises on a damaged file.
    """
    syntax = find_transfer_syntax(data[:HEADER_BYTES])
    prefix = _find_prefix(data)
    begin = _skip_meta(data, prefix)
    if syntax == DEFLATED:
        data, prefix, begin = _inflate(data[begin:]), 0, 0
    encoding = find_encoding(data, begin)
    if encoding is None:  # group 0002 is damaged: search the data set
        places = range(prefix, min(prefix + HEADER_BYTES, len(data)))
        begin = next((at for at in places if find_encoding(data, at)), begin)
        encoding = find_encoding(data, begin) or Encoding(syntax == IMPLICIT, syntax != BIG_ENDIAN)
    file = io.BytesIO(data)
    file.seek(begin)
    return DicomFile(load_pydicom().filereader.read_dataset(file, *encoding), syntax)


def find_encoding(data: bytes, at: int) -> Encoding | None:
    """Find the encoding in which elements of a data set stand at a place; None if there are none."""
    encodings = (Encoding(False, True), Encoding(True, True), Encoding(False, False))
    return next((encoding for encoding in encodings if _holds_elements(data, at, encoding)), None)


def _find_prefix(data: bytes) -> int:
    """Find the end of the four letters that mark a file; 0 if it lacks them."""
    return next((at + 4 for at in (128, 0) if data[at : at + 4] == b"DICM"), 0)


def _skip_meta(data: bytes, at: int) -> int:
    """Find the end of the elements of group 0002 that begin at a place; the place itself if there are none."""
    while header := _read_meta_header(data, at):
        at = header.value + header.length
    return at


class _Header(NamedTuple):
    """What stands before the value of an element."""

    tag: int
    value: int
    length: int


def _read_header(data: bytes, at: int, encoding: Encoding) -> _Header | None:
    """Read where the value of the element at a place begins, and its length; None if there is no element."""
    order = "<" if encoding.is_little_endian else ">"
    if at + 12 > len(data):
        return None
    group, element, kind, short = struct.unpack_from(f"{order}HH2sH", data, at)
    tag = group << 16 | element
    if encoding.is_implicit:
        header = _Header(tag, at + 8, struct.unpack_from(f"{order}L", data, at + 4)[0])
    elif not (kind.isalpha() and kind.isupper()):
        return None
    elif kind in _LONG_TYPES:
        header = _Header(tag, at + 12, struct.unpack_from(f"{order}L", data, at + 8)[0])
    else:
        header = _Header(tag, at + 8, short)
    # Element 0000 of a group is the group's length, a number of four bytes.
    return header if element or header.length == 4 else None


def _holds_elements(data: bytes, at: int, encoding: Encoding) -> bool:
    """Whether a few elements follow each other at a place, in rising order."""
    last = 0
    for _ in range(_N_PLAUSIBLE):
        header = _read_header(data, at, encoding)
        if header is None or header.tag <= last or not (last or header.tag >> 16 in _FIRST_GROUPS):
            return False
        if header.length == _UNDEFINED:
            return True
        last, at = header.tag, header.value + header.length
    return at <= len(data)


def _read_meta_header(data: bytes, at: int) -> _Header | None:
    """Read the header of an element of group 0002, which has its type, as the standard says, or lacks it."""
    header = _read_header(data, at, Encoding(False, True)) or _read_header(data, at, Encoding(True, True))
    is_meta = header and header.tag >> 16 == 2 and header.value + header.length <= len(data)
    return header if is_meta else None


def _inflate(packed: bytes) -> bytes:
    """Unpack a deflated data set."""
    data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, MAX_INFLATED + 1)
    if len(data) > MAX_INFLATED:
        raise Unsupported(f"unpacks to more than {MAX_INFLATED:,} bytes")
    return data
