"""Decoders that predict each concept whose score reaches a threshold: a given one, a tuned one, or one per concept."""

from collections.abc import Mapping
from numbers import Real
from typing import Any, Self, TypedDict

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.support.errors import ParameterError
from cache.support.json_file import DamagedFileError, check_type
from heads.data.folds import count_folds, split_folds
from heads.data.types import Counts, Groups, Scores
from heads.decoders.base import Decoder
from heads.decoders.ranking import rank
from heads.decoders.threshold_search import Candidates, climb, shrink, sweep

STRENGTHS = (0.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, np.inf)
"""Strengths that are tried: for how many images the global threshold counts against a concept's own."""

MIN_SHARE = 0.2
"""Lowest threshold of a concept, as a share of the global one. Lower scores are left out of the search."""


class ThresholdState(TypedDict):
    """What is saved of a decoder with thresholds."""

    threshold: float | list[float]


class GainReport(TypedDict):
    """What `ConceptThresholds` reports."""

    held_out_f1: float | None
    gain: float
    strength: float | None


class Threshold(Decoder):
    """Base of decoders that predict each concept whose score is at least its threshold.

    Attributes
    ----------
    threshold_ : float or ndarray of float64, shape (n_concepts,)
    """

    threshold_: Any

    def _select(self, scores: Scores) -> NDArray[np.bool_]:
        reached: NDArray[np.bool_] = scores >= self.threshold_
        return reached

    def get_state(self) -> dict[str, Any]:
        """Return the threshold or thresholds."""
        return {"threshold": np.asarray(self.threshold_).tolist()}

    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Restore what `get_state` returned."""
        threshold = np.array(check_type(state, ThresholdState)["threshold"], dtype=np.float64)
        if np.isnan(threshold).any():
            raise DamagedFileError("a threshold is not a number")
        self.threshold_ = threshold if threshold.ndim else float(threshold)
        return self

    def check_concepts(self, n_concepts: int) -> None:
        """Check that there is one threshold, or one per concept."""
        if np.shape(self.threshold_) not in ((), (n_concepts,)):
            raise DamagedFileError(f"{len(self.threshold_):,} thresholds of {n_concepts:,} concepts")


class FixedThreshold(Threshold):
    """Predicts each concept whose score is at least a given threshold. The paper uses 0.3 and 0.5.

    Parameters
    ----------
    threshold : float
        From 0 to 1.
    may_be_empty : bool
        Whether an image may be left without a concept.

    Examples
    --------
    >>> scores = np.array([[0.9, 0.4, 0.1], [0.2, 0.1, 0.1]], np.float32)
    >>> decoder = FixedThreshold(0.3).fit(scores, scipy.sparse.csr_matrix((2, 3)))
    >>> decoder.predict(scores).toarray().tolist()
    [[1, 1, 0], [1, 0, 0]]
    """

    def __init__(self, threshold: float = 0.3, may_be_empty: bool = False) -> None:
        super().__init__(may_be_empty)
        self.threshold = threshold

    @classmethod
    def parse(cls, value: str) -> dict[str, Any]:
        """Read a threshold.

        >>> FixedThreshold.parse("0.3")
        {'threshold': 0.3}
        """
        try:
            threshold = float(value)
        except ValueError:
            threshold = -1.0
        if not 0 <= threshold <= 1:
            raise ParameterError("expected a threshold from 0 to 1, such as fixed:0.3")
        return {"threshold": threshold}

    def check_params(self) -> None:
        """Raise a ParameterError if the threshold is not a number from 0 to 1."""
        super().check_params()
        is_number = isinstance(self.threshold, Real) and not isinstance(self.threshold, bool)
        if not is_number or not 0 <= self.threshold <= 1:
            raise ParameterError(f"threshold = {self.threshold!r}, expected a number from 0 to 1")

    def _fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts, groups: Groups) -> None:
        self.threshold_ = float(self.threshold)


class GlobalThreshold(Threshold):
    """Predicts each concept whose score reaches the one threshold with the greatest mean F1 per image.

    Every value that separates two scores is tried.

    Parameters
    ----------
    may_be_empty : bool
        Whether an image may be left without a concept.

    Examples
    --------
    >>> scores = np.array([[0.9, 0.4, 0.1], [0.2, 0.7, 0.6]], np.float32)
    >>> Y = scipy.sparse.csr_matrix([[1, 1, 0], [0, 1, 1]])
    >>> decoder = GlobalThreshold().fit(scores, Y)
    >>> decoder.predict(scores).toarray().tolist()
    [[1, 1, 0], [0, 1, 1]]
    """

    tuned = True

    def _fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts, groups: Groups) -> None:
        self.threshold_ = sweep(*rank(scores, Y, n_true), self.may_be_empty)


class ConceptThresholds(Threshold):
    """One threshold per concept, found by coordinate ascent on the mean F1 per image.

    From the global threshold t on, each concept's threshold in turn is set to its best value t(c), while the others
    stay. A threshold that rests on few images would fit their noise, so the threshold that is used is

        t + n(c) / (n(c) + s) * (t(c) - t)

    for a concept with n(c) positive images. The strength s is chosen by cross-validation over the images: the one
    with the greatest F1 on held-out folds, and the greater of two equal ones. At infinite strength all thresholds are
    t. The ascent is that of the winner of 2025 (AUEB NLP Group, ImageCLEFmedical Caption).

    Parameters
    ----------
    may_be_empty : bool
        Whether an image may be left without a concept.

    Attributes
    ----------
    threshold_ : ndarray of float64, shape (n_concepts,)
    strength_ : float
        The chosen strength, in images.
    held_out_f1_ : float or None
        Mean F1 on held-out folds at that strength; None if there are too few images or groups for folds.
    gain_ : float
        How much greater that is than with one threshold for all, on the same folds.
    """

    tuned = True

    def _fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts, groups: Groups) -> None:
        ranked, hits, true = rank(scores, Y, n_true)
        start = sweep(ranked, hits, true, self.may_be_empty)
        self.threshold_, self.strength_, self.held_out_f1_, self.gain_ = np.full(Y.shape[1], start), np.inf, None, 0.0
        if count_folds(len(scores), groups) < 2:
            return
        candidates = Candidates.from_arrays(scores, Y, n_true, MIN_SHARE * start, self.may_be_empty)
        f1 = np.zeros(len(STRENGTHS))
        for rest, held_out in split_folds(len(scores), groups):
            # Held-out images must not decide anything, so the global threshold is found again without them.
            common = sweep(ranked[rest], hits[rest], true[rest], self.may_be_empty)
            own, n_positives = climb(candidates.select(rest), common), _count_positives(Y[rest])
            shrunk = [shrink(own, common, n_positives, strength) for strength in STRENGTHS]
            f1 += [candidates.select(held_out).f1(thresholds).sum() for thresholds in shrunk]
        f1 /= len(scores)
        best = len(STRENGTHS) - 1 - int(f1[::-1].argmax())  # the greatest strength among equals
        self.strength_, self.held_out_f1_ = STRENGTHS[best], float(f1[best])
        self.gain_ = float(f1[best] - f1[-1])
        if np.isfinite(self.strength_):
            self.threshold_ = shrink(climb(candidates, start), start, _count_positives(Y), self.strength_)

    def report(self) -> dict[str, Any]:
        """Return F1 on held-out folds, its gain over one threshold, and the strength (None if it is infinite)."""
        strength = self.strength_ if np.isfinite(self.strength_) else None
        return {"held_out_f1": self.held_out_f1_, "gain": self.gain_, "strength": strength}

    def get_state(self) -> dict[str, Any]:
        """Return the thresholds and the report."""
        return super().get_state() | {"report": self.report()}

    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Restore what `get_state` returned."""
        super().set_state(state)
        report = check_type(state.get("report"), GainReport)
        self.held_out_f1_, self.gain_ = report["held_out_f1"], report["gain"]
        self.strength_ = np.inf if report["strength"] is None else report["strength"]
        return self


def _count_positives(Y: scipy.sparse.csr_matrix) -> NDArray[np.int64]:
    """How many images have each concept."""
    return np.asarray(Y.sum(axis=0)).ravel()
