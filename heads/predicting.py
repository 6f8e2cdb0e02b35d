"""Predict a split with a run and write the submission, checked by the edition's own rules."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import UserError, some
from cache.files import digest_file, write_text
from cache.store import FeatureStore, Split
from eval.editions import Edition
from eval.labels import find_label_file, read_concepts
from eval.official import is_skipped
from eval.submission import render_submission, write_submission
from heads.run import SUBMISSION, SUBMISSION_RECORD, Run, read_metrics, refuse_other_store


def predict_run(
    folder: Path,
    store_path: Path,
    data: Path | None,
    split: str,
    edition: Edition,
    *,
    say: Callable[[str], None] = print,
    warn: Callable[[str], None] = print,
) -> Path:
    """Write a run's submission for a split.

    Every id of the official list gets its row, in the list's order; an image that is missing or cannot be read gets
    the concepts that the training frequencies name.

    Parameters
    ----------
    folder : Path
        The run.
    store_path : Path
        A store with the features that the run was trained on.
    data : Path, optional
        The data folder; its list of ids, if it has one, decides rows and order. Otherwise the store does.
    split : str
    edition : Edition
    say, warn : callable
        Told what was done, and what is odd, a line each.

    Returns
    -------
    Path
        What is handed in.

    Raises
    ------
    UserError
        The run, the store or the list of ids is at fault.
    """
    metrics, store = read_metrics(folder), FeatureStore(store_path)
    refuse_other_store(folder, metrics, store)
    rows = store.split(split)
    ids_path = find_label_file(data, split, "ids") if data else None
    ids = read_concepts(ids_path).index.tolist() if ids_path else rows.ids.tolist()
    path = folder / (SUBMISSION if split == "test" else f"submission_{split}.csv")
    request = {
        "run": metrics["request"],
        "store": store.content,
        "edition": edition.year,
        "ids": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
    }
    if _up_to_date(folder, path, request):
        say(f"{path}: up to date ({len(ids):,} images, passed the check of {edition.year})")
        return path
    run = Run.load(folder)
    concepts = _predict(run, rows, ids, split, ids_path, edition, warn)
    written = write_submission(path, render_submission(ids, concepts, edition), edition)
    if split == "test":
        record = request | {"sha256": digest_file(path).hex()}
        write_text(folder / SUBMISSION_RECORD, json.dumps(record, indent=1))
    named = sum(map(len, concepts)) / len(concepts)
    also = f"; hand in {written[-1]}" if len(written) > 1 else ""
    say(f"{path}: {len(ids):,} images, {named:.1f} concepts each, passes the check of {edition.year}{also}")
    return written[-1]


def _predict(
    run: Run,
    rows: Split,
    ids: list[str],
    split: str,
    ids_path: Path | None,
    edition: Edition,
    warn: Callable[[str], None],
) -> list[list[str]]:
    """The concepts of each id."""
    places = {id: row for row, id in enumerate(rows.ids.tolist())}
    row_of = np.array([places.get(id, -1) for id in ids])
    missing = [id for id, row in zip(ids, row_of, strict=True) if row < 0]
    if len(missing) == len(ids):
        raise UserError(
            f"{ids_path}: none of its ids is an image of split '{split}', such as '{rows.ids[0]}'; wrong list?"
        )
    if missing:
        warn(f"{ids_path}: {len(missing):,} ids have no image ({some(missing)}); they get the most frequent concepts")
    extra = sorted(set(places) - set(ids))
    if extra:
        warn(f"{split}: {len(extra):,} images are not in {ids_path} ({some(extra)}); they are left out")
    readable = np.where(row_of >= 0, rows.readable[row_of], False)
    unreadable = [id for id, row, ok in zip(ids, row_of, readable, strict=True) if row >= 0 and not ok]
    if unreadable:
        told = f"{split}: {len(unreadable):,} images cannot be read ({some(unreadable)})"
        warn(f"{told}; they get the most frequent concepts")
    skipped = [id for id in ids if is_skipped(id, edition)]
    if skipped:
        warn(f"{len(skipped):,} ids have the letters ID in them ({some(skipped)}); the evaluator skips such rows")
    in_order = np.array_equal(row_of, np.arange(len(rows.ids)))
    scores = run.score(rows.embeddings if in_order else rows.embeddings[row_of], readable)
    return run.name_concepts(run.decoder.predict(scores))


def _up_to_date(folder: Path, path: Path, request: dict[str, Any]) -> bool:
    try:
        record = json.loads((folder / SUBMISSION_RECORD).read_text(encoding="utf-8"))
        return path.name == SUBMISSION and record == request | {"sha256": digest_file(path).hex()}
    except (OSError, ValueError):
        return False
