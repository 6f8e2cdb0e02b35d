"""Ridge regression in closed form: all concepts and all penalties from one eigendecomposition."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from cache.support.errors import ParameterError
from heads.data.arrays import SavedArray
from heads.data.blocks import split_rows
from heads.data.folds import other_rows
from heads.data.standardization import BLOCK_IMAGES, Moments, standardisation, standardise
from heads.data.validation import check_number
from heads.estimators.base import Head, ProgressCallback, Trial
from heads.estimators.linearization import Linearization, linear_scores
from heads.networks.backend import import_keras
from heads.networks.layers import head_model, linear, standardised

ALPHAS = tuple(10.0 ** (exponent / 4) for exponent in range(-16, 9))
"""Penalties to try if none is given, as multiples of the number of images."""

NOISE = 1e-10
"""Eigenvalues below this share of the largest are rounding error: embeddings are float32."""

Floats = NDArray[np.float64]


class RidgeHead(Head):
    """Multi-output ridge regression of the indicator matrix on standardised embeddings, in closed form.

    Solves ``min ||Y - rate - Z W||² + alpha ||W||²`` for all concepts at once. The penalty is chosen by generalised
    cross-validation (Golub, Heath and Wahba, 1979): the mean squared error of leaving out one image at a time, with the
    leverage of each image replaced by the mean leverage. The error is summed over concepts.

    Scores are the values of the regression, clipped to [0, 1]. They estimate probabilities, for frequent and rare
    concepts alike, so one threshold serves all.

    Parameters
    ----------
    alpha : float, list of float or None
        The penalty, as in scikit-learn's `Ridge` after a `StandardScaler`. If there are several, the best is chosen;
        None tries `ALPHAS` times the number of images.

    Attributes
    ----------
    alpha_ : float
        The penalty that was chosen.
    alphas_, gcv_ : ndarray of float64, shape (n_alphas,)
        The penalties that were tried, and the cross-validation error of each: squared error per image.
    mean_, scale_ : ndarray of float32, shape (n_features,)
        Mean and standard deviation of each feature.
    coef_ : ndarray of float32, shape (n_concepts, n_features)
    intercept_ : ndarray of float32, shape (n_concepts,)

    Examples
    --------
    >>> X, Y = [[0.0], [1.0], [2.0], [3.0]], [[0, 1], [0, 1], [1, 1], [1, 1]]
    >>> RidgeHead(alpha=0.0).fit(X, Y).predict_proba([[1.5], [9.0]]).round(3)
    array([[0.5, 1. ],
           [1. , 1. ]], dtype=float32)
    """

    arrays: ClassVar = {
        "mean": SavedArray(("features",)),
        "scale": SavedArray(("features",)),
        "coef": SavedArray(("concepts", "features")),
        "intercept": SavedArray(("concepts",)),
        "alphas": SavedArray(("penalties",), np.float64),
        "gcv": SavedArray(("penalties",), np.float64, finite=False),
    }

    def __init__(self, alpha: float | Sequence[float] | None = None) -> None:
        self.alpha = alpha

    def check_params(self) -> None:
        """Check the parameters before anything is computed."""
        alphas = [0.0] if self.alpha is None else _listed(self.alpha)
        if not alphas:
            raise ParameterError("alpha is an empty list, expected at least one penalty")
        for alpha in alphas:
            check_number(alpha, "alpha", float, 0)

    def fit_each(
        self, X: ArrayLike, Y: Any, trials: Sequence[Trial], progress: ProgressCallback | None = None
    ) -> Iterator[tuple[Trial, "RidgeHead"]]:
        """Fit every penalty from one eigendecomposition."""
        heads = [self.with_params(trial) for trial in trials]
        problem = None
        for trial, head in zip(trials, heads, strict=True):
            embeddings, targets = head._check(X, Y)
            problem = problem or _Problem.from_arrays(embeddings, targets)
            head._solve(problem)
            yield trial, head

    def fit_folds(
        self,
        X: ArrayLike,
        Y: Any,
        held_out: Sequence[NDArray[np.int64]],
        progress: ProgressCallback | None = None,
        checkpoint: str | Path | None = None,
    ) -> Iterator["RidgeHead"]:
        """Fit new heads that leave out one fold each, all from one pass over the images.

        Each is the head that `fit` gives, up to rounding: its penalty, too, is chosen without the fold.
        """
        folds = [np.asarray(rows, np.int64) for rows in held_out]
        if not folds:
            return
        whole = self.with_params({})
        embeddings, targets = whole._check(X, Y)
        if len(embeddings) <= embeddings.shape[1]:
            # Sums over images would be larger than the images; each fit alone is cheaper.
            yield from super().fit_folds(X, Y, folds, progress, checkpoint)
            return
        mean, scale = standardisation(embeddings)
        parts = [
            (
                number,
                Moments.from_embeddings(embeddings, rows=rows),
                _Sums.from_arrays(embeddings, targets, mean, scale, rows),
            )
            for number, rows in enumerate([*folds, other_rows(len(embeddings), np.concatenate(folds))])
            if len(rows)
        ]
        for number in range(len(folds)):
            head = self.with_params({})
            head.n_features_in_, head.n_concepts_ = whole.n_features_in_, whole.n_concepts_
            others = [part for part in parts if part[0] != number]
            moments = reduce(operator.add, (part[1] for part in others))
            sums = reduce(operator.add, (part[2] for part in others))
            head._solve(_Problem.from_sums(sums.move(mean, scale, moments), *moments.standardisation()))
            yield head

    def _fit(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> None:
        self._solve(_Problem.from_arrays(X, Y))

    def _solve(self, problem: "_Problem") -> None:
        """Choose the penalty and compute its coefficients."""
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
        for block in split_rows(len(X), BLOCK_IMAGES):
            np.matmul(standardise(X[block], self.mean_, self.scale_), self.coef_.T, out=scores[block])
            scores[block] += self.intercept_
        return np.clip(scores, 0, 1, out=scores)

    def _linearize(self, X: NDArray[np.float32], columns: NDArray[np.int64]) -> Linearization:
        Z = standardise(X, self.mean_, self.scale_)
        return linear_scores(Z, self.coef_[columns], self.intercept_[columns], self.scale_, "score")

    def to_keras(self) -> Any:
        """This head as a Keras model."""
        keras = import_keras()
        features = keras.Input((self.n_features_in_,))
        values = linear(standardised(features, self.mean_, self.scale_), self.coef_, self.intercept_)
        return head_model(features, keras.ops.clip(values, 0, 1))

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        super()._restore(state)
        self.alpha_ = float(self.alphas_[self.gcv_.argmin()])


@dataclass(frozen=True)
class _Problem:
    """The least-squares problem in the eigenvectors of the embeddings' covariance.

    With an intercept that is not penalised, Z (standardised embeddings) and Y (targets) can be centred first. The
    solution W for a penalty alpha then satisfies

        (Z'Z + alpha I) W = Z'Y.

    With the eigendecomposition ``Z'Z = V diag(l) V'``, which does not depend on alpha,

        W = V diag(1 / (l + alpha)) V'Z'Y,

    so a further penalty or concept costs one product. `solve` computes this.

    Generalised cross-validation needs the residuals and the trace of the hat matrix ``H = Z (Z'Z + alpha I)^-1 Z'``.
    With the singular value decomposition ``Z = U diag(sqrt(l)) V'``,

        H = U diag(l / (l + alpha)) U'  and  Y - H Y = U diag(alpha / (l + alpha)) U'Y + (Y - U U'Y),

    where the two terms are orthogonal, and ``U'Y = diag(1 / sqrt(l)) V'Z'Y`` needs no U. Hence for ``A = V'Z'Y``

        ||Y - H Y||² = sum_k (alpha / (l_k + alpha))² A_k² / l_k + ||Y||² - sum_k A_k² / l_k,
        trace(H) = sum_k l_k / (l_k + alpha),

    and with one more degree of freedom for the intercept the error per image is
    ``||Y - H Y||² / n / (1 - (1 + trace(H)) / n)²``. `cross_validate` computes this; for a centred column of zeros and
    ones ``||Y||² = n rate (1 - rate)``.

    Parameters
    ----------
    n_images : int
    mean, scale : ndarray of float32, shape (n_features,)
        Mean and standard deviation of each feature.
    centre : ndarray of float64, shape (n_features,)
        Mean of the standardised embeddings: zero but for rounding.
    rate : ndarray of float64, shape (n_concepts,)
        Mean of the targets.
    eigenvalues : ndarray of float64, shape (n_axes,)
        Those of the centred ``Z'Z`` that are not rounding error.
    axes : ndarray of float64, shape (n_features, n_axes)
        Their eigenvectors.
    projected : ndarray of float64, shape (n_axes, n_concepts)
        The centred ``Z'Y`` in these axes.
    """

    n_images: int
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    centre: Floats
    rate: Floats
    eigenvalues: Floats
    axes: Floats
    projected: Floats

    @classmethod
    def from_arrays(cls, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> "_Problem":
        """Sum products over blocks of images, and decompose."""
        mean, scale = standardisation(X)
        if len(X) < X.shape[1]:
            return cls.from_few_images(X, Y, mean, scale)
        return cls.from_sums(_Sums.from_arrays(X, Y, mean, scale, np.arange(len(X))), mean, scale)

    @classmethod
    def from_few_images(
        cls, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix, mean: NDArray[np.float32], scale: NDArray[np.float32]
    ) -> "_Problem":
        """Decompose ``ZZ'``, which is smaller than ``Z'Z`` where there are fewer images than features.

        With ``ZZ' = U diag(l) U'``, the axes are ``V = Z'U diag(1 / sqrt(l))``, and ``V'Z'Y = diag(sqrt(l)) U'Y``.
        """
        Z = standardise(X, mean, scale).astype(np.float64)
        centre = Z.mean(axis=0)
        Z -= centre
        eigenvalues, left = np.linalg.eigh(Z @ Z.T)
        kept = eigenvalues > max(NOISE * eigenvalues[-1], 0)
        eigenvalues, left = eigenvalues[kept], left[:, kept]
        root = np.sqrt(eigenvalues)
        # The columns of U are orthogonal to a constant, so Y need not be centred.
        projected = root[:, None] * (Y.T @ left).T
        rate = np.asarray(Y.mean(axis=0, dtype=np.float64)).ravel()
        return cls(len(X), mean, scale, centre, rate, eigenvalues, Z.T @ (left / root), projected)

    @classmethod
    def from_sums(cls, sums: "_Sums", mean: NDArray[np.float32], scale: NDArray[np.float32]) -> "_Problem":
        """Decompose; the sums are those of embeddings that were standardised with this mean and scale."""
        centre, rate = sums.total / sums.n_images, sums.positives / sums.n_images
        eigenvalues, axes = np.linalg.eigh(sums.gram - sums.n_images * np.outer(centre, centre))
        kept = eigenvalues > max(NOISE * eigenvalues[-1], 0)
        projected = axes[:, kept].T @ (sums.product.T - np.outer(centre, sums.positives))
        return cls(sums.n_images, mean, scale, centre, rate, eigenvalues[kept], axes[:, kept], projected)

    def cross_validate(self, alphas: Floats) -> Floats:
        """Generalised cross-validation error of each penalty, summed over concepts, shape (n_alphas,)."""
        total = self.n_images * (self.rate * (1 - self.rate)).sum()
        explained = np.square(self.projected).sum(axis=1) / self.eigenvalues
        shrunk = alphas[:, None] + self.eigenvalues  # (n_alphas, n_axes)
        residual = np.square(alphas[:, None] / shrunk) @ explained + max(total - explained.sum(), 0)
        freedom = self.n_images - 1 - (self.eigenvalues / shrunk).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = residual * self.n_images / np.square(freedom)
        # Without a degree of freedom left there is no estimate.
        return np.where(freedom > NOISE * self.n_images, error, np.inf)

    def solve(self, alpha: float) -> Floats:
        """Coefficients for a penalty, shape (n_features, n_concepts)."""
        return self.axes @ (self.projected / (self.eigenvalues + alpha)[:, None])


@dataclass(frozen=True)
class _Sums:
    """Sums over standardised images; those of two sets of images add up.

    Parameters
    ----------
    n_images : int
    positives : ndarray of float64, shape (n_concepts,)
        How many images have each concept.
    total : ndarray of float64, shape (n_features,)
    gram : ndarray of float64, shape (n_features, n_features)
        ``Z'Z``.
    product : ndarray of float64, shape (n_concepts, n_features)
        ``Y'Z``.
    """

    n_images: int
    positives: Floats
    total: Floats
    gram: Floats
    product: Floats

    @classmethod
    def from_arrays(
        cls,
        X: NDArray[np.float32],
        Y: scipy.sparse.csr_matrix,
        mean: NDArray[np.float32],
        scale: NDArray[np.float32],
        rows: NDArray[np.int64],
    ) -> "_Sums":
        """Those of some of the images, in blocks."""
        n_features = X.shape[1]
        gram, total, product = (
            np.zeros((n_features, n_features)),
            np.zeros(n_features),
            np.zeros((Y.shape[1], n_features)),
        )
        for block in split_rows(len(rows), BLOCK_IMAGES):
            # In float64: otherwise rounding would hide penalties below a millionth of the largest eigenvalue.
            Z = standardise(X, mean, scale, rows[block]).astype(np.float64)
            gram += Z.T @ Z
            total += Z.sum(axis=0)
            product += Y[rows[block]].T @ Z
        positives = np.asarray(Y[rows].sum(axis=0, dtype=np.float64)).ravel()
        return cls(len(rows), positives, total, gram, product)

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(*map(operator.add, vars(self).values(), vars(other).values()))

    def move(self, mean: NDArray[np.float32], scale: NDArray[np.float32], moments: Moments) -> "_Sums":
        """The sums of the same images, standardised by their own moments rather than by a mean and a scale.

        A standardised embedding z becomes ``a z + b``. A feature that does not vary becomes 0.
        """
        own_mean, own_scale = moments.standardisation()
        a = np.where(moments.varies(), scale.astype(np.float64) / own_scale, 0)
        b = np.where(moments.varies(), (mean.astype(np.float64) - own_mean) / own_scale, 0)
        shifted = np.outer(a * self.total, b)
        gram = np.outer(a, a) * self.gram + shifted + shifted.T + self.n_images * np.outer(b, b)
        product = a * self.product + np.outer(self.positives, b)
        return _Sums(self.n_images, self.positives, a * self.total + self.n_images * b, gram, product)


def _listed(alpha: float | Sequence[float]) -> list[float]:
    return list(alpha) if isinstance(alpha, list | tuple) else [alpha]  # type: ignore[list-item]
