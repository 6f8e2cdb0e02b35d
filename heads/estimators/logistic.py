"""One-vs-rest logistic regression on standardised embeddings, all concepts solved together."""

import warnings
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.sparse
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning

from cache.support.errors import ParameterError
from heads.data.arrays import SavedArray
from heads.data.blocks import split_rows
from heads.data.folds import other_rows
from heads.data.standardization import BLOCK_IMAGES, standardise
from heads.data.validation import check_number, positive_rate
from heads.estimators.base import Head, ProgressCallback, Trial
from heads.estimators.linearization import Linearization, linear_scores
from heads.networks.backend import import_keras
from heads.networks.layers import head_model, linear, standardised
from heads.solvers.one_vs_rest import Rotated, solve


class LogisticHead(Head):
    """L2-regularised logistic regression, one per concept.

    The exact optimum of ``make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(C=C)))``.

    Parameters
    ----------
    C : float or sequence of float
        Inverse of the penalty, as in scikit-learn's `LogisticRegression`; one for all concepts, or one per concept.
        The default penalises more than scikit-learn's 1.0, because embeddings have about as many features as a rare
        concept has images.
    class_weight : {None, "balanced"}
        ``balanced`` gives the positive and the negative images of a concept the same weight; scores are then no
        probabilities.
    n_jobs : int or None
        Number of threads, as in joblib. The result does not depend on it.

    Attributes
    ----------
    mean_, scale_ : ndarray of float64, shape (n_features,)
        Mean and standard deviation of each feature.
    coef_ : ndarray of float64, shape (n_concepts, n_features)
        Zero for a concept that is in no image, or in all.
    intercept_ : ndarray of float64, shape (n_concepts,)
        Minus or plus infinity for such a concept.
    """

    arrays: ClassVar = {
        "mean": SavedArray(("features",), np.float64),
        "scale": SavedArray(("features",), np.float64),
        "coef": SavedArray(("concepts", "features"), np.float64),
        "intercept": SavedArray(("concepts",), np.float64, finite=False),
    }

    def __init__(
        self, C: float | Sequence[float] = 0.01, class_weight: str | None = None, n_jobs: int | None = None
    ) -> None:
        self.C = C
        self.class_weight = class_weight
        self.n_jobs = n_jobs

    def check_params(self) -> None:
        """Check the parameters before anything is computed."""
        for each in self.C if isinstance(self.C, (Sequence, np.ndarray)) and not isinstance(self.C, str) else [self.C]:
            check_number(each, "C", float, 0, closed="neither")
        if self.class_weight not in (None, "balanced"):
            raise ParameterError(f"class_weight is {self.class_weight!r}, expected 'balanced' or none")
        if self.n_jobs is not None:
            check_number(self.n_jobs, "n_jobs", int, -(2**15))
            if self.n_jobs == 0:
                raise ParameterError("n_jobs is 0, expected a number of threads, or -1 for all cores")

    def check_data(self, X: Any, Y: Any) -> None:
        """Check that there is one value of C, or one per concept."""
        self._check_length(Y.shape[1])

    def _check_length(self, n_concepts: int) -> None:
        if np.size(self.C) not in (1, n_concepts):
            raise ParameterError(f"C has {np.size(self.C):,} values, expected one, or one per concept ({n_concepts:,})")

    def fit_each(
        self, X: ArrayLike, Y: Any, trials: Sequence[Trial], progress: ProgressCallback | None = None
    ) -> Iterator[tuple[Trial, "LogisticHead"]]:
        """Fit a path: embeddings are prepared once, and each C starts from the solution for the C before it."""
        heads = [(trial, self.with_params(trial)) for trial in trials]
        alone = [pair for pair in heads if not isinstance(pair[1].C, (int, float))]
        yield from super().fit_each(X, Y, [trial for trial, _ in alone], progress)
        path = sorted(
            (pair for pair in heads if pair not in alone), key=lambda pair: (str(pair[1].class_weight), pair[1].C)
        )
        rotated = None
        for _, group in groupby(path, key=lambda pair: pair[1].class_weight):
            start = None
            for trial, head in group:
                embeddings, targets = head._check(X, Y)
                rotated = rotated or Rotated.from_embeddings(embeddings)
                head._solve(rotated, targets, start, progress)
                start = head
                yield trial, head

    def fit_folds(
        self,
        X: ArrayLike,
        Y: Any,
        held_out: Sequence[NDArray[np.int64]],
        progress: ProgressCallback | None = None,
        checkpoint: str | Path | None = None,
    ) -> Iterator["LogisticHead"]:
        """Fit new heads that leave out one fold each; each starts from the optimum of all images.

        Where it ends does not depend on where it starts: each is the optimum of its images, up to the tolerance.
        """
        whole = self.with_params({})
        embeddings, targets = whole._check(X, Y)
        whole._solve(Rotated.from_embeddings(embeddings), targets, None, progress)
        for rows in held_out:
            head = self.with_params({})
            rest = other_rows(len(embeddings), rows)
            if len(rest) == len(embeddings):
                yield head.set_state(whole.get_state(), whole.n_features_in_, whole.n_concepts_)
                continue
            features, indicator = head._check(embeddings[rest], targets[rest])
            head._solve(Rotated.from_embeddings(features), indicator, whole, progress)
            yield head

    def _fit(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> None:
        self._solve(Rotated.from_embeddings(X), Y, None, self._progress)

    def _solve(
        self,
        rotated: Rotated,
        Y: scipy.sparse.csr_matrix,
        start: "LogisticHead | None",
        progress: ProgressCallback | None,
    ) -> None:
        """Find the optimum, from that of another head if one is given, in which every concept varies that does here."""
        self._check_length(self.n_concepts_)
        self.mean_, self.scale_ = rotated.mean, rotated.scale
        rate = positive_rate(Y)
        self.intercept_ = np.where(rate >= 0.5, np.inf, -np.inf)
        self.coef_ = np.zeros((self.n_concepts_, self.n_features_in_))
        varied = np.flatnonzero((rate > 0) & (rate < 1))
        if len(varied) == 0:
            return
        near = None
        if start is not None:
            # The same scores with another mean and scale.
            coef = start.coef_[varied] * (self.scale_ / start.scale_)
            near = coef, start.intercept_[varied] + start.coef_[varied] @ ((self.mean_ - start.mean_) / start.scale_)
        C = np.broadcast_to(np.asarray(self.C, dtype=np.float64), self.n_concepts_)[varied]
        found = solve(rotated, Y[:, varied], C, self.class_weight, near, effective_n_jobs(self.n_jobs), progress)
        self.coef_[varied], self.intercept_[varied] = found.coef, found.intercept
        n_left = int((~found.converged).sum())
        if n_left:
            line = f"{n_left:,} of {len(varied):,} concepts did not converge; a smaller C converges sooner"
            warnings.warn(line, ConvergenceWarning, stacklevel=2)

    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = np.empty((len(X), self.n_concepts_), np.float32)
        for block in split_rows(len(X), BLOCK_IMAGES):
            margin = standardise(X[block], self.mean_, self.scale_) @ self.coef_.T
            scores[block] = expit(margin + self.intercept_)
        return scores

    def _linearize(self, X: NDArray[np.float32], columns: NDArray[np.int64]) -> Linearization:
        Z = standardise(X, self.mean_, self.scale_)
        return linear_scores(Z, self.coef_[columns], self.intercept_[columns], self.scale_, "logit")

    def to_keras(self) -> Any:
        """This head as a Keras model, in float32."""
        keras = import_keras()
        features = keras.Input((self.n_features_in_,))
        centred = standardised(features, self.mean_, self.scale_)
        # The intercept makes up for the rounding of the mean to float32, which matters for nearly constant features.
        rounding = self.coef_ @ ((self.mean_ - self.mean_.astype(np.float32)) / self.scale_)
        return head_model(features, linear(centred, self.coef_, self.intercept_ - rounding, "sigmoid"))
