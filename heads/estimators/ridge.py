"""Least squares with a penalty, every concept and every penalty from one eigendecomposition."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from heads.estimators.base import Head, State, Trial, check_number
from heads.estimators.standardization import BLOCK_IMAGES, standardisation
from heads.networks.backend import import_keras
from heads.networks.layers import head_model, linear, standardised

ALPHAS = tuple(10.0 ** (exponent / 4) for exponent in range(-16, 9))
"""Penalties that are tried if none is given, as multiples of the number of images."""

NOISE = 1e-10
"""Part of the largest eigenvalue below which one is rounding: embeddings are float32."""

Floats = NDArray[np.float64]


class RidgeHead(Head):
    """Multi-output ridge regression of the indicator matrix on standardised embeddings, in closed form.

    Solves ``min ||Y - rate - Z W||² + alpha ||W||²`` for all concepts at once. The eigenvectors of ``Z'Z`` give the
    solution for any alpha, and its generalised cross-validation error (Golub, Heath and Wahba, 1979), which is the
    mean squared error of leaving an image out with every leverage replaced by the mean one. The error is summed
    over concepts, and the alpha where it is least is taken.

    Scores are the regression's values, cut to [0, 1]: they estimate how likely a concept is, alike for frequent and
    rare ones, so one threshold serves all.

    Parameters
    ----------
    alpha : float, list of float or None
        The penalty, as in scikit-learn's `Ridge` after a `StandardScaler`. Of several the best is taken; None
        tries `ALPHAS` times the number of images.

    Attributes
    ----------
    alpha_ : float
        The penalty that was taken.
    alphas_, gcv_ : ndarray of float64, shape (n_alphas,)
        The penalties that were tried, and the cross-validation error of each: squared error an image.
    mean_, scale_ : ndarray of float32, shape (n_features,)
        The standardisation.
    coef_ : ndarray of float32, shape (n_concepts, n_features)
    intercept_ : ndarray of float32, shape (n_concepts,)

    Examples
    --------
    >>> X, Y = [[0.0], [1.0], [2.0], [3.0]], [[0, 1], [0, 1], [1, 1], [1, 1]]
    >>> RidgeHead(alpha=0.0).fit(X, Y).predict_proba([[1.5], [9.0]]).round(3)
    array([[0.5, 1. ],
           [1. , 1. ]], dtype=float32)
    """

    def __init__(self, alpha: float | Sequence[float] | None = None) -> None:
        self.alpha = alpha

    def check_params(self) -> None:
        """Check parameters before anything is computed."""
        alphas = [0.0] if self.alpha is None else _listed(self.alpha)
        if not alphas:
            raise ValueError("alpha is an empty list, expected at least one penalty")
        for alpha in alphas:
            check_number(alpha, "alpha", float, 0)

    def fit_each(self, X: ArrayLike, Y: Any, trials: Sequence[Trial]) -> Iterator[tuple[Trial, "RidgeHead"]]:
        """Fit every penalty from one eigendecomposition."""
        heads = [self.with_params(trial) for trial in trials]
        problem = None
        for trial, head in zip(trials, heads, strict=True):
            embeddings, targets = head._check(X, Y)
            problem = problem or _Problem.of(embeddings, targets)
            head._take(problem)
            yield trial, head

    def _fit(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> None:
        self._take(_Problem.of(X, Y))

    def _take(self, problem: "_Problem") -> None:
        self.mean_, self.scale_ = problem.mean, problem.scale
        self.alphas_ = np.array(
            _listed(self.alpha) if self.alpha is not None else np.array(ALPHAS) * problem.n_images, float
        )
        self.gcv_ = problem.cross_validate(self.alphas_)
        self.alpha_ = float(self.alphas_[self.gcv_.argmin()])
        coef = problem.solve(self.alpha_)
        self.coef_ = coef.T.astype(np.float32, order="C")
        self.intercept_ = (problem.rate - problem.centre @ coef).astype(np.float32)

    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = np.empty((len(X), self.n_concepts_), np.float32)
        for start in range(0, len(X), BLOCK_IMAGES):
            part = slice(start, start + BLOCK_IMAGES)
            np.matmul((X[part] - self.mean_) / self.scale_, self.coef_.T, out=scores[part])
            scores[part] += self.intercept_
        return np.clip(scores, 0, 1, out=scores)

    def to_keras(self) -> Any:
        """This head as a Keras model."""
        keras = import_keras()
        features = keras.Input((self.n_features_in_,))
        values = linear(standardised(features, self.mean_, self.scale_), self.coef_, self.intercept_)
        return head_model(features, keras.ops.clip(values, 0, 1))

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.mean_, self.scale_ = state["mean"], state["scale"]
        self.coef_, self.intercept_ = state["coef"], state["intercept"]
        self.alphas_, self.gcv_ = state["alphas"], state["gcv"]
        self.alpha_ = float(self.alphas_[self.gcv_.argmin()])

    def get_state(self) -> State:
        """What was learnt, as named arrays."""
        learnt = {"mean": self.mean_, "scale": self.scale_, "coef": self.coef_, "intercept": self.intercept_}
        return learnt | {"alphas": self.alphas_, "gcv": self.gcv_}


@dataclass(frozen=True)
class _Problem:
    """What least squares needs to know of the images, in the axes of the embeddings' covariance.

    Parameters
    ----------
    n_images : int
    mean, scale : ndarray of float32, shape (n_features,)
        The standardisation.
    centre : ndarray of float64, shape (n_features,)
        Mean of the standardised embeddings: what rounding leaves of zero.
    rate : ndarray of float64, shape (n_concepts,)
        Mean of the targets.
    values : ndarray of float64, shape (n_axes,)
        Eigenvalues of the centred ``Z'Z``, those that are rounding left out.
    axes : ndarray of float64, shape (n_features, n_axes)
        Their eigenvectors.
    along : ndarray of float64, shape (n_axes, n_concepts)
        The centred ``Z'Y`` in those axes.
    """

    n_images: int
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    centre: Floats
    rate: Floats
    values: Floats
    axes: Floats
    along: Floats

    @classmethod
    def of(cls, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> "_Problem":
        """Go once over the images."""
        n_images, n_features = X.shape
        mean, scale = standardisation(X)
        gram, total = np.zeros((n_features, n_features)), np.zeros(n_features)
        product = np.zeros((Y.shape[1], n_features))
        for start in range(0, n_images, BLOCK_IMAGES):
            # In float64, or penalties below a millionth of the largest eigenvalue would drown in rounding.
            block = ((X[start : start + BLOCK_IMAGES] - mean) / scale).astype(np.float64)
            gram += block.T @ block
            total += block.sum(axis=0)
            product += Y[start : start + BLOCK_IMAGES].T @ block
        centre, rate = total / n_images, np.asarray(Y.mean(axis=0, dtype=np.float64)).ravel()
        values, axes = np.linalg.eigh(gram - n_images * np.outer(centre, centre))
        kept = values > max(NOISE * values[-1], 0)
        along = axes[:, kept].T @ (product.T - np.outer(centre, n_images * rate))
        return cls(n_images, mean, scale, centre, rate, values[kept], axes[:, kept], along)

    def cross_validate(self, alphas: Floats) -> Floats:
        """Generalised cross-validation error of each penalty, summed over concepts, shape (n_alphas,)."""
        energy = self.n_images * (self.rate * (1 - self.rate)).sum()
        explained = np.square(self.along).sum(axis=1) / self.values
        shrunk = alphas[:, None] + self.values
        left = np.square(alphas[:, None] / shrunk) @ explained + max(energy - explained.sum(), 0)
        # One more for the intercept. Without any freedom left, nothing can be said.
        freedom = self.n_images - 1 - (self.values / shrunk).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = left * self.n_images / np.square(freedom)
        return np.where(freedom > NOISE * self.n_images, error, np.inf)

    def solve(self, alpha: float) -> Floats:
        """Coefficients of a penalty, shape (n_features, n_concepts)."""
        return self.axes @ (self.along / (self.values + alpha)[:, None])


def _listed(alpha: float | Sequence[float]) -> list[float]:
    return list(alpha) if isinstance(alpha, list | tuple) else [alpha]  # type: ignore[list-item]
