"""The decoder that predicts the concept set with the greatest expected F1.

The size of the set follows from the probabilities alone; there is no threshold.

Notation, for one image. Its n concepts are sorted by falling probability, p(1) >= p(2) >= ... >= p(n). X(j) is 1 if
concept j is true, with probability p(j), independently of the others. Predicting a set S of k concepts has F1

    F1(S) = 2 H / (k + H + R),    H = sum of X(j) in S (hits),    R = sum of X(j) outside S (missed).

1. For each size, the best set is that of the k most probable concepts. Take a set with concept u and without v, where
   p(v) > p(u), and put v in the place of u. H + R is the number of true concepts and stays. If u and v are both true,
   or both not, H stays too. If exactly one of them is true, there is one hit more when that one is in the set. With h
   hits and r missed concepts besides u and v, the expected F1 changes by

       (P(only v) - P(only u)) * 2 / (k + h + r + 1) = (p(v) - p(u)) * 2 / (k + h + r + 1) > 0.

   So only the size k remains to be found.

2. Let H(k) be the hits among the first k concepts and R(k) the true ones among the rest. They are independent, so

       E F1(k) = sum over a = 0..k of  P(H(k) = a) * 2 a * E[1 / (k + a + R(k))].

   The distribution of hits grows by one concept at a time:

       P(H(k) = a) = (1 - p(k)) P(H(k-1) = a) + p(k) P(H(k-1) = a - 1).

   Let B(k, d) = E[1 / (d + R(k))]. Because R(k-1) = R(k) + X(k), it follows from the sizes above it:

       B(k-1, d) = (1 - p(k)) B(k, d) + p(k) B(k, d + 1).

   These are the recursions of Ye, Chai, Lee and Chieu, Optimizing F-measure: a tale of two approaches, 2012. They
   take O(n^2) steps for all sizes together.

3. Of thousands of concepts all but a few are unlikely. The recursions run over the most probable ones. The number of
   true concepts among the others is close to a Poisson variable N with their summed probability as its mean m: the
   total variation distance is at most the sum of their squared probabilities (Le Cam, 1960). So the recursion for B
   starts at the last likely concept with

       E[1 / (d + N)] = sum over i of  exp(-m) m^i / i! * 1 / (d + i).
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from eval.editions import MAX_CONCEPTS
from heads.data.types import Counts, Groups, Scores
from heads.decoders.base import Decoder
from heads.decoders.ranking import mark, most_probable

N_LIKELY = 32
"""Concepts per image that are treated exactly. If the best set has them all, as many as the task allows are."""

N_DEVIATIONS = 8.0
"""The Poisson series ends this many standard deviations (and terms) above the mean."""


class ExpectedF1(Decoder):
    """Predicts for each image the set of concepts with the greatest expected F1.

    Scores are taken as probabilities, and concepts as independent of each other. For every size the best set is that
    of the most probable concepts. The expected F1 of each size is computed, and the size with the greatest is used.
    The comment at the top of the module derives the formulas.

    A score of 0.4 must mean that 4 of 10 such concepts are true. Calibrate the scores first, as in
    ``platt+expected-f1``.

    Parameters
    ----------
    may_be_empty : bool
        Whether an image may be left without a concept. It is if that has the greater expected F1: predicting nothing
        scores 1 if the image has no concept, and 0 otherwise.

    Examples
    --------
    Two concepts are certain enough; the third would lower the expected F1.

    >>> scores = np.array([[0.9, 0.6, 0.2]], np.float32)
    >>> decoder = ExpectedF1().fit(scores, scipy.sparse.csr_matrix(scores.shape))
    >>> decoder.predict(scores).toarray().tolist()
    [[1, 1, 0]]
    """

    def _fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts, groups: Groups) -> None:
        """Nothing is learnt."""

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def _select(self, scores: Scores) -> NDArray[np.bool_]:
        n_concepts = scores.shape[1]
        n_likely = min(N_LIKELY, n_concepts)
        columns = most_probable(scores, n_likely)
        sizes = self._find_sizes(scores, columns)
        predicted = mark(columns, n_concepts, sizes)
        large = np.flatnonzero(sizes == n_likely)
        if len(large) and n_concepts > n_likely:
            columns = most_probable(scores[large], min(MAX_CONCEPTS, n_concepts))
            predicted[large] = mark(columns, n_concepts, self._find_sizes(scores[large], columns))
        return predicted

    def _find_sizes(self, scores: Scores, columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of the likely concepts to predict, shape (n_images,)."""
        likely = np.take_along_axis(scores, columns, axis=1).astype(np.float64)
        n_others = np.maximum(scores.sum(axis=1, dtype=np.float64) - likely.sum(axis=1), 0)
        f1 = expected_f1(likely, n_others)
        sizes: NDArray[np.int64] = f1.argmax(axis=1) + 1
        if self.may_be_empty:
            # The probability that the image has no concept, which is the expected F1 of predicting none.
            nothing = np.prod(1 - likely, axis=1) * np.exp(-n_others)
            sizes = np.where(nothing >= f1.max(axis=1), 0, sizes)
        return sizes

    def get_state(self) -> dict[str, Any]:
        """Return an empty dictionary: nothing is fitted."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Restore nothing."""
        return self


def expected_f1(likely: NDArray[np.float64], n_others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Expected F1 of predicting the first concept, the first two, and so on.

    Parameters
    ----------
    likely : ndarray of float64, shape (n_images, n_likely)
        Probabilities of the most probable concepts, falling.
    n_others : ndarray of float64, shape (n_images,)
        Summed probability of all other concepts.

    Returns
    -------
    ndarray of float64, shape (n_images, n_likely)

    Examples
    --------
    >>> expected_f1(np.array([[1.0, 0.5]]), np.zeros(1)).round(4).tolist()
    [[0.8333, 0.8333]]
    """
    n_images, n_likely = likely.shape
    hits = [np.ones((n_images, 1))]  # hits[k][:, a] is P(H(k) = a)
    for k in range(1, n_likely + 1):
        p = likely[:, k - 1 : k]
        grown = np.zeros((n_images, k + 1))
        grown[:, :-1] = (1 - p) * hits[-1]
        grown[:, 1:] += p * hits[-1]
        hits.append(grown)
    # inverse[:, d] is B(k, d), with k falling. F1 of size k needs d up to 2 k. Each step loses the greatest d.
    inverse = _expected_inverse(n_others, 2 * n_likely)
    f1 = np.empty((n_images, n_likely))
    for k in range(n_likely, 0, -1):
        f1[:, k - 1] = 2 * (hits[k] * np.arange(k + 1) * inverse[:, k : 2 * k + 1]).sum(axis=1)
        p = likely[:, k - 1 : k]
        inverse = (1 - p) * inverse[:, :-1] + p * inverse[:, 1:]
    return f1


def _expected_inverse(mean: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """E[1 / (d + N)] for a Poisson variable N and d from 0 to `most`, shape (n_images, most + 1).

    For d = 0 the term N = 0 is left out; sizes are at least 1, so that column is never used.
    """
    n_terms = int(np.ceil(mean.max(initial=0) + N_DEVIATIONS * np.sqrt(mean.max(initial=0)) + N_DEVIATIONS))
    offsets = np.arange(most + 1)
    total = np.zeros((len(mean), most + 1))
    probability = np.exp(-mean)  # of N = n
    for n in range(n_terms + 1):
        with np.errstate(divide="ignore"):
            inverse = 1 / (offsets + n)
        inverse[~np.isfinite(inverse)] = 0
        total += probability[:, None] * inverse
        probability = probability * mean / (n + 1)
    return total
