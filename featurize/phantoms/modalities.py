"""Modalities: the appearance that a body part takes when it is imaged."""

import numpy as np
import scipy  # loads a subpackage when it is first used

from featurize.phantoms.canvas import SIDE, Canvas, Pixels, X, Y, edge, ellipse


def ct(c: Canvas) -> None:
    """Sharp, high contrast, fine grain, with the table's arc below."""
    c.pixels = 0.5 + 1.15 * (c.pixels - 0.45)
    c.add(ellipse(0, 1.75, 1.5, 0.9) * (1 - ellipse(0, 1.79, 1.5, 0.9)), 0.5)
    c.pixels += c.random.normal(0, 0.035, (SIDE, SIDE)).astype(np.float32)


def mr(c: Canvas) -> None:
    """Bone dark, soft tissue bright, uneven coil sensitivity, grain everywhere."""
    bright = c.pixels > 0.75
    c.pixels = np.where(bright, 0.9 - 0.75 * c.pixels, 0.15 * c.body + 1.1 * c.pixels)
    field = 1 + 0.45 * (c.jitter(0, 1) * X + c.jitter(0, 1) * Y)
    c.pixels = scipy.ndimage.gaussian_filter(c.pixels, 0.9) * field
    c.pixels = np.abs(c.pixels + c.random.normal(0, 0.05, (SIDE, SIDE)).astype(np.float32))


def xray(c: Canvas) -> None:
    """A projection: soft, everything shines through, grey to the edges, with a side marker."""
    thickness = scipy.ndimage.gaussian_filter(c.body, 14)
    c.pixels = scipy.ndimage.gaussian_filter(0.55 * c.pixels + 0.4 * thickness, 1.3)
    c.pixels = np.clip(c.pixels, 0, 1) ** np.float32(0.85)
    c.pixels[8:20, 8:14] = 0.95
    c.pixels[14:20, 14:19] = 0.95


def ultrasound(c: Canvas) -> None:
    """A fan of speckle, dimmer with depth, on black."""
    speckle = c.random.rayleigh(0.62, (SIDE, SIDE)).astype(np.float32)
    speckle = scipy.ndimage.gaussian_filter1d(speckle, 1.4, axis=1)
    radius, angle = np.hypot(X, Y + 1.15), np.arctan2(X, Y + 1.15)
    fan = edge(0.66 - np.abs(angle), 0.02) * edge(2.05 - radius, 0.03) * edge(radius - 0.3, 0.03)
    c.pixels = np.clip(c.pixels * 1.3 + 0.08, 0, 1.2) * speckle * (1.15 - 0.3 * radius) * fan


def angiogram(c: Canvas) -> None:
    """A pale flat ground with fine grain and a round collimator."""
    c.pixels = scipy.ndimage.gaussian_filter(c.pixels, 0.7) + c.random.normal(0, 0.02, (SIDE, SIDE)).astype(np.float32)
    c.pixels *= ellipse(0, 0, 1.12, 1.12)


def pet(c: Canvas) -> None:
    """Blurred uptake, hot where something is bright, dark on a pale ground."""
    hot = scipy.ndimage.gaussian_filter(np.clip(c.pixels - 0.3, 0, 1) ** 2, 5)
    uptake = hot * 2.6 + 0.18 * scipy.ndimage.gaussian_filter(c.body, 6)
    c.pixels = 0.98 - np.clip(uptake, 0, 0.98)


def hot_colours(grey: Pixels) -> Pixels:
    """Black over red and yellow to white, shape (height, width, 3)."""
    level = 1 - grey
    return np.stack([np.clip(3 * level - shift, 0, 1) for shift in (0, 1, 2)], axis=-1)
