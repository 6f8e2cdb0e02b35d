"""The concept set of greatest expected F1."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from eval.editions import MAX_CONCEPTS
from heads.data.types import Counts, Groups, Scores
from heads.decoders.base import Decoder
from heads.decoders.top_k import most_probable

LIKELY = 32
"""Concepts of an image whose probabilities are taken exactly; as many as the task allows if the best set is larger."""

TAIL = 8.0
"""Standard deviations of the number of unlikely concepts that are summed over."""


class ExpectedF1(Decoder):
    """For each image the set of greatest expected F1, if concepts occur independently with the given probabilities.

    For each size the best set is that of the most probable concepts, because what a concept adds grows with its
    probability; so only the size is sought. Its expected F1 is exact over the likely concepts; how many of the others
    the image shows is taken for a Poisson variable, which is nearly exact as each is unlikely (Le Cam, 1960). The
    recursions are those of Ye, Chai, Lee and Chieu, Optimizing F-measure, 2012.

    Scores must be probabilities: calibrate them first.

    Parameters
    ----------
    may_be_empty : bool
        Whether an image may be given no concept, if it probably shows none.
    """

    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts = None, groups: Groups = None) -> Self:
        """Nothing is to be learnt."""
        return self

    def _choose(self, scores: Scores) -> NDArray[np.bool_]:
        n_likely = min(LIKELY, scores.shape[1])
        columns = most_probable(scores, n_likely)
        sizes = self._sizes(scores, columns)
        large = np.flatnonzero(sizes == n_likely)
        named = _mark(scores.shape, columns, sizes)
        if len(large) and scores.shape[1] > n_likely:
            columns = most_probable(scores[large], min(MAX_CONCEPTS, scores.shape[1]))
            named[large] = _mark((len(large), scores.shape[1]), columns, self._sizes(scores[large], columns))
        return named

    def _sizes(self, scores: Scores, columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of the likely concepts to name, shape (n_images,)."""
        likely = np.take_along_axis(scores, columns, axis=1).astype(np.float64)
        others = np.maximum(scores.sum(axis=1, dtype=np.float64) - likely.sum(axis=1), 0)
        f1 = expected_f1(likely, others)
        if self.may_be_empty:
            # An image that shows nothing scores 1 if nothing is named.
            nothing = np.prod(1 - likely, axis=1) * np.exp(-others)
            return np.where(nothing >= f1.max(axis=1), 0, f1.argmax(axis=1) + 1)
        return f1.argmax(axis=1) + 1

    def get_state(self) -> dict[str, Any]:
        """Nothing was fitted."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Nothing to take back."""
        return self


def expected_f1(likely: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Expected F1 of the first concept, the first two, and so on.

    Parameters
    ----------
    likely : ndarray of float64, shape (n_images, n_likely)
        Probabilities, falling.
    others : ndarray of float64, shape (n_images,)
        How many other concepts are expected.

    Returns
    -------
    ndarray of float64, shape (n_images, n_likely)

    Examples
    --------
    >>> expected_f1(np.array([[1.0, 0.5]]), np.zeros(1)).round(4).tolist()
    [[0.8333, 0.8333]]
    """
    n_images, n_likely = likely.shape
    # within[k][:, a]: the probability that a of the first k concepts are shown.
    within = [np.ones((n_images, 1))]
    for k in range(n_likely):
        p = likely[:, k : k + 1]
        grown = np.zeros((n_images, k + 2))
        grown[:, :-1] = (1 - p) * within[-1]
        grown[:, 1:] += p * within[-1]
        within.append(grown)
    # beyond[:, d]: the expectation of 1 / (d + how many of the concepts after the first k are shown), for k falling.
    most = 3 * n_likely + 1
    beyond = _expected_inverse(others, most)
    f1 = np.empty((n_images, n_likely))
    for k in range(n_likely, 0, -1):
        hits = np.arange(k + 1)
        f1[:, k - 1] = 2 * (within[k] * hits * beyond[:, k : 2 * k + 1]).sum(axis=1)
        p = likely[:, k - 1 : k]
        beyond = (1 - p) * beyond[:, :-1] + p * beyond[:, 1:]
    return f1


def _expected_inverse(mean: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Expectation of 1 / (d + N) for a Poisson variable N and d from 0 to `most`; 0 in the place of d = 0."""
    n_terms = int(np.ceil(mean.max(initial=0) + TAIL * np.sqrt(mean.max(initial=0)) + TAIL))
    offsets = np.arange(most + 1)
    total = np.zeros((len(mean), most + 1))
    term = np.exp(-mean)
    for n in range(n_terms + 1):
        with np.errstate(divide="ignore"):
            inverse = 1 / (offsets + n)
        inverse[~np.isfinite(inverse)] = 0
        total += term[:, None] * inverse
        term = term * mean / (n + 1)
    return total


def _mark(shape: tuple[int, ...], columns: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the first columns of each row, as many as its size."""
    named = np.zeros(shape, bool)
    np.put_along_axis(named, columns, np.arange(columns.shape[1]) < sizes[:, None], axis=1)
    return named
