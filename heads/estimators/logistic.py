"""One-vs-rest logistic regression on standardised embeddings, all concepts solved together."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import scipy.sparse
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning

from heads.estimators.base import Head, State, Trial, check_number, positive_rate
from heads.networks.backend import import_keras
from heads.networks.layers import head_model, linear, standardised
from heads.solvers.one_vs_rest import Rotated, Solution, solve, standardise

PREDICT_IMAGES = 4096
"""Images that are scored at a time: 64 MiB of scores in float64 at 2,000 concepts."""


class LogisticHead(Head):
    """L2-regularised logistic regression, one a concept.

    The exact optimum of ``make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(C=C)))``.

    Parameters
    ----------
    C : float or sequence of float
        Inverse of the penalty, as in scikit-learn's `LogisticRegression`; one for all concepts, or one each.
        Embeddings have about as many features as rare concepts have images, so the default penalises more than
        scikit-learn's 1.0.
    class_weight : {None, "balanced"}
        ``balanced`` lets the images with and without a concept weigh alike; scores are no probabilities then.
    n_jobs : int or None
        Threads, as joblib counts them. The result does not depend on it.

    Attributes
    ----------
    mean_, scale_ : ndarray of float64, shape (n_features,)
        The standardisation.
    coef_ : ndarray of float64, shape (n_concepts, n_features)
        Zero for a concept that no image or every image shows.
    intercept_ : ndarray of float64, shape (n_concepts,)
        Minus or plus infinity for such a concept.
    """

    def __init__(
        self, C: float | Sequence[float] = 0.01, class_weight: str | None = None, n_jobs: int | None = None
    ) -> None:
        self.C = C
        self.class_weight = class_weight
        self.n_jobs = n_jobs

    def check_params(self) -> None:
        """Check parameters before anything is computed."""
        for each in self.C if isinstance(self.C, (Sequence, np.ndarray)) and not isinstance(self.C, str) else [self.C]:
            check_number(each, "C", float, 0, closed="neither")
        if self.class_weight not in (None, "balanced"):
            raise ValueError(f"class_weight is {self.class_weight!r}, expected 'balanced' or none")
        if self.n_jobs is not None:
            check_number(self.n_jobs, "n_jobs", int, -(2**15))
            if self.n_jobs == 0:
                raise ValueError("n_jobs is 0, expected a number of threads, or -1 for all cores")

    def fit_each(self, X: ArrayLike, Y: Any, trials: Sequence[Trial]) -> Iterator[tuple[Trial, "LogisticHead"]]:
        """Fit a path: embeddings are prepared once, and each C starts from the solution for the one before."""
        heads = [(trial, self.with_params(trial)) for trial in trials]
        apart = [pair for pair in heads if not isinstance(pair[1].C, (int, float))]
        yield from super().fit_each(X, Y, [trial for trial, _ in apart])
        path = sorted((pair for pair in heads if pair not in apart), key=lambda pair: (_same(pair[1]), pair[1].C))
        rotated = None
        for _, group in groupby(path, key=lambda pair: _same(pair[1])):
            start = None
            for trial, head in group:
                embeddings, targets = head._check(X, Y)
                rotated = rotated or Rotated.of(embeddings)
                start = head._solve(rotated, targets, start)
                yield trial, head

    def _fit(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> None:
        self._solve(Rotated.of(X), Y, None)

    def _solve(self, rotated: Rotated, Y: scipy.sparse.csr_matrix, start: Solution | None) -> Solution | None:
        """Take the optimum, and give it as the start of another."""
        if np.size(self.C) not in (1, self.n_concepts_):
            raise ValueError(f"C has {np.size(self.C):,} values, expected one or {self.n_concepts_:,}, one a concept")
        self.mean_, self.scale_ = rotated.mean, rotated.scale
        rate = positive_rate(Y)
        self.intercept_ = np.where(rate >= 0.5, np.inf, -np.inf)
        self.coef_ = np.zeros((self.n_concepts_, self.n_features_in_))
        varied = np.flatnonzero((rate > 0) & (rate < 1))
        if len(varied) == 0:
            return None
        C = np.broadcast_to(np.asarray(self.C, dtype=np.float64), self.n_concepts_)[varied]
        found = solve(
            rotated, Y[:, varied], C, self.class_weight, start, effective_n_jobs(self.n_jobs), self._tell_progress
        )
        self.coef_[varied], self.intercept_[varied] = found.coef, found.intercept
        n_left = int((~found.converged).sum())
        if n_left:
            told = f"{n_left:,} of {len(varied):,} concepts did not converge; a smaller C converges sooner"
            warnings.warn(told, ConvergenceWarning, stacklevel=2)
        return found

    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = np.empty((len(X), self.n_concepts_), np.float32)
        for start in range(0, len(X), PREDICT_IMAGES):
            part = slice(start, start + PREDICT_IMAGES)
            margin = standardise(X[part], self.mean_, self.scale_) @ self.coef_.T
            scores[part] = expit(margin + self.intercept_)
        return scores

    def to_keras(self) -> Any:
        """This head as a Keras model, in float32."""
        keras = import_keras()
        features = keras.Input((self.n_features_in_,))
        centred = standardised(features, self.mean_, self.scale_)
        # What float32 leaves of the mean is told to the intercept: for a nearly constant feature it is no small part.
        left = self.coef_ @ ((self.mean_ - self.mean_.astype(np.float32)) / self.scale_)
        return head_model(features, linear(centred, self.coef_, self.intercept_ - left, "sigmoid"))

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.mean_, self.scale_ = state["mean"], state["scale"]
        self.coef_, self.intercept_ = state["coef"], state["intercept"]

    def get_state(self) -> State:
        """What was learnt, as named arrays."""
        return {"mean": self.mean_, "scale": self.scale_, "coef": self.coef_, "intercept": self.intercept_}


def _same(head: LogisticHead) -> str:
    """What two heads of one path share."""
    return str(head.class_weight)
