"""Compressed pixels: what the stream of a frame says of itself, whatever the data set says.

JPEG and JPEG-LS (ISO/IEC 10918-1 annex B, 14495-1 annex C) and JPEG 2000 (15444-1 annex A) begin with segments, each a
marker of two bytes, a length and its contents. RLE (PS3.5 annex G) begins with the number of its segments.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

RLE = "1.2.840.10008.1.2.5"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_2000, HTJ2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201"
DCT = JPEG, JPEG_12_BITS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
LOSSLESS = "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"
"""Transfer syntaxes. One stands for each kind of stream that can be told from its beginning; of JPEG there are those
by cosine transform and the lossless ones."""

_BOX = b"\0\0\0\x0cjP  "
_START_OF_2000 = b"\xff\x4f\xff\x51"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""Markers before the size of a JPEG; the last is that of JPEG-LS."""

_CAPABILITIES, _SIZE, _CODING, _START_OF_SCAN, _START_OF_TILE, _ADOBE = 0x50, 0x51, 0x52, 0xDA, 0x90, 0xEE


MAX_SCANS = 100
"""Scans that a JPEG may have. Programs write about ten; each takes time for every pixel of the image, and few bytes."""

_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""The marker after a scan: within one, the byte 255 stands before 0 or a restart."""


class TooManyScansError(ValueError):
    """A JPEG has more scans than any program writes."""


@dataclass
class CodeStream:
    """What a stream declares.

    Attributes
    ----------
    syntax : str
        Transfer syntax of its kind; empty if the kind is unknown.
    height, width, samples, bits : int
        Samples per pixel and bits per sample; 0 where the stream does not say.
    is_signed : bool or None
        None where the stream cannot say.
    is_lossless : bool
    is_rgb : bool
        Marked by Adobe: Pillow, which alone reads the marker, decodes such a stream to RGB.
    n_bytes : int
        Bytes per pixel; 0 where the stream does not say.
    """

    syntax: str = ""
    height: int = 0
    width: int = 0
    samples: int = 0
    bits: int = 0
    is_signed: bool | None = None
    is_lossless: bool = True
    is_rgb: bool = False
    n_bytes: int = 0


def strip_boxes(packed: bytes) -> bytes:
    """Leave out the boxes of a JP2 file, which the standard forbids; pydicom would never end with a damaged one."""
    return packed[max(packed.find(_START_OF_2000), 0) :] if packed.startswith(_BOX) else packed


def read_code_stream(packed: bytes) -> CodeStream:
    """Read what the stream of one frame, without boxes, declares."""
    if packed.startswith(_START_OF_2000):
        return _read_jpeg_2000(packed)
    if packed[:2] == b"\xff\xd8":
        return _read_jpeg(packed)
    n_segments, first = (int.from_bytes(packed[at : at + 4], "little") for at in (0, 4))
    return CodeStream(RLE, n_bytes=n_segments) if 1 <= n_segments <= 15 and first == 64 else CodeStream()


def check_scans(packed: bytes) -> None:
    """Refuse a JPEG of very many scans.

    Raises
    ------
    TooManyScansError
        It has more than `MAX_SCANS`.
    """
    if packed.startswith(b"\xff\xd8") and packed.count(_SCAN) > MAX_SCANS and count_scans(packed) > MAX_SCANS:
        raise TooManyScansError(f"more than {MAX_SCANS} scans")


def count_scans(packed: bytes) -> int:
    """Count the scans of a JPEG, not those of small pictures within its segments, nor what comes after its end."""
    n_scans, at = 0, 2
    while marker := _NEXT_MARKER.search(packed, at):
        at = marker.start()
        if packed[at : at + 2] == _END:
            break
        n_scans += packed[at : at + 2] == _SCAN
        at += 2 + max(int.from_bytes(packed[at + 2 : at + 4], "big"), 2)
    return n_scans


def _read_jpeg_2000(packed: bytes) -> CodeStream:
    stream = CodeStream(JPEG_2000, is_lossless=False)
    for marker, body in _segments(packed, 2):
        if marker == _SIZE:
            right, lower, left, upper = (int.from_bytes(body[at : at + 4], "big") for at in (2, 6, 10, 14))
            stream.height, stream.width = lower - upper, right - left
            stream.samples, depth = int.from_bytes(body[34:36], "big"), body[36]
            stream.bits, stream.is_signed = (depth & 0x7F) + 1, bool(depth >> 7)
        elif marker == _CAPABILITIES:
            stream.syntax = HTJ2K
        elif marker == _CODING:
            stream.is_lossless = body[9] == 1  # the wavelet that can be reversed
        elif marker == _START_OF_TILE:
            break
    return stream


def _read_jpeg(packed: bytes) -> CodeStream:
    stream = CodeStream()
    for marker, body in _segments(packed, 2):
        if marker in _FRAMES:
            stream.bits, stream.samples = body[0], body[5]
            stream.height, stream.width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            stream.syntax = {0xC3: LOSSLESS[0], 0xF7: JPEG_LS}.get(marker, JPEG if stream.bits == 8 else JPEG_12_BITS)
            stream.is_lossless = marker == 0xC3
        elif marker == _ADOBE and body.startswith(b"Adobe"):
            stream.is_rgb = True
        elif marker == _START_OF_SCAN:
            if stream.syntax == JPEG_LS:
                stream.is_lossless = body[1 + 2 * body[0]] == 0  # the error that is allowed
            break
    return stream


def _segments(packed: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Marker and body of each segment, up to the end or to the first damage."""
    while at + 4 <= len(packed) and packed[at] == 0xFF:
        if packed[at + 1] == 0xFF:
            at += 1  # markers may be padded
            continue
        length = int.from_bytes(packed[at + 2 : at + 4], "big")
        yield packed[at + 1], packed[at + 4 : at + 2 + length]
        at += 2 + length
