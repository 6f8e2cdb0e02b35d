"""L-BFGS for many problems in step, each with a preconditioner of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.solvers.objective import Bends, Evaluation, Floats, Problem, to_sigmoid

HISTORY, HEAVY = 20, 64
"""Steps that L-BFGS remembers; rows of each concept in the preconditioner."""

MAX_STEPS, REFRESH = 500, 10
"""Steps at most, and after how many the preconditioner is made anew."""

LEAST_LENGTH, IDLE_STEPS = 1e-8, 4
"""Part of a step below which a concept has come as far as its arithmetic allows; so has, in float32, one that has
gained no more than rounding for some steps."""


Step = tuple[Floats, Floats, Floats]
"""How coefficients and gradient of each concept changed, and one over the product of the two; 0 leaves a step out."""


@dataclass(frozen=True)
class Preconditioner:
    """An easily inverted matrix near each concept's curvature: a diagonal, and some rows as they are.

    Parameters
    ----------
    inverse : ndarray, shape (n_concepts, n_features + 1)
        Of the diagonal.
    rows : ndarray, shape (n_concepts, n_heavy, n_features + 1)
        Scaled by the root of their curvature.
    core : ndarray, shape (n_concepts, n_heavy, n_heavy)
        What stands in the middle of the Woodbury identity, inverted.
    """

    inverse: Floats
    rows: Floats
    core: Floats

    @classmethod
    def of(cls, problem: Problem, bends: Bends) -> "Preconditioner":
        """Build it from what an evaluation noted."""
        n_concepts, dtype = len(problem.C), problem.Z.dtype
        total, row, column, bend = bends.collect()
        order = np.lexsort((-bend, column))
        row, column, bend = row[order], column[order], bend[order]
        rank = np.arange(len(column)) - np.searchsorted(column, np.arange(n_concepts))[column]
        kept = rank < HEAVY
        rows = np.zeros((n_concepts, HEAVY), np.int64)
        strength = np.zeros((n_concepts, HEAVY))
        rows[column[kept], rank[kept]], strength[column[kept], rank[kept]] = row[kept], bend[kept]
        # Something stays for the intercept, which no penalty holds: next to nothing cannot be inverted well.
        spread = np.maximum(total - strength.sum(axis=1), total / 16)
        diagonal = problem.penalised + problem.C[:, None] * spread[:, None] * problem.curvature
        inverse = (1 / np.maximum(diagonal, 1e-12)).astype(dtype)
        scaled = problem.Z[rows] * np.sqrt(problem.C[:, None] * strength)[:, :, None].astype(dtype)
        core = np.matmul(scaled * inverse[:, None, :], scaled.transpose(0, 2, 1)).astype(np.float64) + np.eye(HEAVY)
        return cls(inverse, scaled, np.linalg.inv(core).astype(dtype))

    def solve(self, V: Floats) -> Floats:
        """Apply the inverse to a vector a concept, shape (n_concepts, n_features + 1)."""
        direct = self.inverse * V
        inner = np.matmul(self.core, np.matmul(self.rows, direct[:, :, None]))
        solved: Floats = direct - self.inverse * np.matmul(self.rows.transpose(0, 2, 1), inner)[:, :, 0]
        return solved

    def take(self, kept: Any) -> "Preconditioner":
        """That of some of the concepts."""
        return Preconditioner(self.inverse[kept], self.rows[kept], self.core[kept])


@dataclass(frozen=True)
class Minimum:
    """What `minimise` found for each concept, the last steps to it, and how many evaluations a concept it took."""

    W: Floats
    objective: NDArray[np.float64]
    converged: NDArray[np.bool_]
    steps: list[Step]
    evaluations: float

    @classmethod
    def like(cls, W: Floats) -> "Minimum":
        """Room for the minima of some concepts."""
        steps = [(np.zeros_like(W), np.zeros_like(W), np.zeros(len(W), W.dtype)) for _ in range(HISTORY)]
        return cls(W.copy(), np.zeros(len(W)), np.zeros(len(W), dtype=bool), steps, 0.0)

    def keep(self, who: Any, W: Floats, here: Evaluation, converged: NDArray[np.bool_], steps: list[Step]) -> None:
        """Put in what some of the concepts came to."""
        self.W[who], self.objective[who], self.converged[who] = W, here.objective, converged
        for kept, step in zip(reversed(self.steps), reversed(steps), strict=False):
            for room, each in zip(kept, step, strict=True):
                room[who] = each


def minimise(problem: Problem, W: Floats, tolerance: float, steps: Sequence[Step] = ()) -> Minimum:
    """Minimise the objective of each concept from `W`, until the next step promises less than `tolerance` of it.

    Each round evaluates every concept once: one whose step was too long tries a shorter one with the next round.
    Steps that were made on a sample of the rows tell of the curvature here too.
    """
    found = Minimum.like(W)
    active, n_evaluations = np.arange(len(W)), len(W)
    bends = Bends(_least_heavy(problem, W))
    here = problem.evaluate(W, bends)
    near = Preconditioner.of(problem, bends)
    steps = list(steps)
    length, idle = np.ones(len(W)), np.zeros(len(W), dtype=int)
    for number in range(MAX_STEPS):
        if number and number % REFRESH == 0:
            bends = Bends(_least_heavy(problem, W))
            here, near = problem.evaluate(W, bends), Preconditioner.of(problem, bends)
            n_evaluations += len(active)
        direction = -_two_loops(here.gradient, steps, near)
        slope = _dots(here.gradient, direction)
        done = -slope / 2 <= tolerance * here.objective
        ended = done | (length < LEAST_LENGTH) | ((idle >= IDLE_STEPS) & (W.dtype == np.float32))
        if ended.any():
            found.keep(active[ended], W[ended], here.take(ended), done[ended], _take(steps, ended))
            left = ~ended
            active, W, direction = active[left], W[left], direction[left]
            slope, length, idle = slope[left], length[left], idle[left]
            problem, here, near = problem.take(left), here.take(left), near.take(left)
            steps = _take(steps, left)
            if not len(active):
                break
        moved = W + length[:, None].astype(W.dtype) * direction
        there = problem.evaluate(moved)
        n_evaluations += len(active)
        noise = 4 * np.finfo(W.dtype).eps * np.abs(here.objective)
        good = there.objective <= here.objective + 1e-4 * length * slope + noise
        moved[~good], there.gradient[~good] = W[~good], here.gradient[~good]
        steps = [*steps, _step(moved - W, there.gradient - here.gradient)][-HISTORY:]
        length = np.where(good, 1.0, length * _shorten(there.objective - here.objective, length * slope))
        idle = np.where(here.objective - there.objective > noise, 0, idle + 1)
        there.objective[~good] = here.objective[~good]
        W, here = moved, there
    found.keep(active, W, here, np.zeros(len(W), dtype=bool), steps)
    return replace(found, evaluations=n_evaluations)


def _step(s: Floats, y: Floats) -> Step:
    inner = _dots(s, y)
    # A step that shows no curvature is left out.
    shows = inner > 1e-10 * np.sqrt(_dots(s, s) * _dots(y, y))
    return s, y, np.where(shows, 1 / np.where(shows, inner, 1), 0).astype(s.dtype)


def _take(steps: Sequence[Step], kept: NDArray[np.bool_]) -> list[Step]:
    return [(s[kept], y[kept], inner[kept]) for s, y, inner in steps]


def _shorten(rise: NDArray[np.float64], fall: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much a step that led up is shortened: to the lowest point of the parabola, within reason.

    Parameters
    ----------
    rise : ndarray of float64
        What the objective rose by.
    fall : ndarray of float64
        What its slope promised, below 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        lowest = -fall / (2 * (rise - fall))
    return np.clip(np.nan_to_num(lowest, nan=0.1), 0.1, 0.5)


def _least_heavy(problem: Problem, W: Floats) -> Floats:
    """For each concept the curvature that about `HEAVY` of its rows exceed, judged by every sixteenth."""
    stride = max(1, min(16, len(problem.Z) // 1024))
    p = problem.Z[::stride] @ W.T
    to_sigmoid(p, problem.weight[::stride], *np.empty((2, *p.shape), p.dtype))
    bend = p - p * p
    rank = min(len(bend) - 1, HEAVY // stride)
    least: Floats = -np.partition(-bend, rank, axis=0)[rank]
    return np.minimum(least, W.dtype.type(0.1))


def _two_loops(gradient: Floats, steps: list[Step], near: Preconditioner) -> Floats:
    """L-BFGS' product of the inverse curvature and the gradient."""
    V, taken = gradient.copy(), []
    for s, y, inner in reversed(steps):
        part = inner * np.einsum("ij,ij->i", s, V)
        V -= part[:, None] * y
        taken.append(part)
    V = near.solve(V)
    for (s, y, inner), part in zip(steps, reversed(taken), strict=True):
        V += (part - inner * np.einsum("ij,ij->i", y, V))[:, None] * s
    return V


def _dots(a: Floats, b: Floats) -> NDArray[np.float64]:
    """Inner product of each pair of rows."""
    products: NDArray[np.float64] = (a * b).sum(axis=1, dtype=np.float64)
    return products
