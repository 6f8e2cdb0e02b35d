"""What every decoder is: it turns scores into concept sets.

A decoder is separate from the head. It is fitted on scores of images that the head did not learn from.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from cache.support.errors import ParameterError
from heads.data.blocks import split_rows
from heads.data.types import Counts, Groups, Scores
from heads.decoders.ranking import BLOCK_ROWS, bound_sizes


class Decoder(BaseEstimator, ABC):
    """Base of all decoders. They predict at least one concept per image, and at most as many as the task allows.

    An image that has concepts scores 0 if none is predicted. So where a decoder would predict none, the most probable
    concept is predicted. Where it would predict more than 100, the 100 most probable are.

    A subclass implements `_fit`, which sets attributes whose names end in ``_``, and `_select`, `get_state` and
    `set_state`. If its name takes a value, as in ``fixed:0.3``, it also implements `parse`. If it has parameters of its
    own, it extends `check_params`.

    Parameters
    ----------
    may_be_empty : bool
        Whether an image may be left without a concept.
    """

    def __init__(self, may_be_empty: bool = False) -> None:
        self.may_be_empty = may_be_empty

    @classmethod
    def parse(cls, value: str) -> dict[str, Any]:
        """Read the value that follows a decoder's name, as in ``fixed:0.3``.

        Returns
        -------
        dict of str to object
            Parameters of the constructor.

        Raises
        ------
        ParameterError
            The decoder does not take this value. Most decoders take none.
        """
        raise ParameterError(f"it takes no value, found '{value}'")

    @property
    def tuned(self) -> bool:
        """Whether `fit` learns from the labels. If not, it ignores its arguments and needs no held-out scores."""
        return False

    def check_params(self) -> None:
        """Check the parameters; `fit` does it first.

        Raises
        ------
        ParameterError
            A parameter has the wrong type or is out of its range.
        """
        if not isinstance(self.may_be_empty, bool | np.bool_):
            raise ParameterError(f"may_be_empty = {self.may_be_empty!r}, expected True or False")

    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts = None, groups: Groups = None) -> Self:
        """Fit to scores and labels.

        Parameters
        ----------
        scores : ndarray of float32, shape (n_images, n_concepts)
            Scores of images that the head did not learn from.
        Y : sparse matrix or array of {0, 1}, shape (n_images, n_concepts)
        n_true : ndarray of int64, shape (n_images,), optional
            How many concepts each image truly has, those without a column included, because the official score
            counts them. The row sums of Y if not given.
        groups : ndarray, shape (n_images,), optional
            Group of each image, such as its patient. A decoder that cross-validates keeps a group in one fold.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            A parameter has the wrong type or is out of its range.
        ValueError
            The decoder learns from labels, and the shapes of scores and Y differ.
        """
        self.check_params()
        Y = scipy.sparse.csr_matrix(Y)
        if self.tuned and Y.shape != scores.shape:
            raise ValueError(f"scores have shape {scores.shape} and Y {Y.shape}, expected the same")
        self._fit(scores, Y, n_true, groups)
        return self

    @abstractmethod
    def _fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts, groups: Groups) -> None:
        """Fit, with parameters that have been checked."""

    def calibrate(self, scores: Scores) -> Scores:
        """The probabilities that the decoder sees: the scores themselves, if it does not calibrate them.

        Parameters
        ----------
        scores : ndarray of float32, shape (n_images, n_concepts)
        """
        return scores

    def predict(self, scores: Scores) -> scipy.sparse.csr_matrix:
        """Predict the concepts of each image.

        Parameters
        ----------
        scores : ndarray of float32, shape (n_images, n_concepts)

        Returns
        -------
        sparse matrix of {0, 1}, int8, shape (n_images, n_concepts)

        Raises
        ------
        NotFittedError
            `fit` has not been called.
        """
        check_is_fitted(self)
        blocks = [self._predict_block(scores[block]) for block in split_rows(len(scores), BLOCK_ROWS)]
        if not blocks:
            return scipy.sparse.csr_matrix(scores.shape, dtype=np.int8)
        return scipy.sparse.vstack(blocks, format="csr")

    def _predict_block(self, scores: Scores) -> scipy.sparse.csr_matrix:
        """Predict the concepts of a block of images."""
        predicted = bound_sizes(self._select(scores), scores, self.may_be_empty)
        return scipy.sparse.csr_matrix(predicted, dtype=np.int8)

    @abstractmethod
    def _select(self, scores: Scores) -> NDArray[np.bool_]:
        """Predicted concepts, before the minimum of one and the maximum of 100 are enforced."""

    def report(self) -> dict[str, Any]:
        """Return what `fit` found out besides, such as the gain on held-out images, as JSON can hold it."""
        return {}

    @abstractmethod
    def get_state(self) -> dict[str, Any]:
        """Return what was fitted, as JSON can hold it."""

    @abstractmethod
    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Restore what `get_state` returned.

        Raises
        ------
        DamagedFileError
            Something is missing, has the wrong type or is out of its range. `cache.support.json_file.check_type` raises
            it, and any other ValueError is taken for the same.
        """

    def check_concepts(self, n_concepts: int) -> None:
        """Check that what was restored is for so many concepts, if that is known.

        Raises
        ------
        DamagedFileError
            It is for another number of concepts.
        """
