"""DICOM: from a file's bytes to the grey levels or colours that a radiologist's screen would show.

Section numbers are those of the standard, DICOM PS3.3. pydicom reads the file; compressed pixels are read by its own
plugins and by those that are installed.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.decoding.attributes import find_code, find_items, find_number, find_numbers
from featurize.decoding.dicom_file import open_dicom
from featurize.decoding.levels import find_levels, find_percentiles, has_levels, look_up
from featurize.decoding.lookup_table import read_palette, read_table
from featurize.decoding.packages import Unsupported
from featurize.decoding.pixel_data import Frame, read_middle_frame

LINEAR, LINEAR_EXACT, SIGMOID = "LINEAR", "LINEAR_EXACT", "SIGMOID"
"""Functions of a window; the first is the default."""

MAX_TABLES = 100
"""Lookup tables of a sequence that are tried: a damaged file may have a hundred thousand."""


def read_dicom(data: bytes, max_pixels: int, percentiles: tuple[float, float]) -> NDArray[np.uint8]:
    """Read the middle frame of a DICOM file as 8 bits.

    Grey levels are rescaled (C.11.1) and mapped by the first lookup table or window of the file (C.11.2). Without
    either, grey of more than 8 bits is stretched between percentiles. MONOCHROME1 is inverted, so that air is black.
    Padding (C.7.5.1.1.2) is black. Palettes and YBR become RGB. An attribute that may be absent is treated as absent if
    it is empty or of another type than the standard says.

    Parameters
    ----------
    data : bytes
        The content of the file.
    max_pixels : int
        Most pixels that a frame may have; a larger one is refused before it is unpacked.
    percentiles : tuple of float
        Percentiles that become black and white where there is no window.

    Returns
    -------
    ndarray of uint8, shape (height, width) or (height, width, 3)

    Raises
    ------
    Unsupported
        There is no image, it is too large, or it needs a package that is not installed.
    Exception
        Whatever pydicom raises on a damaged file.
    """
    file = open_dicom(data)
    frame = read_middle_frame(file, max_pixels)
    if frame.format.photometric == "PALETTE COLOR":
        palette = read_palette(file.dataset, *frame.format.range)
        if palette is None:
            raise Unsupported("a DICOM file of palette colours without its palette")
        colours = _to_8_bits(palette.entries, palette.bits)
        return _map_levels(frame.pixels, lambda levels: colours[palette.find_places(levels)])
    if frame.format.samples > 1:
        return _map_levels(frame.pixels, partial(_to_8_bits, bits=frame.format.stored))
    if not has_levels(frame.pixels):
        return _show(frame, file.dataset, percentiles)
    levels, counts = find_levels(frame.pixels)
    shown = _show(replace(frame, pixels=levels), file.dataset, percentiles, counts)
    return look_up(frame.pixels, levels, shown)


def window(values: NDArray[Any], center: float, width: float, function: str = LINEAR) -> NDArray[np.float64]:
    """Map grey levels to 0 to 255 by a window (C.11.2.1.2 and C.11.2.1.3).

    Parameters
    ----------
    values : ndarray
    center, width : float
        In the units of `values`; the width is above 0, and at least 1 for `LINEAR`.
    function : str
        ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.

    Returns
    -------
    ndarray of float64

    Examples
    --------
    >>> window(np.array([-1000, 40, 1000]), 40.5, 401).tolist()
    [0.0, 127.5, 255.0]
    """
    values = values.astype(np.float64)
    if not _is_usable(center, width, function):
        raise ValueError(f"a window of width {width}")
    if function == SIGMOID:
        return 255 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == LINEAR and width == 1:
        return np.where(values <= center - 0.5, 0.0, 255.0)
    if function == LINEAR:
        center, width = center - 0.5, width - 1
    return np.clip((values - center) / width + 0.5, 0, 1) * 255


def _is_usable(center: float, width: float, function: str) -> bool:
    return math.isfinite(center) and math.isfinite(width) and width > 0 and (function != LINEAR or width >= 1)


@dataclass(frozen=True)
class _Grey:
    """Grey levels in the units of the modality, such as Hounsfield units, and the lowest and highest possible one."""

    values: NDArray[Any]
    low: float
    high: float


def _map_levels(pixels: NDArray[Any], show: Callable[[NDArray[Any]], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Call a function once for each level, where levels are fewer than pixels."""
    if not has_levels(pixels):
        return show(pixels)
    levels, _ = find_levels(pixels)
    return look_up(pixels, levels, show(levels))


def _show(
    frame: Frame, dataset: Any, percentiles: tuple[float, float], counts: NDArray[np.int64] | None = None
) -> NDArray[np.uint8]:
    """Grey levels as a screen would show them, from 0 to 255; `counts` says of how many pixels each one is."""
    grey = _rescale(frame, dataset)
    padding = _find_padding(frame, dataset)
    shown = _apply_window(grey, frame, dataset)
    if shown is None and grey.values is frame.pixels and frame.format.stored <= 8:
        shown = (grey.values.astype(np.float64) - grey.low) * 255 / (grey.high - grey.low)
    elif shown is None:
        shown = _stretch(grey.values, padding, percentiles, counts)
    pixels = np.clip(np.round(np.nan_to_num(shown, copy=False)), 0, 255).astype(np.uint8)
    if frame.format.photometric == "MONOCHROME1":
        pixels = 255 - pixels
    if padding is not None:
        pixels[padding] = 0
    return pixels


def _rescale(frame: Frame, dataset: Any) -> _Grey:
    """Apply the modality's lookup table, or else slope and intercept; one of them that is no number is ignored."""
    low, high = frame.format.range
    for item in find_items(dataset, "ModalityLUTSequence")[:MAX_TABLES]:
        if table := read_table(item, low, high):
            return _Grey(table.look_up(frame.pixels), 0, 2**table.bits - 1)
    for group in _find_groups(dataset, frame.number, "PixelValueTransformationSequence"):
        slope, intercept = (find_number(group, name) for name in ("RescaleSlope", "RescaleIntercept"))
        if slope is None and intercept is None:
            continue
        slope, intercept = slope or 1.0, intercept or 0.0
        if (slope, intercept) == (1.0, 0.0):
            break
        ends = sorted((low * slope + intercept, high * slope + intercept))
        return _Grey(frame.pixels * slope + intercept, *ends)
    return _Grey(frame.pixels, low, high)


def _apply_window(grey: _Grey, frame: Frame, dataset: Any) -> NDArray[np.float64] | None:
    """Map grey to 0 to 255 by the first lookup table or window that can be used; None if there is none."""
    for group in _find_groups(dataset, frame.number, "FrameVOILUTSequence"):
        for item in find_items(group, "VOILUTSequence")[:MAX_TABLES]:
            if table := read_table(item, grey.low, grey.high):
                shown: NDArray[np.float64] = table.look_up(grey.values) * 255.0 / (2**table.bits - 1)
                return shown
        function = find_code(group, "VOILUTFunction")
        if function not in (LINEAR_EXACT, SIGMOID):
            function = LINEAR_EXACT if frame.is_real else LINEAR  # LINEAR is shifted by half a whole number
        centers, widths = find_numbers(group, "WindowCenter"), find_numbers(group, "WindowWidth")
        for center, width in zip(centers, widths, strict=False):
            if _is_usable(center, width, function):
                return window(grey.values, center, width, function)
    return None


def _stretch(
    values: NDArray[Any],
    padding: NDArray[np.bool_] | None,
    percentiles: tuple[float, float],
    counts: NDArray[np.int64] | None,
) -> NDArray[np.float64]:
    """Stretch grey between two percentiles of what is no padding."""
    is_inside = np.isfinite(values) if padding is None else np.isfinite(values) & ~padding
    inside = values[is_inside]
    if not inside.size:
        raise Unsupported("a DICOM file in which no grey level is a number")
    if counts is None:
        low, high = np.percentile(inside, percentiles, overwrite_input=True)
    else:
        low, high = find_percentiles(inside, counts[is_inside], percentiles)
    stretched: NDArray[np.float64] = (values - low) / (high - low if high > low else 1.0) * 255
    return stretched


def _find_padding(frame: Frame, dataset: Any) -> NDArray[np.bool_] | None:
    """Find the pixels that only fill the frame (C.7.5.1.1.2); None if there are none, or nothing else."""
    names = [f"{frame.keyword.removesuffix('Data')}Padding{name}" for name in ("Value", "RangeLimit")]
    ends = [find_number(dataset, name) for name in names]
    if ends[0] is None:
        return None
    stored = sorted(end if frame.is_real else _to_stored(end, frame) for end in ends if end is not None)
    padding: NDArray[np.bool_] = (frame.pixels >= stored[0]) & (frame.pixels <= stored[-1])
    return padding if padding.any() and not padding.all() else None


def _to_stored(number: float, frame: Frame) -> int:
    """Give a number of 16 bits, whose type may have the wrong sign, the sign of the pixels."""
    format = frame.format
    stored, allocated = 1 << format.stored, 1 << format.allocated
    bits = int(number) % allocated
    if format.is_signed and bits > format.range[1]:
        return bits - (stored if bits < stored else allocated)
    return bits


def _find_groups(dataset: Any, frame: int, name: str) -> Iterator[Any]:
    """Find the places that may hold a frame's values: the file itself, its groups for this frame, and those for all."""
    yield dataset
    for sequence, number in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        for group in find_items(dataset, sequence)[number : number + 1]:
            yield from find_items(group, name)


def _to_8_bits(colours: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Scale colours of a number of bits to 8."""
    scaled = np.round(colours * (255 / (2**bits - 1))) if bits < 8 else colours >> (bits - 8)
    return scaled.astype(np.uint8)
