"""Write the submission of a run, checked by the rules of the edition."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.lock import locked
from cache.support.errors import DataError, RunError
from cache.support.files import digest_file, replacing_files, write_text
from cache.support.image_ids import IdIndex, require_one_id_per_image
from cache.support.messages import some
from cache.support.reporting import report, warn
from eval.editions import Edition
from eval.evaluator_files import is_skipped
from eval.labels import find_label_file, read_ids
from eval.submission import render_submission, write_submission
from heads.runs.files import writing
from heads.runs.folder import (
    SUBMISSION,
    SUBMISSION_RECORD,
    SUBMISSION_ZIP,
    is_up_to_date,
    read_metrics,
)
from heads.runs.leftovers import remove_leftovers
from heads.runs.predictor import Predictor


def write_predictions(predictor: Predictor, folder: Path, data: Path | None, split: str, edition: Edition) -> Path:
    """Write the submission of a run or an ensemble for a split.

    Every id of the official list has a row, in its order and spelling. An image that is missing or cannot be read gets
    the fallback set.

    Parameters
    ----------
    predictor : Predictor
        The run with its store, or the ensemble.
    folder : Path
        Its folder.
    data : Path, optional
        The data folder. Its list of ids, if it has one, decides rows and order. Otherwise the store does.
    split : str
    edition : Edition

    Returns
    -------
    Path
        The file to hand in.

    Raises
    ------
    DataError
        The list of ids is at fault, or the edition would refuse the submission.
    RunError
        The run is being written, or has changed.
    """
    metrics = read_metrics(folder)
    stored, readable = predictor.images(split)
    ids, place = find_official_ids(stored, data, split)
    path = folder / (SUBMISSION if split == "test" else f"submission_{split}.csv")
    request = {
        "run": metrics["requests"]["whole"],
        "store": predictor.content,
        "edition": edition.year,
        "ids": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
    }
    if split == "test" and is_up_to_date(folder / SUBMISSION_RECORD, request):
        hand_in = folder / (SUBMISSION_ZIP if edition.zipped else SUBMISSION)
        remove_leftovers(folder)
        report(f"{hand_in}: up to date ({len(ids):,} images, passed the check of {edition.year})")
        return hand_in
    row_of = find_official_rows(stored, readable, ids, split, place, edition)
    predicted = predictor.predict(split)
    predictor.check_unchanged()
    concepts = [predicted[row] if row >= 0 else predictor.fallback for row in row_of]
    rendered = render_submission(ids, concepts, edition)
    with locked(folder, RunError):
        if read_metrics(folder)["requests"] != metrics["requests"]:
            raise RunError(f"{folder}: another run has taken its place meanwhile; run the same command again")
        # Another edition's must not stand beside this one.
        stale = (SUBMISSION_RECORD, SUBMISSION_ZIP) if split == "test" else ()
        with writing(folder), replacing_files(folder, stale, last=SUBMISSION_RECORD) as new:
            written = write_submission(new / path.name, rendered, edition)
            if split == "test":
                files = {each.name: digest_file(each).hex() for each in written}
                write_text(new / SUBMISSION_RECORD, json.dumps(request | {"files": files}, indent=1))
    n_concepts = sum(map(len, concepts)) / len(concepts)
    hand_in = folder / written[-1].name
    hand_in_zip = f"; hand in {hand_in}" if len(written) > 1 else ""
    report(f"{path}: {len(ids):,} images in the order of {place}, {n_concepts:.1f} concepts each, "
           f"passes the check of {edition.year}{hand_in_zip}")  # fmt: skip
    return hand_in


def find_official_ids(stored: list[str], data: Path | None, split: str) -> tuple[list[str], str]:
    """The ids of a submission in their order, and where the order comes from.

    Parameters
    ----------
    stored : list of str
        The images of the split.
    data : Path, optional
        The data folder.
    split : str

    Raises
    ------
    DataError
        The data folder is missing, or its list of ids is at fault.
    """
    if data is not None and not data.is_dir():
        raise DataError(f"{data}: no such folder; expected the data folder with {split}_ids.csv in it")
    path = find_label_file(data, split, "ids") if data else None
    return (read_ids(path), str(path)) if path else (stored, "the store")


def find_official_rows(
    stored: Sequence[str],
    readable: NDArray[np.bool_],
    ids: Sequence[str],
    split: str,
    place: str,
    edition: Edition,
) -> NDArray[np.int64]:
    """Find the row of each id of a submission among the images.

    Parameters
    ----------
    stored : sequence of str, length n_images
        The images of the split.
    readable : ndarray of bool, shape (n_images,)
    ids : sequence of str, length n_ids
    split : str
    place : str
        Where the ids come from, for messages.
    edition : Edition

    Returns
    -------
    ndarray of int64, shape (n_ids,)
        -1 if there is no image.

    Raises
    ------
    DataError
        No id has an image, several images fit an id, or several ids an image.

    Warns
    -----
    DataWarning
        Ids have no image, images no id, images cannot be read, or the evaluator does not count an id.
    """
    try:
        rows = IdIndex(stored).find_rows(ids)
        require_one_id_per_image(ids, rows, stored)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    row_of = np.array(rows, dtype=np.int64)
    missing = [id for id, row in zip(ids, row_of, strict=True) if row < 0]
    if len(missing) == len(ids):
        raise DataError(f"{place}: none of its ids is an image of split '{split}', such as '{stored[0]}'; check it")
    fallback = "they get the most frequent concepts of train"
    if missing:
        header = "; is its first row a header? Write ID,CUIs" if missing == ids[:1] else ""
        warn(f"{place}: {len(missing):,} ids have no image ({some(missing)}); {fallback}{header}")
    extra = sorted(set(stored) - {stored[row] for row in rows if row >= 0})
    if extra:
        warn(f"{split}: {len(extra):,} images are not in {place} ({some(extra)}); they are left out")
    unreadable = [id for id, row in zip(ids, row_of, strict=True) if row >= 0 and not readable[row]]
    if unreadable:
        warn(f"{split}: {len(unreadable):,} images cannot be read ({some(unreadable)}); {fallback}")
    skipped = [id for id in ids if is_skipped(id, edition)]
    if skipped:
        warn(f"{len(skipped):,} ids have the letters ID in them ({some(skipped)}); the evaluator does not count them")
    return row_of
