"""The loss of many one-vs-rest logistic regressions over shared rows, its gradient and its curvature."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.support.command import check_interrupted
from heads.data.blocks import split_rows
from heads.solvers.gpu import GpuRows

Floats = NDArray[Any]

TILE, STRIPS = 1024, 32
"""Rows per product, whose scores fit into the processor's cache; and how many strips of rows are summed up in parallel.
The sums of strips are added in order, so the result does not depend on the number of threads."""

SAMPLE, MIN_POSITIVES = 8000, 100
"""Rows of a sample, and how many positive rows of each concept are expected in it; all of them if there are fewer."""


@dataclass(frozen=True)
class Problem:
    """A block of concepts over some rows.

    The objective of a concept is ``C * sum of weighted losses + ||coefficients||² / 2``, without the intercept in the
    second term.

    Parameters
    ----------
    Z : ndarray, shape (n_rows, n_features + 1)
        Embeddings, and a column of ones for the intercept. They may be float32 in a problem that is float64: then each
        tile is converted as it is used, because a copy of all rows would be twice as large as they are.
    Y : sparse matrix, shape (n_rows, n_concepts)
    weight : ndarray, shape (n_rows,)
        How many rows each row stands for. Its dtype is that of the problem.
    C, negative, positive : ndarray of float64, shape (n_concepts,)
        Inverse of the penalty, and the weights of the losses of negative and of positive rows.
    mean_squares : ndarray of float64, shape (n_features + 1,)
        Mean square of each column of Z over all rows.
    pool : ThreadPoolExecutor
    gpu : GpuRows or None
        The rows on a GPU, if it is to evaluate them.
    """

    Z: Floats
    Y: scipy.sparse.csr_matrix
    weight: Floats
    C: NDArray[np.float64]
    negative: NDArray[np.float64]
    positive: NDArray[np.float64]
    mean_squares: NDArray[np.float64]
    pool: ThreadPoolExecutor
    gpu: GpuRows | None = None

    @classmethod
    def from_arrays(
        cls,
        Z: Floats,
        squares: NDArray[np.float64],
        Y: scipy.sparse.csr_matrix,
        C: NDArray[np.float64],
        class_weight: str | None,
        pool: ThreadPoolExecutor,
        gpu: GpuRows | None = None,
    ) -> "Problem":
        """The problem on all rows; `squares` is the sum of squares of each column of `Z`."""
        n_images = len(Z)
        negative = positive = np.ones(Y.shape[1])
        if class_weight == "balanced":
            counts = np.asarray(Y.sum(axis=0), dtype=np.float64).ravel()
            negative, positive = n_images / (2 * (n_images - counts)), n_images / (2 * counts)
        return cls(Z, Y, np.ones(n_images, Z.dtype), C, negative, positive, squares / n_images, pool, gpu)

    @property
    def penalised(self) -> Floats:
        """1 for each coefficient, 0 for the intercept, shape (n_features + 1,)."""
        return np.append(np.ones(self.Z.shape[1] - 1, self.dtype), self.dtype.type(0))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The precision in which the problem is evaluated."""
        return self.weight.dtype

    def select(self, concepts: Any) -> "Problem":
        """The problem of some of the concepts."""
        return replace(
            self,
            Y=self.Y[:, concepts],
            C=self.C[concepts],
            negative=self.negative[concepts],
            positive=self.positive[concepts],
        )

    def to_float64(self) -> "Problem":
        """The problem in float64, for concepts for which float32 is too coarse."""
        weight = self.weight.astype(np.float64)
        return replace(self, weight=weight, gpu=self.gpu and self.gpu.with_rows(self.Z.astype(np.float64), weight))

    def sample(self) -> "Problem":
        """The problem on a random sample of rows, with weights that make it an estimate of the whole.

        A row is drawn with a probability that grows with the rarity of its rarest concept. So the sample has every row
        of a rare concept.
        """
        n_rows = len(self.Z)
        counts = np.asarray(self.Y.sum(axis=0), dtype=np.float64).ravel()
        rarity = self.Y.multiply(MIN_POSITIVES / np.maximum(counts, 1)).tocsr().max(axis=1).toarray().ravel()
        are_few = np.count_nonzero(rarity) < n_rows / 4
        share = np.clip(rarity, SAMPLE / n_rows if are_few else 0.25, 1)
        rows = np.flatnonzero(np.random.default_rng(0).random(n_rows) < share)
        sampled = self._on_rows(self.Z[rows], (1 / share[rows]).astype(self.dtype))
        return replace(sampled, Y=self.Y[rows])

    def _on_rows(self, Z: Floats, weight: Floats) -> "Problem":
        return replace(self, Z=Z, weight=weight, gpu=self.gpu and self.gpu.with_rows(Z, weight))

    def evaluate(self, W: Floats, curvature: "Curvature | None" = None) -> "Evaluation":
        """Objective and gradient.

        Parameters
        ----------
        W : ndarray, shape (n_concepts, n_features + 1)
            Coefficients and intercepts.
        curvature : Curvature, optional
            Gets the probabilities of all rows.
        """
        if self.gpu:
            parts = list(self._sum_on_gpu(W, curvature, self.gpu))
        else:
            strips = split_rows(len(self.Z), TILE * max(1, -(-len(self.Z) // (TILE * STRIPS))))
            parts = list(self.pool.map(lambda strip: self._sum_strip(W, curvature, strip), strips))
        check_interrupted()
        loss, gradient = (sum(part[number] for part in parts) for number in (0, 1))
        lengths = np.square(W[:, :-1], dtype=np.float64).sum(axis=1)
        return Evaluation(self.C * loss + lengths / 2, gradient * self.C[:, None].astype(W.dtype) + W * self.penalised)

    def _sum_on_gpu(
        self, W: Floats, curvature: "Curvature | None", gpu: GpuRows
    ) -> Iterator[tuple[NDArray[np.float64], Floats]]:
        """Loss and gradient of each block of rows; curvature is computed here."""
        start = 0
        for loss, gradient, p in gpu.evaluate(W, self.Y, self.negative, self.positive):
            if curvature is not None:
                self._note(curvature, np.asarray(p), start, self._list_positives(slice(start, start + len(p))))
            start += len(p)
            yield loss, gradient

    def _list_positives(self, tile: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row within the tile, and concept, of each positive label: many times sooner than a slice of Y has them."""
        bounds = self.Y.indptr[tile.start : tile.stop + 1]
        return np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)), self.Y.indices[bounds[0] : bounds[-1]]

    def _note(self, curvature: "Curvature", p: Floats, start: int, positives: tuple[Floats, Floats]) -> None:
        weights = None
        if not self._is_unweighted:
            weights = self.negative.astype(p.dtype), (self.positive / self.negative)[positives[1]]
        curvature.note(p, self.weight[start : start + len(p)], start, positives, weights)

    @property
    def _is_unweighted(self) -> bool:
        return bool((self.negative == 1).all() and (self.positive == 1).all())

    def _sum_strip(self, W: Floats, curvature: "Curvature | None", strip: slice) -> tuple[NDArray[np.float64], Floats]:
        """Loss and gradient over a strip of rows."""
        loss, gradient, product = np.zeros(len(W)), np.zeros_like(W), np.empty_like(W)
        is_unweighted = self._is_unweighted
        negative, positive = self.negative.astype(W.dtype), self.positive.astype(W.dtype)
        buffers = np.empty((3, min(TILE, strip.stop - strip.start), len(W)), W.dtype)
        for start in range(strip.start, strip.stop, TILE):
            tile = slice(start, min(start + TILE, strip.stop))
            Z, weight = self.Z[tile].astype(self.dtype, copy=False), self.weight[tile]
            rows, columns = self._list_positives(tile)
            p, *spare = buffers[:, : len(Z)]
            np.matmul(Z, W.T, out=p)
            # log(1 + exp(m)) of all margins m, as if all rows were negative; then the difference for the positive rows.
            margins = p[rows, columns].astype(np.float64)
            loss += self.negative * to_sigmoid(p, weight, *spare)
            extra = (self.positive - self.negative)[columns] * np.logaddexp(0, margins) - self.positive[
                columns
            ] * margins
            loss += np.bincount(columns, extra * weight[rows], minlength=len(W))
            if curvature is not None:
                self._note(curvature, p, start, (rows, columns))
            residuals = p[rows, columns] - 1
            if not is_unweighted:
                p *= negative
                residuals *= positive[columns]
            p[rows, columns] = residuals
            if weight[0] != 1 or weight[-1] != 1 or (weight != 1).any():
                p *= weight[:, None]
            gradient += np.matmul(p.T, Z, out=product)
        return loss, gradient


@dataclass(frozen=True)
class Evaluation:
    """Objective, shape (n_concepts,), and gradient, shape (n_concepts, n_features + 1), at one point."""

    objective: NDArray[np.float64]
    gradient: Floats

    def select(self, concepts: Any) -> "Evaluation":
        """The evaluation of some of the concepts."""
        return Evaluation(self.objective[concepts], self.gradient[concepts])


class Curvature:
    """Sum of ``p (1 - p)`` per concept, and the rows where it is largest.

    Parameters
    ----------
    threshold : ndarray, shape (n_concepts,)
        Rows with a larger curvature are recorded.
    """

    def __init__(self, threshold: Floats) -> None:
        self._threshold = threshold
        self._parts: list[tuple[int, Floats, tuple[Floats, Floats, Floats]]] = []

    def note(self, p: Floats, weight: Floats, start: int, positives: tuple[Floats, Floats], weights: Any) -> None:
        """Add some rows.

        Parameters
        ----------
        p : ndarray, shape (n_block, n_concepts)
            Their probabilities.
        weight : ndarray, shape (n_block,)
            How many rows each row stands for.
        start : int
            Number of the first row.
        positives : tuple of ndarray
            Rows and columns of the positive labels.
        weights : tuple of ndarray or None
            Weight of each concept's negative rows, and the factor to that of its positive rows at `positives`.
        """
        values = p - p * p
        if weights is not None:
            values *= weights[0]
            values[positives] *= weights[1]
        row, column = np.nonzero(values > self._threshold)
        recorded = (row + start, column, values[row, column] * weight[row])
        self._parts.append((start, weight @ values, recorded))  # several threads may append at once

    def collect(self) -> tuple[NDArray[np.float64], Floats, Floats, Floats]:
        """Sum per concept; and row, concept and curvature of the recorded rows."""
        parts = sorted(self._parts, key=lambda part: part[0])  # the order in which threads finished must not matter
        recorded = (np.concatenate(each) for each in zip(*(part[2] for part in parts), strict=True))
        return np.sum([part[1] for part in parts], axis=0, dtype=np.float64), *recorded  # type: ignore[return-value]


def to_sigmoid(margin: Floats, weight: Floats, *buffers: Floats) -> NDArray[np.float64]:
    """Turn margins into their sigmoid, in place.

    Nothing overflows, and no memory is allocated: the buffers stay in the processor's cache.

    Returns
    -------
    ndarray of float64, shape (n_concepts,)
        The weighted sum of ``log(1 + exp(margin))`` over the rows.
    """
    decayed, buffer = buffers
    np.abs(margin, out=decayed)
    np.negative(decayed, out=decayed)
    np.exp(decayed, out=decayed)
    # log(1 + exp(m)) = max(m, 0) + log(1 + exp(-|m|))
    total = (weight @ np.maximum(margin, 0, out=buffer)).astype(np.float64)
    total += weight @ np.log1p(decayed, out=buffer)
    # With d = exp(-|m|), the sigmoid is 1 / (1 + d) if m is positive and d / (1 + d) otherwise.
    np.greater_equal(margin, 0, out=margin)
    margin *= np.subtract(1, decayed, out=buffer)
    margin += decayed
    margin /= np.add(decayed, 1, out=decayed)
    return total
