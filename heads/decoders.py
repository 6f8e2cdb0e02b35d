"""Decoders: from scores to concept sets. Separate from the head, and fitted on scores the head did not train on."""

from abc import ABC, abstractmethod
from pkgutil import resolve_name
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_scalar

from cache.errors import UserError
from eval.editions import MAX_CONCEPTS
from heads import DECODERS


class Decoder(BaseEstimator, ABC):
    """Base of all decoders: one threshold, at least one concept an image, at most as many as the task allows.

    An image without concepts scores 0, so where no score reaches the threshold the most probable concept is
    named. Where more than 100 do, the most probable 100 are.

    Attributes
    ----------
    threshold_ : float
        A concept is named if its score is at least this.
    """

    tuned = False
    """Whether `fit` looks at the labels."""

    threshold_: float

    @abstractmethod
    def fit(
        self, scores: NDArray[np.float32], Y: scipy.sparse.csr_matrix, n_true: NDArray[np.int64] | None = None
    ) -> Self:
        """Fit to scores and labels.

        Parameters
        ----------
        scores : ndarray of float32, shape (n_images, n_concepts)
        Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
        n_true : ndarray of int, shape (n_images,), optional
            How many concepts each image truly has, those without a column included: the official score counts
            them. The row sums of Y if not given.
        """

    def predict(self, scores: NDArray[np.float32]) -> scipy.sparse.csr_matrix:
        """Indicator of the concepts that each image is given, shape (n_images, n_concepts)."""
        named = scores >= self.threshold_
        named[np.arange(len(scores)), scores.argmax(axis=1)] = True
        for row in np.flatnonzero(named.sum(axis=1) > MAX_CONCEPTS):
            named[row, np.argsort(-scores[row], kind="stable")[MAX_CONCEPTS:]] = False
        return scipy.sparse.csr_matrix(named, dtype=np.int8)


class FixedThreshold(Decoder):
    """The threshold that was asked for; 0.3 and 0.5 are the paper's.

    Parameters
    ----------
    threshold : float
    """

    def __init__(self, threshold: float = 0.3) -> None:
        self.threshold = threshold

    def fit(
        self, scores: NDArray[np.float32], Y: scipy.sparse.csr_matrix, n_true: NDArray[np.int64] | None = None
    ) -> Self:
        """Take the threshold as it is."""
        check_scalar(self.threshold, "threshold", (int, float), min_val=0, max_val=1)
        self.threshold_ = float(self.threshold)
        return self


class GlobalThreshold(Decoder):
    """The one threshold of greatest mean F1 an image, out of all that tell two scores apart.

    Examples
    --------
    >>> scores = np.array([[0.9, 0.4, 0.1], [0.2, 0.7, 0.6]], np.float32)
    >>> Y = scipy.sparse.csr_matrix([[1, 1, 0], [0, 1, 1]])
    >>> decoder = GlobalThreshold().fit(scores, Y)
    >>> decoder.predict(scores).toarray().tolist()
    [[1, 1, 0], [0, 1, 1]]
    """

    tuned = True

    def fit(
        self, scores: NDArray[np.float32], Y: scipy.sparse.csr_matrix, n_true: NDArray[np.int64] | None = None
    ) -> Self:
        """Sweep the threshold down over every distinct score."""
        order = np.argsort(-scores, axis=1, kind="stable")
        ranked = np.take_along_axis(scores, order, axis=1)
        hits = np.take_along_axis(np.asarray(Y.toarray(), dtype=np.float64), order, axis=1)
        named = np.arange(1, scores.shape[1] + 1)
        true = hits.sum(axis=1) if n_true is None else n_true
        f1 = 2 * hits.cumsum(axis=1) / (named + true[:, None])
        f1[:, MAX_CONCEPTS:] = f1[:, MAX_CONCEPTS - 1 : MAX_CONCEPTS]  # no more are named, however low the threshold
        # What lowering the threshold past a score adds to its image's F1; the first concept is named anyway.
        gains = np.diff(f1, axis=1, prepend=f1[:, :1])
        by_score = np.argsort(-ranked, axis=None, kind="stable")
        swept, total = ranked.ravel()[by_score], gains.ravel()[by_score].cumsum()
        last = np.append(np.flatnonzero(np.diff(swept)), len(swept) - 1)  # equal scores pass together
        best = last[total[last].argmax()]
        following = swept[best + 1] if best + 1 < len(swept) else 0.0
        # In the middle of the gap: the score itself would be missed by a rounding error.
        self.threshold_ = float((np.float64(swept[best]) + np.float64(following)) / 2)
        return self


def make_decoder(text: str) -> Decoder:
    """Make a decoder from ``NAME`` or ``NAME:VALUE``, such as ``fixed:0.3``.

    Raises
    ------
    UserError
        The name is unknown (the known ones are listed), or the value is not for it.
    """
    name, colon, value = text.partition(":")
    if name not in DECODERS:
        raise UserError(f"no decoder '{name}'; there are {', '.join(DECODERS)}, such as fixed:0.3")
    kind: Any = resolve_name(DECODERS[name])
    if not colon:
        return kind()
    if name != "fixed":
        raise UserError(f"decoder '{name}' takes no value, found '{value}'")
    try:
        threshold = float(value)
    except ValueError:
        threshold = -1.0
    if not 0 <= threshold <= 1:
        raise UserError(f"decoder '{text}': expected a threshold from 0 to 1, such as fixed:0.3")
    return kind(threshold=threshold)
