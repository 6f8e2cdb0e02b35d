"""Draw one phantom: a picture in which every concept that it is labelled with can be seen.

A picture starts as a body part on a square canvas of brightness in [0, 1], gets its findings, and then takes the
looks of its modality. Coordinates run from -1 to 1, x to the right, y downwards.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import zoom

SIDE = 192
"""Side of the canvas, in pixels; pictures are resized to their own size at the end."""

Pixels = NDArray[np.float32]

Y, X = (np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) + 0.5) / (SIDE / 2) - 1


@dataclass
class Canvas:
    """A picture under way: its brightness, the body's mask, and the dice."""

    pixels: Pixels
    body: Pixels
    random: Generator

    def jitter(self, value: float, spread: float = 0.06) -> float:
        """A value, moved a little at random."""
        return value + float(self.random.uniform(-spread, spread))

    def side(self) -> int:
        """Left (-1) or right (1)."""
        return int(self.random.choice((-1, 1)))

    def paint(self, mask: Pixels, brightness: float) -> None:
        """Blend a brightness in where the mask is."""
        self.pixels += mask * (np.float32(brightness) - self.pixels)

    def add(self, mask: Pixels, amount: float) -> None:
        """Lighten (or darken) where the mask is."""
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
    """Mask that goes from 0 to 1 where `inside` crosses 0, over a stretch of `soft`."""
    return np.clip(inside / max(soft, 1e-3) + 0.5, 0, 1).astype(np.float32)


Part = Callable[[Canvas, str], None]
Touch = Callable[[Canvas], None]


def draw(
    part: Part, view: str, findings: list[Touch], looks: Touch, overlays: list[Touch], random: Generator
) -> Pixels:
    """Draw a picture.

    Parameters
    ----------
    part : callable
        Draws the body part in a view.
    view : str
        ``axial``, ``coronal``, ``sagittal``, ``frontal``, ``lateral`` or empty.
    findings : list of callable
        Drawn into the body, in this order.
    looks : callable
        Gives it the looks of a modality.
    overlays : list of callable
        Drawn over the finished picture.
    random : Generator
        The dice; the same state draws the same picture.

    Returns
    -------
    ndarray of float32, shape (SIDE, SIDE)
        Brightness in [0, 1].
    """
    blank = np.zeros((SIDE, SIDE), np.float32)
    canvas = Canvas(blank, blank, random)
    part(canvas, view)
    for touch in (*findings, looks, *overlays):
        touch(canvas)
    return np.clip(canvas.pixels, 0, 1)


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Resize brightness to a picture's own size."""
    return np.clip(zoom(pixels, (height / SIDE, width / SIDE), order=1), 0, 1)
