"""From a file's bytes to the pixels that the network sees.

Stores and predictions use the same function, so that both see the same pixels.
"""

import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from cache.support.command import muted
from cache.support.errors import DataError
from cache.support.machine_faults import has_memory, is_fault_of_machine
from featurize.decoding.attributes import find_integer
from featurize.decoding.code_stream import TooManyScansError, check_scans
from featurize.decoding.dicom import read_dicom
from featurize.decoding.dicom_file import is_dicom, open_dicom
from featurize.decoding.guard import MAX_BYTES, GuardRequiredError, call_guarded, is_guarded, require_guard
from featurize.decoding.levels import divide_rows, find_levels, find_percentiles, has_levels, look_up
from featurize.decoding.packages import Unsupported
from featurize.decoding.webp import read_webp_size
from featurize.limited_process import LimitError

WINDOW_PERCENTILES = (0.5, 99.5)
"""Percentiles of grey levels of more than 8 bits that become black and white: beyond them are markers and air."""

DECODING, DECODING_BEFORE_DICOM = (
    "{}: JPEG scaled in its transform; deep grey between {} and {} percent".format(version, *WINDOW_PERCENTILES)
    for version in (4, 3)
)
"""Version of `decode`, a fact of every store's provenance: raise the number whenever pixels change. And the version
before, which differs in DICOM files alone: its stores are brought up to date as long as no such file is new."""

RESIZING = "bilinear antialiased"
"""How `decode` resizes, a fact of every store's provenance."""

MIN_SIDE = 2
"""Least width and height, in pixels: a line of pixels shows nothing."""

MAX_PIXELS = 89_478_485
"""Greatest width × height, Pillow's own limit (a quarter of a GiB as RGB). More is damage or an attack."""

MAX_SIDE = 65_535
"""Greatest width and height, that of DICOM and JPEG: what resizes an image needs memory for each of its rows."""

WEBP_COST = 3
"""A pixel of a WebP file counts as so many: what reads it takes three times the memory."""

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP")
"""Formats that a file may have, whatever its ending. Pillow would pass some others to external programs."""

PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
"""The tag of a TIFF file that says what its numbers mean, and one of its values (TIFF 6.0, section 8)."""

TILE_SIDES = 322, 323
"""Its tags for the width and height of tiles (section 15)."""

TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How a TIFF file begins."""

SLOW_DECODERS = ("bmp_rle",)
"""Decoders that Pillow has in Python: a small file can keep them busy for a minute."""

TURNED = 5
"""The EXIF orientations from this on exchange width and height (CIPA DC-008, section 4.6.5)."""

MANY_BLOCKS = 16
"""An image of more blocks of rows is converted block by block."""

MAX_REASON = 300
"""Most characters of a decoder's message about a damaged file; some messages quote the file."""

_muting = threading.Lock()


class Unreadable(DataError):
    """The bytes are not an image that can be read; the message says why."""


def decode(data: bytes, size: int = 224) -> NDArray[np.uint8]:
    """Decode an image and resize it to a square.

    From a DICOM file the middle frame is read; see `featurize.decoding.dicom`. Any other image is rotated by its EXIF
    orientation, grey of more than 8 bits is stretched to 8, transparent parts become black, and grey becomes RGB. The
    whole image is resized by antialiased bilinear interpolation.

    A JPEG of at least twice the size is decoded at a half, a quarter or an eighth, the smallest that is not below the
    size: libjpeg-turbo scales within the cosine transform, which halves the cost.

    Parameters
    ----------
    data : bytes
        The content of the file.
    size : int
        Side of the square, in pixels.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)

    Raises
    ------
    Unreadable
        The bytes are empty, truncated or not an image, or the image is too small or too large, or takes too much time
        or memory.
    MemoryError
        The machine lacks memory, which says nothing of the image.
    OSError
        The machine lacks something else, such as open files.
    """
    return _decode_anywhere(data, size, True)


def decode_picture(data: bytes, longest: int = 1024) -> NDArray[np.uint8]:
    """Decode an image as `decode` does, in its own shape: for people rather than networks.

    Parameters
    ----------
    data : bytes
        The content of the file.
    longest : int
        Most pixels of its longer side; a larger image is made smaller.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)

    Raises
    ------
    Unreadable, MemoryError, OSError
        As `decode`.
    """
    return _decode_anywhere(data, longest, False)


def _decode_anywhere(data: bytes, size: int, to_square: bool) -> NDArray[np.uint8]:
    """Decode an image, in a guarded process if it may take much time or memory."""
    if not data:
        raise Unreadable("empty file")
    try:
        return _decode(data, size, to_square)
    except (GuardRequiredError, MemoryError):
        pass
    try:
        pixels: NDArray[np.uint8] = call_guarded(_decode, data, size, to_square)
    except LimitError as error:
        raise Unreadable(f"damaged, or made to do harm: {error}") from None
    return pixels


def read_size(data: bytes) -> tuple[int, int]:
    """Read width and height of an image that `decode` can read, without its pixels.

    Parameters
    ----------
    data : bytes
        The content of the file.

    Returns
    -------
    width, height : int
        In pixels, after a rotation by the EXIF orientation.
    """
    if is_dicom(data):
        dataset = open_dicom(data).dataset
        return find_integer(dataset, "Columns") or 0, find_integer(dataset, "Rows") or 0
    with _ignoring_warnings(), _quiet(data), PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        is_turned = image.getexif().get(PIL.ExifTags.Base.Orientation, 1) >= TURNED
        return (height, width) if is_turned else (width, height)


def _decode(data: bytes, size: int, to_square: bool) -> NDArray[np.uint8]:
    """Decode an image in this process."""
    resize = _to_square if to_square else _to_fit
    try:
        with _ignoring_warnings():
            if is_dicom(data):
                image = PIL.Image.fromarray(read_dicom(data, MAX_PIXELS, WINDOW_PERCENTILES))
                _check_size(*image.size)
                return resize(image, size)
            _check_cost(data)
            with _quiet(data), PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(*image.size)
                _check_tiles(image)
                if any(tile[0] in SLOW_DECODERS for tile in image.tile):
                    require_guard()
                image.draft(None, (size, size))
                return resize(_to_plain(_turn(image)), size)
    except (Unreadable, GuardRequiredError):
        raise
    except (Unsupported, TooManyScansError) as error:
        raise Unreadable(str(error)) from None
    except PIL.UnidentifiedImageError:
        raise Unreadable("not an image of a known format") from None
    except PIL.Image.DecompressionBombError:
        raise Unreadable(f"more than {MAX_PIXELS:,} pixels") from None
    # Damaged files make decoders fail in many ways: OSError, SyntaxError (PNG), struct.error, ...; none may end a run.
    except Exception as error:
        if is_fault_of_machine(error):
            raise
        # Most decoders say of a lack of memory only that they have failed.
        if not is_guarded() and not has_memory(MAX_BYTES):
            raise MemoryError from error
        kind = "damaged DICOM file" if is_dicom(data) else "damaged"
        reason = " ".join(str(error).split())[:MAX_REASON] or type(error).__name__
        raise Unreadable(f"{kind}: {reason}") from None


def _turn(image: PIL.Image.Image) -> PIL.Image.Image:
    """Rotate by the EXIF orientation, in place: Pillow would copy an image without one for nothing."""
    PIL.ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_square(image: PIL.Image.Image, size: int) -> NDArray[np.uint8]:
    square = image.resize((size, size), PIL.Image.Resampling.BILINEAR)
    return np.asarray(square.convert("RGB"))


def _to_fit(image: PIL.Image.Image, longest: int) -> NDArray[np.uint8]:
    """Make an image smaller until it fits into a square."""
    factor = min(1.0, longest / max(image.size))
    shape = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return np.asarray(image.resize(shape, PIL.Image.Resampling.BILINEAR).convert("RGB"))


@contextmanager
def _quiet(data: bytes) -> Iterator[None]:
    """Silence libtiff's own messages. Standard error belongs to the whole process, so one thread at a time does it."""
    if data[:4] not in TIFF_MARKS:
        yield
        return
    with _muting, muted():
        yield


class _Filters:
    """Ignores warnings while any thread decodes: filters belong to the whole process, and threads end in any order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_threads = 0
        self._catching = warnings.catch_warnings()

    @contextmanager
    def ignoring(self) -> Iterator[None]:
        with self._lock:
            if self._n_threads == 0:
                self._catching = warnings.catch_warnings()
                self._catching.__enter__()
                warnings.simplefilter("ignore")
            self._n_threads += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_threads -= 1
                if self._n_threads == 0:
                    self._catching.__exit__(None, None, None)


_ignoring_warnings = _Filters().ignoring  # Pillow warns of odd metadata and of size, which is checked here


def _check_cost(data: bytes) -> None:
    """Refuse what takes much time or memory before its size can be asked for, or whatever its size."""
    check_scans(data)
    size = read_webp_size(data)
    if size:
        _check_size(*size, MAX_PIXELS // WEBP_COST)


def _check_size(width: int, height: int, most: int | None = None) -> None:
    most = MAX_PIXELS if most is None else most
    if min(width, height) < MIN_SIDE:
        raise Unreadable(f"{width}x{height} pixels, expected at least {MIN_SIDE}x{MIN_SIDE}")
    if width * height > most:
        raise Unreadable(f"{width}x{height} pixels, more than {most:,}")
    if max(width, height) > MAX_SIDE:
        raise Unreadable(f"{width}x{height} pixels, more than {MAX_SIDE:,} in a row or column")


def _check_tiles(image: PIL.Image.Image) -> None:
    """Refuse a TIFF with tiles that are larger than any image: each is unpacked whole."""
    tags = getattr(image, "tag_v2", {})
    width, height = (tags.get(tag, 0) for tag in TILE_SIDES)
    if width * height > MAX_PIXELS:
        raise Unreadable(f"tiles of {width}x{height} pixels, more than {MAX_PIXELS:,}")


def _to_plain(image: PIL.Image.Image) -> PIL.Image.Image:
    """Leave 8-bit grey as it is, which costs a third, and convert everything else to RGB."""
    if image.mode == "L" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _window(image)
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        return _convert_rows(image, _put_on_black)
    return image.convert("RGB")


def _put_on_black(image: PIL.Image.Image) -> PIL.Image.Image:
    opaque = image.convert("RGBA")
    black = PIL.Image.new("RGBA", opaque.size, (0, 0, 0, 255))
    return PIL.Image.alpha_composite(black, opaque).convert("RGB")


def _convert_rows(image: PIL.Image.Image, convert: Callable[[PIL.Image.Image], PIL.Image.Image]) -> PIL.Image.Image:
    """Convert an image to RGB, a few rows at a time where it is large: a whole copy may take a third of a gigabyte."""
    width, height = image.size
    blocks = list(divide_rows((height, width)))
    if len(blocks) <= MANY_BLOCKS:
        return convert(image)
    made = PIL.Image.new("RGB", image.size)
    for rows in blocks:
        made.paste(convert(image.crop((0, rows.start, width, rows.stop))), (0, rows.start))
    return made


def _window(image: PIL.Image.Image) -> PIL.Image.Image:
    """Stretch grey of more than 8 bits to 8. In a TIFF zero may mean white, which Pillow handles for 8 bits only."""
    values = np.asarray(image)
    if has_levels(values):
        levels, counts = find_levels(values)
        low, high = find_percentiles(levels, counts, WINDOW_PERCENTILES).astype(np.float32)
        grey = look_up(values, levels, _stretch(levels, low, high))
    else:
        finite = values[np.isfinite(values)]
        if not finite.size:
            raise Unreadable("no grey level in it is a number")
        low, high = np.percentile(finite, WINDOW_PERCENTILES, overwrite_input=True).astype(np.float32)
        del finite
        grey = np.empty(values.shape, np.uint8)
        for rows in divide_rows(values.shape):
            grey[rows] = _stretch(values[rows], low, high)
    is_inverted = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO
    return PIL.Image.fromarray(255 - grey if is_inverted else grey)


def _stretch(levels: NDArray[Any], low: np.float32, high: np.float32) -> NDArray[np.uint8]:
    """Stretch grey between two levels."""
    finite: NDArray[np.float32] = np.nan_to_num(levels.astype(np.float32), nan=float(low))
    stretched = (finite - low) / (high - low if high > low else 1.0) * 255.0
    grey: NDArray[np.uint8] = np.clip(stretched, 0, 255).astype(np.uint8)
    return grey
