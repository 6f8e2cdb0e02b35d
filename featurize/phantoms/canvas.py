"""The canvas on which a phantom is drawn: masks, brushes, and the order of drawing.

A picture begins as a body part on a square canvas, gets its findings, and then the appearance of its modality.
Brightness is in [0, 1]. Coordinates run from -1 to 1, x to the right, y downwards.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy  # loads a subpackage when it is first used
from numpy.random import Generator
from numpy.typing import NDArray

SIDE = 192
"""Side of the canvas, in pixels; at the end each picture is resized to its own size."""

VISIBLE = 0.05
"""From this change of brightness on, a finding can be seen."""

Pixels = NDArray[np.float32]

Y, X = (np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) + 0.5) / (SIDE / 2) - 1


@dataclass
class Canvas:
    """A picture that is being drawn.

    Parameters
    ----------
    pixels : ndarray of float32, shape (SIDE, SIDE)
        Brightness.
    body : ndarray of float32, shape (SIDE, SIDE)
        Mask of the body: 1 inside, 0 outside.
    random : Generator
        Source of all random numbers of the picture.
    """

    pixels: Pixels
    body: Pixels
    random: Generator

    def jitter(self, value: float, spread: float = 0.06) -> float:
        """A value, shifted at random by at most `spread`."""
        return value + float(self.random.uniform(-spread, spread))

    def side(self) -> int:
        """Left (-1) or right (1), at random."""
        return int(self.random.choice((-1, 1)))

    def paint(self, mask: Pixels, brightness: float) -> None:
        """Blend in a brightness where the mask is 1."""
        self.pixels += mask * (np.float32(brightness) - self.pixels)

    def add(self, mask: Pixels, amount: float) -> None:
        """Lighten (or darken, if negative) where the mask is 1."""
        self.pixels += mask * np.float32(amount)


def ellipse(x: float, y: float, width: float, height: float, angle: float = 0.0, soft: float = 0.04) -> Pixels:
    """Mask of an ellipse, 1 inside and 0 outside, with a soft edge."""
    cos, sin = np.cos(angle), np.sin(angle)
    u = ((X - x) * cos + (Y - y) * sin) / width
    v = (-(X - x) * sin + (Y - y) * cos) / height
    return edge(1 - np.sqrt(u * u + v * v), soft / min(width, height))


def line(x0: float, y0: float, x1: float, y1: float, width: float, soft: float = 0.02) -> Pixels:
    """Mask of a straight line from one point to another."""
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((X - x0) * dx + (Y - y0) * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
    return edge(width - np.hypot(X - x0 - along * dx, Y - y0 - along * dy), soft)


def edge(inside: Pixels, soft: float) -> Pixels:
    """Mask that rises from 0 to 1 where `inside` crosses 0, over a distance of `soft`."""
    mask: Pixels = np.clip(inside / max(soft, 1e-3) + 0.5, 0, 1).astype(np.float32)
    return mask


Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a picture, in [0, 1]."""

PartDrawing = Callable[[Canvas, str], None]
"""Draws a body part in a view."""

Drawing = Callable[[Canvas], None]
"""Draws something over what is there."""


def draw(
    part: PartDrawing,
    view: str,
    findings: list[Drawing],
    appearance: Drawing,
    overlays: list[Drawing],
    random: Generator,
) -> tuple[Pixels, list[Box]]:
    """Draw a picture.

    Parameters
    ----------
    part : callable
        Draws the body part.
    view : str
        ``axial``, ``coronal``, ``sagittal``, ``frontal``, ``lateral`` or empty.
    findings : list of callable
        Each draws a finding into the body, in this order.
    appearance : callable
        Gives the picture the appearance of a modality.
    overlays : list of callable
        Each draws something over the finished picture.
    random : Generator
        The same state draws the same picture.

    Returns
    -------
    pixels : ndarray of float32, shape (SIDE, SIDE)
        Brightness in [0, 1].
    boxes : list of Box
        Where each finding was drawn.
    """
    blank = np.zeros((SIDE, SIDE), np.float32)
    canvas = Canvas(blank, blank, random)
    part(canvas, view)
    boxes = []
    for drawing in findings:
        before = canvas.pixels.copy()
        drawing(canvas)
        boxes.append(_find_box(np.abs(canvas.pixels - before) > VISIBLE))
    for drawing in (appearance, *overlays):
        drawing(canvas)
    return np.clip(canvas.pixels, 0, 1), boxes


def _find_box(mask: NDArray[np.bool_]) -> Box:
    """The box around a mask; all of the picture if it is empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return 0.0, 0.0, 1.0, 1.0
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return float(left / SIDE), float(top / SIDE), float(right / SIDE), float(bottom / SIDE)


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Resize a picture; returns brightness of shape (height, width)."""
    resized: Pixels = np.clip(scipy.ndimage.zoom(pixels, (height / SIDE, width / SIDE), order=1), 0, 1)
    return resized
