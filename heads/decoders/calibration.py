"""Calibrations: scores become probabilities, which the set of greatest expected F1 needs. Fitted on held-out scores."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator

from heads.data.types import Scores

LEAST = 1e-4
"""Nearest to 0 and 1 that a score is taken for: votes, and scores that were cut to [0, 1], say no more, and their
logits would outweigh all others."""

ROWS = 4096
"""Images whose scores are worked on at a time."""

STEPS, SETTLED = 30, 1e-4
"""Newton's steps at most, and the change at which they end: what is left is about its square."""

SHRINKAGE = 10.0
"""How strongly a concept's slope and offset are drawn to those of all: it takes a few shown images to outweigh it."""


class Calibration(BaseEstimator, ABC):
    """Base of all calibrations: ``fit`` to scores that the head gave images it did not learn from."""

    @abstractmethod
    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix) -> Self:
        """Fit to scores, shape (n_images, n_concepts), and the indicator matrix of the same shape."""

    @abstractmethod
    def transform(self, scores: Scores) -> Scores:
        """Probabilities, shape (n_images, n_concepts)."""

    @abstractmethod
    def get_state(self) -> dict[str, Any]:
        """What was fitted, as JSON holds it."""

    @abstractmethod
    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Take back what `get_state` gave; what is missing or odd is a KeyError, TypeError or ValueError."""


class Platt(Calibration):
    """A slope and an offset of each concept's logits, drawn towards those of all concepts (Platt, 1999).

    Attributes
    ----------
    slope_, offset_ : ndarray of float64, shape (n_concepts,)
    """

    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix) -> Self:
        """Fit all concepts together, then each."""
        shared = _newton(scores, Y, np.array([1.0, 0.0]), 0.0, together=True)
        self.slope_, self.offset_ = _newton(scores, Y, shared, SHRINKAGE, together=False)
        return self

    def transform(self, scores: Scores) -> Scores:
        """Probabilities."""
        probabilities = np.empty_like(scores)
        for part in _parts(len(scores)):
            probabilities[part] = expit(_logit(scores[part]) * self.slope_ + self.offset_)
        # What the head is sure of, such as a concept that train never showed, stays so.
        return np.where((scores == 0) | (scores == 1), scores, probabilities)

    def get_state(self) -> dict[str, Any]:
        """What was fitted."""
        return {"slope": np.asarray(self.slope_).tolist(), "offset": np.asarray(self.offset_).tolist()}

    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Take it back."""
        self.slope_, self.offset_ = (np.array(state[key], dtype=np.float64) for key in ("slope", "offset"))
        return self


class Temperature(Platt):
    """One slope and one offset of all logits: concepts are as over- or underrated as each other.

    Attributes
    ----------
    slope_, offset_ : float
    """

    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix) -> Self:
        """Fit all concepts together."""
        self.slope_, self.offset_ = _newton(scores, Y, np.array([1.0, 0.0]), 0.0, together=True)
        return self


def _newton(
    scores: Scores, Y: scipy.sparse.csr_matrix, start: NDArray[np.float64], shrinkage: float, together: bool
) -> NDArray[np.float64]:
    """Slope and offset that minimise the log loss, plus half of `shrinkage` times the squared distance to `start`.

    Returns
    -------
    ndarray of float64, shape (2,) if the concepts are fitted together, else (2, n_concepts)
    """
    found = start if together else np.repeat(start[:, None], scores.shape[1], axis=1)
    left, shown = np.arange(scores.shape[1]), Y  # concepts that have not settled
    for _ in range(STEPS):
        now = found if together else found[:, left]
        sums = _derivatives(scores, shown, now, left)
        slope, offset, aa, ab, bb = sums.sum(axis=1) if together else sums
        away = now - (start if together else start[:, None])
        slope, offset = slope + shrinkage * away[0], offset + shrinkage * away[1]
        aa, bb = aa + shrinkage + 1e-9, bb + shrinkage + 1e-9
        determinant = aa * bb - ab * ab
        step = np.array([(bb * slope - ab * offset) / determinant, (aa * offset - ab * slope) / determinant])
        # A long step of Newton's may overshoot where scores are nearly sure.
        now = now - np.clip(step, -1, 1)
        moves = np.abs(step).max(axis=0) >= SETTLED
        if together:
            found = now
        else:
            found[:, left] = now
            left = left[moves]
            shown = Y[:, left]
        if not moves.any():
            break
    return found


def _derivatives(
    scores: Scores, Y: scipy.sparse.csr_matrix, found: NDArray[np.float64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """First and second derivatives of the log loss of some concepts in slope and offset, shape (5, n_columns)."""
    sums = np.zeros((5, len(columns)))
    for part in _parts(len(scores)):
        z = _logit(scores[part] if len(columns) == scores.shape[1] else scores[part][:, columns])
        p = expit(z * found[0].astype(np.float32) + found[1].astype(np.float32))
        bend = p * (1 - p)
        p[Y[part].nonzero()] -= 1
        terms = (p * z, p, bend * z * z, bend * z, bend)
        sums += [term.sum(axis=0, dtype=np.float64) for term in terms]
    return sums


def _parts(n_images: int) -> Iterator[slice]:
    return (slice(start, start + ROWS) for start in range(0, n_images, ROWS))


def _logit(scores: Scores) -> Scores:
    clipped = np.clip(scores, np.float32(LEAST), np.float32(1 - LEAST))
    logits: Scores = np.log(clipped / (1 - clipped))
    return logits
