"""The search for thresholds: one for all concepts by a sweep, one per concept by coordinate ascent."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from heads.data.types import Counts, Scores

MAX_PASSES = 6
"""Rounds of the ascent over all concepts. After two or three hardly any threshold changes."""

TOLERANCE = 1e-12
"""Gain in summed F1 below which a threshold stays: rounding errors are smaller, gains are larger."""


def sweep(ranked: Scores, hits: NDArray[np.bool_], n_true: NDArray[np.int64], may_be_empty: bool) -> float:
    """Find the one threshold with the greatest mean F1 per image.

    Every distinct score is tried. The work is that of sorting all scores once:

    Lowering the threshold past an image's k-th greatest score predicts its k-th concept, and changes its F1 from
    2 h(k - 1) / (k - 1 + n) to 2 h(k) / (k + n), with h(k) hits among its first k concepts and n true concepts. The
    scores of all images are sorted together. The sum of these changes from the greatest score down to a threshold is
    then the summed F1 at that threshold.

    Parameters
    ----------
    ranked, hits, n_true
        As `heads.decoders.ranking.rank` returns them.
    may_be_empty : bool
        Whether an image may be left without a concept.

    Returns
    -------
    float
        Halfway between two scores: a threshold equal to a score could miss it by a rounding error.
    """
    f1 = 2 * hits.cumsum(axis=1) / (np.arange(1, hits.shape[1] + 1) + n_true[:, None])
    # An image that may not be empty has its first concept at any threshold, so that one changes nothing.
    gains = np.diff(f1, axis=1, prepend=0 if may_be_empty else f1[:, :1])
    by_score = np.argsort(-ranked, axis=None, kind="stable")
    swept, total = ranked.ravel()[by_score], gains.ravel()[by_score].cumsum()
    last = np.append(np.flatnonzero(np.diff(swept)), len(swept) - 1)  # equal scores pass a threshold together
    best = last[total[last].argmax()]
    following = swept[best + 1] if best + 1 < len(swept) else 0.0
    return float((np.float64(swept[best]) + np.float64(following)) / 2)


@dataclass
class Predictions:
    """How many concepts each image gets at some thresholds, and how many of them are hits.

    Parameters
    ----------
    n_predicted, n_hits : ndarray of int64, shape (n_images,)
    """

    n_predicted: NDArray[np.int64]
    n_hits: NDArray[np.int64]


@dataclass(frozen=True)
class Candidates:
    """The entries of a score matrix that a threshold may let through, by concept and falling score.

    Parameters
    ----------
    starts : ndarray of int64, shape (n_concepts + 1,)
        Where the entries of each concept begin.
    rows : ndarray of int64, shape (n_entries,)
        The image of each entry.
    scores : ndarray of float32, shape (n_entries,)
    positive : ndarray of bool, shape (n_entries,)
        Whether the concept is true of the image.
    n_true : ndarray of int64, shape (n_images,)
        How many concepts each image truly has.
    fallback_hits : ndarray of bool, shape (n_images,)
        Whether the concept is true that an image gets where no score reaches its threshold.
    floor : float
        Scores below it are left out.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    scores: Scores
    positive: NDArray[np.bool_]
    n_true: NDArray[np.int64]
    fallback_hits: NDArray[np.bool_]
    floor: float

    @classmethod
    def from_arrays(
        cls, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts, floor: float, may_be_empty: bool
    ) -> "Candidates":
        """Collect the scores that reach a floor.

        Parameters
        ----------
        scores : ndarray of float32, shape (n_images, n_concepts)
        Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
        n_true : ndarray of int64, shape (n_images,), or None
            The row sums of Y if None.
        floor : float
        may_be_empty : bool
            Whether an image may be left without a concept.
        """
        rows, columns = np.nonzero(scores >= max(floor, float(np.finfo(np.float32).tiny)))
        values = scores[rows, columns]
        # Of no places at all SciPy gives a sparse matrix.
        positive = np.asarray(Y[rows, columns], dtype=bool).ravel() if len(rows) else np.zeros(0, bool)
        order = np.lexsort((-values, columns))
        starts = np.searchsorted(columns[order], np.arange(scores.shape[1] + 1))
        n_true = np.diff(Y.indptr).astype(np.int64) if n_true is None else n_true
        first = scores.argmax(axis=1)
        fallback_hits = np.asarray(Y[np.arange(len(scores)), first], dtype=bool).ravel() & (not may_be_empty)
        return cls(starts, rows[order], values[order], positive[order], n_true, fallback_hits, floor)

    @property
    def n_concepts(self) -> int:
        """Columns of the score matrix."""
        return len(self.starts) - 1

    @property
    def order(self) -> NDArray[np.int64]:
        """Concepts with entries, those with the most entries first."""
        sizes = np.diff(self.starts)
        return np.argsort(-sizes, kind="stable")[: int((sizes > 0).sum())]

    def select(self, images: NDArray[np.int64]) -> "Candidates":
        """The entries of some images, which are numbered anew in the given order."""
        place = np.full(len(self.n_true), -1)
        place[images] = np.arange(len(images))
        selected = place[self.rows] >= 0
        starts = np.append(0, selected.cumsum())[self.starts]
        return Candidates(starts, place[self.rows[selected]], self.scores[selected], self.positive[selected],
                          self.n_true[images], self.fallback_hits[images], self.floor)  # fmt: skip

    def predict(self, thresholds: NDArray[np.float64]) -> Predictions:
        """Count predictions and hits of each image, with one threshold per concept."""
        passed = self.scores >= np.repeat(thresholds, np.diff(self.starts))
        n_images = len(self.n_true)
        n_predicted = np.bincount(self.rows[passed], minlength=n_images)
        return Predictions(n_predicted, np.bincount(self.rows[passed & self.positive], minlength=n_images))

    def f1(self, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
        """F1 per image, shape (n_images,), with one threshold per concept."""
        predictions = self.predict(thresholds)
        return self._f1(predictions.n_predicted, predictions.n_hits, slice(None))

    def _f1(
        self, n_predicted: NDArray[np.int64], n_hits: NDArray[np.int64], rows: NDArray[np.int64] | slice
    ) -> NDArray[np.float64]:
        """F1 of some images. An image without a prediction gets its most probable concept."""
        empty = n_predicted == 0
        n_hits, n_predicted = np.where(empty, self.fallback_hits[rows], n_hits), np.where(empty, 1, n_predicted)
        f1: NDArray[np.float64] = 2 * n_hits / (n_predicted + self.n_true[rows])
        return f1

    def improve(self, concept: int, thresholds: NDArray[np.float64], predictions: Predictions) -> bool:
        """Set one concept's threshold to its best value while all others stay.

        Only images with an entry of the concept can change. Their gain in F1 from predicting the concept is summed in
        the order of falling scores, so that every threshold between two scores is tried at once.

        Parameters
        ----------
        concept : int
        thresholds : ndarray of float64, shape (n_concepts,)
            Changed in place.
        predictions : Predictions
            Those at `thresholds`; changed in place.

        Returns
        -------
        bool
            Whether the threshold changed.
        """
        part = slice(self.starts[concept], self.starts[concept + 1])
        rows, positive, scores = self.rows[part], self.positive[part], self.scores[part]
        passed = scores >= thresholds[concept]
        n_predicted, n_hits = predictions.n_predicted[rows] - passed, predictions.n_hits[rows] - (passed & positive)
        gains = (self._f1(n_predicted + 1, n_hits + positive, rows) - self._f1(n_predicted, n_hits, rows)).cumsum()
        # Equal scores pass together; predicting the concept nowhere is a choice too, with a gain of 0.
        ends = np.append(scores[1:] < scores[:-1], True)
        n_passed = np.append(0, np.flatnonzero(ends) + 1)
        total = np.append(0.0, gains[ends])
        now = int(passed.sum())
        best = int(n_passed[total.argmax()])
        if best == now or total.max() <= (gains[now - 1] if now else 0.0) + TOLERANCE:
            return False
        # Halfway between two scores. If the concept is best predicted nowhere, halfway from its greatest score to 1,
        # and past 1 in case that score is 1.
        upper = float(scores[best - 1]) if best else 1.0
        lower = float(scores[best]) if best < len(scores) else self.floor
        thresholds[concept] = (upper + lower) / 2 if best else (upper + lower) / 2 + 1e-6
        predictions.n_predicted[rows], predictions.n_hits[rows] = n_predicted, n_hits
        predictions.n_predicted[rows[:best]] += 1
        predictions.n_hits[rows[:best]] += positive[:best]
        return True


def climb(candidates: Candidates, start: float) -> NDArray[np.float64]:
    """Coordinate ascent from one common threshold: stop when no single change improves F1, or after `MAX_PASSES`.

    Parameters
    ----------
    candidates : Candidates
    start : float

    Returns
    -------
    ndarray of float64, shape (n_concepts,)
        One threshold per concept.
    """
    thresholds = np.full(candidates.n_concepts, start)
    predictions = candidates.predict(thresholds)
    for _ in range(MAX_PASSES):
        changed = [candidates.improve(concept, thresholds, predictions) for concept in candidates.order]
        if not any(changed):
            break
    return thresholds


def shrink(
    own: NDArray[np.float64], common: float, n_positives: NDArray[np.int64], strength: float
) -> NDArray[np.float64]:
    """Draw thresholds towards a common one, those of rare concepts the most.

    A concept with n positive images keeps the share n / (n + strength) of its distance from the common threshold.

    Parameters
    ----------
    own : ndarray of float64, shape (n_concepts,)
    common : float
    n_positives : ndarray of int, shape (n_concepts,)
        How many images have each concept.
    strength : float
        In images, from 0 to infinity.

    Returns
    -------
    ndarray of float64, shape (n_concepts,)

    Examples
    --------
    >>> shrink(np.array([0.5, 0.5]), 0.3, np.array([30, 0]), 10.0).round(2).tolist()
    [0.45, 0.3]
    """
    if np.isinf(strength):
        return np.full_like(own, common)
    share = n_positives / np.maximum(n_positives + strength, 1e-9)
    shrunk: NDArray[np.float64] = common + share * (own - common)
    return shrunk
