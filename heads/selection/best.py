"""Search for the best run within a time budget: heads, parameters, parts of the features, decoders and ensembles.

Folds of train decide everything. Valid decides nothing, so its score of the winner is no more optimistic than that of
any run. How optimistic the score on folds is, which did decide, is measured: the selection is repeated without each
fold, and scored on that fold.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.lock import locked
from cache.support.errors import ParameterError, RunError
from cache.support.reporting import report
from eval.bootstrap import find_interval
from eval.f1 import ImageF1, image_f1, mean_f1
from heads.data.folds import split_folds
from heads.data.types import Groups
from heads.ensembles.builder import make_ensemble
from heads.registry import make_decoder
from heads.runs.builder import fit_run
from heads.runs.folder import check_folder
from heads.runs.metrics import RunMetrics
from heads.runs.request import TRAIN
from heads.selection.budget import Budget, Pace, format_clock
from heads.selection.choice import Candidate, Choice, Trial, choose, mean_scores
from heads.selection.trials import Trials

MIN_TRIALS = 6
"""Fewest trials of the last round, from which an ensemble is made."""

SELECTION_IMAGES = 8000
"""Most images on whose F1 members are selected; decoding more takes minutes for each of a hundred comparisons."""

SEARCH_SHARE, SELECTION_SHARE = 0.6, 0.8
"""Shares of the budget after which no trial, and no selection, is begun; rounds have equal parts of the first. The rest
is for the winner."""


def find_best(
    store: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    budget: str = "30m",
    train: str = TRAIN,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Try heads, parameters, parts of the features and decoders, and save the best run or ensemble.

    Trials are dropped by successive halving (Jamieson and Talwalkar, 2016): each round has twice the training images of
    the one before, and the better half of its trials. From the trials of the last round, an ensemble is selected
    greedily (Caruana et al., 2004). The simplest choice within one standard error of the best is preferred.

    Parameters
    ----------
    store, data : path
        The feature store, best one of several joined, and the data folder with the labels.
    out : path
        The folder of the run. The members of an ensemble have folders beside it, ``OUT.1-kernel`` and so on. What was
        tried is in ``OUT.search``, from where an interrupted search goes on.
    budget : str
        Such as ``30m``: the time that all may take.
    train : str
        What the saved heads learn from, as in `heads.fit_run`.
    scheduler : str, optional
        Score the trials of a round on a cluster of Dask: the address of its scheduler, or ``local``. Its workers must
        see `store`, `data` and the folder of `out` under the same paths.

    Returns
    -------
    dict
        ``trials``, one row each, the best first; ``chosen``; ``folds`` and ``nested``, F1 with its interval; and
        ``metrics`` of the saved run.

    Raises
    ------
    ParameterError
        The budget is not a time, or it is too short for one trial.
    UserError
        The store or the labels are at fault, or another process is writing the run.
    ClusterError
        The cluster cannot be used.
    """
    time_left, out = Budget.parse(budget), Path(out)
    check_folder(out)
    search = Search(Path(store), Path(data), out, train, time_left, scheduler)
    with locked(out.with_name(f"{out.name}.search"), RunError):
        return search.run()


@dataclass
class Search:
    """A search on one store.

    Parameters
    ----------
    store, data, out : Path
    train : str
    budget : Budget
    scheduler : str or None
        That of a cluster on which trials are scored.
    """

    store: Path
    data: Path
    out: Path
    train: str
    budget: Budget
    scheduler: str | None = None

    def __post_init__(self) -> None:
        self.trials = Trials(self.store, self.data, self.out.with_name(f"{self.out.name}.search"), self.train)

    def run(self) -> dict[str, Any]:
        """Search, save the winner, and return what was tried."""
        trials = self.try_all()
        choice = self.choose(trials)
        nested = self.estimate(trials)
        table = self.report(trials, choice, nested)
        metrics = self.save(choice)
        self.trials.forget_scores()
        return table | {"metrics": metrics}

    def try_all(self) -> list[Trial]:
        """Score all candidates by successive halving; returns the trials of the last round, the best first."""
        candidates, rounds = self.trials.list_candidates(), self.trials.rounds
        report(f"{self.out}: {len(candidates)} trials, in {len(rounds)} rounds on "
               f"{', '.join(f'{len(rows):,}' for rows in rounds)} training images; {self.budget}")  # fmt: skip
        pace = Pace()
        trials: list[Trial] = []
        for number, rows in enumerate(rounds):
            trials, share = [], SEARCH_SHARE * (number + 1) / len(rounds)
            score = self._score_on_cluster if self.scheduler else self._score_here
            for trial in score(candidates, number, pace, share):
                if not number and not trials:
                    self._check_budget(trial, len(rows))
                trials.append(trial)
                pace.add(trial, len(rows))
                place = f"round {number + 1} of {len(rounds)}, {len(trials)} of {len(candidates)}"
                report(f"  {place}: {trial.candidate}: F1 {trial.mean:.4f} by folds, {trial.seconds:.0f} s; "
                       f"{self.budget}")  # fmt: skip
            # On a cluster they are finished in any order.
            trials.sort(key=lambda each: (-each.mean, candidates.index(each.candidate)))
            candidates = list_survivors(trials)
        return trials

    def _score_here(self, candidates: Sequence[Candidate], number: int, pace: Pace, share: float) -> Iterator[Trial]:
        """Score candidates one after another, the first one in any case, others while a share of the budget lasts."""
        rows = self.trials.rounds[number]
        for place, candidate in enumerate(candidates):
            if place and not self.budget.allows(pace.expect(candidate, len(rows)), share):
                report(f"  no time for {candidate}")
            else:
                yield self.trials.score(candidate, rows)

    def _score_on_cluster(
        self, candidates: Sequence[Candidate], number: int, pace: Pace, share: float
    ) -> Iterator[Trial]:
        """Do the same with as many at a time as there are workers."""
        assert self.scheduler is not None
        n_images = len(self.trials.rounds[number])
        tried = [
            each
            for place, each in enumerate(candidates)
            if not place or self.budget.allows(pace.expect(each, n_images), share)
        ]
        left = list(candidates)
        for trial in self.trials.score_on_cluster(self.scheduler, tried, number):
            left.remove(trial.candidate)
            yield trial
            if not self.budget.allows(0, share):
                break
        for each in left:
            report(f"  no time for {each}")

    def choose(self, trials: Sequence[Trial]) -> Choice:
        """Choose a trial or an ensemble of them, and its decoder, by folds of train."""
        rows, Y, groups = self._limit()
        return choose(trials, rows, Y, groups)

    def estimate(self, trials: Sequence[Trial]) -> ImageF1 | None:
        """F1 per image of choices that were made without the image's fold; None if there was no time for it."""
        rows, Y, groups = self._limit()
        f1, seconds = np.empty(len(rows)), 0.0
        for rest, held_out in split_folds(len(rows), groups):
            if not self.budget.allows(seconds, SELECTION_SHARE):
                report("  no time to repeat the selection without each fold")
                return None
            start, rest_groups = self.budget.used, None if groups is None else groups[rest]
            choice = choose(trials, rows[rest], Y[rest], rest_groups)
            decoder = make_decoder(choice.decoder)
            decoder.fit(mean_scores(choice.members, rows[rest]), Y[rest], None, rest_groups)
            f1[held_out] = image_f1(Y[held_out], decoder.predict(mean_scores(choice.members, rows[held_out])))
            seconds = self.budget.used - start
        return f1

    def report(self, trials: Sequence[Trial], choice: Choice, nested: ImageF1 | None) -> dict[str, Any]:
        """Report what was tried, the best first, what was chosen, and how optimistic its score is."""
        rows = []
        report("  F1 by folds of train      seconds  trial")
        for each in trials:
            low, high = find_interval(each.f1)
            rows.append(
                {"trial": str(each.candidate), "f1": each.mean, "interval": [low, high], "seconds": each.seconds}
            )
            report(f"  {each.mean:.4f} [{low:.4f}, {high:.4f}]  {each.seconds:7.1f}  {each.candidate}")
        chosen = {"primary": mean_f1(choice.f1), "interval": list(find_interval(choice.f1))}
        report(f"chosen: {choice}, F1 {chosen['primary']:.4f} by folds; {choice.reason}")
        estimate = None
        if nested is not None:
            low, high = find_interval(nested)
            estimate = {"primary": mean_f1(nested), "interval": [low, high]}
            report(f"the same selection, made without each fold in turn, has F1 {mean_f1(nested):.4f} "
                   f"[{low:.4f}, {high:.4f}] there: expect this on new images")  # fmt: skip
        return {"trials": rows, "chosen": str(choice), "folds": chosen, "nested": estimate}

    def save(self, choice: Choice) -> RunMetrics:
        """Fit what was chosen, and save it as a run or an ensemble."""
        if len(choice.members) == 1:
            return self._fit(choice.members[0].candidate, choice.decoder, self.out)
        folders = []
        for number, each in enumerate(choice.members, 1):
            folders.append(self.out.with_name(f"{self.out.name}.{number}-{each.candidate.head}"))
            self._fit(each.candidate, choice.decoder, folders[-1])
        return make_ensemble(folders, self.out, "mean", decoder=choice.decoder)

    def _fit(self, candidate: Candidate, decoder: str, out: Path) -> RunMetrics:
        return fit_run(
            candidate.head,
            self.store,
            self.data,
            out,
            params=candidate.params,
            decoder=decoder,
            tune="folds",
            nested=False,
            pooling=candidate.parts,
            concepts=[],
            train=self.train,
        )

    def _limit(self) -> tuple[NDArray[np.int64], scipy.sparse.csr_matrix, Groups]:
        """The images on which a selection is made, with their labels and groups."""
        train = self.trials.whole.train
        n_images, groups = train.Y.shape[0], train.groups
        rows = np.arange(n_images)
        if n_images > SELECTION_IMAGES:
            rows = np.sort(np.random.default_rng(0).choice(n_images, SELECTION_IMAGES, replace=False))
        return rows, train.Y[rows], None if groups is None else groups[rows]

    def _check_budget(self, trial: Trial, n_images: int) -> None:
        """Refuse a budget in which not even one trial could be fitted to all images.

        Raises
        ------
        ParameterError
            With a budget that would do.
        """
        needed = trial.seconds * self.trials.whole.train.Y.shape[0] / n_images / SEARCH_SHARE * 2
        if needed > self.budget.seconds:
            given, least = format_clock(self.budget.seconds), format_clock(needed)
            raise ParameterError(
                f"budget of {given}, too short for one trial on all training images; expected at least {least}"
            )


def list_survivors(trials: Sequence[Trial]) -> list[Candidate]:
    """Candidates of the next round: the better half of the trials, and the best one on each part of the features.

    A part alone is worse than all of them together. But its errors are its own, so it is worth more in an ensemble than
    another trial on all of them.

    Parameters
    ----------
    trials : sequence of Trial
        The best first.

    Returns
    -------
    list of Candidate
        In the order in which they are to be tried.
    """
    half = max(MIN_TRIALS, len(trials) // 2)
    alone: dict[str, int] = {}
    for number, each in enumerate(trials):
        if each.candidate.n_parts == 1:
            alone.setdefault(each.candidate.parts, number)
    survivors = [number for number in range(len(trials)) if number < half or number in alone.values()]
    # If time is short, it is for these.
    survivors.sort(key=lambda number: number >= MIN_TRIALS and number not in alone.values())
    return [trials[number].candidate for number in survivors]
