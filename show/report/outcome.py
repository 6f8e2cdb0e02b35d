"""What a run predicts for labelled images, beside what is true of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cache.support.errors import RunError, StoreError
from cache.support.json_file import DamagedFileError
from cache.support.messages import describe_error
from cache.support.reporting import warn
from eval.labels import read_concept_sets
from eval.run_folder import VALID
from heads.data.blocks import split_rows
from heads.data.split import LabelledSplit
from heads.data.store import LabelledStore, load_each
from heads.data.types import Scores
from heads.data.vocabulary import columns_to_concepts
from heads.decoders.base import Decoder
from heads.decoders.calibrated import Calibrated
from heads.ensembles.ensemble import MIXING, Ensemble
from heads.ensembles.held_out import find_unseen, score_valid
from heads.evaluation.cross_validation import decode_held_out
from heads.runs.command_line import repeat_ensemble, repeat_run, repeat_store
from heads.runs.files import RunFiles, damaged
from heads.runs.folder import read_metrics, read_request
from heads.runs.metrics import RunMetrics
from heads.runs.predictor import StoredRun
from heads.runs.request import RunRequest
from heads.runs.saved_scores import load_scores

BLOCK_ROWS = 4096
"""Images whose scores are in memory at a time."""

ScoreBlock = Callable[[slice], Scores]
"""Scores of some of the images that can be read, shape (n_rows, n_concepts)."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished run with the images that it can be judged by.

    Parameters
    ----------
    folder : Path
        The run.
    metrics : dict
    data : Path
        The data folder.
    commands : list of str
        The commands that repeat the run.
    labelled : LabelledStore
        What it learnt from; of an ensemble, its first member.
    split : LabelledSplit or None
        The images: valid, or train where there is no valid and out-of-fold scores are saved. None if there are none.
    predicted : list of list of str, length n_images
        The concepts of each image of `split`.
    score : callable
        Gives the scores of a block of its readable images, in the columns of ``split.vocabulary``.
    decoder : Decoder or None
        The run's; None where an ensemble joins sets.
    """

    folder: Path
    metrics: RunMetrics
    data: Path
    commands: list[str]
    labelled: LabelledStore
    split: LabelledSplit | None
    predicted: list[list[str]]
    score: ScoreBlock
    decoder: Decoder | None

    @classmethod
    def open(cls, folder: Path, store: Path | None = None, data: Path | None = None) -> "Outcome":
        """Open a run or an ensemble with its store and its labels.

        Parameters
        ----------
        folder : Path
            The run.
        store, data : Path, optional
            Where the store and the data folder are now; where they were when the run was made by default. An ensemble
            remembers the stores of its members.

        Raises
        ------
        RunError
            There is no finished run, or it is of other images than its store and its data folder have now.
        StoreError
            The store is gone, damaged or of other features.
        DataError
            The labels are gone or at fault.
        """
        metrics = read_metrics(folder)
        if "members" in metrics:
            return _open_ensemble(folder, metrics, data)
        return _open_run(folder, metrics, store, data)

    @property
    def is_calibrated(self) -> bool:
        """Whether the decoder turns scores into probabilities first."""
        return isinstance(self.decoder, Calibrated)

    def calibrate(self, scores: Scores) -> Scores:
        """What the decoder decides on: calibrated scores, or the scores themselves."""
        return self.decoder.calibration_.transform(scores) if isinstance(self.decoder, Calibrated) else scores

    def blocks(self) -> Iterator[tuple[slice, Scores]]:
        """Iterate over the scores of the readable images, some at a time.

        Yields
        ------
        rows : slice
        scores : ndarray of float32, shape (n_rows, n_concepts)
        """
        if self.split is not None:
            for rows in split_rows(int(self.split.readable.sum()), BLOCK_ROWS):
                yield rows, self.score(rows)


def _open_run(folder: Path, metrics: RunMetrics, store: Path | None, data: Path | None) -> Outcome:
    request = RunRequest.read(folder)
    data = data or Path(request.data)
    path = store or Path(request.store)
    if not path.is_file():
        again = repeat_store(metrics, request)
        raise StoreError(f"{path}: no such store; name it with --store, or make it again: {again}")
    stored = StoredRun(folder, path)
    weights = stored.store.weights_origin.name
    commands = [repeat_store(metrics, request, weights), repeat_run(request, folder)]
    labelled = LabelledStore.load(path, data, request.pooling, request.concepts)
    if request.digest(metrics["params"], labelled)["whole"] != metrics["requests"]["whole"]:
        warn(f"{folder}: its store or its labels have changed since it was made; the report is of what they are now")
    run, valid = stored.run, labelled.valid
    decoder = run.decoder
    if valid is not None:
        valid = replace(valid, vocabulary=run.vocabulary)
        unseen = find_unseen(stored, valid)

        def score(rows: slice) -> Scores:
            return run.score(valid.X[rows]) if unseen is None else unseen[rows]

        predicted = _read_predicted(folder, valid.ids)
        return Outcome(folder, metrics, data, commands, labelled, valid, predicted, score, decoder)
    train = replace(labelled.train.tuning, vocabulary=run.vocabulary)
    saved = load_scores(folder, (int(train.readable.sum()), len(run.vocabulary)))
    if saved is None:
        return Outcome(folder, metrics, data, commands, labelled, None, [], _score_nothing, decoder)
    held_out = decode_held_out(decoder, saved, train.Y, None, train.groups)
    predicted = columns_to_concepts(held_out, run.vocabulary, train.readable, run.fallback)
    return Outcome(folder, metrics, data, commands, labelled, train, predicted, lambda rows: saved[rows], decoder)


def _open_ensemble(folder: Path, metrics: RunMetrics, data: Path | None) -> Outcome:
    for member in metrics.get("members", []):
        if not Path(member["store"]).is_file():
            request = RunRequest.read(folder / "members" / member["name"])
            own = read_metrics(folder / "members" / member["name"])
            raise StoreError(f"{member['store']}: no such store; make it again: {repeat_store(own, request)}")
    ensemble = Ensemble.load(folder)
    requests = [RunRequest.read(member.folder) for member in ensemble.members]
    labelled = load_each(
        (member.store.path, data or Path(request.data), request.pooling, request.concepts)
        for member, request in zip(ensemble.members, requests, strict=True)
    )
    commands = [repeat_ensemble(read_request(folder) or {}, folder)]
    decoder = ensemble.decoder if ensemble.method in MIXING else None
    place, valid = data or Path(requests[0].data), labelled[0].valid
    if valid is None:
        return Outcome(folder, metrics, place, commands, labelled[0], None, [], _score_nothing, decoder)
    can_read = dict(zip(*ensemble.images(valid.name), strict=True))
    readable = np.array([can_read[id] for id in valid.ids], dtype=bool)
    valid = replace(valid, readable=readable, vocabulary=ensemble.vocabulary)
    scores = ensemble.combine(score_valid(ensemble, labelled, valid.readable_ids))
    predicted = _read_predicted(folder, valid.ids)
    return Outcome(folder, metrics, place, commands, labelled[0], valid, predicted, lambda rows: scores[rows], decoder)


def _score_nothing(rows: slice) -> Scores:
    raise AssertionError("there are no images to score")


def read_valid(folder: Path) -> dict[str, tuple[str, ...]]:
    """The concepts that a finished run predicts for valid, by image id.

    Raises
    ------
    RunError
        There is no finished run, it is damaged, or it had no valid.
    """
    files = RunFiles.open(folder)
    if VALID not in files.digests:
        raise RunError(f"{folder}: has no predictions of valid, because its data had no such split")
    try:
        return read_concept_sets(files.check(VALID), spelled=True)
    except (DamagedFileError, OSError) as error:
        raise damaged(folder, describe_error(error)) from error


def _read_predicted(folder: Path, ids: Sequence[str]) -> list[list[str]]:
    """What a run predicts for the images of valid, in their order."""
    predicted = read_valid(folder)
    if set(predicted) != set(ids):
        raise RunError(f"{folder}: was made when valid had other images; train it again with `make head RUN={folder}`")
    return [sorted(predicted[id]) for id in ids]
