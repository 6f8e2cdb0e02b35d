"""Nearest neighbours by cosine similarity, which vote for their concepts."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import scipy.sparse
from joblib import cpu_count
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from cache.support.json_file import DamagedFileError
from cache.support.messages import describe_error
from heads.data.arrays import SavedArray, check_arrays
from heads.data.blocks import split_rows
from heads.data.types import Arrays
from heads.data.validation import check_number, positive_rate
from heads.estimators.base import Head
from heads.estimators.linearization import Neighbours
from heads.networks.backend import import_keras
from heads.networks.layers import head_model, linear

BLOCK_VALUES = 2**24
"""Similarities in a thread's memory at a time: 64 MiB."""

SAVED = {
    "directions": SavedArray(("images", "features")),
    "label_ends": SavedArray(("ends",), np.integer),
    "labels": SavedArray(("labels",), np.integer),
}
"""The arrays of a saved head."""


class KNeighborsHead(Head):
    """Votes of the most similar training images, weighted by cosine similarity.

    The default of 33 neighbours is the one of auebnlpgroup at ImageCLEFmedical Caption 2024. The search is exact. An
    image without a neighbour of positive similarity, such as one whose embedding is zero, gets the training
    frequencies.

    Parameters
    ----------
    k : int
        Number of neighbours; all training images if there are fewer.

    Attributes
    ----------
    directions_ : ndarray of float32, shape (n_images, n_features)
        Training embeddings, scaled to length 1 unless they are zero.
    labels_ : sparse matrix of float32, shape (n_images, n_concepts)
    frequency_ : ndarray of float32, shape (n_concepts,)
        Training frequencies.

    Examples
    --------
    >>> head = KNeighborsHead(k=2).fit([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], [[1, 1], [0, 1], [1, 0]])
    >>> head.predict_proba([[5.0, 0.0]])
    array([[0.625, 1.   ]], dtype=float32)
    """

    def __init__(self, k: int = 33) -> None:
        self.k = k

    def check_params(self) -> None:
        """Check the parameters before anything is computed."""
        check_number(self.k, "k", int, 1)

    def scores_for(self, X: ArrayLike, ks: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """Score with several numbers of neighbours after one search.

        Parameters
        ----------
        X : array of float, shape (n_images, n_features)
        ks : sequence of int

        Returns
        -------
        dict of int to ndarray of float32, shape (n_images, n_concepts)
            For each k, the same scores as `predict_proba`.

        Raises
        ------
        ParameterError
            A k is out of its range, or X is not as `predict_proba` expects it.
        """
        for k in ks:
            check_number(k, "k", int, 1)
        embeddings = self._check_embeddings(X)
        scores = {k: np.empty((len(embeddings), self.n_concepts_), np.float32) for k in ks}
        if scores:
            for block, similarities, neighbours in self._search(embeddings, max(ks)):
                for k, each in scores.items():
                    each[block] = self._vote(similarities[:, :k], neighbours[:, :k])
        return scores

    def _fit(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> None:
        self.directions_, self.labels_, self.frequency_ = _directions(X), Y, positive_rate(Y)

    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.scores_for(X, [self.k])[self.k]

    def _search(self, X: NDArray[np.float32], k: int) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.int64]]]:
        """Similarities and rows of the k nearest training images, nearest first, for each block of images."""

        def search(block: slice) -> tuple[slice, NDArray[np.float32], NDArray[np.int64]]:
            similarities = _directions(X[block]) @ self.directions_.T
            neighbours = nearest(similarities, k)
            return block, np.take_along_axis(similarities, neighbours, axis=1), neighbours

        # One product per thread, rather than all threads in one product: then the selection uses all cores too, and the
        # result does not depend on the number of threads.
        blocks = split_rows(len(X), max(1, BLOCK_VALUES // len(self.directions_)))
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(cpu_count()) as pool:
            yield from pool.map(search, blocks)

    def _vote(self, similarities: NDArray[np.float32], neighbours: NDArray[np.int64]) -> NDArray[np.float32]:
        """Share of the neighbours' similarity that each concept has, shape (n_images, n_concepts)."""
        weights = np.maximum(similarities, 0, dtype=np.float64)
        total = weights.sum(axis=1, keepdims=True)
        ends = np.arange(0, weights.size + 1, weights.shape[1])
        shape = (len(weights), len(self.directions_))
        votes = scipy.sparse.csr_matrix((weights.ravel(), neighbours.ravel(), ends), shape=shape) @ self.labels_
        shares = votes.toarray() / np.where(total > 0, total, 1)
        return np.where(total > 0, np.minimum(shares, 1), self.frequency_).astype(np.float32)

    def find_neighbours(self, X: ArrayLike) -> Neighbours:
        """The k nearest training images of each image."""
        found = list(self._search(self._check_embeddings(X), self.k))
        rows, similarities = (np.concatenate(each) for each in list(zip(*found, strict=True))[:0:-1])
        return Neighbours(rows, similarities, self.labels_)

    def to_keras(self) -> Any:
        """This head as a Keras model, which contains the training embeddings.

        It has 4 bytes per feature and 1 byte per concept of each training image. Where training images are equally
        similar it may choose others.
        """
        keras = import_keras()
        ops, features = keras.ops, keras.Input((self.n_features_in_,))
        largest = ops.max(ops.abs(features), axis=1, keepdims=True)
        scaled = features / ops.where(largest > 0, largest, 1)
        length = ops.sqrt(ops.sum(ops.square(scaled), axis=1, keepdims=True))
        similarities = linear(scaled / ops.where(length > 0, length, 1), self.directions_)
        similarities, neighbours = ops.top_k(similarities, min(self.k, len(self.directions_)))
        # One row per training image. As bytes it takes a quarter of the space of float32.
        labels = keras.layers.Embedding(*self.labels_.shape, "zeros", dtype="uint8", trainable=False)
        positive = ops.cast(labels(neighbours), "float32")
        labels.set_weights([self.labels_.astype(np.uint8).toarray()])
        weights = ops.relu(similarities)
        total = ops.sum(weights, axis=1, keepdims=True)
        shares = ops.einsum("ik,ikc->ic", weights, positive) / ops.where(total > 0, total, 1)
        fallback = linear(ops.cast(total <= 0, "float32"), self.frequency_[:, None])
        return head_model(features, ops.minimum(shares, 1) + fallback)

    def get_state(self) -> Arrays:
        """What was learnt, as named arrays."""
        return {"directions": self.directions_, "label_ends": self.labels_.indptr, "labels": self.labels_.indices}

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        sides = {"features": self.n_features_in_, "concepts": self.n_concepts_}
        self.directions_, ends, columns = check_arrays(state, SAVED, **sides)
        if not len(self.directions_):
            raise DamagedFileError("it has no training image")
        shape = (len(self.directions_), self.n_concepts_)
        try:
            self.labels_ = scipy.sparse.csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape=shape)
            self.labels_.check_format(full_check=True)  # SciPy would read outside the arrays of a damaged matrix
        except ValueError as error:
            raise DamagedFileError(f"its labels: {describe_error(error)}") from None
        self.frequency_ = positive_rate(self.labels_)


def nearest(similarities: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Columns of the k largest values of each row, the largest first.

    Parameters
    ----------
    similarities : ndarray of float32, shape (n_rows, n_values)
    k : int

    Returns
    -------
    ndarray of int64, shape (n_rows, min(k, n_values))

    Examples
    --------
    >>> nearest(np.array([[0.1, 0.9, 0.5]], np.float32), 2)
    array([[1, 2]])
    """
    if k >= similarities.shape[1]:
        chosen = np.broadcast_to(np.arange(similarities.shape[1]), similarities.shape)
    else:
        chosen = np.argpartition(similarities, -k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(similarities, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)


def _directions(X: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embeddings scaled to length 1; zero stays zero."""
    # Divided by the largest value first: squares of very small or large features do not fit into float32.
    largest = np.abs(X).max(axis=1, keepdims=True)
    scaled = X / np.where(largest > 0, largest, 1)
    length = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
    directions: NDArray[np.float32] = np.divide(scaled, length, out=scaled, where=length > 0)
    return directions
