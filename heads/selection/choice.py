"""The choice among trials that were scored on folds: one, or several whose scores are averaged, and a decoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from eval.f1 import ImageF1, mean_f1
from heads.data.types import Groups, Scores
from heads.evaluation.cross_validation import decoder_f1
from heads.registry import DEFAULT_DECODER, make_decoder

DECODERS = (DEFAULT_DECODER, "expected-f1", "temperature+expected-f1", "platt+per-concept", "platt+global")
"""The decoders that are tried: the first one, unless another is better by more than a standard error."""

MAX_MEMBERS = 5
MIN_GAIN = 0.0005
"""A run joins the ensemble if it adds at least so much F1."""


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
    left_out : str
        The part that is missing, if it is the only one: it takes fewer words to say.
    """

    head: str
    params: Mapping[str, Any]
    parts: str
    n_parts: int
    n_features: int
    left_out: str = ""

    def __str__(self) -> str:
        settings = "".join(f" {key}={value:g}" for key, value in self.params.items())
        used = f"all but {self.left_out}" if self.left_out else self.parts
        return f"{self.head}{settings}" + (f" on {used}" if used else "")

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
        The simplest of those that are within one standard error of the best (Breiman et al., 1984).
    """
    default = make_decoder(DEFAULT_DECODER)
    scored = [(each, decoder_f1(default, each.scores[rows], Y, None, groups)) for each in trials]
    scored.sort(key=lambda pair: -mean_f1(pair[1]))
    best_f1 = scored[0][1]
    equal = [pair for pair in scored if not _is_better(best_f1, pair[1])]
    simple, simple_f1 = min(equal, key=lambda pair: pair[0].candidate.simplicity)
    members, f1 = _add_members(scored, rows, Y, groups)
    if len(members) > 1 and _is_better(f1, simple_f1):
        reason = f"{mean_f1(f1) - mean_f1(simple_f1):+.4f} to {simple.candidate} alone, more than its standard error"
    else:
        reason = "the simplest within one standard error of the best"
        members, f1 = [simple], simple_f1
    decoder, scores = DEFAULT_DECODER, mean_scores(members, rows)
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
        trials = [(each, decoder_f1(default, mean_scores([*members, each], rows), Y, None, groups)) for each in others]
        added, added_f1 = max(trials, key=lambda pair: mean_f1(pair[1]), default=(None, f1))
        if added is None or mean_f1(added_f1) < mean_f1(f1) + MIN_GAIN:
            break
        members, f1 = [*members, added], added_f1
    return members, f1


def mean_scores(trials: Sequence[Trial], rows: NDArray[np.int64]) -> Scores:
    """Mean of the scores of some trials, shape (len(rows), n_concepts)."""
    total = trials[0].scores[rows].astype(np.float32)
    for each in trials[1:]:
        total += each.scores[rows]
    return total / np.float32(len(trials))


def _is_better(f1: ImageF1, other: ImageF1) -> bool:
    """Whether one F1 per image is greater than another on average, by more than the difference's standard error."""
    difference = f1 - other
    return bool(difference.mean() > difference.std(ddof=1) / np.sqrt(len(difference)))
