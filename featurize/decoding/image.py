"""From a file's bytes to the pixels that the network sees.

Stores and predictions use the same function, so that both see the same pixels.
"""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from cache.support.command import muted
from cache.support.errors import DataError
from featurize.decoding.dicom import read_dicom
from featurize.decoding.dicom_file import is_dicom
from featurize.decoding.packages import Unsupported

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

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP")
"""Formats that a file may have, whatever its ending. Pillow would pass some others to external programs."""

PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
"""The tag of a TIFF file that says what its numbers mean, and one of its values (TIFF 6.0, section 8)."""

TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How a TIFF file begins."""

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
        The bytes are empty, truncated or not an image, or the image is too small or too large.
    """
    if not data:
        raise Unreadable("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of size, which is checked here
            if is_dicom(data):
                image = PIL.Image.fromarray(read_dicom(data, MAX_PIXELS, WINDOW_PERCENTILES))
                _check_size(image)
                return _to_square(image, size)
            with _quiet(data), PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image)
                image.draft(None, (size, size))
                return _to_square(_to_plain(_turn(image)), size)
    except Unreadable:
        raise
    except Unsupported as error:
        raise Unreadable(str(error)) from None
    except PIL.UnidentifiedImageError:
        raise Unreadable("not an image of a known format") from None
    except PIL.Image.DecompressionBombError:
        raise Unreadable(f"more than {MAX_PIXELS:,} pixels") from None
    # Damaged files make decoders fail in many ways: OSError, SyntaxError (PNG), struct.error, ...; none may end a run.
    except Exception as error:
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


@contextmanager
def _quiet(data: bytes) -> Iterator[None]:
    """Silence libtiff's own messages. Standard error belongs to the whole process, so one thread at a time does it."""
    if data[:4] not in TIFF_MARKS:
        yield
        return
    with _muting, muted():
        yield


def _check_size(image: PIL.Image.Image) -> None:
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise Unreadable(f"{width}x{height} pixels, expected at least {MIN_SIDE}x{MIN_SIDE}")
    if width * height > MAX_PIXELS:
        raise Unreadable(f"{width}x{height} pixels, more than {MAX_PIXELS:,}")


def _to_plain(image: PIL.Image.Image) -> PIL.Image.Image:
    """Leave 8-bit grey as it is, which costs a third, and convert everything else to RGB."""
    if image.mode == "L" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _window(image)
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        black = PIL.Image.new("RGBA", opaque.size, (0, 0, 0, 255))
        return PIL.Image.alpha_composite(black, opaque).convert("RGB")
    return image.convert("RGB")


def _window(image: PIL.Image.Image) -> PIL.Image.Image:
    """Stretch grey of more than 8 bits to 8. In a TIFF zero may mean white, which Pillow handles for 8 bits only."""
    values = np.asarray(image)
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        raise Unreadable("no grey level in it is a number")
    low, high = np.percentile(finite, WINDOW_PERCENTILES).astype(np.float32)
    # 16 bits have fewer levels than a radiograph has pixels; 89 megapixels in float32 would take gigabytes.
    levels = np.arange(2**16) if values.dtype.itemsize == 2 else values
    stretched = (np.nan_to_num(levels.astype(np.float32), nan=low) - low) / (high - low if high > low else 1.0) * 255.0
    grey = np.clip(stretched, 0, 255).astype(np.uint8)
    if levels is not values:
        grey = grey[values]
    is_inverted = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO
    return PIL.Image.fromarray(255 - grey if is_inverted else grey)
