"""The exact optimum of many one-vs-rest logistic regressions, found together.

Concepts share the embeddings, so one step of all of them is two matrix products. Three things keep the number of steps
small:

- embeddings are rotated into the axes of their covariance. There the penalty is the same and the Hessian of a concept
  nearly diagonal;
- the rows with most of a concept's curvature (the images of a rare concept) are exact in the preconditioner
  (`heads.solvers.lbfgs`);
- large data start on a sample of the rows, which has every image of a rare concept.

Blocks of concepts take the steps of L-BFGS together; a concept that has converged leaves its block. Several blocks are
solved at a time, so that no core waits for what one block computes on one thread. Large data are evaluated on a GPU if
there is one (`heads.solvers.gpu`).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
from joblib import cpu_count
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from heads.data.blocks import split_rows
from heads.data.standardization import standardisation, standardise
from heads.solvers.gpu import find_gpu
from heads.solvers.lbfgs import Minimum, minimise
from heads.solvers.objective import TILE, Floats, Problem

BLOCK, MAX_BLOCKS = 256, 4
"""Concepts that are solved together; and the most blocks that are solved at a time, which need memory each."""

MIN_SAMPLED_ROWS = 32_000
"""With at least this many rows, a sample of them comes first."""

SAMPLE_TOLERANCE, FLOAT32_TOLERANCE, FLOAT64_TOLERANCE = 1e-3, 2e-7, 1e-10
"""Relative tolerances: on the sample, in float32, in float64."""

FLOAT64_SIZE = 2**22
"""Embeddings with at most this many numbers are solved in float64, where that costs nothing."""


@dataclass(frozen=True)
class Rotated:
    """Standardised embeddings in the axes of their covariance.

    Parameters
    ----------
    mean, scale : ndarray of float64, shape (n_features,)
        Mean and standard deviation of each feature, as in scikit-learn's `StandardScaler`.
    axes : ndarray of float64, shape (n_features, n_features)
        Eigenvectors of the covariance, in columns.
    squares : ndarray of float64, shape (n_features + 1,)
        Sum of squares along each axis, and of the ones for the intercept.
    Z : ndarray of float32 or float64, shape (n_images, n_features + 1)
        The rotated embeddings, and a column of ones for the intercept.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    axes: NDArray[np.float64]
    squares: NDArray[np.float64]
    Z: Floats

    @classmethod
    def from_embeddings(cls, X: NDArray[np.float32]) -> "Rotated":
        """Standardise and rotate, in blocks of rows."""
        n_images, n_features = X.shape
        dtype = np.float64 if X.size <= FLOAT64_SIZE else np.float32
        mean, scale = standardisation(X, np.float64)
        blocks = list(split_rows(n_images, 8 * TILE))
        Z = np.ones((n_images, n_features + 1), dtype)
        covariance = np.zeros((n_features, n_features))
        for block in blocks:
            Z[block, :-1] = standardise(X[block], mean, scale)
            covariance += Z[block, :-1].T @ Z[block, :-1]
        squares, axes = np.linalg.eigh(covariance)
        for block in blocks:
            Z[block, :-1] = Z[block, :-1] @ axes.astype(dtype)
        return cls(mean, scale, axes, np.append(np.maximum(squares, 0), n_images), Z)


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
        How often all rows were multiplied with all concepts, forth and back counting as one.
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
    start: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Solution:
    """Minimise ``C · Σ loss + ½ ||coef||²`` for every concept; the intercept is not penalised.

    Parameters
    ----------
    rotated : Rotated
    Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
        Every concept has positive and negative images.
    C : ndarray of float64, shape (n_concepts,)
        As in scikit-learn's `LogisticRegression`.
    class_weight : {None, "balanced"}
        ``balanced`` gives the positive and the negative images of a concept the same weight, as in scikit-learn.
    start : tuple of ndarray, optional
        Coefficients and intercepts to start from, as in `Solution`, such as those for another C.
    n_threads : int, optional
        One per core if not given. The result does not depend on it.
    progress : callable, optional
        Called with the number of concepts solved, and of all.

    Returns
    -------
    Solution
    """
    n_images, n_columns = rotated.Z.shape
    counts = np.asarray(Y.sum(axis=0), dtype=np.float64).ravel()
    W = np.zeros((Y.shape[1], n_columns))
    W[:, -1] = np.log(counts) - np.log(n_images - counts) if class_weight is None else 0.0
    if start is not None:
        W = np.column_stack([start[0] @ rotated.axes, start[1]])
    order = np.argsort(counts, kind="stable")  # concepts of similar frequency need similar numbers of steps
    blocks = [order[part] for part in split_rows(len(order), BLOCK)]
    by_column = Y.tocsc()
    make_rows = find_gpu() if rotated.Z.dtype == np.float32 else None
    gpu = make_rows(rotated.Z, np.ones(n_images, np.float32)) if make_rows else None
    n_threads = n_threads or cpu_count()
    n_blocks = 1 if gpu else min(n_threads, MAX_BLOCKS)
    objective, converged, passes = np.zeros(len(W)), np.zeros(len(W), dtype=bool), 0.0
    with threadpool_limits(1), ThreadPoolExecutor(n_threads) as pool, ThreadPoolExecutor(n_blocks) as solvers:

        def solve_block(block: NDArray[np.int64]) -> Minimum:
            targets = by_column[:, block].tocsr()
            problem = Problem.from_arrays(rotated.Z, rotated.squares, targets, C[block], class_weight, pool, gpu)
            return _solve_block(problem, W[block].astype(rotated.Z.dtype), is_cold=start is None)

        try:
            n_solved = 0
            for block, found in zip(blocks, solvers.map(solve_block, blocks), strict=True):
                W[block], objective[block], converged[block] = found.W, found.objective, found.converged
                passes += found.evaluations
                n_solved += len(block)
                if progress:
                    progress(n_solved, len(order))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # the other blocks end at their next evaluation
            raise
    coef = W[:, :-1] @ rotated.axes.T
    return Solution(coef, W[:, -1].copy(), objective, converged, passes / max(1, len(W)))


def _solve_block(problem: Problem, W: Floats, is_cold: bool) -> Minimum:
    """Minimise for a block of concepts: on a sample first if that pays, and at last in float64 where float32 failed."""
    n_evaluations, steps = 0.0, []
    if is_cold and len(problem.Z) >= MIN_SAMPLED_ROWS:
        sample = problem.sample()
        rough = minimise(sample, W, SAMPLE_TOLERANCE)
        W, steps, n_evaluations = rough.W, rough.steps, rough.evaluations * len(sample.Z) / len(problem.Z)
    is_float64 = W.dtype == np.float64
    found = minimise(problem, W, FLOAT64_TOLERANCE if is_float64 else FLOAT32_TOLERANCE, steps)
    n_evaluations += found.evaluations
    left = np.flatnonzero(~found.converged)
    if len(left) and not is_float64:
        found = replace(found, W=found.W.astype(np.float64))
        polished = minimise(problem.select(left).to_float64(), found.W[left], FLOAT32_TOLERANCE)
        found.W[left], found.objective[left] = polished.W, polished.objective
        found.converged[left] = polished.converged
        n_evaluations += polished.evaluations
    return replace(found, evaluations=n_evaluations)
