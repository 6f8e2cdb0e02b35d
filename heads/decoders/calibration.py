"""Calibrations turn scores into probabilities, which `expected-f1` needs. They are fitted on held-out scores.

For each concept, p = expit(a z + b), where z is the logit of the clipped score. Slope a and offset b minimise

    L(a, b) = sum over images of -log(probability of the true label) + s/2 ((a - a0)^2 + (b - b0)^2),

the log loss and a pull of strength s towards the slope a0 and offset b0 that fit all concepts together. With y the
label of each image, Newton's method needs

    dL/da = sum (p - y) z + s (a - a0)        d2L/da2  = sum p (1 - p) z^2 + s
    dL/db = sum (p - y)   + s (b - b0)        d2L/db2  = sum p (1 - p)     + s
                                              d2L/dadb = sum p (1 - p) z

and solves the 2 x 2 system of each concept by Cramer's rule, for all concepts at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self, TypedDict

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator

from cache.support.json_file import DamagedFileError, check_type
from heads.data.blocks import split_rows
from heads.data.types import Scores

EPSILON = 1e-4
"""Scores are clipped to [EPSILON, 1 - EPSILON] before the logit: exact 0 and 1 would dominate the fit."""

BLOCK_ROWS = 4096
"""Images that are worked on at a time. Sums run over blocks, so another size changes their last bits."""

MAX_ITER, TOLERANCE = 30, 1e-4
"""Newton's method stops after so many steps, or at a step this small. The error that is left is about its square."""

RIDGE = 1e-9
"""Added to the second derivatives: where all logits are equal, slope and offset would not be determined."""

SHRINKAGE = 10.0
"""Strength of the pull towards the shared slope and offset, in pseudo-images; about ten positives outweigh it."""


class Calibration(BaseEstimator, ABC):
    """Base of all calibrations."""

    @abstractmethod
    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix) -> Self:
        """Fit to scores and labels.

        Parameters
        ----------
        scores : ndarray of float32, shape (n_images, n_concepts)
            Scores in [0, 1] of images that the head did not learn from.
        Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
        """

    @abstractmethod
    def transform(self, scores: Scores) -> Scores:
        """Turn scores into probabilities.

        Parameters
        ----------
        scores : ndarray of float32, shape (n_images, n_concepts)

        Returns
        -------
        ndarray of float32, shape (n_images, n_concepts)
        """

    @abstractmethod
    def get_state(self) -> dict[str, Any]:
        """Return what was fitted, as JSON can hold it."""

    @abstractmethod
    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Restore what `get_state` returned.

        Raises
        ------
        DamagedFileError
            Something is missing, has the wrong type or is out of its range.
        """

    def check_concepts(self, n_concepts: int) -> None:
        """Check that what was restored is for so many concepts, as `Decoder.check_concepts` does."""


class PlattState(TypedDict):
    """What is saved of a calibration."""

    slope: float | list[float]
    offset: float | list[float]


class Platt(Calibration):
    """Logistic calibration with a slope and an offset per concept (Platt, 1999).

    A concept with few positive images cannot determine both. So all concepts are fitted together first, and each
    concept's slope and offset are drawn towards the shared ones.

    A score of exactly 0 or 1 stays as it is: the head is sure of it, for example because no training image has the
    concept.

    Attributes
    ----------
    slope_, offset_ : ndarray of float64, shape (n_concepts,)

    Examples
    --------
    The head gives 0.9 where 2 of 3 images have the concept, and 0.1 where 1 of 3 has it.

    >>> scores = np.array([[0.9], [0.9], [0.9], [0.1], [0.1], [0.1]], np.float32)
    >>> Y = scipy.sparse.csr_matrix([[1], [1], [0], [0], [0], [1]])
    >>> Platt().fit(scores, Y).transform(scores[::3]).round(2).tolist()
    [[0.6700000166893005], [0.33000001311302185]]
    """

    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix) -> Self:
        """Fit all concepts together, then each one."""
        shared = _newton(scores, Y, np.array([1.0, 0.0]), 0.0, together=True)
        self.slope_, self.offset_ = _newton(scores, Y, shared, SHRINKAGE, together=False)
        return self

    def transform(self, scores: Scores) -> Scores:
        """Turn scores into probabilities."""
        probabilities = np.empty_like(scores)
        for rows in split_rows(len(scores), BLOCK_ROWS):
            block = scores[rows]
            sure = (block == 0) | (block == 1)
            probabilities[rows] = np.where(sure, block, expit(clipped_logit(block) * self.slope_ + self.offset_))
        return probabilities

    def get_state(self) -> dict[str, Any]:
        """Return slope and offset."""
        return {"slope": np.asarray(self.slope_).tolist(), "offset": np.asarray(self.offset_).tolist()}

    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Restore what `get_state` returned."""
        saved = check_type(state, PlattState)
        slope, offset = np.array(saved["slope"], np.float64), np.array(saved["offset"], np.float64)
        if slope.shape != offset.shape or not np.isfinite([slope, offset]).all():
            raise DamagedFileError(f"slopes of shape {slope.shape} and offsets of shape {offset.shape}")
        self.slope_, self.offset_ = slope, offset
        return self

    def check_concepts(self, n_concepts: int) -> None:
        """Check that there is one slope, or one per concept."""
        if np.shape(self.slope_) not in ((), (n_concepts,)):
            raise DamagedFileError(f"{len(self.slope_):,} slopes of {n_concepts:,} concepts")


class Temperature(Platt):
    """Logistic calibration with one slope and one offset for all concepts.

    It corrects what all concepts share, such as scores that are too extreme, and nothing else.

    Attributes
    ----------
    slope_, offset_ : float
    """

    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix) -> Self:
        """Fit all concepts together."""
        self.slope_, self.offset_ = _newton(scores, Y, np.array([1.0, 0.0]), 0.0, together=True)
        return self


def clipped_logit(scores: Scores) -> Scores:
    """log(p / (1 - p)) of scores that are clipped to [EPSILON, 1 - EPSILON].

    Examples
    --------
    >>> clipped_logit(np.array([0.0, 0.5, 1.0], np.float32)).round(2).tolist()
    [-9.210000038146973, 0.0, 9.210000038146973]
    """
    clipped = np.clip(scores, np.float32(EPSILON), np.float32(1 - EPSILON))
    logits: Scores = np.log(clipped / (1 - clipped))
    return logits


def _newton(
    scores: Scores, Y: scipy.sparse.csr_matrix, start: NDArray[np.float64], shrinkage: float, together: bool
) -> NDArray[np.float64]:
    """Minimise the loss at the top of this module by Newton's method.

    Parameters
    ----------
    scores, Y
        As `Calibration.fit` takes them.
    start : ndarray of float64, shape (2,)
        Slope and offset to begin with, and towards which `shrinkage` pulls.
    shrinkage : float
    together : bool
        Whether all concepts share one slope and one offset.

    Returns
    -------
    ndarray of float64, shape (2,) if the concepts are fitted together, else (2, n_concepts)
    """
    found = start if together else np.repeat(start[:, None], scores.shape[1], axis=1)
    columns, labels = np.arange(scores.shape[1]), Y  # of the concepts that have not converged
    for _ in range(MAX_ITER):
        now = found if together else found[:, columns]
        sums = _sum_derivatives(scores, labels, now, columns)
        slope, offset, aa, ab, bb = sums.sum(axis=1) if together else sums
        away = now - (start if together else start[:, None])
        slope, offset = slope + shrinkage * away[0], offset + shrinkage * away[1]
        aa, bb = aa + shrinkage + RIDGE, bb + shrinkage + RIDGE
        determinant = aa * bb - ab * ab
        step = np.array([(bb * slope - ab * offset) / determinant, (aa * offset - ab * slope) / determinant])
        # Where all probabilities are near 0 or 1, the curvature vanishes and a full step may overshoot.
        now = now - np.clip(step, -1, 1)
        moves = np.abs(step).max(axis=0) >= TOLERANCE
        if together:
            found = now
        else:
            found[:, columns] = now
            columns = columns[moves]
            labels = Y[:, columns]
        if not moves.any():
            break
    return found


def _sum_derivatives(
    scores: Scores, Y: scipy.sparse.csr_matrix, found: NDArray[np.float64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Derivatives of the log loss of some concepts: by a, b, aa, ab and bb, shape (5, n_columns)."""
    sums = np.zeros((5, len(columns)))
    for rows in split_rows(len(scores), BLOCK_ROWS):
        z = clipped_logit(scores[rows] if len(columns) == scores.shape[1] else scores[rows][:, columns])
        p = expit(z * found[0].astype(np.float32) + found[1].astype(np.float32))
        curvature = p * (1 - p)
        p[Y[rows].nonzero()] -= 1
        terms = (p * z, p, curvature * z * z, curvature * z, curvature)
        sums += [term.sum(axis=0, dtype=np.float64) for term in terms]
    return sums
