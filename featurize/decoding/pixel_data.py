"""The pixels of one frame of a DICOM file: whole numbers of the bits that are stored, real numbers, or RGB.

Attributes say how they are laid out (PS3.3, C.7.6.3). Those that are absent or odd are derived from the others, from
the number of bytes, and from the compressed stream. pydicom then unpacks the frame.
"""

import re
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from featurize.decoding.attributes import find_code, find_integer
from featurize.decoding.code_stream import DCT, JPEG, RLE, CodeStream, check_scans, read_code_stream, strip_boxes
from featurize.decoding.dicom_file import BIG_ENDIAN, EXPLICIT, DicomFile
from featurize.decoding.guard import require_guard
from featurize.decoding.packages import Unsupported, find_decoder, find_remedy, load_pydicom, name_syntax

KEYWORDS = {"PixelData": 0, "FloatPixelData": 32, "DoubleFloatPixelData": 64}
"""Attributes that hold pixels, and the bits of each number where these are real."""

GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "HSV")
"""Photometric interpretations (C.7.6.3.1.2) of one and of three samples per pixel."""

CONTAINERS = (1, 8, 16, 32, 64)
"""Bits that may be allocated to a number."""

DEEP = 4
"""A grey level of more than 16 bits counts as so many."""

_ITEM = b"\xfe\xff\x00\xe0"


@dataclass(frozen=True)
class PixelFormat:
    """How the numbers of a frame are laid out.

    Attributes
    ----------
    samples : int
        Per pixel.
    photometric : str
        Photometric interpretation.
    allocated, stored, shift : int
        Bits of a number, those of them that hold the sample, and those below it.
    is_signed : bool
    is_planar : bool
        Whether a frame is three planes, one per colour, instead of pixels of three colours.
    """

    samples: int
    photometric: str
    allocated: int
    stored: int
    shift: int
    is_signed: bool
    is_planar: bool

    @property
    def range(self) -> tuple[int, int]:
        """The least and the greatest number that can be stored."""
        return _find_range(self.stored, self.is_signed)


@dataclass(frozen=True)
class Frame:
    """A frame of a file.

    Attributes
    ----------
    pixels : ndarray, shape (height, width) or (height, width, 3)
    format : PixelFormat
    number : int
        From 0.
    keyword : str
        The attribute that holds the pixels.
    """

    pixels: NDArray[Any]
    format: PixelFormat
    number: int
    keyword: str

    @property
    def is_real(self) -> bool:
        """Whether the pixels are real numbers."""
        return KEYWORDS[self.keyword] > 0


@dataclass(frozen=True)
class _Source:
    """Where a frame comes from: the bytes of all frames, or `packed`, the compressed stream of this one."""

    dataset: Any
    keyword: str
    data: bytes
    height: int
    width: int
    n_frames: int
    number: int
    packed: bytes
    stream: CodeStream | None

    @property
    def n_bytes(self) -> int:
        """Bytes per pixel; 0 if they are unknown, or less than one."""
        return self.stream.n_bytes if self.stream else len(self.data) // (self.height * self.width * self.n_frames)


def read_middle_frame(file: DicomFile, max_pixels: int) -> Frame:
    """Unpack the middle frame of a file.

    Parameters
    ----------
    file : DicomFile
    max_pixels : int
        Pixels that a grey frame of at most 16 bits may have; of others it may have fewer. A larger one is refused
        before it is unpacked.

    Returns
    -------
    Frame
        Colours are RGB.

    Raises
    ------
    Unsupported
        The file shows no image, or too large a one, or nothing installed unpacks it.
    Exception
        Anything that pydicom raises on damaged pixels.
    """
    source = _find_source(file.dataset, max_pixels)
    syntax = _find_syntax(file, source)
    format = _find_format(source, syntax)
    _check_cost(source, syntax, format, max_pixels)
    return Frame(_unpack(source, syntax, format), format, source.number, source.keyword)


def _find_source(dataset: Any, max_pixels: int) -> _Source:
    """Find the pixels; if they are compressed, cut out the stream of the middle frame."""
    elements = {name: dataset.get_item(name).value for name in KEYWORDS if name in dataset}
    keyword = next((name for name, data in elements.items() if data and isinstance(data, bytes)), None)
    height, width = (find_integer(dataset, name) or 0 for name in ("Rows", "Columns"))
    if keyword is None or min(height, width) < 1:
        kind = re.fullmatch(r"[0-9.]+", find_code(dataset, "SOPClassUID"))
        raise Unsupported(f"a DICOM file without an image{f' ({kind[0]})' if kind else ''}")
    if height * width > max_pixels:
        raise Unsupported(f"{width}x{height} pixels, more than {max_pixels:,}")
    data, n_frames = elements[keyword], max(find_integer(dataset, "NumberOfFrames") or 1, 1)
    number = (n_frames - 1) // 2
    packed, stream = b"", None
    if data.startswith(_ITEM):
        packed = strip_boxes(load_pydicom().encaps.get_frame(data, number, number_of_frames=n_frames))
        stream = read_code_stream(packed)
        if stream.height and (stream.height, stream.width) != (height, width):
            raise Unsupported(f"declares {width}x{height} pixels and holds {stream.width}x{stream.height}")
    return _Source(dataset, keyword, data, height, width, n_frames, number, packed, stream)


def _find_syntax(file: DicomFile, source: _Source) -> str:
    """Find a transfer syntax that fits the pixels, and that an installed package unpacks."""
    if source.stream is None:
        return EXPLICIT if file.dataset.original_encoding[1] else BIG_ENDIAN
    syntax, decoder = file.syntax, find_decoder(file.syntax)
    if (decoder is None or decoder.is_native) and source.stream.syntax:
        syntax = source.stream.syntax
    remedy = find_remedy(syntax, source.stream.bits)
    if remedy or find_decoder(syntax) is None:
        remedy = f"; to read it: {remedy}" if remedy else ""
        raise Unsupported(f"compressed as {name_syntax(syntax)}, which no installed package unpacks{remedy}")
    if not source.stream.height and syntax != RLE:
        # What unpacks it would believe the stream, and take any amount of time and memory.
        raise ValueError("the compressed pixels do not begin with their size")
    return syntax


def _check_cost(source: _Source, syntax: str, format: PixelFormat, max_pixels: int) -> None:
    """Refuse what takes too much memory or time, and leave to the guard what only trying can tell."""
    # Colours are converted in numbers of 32 bits, and grey of more than 16 bits is shown in numbers of 64.
    most = max_pixels // (format.samples * (DEEP if format.allocated > 16 else 1))
    if source.height * source.width > most:
        kind = f"of {format.samples} samples of {format.allocated} bits"
        raise Unsupported(f"{source.width}x{source.height} pixels {kind}, more than {most:,}")
    if source.stream is None or syntax == RLE:
        return
    check_scans(source.packed)
    if not (syntax in DCT and source.stream.syntax == JPEG):  # only what Pillow reads keeps to the declared size
        require_guard()


def _find_format(source: _Source, syntax: str) -> PixelFormat:
    """Find how the numbers are laid out, from whatever is known."""
    dataset, stream = source.dataset, source.stream or CodeStream()
    photometric = find_code(dataset, "PhotometricInterpretation")
    declared = KEYWORDS[source.keyword] or find_integer(dataset, "BitsAllocated")
    allocated = declared if declared in CONTAINERS else None
    samples = stream.samples or _find_samples(source, photometric, allocated)
    if allocated is None:
        n_bits = stream.bits or (8 if photometric == "YBR_FULL_422" else 8 * source.n_bytes // samples)
        allocated = _find_container(max(n_bits, 1))
    stored, shift = (allocated, 0) if KEYWORDS[source.keyword] else _find_bits(source, allocated)
    if stream.bits:
        allocated = _find_container(max(stream.bits, 8))
        stored = stored if samples == 1 else min(stored, stream.bits)
    sign = find_integer(dataset, "PixelRepresentation")
    if sign not in (0, 1):
        sign = int(stream.is_signed or False)
        dataset.PixelRepresentation = sign  # decides how pydicom converts other attributes
    return PixelFormat(
        samples=samples,
        photometric=_find_photometric(source, syntax, photometric, samples, allocated),
        allocated=allocated,
        stored=stored,
        shift=shift,
        is_signed=samples == 1 and sign == 1,
        is_planar=not source.stream and find_integer(dataset, "PlanarConfiguration") == 1,
    )


def _find_samples(source: _Source, photometric: str, allocated: int | None) -> int:
    """Find the samples per pixel: as declared, or by the photometric interpretation, or by the bytes per pixel."""
    declared = find_integer(source.dataset, "SamplesPerPixel") or 0
    if declared > 0:
        return declared
    if photometric in GREY + COLOURS:
        return 1 if photometric in GREY else 3
    return 3 if source.n_bytes in ((3 * allocated // 8,) if allocated else (3, 6, 12)) else 1


def _find_bits(source: _Source, allocated: int) -> tuple[int, int]:
    """Find how many bits hold a sample, and how many are below it."""
    stream = source.stream or CodeStream()
    stored, high = (find_integer(source.dataset, name) for name in ("BitsStored", "HighBit"))
    high = high if high is not None and 0 < high < allocated else None
    if stream.bits > allocated:
        return stream.bits, 0
    if stored is None or not 1 <= stored <= allocated:
        stored = stream.bits or allocated if high is None else high + 1
    shift = 0 if high is None else max(high + 1 - stored, 0)
    return stored, 0 if 0 < stream.bits < stored + shift else shift


def _find_range(n_bits: int, is_signed: bool) -> tuple[int, int]:
    half = 2 ** (n_bits - 1)
    return (-half, half - 1) if is_signed else (0, 2 * half - 1)


def _find_container(n_bits: int) -> int:
    return next((size for size in CONTAINERS if n_bits <= size), CONTAINERS[-1])


def _find_photometric(source: _Source, syntax: str, declared: str, samples: int, allocated: int) -> str:
    """Find what the samples mean: as declared, if that fits their number, or by what is most common."""
    if samples == 1:
        return declared if declared in GREY else "MONOCHROME2"
    if source.stream and source.stream.is_rgb:
        return "RGB"
    if declared not in COLOURS:
        return "YBR_FULL_422" if syntax in DCT else "RGB"
    has_all_samples = not source.stream and source.n_bytes >= 3 * allocated // 8
    return "YBR_FULL" if declared == "YBR_FULL_422" and has_all_samples else declared


def _unpack(source: _Source, syntax: str, format: PixelFormat) -> NDArray[Any]:
    """Unpack the pixels of a frame: samples without the bits around them, YBR as RGB."""
    stream, n_bits = source.stream, format.stored + format.shift
    packed = load_pydicom().encaps.encapsulate([source.packed], has_bot=False) if stream else source.data
    pixels: NDArray[Any]
    pixels, _ = find_decoder(syntax).as_array(  # type: ignore[union-attr]
        packed,
        index=0 if stream else source.number,
        number_of_frames=1 if stream else source.n_frames,
        decoding_plugin="pillow" if stream and syntax in DCT and stream.bits <= 8 else "",
        rows=source.height,
        columns=source.width,
        samples_per_pixel=format.samples,
        photometric_interpretation=format.photometric,
        bits_allocated=format.allocated,
        bits_stored=min(n_bits, format.allocated),
        pixel_representation=int(format.is_signed),
        planar_configuration=int(format.is_planar),
        pixel_keyword=source.keyword,
        pixel_vr=source.dataset.get_item(source.keyword).VR,
    )
    if KEYWORDS[source.keyword]:
        return pixels
    if stream and stream.bits > n_bits:
        # Above the sample stands an overlay, or the error of a lossy compression, which must not turn white to black.
        spare = 8 * pixels.itemsize - n_bits
        limits = _find_range(n_bits, format.is_signed)
        pixels = (pixels << spare) >> spare if stream.is_lossless else pixels.clip(*limits)
    return pixels >> format.shift
