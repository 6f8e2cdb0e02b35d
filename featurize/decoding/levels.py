"""Work on the grey levels of an image instead of its pixels.

Of 16 bits there are 65,536, and of pixels a thousand times as many. It is faster, and takes no memory where the work is
in numbers of 64 bits.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 2**20
"""Pixels that are worked on at once."""


def has_levels(pixels: NDArray[Any]) -> bool:
    """Whether pixels are whole numbers of at most 16 bits."""
    return pixels.dtype.kind in "iu" and pixels.dtype.itemsize <= 2


def find_levels(pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Find the levels that occur, and count their pixels.

    Examples
    --------
    >>> find_levels(np.array([[7, -1, 7]], np.int16))
    (array([ 7, -1], dtype=int16), array([2, 1]))
    """
    places = _to_places(pixels)
    counts = np.zeros(2 ** (8 * pixels.dtype.itemsize), np.int64)
    for rows in divide_rows(pixels.shape):
        counts += np.bincount(places[rows].ravel(), minlength=len(counts))
    found = np.flatnonzero(counts)
    kind, size = pixels.dtype.kind, pixels.dtype.itemsize
    return found.astype(f"u{size}").view(f"{kind}{size}"), counts[found]


def look_up(pixels: NDArray[Any], levels: NDArray[Any], shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put what each level is shown as in the place of each pixel.

    Parameters
    ----------
    pixels : ndarray, shape (height, width, ...)
    levels : ndarray, shape (n_levels,)
        From `find_levels`.
    shown : ndarray of uint8, shape (n_levels, ...)
        A grey or a colour for each level.
    """
    table = np.zeros((2 ** (8 * pixels.dtype.itemsize), *shown.shape[1:]), np.uint8)
    table[_to_places(levels)] = shown
    places = _to_places(pixels)
    made = np.empty((*pixels.shape, *shown.shape[1:]), np.uint8)
    for rows in divide_rows(pixels.shape):
        made[rows] = table[places[rows]]
    return made


def find_percentiles(
    values: NDArray[Any], counts: NDArray[np.int64], percentiles: Sequence[float]
) -> NDArray[np.float64]:
    """The same as ``np.percentile(np.repeat(values, counts), percentiles)``.

    Examples
    --------
    >>> find_percentiles(np.array([5, 1]), np.array([3, 1]), [0, 25, 50]).tolist()
    [1.0, 4.0, 5.0]
    """
    order = np.argsort(values, kind="stable")
    ends = np.cumsum(counts[order])
    ranked = values[order].astype(np.float64)
    places = (ends[-1] - 1) * np.true_divide(percentiles, 100)
    before = np.floor(places).astype(np.int64)
    low, high = (
        ranked[np.searchsorted(ends, np.minimum(each, ends[-1] - 1), "right")] for each in (before, before + 1)
    )
    part = places - before
    # NumPy rounds so that what lies halfway between two numbers is the same from both sides.
    found: NDArray[np.float64] = np.where(part < 0.5, low + (high - low) * part, high - (high - low) * (1 - part))
    return found


def divide_rows(shape: Sequence[int]) -> Iterator[slice]:
    """Divide rows into blocks of about `BLOCK` pixels.

    >>> [each.stop - each.start for each in divide_rows((1000, 2**18))][-2:]
    [4, 4]
    """
    step = max(1, BLOCK // shape[1])
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def _to_places(pixels: NDArray[Any]) -> NDArray[Any]:
    """The same bits as numbers without a sign."""
    return pixels.view(f"{pixels.dtype.byteorder}u{pixels.dtype.itemsize}")
