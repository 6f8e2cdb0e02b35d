"""What every head is: a scikit-learn classifier from embeddings to one score a concept."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_array, check_is_fitted

from cache.errors import UserError
from heads import HEADS

State = dict[str, NDArray[Any]]


class Head(ClassifierMixin, BaseEstimator, ABC):
    """Base of all heads.

    A head keeps what it has learnt in arrays: `get_state` gives them, `set_state` takes them back, and nothing
    else is ever saved, so that reading a stranger's run executes nothing.

    Attributes
    ----------
    n_features_in_ : int
        Length of an embedding.
    n_concepts_ : int
        Columns of the scores.
    """

    def fit(self, X: ArrayLike, Y: Any) -> Self:
        """Learn from embeddings and an indicator matrix.

        Parameters
        ----------
        X : array of float, shape (n_images, n_features)
            Embeddings.
        Y : array or sparse matrix of {0, 1}, shape (n_images, n_concepts)
            Which concepts each image shows. A concept that no image or every image shows is allowed.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            A parameter is out of its range, shapes disagree, or X holds NaN or infinity.
        """
        self.check_params()
        embeddings: NDArray[np.float32] = check_array(X, dtype=np.float32)
        Y = scipy.sparse.csr_matrix(Y, dtype=np.float32)
        if Y.shape[0] != len(embeddings):
            raise ValueError(f"X has {len(embeddings):,} rows and Y {Y.shape[0]:,}, expected as many")
        if Y.shape[1] == 0:
            raise ValueError("Y has no column, expected at least one concept")
        if not np.isin(Y.data, (0, 1)).all():
            raise ValueError("Y holds other values than 0 and 1")
        self.n_features_in_, self.n_concepts_ = embeddings.shape[1], Y.shape[1]
        self._fit(embeddings, Y)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """Score every concept of every image.

        Parameters
        ----------
        X : array of float, shape (n_images, n_features)

        Returns
        -------
        ndarray of float32, shape (n_images, n_concepts)
            In [0, 1].
        """
        check_is_fitted(self, "n_concepts_")
        embeddings: NDArray[np.float32] = check_array(X, dtype=np.float32)
        if embeddings.shape[1] != self.n_features_in_:
            raise ValueError(f"X has {embeddings.shape[1]:,} features, expected {self.n_features_in_:,} as in fit")
        return self._scores(embeddings)

    def predict(self, X: ArrayLike) -> NDArray[np.int8]:
        """Indicator of the concepts whose score is at least 0.5, shape (n_images, n_concepts)."""
        return (self.predict_proba(X) >= 0.5).astype(np.int8)

    def check_params(self) -> None:
        """Check parameters before anything is computed.

        Raises
        ------
        ValueError, TypeError
            A parameter is out of its range.
        """

    @abstractmethod
    def get_state(self) -> State:
        """What was learnt, as named arrays."""

    def set_state(self, state: Mapping[str, NDArray[Any]], n_features: int, n_concepts: int) -> Self:
        """Take back what `get_state` gave."""
        self.n_features_in_, self.n_concepts_ = n_features, n_concepts
        self._restore(state)
        return self

    @abstractmethod
    def _fit(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> None:
        """Learn; parameters, shapes and values are checked already."""

    @abstractmethod
    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score; shapes and values are checked already."""

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        for name, array in state.items():
            setattr(self, name + "_", array)


def make_head(name: str, params: Mapping[str, Any] | None = None) -> Head:
    """Make a head by its name in the registry, with parameters.

    Raises
    ------
    UserError
        The head or a parameter is unknown (the known ones are listed), or a value is out of range.
    """
    if name not in HEADS:
        raise UserError(f"no head '{name}'; there are {', '.join(HEADS)}")
    head: Head = resolve_name(HEADS[name])()
    try:
        head.set_params(**(params or {}))
        head.check_params()
    except (ValueError, TypeError) as error:
        raise UserError(f"head '{name}': {error}") from error
    return head


def positive_rate(Y: scipy.sparse.csr_matrix) -> NDArray[np.float32]:
    """Share of images that show each concept, shape (n_concepts,)."""
    # Not the mean of float32, which can miss 1 for a concept that is in every image.
    return (np.asarray(Y.sum(axis=0, dtype=np.float64)).ravel() / Y.shape[0]).astype(np.float32)
