"""Pictures as a page can show them: in its own text, as data addresses."""

import base64
import io

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from featurize.decoding.image import decode_picture
from show.explainer import HeatMap
from show.overlay import paint

PREVIEW_SIDE = 640
"""Most pixels of the longer side of a preview."""

OVERLAY_SIDE = 256
"""The same of an overlay. A map has a few places per side, so that more would show no more."""


def draw_preview(content: bytes) -> str:
    """An image as a browser can show it, whatever its kind: DICOM, TIFF, grey of 16 bits.

    Parameters
    ----------
    content : bytes
        The content of the file.
    """
    return _to_address(PIL.Image.fromarray(decode_picture(content, PREVIEW_SIDE)), "JPEG", quality=88)


def draw_overlay(heat: HeatMap) -> str:
    """The colours of a map. It covers the whole image, whose shape the page gives it."""
    return _to_address(PIL.Image.fromarray(_paint(heat)), "PNG")


def _paint(heat: HeatMap) -> NDArray[np.uint8]:
    return paint(heat, OVERLAY_SIDE, OVERLAY_SIDE)


def _to_address(image: PIL.Image.Image, kind: str, **options: int) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
