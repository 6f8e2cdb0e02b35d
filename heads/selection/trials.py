"""Trials of a search: candidates that are scored on folds of train, and what an earlier search has found."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from cache.support.cluster import ClusterError
from cache.support.json_file import DamagedFileError
from eval.f1 import mean_f1
from heads.data.store import LabelledStore
from heads.data.types import Scores
from heads.evaluation.cross_validation import decoder_f1
from heads.evaluation.out_of_fold import score_out_of_fold
from heads.registry import DEFAULT_DECODER, make_decoder, make_head
from heads.runs.builder import prepare_head
from heads.runs.checks import check_labels
from heads.runs.files import FORMAT, read_sealed, write_sealed, writing
from heads.runs.request import TRAIN, RunRequest
from heads.runs.saved_scores import load_scores, save_scores
from heads.selection.budget import read_clock
from heads.selection.choice import Candidate, Trial
from heads.selection.cluster import call_on_cluster

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

TRIALS = "trials.json"


class SavedTrial(TypedDict):
    """What is saved of a trial besides its scores."""

    trial: str
    n_images: int
    f1: float
    seconds: float


class SavedTrials(TypedDict):
    """What ``trials.json`` holds."""

    format: int
    trials: dict[str, SavedTrial]
    """By digest."""


class Trials:
    """The trials of a search on one store.

    Parameters
    ----------
    store, data : Path
    folder : Path
        Where trials and their scores are saved.
    train : str
        What the winner will learn from, as in `heads.fit_run`.

    Attributes
    ----------
    whole : LabelledStore
    rounds : list of ndarray of int
        The training images of each round. Those of a group are together, and the last round has all.

    Raises
    ------
    UserError
        The store or the labels are at fault.
    """

    def __init__(self, store: Path, data: Path, folder: Path, train: str) -> None:
        self.store, self.data, self.folder, self.train = store, data, folder, train
        self.whole = LabelledStore.load(store, data)
        request = RunRequest.resolve(next(iter(SETTINGS)), store, data, folder, {"train": train})
        prepare_head(request.make_head(), self.whole.store)
        check_labels(request, request.make_decoder(), self.whole.train, self.whole.valid)
        self.rounds = self._list_rounds()
        self._saved = self._read()

    def list_candidates(self) -> list[Candidate]:
        """Every head and setting on all features; with defaults, each on single parts and the first on all but one."""
        parts = self.whole.store.split(TRAIN).parts
        names, heads = parts.names, list(SETTINGS)
        single = [(name, "") for name in names if len(names) > 1]
        all_but_one = [(",".join(each for each in names if each != name), name) for name in names if len(names) > 2]
        found = []
        for head, all_settings in SETTINGS.items():
            trials = [(settings, "", "") for settings in all_settings]
            trials += [({}, *view) for view in (*single, *(all_but_one if head == heads[0] else ()))]
            for settings, view, left_out in trials:
                n_parts = len(parts.split(view)) if view else len(names)
                width = parts.measure(view) if view else sum(parts.widths)
                found.append(Candidate(head, settings, view, n_parts, width, left_out))
        # The time that a head takes is learnt on few features.
        return sorted(found, key=lambda each: (heads.index(each.head), each.n_features))

    def score(self, candidate: Candidate, rows: NDArray[np.int64]) -> Trial:
        """Score a candidate by folds of some training images, or take what an earlier search has found."""
        found = self._find(candidate, rows)
        if found is None:
            scores, seconds = self.compute(candidate, rows)
            found = self._add(candidate, rows, scores, seconds)
        return found

    def score_on_cluster(self, scheduler: str, candidates: Sequence[Candidate], number: int) -> Iterator[Trial]:
        """Do the same with several candidates on a cluster, for the images of a round.

        Workers save the scores, which are large, in `folder`, so they must see it under the same path as the store.

        Parameters
        ----------
        scheduler : str
            As `cache.support.cluster.connected` takes it.
        candidates : sequence of Candidate
        number : int
            Of the round.

        Yields
        ------
        Trial
            In the order in which they are finished.

        Raises
        ------
        ClusterError
            The cluster fails, or a worker sees another store, other labels or another folder.
        """
        rows, calls = self.rounds[number], []
        for candidate in candidates:
            found = self._find(candidate, rows)
            if found is None:
                calls.append((self.store, self.data, self.folder, self.train, candidate, number))
            else:
                yield found
        for candidate, key, seconds in call_on_cluster(scheduler, score_candidate, calls) if calls else ():
            if key != self.digest(candidate, len(rows)):
                raise ClusterError(f"a worker sees another store, or other labels, at {self.store} and {self.data}; "
                                   "give paths that are the same everywhere")  # fmt: skip
            scores = self._load_scores(candidate, rows)
            if scores is None:
                raise ClusterError(f"what a worker has saved in {self.folder.absolute()} is not there; "
                                   "give a RUN (--out) whose path is the same everywhere")  # fmt: skip
            yield self._add(candidate, rows, scores, seconds)

    def compute(self, candidate: Candidate, rows: NDArray[np.int64]) -> tuple[Scores, float]:
        """Compute and save the out-of-fold scores of some training images; returns them and the seconds it took."""
        split, start = self.whole.train, read_clock()
        head = make_head(candidate.head, dict(candidate.params))
        X = self._find_features(candidate.parts)[rows]
        groups = None if split.groups is None else split.groups[rows]
        scores = score_out_of_fold(head, X, split.Y[rows], groups)
        seconds = read_clock() - start
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            save_scores(scores, self.folder, self._path(candidate, rows).name)
        return scores, seconds

    def forget_scores(self) -> None:
        """Remove the scores, which are large."""
        for path in self.folder.glob("*.npy"):
            path.unlink()

    def _list_rounds(self) -> list[NDArray[np.int64]]:
        n_images, groups = self.whole.train.Y.shape[0], self.whole.train.groups
        labels = np.arange(n_images) if groups is None else groups
        order = np.random.default_rng(0).permutation(np.unique(labels))
        place = np.empty(int(labels.max()) + 1, np.int64)
        place[order] = np.arange(len(order))
        sizes = [n_images // 2**halving for halving in reversed(range(N_ROUNDS))]
        shares = [size / n_images for size in sizes if size >= MIN_IMAGES or size == n_images]
        return [np.flatnonzero(place[labels] < round(share * len(order))) for share in shares]

    def _find(self, candidate: Candidate, rows: NDArray[np.int64]) -> Trial | None:
        """A trial of an earlier search."""
        known = self._saved.get(self.digest(candidate, len(rows)))
        scores = self._load_scores(candidate, rows) if known else None
        return self._add(candidate, rows, scores, known["seconds"]) if known and scores is not None else None

    def _add(self, candidate: Candidate, rows: NDArray[np.int64], scores: Scores, seconds: float) -> Trial:
        """The trial that has given some scores, which is saved if it is new."""
        split, key = self.whole.train, self.digest(candidate, len(rows))
        groups = None if split.groups is None else split.groups[rows]
        f1 = decoder_f1(make_decoder(DEFAULT_DECODER), scores, split.Y[rows], None, groups)
        if key not in self._saved:
            self._saved[key] = {"trial": str(candidate), "n_images": len(rows), "f1": mean_f1(f1), "seconds": seconds}
            with writing(self.folder):
                write_sealed(self.folder / TRIALS, {"format": FORMAT, "trials": self._saved})
        return Trial(candidate, f1, seconds, scores)

    def _load_scores(self, candidate: Candidate, rows: NDArray[np.int64]) -> Scores | None:
        shape = len(rows), self.whole.train.Y.shape[1]
        return load_scores(self.folder, shape, self._path(candidate, rows).name)

    def _path(self, candidate: Candidate, rows: NDArray[np.int64]) -> Path:
        return self.folder / f"{self.digest(candidate, len(rows))[:32]}.npy"

    def _find_features(self, parts: str) -> Any:
        """Features of the training images, of some parts or all, without a copy where the parts are neighbours."""
        X = self.whole.train.X
        return X[:, self.whole.store.split(TRAIN).parts.find_columns(parts)] if parts else X

    def digest(self, candidate: Candidate, n_images: int) -> str:
        """Key of a trial: it decides its scores."""
        options = {"params": candidate.params, "pooling": candidate.parts}
        request = RunRequest.resolve(candidate.head, self.store, self.data, self.folder, options)
        params = make_head(candidate.head, dict(candidate.params)).get_params()
        return f"{request.digest(params, self.whole)['head']}-{n_images}"

    def _read(self) -> dict[str, SavedTrial]:
        """The trials of an earlier search, by their digests."""
        try:
            saved = read_sealed(self.folder / TRIALS, SavedTrials)
        except (DamagedFileError, OSError):
            return {}
        return saved["trials"] if saved["format"] == FORMAT else {}


def score_candidate(
    store: Path, data: Path, folder: Path, train: str, candidate: Candidate, number: int
) -> tuple[Candidate, str, float]:
    """On a worker of a cluster: open the store, and save the scores of a candidate in the folder of the search.

    Returns
    -------
    candidate : Candidate
    key : str
        Digest of what decides the scores, as this worker sees it.
    seconds : float
    """
    trials = Trials(store, data, folder, train)
    rows = trials.rounds[number]
    _, seconds = trials.compute(candidate, rows)
    return candidate, trials.digest(candidate, len(rows)), seconds
