"""A folder of phantoms in the official layout."""

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.lock import locked
from cache.support.command import check_interrupted
from cache.support.errors import DataError, ParameterError
from cache.support.json_file import read_json
from cache.support.progress import Progress
from cache.support.reporting import report
from featurize.parent_watch import closing_tasks, end_with

if TYPE_CHECKING:
    from featurize.phantoms.units import Drawn, Unit

DRAWING_VERSION = "1"
"""Version of the drawings: raise it whenever the same seed gives other pictures."""

SPLIT_SHARES = {"train": 0.7, "valid": 0.15, "test": 0.15}
MIN_IMAGES = 20
STAMP_FILE = "phantoms.json"
"""Written last: what was drawn. A folder with the same stamp is up to date."""

LABELS = "labels"
"""Folder with the labels of finished units, and with what is being drawn, until all are drawn."""


def make_phantoms(folder: str | os.PathLike[str], n_images: int = 2000, seed: int = 0) -> None:
    """Draw a data set: train, valid and test images with labels, ids and the names of the concepts.

    Parameters
    ----------
    folder : path-like
        Made completely or not at all. If it contains these very phantoms already, nothing is done. What a stopped
        call has drawn is in ``FOLDER.unfinished``, and the next call of the same number and seed goes on from there.
    n_images : int
        Number of all images, at least `MIN_IMAGES`; 70 % train, 15 % valid, 15 % test.
    seed : int
        The same seed and number give the same files, in any number of processes.

    Raises
    ------
    ParameterError
        There are too few images, or the seed is negative.
    DataError
        The folder contains something else, or another process is drawing it.
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
    counts = split_counts(n_images)
    with locked(folder, DataError, "drawn"):
        _draw_folder(folder, counts, stamp)
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


def _draw_folder(folder: Path, counts: Mapping[str, int], stamp: Mapping[str, Any]) -> None:
    """Draw what is missing beside the folder, and rename that at the end.

    What is finished stays there if the process is stopped. It does not where drawing fails, as on a full disk.
    """
    from featurize.phantoms.units import divide  # that there is nothing to draw is found out without what draws

    unfinished = folder.with_name(folder.name + ".unfinished")
    labels = unfinished / LABELS
    if _read_stamp(labels) != stamp:
        shutil.rmtree(unfinished, ignore_errors=True)
    try:
        for name in (*counts, LABELS):
            (unfinished / name).mkdir(parents=True, exist_ok=True)
        (labels / STAMP_FILE).write_text(json.dumps(stamp))
        _draw_units(unfinished, list(divide(counts)), stamp["seed"])
        _write_tables(unfinished, list(divide(counts)))
        shutil.rmtree(labels)
        (unfinished / STAMP_FILE).write_text(json.dumps(stamp))
        unfinished.rename(folder)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _draw_units(folder: Path, units: "Sequence[Unit]", seed: int) -> None:
    """Draw the units that are not finished."""
    from joblib import Parallel, cpu_count, delayed

    labels = folder / LABELS
    pending = [unit for unit in units if unit.find_labels(labels) is None]
    n_images, n_pending = sum(map(len, units)), sum(map(len, pending))
    if n_pending < n_images:
        report(f"{n_images - n_pending:,} of {n_images:,} phantoms are drawn already")
    pool = Parallel(
        n_jobs=min(cpu_count(), 1 + n_pending // 200),
        return_as="generator",
        batch_size=1,
        initializer=end_with,
        initargs=(os.getpid(),),
    )
    drawn = pool(delayed(unit.draw)(folder, labels, seed) for unit in pending)
    with closing(Progress(n_pending, "drawing")) as progress, closing_tasks(drawn):
        for unit, _ in zip(pending, drawn, strict=True):
            check_interrupted()
            progress.add(len(unit))


def _write_tables(folder: Path, units: "Sequence[Unit]") -> None:
    """Write labels, ids and names of concepts from the labels of the units."""
    from featurize.phantoms.concepts import NAMES

    splits: dict[str, list[Drawn]] = {}
    for unit in units:
        splits.setdefault(unit.split, []).extend(unit.find_labels(folder / LABELS) or ())
    for split, drawn in splits.items():
        tables = {
            "concepts": [each["concepts"] for each in drawn],
            "concepts_manual": [each["manual"] for each in drawn],
        }
        if split == "test":
            tables["ids"] = [[] for _ in drawn]
        for suffix, cells in tables.items():
            with _csv_file(folder / f"{split}_{suffix}.csv", "ID", "CUIs") as write:
                for each, cell in zip(drawn, cells, strict=True):
                    write(each["id"], ";".join(cell))
    with _csv_file(folder / "cui_mapping.csv", "CUI", "Canonical name") as write:
        for cui, name in NAMES.items():
            write(cui, name)


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
