"""Decoders: from scores to concept sets. Separate from the head, and fitted on scores the head did not train on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from cache.support.errors import ParameterError
from eval.editions import MAX_CONCEPTS
from heads.data.types import Counts, Groups, Scores

ROWS = 2048
"""Images that are decoded at a time: what is sorted stays small."""


class Decoder(BaseEstimator, ABC):
    """Base of all decoders: at least one concept an image, at most as many as the task allows.

    An image without concepts scores 0, so where nothing would be named the most probable concept is. Where more than
    100 would be, the most probable 100 are.

    Parameters
    ----------
    may_be_empty : bool
        Whether an image may be given no concept.
    """

    tuned = False
    """Whether `fit` looks at the labels."""

    def __init__(self, may_be_empty: bool = False) -> None:
        self.may_be_empty = may_be_empty

    @classmethod
    def parse(cls, value: str) -> dict[str, Any]:
        """Read the value that may stand behind a decoder's name, as in ``fixed:0.3``.

        Returns
        -------
        dict of str to object
            Parameters of the constructor.

        Raises
        ------
        ParameterError
            The decoder does not take this value; most take none.
        """
        raise ParameterError(f"it takes no value, found '{value}'")

    @abstractmethod
    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts = None, groups: Groups = None) -> Self:
        """Fit to scores and labels.

        Parameters
        ----------
        scores : ndarray of float32, shape (n_images, n_concepts)
            Of images that the head did not learn from.
        Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
        n_true : ndarray of int, shape (n_images,), optional
            How many concepts each image truly has, those without a column included: the official score counts
            them. The row sums of Y if not given.
        groups : ndarray, shape (n_images,), optional
            What a decoder that is cross-validated holds out together.
        """

    def predict(self, scores: Scores) -> scipy.sparse.csr_matrix:
        """Indicator of the concepts that each image is given, shape (n_images, n_concepts)."""
        parts = [self._name(scores[start : start + ROWS]) for start in range(0, len(scores), ROWS)]
        return (
            scipy.sparse.vstack(parts, format="csr") if parts else scipy.sparse.csr_matrix(scores.shape, dtype=np.int8)
        )

    def _name(self, scores: Scores) -> scipy.sparse.csr_matrix:
        named = self._choose(scores)
        if not self.may_be_empty:
            none = np.flatnonzero(~named.any(axis=1))
            named[none, scores[none].argmax(axis=1)] = True
        for row in np.flatnonzero(named.sum(axis=1) > MAX_CONCEPTS):
            columns = np.flatnonzero(named[row])
            named[row, columns[np.argsort(-scores[row, columns], kind="stable")[MAX_CONCEPTS:]]] = False
        return scipy.sparse.csr_matrix(named, dtype=np.int8)

    @abstractmethod
    def _choose(self, scores: Scores) -> NDArray[np.bool_]:
        """Which concepts are named, before none and too many are seen to."""

    def report(self) -> dict[str, Any]:
        """What `fit` has to tell, as JSON holds it: what was gained on images that were held out."""
        return {}

    @abstractmethod
    def get_state(self) -> dict[str, Any]:
        """What was fitted, as JSON holds it."""

    @abstractmethod
    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Take back what `get_state` gave; what is missing or odd is a KeyError, TypeError or ValueError."""
