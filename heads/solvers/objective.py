"""The loss of many one-vs-rest logistic regressions over shared rows, its gradient and its curvature."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.support.command import check_interrupted
from heads.solvers.gpu import GpuRows

Floats = NDArray[Any]

TILE, STRIPS = 1024, 32
"""Rows a product, so that scores stay in the processor's cache; parts whose sums are added in order, so that the
number of threads changes no bit."""

SAMPLE, ENOUGH = 8000, 100
"""Rows of a sample, and images of each concept that are surely in it."""


@dataclass(frozen=True)
class Problem:
    """A block of concepts over some rows.

    Parameters
    ----------
    Z : ndarray, shape (n_rows, n_features + 1)
    Y : sparse matrix, shape (n_rows, n_concepts)
    weight : ndarray, shape (n_rows,)
        How many rows each stands for.
    C, absent, present : ndarray of float64, shape (n_concepts,)
        Strength of the losses, and the weights of the two sides in it.
    curvature : ndarray of float64, shape (n_features + 1,)
        Mean square along each axis.
    pool : ThreadPoolExecutor
    gpu : GpuRows or None
        The rows on a GPU, which evaluates them then.
    """

    Z: Floats
    Y: scipy.sparse.csr_matrix
    weight: Floats
    C: NDArray[np.float64]
    absent: NDArray[np.float64]
    present: NDArray[np.float64]
    curvature: NDArray[np.float64]
    pool: ThreadPoolExecutor
    gpu: GpuRows | None = None

    @classmethod
    def of(
        cls,
        Z: Floats,
        spread: NDArray[np.float64],
        Y: scipy.sparse.csr_matrix,
        C: NDArray[np.float64],
        class_weight: str | None,
        pool: ThreadPoolExecutor,
        gpu: GpuRows | None = None,
    ) -> "Problem":
        """The problem on all rows; `spread` is the sum of squares along each axis."""
        n_images = len(Z)
        absent = present = np.ones(Y.shape[1])
        if class_weight == "balanced":
            counts = np.asarray(Y.sum(axis=0), dtype=np.float64).ravel()
            absent, present = n_images / (2 * (n_images - counts)), n_images / (2 * counts)
        return cls(Z, Y, np.ones(n_images, Z.dtype), C, absent, present, spread / n_images, pool, gpu)

    @property
    def penalised(self) -> Floats:
        """1 for each coefficient, 0 for the intercept."""
        return np.append(np.ones(self.Z.shape[1] - 1, self.Z.dtype), self.Z.dtype.type(0))

    def take(self, kept: Any) -> "Problem":
        """The problem of some of the concepts."""
        return replace(self, Y=self.Y[:, kept], C=self.C[kept], absent=self.absent[kept], present=self.present[kept])

    def doubled(self) -> "Problem":
        """The problem in float64, for what float32 is too coarse for."""
        return self._on_rows(self.Z.astype(np.float64), self.weight.astype(np.float64))

    def sample(self) -> "Problem":
        """The problem on some rows, weighted so that it stands for all; every image of a rare concept is among them."""
        n_rows = len(self.Z)
        counts = np.asarray(self.Y.sum(axis=0), dtype=np.float64).ravel()
        rarest = self.Y.multiply(ENOUGH / np.maximum(counts, 1)).tocsr().max(axis=1).toarray().ravel()
        are_few = np.count_nonzero(rarest) < n_rows / 4
        share = np.clip(rarest, SAMPLE / n_rows if are_few else 0.25, 1)
        rows = np.flatnonzero(np.random.default_rng(0).random(n_rows) < share)
        sampled = self._on_rows(self.Z[rows], (1 / share[rows]).astype(self.Z.dtype))
        return replace(sampled, Y=self.Y[rows])

    def _on_rows(self, Z: Floats, weight: Floats) -> "Problem":
        return replace(self, Z=Z, weight=weight, gpu=self.gpu and GpuRows(Z, weight, self.gpu.device))

    def evaluate(self, W: Floats, bends: "Bends | None" = None) -> "Evaluation":
        """Objective and gradient at `W`, shape (n_concepts, n_features + 1); notes curvature if that is asked for."""
        if self.gpu:
            parts = list(self._sum_on_gpu(W, bends, self.gpu))
        else:
            strip = TILE * max(1, -(-len(self.Z) // (TILE * STRIPS)))
            spans = [(at, min(at + strip, len(self.Z))) for at in range(0, len(self.Z), strip)]
            parts = list(self.pool.map(lambda span: self._sum_strip(W, bends, *span), spans))
        check_interrupted()
        loss, gradient = (sum(part[number] for part in parts) for number in (0, 1))
        lengths = np.square(W[:, :-1], dtype=np.float64).sum(axis=1)
        return Evaluation(self.C * loss + lengths / 2, gradient * self.C[:, None].astype(W.dtype) + W * self.penalised)

    def _sum_on_gpu(
        self, W: Floats, bends: "Bends | None", gpu: GpuRows
    ) -> Iterator[tuple[NDArray[np.float64], Floats]]:
        """Loss and its gradient over all rows, part by part; curvature is noted here."""
        at = 0
        for loss, gradient, p in gpu.evaluate(W, self.Y, self.absent, self.present):
            if bends is not None:
                part = slice(at, at + len(p))
                self._note(bends, p.numpy(), at, self.Y[part])
            at += len(p)
            yield loss, gradient

    def _note(self, bends: "Bends", p: Floats, at: int, Y: scipy.sparse.csr_matrix) -> None:
        named = Y.nonzero()
        sides = None if self._is_even else (self.absent.astype(p.dtype), (self.present / self.absent)[named[1]])
        bends.note(p, self.weight[at : at + len(p)], at, named, sides)

    @property
    def _is_even(self) -> bool:
        return bool((self.absent == 1).all() and (self.present == 1).all())

    def _sum_strip(self, W: Floats, bends: "Bends | None", begin: int, end: int) -> tuple[NDArray[np.float64], Floats]:
        """Loss and its gradient over a strip of rows."""
        loss, gradient = np.zeros(len(W)), np.zeros_like(W)
        even = self._is_even
        absent, present = self.absent.astype(W.dtype), self.present.astype(W.dtype)
        rooms = np.empty((3, min(TILE, end - begin), len(W)), W.dtype)
        for at in range(begin, end, TILE):
            Z, weight = self.Z[at : min(at + TILE, end)], self.weight[at : min(at + TILE, end)]
            Y = self.Y[at : min(at + TILE, end)]
            rows, columns = np.repeat(np.arange(len(Z)), np.diff(Y.indptr)), Y.indices
            p, *spare = rooms[:, : len(Z)]
            np.matmul(Z, W.T, out=p)
            named = p[rows, columns].astype(np.float64)
            loss += self.absent * to_sigmoid(p, weight, *spare)
            extra = (self.present - self.absent)[columns] * np.logaddexp(0, named) - self.present[columns] * named
            loss += np.bincount(columns, extra * weight[rows], minlength=len(W))
            if bends is not None:
                self._note(bends, p, at, Y)
            residual = p[rows, columns] - 1
            if not even:
                p *= absent
                residual *= present[columns]
            p[rows, columns] = residual
            if weight[0] != 1 or weight[-1] != 1 or (weight != 1).any():
                p *= weight[:, None]
            gradient += p.T @ Z
        return loss, gradient


@dataclass(frozen=True)
class Evaluation:
    """Objective, shape (n_concepts,), and gradient, shape (n_concepts, n_features + 1), at a point."""

    objective: NDArray[np.float64]
    gradient: Floats

    def take(self, kept: Any) -> "Evaluation":
        """That of some of the concepts."""
        return Evaluation(self.objective[kept], self.gradient[kept])


class Bends:
    """Curvature ``p (1 - p)`` of every row and concept: its sums, and where it is great.

    Parameters
    ----------
    least : ndarray, shape (n_concepts,)
        Where it is greater than this, it is noted by row.
    """

    def __init__(self, least: Floats) -> None:
        self._least = least
        self._parts: list[tuple[int, Floats, tuple[Floats, Floats, Floats]]] = []

    def note(self, p: Floats, weight: Floats, at: int, named: tuple[Floats, Floats], sides: Any) -> None:
        """Look at the probabilities of some rows, from row `at` on."""
        bend = p - p * p
        if sides is not None:
            bend *= sides[0]
            bend[named] *= sides[1]
        row, column = np.nonzero(bend > self._least)
        places = (row + at, column, bend[row, column] * weight[row])
        self._parts.append((at, weight @ bend, places))  # threads may append at once

    def collect(self) -> tuple[NDArray[np.float64], Floats, Floats, Floats]:
        """Sum a concept; and row, concept and curvature where it is great."""
        parts = sorted(self._parts, key=lambda part: part[0])  # in order, whoever came first
        places = (np.concatenate(each) for each in zip(*(part[2] for part in parts), strict=True))
        return np.sum([part[1] for part in parts], axis=0, dtype=np.float64), *places  # type: ignore[return-value]


def to_sigmoid(margin: Floats, weight: Floats, *spare: Floats) -> NDArray[np.float64]:
    """Turn margins into their sigmoid, in place; returns the weighted sum of ``log(1 + exp(margin))`` down each column.

    Written so that nothing overflows, in room that stays in the processor's cache.
    """
    decayed, room = spare
    np.abs(margin, out=decayed)
    np.negative(decayed, out=decayed)
    np.exp(decayed, out=decayed)
    total = (weight @ np.maximum(margin, 0, out=room)).astype(np.float64)
    total += weight @ np.log1p(decayed, out=room)
    # 1 / (1 + decayed) where the margin is positive, decayed / (1 + decayed) where it is not.
    np.greater_equal(margin, 0, out=margin)
    margin *= np.subtract(1, decayed, out=room)
    margin += decayed
    margin /= np.add(decayed, 1, out=decayed)
    return total
