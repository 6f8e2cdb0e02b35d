"""A folder of phantoms in the official layout."""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from joblib import Parallel, cpu_count, delayed

from cache.support.errors import DataError, ParameterError
from cache.support.files import making
from cache.support.json_file import read_json
from cache.support.reporting import report
from featurize.parent_watch import end_with
from featurize.phantoms.canvas import resize
from featurize.phantoms.concepts import NAMES, make_phantom
from featurize.phantoms.modalities import hot_colours

DRAWING_VERSION = "1"
"""Version of the drawings: raise it whenever the same seed gives other pictures."""

SPLIT_SHARES = {"train": 0.7, "valid": 0.15, "test": 0.15}
MIN_IMAGES = 20
HEIGHT_RANGE = (160, 420)
"""Smallest and largest height of a picture, in pixels."""

ASPECT_RANGE = (0.75, 1.4)
"""Smallest and largest ratio of width to height."""

STAMP_FILE = "phantoms.json"
"""Written last: what was drawn. A folder with the same stamp is up to date."""


@dataclass(frozen=True)
class _Drawn:
    """The labels of a drawn picture."""

    id: str
    concepts: list[str]
    manual: list[str]


def make_phantoms(folder: str | os.PathLike[str], n_images: int = 2000, seed: int = 0) -> None:
    """Draw a data set: train, valid and test images with labels, ids and the names of the concepts.

    Parameters
    ----------
    folder : path-like
        Made completely or not at all. If it contains these very phantoms already, nothing is done.
    n_images : int
        Number of all images, at least `MIN_IMAGES`; 70 % train, 15 % valid, 15 % test.
    seed : int
        The same seed and number give the same files, in any number of processes.

    Raises
    ------
    ParameterError
        There are too few images, or the seed is negative.
    DataError
        The folder contains something else.
    """
    folder = Path(folder)
    if n_images < MIN_IMAGES:
        raise ParameterError(f"{n_images:,} images, expected at least {MIN_IMAGES}")
    if seed < 0:
        raise ParameterError(f"seed {seed}, expected 0 or more")
    stamp = {"images": n_images, "seed": seed, "drawing": DRAWING_VERSION}
    if folder.exists():
        if _read_stamp(folder) != stamp:
            raise DataError(
                f"{folder}: contains something else than {n_images:,} phantoms of seed {seed}; "
                "remove it or choose another folder"
            )
        report(f"{folder}: up to date ({n_images:,} phantoms of seed {seed})")
        return
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    counts = split_counts(n_images)
    with making(folder.parent):
        try:
            _draw(unfinished, counts, seed)
            (unfinished / STAMP_FILE).write_text(json.dumps(stamp))
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)  # the next call draws everything again
    report(
        f"{folder}: drew {', '.join(f'{count:,} {split}' for split, count in counts.items())} phantoms of seed {seed}"
    )


def split_counts(n_images: int) -> dict[str, int]:
    """Number of images of each split.

    >>> split_counts(2000)
    {'train': 1400, 'valid': 300, 'test': 300}
    """
    counts = {split: int(n_images * share) for split, share in SPLIT_SHARES.items()}
    counts["train"] += n_images - sum(counts.values())
    return counts


def _draw(folder: Path, counts: Mapping[str, int], seed: int) -> None:
    first = 0
    for split, count in counts.items():
        _make_split(folder, split, range(first, first + count), seed)
        first += count
    with _csv_file(folder / "cui_mapping.csv", "CUI", "Canonical name") as write:
        for cui, name in NAMES.items():
            write(cui, name)


def _make_split(folder: Path, split: str, numbers: range, seed: int) -> None:
    (folder / split).mkdir(parents=True)
    n_jobs = min(cpu_count(), 1 + len(numbers) // 200)
    pool = Parallel(n_jobs=n_jobs, batch_size=32, initializer=end_with, initargs=(os.getpid(),))
    drawn: list[_Drawn] = pool(delayed(_draw_file)(folder, split, number, seed) for number in numbers)
    for suffix, column in (("concepts", "concepts"), ("concepts_manual", "manual")):
        with _csv_file(folder / f"{split}_{suffix}.csv", "ID", "CUIs") as write:
            for each in drawn:
                write(each.id, ";".join(getattr(each, column)))
    if split == "test":
        with _csv_file(folder / "test_ids.csv", "ID", "CUIs") as write:
            for each in drawn:
                write(each.id, "")


def _draw_file(folder: Path, split: str, number: int, seed: int) -> _Drawn:
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
    return _Drawn(name, phantom.concepts, phantom.manual)


def _read_stamp(folder: Path) -> object:
    try:
        return read_json(folder / STAMP_FILE, dict[str, Any])
    except (OSError, ValueError):
        return None


@contextmanager
def _csv_file(path: Path, *header: str) -> Iterator[Callable[..., object]]:
    """Write a CSV file row by row; yields a function that takes the cells of a row."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        yield lambda *row: writer.writerow(row)
