"""Nearest neighbours by cosine, and the concepts that they vote for."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import scipy.sparse
from joblib import cpu_count
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from heads.estimators.base import Head, State, check_number, positive_rate
from heads.networks.backend import import_keras
from heads.networks.layers import head_model, linear

BLOCK_VALUES = 2**24
"""Similarities that a thread holds at a time: 64 MiB."""

DEPTH = 64
"""Training images of a group: the nearest are looked for in the groups whose nearest image is nearest."""


class KNeighborsHead(Head):
    """Votes of the most similar training images, weighted by their cosine similarity.

    The default of 33 neighbours is auebnlpgroup's at ImageCLEFmedical Caption 2024. The search is exact. An image
    whose embedding is zero, or points away from all others, has no neighbours and gets the training frequencies.

    Parameters
    ----------
    k : int
        Neighbours; all training images if there are fewer.

    Attributes
    ----------
    directions_ : ndarray of float32, shape (n_images, n_features)
        Training embeddings of length 1, or 0.
    labels_ : sparse matrix of float32, shape (n_images, n_concepts)
    frequency_ : ndarray of float32, shape (n_concepts,)

    Examples
    --------
    >>> head = KNeighborsHead(k=2).fit([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], [[1, 1], [0, 1], [1, 0]])
    >>> head.predict_proba([[5.0, 0.0]])
    array([[0.625, 1.   ]], dtype=float32)
    """

    def __init__(self, k: int = 33) -> None:
        self.k = k

    def check_params(self) -> None:
        """Check parameters before anything is computed."""
        check_number(self.k, "k", int, 1)

    def scores_for(self, X: ArrayLike, ks: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """Scores for several numbers of neighbours, from one search.

        Parameters
        ----------
        X : array of float, shape (n_images, n_features)
        ks : sequence of int

        Returns
        -------
        dict of int to ndarray of float32, shape (n_images, n_concepts)
            The scores of each k, as `predict_proba` gives them.

        Raises
        ------
        ValueError, TypeError
            A k is out of its range, or X is not as `predict_proba` wants it.
        """
        for k in ks:
            check_number(k, "k", int, 1)
        embeddings = self._check_embeddings(X)
        scores = {k: np.empty((len(embeddings), self.n_concepts_), np.float32) for k in ks}
        if scores:
            for part, similar, neighbours in self._search(embeddings, max(ks)):
                for k, each in scores.items():
                    each[part] = self._vote(similar[:, :k], neighbours[:, :k])
        return scores

    def _fit(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> None:
        self.directions_, self.labels_, self.frequency_ = _directions(X), Y, positive_rate(Y)

    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.scores_for(X, [self.k])[self.k]

    def _search(self, X: NDArray[np.float32], k: int) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.int64]]]:
        """Similarities and places of the k nearest training images, block by block, the nearest first."""
        n_block = max(1, BLOCK_VALUES // len(self.directions_))
        parts = [slice(start, start + n_block) for start in range(0, len(X), n_block)]

        def search(part: slice) -> tuple[slice, NDArray[np.float32], NDArray[np.int64]]:
            similar = _directions(X[part]) @ self.directions_.T
            neighbours = nearest(similar, k)
            return part, np.take_along_axis(similar, neighbours, axis=1), neighbours

        # One product in each thread, and not one product in all: selecting then keeps every core busy too, and
        # the number of threads changes no bit.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(cpu_count()) as pool:
            yield from pool.map(search, parts)

    def _vote(self, similar: NDArray[np.float32], neighbours: NDArray[np.int64]) -> NDArray[np.float32]:
        weights = np.maximum(similar, 0, dtype=np.float64)
        total = weights.sum(axis=1, keepdims=True)
        ends = np.arange(0, weights.size + 1, weights.shape[1])
        shape = (len(weights), len(self.directions_))
        votes = scipy.sparse.csr_matrix((weights.ravel(), neighbours.ravel(), ends), shape=shape) @ self.labels_
        shares = votes.toarray() / np.where(total > 0, total, 1)
        return np.where(total > 0, np.minimum(shares, 1), self.frequency_).astype(np.float32)

    def to_keras(self) -> Any:
        """This head as a Keras model, which holds the training embeddings: 4 bytes a feature, 1 a concept an image.

        Of training images that are equally near, it may take others.
        """
        keras = import_keras()
        ops, features = keras.ops, keras.Input((self.n_features_in_,))
        largest = ops.max(ops.abs(features), axis=1, keepdims=True)
        scaled = features / ops.where(largest > 0, largest, 1)
        length = ops.sqrt(ops.sum(ops.square(scaled), axis=1, keepdims=True))
        similar = linear(scaled / ops.where(length > 0, length, 1), self.directions_)
        similar, neighbours = ops.top_k(similar, min(self.k, len(self.directions_)))
        # A table with a row an image; as bytes, a quarter of what it would be as numbers.
        labels = keras.layers.Embedding(*self.labels_.shape, "zeros", dtype="uint8", trainable=False)
        shown = ops.cast(labels(neighbours), "float32")
        labels.set_weights([self.labels_.astype(np.uint8).toarray()])
        weights = ops.relu(similar)
        total = ops.sum(weights, axis=1, keepdims=True)
        shares = ops.einsum("ik,ikc->ic", weights, shown) / ops.where(total > 0, total, 1)
        usual = linear(ops.cast(total <= 0, "float32"), self.frequency_[:, None])
        return head_model(features, ops.minimum(shares, 1) + usual)

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.directions_, ends, places = state["directions"], state["label_ends"], state["labels"]
        shape = (len(self.directions_), self.n_concepts_)
        self.labels_ = scipy.sparse.csr_matrix((np.ones(len(places), np.float32), places, ends), shape=shape)
        self.labels_.check_format(full_check=True)  # SciPy would follow a place outside the matrix
        self.frequency_ = positive_rate(self.labels_)

    def get_state(self) -> State:
        """What was learnt, as named arrays."""
        return {"directions": self.directions_, "label_ends": self.labels_.indptr, "labels": self.labels_.indices}


def nearest(similar: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Places of the k greatest values of each row, the greatest first.

    A plain partial sort looks at every value several times. Here each row's values are put into groups, of which
    only the greatest value is looked at; the k greatest values lie in the k groups whose greatest are greatest.

    Parameters
    ----------
    similar : ndarray of float32, shape (n_rows, n_values)
    k : int

    Returns
    -------
    ndarray of int64, shape (n_rows, min(k, n_values))

    Examples
    --------
    >>> nearest(np.array([[0.1, 0.9, 0.5]], np.float32), 2)
    array([[1, 2]])
    """
    n_rows, n_values = similar.shape
    n_groups = n_values // DEPTH
    if k < n_groups:
        # A group is a column of (DEPTH, n_groups): the greatest of all groups are then found at once, in order.
        grouped = similar[:, : n_groups * DEPTH].reshape(n_rows, DEPTH, n_groups)
        groups = _greatest(grouped.max(axis=1), k)
        places = (groups[:, None, :] + n_groups * np.arange(DEPTH)[:, None]).reshape(n_rows, -1)
        rest = np.broadcast_to(np.arange(n_groups * DEPTH, n_values), (n_rows, n_values - n_groups * DEPTH))
        places = np.hstack([places, rest])
        chosen = np.take_along_axis(places, _greatest(np.take_along_axis(similar, places, axis=1), k), axis=1)
    else:
        chosen = _greatest(similar, k)
    order = np.argsort(-np.take_along_axis(similar, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)


def _greatest(values: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Places of the k greatest values of each row, in no order."""
    if k >= values.shape[1]:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    return np.argpartition(values, -k, axis=1)[:, -k:]


def _directions(X: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embeddings of length 1; zero stays zero."""
    # Scaled by the largest first: the squares of very small or large features leave float32.
    largest = np.abs(X).max(axis=1, keepdims=True)
    scaled = X / np.where(largest > 0, largest, 1)
    length = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
    return np.divide(scaled, length, out=scaled, where=length > 0)
