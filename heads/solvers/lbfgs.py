"""L-BFGS for many problems in parallel, with a preconditioner for each.

The method is that of Liu and Nocedal, On the limited memory BFGS method for large scale optimization, 1989.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.solvers.objective import Curvature, Evaluation, Floats, Problem, to_sigmoid

HISTORY, HEAVY = 20, 64
"""Steps that L-BFGS remembers; rows per concept that the preconditioner treats exactly."""

MAX_ITER, REFRESH = 500, 10
"""Most iterations, and after how many the preconditioner is computed again."""

MIN_LENGTH, IDLE_STEPS = 1e-8, 4
"""Stop a concept when its step length falls below `MIN_LENGTH`, or (in float32) after `IDLE_STEPS` steps that improve
the objective by no more than rounding error."""


Step = tuple[Floats, Floats, Floats]
"""Change of the coefficients and of the gradient of each concept, and 1 over their inner product; 0 skips a step."""


@dataclass(frozen=True)
class Preconditioner:
    """An approximation of each concept's Hessian that is easy to invert: a diagonal plus a few rows.

    The Hessian of a concept is ``P + C sum_i h_i z_i z_i'``, with P the identity but for a 0 for the intercept, z_i the
    rows and ``h_i = p_i (1 - p_i)`` times the weight of the row. The columns of Z are uncorrelated over all rows, so
    for a frequent concept the sum is nearly diagonal. For a rare concept, h is concentrated on a few rows. Therefore
    the `HEAVY` rows with the largest h are exact, as the rows ``sqrt(C h_i) z_i`` of R, and the others are represented
    by an average diagonal, in D:

        H ~ D + R'R,  D = P + C (sum of the other h_i) diag(mean square of each column of Z).

    Its inverse follows from the Woodbury identity:

        (D + R'R)^-1 = D^-1 - D^-1 R' (I + R D^-1 R')^-1 R D^-1,

    where the matrix to invert has only `HEAVY` rows.

    Parameters
    ----------
    inverse : ndarray, shape (n_concepts, n_features + 1)
        Diagonal of ``D^-1``.
    rows : ndarray, shape (n_concepts, n_heavy, n_features + 1)
        R.
    core : ndarray, shape (n_concepts, n_heavy, n_heavy)
        ``(I + R D^-1 R')^-1``.
    """

    inverse: Floats
    rows: Floats
    core: Floats

    @classmethod
    def from_curvature(cls, problem: Problem, curvature: Curvature) -> "Preconditioner":
        """Build it from the curvature that an evaluation of the problem recorded."""
        n_concepts, dtype = len(problem.C), problem.dtype
        total, row, column, value = curvature.collect()
        order = np.lexsort((-value, column))
        row, column, value = row[order], column[order], value[order]
        rank = np.arange(len(column)) - np.searchsorted(column, np.arange(n_concepts))[column]
        is_heavy = rank < HEAVY
        rows = np.zeros((n_concepts, HEAVY), np.int64)
        strength = np.zeros((n_concepts, HEAVY))
        rows[column[is_heavy], rank[is_heavy]] = row[is_heavy]
        strength[column[is_heavy], rank[is_heavy]] = value[is_heavy]
        # A sixteenth of the sum stays in D in any case: the intercept has no penalty, and D must be far from singular.
        others = np.maximum(total - strength.sum(axis=1), total / 16)
        diagonal = problem.penalised + problem.C[:, None] * others[:, None] * problem.mean_squares
        inverse = (1 / np.maximum(diagonal, 1e-12)).astype(dtype)
        scaled = problem.Z[rows].astype(dtype, copy=False) * np.sqrt(problem.C[:, None] * strength)[:, :, None].astype(
            dtype
        )
        core = np.matmul(scaled * inverse[:, None, :], scaled.transpose(0, 2, 1)).astype(np.float64) + np.eye(HEAVY)
        return cls(inverse, scaled, np.linalg.inv(core).astype(dtype))

    def solve(self, V: Floats) -> Floats:
        """Apply the inverse to one vector per concept, shape (n_concepts, n_features + 1)."""
        direct = self.inverse * V
        inner = np.matmul(self.core, np.matmul(self.rows, direct[:, :, None]))
        solved: Floats = direct - self.inverse * np.matmul(self.rows.transpose(0, 2, 1), inner)[:, :, 0]
        return solved

    def select(self, concepts: Any) -> "Preconditioner":
        """The preconditioner of some of the concepts."""
        return Preconditioner(self.inverse[concepts], self.rows[concepts], self.core[concepts])


@dataclass(frozen=True)
class Minimum:
    """What `minimise` found for each concept.

    Parameters
    ----------
    W : ndarray, shape (n_concepts, n_features + 1)
        Coefficients and intercepts.
    objective : ndarray of float64, shape (n_concepts,)
    converged : ndarray of bool, shape (n_concepts,)
    steps : list of tuple
        The last steps.
    evaluations : float
        Evaluations of the objective, summed over concepts.
    """

    W: Floats
    objective: NDArray[np.float64]
    converged: NDArray[np.bool_]
    steps: list[Step]
    evaluations: float

    @classmethod
    def allocate(cls, W: Floats) -> "Minimum":
        """Allocate results for concepts that start at `W`."""
        steps = [(np.zeros_like(W), np.zeros_like(W), np.zeros(len(W), W.dtype)) for _ in range(HISTORY)]
        return cls(W.copy(), np.zeros(len(W)), np.zeros(len(W), dtype=bool), steps, 0.0)

    def store(
        self, concepts: Any, W: Floats, here: Evaluation, converged: NDArray[np.bool_], steps: list[Step]
    ) -> None:
        """Store the results of some of the concepts."""
        self.W[concepts], self.objective[concepts], self.converged[concepts] = W, here.objective, converged
        for stored, step in zip(reversed(self.steps), reversed(steps), strict=False):
            for target, values in zip(stored, step, strict=True):
                target[concepts] = values


def minimise(problem: Problem, W: Floats, tolerance: float, steps: Sequence[Step] = ()) -> Minimum:
    """Minimise the objective of each concept from `W`.

    Each iteration evaluates every concept once. A concept whose step was too long tries a shorter one in the next
    iteration. A concept that has converged is not evaluated any more.

    Parameters
    ----------
    problem : Problem
    W : ndarray, shape (n_concepts, n_features + 1)
        Where to start.
    tolerance : float
        A concept has converged when the next step promises to decrease its objective by less than this share.
    steps : sequence of tuple
        Steps of an earlier minimisation, such as on a sample of the rows, to start with as the history.
    """
    found = Minimum.allocate(W)
    active, n_evaluations = np.arange(len(W)), len(W)
    curvature = Curvature(_heavy_threshold(problem, W))
    here = problem.evaluate(W, curvature)
    preconditioner = Preconditioner.from_curvature(problem, curvature)
    steps = list(steps)
    length, idle = np.ones(len(W)), np.zeros(len(W), dtype=int)
    for number in range(MAX_ITER):
        if number and number % REFRESH == 0:
            curvature = Curvature(_heavy_threshold(problem, W))
            here = problem.evaluate(W, curvature)
            preconditioner = Preconditioner.from_curvature(problem, curvature)
            n_evaluations += len(active)
        direction = -_two_loops(here.gradient, steps, preconditioner)
        slope = _dots(here.gradient, direction)
        # For a direction d = -H^-1 g the quadratic model decreases by g'H^-1 g / 2.
        done = -slope / 2 <= tolerance * here.objective
        ended = done | (length < MIN_LENGTH) | ((idle >= IDLE_STEPS) & (W.dtype == np.float32))
        if ended.any():
            found.store(active[ended], W[ended], here.select(ended), done[ended], _select(steps, ended))
            left = ~ended
            active, W, direction = active[left], W[left], direction[left]
            slope, length, idle = slope[left], length[left], idle[left]
            problem, here, preconditioner = problem.select(left), here.select(left), preconditioner.select(left)
            steps = _select(steps, left)
            if not len(active):
                break
        moved = W + length[:, None].astype(W.dtype) * direction
        there = problem.evaluate(moved)
        n_evaluations += len(active)
        noise = 4 * np.finfo(W.dtype).eps * np.abs(here.objective)
        # Armijo's condition, but for rounding.
        good = there.objective <= here.objective + 1e-4 * length * slope + noise
        moved[~good], there.gradient[~good] = W[~good], here.gradient[~good]
        steps = [*steps, _step(moved - W, there.gradient - here.gradient)][-HISTORY:]
        length = np.where(good, 1.0, length * _shorten(there.objective - here.objective, length * slope))
        idle = np.where(here.objective - there.objective > noise, 0, idle + 1)
        there.objective[~good] = here.objective[~good]
        W, here = moved, there
    found.store(active, W, here, np.zeros(len(W), dtype=bool), steps)
    return replace(found, evaluations=n_evaluations)


def _step(s: Floats, y: Floats) -> Step:
    inner = _dots(s, y)
    # A step along which the gradient does not grow would break the method; it is skipped.
    grows = inner > 1e-10 * np.sqrt(_dots(s, s) * _dots(y, y))
    return s, y, np.where(grows, 1 / np.where(grows, inner, 1), 0).astype(s.dtype)


def _select(steps: Sequence[Step], concepts: NDArray[np.bool_]) -> list[Step]:
    return [(s[concepts], y[concepts], inner[concepts]) for s, y, inner in steps]


def _shorten(rise: NDArray[np.float64], promised: NDArray[np.float64]) -> NDArray[np.float64]:
    """Factors by which to shorten steps that increased the objective.

    The parabola through the objective at both ends of a step with the slope at its start has its minimum at this
    factor, which is limited to between 0.1 and 0.5.

    Parameters
    ----------
    rise : ndarray of float64
        Change of the objective.
    promised : ndarray of float64
        Change that the slope at the start promised, below 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        lowest = -promised / (2 * (rise - promised))
    return np.clip(np.nan_to_num(lowest, nan=0.1), 0.1, 0.5)


def _heavy_threshold(problem: Problem, W: Floats) -> Floats:
    """Curvature that about `HEAVY` rows of each concept exceed, estimated from every sixteenth row."""
    stride = max(1, min(16, len(problem.Z) // 1024))
    p = problem.Z[::stride] @ W.T
    to_sigmoid(p, problem.weight[::stride], *np.empty((2, *p.shape), p.dtype))
    values = p - p * p
    rank = min(len(values) - 1, HEAVY // stride)
    threshold: Floats = np.minimum(-np.partition(-values, rank, axis=0)[rank], W.dtype.type(0.1))
    return threshold


def _two_loops(gradient: Floats, steps: list[Step], preconditioner: Preconditioner) -> Floats:
    """Product of the approximate inverse Hessian and the gradient: the two-loop recursion of L-BFGS."""
    V, parts = gradient.copy(), []
    for s, y, inner in reversed(steps):
        part = inner * np.einsum("ij,ij->i", s, V)
        V -= part[:, None] * y
        parts.append(part)
    V = preconditioner.solve(V)
    for (s, y, inner), part in zip(steps, reversed(parts), strict=True):
        V += (part - inner * np.einsum("ij,ij->i", y, V))[:, None] * s
    return V


def _dots(a: Floats, b: Floats) -> NDArray[np.float64]:
    """Inner product of each pair of rows."""
    products: NDArray[np.float64] = (a * b).sum(axis=1, dtype=np.float64)
    return products
