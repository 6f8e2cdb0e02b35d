"""Ridge regression with a Gaussian kernel, for concepts that are not linear in the embedding."""

import operator
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.linalg
import scipy.sparse
from joblib import cpu_count
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.lapack import dsfrk, dtfttr, dtrttf
from threadpoolctl import threadpool_limits

from cache.support.errors import ParameterError
from heads.data.arrays import SavedArray
from heads.data.blocks import split_rows
from heads.data.folds import other_rows
from heads.data.standardization import standardisation, standardise
from heads.data.validation import check_number
from heads.estimators.base import Head, ProgressCallback
from heads.estimators.linearization import Linearization
from heads.networks.backend import import_keras
from heads.networks.layers import head_model, linear, standardised

SUM_IMAGES = 2048
"""Images whose similarities to the landmarks are summed up at a time: 64 MiB of 4,096 landmarks in float64."""

THREAD_IMAGES = 512
"""Images that a thread works on at a time: 8 MiB of similarities in float32."""

LARGEST = 1e15
"""Standardised features are clipped to it, so that squares fit into float32. Nothing that far away is similar."""

JITTER = 1e-6
"""Added to the diagonal of the landmarks' kernel matrix, which identical images would make singular."""

Floats = NDArray[np.float64]


class KernelHead(Head):
    """Multi-output kernel ridge regression of the indicator matrix on standardised embeddings.

    The score of an image is a weighted sum of its similarities to some training images, the landmarks. A similarity is
    ``exp(-gamma * d)``, where d is the mean squared difference of the standardised features. If there are no more
    training images than `landmarks`, all of them are landmarks and the solution is exact. Otherwise the landmarks are a
    random sample (the Nyström method; Williams and Seeger, 2001).

    Scores estimate probabilities and are clipped to [0, 1]. Unlike in `heads.estimators.ridge`, the penalty is not
    chosen by leaving out single images: a kernel remembers the other images of the same patient, which are alike.

    Parameters
    ----------
    alpha : float
        The penalty, as in scikit-learn's `KernelRidge`.
    gamma : float
        How fast similarity falls with the difference. Two images that have nothing in common have a mean squared
        difference of about 2.
    landmarks : int
        Most landmarks; memory and time grow with it.
    random_state : int
        Seed of the sample of landmarks.

    Attributes
    ----------
    mean_, scale_ : ndarray of float32, shape (n_features,)
        Mean and standard deviation of each feature.
    landmarks_ : ndarray of float32, shape (n_landmarks, n_features)
        Standardised embeddings.
    coef_ : ndarray of float32, shape (n_landmarks, n_concepts)
    rate_ : ndarray of float32, shape (n_concepts,)
        Training frequencies: the scores of an image that is similar to no landmark.

    Examples
    --------
    >>> X, Y = [[0.0], [1.0], [2.0], [3.0]], [[1, 0], [0, 1], [0, 1], [1, 0]]
    >>> KernelHead(alpha=0.01, gamma=2.0).fit(X, Y).predict_proba([[0.0], [1.5]]).round(1)
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """

    arrays: ClassVar = {
        "mean": SavedArray(("features",)),
        "scale": SavedArray(("features",)),
        "landmarks": SavedArray(("landmarks", "features")),
        "coef": SavedArray(("landmarks", "concepts")),
        "rate": SavedArray(("concepts",)),
    }

    def __init__(self, alpha: float = 0.2, gamma: float = 0.5, landmarks: int = 4096, random_state: int = 0) -> None:
        self.alpha = alpha
        self.gamma = gamma
        self.landmarks = landmarks
        self.random_state = random_state

    def check_params(self) -> None:
        """Check the parameters before anything is computed."""
        check_number(self.alpha, "alpha", float, 0, closed="neither")
        check_number(self.gamma, "gamma", float, 0, closed="neither")
        check_number(self.landmarks, "landmarks", int, 1)
        check_number(self.random_state, "random_state", int, 0, 2**32 - 1)

    def fit_folds(
        self,
        X: ArrayLike,
        Y: Any,
        held_out: Sequence[NDArray[np.int64]],
        progress: ProgressCallback | None = None,
        checkpoint: str | Path | None = None,
    ) -> Iterator["KernelHead"]:
        """Fit new heads that leave out one fold each, all from one pass over the images.

        If there are more images than landmarks, the head without a fold has the mean and scale of all images, and
        those of all landmarks that are not in the fold; so nothing of the fold's labels is in it. Otherwise, and where
        fewer than half of the landmarks are left, it is fitted as any other.
        """
        whole = self.with_params({})
        images, indicator = whole._check(X, Y)
        if len(images) <= self.landmarks:
            yield from super().fit_folds(X, Y, held_out, progress, checkpoint)
            return
        landmarks = whole._draw_landmarks(images)
        folds = [np.asarray(rows, np.int64) for rows in held_out]
        in_none = other_rows(len(images), np.concatenate(folds))
        parts = [whole._sum_up(images, indicator, rows) for rows in (*folds, in_none)]
        total, penalty = reduce(operator.add, parts), whole._penalty()
        for rows in folds:
            part = parts.pop(0)  # they are large
            rest = np.flatnonzero(~np.isin(landmarks, rows))
            if 2 * len(rest) < len(landmarks):
                yield from super().fit_folds(X, Y, [rows], progress)
                continue
            head = self.with_params({})
            head.n_features_in_, head.n_concepts_ = whole.n_features_in_, whole.n_concepts_
            head.mean_, head.scale_, head.landmarks_ = whole.mean_, whole.scale_, whole.landmarks_[rest]
            head._solve(total - part, penalty, rest)
            yield head

    def _fit(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> None:
        landmarks = self._draw_landmarks(X)
        if len(landmarks) == len(X):
            self._solve_exactly(Y)
        else:
            self._solve(self._sum_up(X, Y, np.arange(len(X))), self._penalty(), np.arange(len(landmarks)))

    def _draw_landmarks(self, X: NDArray[np.float32]) -> NDArray[np.int64]:
        """Set mean, scale and landmarks; returns the rows of the landmarks."""
        self.mean_, self.scale_ = standardisation(X)
        rows = np.arange(len(X))
        if len(X) > self.landmarks:
            rows = np.sort(np.random.default_rng(self.random_state).choice(len(X), self.landmarks, replace=False))
        self.landmarks_ = standardise(X, self.mean_, self.scale_, rows)
        return rows

    def _solve_exactly(self, Y: scipy.sparse.csr_matrix) -> None:
        """Solve ``(K + alpha I) coef = Y - rate`` for the kernel matrix K of all images."""
        rate = np.asarray(Y.mean(axis=0, dtype=np.float64)).ravel()
        kernel = _Similarities(self.landmarks_, self.gamma, np.float64)(self.landmarks_)
        kernel[np.diag_indices_from(kernel)] += self.alpha
        self._set_solution(kernel, (Y.toarray() - rate), rate)

    def _sum_up(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix, rows: NDArray[np.int64]) -> "_Sums":
        """Sum over some of the images what the equations of the Nyström method consist of."""
        similarities, n_landmarks = _Similarities(self.landmarks_, self.gamma), len(self.landmarks_)
        gram, total = np.zeros(n_landmarks * (n_landmarks + 1) // 2), np.zeros(n_landmarks)
        product = np.zeros((Y.shape[1], n_landmarks))
        buffer = np.empty((min(SUM_IMAGES, len(rows)), n_landmarks))

        def fill(part: slice) -> tuple[NDArray[np.int32], Floats]:
            """Similarities of a part of the block, and their sums over the images of each concept in it."""
            kernel, labels = buffer[part.start % SUM_IMAGES :][: part.stop - part.start], Y[rows[part]]
            # Similarities in float32 move scores by 1e-5. Sums of their products in float32 would move them by 1e-2.
            kernel[:] = similarities(standardise(X, self.mean_, self.scale_, rows[part]))
            concepts = np.unique(labels.indices)
            return concepts, labels[:, concepts].T @ kernel

        with ThreadPoolExecutor(cpu_count()) as pool:
            for block in split_rows(len(rows), SUM_IMAGES):
                parts = (slice(block.start + part.start, block.start + part.stop)
                         for part in split_rows(block.stop - block.start, THREAD_IMAGES))  # fmt: skip
                with threadpool_limits(1, "blas"):
                    for concepts, sums in pool.map(fill, parts):
                        product[concepts] += sums
                kernel = buffer[: block.stop - block.start]
                total += kernel.sum(axis=0)
                gram = dsfrk(n_landmarks, len(kernel), 1.0, kernel.T, 1.0, gram, overwrite_c=True)
        positives = np.asarray(Y[rows].sum(axis=0, dtype=np.float64)).ravel()
        return _Sums(len(rows), positives, total, gram, product)

    def _penalty(self) -> Floats:
        """``alpha M`` for the similarities M among the landmarks, packed as in `_Sums`."""
        among = _Similarities(self.landmarks_, self.gamma, np.float64)(self.landmarks_)
        among[np.diag_indices_from(among)] += JITTER
        among *= self.alpha
        packed: Floats = dtrttf(among.T)[0]
        return packed

    def _solve(self, sums: "_Sums", penalty: Floats, rest: NDArray[np.int64]) -> None:
        """Solve the least-squares problem of the Nyström method with some of the landmarks.

        With K the similarities of the images to the landmarks and M those among the landmarks, minimising

            ||Y - rate - K coef||² + alpha trace(coef' M coef)

        gives ``(K'K + alpha M) coef = K'(Y - rate)``. K is needed in blocks of images only, since ``K'K`` and ``K'Y``
        are sums over images. Those of all images less those of a fold are those of the other folds, and the equations
        of some of the landmarks are some of the rows and columns.
        """
        rate = sums.positives / sums.n_images
        matrix = dtfttr(len(sums.similarity), sums.gram + penalty)[0]  # the upper triangle, by columns
        product = sums.product
        if len(rest) < len(matrix):
            matrix, product = matrix.T[np.ix_(rest, rest)].T, product[:, rest]
        self._set_solution(matrix, product.T - np.outer(sums.similarity[rest], rate), rate)

    def _set_solution(self, matrix: Floats, target: Floats, rate: Floats) -> None:
        """Solve the equations of a symmetric matrix, of which the upper triangle is used."""
        try:
            with threadpool_limits(1, "blas"):  # OpenBLAS takes several times as long with two threads
                root = scipy.linalg.cho_factor(matrix, overwrite_a=True, check_finite=False)
        except scipy.linalg.LinAlgError as error:
            raise ParameterError(f"alpha is {self.alpha}, too small for these images; choose a larger one") from error
        coef = scipy.linalg.cho_solve(root, target, overwrite_b=True, check_finite=False)
        self.coef_, self.rate_ = coef.astype(np.float32, order="C"), rate.astype(np.float32)

    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = np.empty((len(X), self.n_concepts_), np.float32)
        similarities = _Similarities(self.landmarks_, self.gamma)

        def score(part: slice) -> None:
            kernel = similarities(standardise(X[part], self.mean_, self.scale_))
            np.matmul(kernel, self.coef_, out=scores[part])
            scores[part] += self.rate_
            np.clip(scores[part], 0, 1, out=scores[part])

        # One product per thread, rather than all threads in one product: then all else uses all cores too.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(cpu_count()) as pool:
            list(pool.map(score, split_rows(len(X), THREAD_IMAGES)))
        return scores

    def _linearize(self, X: NDArray[np.float32], columns: NDArray[np.int64]) -> Linearization:
        """Values and gradients of the scores before they are clipped.

        With ``k_l = exp(-gamma / n_features * ||z - l||²)`` the similarity to landmark l, whose coefficient is c_l,

            d/dz sum_l c_l k_l = -2 gamma / n_features * (z sum_l c_l k_l - sum_l c_l k_l l).
        """
        Z = standardise(X, self.mean_, self.scale_).astype(np.float64)
        kernel = _Similarities(self.landmarks_, self.gamma, np.float64)(Z)
        coef = self.coef_[:, columns].astype(np.float64)
        sums = kernel @ coef
        centres = np.einsum("il,lc,lf->icf", kernel, coef, self.landmarks_, optimize=True)
        gradients = -2 * self.gamma / self.n_features_in_ * (Z[:, None] * sums[:, :, None] - centres) / self.scale_
        return Linearization(sums + self.rate_[columns], gradients, "score", False)

    def to_keras(self) -> Any:
        """This head as a Keras model."""
        keras = import_keras()
        features = keras.Input((self.n_features_in_,))
        Z = standardised(features, self.mean_, self.scale_)
        shared = linear(Z, 2 * self.landmarks_, -np.square(self.landmarks_.astype(np.float64)).sum(axis=1))
        values = keras.ops.minimum(shared - keras.ops.sum(keras.ops.square(Z), axis=1, keepdims=True), 0)
        similarities = keras.ops.exp(values * (self.gamma / self.n_features_in_))
        scores = linear(similarities, self.coef_.T, self.rate_)
        return head_model(features, keras.ops.clip(scores, 0, 1))


@dataclass(frozen=True)
class _Sums:
    """Sums over images; those of two sets of images add up.

    Parameters
    ----------
    n_images : int
    positives : ndarray of float64, shape (n_concepts,)
        How many images have each concept.
    similarity : ndarray of float64, shape (n_landmarks,)
        Summed similarity to each landmark.
    gram : ndarray of float64, shape (n_landmarks * (n_landmarks + 1) / 2,)
        ``K'K``, of which LAPACK's packed format (RFP) stores one triangle: half the memory, at the speed of the whole.
    product : ndarray of float64, shape (n_concepts, n_landmarks)
        ``Y'K``.
    """

    n_images: int
    positives: Floats
    similarity: Floats
    gram: Floats
    product: Floats

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(*map(operator.add, vars(self).values(), vars(other).values()))

    def __sub__(self, other: "_Sums") -> "_Sums":
        return _Sums(*map(operator.sub, vars(self).values(), vars(other).values()))


class _Similarities:
    """Similarities of standardised images to each landmark, shape (n_images, n_landmarks).

    The exponent ``-gamma ||a - b||²`` is ``2 gamma a'b - gamma ||a||² - gamma ||b||²``: one product, if images and
    landmarks get two more columns for the lengths.
    """

    def __init__(self, landmarks: NDArray[np.float32], gamma: float, dtype: type = np.float32) -> None:
        self._factor = gamma / landmarks.shape[1]
        self._landmarks = np.empty((len(landmarks), landmarks.shape[1] + 2), dtype)
        self._landmarks[:, :-2] = landmarks
        self._landmarks[:, :-2] *= 2 * self._factor
        self._landmarks[:, -2] = 1
        self._landmarks[:, -1] = -self._factor * _squared_lengths(landmarks)

    def __call__(self, Z: NDArray[Any]) -> NDArray[Any]:
        images = np.empty((len(Z), self._landmarks.shape[1]), self._landmarks.dtype)
        np.clip(Z, -LARGEST, LARGEST, out=images[:, :-2])
        images[:, -2] = -self._factor * _squared_lengths(images[:, :-2])
        images[:, -1] = 1
        values: NDArray[Any] = images @ self._landmarks.T
        np.minimum(values, 0, out=values)
        np.exp(values, out=values)
        return values


def _squared_lengths(Z: NDArray[Any]) -> Floats:
    lengths: Floats = np.einsum("ij,ij->i", Z, Z, dtype=np.float64)
    return lengths
