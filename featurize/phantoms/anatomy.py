"""Body parts: what a view of each looks like before findings and modality."""

import numpy as np

from featurize.phantoms.canvas import Canvas, ellipse, line


def chest(c: Canvas, view: str) -> None:
    """Lungs dark, heart and spine bright; from the front, across, or from the side."""
    _outline(c, 0.86, 0.62 if view == "axial" else 0.95)
    if view in ("lateral", "sagittal"):
        c.paint(ellipse(c.jitter(-0.05), -0.1, 0.5, 0.68, 0.15), 0.16)
        c.paint(ellipse(-0.25, c.jitter(0.25), 0.28, 0.3), 0.62)
        _column(c, 0.55, 0.8)
        return
    height = 0.42 if view == "axial" else 0.66
    for side in (-1, 1):
        c.paint(ellipse(side * c.jitter(0.42, 0.03), -0.08, 0.29, height, side * 0.08), 0.14)
    c.paint(ellipse(0.1, c.jitter(0.16 if view != "axial" else -0.08), 0.24, 0.26), 0.64)
    if view == "axial":
        c.paint(ellipse(0, 0.42, 0.12, 0.12), 0.85)
        return
    _column(c, 0.0, 0.85, 0.1, 0.5)
    for rib in np.linspace(-0.65, 0.45, 7):
        for side in (-1, 1):
            c.add(line(side * 0.1, rib, side * 0.72, rib + 0.16, 0.018), 0.14)


def abdomen(c: Canvas, view: str) -> None:
    """Liver on one side, spleen, kidneys and loops of bowel."""
    _outline(c, 0.9, 0.66 if view == "axial" else 0.94)
    squeeze = 0.7 if view == "axial" else 1.0
    c.paint(ellipse(-0.42, -0.3 * squeeze, 0.38, 0.34 * squeeze, 0.3), 0.6)
    c.paint(ellipse(0.56, -0.32 * squeeze, 0.16, 0.22 * squeeze), 0.56)
    for side in (-1, 1):
        c.paint(ellipse(side * 0.36, 0.18 * squeeze, 0.12, 0.2 * squeeze, side * 0.2), 0.7)
    for _ in range(7):
        x, y = c.random.uniform(-0.4, 0.5), c.random.uniform(0.2, 0.6) * squeeze
        c.add(ellipse(x, y, 0.13, 0.1), -0.16)
    c.paint(ellipse(0, 0.3 * squeeze, 0.11, 0.1) if view == "axial" else line(0, -0.9, 0, 0.9, 0.08), 0.82)


def pelvis(c: Canvas, view: str) -> None:
    """Two iliac wings and hip joints around a bladder."""
    _outline(c, 0.92, 0.62 if view == "axial" else 0.85)
    for side in (-1, 1):
        c.paint(ellipse(side * 0.5, -0.2, 0.3, 0.42, side * 0.6), 0.78)
        c.paint(ellipse(side * 0.46, -0.22, 0.19, 0.28, side * 0.6), 0.5)
        c.paint(ellipse(side * 0.58, 0.36, 0.15, 0.15), 0.88)
    c.paint(ellipse(0, c.jitter(0.25), 0.25, 0.2), 0.32)
    c.paint(ellipse(0, -0.45, 0.14, 0.24), 0.8)


def head(c: Canvas, view: str) -> None:
    """A skull's bright rim around brain folds and ventricles; with face and neck from the side."""
    side_on = view in ("sagittal", "lateral")
    _outline(c, 0.8 if side_on else 0.66, 0.78, brightness=0.92)
    c.paint(ellipse(0, 0, 0.72 if side_on else 0.58, 0.7), 0.5)
    for _ in range(22):
        angle = c.random.uniform(0, 2 * np.pi)
        x, y = 0.47 * np.cos(angle), 0.58 * np.sin(angle)
        c.add(line(x, y, 0.72 * x, 0.72 * y, 0.012), -0.18)
    if side_on:
        c.paint(ellipse(-0.5, 0.62, 0.26, 0.3), 0.45)
        c.paint(ellipse(0.1, 0.1, 0.26, 0.08, -0.2), 0.2)
        c.paint(ellipse(0.32, 0.5, 0.2, 0.14), 0.58)
        return
    for side in (-1, 1):
        c.paint(ellipse(side * 0.1, -0.04, 0.06, 0.22, side * 0.25), 0.2)
    if view == "coronal":
        c.paint(ellipse(0, 0.62, 0.3, 0.16), 0.35)


def spine(c: Canvas, view: str) -> None:
    """A column of vertebrae, curved and with spines from the side; one vertebra across."""
    _outline(c, 0.95, 0.95, brightness=0.36)
    if view == "axial":
        c.paint(ellipse(0, -0.1, 0.34, 0.28), 0.82)
        c.paint(ellipse(0, 0.26, 0.14, 0.1), 0.2)
        c.paint(line(0, 0.34, 0, 0.7, 0.06), 0.8)
        return
    side_on = view in ("sagittal", "lateral")
    for y in np.linspace(-0.85, 0.85, 7):
        x = 0.12 * np.sin(2.2 * y) if side_on else 0.0
        c.paint(ellipse(x, y, 0.22, 0.11, soft=0.03), 0.82)
        if side_on:
            c.paint(line(x + 0.3, y, x + 0.55, y + 0.1, 0.04), 0.7)
        else:
            c.paint(line(-0.42, y, 0.42, y, 0.03), 0.74)
    if view == "sagittal":
        c.paint(line(0.34, -0.95, 0.4, 0.95, 0.05), 0.62)


def lower_limb(c: Canvas, view: str) -> None:
    """Thigh and shin bones that meet in a knee."""
    side_on = view in ("sagittal", "lateral")
    _outline(c, 0.5 if side_on else 0.42, 1.3)
    c.paint(line(-0.04, -1, 0, -0.2, 0.15), 0.86)
    c.paint(ellipse(0, -0.12, 0.26, 0.16), 0.88)
    c.paint(ellipse(0, 0.16, 0.25, 0.12), 0.86)
    c.paint(line(0, 0.2, -0.03, 1, 0.13), 0.84)
    c.paint(line(0.22, 0.3, 0.2, 1, 0.045), 0.78)
    if side_on:
        c.paint(ellipse(-0.3, -0.12, 0.09, 0.14), 0.86)


def upper_limb(c: Canvas, view: str) -> None:
    """A forearm's two bones and a hand of five fingers."""
    _outline(c, 0.3, 1.0, y=0.7)
    c.paint(line(-0.1, 1, -0.1, 0.25, 0.06), 0.84)
    c.paint(line(0.1, 1, 0.1, 0.25, 0.05), 0.82)
    spread = 0.5 if view == "lateral" else 1.0
    for finger in (-2, -1, 0, 1, 2):
        x, y = 0.2 * finger * spread, -0.75 + 0.1 * abs(finger)
        c.paint(line(0.06 * finger, 0.1, x, y, 0.085), 0.4)
        c.paint(line(0.06 * finger, 0.1, x, y, 0.035), 0.8)


def breast(c: Canvas, view: str) -> None:
    """A half-disc of strands on a dark ground."""
    side = c.side()
    c.body = ellipse(-side * 0.95, 0.0, 1.35, 0.9)
    c.pixels = 0.03 + 0.3 * c.body
    for _ in range(26):
        x, y = -side * c.random.uniform(-0.1, 0.8), c.random.uniform(-0.55, 0.55)
        c.add(line(x, y, side * 0.3, 0.2 * y, 0.012) * c.body, 0.1)
    if view == "lateral":
        c.add(line(-side * 1.0, -0.9, -side * 0.45, -0.2, 0.25) * c.body, 0.3)


def _outline(c: Canvas, width: float, height: float, y: float = 0.0, brightness: float = 0.42) -> None:
    c.body = ellipse(0, y, c.jitter(width, 0.03), c.jitter(height, 0.03))
    c.pixels = 0.02 + c.body * np.float32(brightness - 0.02)


def _column(c: Canvas, x: float, brightness: float, width: float = 0.09, blend: float = 1.0) -> None:
    for y in np.linspace(-0.9, 0.9, 9):
        c.paint(blend * ellipse(x, y, width, 0.085), brightness)
