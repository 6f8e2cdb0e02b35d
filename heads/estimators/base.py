"""What every head is: a scikit-learn classifier from embeddings to one score a concept."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted, validate_data

from cache.support.errors import UserError

State = dict[str, NDArray[Any]]
Trial = Mapping[str, Any]


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
    watch : callable or None
        If set, told while fitting how many of what it `counts` are done, and of how many.
    counts : str
        What progress counts.
    takes_maps : bool
        Whether it learns from the maps of a cut network rather than from embeddings.
    checkpoint : Path or None
        Where a head that trains for long keeps the last epoch, to go on from after a kill.
    """

    watch: Callable[[int, int], None] | None = None
    counts = "concepts"
    takes_maps = False
    checkpoint: Path | None = None

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
        self._fit(*self._check(X, Y))
        return self

    def _check(self, X: ArrayLike, Y: Any) -> tuple[NDArray[np.float32], scipy.sparse.csr_matrix]:
        """What `fit` was given, in the form that heads learn from; notes its shape."""
        self.check_params()
        embeddings = self._check_features(X)
        Y = check_indicator(Y)
        if Y.shape[0] != len(embeddings):
            raise ValueError(f"X has {len(embeddings):,} rows and Y {Y.shape[0]:,}, expected as many")
        self.n_concepts_ = Y.shape[1]
        return embeddings, Y

    def _check_features(self, X: Any, reset: bool = True) -> Any:
        """What heads work on: float32 embeddings, of the length that is noted or, with `reset`, newly noted."""
        return validate_data(self, X, dtype=np.float32, reset=reset)

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that targets are indicator matrices and nothing else."""
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output, tags.target_tags.multi_output = False, True
        tags.classifier_tags.multi_class, tags.classifier_tags.multi_label = False, True
        return tags

    @property
    def classes_(self) -> list[NDArray[np.int64]]:
        """The values of each concept's column, as scikit-learn asks of a classifier with several outputs."""
        check_is_fitted(self, "n_concepts_")
        return [np.array([0, 1])] * self.n_concepts_

    def fit_each(self, X: ArrayLike, Y: Any, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Self]]:
        """Fit once with each of several settings; a head that can share work between them does.

        Parameters
        ----------
        X, Y
            As `fit` takes them.
        trials : sequence of mapping
            Parameters that differ from this head's.

        Yields
        ------
        trial : mapping
        head : Head
            A new one, fitted with it. Heads that share work may come in another order than the trials.
        """
        for trial in trials:
            yield trial, self.with_params(trial).fit(X, Y)

    def with_params(self, trial: Trial) -> Self:
        """A new head with some parameters set otherwise."""
        head: Self = clone(self).set_params(**trial)
        head.watch = self.watch
        return head

    def take_network(self, path: Path) -> None:
        """Take what is needed of the network whose features it will learn from: of most heads, nothing.

        Parameters
        ----------
        path : Path
            What follows the cut, as a Keras model.
        """

    def _tell_progress(self, n_done: int, n_all: int) -> None:
        if self.watch:
            self.watch(n_done, n_all)

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
        scores = self._scores(self._check_embeddings(X))
        if not np.isfinite(scores).all():
            raise ValueError("scores are not finite: training has diverged; choose a lower learning rate")
        return scores

    def _check_embeddings(self, X: ArrayLike) -> NDArray[np.float32]:
        """What a fitted head was given to score, in the form that heads score."""
        check_is_fitted(self, "n_concepts_")
        embeddings: NDArray[np.float32] = self._check_features(X, reset=False)
        return embeddings

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

    def to_keras(self) -> Any:
        """This head as a Keras model, for use without this project.

        Returns
        -------
        keras.Model
            From features, as they stand in a store, to the scores of `predict_proba`. It is made of Keras' own layers
            and operations alone.

        Raises
        ------
        UserError
            The head has no such form.
        """
        raise UserError(f"{type(self).__name__} has no form as a Keras model; export a run of another head")

    @abstractmethod
    def _fit(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> None:
        """Learn; parameters, shapes and values are checked already."""

    @abstractmethod
    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score; shapes and values are checked already."""

    @abstractmethod
    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take back the arrays of `get_state`; a missing one is a KeyError."""


def check_indicator(Y: Any) -> scipy.sparse.csr_matrix:
    """Check that labels are an indicator matrix; a new sparse one of float32 without stored zeros.

    Parameters
    ----------
    Y : array or sparse matrix of {0, 1}, shape (n_images, n_concepts)

    Raises
    ------
    ValueError
        They are not.

    Examples
    --------
    >>> check_indicator([[0, 2]])
    Traceback (most recent call last):
    ValueError: Unknown label type: Y holds other values than 0 and 1. Only binary classification is supported.
    """
    if Y is None:
        raise ValueError("a head requires y to be passed, but the target y is None")
    values = Y if scipy.sparse.issparse(Y) else np.asarray(Y)
    named = values.data if scipy.sparse.issparse(values) else values
    # The words that scikit-learn's tools look for.
    if not np.all((named == 0) | (named == 1)):
        raise ValueError(
            "Unknown label type: Y holds other values than 0 and 1. Only binary classification is supported."
        )
    if values.ndim != 2:
        raise ValueError(f"Y has shape {values.shape}, expected a row an image and a column a concept")
    if values.shape[1] == 0:
        raise ValueError("Y has no column, expected at least one concept")
    indicator = scipy.sparse.csr_matrix(values, dtype=np.float32)
    if (indicator.data == 1).all() and indicator.has_canonical_format:
        return indicator
    indicator = indicator.copy()
    indicator.sum_duplicates()
    indicator.eliminate_zeros()
    return indicator


def check_number(
    value: object, name: str, kind: type, least: float, most: float = np.inf, closed: str = "both"
) -> None:
    """Check that a parameter is a number in a range.

    Parameters
    ----------
    value : object
    name : str
    kind : type
        ``int``, or ``float`` for any number. True and False are neither.
    least, most : float
    closed : str
        Which ends belong to the range: ``both``, ``left``, ``right`` or ``neither``, as in scikit-learn.

    Raises
    ------
    ValueError, TypeError
        It is not.
    """
    if isinstance(value, bool) or (isinstance(value, float) and not np.isfinite(value)):
        raise TypeError(f"{name} must be a finite number, found {value}")
    kinds = (int, float) if kind is float else kind
    most_or_none = None if np.isinf(most) else most
    check_scalar(value, name, kinds, min_val=least, max_val=most_or_none, include_boundaries=_one_sided(closed, most))


def _one_sided(closed: str, most: float) -> str:
    """scikit-learn wants no word on an end that is not there."""
    if np.isinf(most):
        return {"both": "both", "left": "both"}.get(closed, "neither")
    return closed


def positive_rate(Y: scipy.sparse.csr_matrix) -> NDArray[np.float32]:
    """Share of images that show each concept, shape (n_concepts,)."""
    # Not the mean of float32, which can miss 1 for a concept that is in every image.
    return (np.asarray(Y.sum(axis=0, dtype=np.float64)).ravel() / Y.shape[0]).astype(np.float32)
