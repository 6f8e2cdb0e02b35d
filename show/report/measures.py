"""The numbers behind the figures, computed block by block, so that memory does not grow with the images."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from heads.data.types import Scores
from heads.decoders.ranking import rank

THRESHOLDS: NDArray[np.float64] = np.round(np.arange(1, 100) / 100, 2)
MAX_SIZE = 20
"""Most concepts per image in the curve of F1 against their number."""

N_BINS = 10
NONE = ""
"""In a confusion: no concept of the group."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often what has a score is true.

    Parameters
    ----------
    n_pairs, n_true : ndarray of int64, shape (n_bins,)
        Pairs of image and concept whose score is in each bin, and how many of them are true.
    summed : ndarray of float64, shape (n_bins,)
        The sum of their scores.
    """

    n_pairs: NDArray[np.int64]
    n_true: NDArray[np.int64]
    summed: NDArray[np.float64]

    @property
    def points(self) -> NDArray[np.float64]:
        """Mean score and share that is true, of each bin that is not empty, shape (n_filled, 2)."""
        filled = self.n_pairs > 0
        return np.column_stack([self.summed, self.n_true])[filled] / self.n_pairs[filled, None]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of score and share over all pairs (Naeini and others, 2015)."""
        return float(np.abs(self.summed - self.n_true).sum() / max(self.n_pairs.sum(), 1))


@dataclass(frozen=True, eq=False)
class ScoreCurves:
    """What follows from the scores alone, whatever the run's decoder makes of them.

    Parameters
    ----------
    f1_at_threshold : ndarray of float64, shape (n_thresholds,)
        Mean F1 per image if each concept at or above one of `THRESHOLDS` is predicted, and at least one per image.
    f1_at_size : ndarray of float64, shape (n_sizes,)
        The same if the 1, 2, ... most probable concepts are predicted.
    raw, calibrated : Reliability
        Of the head's scores, and of the probabilities that the decoder makes of them.
    """

    f1_at_threshold: NDArray[np.float64]
    f1_at_size: NDArray[np.float64]
    raw: Reliability
    calibrated: Reliability


def measure_scores(
    blocks: Iterable[tuple[slice, Scores]],
    calibrate: Callable[[Scores], Scores],
    Y: scipy.sparse.csr_matrix,
    n_true: NDArray[np.int64],
) -> ScoreCurves:
    """Measure scores of labelled images.

    Parameters
    ----------
    blocks : iterable of (slice, ndarray of float32)
        Scores of some images at a time, shape (n_rows, n_concepts), with their rows.
    calibrate : callable
        From scores to the probabilities that the decoder decides on.
    Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
    n_true : ndarray of int64, shape (n_images,)
        True concepts of each image, those without a column included.
    """
    n_images, n_sizes = Y.shape[0], min(MAX_SIZE, Y.shape[1])
    at_threshold, at_size = np.zeros(len(THRESHOLDS)), np.zeros(n_sizes)
    sums = {kind: np.zeros((3, N_BINS)) for kind in ("raw", "calibrated")}
    for rows, scores in blocks:
        probabilities = calibrate(scores)
        ranked, hits, true = rank(probabilities, Y[rows], n_true[rows])
        f1 = 2 * hits.cumsum(axis=1) / (np.arange(1, hits.shape[1] + 1) + true[:, None])
        at_size += f1[:, :n_sizes].sum(axis=0)
        # How many of an image's ranked scores reach each threshold; at least one is predicted.
        for place, threshold in enumerate(THRESHOLDS.astype(np.float32)):
            n_passed = np.maximum(np.count_nonzero(ranked >= threshold, axis=1), 1)
            at_threshold[place] += np.take_along_axis(f1, n_passed[:, None] - 1, axis=1).sum()
        for kind, values in (("raw", scores), ("calibrated", probabilities)):
            sums[kind] += _sum_bins(values, Y[rows])
    raw, calibrated = (
        Reliability(pairs.astype(np.int64), positive.astype(np.int64), summed)
        for pairs, positive, summed in sums.values()
    )
    return ScoreCurves(at_threshold / n_images, at_size / n_images, raw, calibrated)


def _sum_bins(scores: Scores, Y: scipy.sparse.csr_matrix) -> NDArray[np.float64]:
    """Pairs, true pairs and summed scores of each bin, shape (3, n_bins)."""
    bins = np.minimum((scores * N_BINS).astype(np.int8), N_BINS - 1)
    rows, columns = Y.nonzero()
    pairs = np.bincount(bins.ravel(), minlength=N_BINS)
    positive = np.bincount(bins[rows, columns], minlength=N_BINS)
    summed = np.bincount(bins.ravel(), weights=scores.ravel(), minlength=N_BINS)
    return np.stack([pairs, positive, summed])


@dataclass(frozen=True)
class Confusion:
    """What is predicted in place of what, within a group of concepts.

    Parameters
    ----------
    concepts : list of str
        The concepts that occur, the most frequent first, and `NONE` at the end.
    counts : list of list of int, shape (n_concepts, n_concepts)
        Rows are true, columns predicted.
    """

    concepts: list[str]
    counts: list[list[int]]


def find_confusion(
    truth: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]], group: frozenset[str]
) -> Confusion:
    """Count what is predicted in place of what.

    A concept that is hit counts on the diagonal. A missed one counts once for each wrong one of its image, or with
    `NONE` if there is none; so does a wrong one where nothing was missed.

    Parameters
    ----------
    truth, predicted : iterable of sequence of str
        Concepts of each image.
    group : frozenset of str
        Such as all modalities.

    Examples
    --------
    >>> find_confusion([["CT"], ["MR"]], [["CT"], ["CT"]], frozenset({"CT", "MR"}))
    Confusion(concepts=['CT', 'MR', ''], counts=[[1, 0, 0], [1, 0, 0], [0, 0, 0]])
    """
    pairs: Counter[tuple[str, str]] = Counter()
    sizes: Counter[str] = Counter()
    for true, given in zip(truth, predicted, strict=True):
        true_set, given_set = group.intersection(true), group.intersection(given)
        sizes.update(true_set), sizes.update(dict.fromkeys(given_set, 0))
        missed, wrong = sorted(true_set - given_set), sorted(given_set - true_set)
        pairs.update((each, each) for each in true_set & given_set)
        if missed or wrong:
            pairs.update((one, other) for one in missed or [NONE] for other in wrong or [NONE])
    concepts = [*sorted(sizes, key=lambda each: (-sizes[each], each)), NONE]
    return Confusion(concepts, [[pairs[one, other] for other in concepts] for one in concepts])


def count_sizes(
    truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], most: int = 12
) -> NDArray[np.int64]:
    """Images by their true and predicted number of concepts.

    Parameters
    ----------
    truth, predicted : sequence of sequence of str, length n_images
    most : int
        Larger numbers count as this one.

    Returns
    -------
    ndarray of int64, shape (most + 1, most + 1)
        Rows are the true number, columns the predicted one.

    Examples
    --------
    >>> count_sizes([["a"], ["a", "b"]], [["a"], ["a"]], most=2).tolist()
    [[0, 0, 0], [0, 1, 0], [0, 1, 0]]
    """
    counts = np.zeros((most + 1, most + 1), np.int64)
    for true, given in zip(truth, predicted, strict=True):
        counts[min(len(set(true)), most), min(len(set(given)), most)] += 1
    return counts
