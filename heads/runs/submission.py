"""Predict a split with a run and write the submission, checked by the edition's own rules."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.support.errors import UserError
from cache.support.files import digest_file, write_text
from cache.support.messages import some
from cache.support.reporting import report, warn
from eval.editions import Edition
from eval.evaluator_files import is_skipped
from eval.labels import find_label_file, image_id, read_ids
from eval.submission import render_submission, write_submission
from heads.runs.predictor import Predictor
from heads.runs.run import SUBMISSION, SUBMISSION_RECORD, SUBMISSION_ZIP, read_metrics


def write_predictions(predictor: Predictor, folder: Path, data: Path | None, split: str, edition: Edition) -> Path:
    """Write the submission of a run or an ensemble for a split.

    Every id of the official list gets its row, spelt and ordered as there; an image that is missing or cannot be read
    gets the one set of concepts that scores best on all training images.

    Parameters
    ----------
    predictor : Predictor
        The run with its store, or the ensemble.
    folder : Path
        Its folder.
    data : Path, optional
        The data folder; its list of ids, if it has one, decides rows and order. Otherwise the store does.
    split : str
    edition : Edition

    Returns
    -------
    Path
        What is handed in.

    Raises
    ------
    UserError
        The list of ids is at fault, or the submission would be refused.
    """
    metrics = read_metrics(folder)
    held, can_read = predictor.images(split)
    ids, place = _official_ids(held, data, split)
    path = folder / (SUBMISSION if split == "test" else f"submission_{split}.csv")
    request = {
        "run": metrics["requests"]["whole"],
        "store": predictor.content,
        "edition": edition.year,
        "ids": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
    }
    if split == "test" and _up_to_date(folder, request):
        hand_in = folder / (SUBMISSION_ZIP if edition.zipped else SUBMISSION)
        report(f"{hand_in}: up to date ({len(ids):,} images, passed the check of {edition.year})")
        return hand_in
    row_of = _find_rows(held, can_read, ids, split, place, edition)
    named = predictor.name(split)
    concepts = [named[row] if row >= 0 else predictor.usual for row in row_of]
    if split == "test":
        for name in (SUBMISSION_RECORD, SUBMISSION_ZIP):
            (folder / name).unlink(missing_ok=True)  # another edition's must not stand beside this one
    written = write_submission(path, render_submission(ids, concepts, edition), edition)
    if split == "test":
        files = {each.name: digest_file(each).hex() for each in written}
        write_text(folder / SUBMISSION_RECORD, json.dumps(request | {"files": files}, indent=1))
    n_named = sum(map(len, concepts)) / len(concepts)
    also = f"; hand in {written[-1]}" if len(written) > 1 else ""
    report(f"{path}: {len(ids):,} images in the order of {place}, {n_named:.1f} concepts each, "
        f"passes the check of {edition.year}{also}")  # fmt: skip
    return written[-1]


def _official_ids(held: list[str], data: Path | None, split: str) -> tuple[list[str], str]:
    """The ids in their order, and where it comes from."""
    if data is not None and not data.is_dir():
        raise UserError(f"{data}: no such folder; expected the data folder with {split}_ids.csv in it")
    path = find_label_file(data, split, "ids") if data else None
    return (read_ids(path), str(path)) if path else (held, "the store")


def _find_rows(
    held: list[str],
    can_read: NDArray[np.bool_],
    ids: list[str],
    split: str,
    place: str,
    edition: Edition,
) -> NDArray[np.int64]:
    """The row of each id among those held, -1 where it is not; what is odd is told."""
    places = {id: row for row, id in enumerate(held)}
    names = [image_id(id) for id in ids]
    row_of = np.array([places.get(name, -1) for name in names], dtype=np.int64)
    missing = [id for id, row in zip(ids, row_of, strict=True) if row < 0]
    if len(missing) == len(ids):
        raise UserError(f"{place}: none of its ids is an image of split '{split}', such as '{held[0]}'; check it")
    usual = "they get the concepts that are usual in train"
    if missing:
        header = "; is its first row a header? Write ID,CUIs" if missing == ids[:1] else ""
        warn(f"{place}: {len(missing):,} ids have no image ({some(missing)}); {usual}{header}")
    extra = sorted(set(places) - set(names))
    if extra:
        warn(f"{split}: {len(extra):,} images are not in {place} ({some(extra)}); they are left out")
    unreadable = [id for id, row in zip(ids, row_of, strict=True) if row >= 0 and not can_read[row]]
    if unreadable:
        warn(f"{split}: {len(unreadable):,} images cannot be read ({some(unreadable)}); {usual}")
    skipped = [id for id in ids if is_skipped(id, edition)]
    if skipped:
        warn(f"{len(skipped):,} ids have the letters ID in them ({some(skipped)}); the evaluator passes them over")
    return row_of


def _up_to_date(folder: Path, request: dict[str, Any]) -> bool:
    try:
        record = json.loads((folder / SUBMISSION_RECORD).read_text(encoding="utf-8"))
        files = record.pop("files")
        return record == request and all(digest_file(folder / name).hex() == kept for name, kept in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
