"""The base class of heads: scikit-learn classifiers from embeddings to one score per concept."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from cache.support.errors import ParameterError, UserError
from cache.support.json_file import DamagedFileError
from heads.data.arrays import SavedArray, check_arrays
from heads.data.folds import other_rows
from heads.data.types import Arrays
from heads.data.validation import check_indicator
from heads.estimators.linearization import Linearization, Neighbours

Trial = Mapping[str, Any]
ProgressCallback = Callable[[int, int], None]
"""Gets how much is done, and how much there is to do."""


class Head(ClassifierMixin, BaseEstimator, ABC):
    """Base of all heads.

    A new head is one file in `heads/estimators/` with a subclass, and one line in `heads/registry.py`. The subclass has

    - ``__init__``, which stores its parameters unchanged, as in scikit-learn;
    - `_fit`, which learns and stores arrays in attributes whose names end in ``_``;
    - `_scores`, which returns scores in [0, 1];
    - `arrays`, the names of these attributes without the ``_``. They are saved, and nothing else is, so reading a run
      of a stranger executes nothing.

    It may also have

    - `check_params`, which refuses parameters out of range before anything is computed, and `check_data`, which refuses
      those that do not fit the data;
    - `to_keras`, the head as a Keras model, without which a run cannot be exported;
    - `_linearize`, how its scores change with the features, without which no heat map can be drawn;
    - `fit_each`, if fitting several settings together is faster than one by one, and `fit_folds`, if the fits of a
      cross-validation can share work;
    - `get_state` and `_restore` instead of `arrays`, if what was learnt is not a few arrays.

    All else is inherited: checks of shapes and values, `predict`, what scikit-learn's tools need, saving and loading.

    Attributes
    ----------
    n_features_in_ : int
        Length of an embedding.
    n_concepts_ : int
        Columns of the scores.

    Examples
    --------
    A complete head. The logit of the training frequency is infinite for a concept that is in no training image, or in
    all: its score is then 0 or 1.

    >>> from scipy.special import expit, logit
    >>> from sklearn.preprocessing import normalize
    >>> from heads.data.validation import check_number, positive_rate
    >>> class CentroidHead(Head):
    ...     arrays = ("centroids", "rate")
    ...
    ...     def __init__(self, sharpness=5.0):
    ...         self.sharpness = sharpness
    ...
    ...     def check_params(self):
    ...         check_number(self.sharpness, "sharpness", float, 0)
    ...
    ...     def _fit(self, X, Y):
    ...         self.centroids_ = normalize(Y.T @ X)  # (n_concepts, n_features)
    ...         self.rate_ = positive_rate(Y)
    ...
    ...     def _scores(self, X):
    ...         similarity = normalize(X) @ self.centroids_.T  # (n_images, n_concepts)
    ...         return expit(logit(self.rate_) + np.float32(self.sharpness) * similarity)
    >>> head = CentroidHead().fit([[1.0, 0.0], [0.0, 1.0]], [[1, 0], [0, 0]])
    >>> head.predict_proba([[2.0, 0.0]]).round(2)
    array([[0.99, 0.  ]], dtype=float32)
    """

    arrays: ClassVar[Sequence[str] | Mapping[str, SavedArray]]
    """What was learnt: names of attributes without their ``_``, and of arrays in a saved run. A mapping also says what
    each array is, in shapes of ``features``, ``concepts`` and other words. A run with other arrays is refused."""

    progress_unit = "concepts"
    """What `fit` counts when it reports progress."""

    takes_maps = False
    """Whether it learns from the maps of a cut network rather than from embeddings."""

    _progress: ProgressCallback | None = None
    _checkpoint: Path | None = None

    def fit(
        self, X: ArrayLike, Y: Any, *, progress: ProgressCallback | None = None, checkpoint: str | Path | None = None
    ) -> Self:
        """Learn from embeddings and an indicator matrix.

        Parameters
        ----------
        X : array of float, shape (n_images, n_features)
            Embeddings.
        Y : array or sparse matrix of {0, 1}, shape (n_images, n_concepts)
            Concepts of each image. A concept may be in no image, or in all.
        progress : callable, optional
            Called with how much is done, and how much there is to do, by heads that take long.
        checkpoint : str or Path, optional
            A file for the state after each epoch. If it exists, training continues from it. Only `TailHead` uses it.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            A parameter is out of its range or does not fit the data, the shapes of X and Y differ, or X has NaN or
            infinity. It is a ValueError too.
        """
        self._progress, self._checkpoint = progress, None if checkpoint is None else Path(checkpoint)
        try:
            self._fit(*self._check(X, Y))
        finally:
            del self._progress, self._checkpoint  # a fitted head can be copied and sent to other processes
        return self

    def fit_each(
        self, X: ArrayLike, Y: Any, trials: Sequence[Trial], progress: ProgressCallback | None = None
    ) -> Iterator[tuple[Trial, Self]]:
        """Fit a new head for each of several settings; some heads share work between them.

        Parameters
        ----------
        X, Y, progress
            As in `fit`.
        trials : sequence of mapping
            Parameters that differ from this head's.

        Yields
        ------
        trial : mapping
            Not always in the order of `trials`.
        head : Head
            Fitted with it.
        """
        for trial in trials:
            yield trial, self.with_params(trial).fit(X, Y, progress=progress)

    def fit_folds(
        self,
        X: ArrayLike,
        Y: Any,
        held_out: Sequence[NDArray[np.int64]],
        progress: ProgressCallback | None = None,
        checkpoint: str | Path | None = None,
    ) -> Iterator[Self]:
        """Fit new heads that leave out one fold each; some heads share work between them.

        Parameters
        ----------
        X, Y, progress
            As in `fit`.
        held_out : sequence of ndarray of int
            The rows of each fold. No row is in two of them. A fold without rows gives a head fitted to all images.
        checkpoint : str or Path, optional
            As in `fit`, for the heads fitted to all images.

        Yields
        ------
        Head
            For each fold, fitted when it is asked for. Nothing of the fold's labels is in it.

        Examples
        --------
        >>> from heads.estimators.prior import PriorHead
        >>> folds = PriorHead().fit_folds([[0.0], [1.0]], [[1], [0]], [[], [0]])
        >>> [float(head.predict_proba([[0.0]])[0, 0]) for head in folds]
        [0.5, 0.0]
        """
        features: Any = X if hasattr(X, "shape") else np.asarray(X)
        targets = Y if hasattr(Y, "shape") else np.asarray(Y)
        for rows in held_out:
            head = self.with_params({})
            if len(rows):
                rest = other_rows(targets.shape[0], rows)
                yield head.fit(features[rest], targets[rest], progress=progress)
            else:
                yield head.fit(features, targets, progress=progress, checkpoint=checkpoint)

    def with_params(self, trial: Trial) -> Self:
        """A new head, not fitted, with some parameters changed."""
        head: Self = clone(self).set_params(**trial)
        return head

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """Score every concept of every image.

        Parameters
        ----------
        X : array of float, shape (n_images, n_features)

        Returns
        -------
        ndarray of float32, shape (n_images, n_concepts)
            In [0, 1].

        Raises
        ------
        ParameterError
            X has another shape than in `fit`, or has NaN or infinity; or the scores have.
        """
        scores = self._scores(self._check_embeddings(X))
        if not np.isfinite(scores).all():
            raise ParameterError(
                f"{type(self).__name__}: scores are not finite: training has diverged; choose a lower learning rate"
            )
        return scores

    def predict(self, X: ArrayLike) -> NDArray[np.int8]:
        """Indicator of the concepts whose score is at least 0.5, shape (n_images, n_concepts)."""
        return (self.predict_proba(X) >= 0.5).astype(np.int8)

    def linearize(self, X: ArrayLike, columns: Sequence[int]) -> Linearization:
        """How the scores of some concepts change with the features of an image.

        Parameters
        ----------
        X : array of float, shape (n_images, n_features)
            Embeddings. For a head that takes maps: the means of `final_maps`.
        columns : sequence of int, length n_columns
            The concepts.

        Returns
        -------
        Linearization

        Raises
        ------
        UserError
            The head has no gradients, or nothing to explain.
        """
        return self._linearize(self._check_embeddings(X), np.asarray(columns, np.int64))

    def find_neighbours(self, X: ArrayLike) -> Neighbours | None:
        """The training images that decide the scores of each image; None unless the head votes among them.

        Parameters
        ----------
        X : array of float, shape (n_images, n_features)
        """
        return None

    def final_maps(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """The last maps before pooling: for a head that takes maps, those after its layers; else the same.

        Parameters
        ----------
        maps : ndarray of float32, shape (n_images, height, width, n_features)
        """
        return maps

    def check_params(self) -> None:
        """Check the parameters before anything is computed.

        Raises
        ------
        ParameterError
            One is out of its range.
        """

    def check_data(self, X: Any, Y: Any) -> None:
        """Check that the parameters fit the data, before anything is computed: each trial of a sweep before the first.

        Parameters
        ----------
        X, Y
            As in `fit`, which checks the same and more. X is None where images are not embedded yet.

        Raises
        ------
        ParameterError
            They do not.
        """

    @abstractmethod
    def _fit(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> None:
        """Learn; parameters, shapes and values have been checked. Call `_report_progress` if it takes long."""

    @abstractmethod
    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score; shapes and values have been checked."""

    def _linearize(self, X: NDArray[np.float32], columns: NDArray[np.int64]) -> Linearization:
        """How scores change with the features; shapes and values have been checked."""
        raise UserError(
            f"{type(self).__name__} does not say how its scores change with the features, so there is no map to draw; "
            "explain a run of another head, such as kernel or logistic"
        )

    def get_state(self) -> Arrays:
        """What was learnt, as named arrays: those of `arrays`."""
        return {name: getattr(self, f"{name}_") for name in self.arrays}

    def set_state(self, state: Mapping[str, NDArray[Any]], n_features: int, n_concepts: int) -> Self:
        """Restore a fitted head from what `get_state` returned.

        Raises
        ------
        DamagedFileError
            An array is missing, or something else than what was saved.
        """
        self.n_features_in_, self.n_concepts_ = n_features, n_concepts
        self._restore(state)
        return self

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Set the attributes from the arrays of `get_state`; raise a ValueError if they are something else."""
        missing = [name for name in self.arrays if name not in state]
        if missing:
            raise DamagedFileError(f"it has no '{missing[0]}'")
        if isinstance(self.arrays, Mapping):
            check_arrays(state, self.arrays, features=self.n_features_in_, concepts=self.n_concepts_)
        for name in self.arrays:
            setattr(self, f"{name}_", state[name])

    def to_keras(self) -> Any:
        """This head as a Keras model, for use without this project.

        Returns
        -------
        keras.Model
            From features, as a store has them, to the scores of `predict_proba`. It consists of Keras' own layers and
            operations.

        Raises
        ------
        UserError
            The head has no such form.
        """
        raise UserError(f"{type(self).__name__} has no form as a Keras model; export a run of another head")

    def set_network(self, path: str | Path) -> None:
        """Give the head the part of the network that follows the cut, a Keras model; most heads ignore it."""

    def _report_progress(self, n_done: int, n_all: int) -> None:
        if self._progress:
            self._progress(n_done, n_all)

    def _check(self, X: ArrayLike, Y: Any) -> tuple[Any, scipy.sparse.csr_matrix]:
        """Check parameters and data; returns X and Y as `_fit` gets them and sets their sizes."""
        self.check_params()
        features = self._check_features(X)
        indicator = check_indicator(Y)
        if indicator.shape[0] != len(features):
            raise ParameterError(
                f"X has {len(features):,} rows and Y {indicator.shape[0]:,}, expected as many rows in both"
            )
        self.n_concepts_ = indicator.shape[1]
        return features, indicator

    def _check_features(self, X: Any, reset: bool = True) -> Any:
        """Check X and convert it to float32; with `reset`, set `n_features_in_`, otherwise compare with it."""
        try:
            return validate_data(self, X, dtype=np.float32, reset=reset)
        except ValueError as error:
            raise ParameterError(str(error)) from error

    def _check_embeddings(self, X: ArrayLike) -> NDArray[np.float32]:
        """Check what a fitted head is to score."""
        check_is_fitted(self, "n_concepts_")
        embeddings: NDArray[np.float32] = self._check_features(X, reset=False)
        return embeddings

    @property
    def classes_(self) -> list[NDArray[np.int64]]:
        """The values of each concept's column, as scikit-learn asks of a classifier with several outputs."""
        check_is_fitted(self, "n_concepts_")
        return [np.array([0, 1])] * self.n_concepts_

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that targets are indicator matrices and nothing else."""
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output, tags.target_tags.multi_output = False, True
        tags.classifier_tags.multi_class, tags.classifier_tags.multi_label = False, True
        return tags
