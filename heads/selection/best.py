"""Search for the best run within a time budget: heads, parameters, parts of the features, decoders and ensembles.

Folds of train decide everything. Valid decides nothing, so its score of the winner is no more optimistic than that of
any run. How optimistic the score on folds is, which did decide, is measured: the selection is repeated without each
fold, and scored on that fold.
"""

import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.lock import locked
from cache.support.errors import ParameterError, RunError
from cache.support.json_file import DamagedFileError
from cache.support.reporting import report
from eval.bootstrap import compare_scores, find_interval
from eval.f1 import ImageF1, image_f1, mean_f1
from heads.data.folds import check_folds, split_folds
from heads.data.store import LabelledStore
from heads.data.types import Groups, Scores
from heads.ensembles.builder import make_ensemble
from heads.evaluation.cross_validation import decoder_f1
from heads.evaluation.out_of_fold import score_out_of_fold
from heads.registry import DEFAULT_DECODER, make_decoder, make_head
from heads.runs.builder import fit_run
from heads.runs.checks import check_kind
from heads.runs.files import FORMAT, read_sealed, write_sealed, writing
from heads.runs.folder import check_folder
from heads.runs.metrics import RunMetrics
from heads.runs.request import TRAIN, RunRequest
from heads.runs.saved_scores import load_scores, save_scores

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "kernel": [{}, {"gamma": 1.0, "alpha": 0.3}, {"gamma": 0.25, "alpha": 0.1}, {"gamma": 0.5, "alpha": 0.5}],
    "knn": [{}],
    "ridge": [{}],
    "logistic": [{}],
}
"""The heads that are tried, with their parameters: the defaults first. Those that won most often come first."""

DECODERS = (DEFAULT_DECODER, "expected-f1", "temperature+expected-f1", "platt+per-concept", "platt+global")
"""The decoders that are tried on the best trial; the first one unless another is better beyond chance."""

MIN_IMAGES = 1000
"""Fewest training images of a round, unless train has fewer."""

N_ROUNDS = 3
"""Each round has twice the images of the one before and half of its trials."""

MIN_TRIALS = 6
"""Fewest trials of the last round, from which an ensemble is made."""

MAX_MEMBERS = 5
MIN_GAIN = 0.0005
"""A run joins the ensemble if it adds at least so much F1."""

SELECTION_IMAGES = 8000
"""Most images on whose F1 members are selected; decoding more takes minutes for each of a hundred comparisons."""

SEARCH_SHARE, SELECTION_SHARE = 0.6, 0.8
"""Shares of the budget after which no trial, and no selection, is begun; rounds have equal parts of the first. The rest
is for the winner."""

TRIALS = "trials.json"

_SHORT = 1e-9
"""Seconds per image of a trial that took no time at all."""

_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}


class SavedTrials(TypedDict):
    """What ``trials.json`` holds."""

    format: int
    trials: dict[str, dict[str, Any]]
    """By digest."""


@dataclass(frozen=True)
class Candidate:
    """A head with parameters on some parts of the features.

    Parameters
    ----------
    head : str
    params : mapping
        Those that are not defaults.
    parts : str
        Names of parts with commas between them; all if empty.
    n_parts, n_features : int
        How many these are.
    """

    head: str
    params: Mapping[str, Any]
    parts: str
    n_parts: int
    n_features: int

    def __str__(self) -> str:
        settings = "".join(f" {key}={value:g}" for key, value in self.params.items())
        return f"{self.head}{settings}" + (f" on {self.parts}" if self.parts else "")

    @property
    def simplicity(self) -> tuple[int, int]:
        """Smaller is simpler: fewer parts of the features, fewer parameters that are not defaults."""
        return self.n_parts, len(self.params)


@dataclass(frozen=True, eq=False)
class Trial:
    """A candidate that was scored on folds.

    Parameters
    ----------
    candidate : Candidate
    f1 : ndarray of float64, shape (n_images,)
    seconds : float
    scores : ndarray of float32, shape (n_images, n_concepts)
        Out of fold.
    """

    candidate: Candidate
    f1: ImageF1
    seconds: float
    scores: Scores = field(repr=False)

    @property
    def mean(self) -> float:
        """Mean F1 per image."""
        return mean_f1(self.f1)


class Budget:
    """The time that a search may take.

    Parameters
    ----------
    seconds : float
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self._start = seconds, _now()

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read a time such as ``30m``, ``2h`` or ``90s``.

        Raises
        ------
        ParameterError
            It is none.

        Examples
        --------
        >>> Budget.parse("1.5h").seconds
        5400.0
        """
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
        if not found or found[2] not in _UNITS or float(found[1]) == 0:
            raise ParameterError(f"budget '{text}', expected a time such as 90s, 30m or 2h")
        return cls(float(found[1]) * _UNITS[found[2]])

    @property
    def used(self) -> float:
        """Seconds since the start."""
        return _now() - self._start

    def allows(self, seconds: float, share: float) -> bool:
        """Whether work of so many seconds would end within a share of the budget."""
        return self.used + seconds <= share * self.seconds

    def __str__(self) -> str:
        return f"{_clock(max(0.0, self.seconds - self.used))} of {_clock(self.seconds)} left"


class Pace:
    """How long each head takes, learnt from its trials: in proportion to images, and to a power of the features."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[int, float]] = {}

    def add(self, trial: Trial, n_images: int) -> None:
        """Learn from a trial on so many images."""
        self._seen.setdefault(trial.candidate.head, {})[trial.candidate.n_features] = trial.seconds / n_images

    def expect(self, candidate: Candidate, n_images: int) -> float:
        """The seconds that a trial will take; 0 for a head that was not tried.

        The power is what trials on fewer features show, at least 1 and at most 3, as of a decomposition.
        """
        seen = self._seen.get(candidate.head)
        if not seen:
            return 0.0
        widest = max(seen)
        powers = [
            math.log(max(seen[widest], _SHORT) / max(seconds, _SHORT)) / math.log(widest / width)
            for width, seconds in seen.items()
            if width < widest
        ]
        power = min(max(1.0, *powers), 3.0) if powers else 1.0
        seconds: float = n_images * seen[widest] * (candidate.n_features / widest) ** power
        return seconds


@dataclass(frozen=True)
class Choice:
    """What was chosen among trials: one, or several whose scores are averaged.

    Parameters
    ----------
    members : list of Trial
    decoder : str
    f1 : ndarray of float64, shape (n_images,)
        By folds.
    reason : str
        Why a simpler choice was, or was not, preferred.
    """

    members: list[Trial]
    decoder: str
    f1: ImageF1
    reason: str

    def __str__(self) -> str:
        names = " + ".join(str(each.candidate) for each in self.members)
        return f"{f'mean of {len(self.members)} runs: ' if len(self.members) > 1 else ''}{names}, {self.decoder}"


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
    greedily (Caruana et al., 2004). The simplest choice is preferred among those that do not differ beyond chance.

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
        check_folds(self.split.Y.shape[0], self.split.groups)
        if self.whole.store.has_maps:
            check_kind(make_head("kernel"), True, f"{self.store}: holds maps (POOLING=none)")
        RunRequest.resolve("kernel", self.store, self.data, self.out, {"train": self.train})
        self.folder = self.out.with_name(f"{self.out.name}.search")
        self._features = {"": self.split.X}
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
            candidates = [each.candidate for each in trials[: max(MIN_TRIALS, len(trials) // 2)]]
        return trials

    def score(self, candidate: Candidate, rows: NDArray[np.int64]) -> Trial:
        """Score a candidate by folds of some training images, or take what an earlier search has found."""
        split, key = self.split, self._digest(candidate, len(rows))
        Y, groups = split.Y[rows], None if split.groups is None else split.groups[rows]
        known, path = self._saved.get(key), self.folder / f"{key[:32]}.npy"
        scores = load_scores(self.folder, Y.shape, path.name) if known else None
        seconds = float(known["seconds"]) if known else 0.0
        if scores is None:
            start = _now()
            head = make_head(candidate.head, dict(candidate.params))
            scores = score_out_of_fold(head, self._find_features(candidate.parts)[rows], Y, groups)
            seconds = _now() - start
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
            decoder.fit(_mean(choice.members, rows[rest]), Y[rest], None, rest_groups)
            f1[held_out] = image_f1(Y[held_out], decoder.predict(_mean(choice.members, rows[held_out])))
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
        if parts not in self._features:
            self._features[parts] = LabelledStore.load(self.store, self.data, parts).train.X
        return self._features[parts]

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
            raise ParameterError(f"budget of {_clock(self.budget.seconds)}, too short for one trial on all training "
                                 f"images; expected at least {_clock(needed)}")  # fmt: skip


def choose(trials: Sequence[Trial], rows: NDArray[np.int64], Y: scipy.sparse.csr_matrix, groups: Groups) -> Choice:
    """Choose a trial or an ensemble of trials, and its decoder, by F1 on folds of some images.

    Parameters
    ----------
    trials : sequence of Trial
    rows : ndarray of int, shape (n_images,)
        The images, as rows of the scores.
    Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
    groups : ndarray, shape (n_images,), or None

    Returns
    -------
    Choice
        The simplest of those that do not differ beyond chance from the best.
    """
    default = make_decoder(DEFAULT_DECODER)
    scored = [(each, decoder_f1(default, each.scores[rows], Y, None, groups)) for each in trials]
    scored.sort(key=lambda pair: -mean_f1(pair[1]))
    best_f1 = scored[0][1]
    equal = [pair for pair in scored if not _is_better(best_f1, pair[1])]
    simple, simple_f1 = min(equal, key=lambda pair: pair[0].candidate.simplicity)
    members, f1 = _add_members(scored, rows, Y, groups)
    if len(members) > 1 and _is_better(f1, simple_f1):
        reason = f"{mean_f1(f1) - mean_f1(simple_f1):+.4f} to {simple.candidate} alone, more than chance"
    else:
        reason = "the simplest of those that do not differ beyond chance"
        members, f1 = [simple], simple_f1
    decoder, scores = DEFAULT_DECODER, _mean(members, rows)
    for text in DECODERS[1:]:
        other = decoder_f1(make_decoder(text), scores, Y, None, groups)
        if mean_f1(other) > mean_f1(f1) and _is_better(other, f1):
            decoder, f1 = text, other
    return Choice(members, decoder, f1, reason)


def _add_members(
    scored: Sequence[tuple[Trial, ImageF1]], rows: NDArray[np.int64], Y: scipy.sparse.csr_matrix, groups: Groups
) -> tuple[list[Trial], ImageF1]:
    """Add the trial whose scores raise the F1 of the mean most, again and again (Caruana et al., 2004)."""
    default = make_decoder(DEFAULT_DECODER)
    members, f1 = [scored[0][0]], scored[0][1]
    while len(members) < MAX_MEMBERS:
        others = [each for each, _ in scored if each not in members]
        trials = [(each, decoder_f1(default, _mean([*members, each], rows), Y, None, groups)) for each in others]
        added, added_f1 = max(trials, key=lambda pair: mean_f1(pair[1]), default=(None, f1))
        if added is None or mean_f1(added_f1) < mean_f1(f1) + MIN_GAIN:
            break
        members, f1 = [*members, added], added_f1
    return members, f1


def _mean(trials: Sequence[Trial], rows: NDArray[np.int64]) -> Scores:
    """Mean of the scores of some trials, shape (len(rows), n_concepts)."""
    total = trials[0].scores[rows].astype(np.float32)
    for each in trials[1:]:
        total += each.scores[rows]
    return total / np.float32(len(trials))


def _is_better(f1: ImageF1, other: ImageF1) -> bool:
    """Whether one F1 per image is greater than another on average, beyond chance: the 95% interval is above 0."""
    return compare_scores(f1, other).low > 0


def _now() -> float:
    return time.monotonic()


def _clock(seconds: float) -> str:
    """Minutes and seconds.

    >>> _clock(90.4)
    '1:30'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
