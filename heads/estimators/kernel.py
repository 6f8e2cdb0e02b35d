"""Ridge regression with a Gaussian kernel, for concepts that are not linear in the embedding."""

from typing import Any, ClassVar

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from cache.support.errors import ParameterError
from heads.data.arrays import SavedArray
from heads.data.blocks import split_rows
from heads.data.standardization import BLOCK_IMAGES, standardisation, standardise
from heads.data.validation import check_number
from heads.estimators.base import Head
from heads.estimators.linearization import Linearization
from heads.networks.backend import import_keras
from heads.networks.layers import head_model, linear, standardised

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

    def _fit(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> None:
        self.mean_, self.scale_ = standardisation(X)
        rate = np.asarray(Y.mean(axis=0, dtype=np.float64)).ravel()
        chosen = np.arange(len(X))
        if len(X) > self.landmarks:
            drawn = np.random.default_rng(self.random_state).choice(len(X), self.landmarks, replace=False)
            chosen = np.sort(drawn)
        self.landmarks_, self.rate_ = standardise(X, self.mean_, self.scale_, chosen), rate.astype(np.float32)
        solve = self._solve_exactly if len(chosen) == len(X) else self._solve_with_landmarks
        try:
            self.coef_ = solve(X, Y, rate).astype(np.float32)
        except scipy.linalg.LinAlgError as error:
            raise ParameterError(f"alpha is {self.alpha}, too small for these images; choose a larger one") from error

    def _solve_exactly(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix, rate: Floats) -> Floats:
        """Solve ``(K + alpha I) coef = Y - rate`` for the kernel matrix K of all images."""
        kernel = self._similarities(self.landmarks_)
        kernel[np.diag_indices_from(kernel)] += self.alpha
        coef: Floats = scipy.linalg.solve(kernel, Y.toarray() - rate, assume_a="pos", overwrite_a=True)
        return coef

    def _solve_with_landmarks(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix, rate: Floats) -> Floats:
        """Solve the least-squares problem of the Nyström method.

        With K the similarities of all images to the landmarks and M those among the landmarks, minimising

            ||Y - rate - K coef||² + alpha trace(coef' M coef)

        gives ``(K'K + alpha M) coef = K'(Y - rate)``. M is nearly singular. With its Cholesky factor, ``M = L L'``, and
        ``coef = L'^-1 b`` the equations become

            (L^-1 K'K L'^-1 + alpha I) b = L^-1 K'(Y - rate),

        whose matrix has no eigenvalue below alpha. K is needed in blocks of images only, since ``K'K`` and ``K'Y`` are
        sums over images.
        """
        n_landmarks = len(self.landmarks_)
        gram, product = np.zeros((n_landmarks, n_landmarks)), np.zeros((n_landmarks, Y.shape[1]))
        for block in split_rows(len(X), BLOCK_IMAGES):
            kernel = self._similarities(standardise(X[block], self.mean_, self.scale_))
            gram += kernel.T @ kernel
            product += (Y[block].T @ kernel).T - np.outer(kernel.sum(axis=0), rate)
        among = self._similarities(self.landmarks_)
        among[np.diag_indices_from(among)] += JITTER
        root = scipy.linalg.cholesky(among, lower=True, overwrite_a=True)
        whitened = _divide(root, _divide(root, gram).T)
        whitened[np.diag_indices_from(whitened)] += self.alpha
        solved = scipy.linalg.solve(
            whitened, _divide(root, product), assume_a="pos", overwrite_a=True, overwrite_b=True
        )
        coef: Floats = scipy.linalg.solve_triangular(root, solved, lower=True, trans="T", overwrite_b=True)
        return coef

    def _similarities(self, Z: NDArray[Any]) -> Floats:
        """Similarity of standardised images to each landmark, shape (n_images, n_landmarks)."""
        # In float64: ||a||² - 2 a'b + ||b||² loses the difference of similar images to rounding.
        images, landmarks = Z.astype(np.float64), self.landmarks_.astype(np.float64)
        values = images @ landmarks.T
        values *= -2
        values += np.square(images).sum(axis=1)[:, None]
        values += np.square(landmarks).sum(axis=1)
        values *= -self.gamma / Z.shape[1]
        similarities: Floats = np.exp(np.minimum(values, 0, out=values), out=values)
        return similarities

    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = np.empty((len(X), self.n_concepts_), np.float32)
        for block in split_rows(len(X), BLOCK_IMAGES):
            kernel = self._similarities(standardise(X[block], self.mean_, self.scale_))
            scores[block] = np.clip(kernel @ self.coef_ + self.rate_, 0, 1)
        return scores

    def _linearize(self, X: NDArray[np.float32], columns: NDArray[np.int64]) -> Linearization:
        """Values and gradients of the scores before they are clipped.

        With ``k_l = exp(-gamma / n_features * ||z - l||²)`` the similarity to landmark l, whose coefficient is c_l,

            d/dz sum_l c_l k_l = -2 gamma / n_features * (z sum_l c_l k_l - sum_l c_l k_l l).
        """
        Z = standardise(X, self.mean_, self.scale_).astype(np.float64)
        kernel, coef = self._similarities(Z), self.coef_[:, columns].astype(np.float64)
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


def _divide(root: Floats, values: Floats) -> Floats:
    """Solve ``root x = values`` for a lower triangular matrix."""
    divided: Floats = scipy.linalg.solve_triangular(root, values, lower=True)
    return divided
