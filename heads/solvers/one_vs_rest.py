"""All one-vs-rest logistic regressions at once: the exact optimum of each, found together.

Concepts share the embeddings, so a step of all of them is two matrix products. Three things keep the steps few:

- embeddings are turned into the axes of their own covariance, where the penalty stays as it is and curvature is
  nearly diagonal, scaled by how rare the concept is;
- of each concept the rows where curvature is concentrated (a rare concept's own images) enter the preconditioner as
  they are, through the Woodbury identity;
- a sample of the rows, which holds every image of a rare concept, leads near the optimum before all rows are used.

The method is L-BFGS (Liu and Nocedal, On the limited memory BFGS method, 1989) for a block of concepts in step; a
concept that has converged leaves the block. Where there is a GPU, large data are evaluated on it (`heads.solvers.gpu`).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
from joblib import cpu_count
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from heads.solvers.gpu import GpuRows, find_gpu
from heads.solvers.lbfgs import Minimum, minimise
from heads.solvers.objective import TILE, Floats, Problem

BLOCK = 256
"""Concepts that are solved in step."""

LEAST_ROWS = 32_000
"""From how many rows on a sample of them leads the way."""

ROUGHLY, CLOSELY, EXACTLY = 1e-3, 2e-7, 1e-10
"""Expected decrease, as a part of the objective, at which a sample, float32 and float64 are done with."""

SMALL = 2**22
"""Numbers in the embeddings up to which all is done in float64: it costs nothing there."""


@dataclass(frozen=True)
class Rotated:
    """Standardised embeddings in the axes of their covariance.

    Parameters
    ----------
    mean, scale : ndarray of float64, shape (n_features,)
        The standardisation; a constant feature has scale 1, as in scikit-learn's `StandardScaler`.
    axes : ndarray of float64, shape (n_features, n_features)
        The covariance's eigenvectors, in columns.
    spread : ndarray of float64, shape (n_features + 1,)
        Sum of squares along each axis, and of the ones for the intercept.
    Z : ndarray of float32 or float64, shape (n_images, n_features + 1)
        The rotated embeddings, and a column of ones for the intercept.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    axes: NDArray[np.float64]
    spread: NDArray[np.float64]
    Z: Floats

    @classmethod
    def of(cls, X: NDArray[np.float32]) -> "Rotated":
        """Standardise and rotate, a block of rows at a time."""
        n_images, n_features = X.shape
        dtype = np.float64 if X.size <= SMALL else np.float32
        starts = range(0, n_images, 8 * TILE)
        mean = sum((X[at : at + 8 * TILE].sum(axis=0, dtype=np.float64) for at in starts), np.zeros(n_features))
        mean /= n_images
        squares = sum(((X[at : at + 8 * TILE] - mean) ** 2).sum(axis=0) for at in starts)
        scale = np.sqrt(squares / n_images)
        # A feature whose spread is rounding error alone is constant.
        scale[scale <= 10 * np.finfo(np.float64).eps * np.maximum(np.abs(mean), np.finfo(np.float32).tiny)] = 1.0
        Z = np.ones((n_images, n_features + 1), dtype)
        covariance = np.zeros((n_features, n_features))
        for at in starts:
            Z[at : at + 8 * TILE, :-1] = standardise(X[at : at + 8 * TILE], mean, scale)
            covariance += Z[at : at + 8 * TILE, :-1].T @ Z[at : at + 8 * TILE, :-1]
        spread, axes = np.linalg.eigh(covariance)
        for at in starts:
            Z[at : at + 8 * TILE, :-1] = Z[at : at + 8 * TILE, :-1] @ axes.astype(dtype)
        return cls(mean, scale, axes, np.append(np.maximum(spread, 0), n_images), Z)


def standardise(X: Floats, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Subtract and divide in float64: a feature may vary little about a large mean."""
    standardised: NDArray[np.float64] = (X - mean) / scale
    return standardised


@dataclass(frozen=True)
class Solution:
    """Coefficients on standardised embeddings, and how good they are.

    Parameters
    ----------
    coef : ndarray of float64, shape (n_concepts, n_features)
    intercept : ndarray of float64, shape (n_concepts,)
    objective : ndarray of float64, shape (n_concepts,)
        ``C`` times the sum of the losses, plus half the squared length of the coefficients.
    converged : ndarray of bool, shape (n_concepts,)
    passes : float
        Products with all rows and all concepts that it took, forth and back counting as one.
    """

    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    objective: NDArray[np.float64]
    converged: NDArray[np.bool_]
    passes: float


def solve(
    rotated: Rotated,
    Y: scipy.sparse.csr_matrix,
    C: NDArray[np.float64],
    class_weight: str | None = None,
    start: Solution | None = None,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] = lambda n_done, n_all: None,
) -> Solution:
    """Minimise ``C · Σ loss + ½ |coef|²`` for every concept; the intercept is not penalised.

    Parameters
    ----------
    rotated : Rotated
    Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
        Every concept has images with and without it.
    C : ndarray of float64, shape (n_concepts,)
        As in scikit-learn's `LogisticRegression`.
    class_weight : str, optional
        ``balanced`` weighs both sides of each concept alike, as in scikit-learn.
    start : Solution, optional
        Where to begin, such as the solution for another C.
    n_threads : int, optional
        One a core if not given; results do not depend on it.
    progress : callable
        Told how many concepts are done, and of how many.

    Returns
    -------
    Solution
    """
    n_images, width = rotated.Z.shape
    counts = np.asarray(Y.sum(axis=0), dtype=np.float64).ravel()
    W = np.zeros((Y.shape[1], width))
    W[:, -1] = np.log(counts) - np.log(n_images - counts) if class_weight is None else 0.0
    if start is not None:
        W = np.column_stack([start.coef @ rotated.axes, start.intercept])
    objective, converged, passes = np.zeros(len(W)), np.zeros(len(W), dtype=bool), 0.0
    order = np.argsort(counts, kind="stable")  # concepts of like frequency need like many steps
    by_column = Y.tocsc()
    device = find_gpu() if rotated.Z.dtype == np.float32 else None
    gpu = GpuRows(rotated.Z, np.ones(n_images, np.float32), device) if device else None
    with threadpool_limits(1), ThreadPoolExecutor(n_threads or cpu_count()) as pool:
        for at in range(0, len(order), BLOCK):
            block = order[at : at + BLOCK]
            targets = by_column[:, block].tocsr()
            problem = Problem.of(rotated.Z, rotated.spread, targets, C[block], class_weight, pool, gpu)
            found = _solve_block(problem, W[block].astype(rotated.Z.dtype), is_cold=start is None)
            W[block], objective[block], converged[block] = found.W, found.objective, found.converged
            passes += found.evaluations
            progress(at + len(block), len(order))
    coef = W[:, :-1] @ rotated.axes.T
    return Solution(coef, W[:, -1].copy(), objective, converged, passes / max(1, len(W)))


def _solve_block(problem: Problem, W: Floats, is_cold: bool) -> Minimum:
    """Minimise for a block of concepts: a sample first if that pays, and what float32 leaves in float64."""
    n_evaluations, steps = 0.0, []
    if is_cold and len(problem.Z) >= LEAST_ROWS:
        sample = problem.sample()
        rough = minimise(sample, W, ROUGHLY)
        W, steps, n_evaluations = rough.W, rough.steps, rough.evaluations * len(sample.Z) / len(problem.Z)
    is_exact = W.dtype == np.float64
    found = minimise(problem, W, EXACTLY if is_exact else CLOSELY, steps)
    n_evaluations += found.evaluations
    left = np.flatnonzero(~found.converged)
    if len(left) and not is_exact:
        found = replace(found, W=found.W.astype(np.float64))
        polished = minimise(problem.take(left).doubled(), found.W[left], CLOSELY)
        found.W[left], found.objective[left] = polished.W, polished.objective
        found.converged[left] = polished.converged
        n_evaluations += polished.evaluations
    return replace(found, evaluations=n_evaluations)
