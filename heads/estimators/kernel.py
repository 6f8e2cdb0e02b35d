"""Ridge regression with a Gaussian kernel: concepts need not be linear in the embedding."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from heads.estimators.base import Head, State, check_number
from heads.estimators.standardization import BLOCK_IMAGES, standardisation
from heads.networks.backend import import_keras
from heads.networks.layers import head_model, linear, standardised

JITTER = 1e-6
"""Added to the landmarks' own similarities, so that identical images among them do no harm."""

Floats = NDArray[np.float64]


class KernelHead(Head):
    """Multi-output kernel ridge regression of the indicator matrix on standardised embeddings.

    An image's score is a sum over landmarks, weighted by how similar it is to each: ``exp(-gamma * d)``, where d is the
    mean squared difference of the standardised features. With no more training images than `landmarks` all of them
    are landmarks, and the solution is exact; of more, as many are drawn (Nyström; Williams and Seeger, 2001).

    Scores estimate how likely a concept is, cut to [0, 1]. The penalty is not chosen by leaving single images out,
    as `heads.estimators.ridge` does: images of one patient are too much alike for that, and a kernel remembers them.

    Parameters
    ----------
    alpha : float
        The penalty, as in scikit-learn's `KernelRidge`.
    gamma : float
        How fast similarity falls; two images that have nothing in common differ by 2 on average.
    landmarks : int
        The most that are used: memory and time grow with it.
    random_state : int
        Seeds which training images are landmarks.

    Attributes
    ----------
    mean_, scale_ : ndarray of float32, shape (n_features,)
        The standardisation.
    landmarks_ : ndarray of float32, shape (n_landmarks, n_features)
        Standardised embeddings.
    coef_ : ndarray of float32, shape (n_landmarks, n_concepts)
    rate_ : ndarray of float32, shape (n_concepts,)
        Frequency of each concept, which an image that resembles none is given.

    Examples
    --------
    >>> X, Y = [[0.0], [1.0], [2.0], [3.0]], [[1, 0], [0, 1], [0, 1], [1, 0]]
    >>> KernelHead(alpha=0.01, gamma=2.0).fit(X, Y).predict_proba([[0.0], [1.5]]).round(1)
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """

    def __init__(self, alpha: float = 0.2, gamma: float = 0.5, landmarks: int = 4096, random_state: int = 0) -> None:
        self.alpha = alpha
        self.gamma = gamma
        self.landmarks = landmarks
        self.random_state = random_state

    def check_params(self) -> None:
        """Check parameters before anything is computed."""
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
        self.landmarks_, self.rate_ = (X[chosen] - self.mean_) / self.scale_, rate.astype(np.float32)
        solve = self._solve_exactly if len(chosen) == len(X) else self._solve
        self.coef_ = solve(X, Y, rate).astype(np.float32)

    def _solve_exactly(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix, rate: Floats) -> Floats:
        similar = self._similarities(self.landmarks_)
        similar[np.diag_indices_from(similar)] += self.alpha
        solved: Floats = scipy.linalg.solve(similar, Y.toarray() - rate, assume_a="pos", overwrite_a=True)
        return solved

    def _solve(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix, rate: Floats) -> Floats:
        """Ridge regression on similarities to the landmarks, whitened by those among landmarks."""
        n_landmarks = len(self.landmarks_)
        gram, product = np.zeros((n_landmarks, n_landmarks)), np.zeros((n_landmarks, Y.shape[1]))
        for start in range(0, len(X), BLOCK_IMAGES):
            part = slice(start, start + BLOCK_IMAGES)
            similar = self._similarities((X[part] - self.mean_) / self.scale_)
            gram += similar.T @ similar
            product += (Y[part].T @ similar).T - np.outer(similar.sum(axis=0), rate)
        among = self._similarities(self.landmarks_)
        among[np.diag_indices_from(among)] += JITTER
        root = scipy.linalg.cholesky(among, lower=True, overwrite_a=True)
        white = _whiten(root, _whiten(root, gram).T)
        white[np.diag_indices_from(white)] += self.alpha
        solved = scipy.linalg.solve(white, _whiten(root, product), assume_a="pos", overwrite_a=True, overwrite_b=True)
        coef: Floats = scipy.linalg.solve_triangular(root, solved, lower=True, trans="T", overwrite_b=True)
        return coef

    def _similarities(self, Z: NDArray[np.float32]) -> Floats:
        """How similar standardised images are to each landmark, shape (n_images, n_landmarks)."""
        # In float64: the difference of near images would drown in the rounding of their lengths.
        images, landmarks = Z.astype(np.float64), self.landmarks_.astype(np.float64)
        apart = images @ landmarks.T
        apart *= -2
        apart += np.square(images).sum(axis=1)[:, None]
        apart += np.square(landmarks).sum(axis=1)
        apart *= -self.gamma / Z.shape[1]
        similar: Floats = np.exp(np.minimum(apart, 0, out=apart), out=apart)
        return similar

    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = np.empty((len(X), self.n_concepts_), np.float32)
        for start in range(0, len(X), BLOCK_IMAGES):
            part = slice(start, start + BLOCK_IMAGES)
            similar = self._similarities((X[part] - self.mean_) / self.scale_)
            scores[part] = np.clip(similar @ self.coef_ + self.rate_, 0, 1)
        return scores

    def to_keras(self) -> Any:
        """This head as a Keras model."""
        keras = import_keras()
        features = keras.Input((self.n_features_in_,))
        Z = standardised(features, self.mean_, self.scale_)
        shared = linear(Z, 2 * self.landmarks_, -np.square(self.landmarks_.astype(np.float64)).sum(axis=1))
        apart = keras.ops.minimum(shared - keras.ops.sum(keras.ops.square(Z), axis=1, keepdims=True), 0)
        similar = keras.ops.exp(apart * (self.gamma / self.n_features_in_))
        scores = linear(similar, self.coef_.T, self.rate_)
        return head_model(features, keras.ops.clip(scores, 0, 1))

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.mean_, self.scale_, self.landmarks_ = state["mean"], state["scale"], state["landmarks"]
        self.coef_, self.rate_ = state["coef"], state["rate"]

    def get_state(self) -> State:
        """What was learnt, as named arrays."""
        learnt = {"mean": self.mean_, "scale": self.scale_, "landmarks": self.landmarks_}
        return learnt | {"coef": self.coef_, "rate": self.rate_}


def _whiten(root: Floats, values: Floats) -> Floats:
    """Divide by the square root of the similarities among landmarks."""
    divided: Floats = scipy.linalg.solve_triangular(root, values, lower=True)
    return divided
