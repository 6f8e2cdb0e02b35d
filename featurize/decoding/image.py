"""One decoder from a file's bytes to the pixels that the network sees.

It serves the store and prediction alike, so that both see the same pixels.
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
from featurize.decoding.dicom import read_dicom
from featurize.decoding.dicom_file import is_dicom
from featurize.decoding.packages import Unsupported

WINDOW_PERCENTILES = (0.5, 99.5)
"""What grey of more than 8 bits is stretched between, in percent: the extremes of a radiograph are markers and air."""

DECODING = "4: JPEG scaled in its transform; deep grey between {} and {} percent".format(*WINDOW_PERCENTILES)
"""What `decode` does, part of a store's provenance: raise the number whenever pixels change."""

RESIZING = "bilinear antialiased"
"""How `decode` resizes, part of a store's provenance."""

MIN_SIDE = 2
"""An image of one pixel in either direction shows nothing."""

MAX_PIXELS = 89_478_485
"""Limit on width × height (Pillow's own, a quarter of a GiB as RGB): above it lies damage or malice."""

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP")
"""What is looked for in a file, whatever its ending; others Pillow would hand to programs of the system."""

PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
"""A TIFF's tag that tells what its numbers mean, and one of its values (TIFF 6.0, section 8)."""

TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

MAX_REASON = 300
"""Letters of what a decoder says of a damaged file; some quote the file."""

_one_is_quiet = threading.Lock()


class Unreadable(Exception):
    """These bytes do not give an image; the message says why."""


def decode(data: bytes, size: int) -> NDArray[np.uint8]:
    """Decode an image and resize it.

    A DICOM file gives its middle frame, as `featurize.decoding.dicom` says. Any other picture is turned as its EXIF
    orientation says, 16-bit grey is windowed to 8 bits, transparent parts become black, grey becomes RGB. The whole is
    resized to a square by antialiased bilinear interpolation. A JPEG of at least twice the size is decoded at the
    smallest half, quarter or eighth that is not below it: libjpeg-turbo scales in the cosine transform, at half the
    cost.

    Parameters
    ----------
    data : bytes
        The file's content.
    size : int
        Side of the square, in pixels.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)

    Raises
    ------
    Unreadable
        The bytes are empty, truncated or no image, or the image is too small or too large.
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
    """As its EXIF orientation says; without one Pillow would copy the picture for nothing."""
    PIL.ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_square(image: PIL.Image.Image, size: int) -> NDArray[np.uint8]:
    square = image.resize((size, size), PIL.Image.Resampling.BILINEAR)
    return np.asarray(square.convert("RGB"))


@contextmanager
def _quiet(data: bytes) -> Iterator[None]:
    """Keep libtiff from writing what it thinks of a file to standard error; one at a time, as that is the process's."""
    if data[:4] not in TIFF_MARKS:
        yield
        return
    with _one_is_quiet, muted():
        yield


def _check_size(image: PIL.Image.Image) -> None:
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise Unreadable(f"{width}x{height} pixels, expected at least {MIN_SIDE}x{MIN_SIDE}")
    if width * height > MAX_PIXELS:
        raise Unreadable(f"{width}x{height} pixels, more than {MAX_PIXELS:,}")


def _to_plain(image: PIL.Image.Image) -> PIL.Image.Image:
    """Grey of 8 bits as it is, which costs a third, and everything else as RGB."""
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
    """Stretch deep grey to 8 bits; a TIFF may say that white is zero, which Pillow minds in 8 bits alone."""
    values = np.asarray(image)
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        raise Unreadable("no grey level in it is a number")
    low, high = np.percentile(finite, WINDOW_PERCENTILES).astype(np.float32)
    # Of 16 bits, the levels are fewer than the pixels of a radiograph: 89 megapixels in float32 would take gigabytes.
    levels = np.arange(2**16) if values.dtype.itemsize == 2 else values
    shown = (np.nan_to_num(levels.astype(np.float32), nan=low) - low) / (high - low if high > low else 1.0) * 255.0
    grey = np.clip(shown, 0, 255).astype(np.uint8)
    if levels is not values:
        grey = grey[values]
    is_inverted = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO
    return PIL.Image.fromarray(255 - grey if is_inverted else grey)
