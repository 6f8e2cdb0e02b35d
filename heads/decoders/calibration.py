"""Calibrations turn scores into probabilities, which `expected-f1` needs. They are fitted on held-out scores.

For each concept, p = expit(a z + b), where z is the logit of the clipped score. Slope a and offset b minimise

    L(a, b) = sum over images of -log(probability of the true label) + s/2 ((a - a0)^2 + (b - b0)^2),

the log loss and a pull of strength s towards the slope a0 and offset b0 that fit all concepts together. With y the
label of each image, Newton's method needs

    dL/da = sum (p - y) z + s (a - a0)        d2L/da2  = sum p (1 - p) z^2 + s
    dL/db = sum (p - y)   + s (b - b0)        d2L/db2  = sum p (1 - p)     + s
                                              d2L/dadb = sum p (1 - p) z

and solves the 2 x 2 system of each concept by Cramer's rule, for many concepts at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Self, TypedDict

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from cache.support.json_file import DamagedFileError, check_type
from heads.data.blocks import split_rows
from heads.data.types import Scores

EPSILON = 1e-4
"""Scores are clipped to [EPSILON, 1 - EPSILON] before the logit: exact 0 and 1 would dominate the fit."""

BLOCK_ROWS, BLOCK_CONCEPTS = 512, 128
"""Images and concepts that are worked on at a time, so that a block fits into the processor's cache. Sums run over
blocks, so another size changes their last bits."""

SAMPLE_ROWS = 8192
"""If there are more than twice as many images, the fit of all concepts together starts from that on some of them."""

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
        fit_block = partial(_fit_each, _fit_together(scores, Y), scores, scipy.sparse.csc_matrix(Y))
        parts = list(_map_blocks(fit_block, scores.shape[1], BLOCK_CONCEPTS))
        self.slope_, self.offset_ = np.concatenate(parts, axis=1)
        return self

    def transform(self, scores: Scores) -> Scores:
        """Turn scores into probabilities."""
        probabilities = np.empty_like(scores)
        for rows in split_rows(len(scores), BLOCK_ROWS):
            block = scores[rows]
            _set_probabilities(clipped_logit(block), self.slope_, self.offset_, probabilities[rows])
            np.copyto(probabilities[rows], block, where=(block == 0) | (block == 1))
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
        self.slope_, self.offset_ = _fit_together(scores, Y)
        return self


def clipped_logit(scores: Scores) -> Scores:
    """log(p / (1 - p)) of scores that are clipped to [EPSILON, 1 - EPSILON].

    Examples
    --------
    >>> clipped_logit(np.array([0.0, 0.5, 1.0], np.float32)).round(2).tolist()
    [-9.210000038146973, 0.0, 9.210000038146973]
    """
    clipped = np.clip(scores, np.float32(EPSILON), np.float32(1 - EPSILON))
    clipped /= 1 - clipped
    logits: Scores = np.log(clipped, out=clipped)
    return logits


def _fit_together(scores: Scores, Y: scipy.sparse.csr_matrix) -> NDArray[np.float64]:
    """Slope and offset that all concepts share, shape (2,)."""
    found = start = np.array([1.0, 0.0])
    if len(scores) > 2 * SAMPLE_ROWS:
        sample = slice(None, None, len(scores) // SAMPLE_ROWS)
        found = _fit_together(scores[sample], Y[sample])
    for _ in range(MAX_ITER):
        sums = sum(_map_blocks(partial(_sum_rows, found, scores, Y), len(scores), BLOCK_ROWS), np.zeros(5))
        step = _newton_step(sums, found - start, 0.0)
        # Where all probabilities are near 0 or 1, the curvature vanishes and a full step may overshoot.
        found = found - np.clip(step, -1, 1)
        if np.abs(step).max() < TOLERANCE:
            break
    return found


def _sum_rows(
    found: NDArray[np.float64], scores: Scores, Y: scipy.sparse.csr_matrix, rows: slice
) -> NDArray[np.float64]:
    """Derivatives of the log loss of all concepts of some images together, shape (5,)."""
    z, positives = clipped_logit(scores[rows]), Y[rows].nonzero()
    sums: NDArray[np.float64] = _sum_derivatives(z, *found).sum(axis=1)
    sums[:2] -= z[positives].sum(dtype=np.float64), len(positives[0])
    return sums


def _fit_each(
    shared: NDArray[np.float64], scores: Scores, Y: scipy.sparse.csc_matrix, block: slice
) -> NDArray[np.float64]:
    """Slope and offset of each of some concepts, drawn towards the shared ones, shape (2, n_concepts)."""
    z = clipped_logit(np.ascontiguousarray(scores[:, block].T))
    concepts, images = Y[:, block].T.nonzero()
    positives = np.array([np.bincount(concepts, values, len(z)) for values in (z[concepts, images], None)])
    found, moving = np.repeat(shared[:, None], len(z), axis=1), np.arange(len(z))
    for _ in range(MAX_ITER):
        now = found[:, moving]
        sums = _sum_derivatives(z, *now[:, :, None])
        sums[:2] -= positives[:, moving]
        step = _newton_step(sums, now - shared[:, None], SHRINKAGE)
        found[:, moving] = now - np.clip(step, -1, 1)
        moves = np.abs(step).max(axis=0) >= TOLERANCE
        if not moves.any():
            break
        if not moves.all():
            moving, z = moving[moves], z[moves]
    return found


def _map_blocks(
    function: Callable[[slice], NDArray[np.float64]], n_all: int, size: int
) -> Iterator[NDArray[np.float64]]:
    """What a function gives for each block, in their order; each thread works on blocks of its own."""
    from joblib import cpu_count

    with ThreadPoolExecutor(cpu_count()) as pool:  # NumPy releases Python's lock while it computes
        yield from pool.map(function, split_rows(n_all, size))


def _sum_derivatives(z: Scores, slope: Any, offset: Any) -> NDArray[np.float64]:
    """Sums over the columns of the terms of the log loss' derivatives that have no label, shape (5, n_rows)."""
    sums = np.zeros((5, len(z)))
    buffers = np.empty((2, len(z), min(BLOCK_ROWS, z.shape[1])), np.float32)
    for columns in split_rows(z.shape[1], BLOCK_ROWS):
        part = z[:, columns]
        p, curvature = buffers[:, :, : part.shape[1]]
        _set_probabilities(part, slope, offset, p)
        np.subtract(p, np.square(p, out=curvature), out=curvature)  # p (1 - p)
        terms = [p.sum(axis=1), curvature.sum(axis=1)]
        p *= part
        curvature *= part
        sums += [p.sum(axis=1), terms[0], np.vecdot(curvature, part), curvature.sum(axis=1), terms[1]]
    return sums


def _newton_step(sums: NDArray[np.float64], away: NDArray[np.float64], shrinkage: float) -> NDArray[np.float64]:
    """Newton's step for the loss at the top of this module, from its derivatives without the pull, which is added."""
    slope, offset, aa, ab, bb = sums
    slope, offset = slope + shrinkage * away[0], offset + shrinkage * away[1]
    aa, bb = aa + shrinkage + RIDGE, bb + shrinkage + RIDGE
    determinant = aa * bb - ab * ab
    return np.array([(bb * slope - ab * offset) / determinant, (aa * offset - ab * slope) / determinant])


def _set_probabilities(z: Scores, slope: Any, offset: Any, out: Scores) -> None:
    """Set ``1 / (1 + exp(-(slope z + offset)))``, in half the time of SciPy's `expit` in float32."""
    np.multiply(z, -np.asarray(slope, np.float32), out=out)
    out -= np.asarray(offset, np.float32)
    with np.errstate(over="ignore"):  # infinity gives 0
        np.exp(out, out=out)
    out += 1
    np.reciprocal(out, out=out)
