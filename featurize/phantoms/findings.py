"""Findings: drawn into a body part; and the arrow, drawn over the finished picture."""

import numpy as np
import scipy  # loads a subpackage when it is first used

from featurize.phantoms.canvas import SIDE, Canvas, Y, edge, ellipse, line


def _spot(c: Canvas, reach: float = 0.45) -> tuple[float, float]:
    """A random place inside the body: x and y, at most `reach` from the middle."""
    for _ in range(40):
        x, y = c.random.uniform(-reach, reach, 2)
        if c.body[int((y + 1) * SIDE / 2), int((x + 1) * SIDE / 2)] > 0.9:
            break
    return float(x), float(y)


def nodule(c: Canvas) -> None:
    """A small bright disc."""
    c.paint(ellipse(*_spot(c), 0.075, 0.075), 0.97)


def mass(c: Canvas) -> None:
    """A large bright lump with an uneven rim."""
    x, y = _spot(c)
    for _ in range(6):
        dx, dy = c.random.uniform(-0.1, 0.1, 2)
        c.paint(ellipse(x + dx, y + dy, 0.16, 0.13), 0.9)


def metastases(c: Canvas) -> None:
    """Many small bright discs."""
    for _ in range(int(c.random.integers(6, 11))):
        c.paint(ellipse(*_spot(c), 0.05, 0.05), 0.93)


def cyst(c: Canvas) -> None:
    """A dark disc in a thin bright rim."""
    x, y = _spot(c)
    c.paint(ellipse(x, y, 0.16, 0.16), 0.85)
    c.paint(ellipse(x, y, 0.125, 0.125), 0.04)


def calcification(c: Canvas) -> None:
    """A cluster of the brightest specks."""
    x, y = _spot(c)
    for dx, dy in c.random.uniform(-0.16, 0.16, (14, 2)):
        c.paint(ellipse(x + dx, y + dy, 0.02, 0.02, soft=0.02), 1.0)


def stones(c: Canvas) -> None:
    """A few bright stones, each with a shadow below it."""
    x, y = _spot(c, 0.3)
    for offset in (-0.13, 0.02, 0.15):
        c.add(line(x + offset, y, x + offset, 0.95, 0.045), -0.3)
        c.paint(ellipse(x + offset, y, 0.05, 0.04), 1.0)


def effusion(c: Canvas) -> None:
    """The lower part of one lung filled to a level."""
    side = c.side()
    level = c.jitter(0.15, 0.15)
    c.paint(ellipse(side * 0.45, 0.25, 0.34, 0.5) * edge(Y - level, 0.05), 0.82)


def pneumothorax(c: Canvas) -> None:
    """A black crescent at the side of one lung."""
    side = c.side()
    crescent = ellipse(side * 0.45, -0.15, 0.32, 0.6) * (1 - ellipse(side * 0.3, -0.08, 0.28, 0.56))
    c.paint(crescent, 0.0)
    c.add(ellipse(side * 0.3, -0.08, 0.26, 0.52) * (1 - ellipse(side * 0.3, -0.08, 0.23, 0.49)), 0.3)


def cardiomegaly(c: Canvas) -> None:
    """A heart more than half as wide as the chest."""
    c.paint(ellipse(0.06, 0.24, 0.52, 0.36), 0.68)


def consolidation(c: Canvas) -> None:
    """A bright cloudy patch in a lung."""
    x, y = c.side() * 0.42, c.jitter(0.0, 0.3)
    for _ in range(9):
        dx, dy = c.random.uniform(-0.16, 0.16, 2)
        c.add(ellipse(x + dx, y + dy, 0.13, 0.11, soft=0.1), 0.16)


def ground_glass(c: Canvas) -> None:
    """A faint haze over both lungs."""
    haze = scipy.ndimage.gaussian_filter(c.random.random((SIDE, SIDE), np.float32), 5)
    haze = edge(haze - np.median(haze), 0.08)
    for side in (-1, 1):
        c.add(ellipse(side * 0.42, 0, 0.28, 0.55, soft=0.1) * haze, 0.26)


def fluid(c: Canvas) -> None:
    """A dark band along the flanks."""
    c.paint(c.body * (1 - ellipse(0, -0.05, 0.68, 0.48)), 0.18)


def fracture(c: Canvas) -> None:
    """A dark jagged gap across the middle of a bone, its ends displaced."""
    y = c.jitter(0.55, 0.1)
    c.paint(line(-0.35, y - 0.08, 0.0, y + 0.05, 0.035), 0.02)
    c.paint(line(0.0, y + 0.05, 0.35, y - 0.07, 0.035), 0.02)
    c.paint(ellipse(0.22, y + 0.14, 0.06, 0.035), 0.9)


def infarction(c: Canvas) -> None:
    """A dark wedge at the brain's edge."""
    side, tilt = c.side(), c.jitter(0.0, 0.3)
    for width in (0.08, 0.14, 0.2):
        c.paint(ellipse(side * (0.2 + width), tilt, width, width), 0.16)


def haemorrhage(c: Canvas) -> None:
    """A bright blot in the brain."""
    c.paint(ellipse(c.side() * 0.26, c.jitter(0.0, 0.2), 0.17, 0.13, c.jitter(0, 1), soft=0.06), 1.0)


def hydrocephalus(c: Canvas) -> None:
    """Ventricles several times their size."""
    for side in (-1, 1):
        c.paint(ellipse(side * 0.19, -0.04, 0.15, 0.36, side * 0.25), 0.08)


def enhancement(c: Canvas) -> None:
    """A bright ring."""
    x, y = _spot(c, 0.35)
    c.paint(ellipse(x, y, 0.17, 0.15) * (1 - ellipse(x, y, 0.115, 0.1)), 1.0)


def atrophy(c: Canvas) -> None:
    """A dark gap between brain and skull."""
    c.paint(ellipse(0, 0, 0.6, 0.72) * (1 - ellipse(0, 0, 0.46, 0.56)), 0.12)


def device(c: Canvas) -> None:
    """A box with a wire that ends in a bright tip."""
    side = c.side()
    c.paint(ellipse(side * 0.6, -0.55, 0.15, 0.11, soft=0.015), 1.0)
    c.paint(line(side * 0.55, -0.5, side * 0.2, -0.3, 0.018), 1.0)
    c.paint(line(side * 0.2, -0.3, -side * 0.05, 0.3, 0.018), 1.0)
    c.paint(ellipse(-side * 0.05, 0.3, 0.035, 0.035), 1.0)


def vessels(c: Canvas, narrow: bool = False, bulge: bool = False) -> None:
    """A dark tree of vessels filled with contrast, on a pale ground."""
    c.pixels = 0.72 + 0.1 * (c.pixels - c.pixels.mean())
    tips = [(c.jitter(0.0, 0.3), -0.95, c.jitter(np.pi / 2, 0.3), 0.055)]
    for generation in range(5):
        grown = []
        for x, y, angle, width in tips:
            length = 0.5 - 0.06 * generation
            x1, y1 = x + length * np.cos(angle), y + length * np.sin(angle)
            c.paint(line(x, y, x1, y1, width), 0.12)
            if generation == 1 and narrow:
                c.paint(
                    line(x + 0.4 * (x1 - x), y + 0.4 * (y1 - y), x + 0.6 * (x1 - x), y + 0.6 * (y1 - y), width), 0.72
                )
            if generation == 1 and bulge:
                c.paint(ellipse(x1, y1, 0.16, 0.16), 0.08)
            grown += [(x1, y1, angle + side * c.jitter(0.45, 0.2), width * 0.72) for side in (-1, 1)]
        tips = grown


def arrow(c: Canvas) -> None:
    """A white arrow over the finished picture."""
    x, y = c.random.uniform(-0.3, 0.5, 2)
    c.paint(line(x, y, x + 0.34, y - 0.34, 0.025, soft=0.01), 1.0)
    for dx, dy in ((0.16, -0.02), (0.02, -0.16)):
        c.paint(line(x, y, x + dx, y + dy, 0.03, soft=0.01), 1.0)
