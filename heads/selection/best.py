"""Search for the best run within a time budget: heads, parameters, parts of the features, decoders and ensembles.

Folds of train decide everything. Valid decides nothing, so its score of the winner is no more optimistic than that of
any run. How optimistic the score on folds is, which did decide, is measured: the selection is repeated without each
fold, and scored on that fold.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.lock import locked
from cache.support.errors import ParameterError, RunError
from cache.support.json_file import DamagedFileError
from cache.support.reporting import report
from eval.bootstrap import find_interval
from eval.f1 import ImageF1, image_f1, mean_f1
from heads.data.folds import split_folds
from heads.data.store import LabelledStore
from heads.data.types import Groups
from heads.ensembles.builder import make_ensemble
from heads.evaluation.cross_validation import decoder_f1
from heads.evaluation.out_of_fold import score_out_of_fold
from heads.registry import DEFAULT_DECODER, make_decoder, make_head
from heads.runs.builder import fit_run, prepare_head
from heads.runs.checks import check_labels
from heads.runs.files import FORMAT, read_sealed, write_sealed, writing
from heads.runs.folder import check_folder
from heads.runs.metrics import RunMetrics
from heads.runs.request import TRAIN, RunRequest
from heads.runs.saved_scores import load_scores, save_scores
from heads.selection.budget import Budget, Pace, format_clock, read_clock
from heads.selection.choice import Candidate, Choice, Trial, choose, mean_scores

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "kernel": [{}, {"gamma": 1.0, "alpha": 0.3}, {"gamma": 0.25, "alpha": 0.1}, {"gamma": 0.5, "alpha": 0.5}],
    "knn": [{}],
    "ridge": [{}],
    "logistic": [{}],
}
"""The heads that are tried, with their parameters: the defaults first. Those that won most often come first."""

MIN_IMAGES = 1000
"""Fewest training images of a round, unless train has fewer."""

N_ROUNDS = 3
"""Each round has twice the images of the one before and half of its trials."""

MIN_TRIALS = 6
"""Fewest trials of the last round, from which an ensemble is made."""

SELECTION_IMAGES = 8000
"""Most images on whose F1 members are selected; decoding more takes minutes for each of a hundred comparisons."""

SEARCH_SHARE, SELECTION_SHARE = 0.6, 0.8
"""Shares of the budget after which no trial, and no selection, is begun; rounds have equal parts of the first. The rest
is for the winner."""

TRIALS = "trials.json"


class SavedTrials(TypedDict):
    """What ``trials.json`` holds."""

    format: int
    trials: dict[str, dict[str, Any]]
    """By digest."""


def find_best(
    store: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    budget: str = "30m",
    train: str = TRAIN,
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
    """
    time_left, out = Budget.parse(budget), Path(out)
    check_folder(out)
    search = Search(Path(store), Path(data), out, train, time_left)
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
    """

    store: Path
    data: Path
    out: Path
    train: str
    budget: Budget

    def __post_init__(self) -> None:
        self.whole = LabelledStore.load(self.store, self.data)
        self.split = self.whole.train
        self.folder = self.out.with_name(f"{self.out.name}.search")
        request = RunRequest.resolve(next(iter(SETTINGS)), self.store, self.data, self.folder, {"train": self.train})
        prepare_head(request.make_head(), self.whole.store)
        check_labels(request, request.make_decoder(), self.split, self.whole.valid)
        self._saved = self._read()

    def run(self) -> dict[str, Any]:
        """Search, save the winner, and return what was tried."""
        trials = self.try_all()
        choice = self.choose(trials)
        nested = self.estimate(trials)
        table = self.report(trials, choice, nested)
        metrics = self.save(choice)
        for path in self.folder.glob("*.npy"):  # large, and needed no more
            path.unlink()
        return table | {"metrics": metrics}

    def list_candidates(self) -> list[Candidate]:
        """Every head and setting on all features, and each head with its defaults on parts of them."""
        parts = self.whole.store.split(TRAIN).parts
        names, views = parts.names, [""]
        if len(names) > 1:
            views += names
        if len(names) > 2:
            views += [",".join(each for each in names if each != name) for name in names]
        widths = [parts.measure(view) if view else sum(parts.widths) for view in views]
        found = [
            Candidate(head, settings, view, len(parts.split(view)) if view else len(names), width)
            for head, all_settings in SETTINGS.items()
            for settings in all_settings
            for view, width in zip(views, widths, strict=True)
            if not (settings and view)
        ]
        heads = list(SETTINGS)
        # The time that a head takes is learnt on few features.
        return sorted(found, key=lambda each: (heads.index(each.head), each.n_features))

    def list_rounds(self) -> list[NDArray[np.int64]]:
        """The training images of each round. Those of a group are together, and the last round has all."""
        n_images, groups = self.split.Y.shape[0], self.split.groups
        labels = np.arange(n_images) if groups is None else groups
        order = np.random.default_rng(0).permutation(np.unique(labels))
        place = np.empty(int(labels.max()) + 1, np.int64)
        place[order] = np.arange(len(order))
        sizes = [n_images // 2**halving for halving in reversed(range(N_ROUNDS))]
        shares = [size / n_images for size in sizes if size >= MIN_IMAGES or size == n_images]
        return [np.flatnonzero(place[labels] < round(share * len(order))) for share in shares]

    def try_all(self) -> list[Trial]:
        """Score all candidates by successive halving; returns the trials of the last round, the best first."""
        candidates, rounds = self.list_candidates(), self.list_rounds()
        report(f"{self.out}: {len(candidates)} trials, in {len(rounds)} rounds on "
               f"{', '.join(f'{len(rows):,}' for rows in rounds)} training images; {self.budget}")  # fmt: skip
        pace = Pace()
        trials: list[Trial] = []
        for number, rows in enumerate(rounds):
            trials, share = [], SEARCH_SHARE * (number + 1) / len(rounds)
            for candidate in candidates:
                if trials and not self.budget.allows(pace.expect(candidate, len(rows)), share):
                    report(f"  no time for {candidate}")
                    continue
                trial = self.score(candidate, rows)
                if not number and not trials:
                    self._check_budget(trial, len(rows))
                trials.append(trial)
                pace.add(trial, len(rows))
                place = f"round {number + 1} of {len(rounds)}, {len(trials)} of {len(candidates)}"
                report(f"  {place}: {candidate}: F1 {trial.mean:.4f} by folds, {trial.seconds:.0f} s; {self.budget}")
            trials.sort(key=lambda each: -each.mean)
            candidates = list_survivors(trials)
        return trials

    def score(self, candidate: Candidate, rows: NDArray[np.int64]) -> Trial:
        """Score a candidate by folds of some training images, or take what an earlier search has found."""
        split, key = self.split, self._digest(candidate, len(rows))
        Y, groups = split.Y[rows], None if split.groups is None else split.groups[rows]
        known, path = self._saved.get(key), self.folder / f"{key[:32]}.npy"
        scores = load_scores(self.folder, Y.shape, path.name) if known else None
        seconds = float(known["seconds"]) if known else 0.0
        if scores is None:
            start = read_clock()
            head = make_head(candidate.head, dict(candidate.params))
            scores = score_out_of_fold(head, self._find_features(candidate.parts)[rows], Y, groups)
            seconds = read_clock() - start
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                save_scores(scores, self.folder, path.name)
        f1 = decoder_f1(make_decoder(DEFAULT_DECODER), scores, Y, None, groups)
        if known is None:
            self._saved[key] = {"trial": str(candidate), "n_images": len(rows), "f1": mean_f1(f1), "seconds": seconds}
            with writing(self.folder):
                write_sealed(self.folder / TRIALS, {"format": FORMAT, "trials": self._saved})
        return Trial(candidate, f1, seconds, scores)

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
        n_images, groups = self.split.Y.shape[0], self.split.groups
        rows = np.arange(n_images)
        if n_images > SELECTION_IMAGES:
            rows = np.sort(np.random.default_rng(0).choice(n_images, SELECTION_IMAGES, replace=False))
        return rows, self.split.Y[rows], None if groups is None else groups[rows]

    def _find_features(self, parts: str) -> Any:
        """Features of the training images, of some parts or all, without a copy where the parts are neighbours."""
        X = self.split.X
        return X[:, self.whole.store.split(TRAIN).parts.find_columns(parts)] if parts else X

    def _digest(self, candidate: Candidate, n_images: int) -> str:
        """Key of a trial: it decides its scores."""
        options = {"params": candidate.params, "pooling": candidate.parts}
        request = RunRequest.resolve(candidate.head, self.store, self.data, self.folder, options)
        params = make_head(candidate.head, dict(candidate.params)).get_params()
        return f"{request.digest(params, self.whole)['head']}-{n_images}"

    def _read(self) -> dict[str, dict[str, Any]]:
        """The trials of an earlier search, by their digests."""
        try:
            saved = read_sealed(self.folder / TRIALS, SavedTrials)
        except (DamagedFileError, OSError):
            return {}
        return saved["trials"] if saved["format"] == FORMAT else {}

    def _check_budget(self, trial: Trial, n_images: int) -> None:
        """Refuse a budget in which not even one trial could be fitted to all images.

        Raises
        ------
        ParameterError
            With a budget that would do.
        """
        needed = trial.seconds * self.split.Y.shape[0] / n_images / SEARCH_SHARE * 2
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
