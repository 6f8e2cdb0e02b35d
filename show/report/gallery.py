"""The gallery: some images as thumbnails, each with its true and its predicted concepts."""

import base64
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from cache.images import find_images
from cache.support.errors import DataError, UserError
from cache.support.messages import describe_error
from featurize.decoding.image import decode, read_size

N_PICTURES = 240
"""Images of the gallery: a third the worst, a third the best, a third drawn from the others."""

SIDE, MAP_SIDE = 160, 40
"""Pixels of a thumbnail and of a heat map, which the browser stretches to the shape of the image."""

QUALITY = 60
MAX_ALPHA = 190
"""How much the strongest place of a heat map hides of the image, of 255."""

MAX_CHIPS = 40
"""Most concepts that are listed beneath an image."""

GONE, CHANGED = "the image is not found any more", "the file is another one than the run has seen"

HIT, MISSED, WRONG = "hit", "missed", "wrong"
OUTCOMES = (HIT, MISSED, WRONG)

Explain = Callable[[bytes, Sequence[str]], Mapping[str, NDArray[np.floating]]]
"""Gives heat maps of the content of an image file and some concepts: for each concept that has one an array of shape
(height, width), greatest where the concept is seen."""


@dataclass(frozen=True)
class Chip:
    """A concept beneath an image.

    Parameters
    ----------
    code : str
    name : str
    outcome : str
        One of `OUTCOMES`.
    heat : str
        The heat map as a data URI; empty if there is none.
    """

    code: str
    name: str
    outcome: str
    heat: str = ""


@dataclass(frozen=True)
class Picture:
    """An image of the gallery.

    Parameters
    ----------
    id : str
    f1 : float
    place : int
        Its place in the order that is drawn at random.
    chips : list of Chip
    n_more : int
        Concepts that are not listed.
    thumbnail : str
        A data URI; empty if there is no picture.
    size : (int, int) or None
        Width and height of the image, in pixels; None without a picture.
    why : str
        Why there is no picture.
    """

    id: str
    f1: float
    place: int
    chips: list[Chip]
    n_more: int
    thumbnail: str
    size: tuple[int, int] | None
    why: str


@dataclass(frozen=True)
class Gallery:
    """Some images of a split.

    Parameters
    ----------
    pictures : list of Picture
        The worst first.
    n_images : int
        Images that they are chosen from.
    n_missing : int
        Pictures that were not found.
    why : str
        Why none was looked for; empty if they were.
    """

    pictures: list[Picture]
    n_images: int
    n_missing: int
    why: str

    @property
    def concepts(self) -> list[tuple[str, str]]:
        """Code and name of each concept in it, by name."""
        found = {chip.code: chip.name for picture in self.pictures for chip in picture.chips}
        return sorted(found.items(), key=lambda each: (each[1].casefold(), each[0]))

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of the images with a picture."""
        return [picture.size for picture in self.pictures if picture.size]


def choose_images(f1: NDArray[np.float64], n_pictures: int = N_PICTURES, seed: int = 0) -> list[int]:
    """Choose the worst, the best and others at random, a third each; all if there are not more.

    Parameters
    ----------
    f1 : ndarray of float64, shape (n_images,)
    n_pictures : int
    seed : int

    Returns
    -------
    list of int
        Places in `f1`, the worst first.

    Examples
    --------
    >>> choose_images(np.array([0.3, 1.0, 0.0, 0.7]), 3)[::2]
    [2, 1]
    """
    order = np.argsort(f1, kind="stable")
    if len(order) > n_pictures:
        third = n_pictures // 3
        middle = order[third:-third]
        drawn = np.random.default_rng(seed).choice(len(middle), n_pictures - 2 * third, replace=False)
        order = np.concatenate([order[:third], middle[np.sort(drawn)], order[-third:]])
    return [int(each) for each in order]


def make_gallery(
    ids: Sequence[str],
    digests: Mapping[str, bytes],
    truth: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    f1: NDArray[np.float64],
    data: Path,
    split: str,
    names: Mapping[str, str],
    explain: Explain | None = None,
    n_explained: int = 0,
) -> Gallery:
    """Choose images and make their thumbnails.

    An image whose file is gone, or is another one now, has a line in place of its picture.

    Parameters
    ----------
    ids : sequence of str, length n_images
        Images that can be read.
    digests : mapping of str to bytes
        SHA-256 of each image that was embedded.
    truth, predicted : sequence of sequence of str, length n_images
    f1 : ndarray of float64, shape (n_images,)
    data : Path
        The data folder.
    split : str
        The images are in this split of it.
    names : mapping of str to str
        Names by concept.
    explain : callable, optional
        Makes heat maps.
    n_explained : int
        Images that get them: the worst, the best, and the first of the order that is drawn at random, a third each.
    """
    paths, why = _find_paths(data, split)
    chosen = choose_images(f1)
    places = np.random.default_rng(1).permutation(len(chosen)).tolist()
    third = -(-n_explained // 3)
    pictures = []
    for number, (row, place) in enumerate(zip(chosen, places, strict=True)):
        id = ids[row]
        content, thumbnail, reason = b"", "", why or GONE
        if id in paths:
            content, thumbnail, reason = _read_image(paths[id], digests.get(id, b""))
        chips = _list_chips(truth[row], predicted[row], names)
        n_more, chips = len(chips[MAX_CHIPS:]), chips[:MAX_CHIPS]
        if explain and content and min(number, len(chosen) - 1 - number, place) < third:
            maps = explain(content, [chip.code for chip in chips])
            chips = [replace(chip, heat=_draw_map(maps[chip.code])) if chip.code in maps else chip for chip in chips]
        pictures.append(
            Picture(
                id, float(f1[row]), place, chips, n_more, thumbnail, read_size(content) if content else None, reason
            )
        )
    n_missing = sum(not picture.thumbnail for picture in pictures)
    return Gallery(pictures, len(ids), n_missing, why)


def _find_paths(data: Path, split: str) -> tuple[dict[str, Path], str]:
    """The path of each image of a split, or why there is none."""
    try:
        return {each.id: each.path for each in find_images(data).get(split, []) if isinstance(each.path, Path)}, ""
    except DataError as error:
        return {}, describe_error(error)


def _read_image(path: Path, digest: bytes) -> tuple[bytes, str, str]:
    """Content and thumbnail of an image; or nothing, and why."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).digest() != digest:
            return b"", "", CHANGED
        pixels = decode(content, SIDE)
    except (OSError, UserError) as error:
        return b"", "", describe_error(error)
    return content, _to_uri(PIL.Image.fromarray(pixels), "webp", quality=QUALITY, method=4), ""


def _list_chips(truth: Sequence[str], predicted: Sequence[str], names: Mapping[str, str]) -> list[Chip]:
    true, given = set(truth), set(predicted)
    found = {HIT: true & given, MISSED: true - given, WRONG: given - true}
    return [
        Chip(code, names.get(code, code), outcome)
        for outcome in OUTCOMES
        for code in sorted(found[outcome], key=lambda each: (names.get(each, each).casefold(), each))
    ]


def _draw_map(values: NDArray[np.floating]) -> str:
    """A heat map as a picture to lay over the thumbnail: orange where it is above its mean, the stronger the more."""
    above = np.maximum(np.asarray(values, np.float32) - values.mean(), 0)
    share = above / max(float(above.max()), float(np.finfo(np.float32).tiny))
    whole = PIL.Image.fromarray(share).resize((MAP_SIDE, MAP_SIDE), PIL.Image.Resampling.BICUBIC)
    alpha = PIL.Image.fromarray(np.uint8(np.clip(np.asarray(whole), 0, 1) * MAX_ALPHA))
    picture = PIL.Image.new("RGB", alpha.size, (255, 110, 0))
    picture.putalpha(alpha)
    return _to_uri(picture, "webp", quality=QUALITY)


def _to_uri(image: PIL.Image.Image, kind: str, **options: int) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
