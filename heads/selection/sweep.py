"""Sweep the parameters of a head: a table of scores and seconds; the best run is saved, and no trial is done twice."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from sklearn.model_selection import ParameterGrid

from cache.lock import locked
from cache.support.cluster import ClusterError
from cache.support.errors import DataError, ParameterError, RunError
from cache.support.json_file import DamagedFileError
from cache.support.reporting import report
from eval.bootstrap import find_interval
from eval.editions import LATEST, find_edition
from eval.evaluator_files import is_skipped
from eval.f1 import mean_f1
from heads.data.folds import check_folds
from heads.data.split import LabelledSplit
from heads.data.store import LabelledStore
from heads.estimators.base import Head, Trial
from heads.evaluation.cross_validation import decoder_f1
from heads.evaluation.out_of_fold import tuning_scores
from heads.runs.builder import BuiltRun, RunBuilder, build_run, prepare_head
from heads.runs.checks import check_labels
from heads.runs.files import FORMAT, REQUEST, find_version, read_sealed, write_sealed, writing
from heads.runs.folder import check_folder, find_whole
from heads.runs.progress import Clock, watching
from heads.runs.request import FOLDS, VALID_SPLIT, RunRequest
from heads.selection.cluster import call_on_cluster

TRIALS = "sweep.json"
"""The finished trials in the folder of a run, by the digest of their requests."""

Row = dict[str, Any]
"""A trial: its parameters, scores and seconds."""


class Trials(TypedDict):
    """What ``sweep.json`` holds."""

    format: int
    trials: dict[str, Row]


def sweep_runs(
    head: str,
    store: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    grid: Mapping[str, Sequence[Any]],
    *,
    by: str = VALID_SPLIT,
    scheduler: str | None = None,
    params: Mapping[str, Any] | None = None,
    decoder: str | None = None,
    tune: str | None = None,
    nested: bool | None = None,
    pooling: str | None = None,
    concepts: Sequence[str] | None = None,
    train: str | None = None,
) -> list[Row]:
    """Fit a head with every combination of some parameters, and save the best run.

    Parameters
    ----------
    head, store, data, out, params, decoder, tune, nested, pooling, concepts, train
        As in `heads.fit_run`.
    grid : mapping of str to sequence
        The values of each parameter.
    by : str
        What decides: the primary F1 on ``valid``, or that of out-of-fold scores of train, ``folds``.
    scheduler : str, optional
        Fit the trials on a cluster of Dask, each by itself: the address of its scheduler, or ``local``. Its workers
        must see store and labels under the same paths.

    Returns
    -------
    list of dict
        One row per trial, the best first: its parameters, scores and seconds.

    Raises
    ------
    UserError
        The request, the store or the labels are at fault, or another process is writing the run.
    """
    out = Path(out)
    options = {"params": params, "decoder": decoder, "tune": tune, "nested": nested, "pooling": pooling,
               "concepts": concepts, "train": train}  # fmt: skip
    request = RunRequest.resolve(head, Path(store), Path(data), out, options)
    labelled = LabelledStore.load(store, data, request.pooling, request.concepts)
    trials = list_trials(request, grid)
    check_chooser(by, labelled.train, labelled.valid)
    sweep = Sweep(request, labelled, out, by)
    keys = [sweep.digest(trial) for trial in trials]
    with locked(out, RunError):
        rows = sweep.read()
        pending = [trial for trial, key in zip(trials, keys, strict=True) if key not in rows]
        if len(pending) < len(trials):
            report(f"{out}: {len(trials) - len(pending):,} of {len(trials):,} trials are done already")
        sweep.check(pending)
        done = sweep.run_on_cluster(scheduler, pending, rows) if scheduler else sweep.run(pending, keys, rows)
        for row in done:
            report(describe_row(row, by))
        best = max(keys, key=lambda key: rows[key][by])
        saved = find_whole(out)
        if saved is None or saved["requests"]["whole"] != best:
            build_run(sweep.request_trial(rows[best]["params"]), labelled, out, Clock())
    table = sorted((rows[key] for key in keys), key=lambda row: -row[by])
    chosen = "valid, so the best one's score there is optimistic" if by == VALID_SPLIT else "folds of train"
    if request.tune == VALID_SPLIT and request.make_decoder().tuned:
        chosen += "; decoders were tuned on valid, so every score there is optimistic"
    report(f"{out}: the best of {len(table):,} trials, chosen on {chosen}:")
    for row in table:
        report("  " + describe_row(row, by))
    return table


def list_trials(request: RunRequest, grid: Mapping[str, Sequence[Any]]) -> list[Trial]:
    """Every combination of the values of a grid.

    Raises
    ------
    ParameterError
        A parameter is unknown, has no value, or one out of its range.
    """
    values = {key: list(each) for key, each in grid.items()}
    empty = [key for key, each in values.items() if not each]
    if empty:
        raise ParameterError(f"the grid has no value of {empty[0]}, expected at least one, as in C=0.01,0.1")
    trials: list[Trial] = list(ParameterGrid(values))
    for trial in trials:
        request_trial(request, trial).make_head()
    return trials


def request_trial(request: RunRequest, trial: Trial) -> RunRequest:
    """The request of the run of a trial."""
    return replace(request, params=request.params | dict(trial))


def check_chooser(by: str, train: LabelledSplit, valid: LabelledSplit | None) -> None:
    """Check that what decides can be computed.

    Parameters
    ----------
    by : str
        ``valid`` or ``folds``.
    train : LabelledSplit
    valid : LabelledSplit or None

    Raises
    ------
    ParameterError
        It is something else.
    DataError
        There is no split 'valid', or none that is scored, and that decides; or there are too few images for folds.
    """
    if by not in (VALID_SPLIT, FOLDS):
        raise ParameterError(f"by is '{by}', expected {VALID_SPLIT} or {FOLDS}")
    if by == FOLDS:
        check_folds(train.Y.shape[0], train.groups)
        return
    edition = find_edition(LATEST)
    if valid is None:
        raise DataError("there is no split 'valid' to choose by; choose by folds (BY=folds)")
    if all(is_skipped(id, edition) for id in valid.ids):
        raise DataError("the official evaluator counts no image of valid, because each has the letters ID in its "
                        "id; choose by folds (BY=folds)")  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """Trials of one head on one labelled store.

    Parameters
    ----------
    request : RunRequest
        With the parameters that all trials share.
    data : LabelledStore
    out : Path
        The folder of the best run.
    by : str
        ``valid`` or ``folds``.
    """

    request: RunRequest
    data: LabelledStore
    out: Path
    by: str

    def digest(self, trial: Trial) -> str:
        """Key of a trial in the file of finished trials."""
        request = self.request_trial(trial)
        return request.digest(request.make_head().get_params(), self.data)["whole"]

    def request_trial(self, trial: Trial) -> RunRequest:
        """The request of the run of a trial."""
        return request_trial(self.request, trial)

    def check(self, pending: Sequence[Trial]) -> None:
        """Check the folder, the data and each trial, before the first one is fitted.

        Raises
        ------
        UserError
            One of them is at fault.
        """
        check_folder(self.out)
        train = self.data.train
        check_labels(self.request, self.request.make_decoder(), train, self.data.valid)
        base = self.request.make_head()
        prepare_head(base, self.data.store)
        for trial in pending:
            base.with_params(trial).check_data(train.X, train.Y)

    def read(self) -> dict[str, Row]:
        """The finished trials, by their digests."""
        try:
            saved = read_sealed(self.out / TRIALS, Trials)
        except (DamagedFileError, OSError):
            return {}
        rows: dict[str, Row] = saved["trials"] if saved["format"] == FORMAT else {}
        return {key: row for key, row in rows.items() if self.by in row}

    def run(self, pending: Sequence[Trial], keys: Sequence[str], rows: dict[str, Row]) -> Iterator[Row]:
        """Do the trials that are not done.

        Parameters
        ----------
        pending : sequence of mapping
        keys : sequence of str
            The digests of all trials of the sweep, among which the best is saved.
        rows : dict of str to dict
            The finished trials. New ones are added, and saved before they are yielded.

        Yields
        ------
        dict
            The row of each trial.
        """
        base = self.request.make_head()
        prepare_head(base, self.data.store)
        with watching(base) as progress:
            fitted = base.fit_each(self.data.train.X, self.data.train.Y, pending, progress)
            for _ in pending:
                clock = Clock()
                with clock("fit"):
                    trial, head = next(fitted)
                row, built = self._score(trial, head, clock)
                best = max((rows[key][self.by] for key in keys if key in rows), default=-1.0)
                if row[self.by] > best:
                    built.save(self.out, self.request_trial(trial), self.data)
                self._add(row, rows)
                yield row

    def run_on_cluster(self, scheduler: str, pending: Sequence[Trial], rows: dict[str, Row]) -> Iterator[Row]:
        """Do the trials that are not done, on a cluster; no run is saved. The parameters are those of `run`.

        Raises
        ------
        ClusterError
            The cluster fails, or a worker sees another store or other labels.
        """
        calls = [(self.request, self.out, self.by, trial) for trial in pending]
        for digest, row in call_on_cluster(scheduler, score_trial, calls) if calls else ():
            if digest != self.digest(row["params"]):
                raise ClusterError(f"a worker sees another store, or other labels, at {self.request.store} and "
                                   f"{self.request.data}; give paths that are the same everywhere")  # fmt: skip
            self._add(row, rows)
            yield row

    def score(self, trial: Trial) -> Row:
        """Do one trial by itself."""
        head, clock = self.request_trial(trial).make_head(), Clock()
        prepare_head(head, self.data.store)
        with clock("fit"):
            head.fit(self.data.train.X, self.data.train.Y)
        return self._score(trial, head, clock)[0]

    def _add(self, row: Row, rows: dict[str, Row]) -> None:
        """Save a finished trial, in the folder of a run that is not finished if there is no other yet."""
        rows[self.digest(row["params"])] = row
        with writing(self.out):
            if find_version(self.out) is None:
                self.out.mkdir(parents=True, exist_ok=True)
                write_sealed(self.out / REQUEST, {"format": FORMAT} | vars(self.request))
            write_sealed(self.out / TRIALS, {"format": FORMAT, "trials": rows})

    def _score(self, trial: Trial, head: Head, clock: Clock) -> tuple[Row, BuiltRun]:
        """Make the run of a fitted head; its row has the scores that may decide."""
        request, train = self.request_trial(trial), self.data.train
        decoder = request.make_decoder()
        digests = request.digest(head.get_params(), self.data)
        scores, row = None, {"params": dict(trial), "seconds": clock.seconds["fit"]}
        if self.by == FOLDS:
            with clock("folds"), watching(head) as progress:
                scores = tuning_scores(head, train, progress)
        built = RunBuilder(request, self.data, clock).build(head, decoder, digests, scores)
        if scores is not None:
            f1 = decoder_f1(decoder, scores, train.tuning.Y, groups=train.tuning.groups)
            row |= {FOLDS: mean_f1(f1), f"{FOLDS}_interval": list(find_interval(f1))}
        valid = built.metrics["valid"]
        if valid:
            row |= {VALID_SPLIT: valid["primary"], f"{VALID_SPLIT}_interval": valid["primary_interval"]}
            row |= {"secondary": valid["secondary"], "secondary_interval": valid["secondary_interval"]}
        return row, built


def score_trial(request: RunRequest, out: Path, by: str, trial: Trial) -> tuple[str, Row]:
    """On a worker of a cluster: open the store, and do one trial; gives the trial's digest, too."""
    data = LabelledStore.load(request.store, request.data, request.pooling, request.concepts)
    sweep = Sweep(request, data, out, by)
    return sweep.digest(trial), sweep.score(trial)


def describe_row(row: Row, by: str) -> str:
    """A trial in one line."""
    params = " ".join(f"{key}={json.dumps(value)}" for key, value in row["params"].items())
    names = {FOLDS: "out-of-fold F1", VALID_SPLIT: "valid primary F1", "secondary": "secondary"}
    scores = [f"{names[key]} {_with_interval(row, key)}" for key in (by, *names) if row.get(key) is not None]
    return f"{params}: {', '.join(dict.fromkeys(scores))}, fitted in {row['seconds']:.1f} s"


def _with_interval(row: Row, key: str) -> str:
    """A score with its 95% interval, which the sweeps of an earlier version do not have."""
    interval = row.get(f"{key}_interval")
    return f"{row[key]:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")
