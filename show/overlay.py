"""Heat maps over their image, as a PNG file."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.support.errors import NotInstalledError
from cache.support.files import replacing
from eval.concept_names import shorten
from show.explainer import HeatMap

PIP_LINE = "pip install matplotlib"

COLOURS = "viridis"
"""Perceptually uniform, and told apart by people with any colour vision."""

MAX_ALPHA = 0.6
"""How much the strongest colour hides of the image."""

PANELS_PER_ROW = 4
PANEL_INCHES, DOTS_PER_INCH = 3.2, 120
TITLE_LETTERS = 34
"""Characters in a line of a title."""


def save_overlays(path: Path, picture: NDArray[np.uint8], maps: Sequence[HeatMap]) -> None:
    """Draw an image, and beside it the same image under each of its heat maps.

    Colour begins at the mean of a map: places that speak for the concept more than the average of the image. The
    stronger a place speaks for it, the less of the image shines through.

    Parameters
    ----------
    path : Path
        The PNG file.
    picture : ndarray of uint8, shape (height, width, 3)
        The image in its own shape.
    maps : sequence of HeatMap

    Raises
    ------
    NotInstalledError
        Matplotlib is not installed.
    ParameterError, OSError
        The file cannot be written.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    height, width = picture.shape[:2]
    n_rows = -(-(len(maps) + 1) // PANELS_PER_ROW)
    n_columns = -(-(len(maps) + 1) // n_rows)
    side = PANEL_INCHES / max(height, width)
    size = (n_columns * (width * side + 0.75), n_rows * (height * side + 0.75))
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    panels[0].imshow(picture)
    panels[0].set_title(_wrap(Path(maps[0].image).name), fontsize=9)
    for panel, each in zip(panels[1:], maps, strict=False):
        _draw(figure, panel, picture, each)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def require_matplotlib() -> None:
    """Check that Matplotlib is installed.

    Raises
    ------
    NotInstalledError
        It is not; the message has the line that installs it.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise NotInstalledError(f"matplotlib is not installed: {PIP_LINE}") from error
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it reports that it looks for fonts


def paint(heat: HeatMap, height: int, width: int) -> NDArray[np.uint8]:
    """The colours of a map, to be laid over its image.

    Parameters
    ----------
    heat : HeatMap
    height, width : int

    Returns
    -------
    ndarray of uint8, shape (height, width, 4)
        Red, green, blue and alpha.
    """
    values = heat.resize(height, width)
    colours, scale = _colour(heat, values)
    painted: NDArray[np.uint8] = colours(scale(values), bytes=True)
    return painted


def _colour(heat: HeatMap, values: NDArray[np.float32]) -> tuple[Any, Any]:
    """The colours of a map, which begin at its mean, and the scale of its values."""
    import matplotlib
    from matplotlib.colors import ListedColormap, Normalize

    colours = matplotlib.colormaps[COLOURS](np.linspace(0, 1, 256))
    colours[:, 3] = np.linspace(0, MAX_ALPHA, 256)
    low = heat.score
    return ListedColormap(colours), Normalize(low, max(float(values.max()), low + 1e-6))


def _draw(figure: Any, panel: Any, picture: NDArray[np.uint8], heat: HeatMap) -> None:
    """Draw one panel with its colour bar."""
    from matplotlib.cm import ScalarMappable

    height, width = picture.shape[:2]
    values = heat.resize(height, width)
    colours, scale = _colour(heat, values)
    panel.imshow(picture)
    panel.imshow(values, cmap=colours, norm=scale)
    panel.set_title(f"{_wrap(heat.name or heat.concept)}\n{heat.probability:.2f}", fontsize=9)
    bar = figure.colorbar(ScalarMappable(scale, COLOURS), cax=panel.inset_axes((1.02, 0, 0.04, 1)))
    bar.ax.tick_params(labelsize=7)
    bar.set_label(heat.unit, fontsize=7)


def _wrap(text: str) -> str:
    """A title on at most two lines, with nothing in it that Matplotlib would set as a formula."""
    text = shorten(text).replace("$", r"\$")
    if len(text) <= TITLE_LETTERS:
        return text
    place = text.rfind(" ", 0, TITLE_LETTERS)
    return f"{text[:place]}\n{text[place + 1 :]}" if place > 0 else f"{text[:TITLE_LETTERS]}\n{text[TITLE_LETTERS:]}"
