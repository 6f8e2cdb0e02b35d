"""Units of phantoms: pictures that are drawn together, and the labels of a finished unit.

The labels of a unit are written after its pictures. So a unit with labels is finished, and one without is drawn again.
"""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import PIL.Image

from cache.support.files import write_text
from cache.support.json_file import DamagedFileError, read_json
from featurize.phantoms.canvas import resize
from featurize.phantoms.concepts import make_phantom
from featurize.phantoms.modalities import hot_colours

UNIT_IMAGES = 32
"""Pictures that are drawn together, in a second or two."""

HEIGHT_RANGE = (160, 420)
"""Smallest and largest height of a picture, in pixels."""

ASPECT_RANGE = (0.75, 1.4)
"""Smallest and largest ratio of width to height."""


class Drawn(TypedDict):
    """The labels of a drawn picture."""

    id: str
    concepts: list[str]
    manual: list[str]


class _Labels(TypedDict):
    """What the file of a finished unit holds."""

    drawn: list[Drawn]


@dataclass(frozen=True)
class Unit:
    """Some pictures of one split.

    Parameters
    ----------
    split : str
    start, stop : int
        Numbers of the pictures, counted over all splits.
    """

    split: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def find_labels(self, labels: Path) -> list[Drawn] | None:
        """The labels of the unit if it is finished.

        Parameters
        ----------
        labels : Path
            The folder with the labels of finished units.
        """
        try:
            return read_json(self._file(labels), _Labels)["drawn"]
        except (DamagedFileError, OSError):
            return None

    def draw(self, folder: Path, labels: Path, seed: int) -> None:
        """Draw the pictures, then write their labels.

        Parameters
        ----------
        folder, labels : Path
            The folder of the data set, and that of the labels of finished units.
        seed : int
        """
        drawn = [_draw_picture(folder, self.split, number, seed) for number in range(self.start, self.stop)]
        write_text(self._file(labels), json.dumps({"drawn": drawn}))

    def _file(self, labels: Path) -> Path:
        return labels / f"{self.start:07d}.json"


def divide(counts: Mapping[str, int]) -> Iterator[Unit]:
    """Divide the pictures of all splits into units.

    >>> [(unit.split, unit.start, unit.stop) for unit in divide({"train": 40, "test": 3})]
    [('train', 0, 32), ('train', 32, 40), ('test', 40, 43)]
    """
    first = 0
    for split, count in counts.items():
        for start in range(first, first + count, UNIT_IMAGES):
            yield Unit(split, start, min(start + UNIT_IMAGES, first + count))
        first += count


def _draw_picture(folder: Path, split: str, number: int, seed: int) -> Drawn:
    random = np.random.default_rng([seed, number])
    phantom = make_phantom(random)
    height = int(random.integers(*HEIGHT_RANGE))
    width = int(height * random.uniform(*ASPECT_RANGE))
    grey = resize(phantom.pixels, height, width)
    coloured = phantom.modality == "pet" and random.random() < 0.5
    levels = np.round(255 * (hot_colours(grey) if coloured else grey)).astype(np.uint8)
    picture = PIL.Image.fromarray(levels)
    if random.random() < 0.3:
        picture = picture.convert("RGB")
    name = f"phantom_{split}_{number + 1:06d}"
    # Pillow itself would not notice that a full disk has taken a part of a file.
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=90)
    (folder / split / f"{name}.jpg").write_bytes(jpeg.getvalue())
    return {"id": name, "concepts": phantom.concepts, "manual": phantom.manual}
