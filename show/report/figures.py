"""The figures of a report: SVG whose text is text, and whose colours are those of the page, in light and dark."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from show.report.measures import THRESHOLDS, Reliability, ScoreCurves

COLOURS = {"ink": "#010101", "dim": "#010102", "grid": "#010103", "first": "#010104", "second": "#010105"}
"""What a figure is drawn with. Each stands for a variable of the page's style sheet, which replaces it."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 10, "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["dim"], "axes.labelcolor": COLOURS["ink"], "xtick.color": COLOURS["dim"],
    "ytick.color": COLOURS["dim"], "xtick.labelcolor": COLOURS["ink"], "ytick.labelcolor": COLOURS["ink"],
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": COLOURS["grid"], "grid.linewidth": 0.7, "legend.frameon": False, "text.parse_math": False,
}  # fmt: skip

WIDTH = 4.1
"""Inches; 394 px, so that a phone shows the text at nearly its size."""


@dataclass(frozen=True)
class Plot:
    """A figure of the page.

    Parameters
    ----------
    name : str
        Unique on the page.
    title : str
    svg : str
    caption : str
        One sentence that says how to read it.
    text : str
        What it shows, for who cannot see it.
    """

    name: str
    title: str
    svg: str
    caption: str
    text: str


def plot_scores(names: Sequence[str], scores: Sequence[tuple[float, float, float]], what: str) -> Plot:
    """Scores with their intervals, one row per run.

    Parameters
    ----------
    names : sequence of str
    scores : sequence of (score, low, high)
    what : str
        The name of the score.
    """
    shortened = [name if len(name) <= 22 else f"…{name[-21:]}" for name in names]

    def draw(axes: Axes) -> None:
        for row, (score, low, high) in enumerate(scores):
            colour = COLOURS["first"] if row == 0 else COLOURS["dim"]
            axes.plot([low, high], [row, row], "|-", color=colour, linewidth=2, markersize=10, markeredgewidth=2)
            axes.plot(score, row, "o" if row == 0 else "s", color=colour, markersize=5)
            axes.annotate(f"{score:.3f}", (score, row), (0, 8), textcoords="offset points", ha="center")
        axes.set_yticks(range(len(names)), shortened)
        axes.set_ylim(len(names) - 0.5, -0.7)
        lowest, highest = min(low for _, low, _ in scores), max(high for _, _, high in scores)
        margin = max(0.15 * (highest - lowest), 0.02)
        axes.set_xlim(max(lowest - margin, 0), min(highest + margin, 1))
        axes.set_xlabel(what)
        axes.grid(visible=False, axis="y")

    listed = "; ".join(
        f"{name} {s:.3f}, from {low:.3f} to {high:.3f}" for name, (s, low, high) in zip(names, scores, strict=True)
    )
    return Plot(
        f"scores-{what.split()[0]}",
        f"{what} of each run",
        _draw(draw, f"scores-{what.split()[0]}", 1.0 + 0.42 * len(names)),
        "Each point is a score and its bar the 95% interval; further right is better.",
        f"{what}: {listed}.",
    )


def plot_thresholds(curves: ScoreCurves, chosen: float, axis: str) -> Plot:
    """F1 against one threshold for all concepts, beside what the run's decoder reaches."""
    best = int(curves.f1_at_threshold.argmax())

    def draw(axes: Axes) -> None:
        axes.plot(THRESHOLDS, curves.f1_at_threshold, color=COLOURS["first"], linewidth=2)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=f"threshold on the {axis}", ylabel="mean F1 per image")
        _mark(axes, THRESHOLDS[best], curves.f1_at_threshold[best])
        _draw_decoder(axes, chosen)

    return Plot(
        "thresholds",
        "F1 against the threshold",
        _draw(draw, "thresholds"),
        "The curve is F1 if every concept at or above a threshold is predicted, and at least one per image; the dashed "
        "line is the run's decoder.",
        f"The best single threshold is {THRESHOLDS[best]:.2f} with F1 {curves.f1_at_threshold[best]:.3f}; the run's "
        f"decoder reaches {chosen:.3f}.",
    )


def plot_top(curves: ScoreCurves, chosen: float) -> Plot:
    """F1 against the number of predicted concepts."""
    f1 = curves.f1_at_size
    best = int(f1.argmax())

    def draw(axes: Axes) -> None:
        sizes = np.arange(1, len(f1) + 1)
        axes.plot(sizes, f1, "o-", color=COLOURS["first"], linewidth=2, markersize=4)
        axes.set(
            xlim=(0, len(f1) + 0.5), ylim=(0, 1), xlabel="predicted concepts per image", ylabel="mean F1 per image"
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _mark(axes, best + 1, f1[best])
        _draw_decoder(axes, chosen)

    return Plot(
        "top",
        "F1 against the number of concepts",
        _draw(draw, "top"),
        "The curve is F1 if every image gets the same number of concepts, its most probable ones; the dashed line is "
        "the run's decoder, which chooses the number image by image.",
        f"The best fixed number is {best + 1} with F1 {f1[best]:.3f}; the run's decoder reaches {chosen:.3f}.",
    )


def plot_reliability(raw: Reliability, calibrated: Reliability, is_calibrated: bool) -> Plot:
    """Share that is true against mean score, over the number of pairs in each bin."""
    names = ["scores of the head", "probabilities of the decoder"] if is_calibrated else ["scores of the head"]
    shown = [raw, calibrated][: len(names)]

    def draw(figure: Figure) -> None:
        axes, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
        axes.plot([0, 1], [0, 1], color=COLOURS["dim"], linewidth=1, linestyle=":")
        for name, each, colour, marker in zip(names, shown, ("second", "first"), "so", strict=False):
            axes.plot(*each.points.T, f"{marker}-", color=COLOURS[colour], linewidth=1.5, markersize=5, label=name)
        axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is true")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1))
        edges = np.linspace(0, 1, len(raw.n_pairs) + 1)
        width = 0.08 / len(shown)
        for place, (each, colour) in enumerate(zip(shown, ("second", "first"), strict=False)):
            below.bar(edges[:-1] + 0.01 + place * width, each.n_pairs, width, align="edge", color=COLOURS[colour])
        below.set_yscale("log")
        below.set(xlabel="score", ylabel="pairs", ylim=(0.7, None))
        below.yaxis.set_major_formatter(FuncFormatter(_shorten))
        below.grid(visible=False, axis="x")

    errors = "; ".join(f"{name} {each.error:.4f}" for name, each in zip(names, shown, strict=True))
    return Plot(
        "reliability",
        "Calibration",
        _draw_figure(draw, "reliability", 3.9),
        "A score of 0.7 should be true seven times in ten, so points on the dotted line are best; the bars count the "
        "pairs of image and concept in each bin.",
        f"Mean distance from the diagonal (expected calibration error): {errors}.",
    )


def plot_sizes(counts: NDArray[np.int64]) -> Plot:
    """Images by true and predicted number of concepts."""
    most = len(counts) - 1
    total = max(int(counts.sum()), 1)
    difference = sum(int(counts.diagonal(offset).sum()) for offset in (-1, 0, 1)) / total

    def draw(axes: Axes) -> None:
        for true, given in np.argwhere(counts):
            share = counts[true, given] / counts.max()
            axes.bar(given, 0.94, 0.94, true - 0.47, color=COLOURS["first"], alpha=0.12 + 0.88 * share)
        axes.plot([-0.5, most + 0.5], [-0.5, most + 0.5], color=COLOURS["dim"], linewidth=1, linestyle=":")
        ticks = range(0, most + 1, 2)
        labels = [f"{each}+" if each == most else str(each) for each in ticks]
        axes.set_xticks(ticks, labels)
        axes.set_yticks(ticks, labels)
        axes.set(xlim=(-0.5, most + 0.5), ylim=(-0.5, most + 0.5), xlabel="predicted concepts", ylabel="true concepts")
        axes.grid(visible=False)

    return Plot(
        "sizes",
        "Number of concepts",
        _draw(draw, "sizes", 3.4),
        "The stronger a cell, the more images it holds; left of the dotted line too few concepts are predicted, "
        "right of it too many.",
        f"In {difference:.0%} of {total:,} images the predicted number is at most one off the true one.",
    )


def plot_tail(counts: Sequence[int]) -> Plot:
    """Training images per concept, the most frequent first."""
    falling = np.sort(np.asarray(counts))[::-1]
    rare = int((falling < 10).sum())

    def draw(axes: Axes) -> None:
        places = np.arange(1, len(falling) + 1)
        axes.fill_between(places, 0.7, falling, color=COLOURS["first"], alpha=0.25, linewidth=0)
        axes.plot(places, falling, color=COLOURS["first"], linewidth=2)
        axes.set_yscale("log")
        axes.set(xlim=(1, max(len(falling), 2)), ylim=(0.7, None), xlabel="concepts, the most frequent first",
                 ylabel="training images")  # fmt: skip
        axes.yaxis.set_major_formatter(FuncFormatter(_shorten))

    return Plot(
        "tail",
        "The long tail",
        _draw(draw, "tail"),
        "Each concept is a place on the lower axis and the curve its number of training images, on a scale of powers.",
        f"{len(falling):,} concepts; the most frequent has {int(falling[0]):,} training images, the median "
        f"{int(np.median(falling)):,}, and {rare:,} have fewer than ten.",
    )


def plot_f1_by_count(counts: Sequence[int], f1: Sequence[float]) -> Plot:
    """F1 of each concept against its training images."""

    def draw(axes: Axes) -> None:
        axes.scatter(np.maximum(counts, 0.7), f1, s=18, color=COLOURS["first"], alpha=0.5, linewidths=0)
        axes.set_xscale("log")
        axes.set(ylim=(-0.03, 1.03), xlabel="training images", ylabel="F1 of the concept")
        axes.xaxis.set_major_formatter(FuncFormatter(_shorten))

    enough = [each for count, each in zip(counts, f1, strict=True) if count >= 100]
    few = [each for count, each in zip(counts, f1, strict=True) if count < 100]
    means = [f"{np.mean(each):.3f} for the {len(each):,} {what}" for each, what in
             ((few, "concepts with fewer than 100 training images"), (enough, "others")) if each]  # fmt: skip
    return Plot(
        "f1-by-count",
        "Rare and frequent concepts",
        _draw(draw, "f1-by-count"),
        "Each point is a concept: the further right, the more images it was learnt from, and the higher, the better.",
        f"Mean F1 per concept: {'; '.join(means)}.",
    )


def plot_image_sizes(sizes: Sequence[tuple[int, int]]) -> Plot:
    """Widths and heights of images."""
    widths, heights = np.array(sizes).T

    def draw(axes: Axes) -> None:
        most = 1.05 * max(widths.max(), heights.max())
        axes.plot([0, most], [0, most], color=COLOURS["dim"], linewidth=1, linestyle=":")
        axes.scatter(widths, heights, s=18, color=COLOURS["first"], alpha=0.4, linewidths=0)
        axes.set(xlim=(0, most), ylim=(0, most), xlabel="width, pixels", ylabel="height, pixels")

    return Plot(
        "image-sizes",
        "Sizes of images",
        _draw(draw, "image-sizes"),
        f"Each point is one of {len(sizes):,} images of the gallery; those on the dotted line are square.",
        f"Widths from {widths.min():,} to {widths.max():,} pixels, heights from {heights.min():,} to "
        f"{heights.max():,}.",
    )


def _mark(axes: Axes, x: float, y: float) -> None:
    """Mark the best point of a curve; its value stands at the foot, where no curve hides it."""
    axes.plot([x, x], [0, y], color=COLOURS["dim"], linewidth=1, linestyle=":")
    axes.plot(x, y, "o", color=COLOURS["first"], markersize=8)
    left = x < np.mean(axes.get_xlim())
    axes.annotate(f"best {y:.3f} at {x:g}", (x, 0.04), (6 if left else -6, 0), xycoords=("data", "axes fraction"),
                  textcoords="offset points", ha="left" if left else "right")  # fmt: skip


def _draw_decoder(axes: Axes, f1: float) -> None:
    axes.axhline(f1, color=COLOURS["second"], linewidth=1.5, linestyle="--")
    axes.annotate(f"decoder {f1:.3f}", (1, f1), (-2, 4), xycoords=("axes fraction", "data"),
                  textcoords="offset points", ha="right", color=COLOURS["second"])  # fmt: skip


def _shorten(value: float, place: object = None) -> str:
    """A count for an axis.

    >>> _shorten(100.0), _shorten(1e6)
    ('100', '1M')
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _draw(draw: Callable[[Axes], None], name: str, height: float = 3.0) -> str:
    return _draw_figure(lambda figure: draw(figure.subplots()), name, height)


def _draw_figure(draw: Callable[[Figure], None], name: str, height: float) -> str:
    """Draw a figure as SVG that stands within HTML. The same data give the same text."""
    with rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure((WIDTH, height), layout="constrained")
        draw(figure)
        file = io.StringIO()
        nothing = {"Creator": None, "Date": None, "Format": None, "Type": None}
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _fit_page(file.getvalue(), name)


def _fit_page(svg: str, name: str) -> str:
    """Cut what belongs to a file of its own, and give text and colours over to the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r' xmlns(?::\w+)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r"<style.*?</style>", "", svg, count=1)  # it would hold for the whole page
    svg = re.sub(r"font-family: [^;]*; ", "", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{name}-", svg)
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
