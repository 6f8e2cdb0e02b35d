"""The scores that a threshold may let through, by concept, and the F1 of each image as thresholds move."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from heads.data.types import Scores


@dataclass
class State:
    """How many concepts each image is given at some thresholds, and how many of them it shows."""

    named: NDArray[np.int64]
    hits: NDArray[np.int64]


@dataclass(frozen=True)
class Candidates:
    """Entries of a score matrix that are not too small, sorted by concept and falling score.

    Parameters
    ----------
    starts : ndarray of int, shape (n_concepts + 1,)
        Where the entries of each concept begin.
    rows : ndarray of int, shape (n_entries,)
        The image of each.
    scores : ndarray of float32, shape (n_entries,)
    shown : ndarray of bool, shape (n_entries,)
        Whether the image shows the concept.
    true : ndarray of int, shape (n_images,)
        How many concepts each image truly has.
    fallback : ndarray of bool, shape (n_images,)
        Whether an image that is given nothing else shows what it is given then.
    floor : float
        The least score of an entry.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    scores: Scores
    shown: NDArray[np.bool_]
    true: NDArray[np.int64]
    fallback: NDArray[np.bool_]
    floor: float

    @classmethod
    def of(
        cls,
        scores: Scores,
        Y: scipy.sparse.csr_matrix,
        n_true: NDArray[np.int64] | None,
        floor: float,
        may_be_empty: bool,
    ) -> "Candidates":
        """Take the entries that reach a floor."""
        rows, columns = np.nonzero(scores >= max(floor, float(np.finfo(np.float32).tiny)))
        values = scores[rows, columns]
        shown = np.asarray(Y[rows, columns], dtype=bool).ravel()
        order = np.lexsort((-values, columns))
        starts = np.searchsorted(columns[order], np.arange(scores.shape[1] + 1))
        true = np.diff(Y.indptr).astype(np.int64) if n_true is None else n_true
        first = scores.argmax(axis=1)
        fallback = np.asarray(Y[np.arange(len(scores)), first], dtype=bool).ravel() & (not may_be_empty)
        return cls(starts, rows[order], values[order], shown[order], true, fallback, floor)

    @property
    def n_concepts(self) -> int:
        """Columns of the score matrix."""
        return len(self.starts) - 1

    @property
    def order(self) -> NDArray[np.int64]:
        """Concepts with entries, those with most first."""
        sizes = np.diff(self.starts)
        return np.argsort(-sizes, kind="stable")[: int((sizes > 0).sum())]

    def take(self, images: NDArray[np.int64]) -> "Candidates":
        """The entries of some images."""
        place = np.full(len(self.true), -1)
        place[images] = np.arange(len(images))
        kept = place[self.rows] >= 0
        starts = np.append(0, kept.cumsum())[self.starts]
        return Candidates(starts, place[self.rows[kept]], self.scores[kept], self.shown[kept], self.true[images],
                          self.fallback[images], self.floor)  # fmt: skip

    def state(self, thresholds: NDArray[np.float64]) -> State:
        """What each image is given at some thresholds."""
        passed = self.scores >= np.repeat(thresholds, np.diff(self.starts))
        n_images = len(self.true)
        named = np.bincount(self.rows[passed], minlength=n_images)
        return State(named, np.bincount(self.rows[passed & self.shown], minlength=n_images))

    def f1(self, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
        """F1 of each image at some thresholds, shape (n_images,)."""
        state = self.state(thresholds)
        return self._f1(state.named, state.hits, slice(None))

    def _f1(
        self, named: NDArray[np.int64], hits: NDArray[np.int64], rows: NDArray[np.int64] | slice
    ) -> NDArray[np.float64]:
        """F1 of some images; one that is given nothing is given its most probable concept."""
        nothing = named == 0
        hits, named = np.where(nothing, self.fallback[rows], hits), np.where(nothing, 1, named)
        f1: NDArray[np.float64] = 2 * hits / (named + self.true[rows])
        return f1

    def improve(self, concept: int, thresholds: NDArray[np.float64], state: State) -> bool:
        """Set one concept's threshold to the best, the others held; whether that changed anything."""
        part = slice(self.starts[concept], self.starts[concept + 1])
        rows, shown, scores = self.rows[part], self.shown[part], self.scores[part]
        passed = scores >= thresholds[concept]
        named, hits = state.named[rows] - passed, state.hits[rows] - (passed & shown)
        gains = (self._f1(named + 1, hits + shown, rows) - self._f1(named, hits, rows)).cumsum()
        # Equal scores pass together, and naming the concept nowhere gains nothing.
        ends = np.append(scores[1:] < scores[:-1], True)
        n_passed = np.append(0, np.flatnonzero(ends) + 1)
        total = np.append(0.0, gains[ends])
        now = int(passed.sum())
        best = int(n_passed[total.argmax()])
        if best == now or total.max() <= (gains[now - 1] if now else 0.0) + 1e-12:
            return False
        # In the middle of a gap; a concept that is best named nowhere gets a threshold that nothing reaches.
        upper = float(scores[best - 1]) if best else 1.0
        lower = float(scores[best]) if best < len(scores) else self.floor
        thresholds[concept] = (upper + lower) / 2 if best else (upper + lower) / 2 + 1e-6
        state.named[rows], state.hits[rows] = named, hits
        state.named[rows[:best]] += 1
        state.hits[rows[:best]] += shown[:best]
        return True
