"""A folder of phantoms in the official layout."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from joblib import Parallel, cpu_count, delayed

from cache.support.errors import DataError, ParameterError
from cache.support.reporting import report
from featurize.phantoms.canvas import resize
from featurize.phantoms.concepts import NAMES, make_phantom
from featurize.phantoms.modalities import hot_colours

DRAWING = "1"
"""Version of what is drawn: raise it whenever a seed gives other pictures."""

SHARES = {"train": 0.7, "valid": 0.15, "test": 0.15}
MIN_IMAGES = 20
HEIGHTS = (160, 420)
"""Smallest and largest height of a picture, in pixels."""

ASPECTS = (0.75, 1.4)
"""Smallest and largest width of a picture, in heights."""

STAMP = "phantoms.json"


@dataclass(frozen=True)
class _Drawn:
    """What is kept of a drawn picture: its labels."""

    id: str
    concepts: list[str]
    manual: list[str]


def make_phantoms(folder: Path, n_images: int, seed: int) -> None:
    """Draw a data set: train, valid and test images with labels, ids and names of concepts.

    Parameters
    ----------
    folder : Path
        Made whole or not at all. If it holds these very phantoms already, nothing is done.
    n_images : int
        Images in all, at least `MIN_IMAGES`; 70 % train, 15 % valid, 15 % test.
    seed : int
        The same seed and number give the same files, in any number of processes.

    Raises
    ------
    ParameterError
        There are too few images, or the seed is negative.
    DataError
        The folder holds something else.
    """
    if n_images < MIN_IMAGES:
        raise ParameterError(f"{n_images:,} images, expected at least {MIN_IMAGES}")
    if seed < 0:
        raise ParameterError(f"seed {seed}, expected 0 or more")
    stamp = {"images": n_images, "seed": seed, "drawing": DRAWING}
    if folder.exists():
        if _read_stamp(folder) != stamp:
            raise DataError(
                f"{folder}: holds something else than {n_images:,} phantoms of seed {seed}; "
                "remove it or name another folder"
            )
        report(f"{folder}: up to date ({n_images:,} phantoms of seed {seed})")
        return
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    counts = split_counts(n_images)
    first = 0
    for split, count in counts.items():
        _make_split(unfinished, split, range(first, first + count), seed)
        first += count
    with _csv(unfinished / "cui_mapping.csv", "CUI", "Canonical name") as write:
        for cui, name in NAMES.items():
            write(cui, name)
    (unfinished / STAMP).write_text(json.dumps(stamp))
    unfinished.rename(folder)
    report(
        f"{folder}: drew {', '.join(f'{count:,} {split}' for split, count in counts.items())} phantoms of seed {seed}"
    )


def split_counts(n_images: int) -> dict[str, int]:
    """How many images each split gets.

    >>> split_counts(2000)
    {'train': 1400, 'valid': 300, 'test': 300}
    """
    counts = {split: int(n_images * share) for split, share in SHARES.items()}
    counts["train"] += n_images - sum(counts.values())
    return counts


def _make_split(folder: Path, split: str, numbers: range, seed: int) -> None:
    (folder / split).mkdir(parents=True)
    pool = Parallel(n_jobs=min(cpu_count(), 1 + len(numbers) // 200), batch_size=32)
    drawn: list[_Drawn] = pool(delayed(_draw_file)(folder, split, number, seed) for number in numbers)
    for suffix, column in (("concepts", "concepts"), ("concepts_manual", "manual")):
        with _csv(folder / f"{split}_{suffix}.csv", "ID", "CUIs") as write:
            for each in drawn:
                write(each.id, ";".join(getattr(each, column)))
    if split == "test":
        with _csv(folder / "test_ids.csv", "ID", "CUIs") as write:
            for each in drawn:
                write(each.id, "")


def _draw_file(folder: Path, split: str, number: int, seed: int) -> _Drawn:
    random = np.random.default_rng([seed, number])
    phantom = make_phantom(random)
    height = int(random.integers(*HEIGHTS))
    width = int(height * random.uniform(*ASPECTS))
    grey = resize(phantom.pixels, height, width)
    coloured = phantom.modality == "pet" and random.random() < 0.5
    levels = np.round(255 * (hot_colours(grey) if coloured else grey)).astype(np.uint8)
    picture = PIL.Image.fromarray(levels)
    if random.random() < 0.3:
        picture = picture.convert("RGB")
    name = f"phantom_{split}_{number + 1:06d}"
    picture.save(folder / split / f"{name}.jpg", quality=90)
    return _Drawn(name, phantom.concepts, phantom.manual)


def _read_stamp(folder: Path) -> object:
    try:
        return json.loads((folder / STAMP).read_text())
    except (OSError, ValueError):
        return None


class _csv:
    """A CSV file with a header, written row by row."""

    def __init__(self, path: Path, *header: str) -> None:
        self._path, self._header = path, header

    def __enter__(self) -> Callable[..., None]:
        self._file = open(self._path, "w", encoding="utf-8", newline="")
        writer = csv.writer(self._file, lineterminator="\n")
        writer.writerow(self._header)
        return lambda *row: writer.writerow(row)

    def __exit__(self, *error: object) -> None:
        self._file.close()
