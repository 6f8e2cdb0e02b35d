"""One-vs-rest logistic regression on standardised embeddings."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from heads.base import Head, State, check_number, positive_rate

MAX_ITER = 1000
"""Steps of L-BFGS: standardised embeddings need some tens."""


class LogisticHead(Head):
    """L2-regularised logistic regression, one a concept.

    Parameters
    ----------
    C : float
        Inverse of the penalty, as in scikit-learn's `LogisticRegression`. Embeddings have about as many features
        as rare concepts have images, so the default penalises more than scikit-learn's 1.0.
    n_jobs : int or None
        Processes, as in scikit-learn.

    Attributes
    ----------
    mean_, scale_ : ndarray of float64, shape (n_features,)
        The standardisation.
    coef_ : ndarray of float64, shape (n_concepts, n_features)
        Zero for a concept that no image or every image shows.
    intercept_ : ndarray of float64, shape (n_concepts,)
        Minus or plus infinity for such a concept.
    """

    def __init__(self, C: float = 0.01, n_jobs: int | None = None) -> None:
        self.C = C
        self.n_jobs = n_jobs

    def check_params(self) -> None:
        """Check parameters before anything is computed."""
        check_number(self.C, "C", float, 0, closed="neither")
        if self.n_jobs is not None:
            check_number(self.n_jobs, "n_jobs", int, -(2**15))
            if self.n_jobs == 0:
                raise ValueError("n_jobs is 0, expected a number of processes, or -1 for all cores")

    def _fit(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> None:
        scaler = StandardScaler().fit(X.astype(np.float64))
        self.mean_, self.scale_ = scaler.mean_, scaler.scale_
        rate = positive_rate(Y)
        with np.errstate(divide="ignore"):
            self.intercept_ = np.log(np.round(rate)) - np.log(np.round(1 - rate))
        self.coef_ = np.zeros((self.n_concepts_, self.n_features_in_))
        varied = np.flatnonzero((rate > 0) & (rate < 1))
        if len(varied) == 0:
            return
        # A two-column target would be taken for one multi-class problem if it were not an indicator matrix.
        loop = OneVsRestClassifier(LogisticRegression(C=self.C, max_iter=MAX_ITER), n_jobs=self.n_jobs)
        targets = Y[:, varied]
        loop.fit(scaler.transform(X.astype(np.float64)), targets if len(varied) > 1 else targets.toarray().ravel())
        self.coef_[varied] = np.vstack([each.coef_ for each in loop.estimators_])
        self.intercept_[varied] = np.concatenate([each.intercept_ for each in loop.estimators_])

    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        standardised = (X - self.mean_) / self.scale_
        return expit(standardised @ self.coef_.T + self.intercept_).astype(np.float32)

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.mean_, self.scale_ = state["mean"], state["scale"]
        self.coef_, self.intercept_ = state["coef"], state["intercept"]

    def get_state(self) -> State:
        """What was learnt, as named arrays."""
        return {"mean": self.mean_, "scale": self.scale_, "coef": self.coef_, "intercept": self.intercept_}
