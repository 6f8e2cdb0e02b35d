"""The most probable concepts of each image, and sets of at least one and at most as many as the task allows."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from eval.editions import MAX_CONCEPTS
from heads.data.blocks import split_rows
from heads.data.types import Counts, Scores

BLOCK_ROWS = 2048
"""Images that are decoded at a time. It bounds the memory that sorting takes."""


def most_probable(scores: Scores, n_columns: int) -> NDArray[np.int64]:
    """Find the columns of the greatest scores of each row.

    Parameters
    ----------
    scores : ndarray of float32, shape (n_images, n_concepts)
    n_columns : int

    Returns
    -------
    ndarray of int64, shape (n_images, min(n_columns, n_concepts))
        Columns by falling score. Among equal scores the first columns win.

    Examples
    --------
    >>> most_probable(np.array([[0.1, 0.7, 0.7, 0.3]], np.float32), 3).tolist()
    [[1, 2, 3]]
    """
    if scores.shape[1] <= n_columns:
        order: NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")
        return order
    # A partition is about seven times as fast as sorting whole rows. It does not say which of several equal scores
    # at the boundary it takes, so only its boundary is used: all scores above it, and the first of those equal to it.
    boundary = -np.partition(-scores, n_columns - 1, axis=1)[:, n_columns - 1 : n_columns]
    above, equal = scores > boundary, scores == boundary
    n_equal = n_columns - np.count_nonzero(above, axis=1)
    selected = above | (equal & (equal.cumsum(axis=1, dtype=np.int32) <= n_equal[:, None]))
    columns = np.nonzero(selected)[1].reshape(len(scores), n_columns)  # each row has n_columns of them
    order = np.argsort(-np.take_along_axis(scores, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def mark(columns: NDArray[np.int64], n_concepts: int, sizes: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
    """Turn columns into an indicator.

    Parameters
    ----------
    columns : ndarray of int64, shape (n_images, n_columns)
    n_concepts : int
    sizes : ndarray of int64, shape (n_images,), optional
        How many of each row's columns count, from the first; all if not given.

    Returns
    -------
    ndarray of bool, shape (n_images, n_concepts)

    Examples
    --------
    >>> mark(np.array([[2, 0], [1, 2]]), 3, np.array([1, 2])).astype(int).tolist()
    [[0, 0, 1], [0, 1, 1]]
    """
    marked = np.zeros((len(columns), n_concepts), bool)
    counts = True if sizes is None else np.arange(columns.shape[1]) < sizes[:, None]
    np.put_along_axis(marked, columns, counts, axis=1)
    return marked


def bound_sizes(predicted: NDArray[np.bool_], scores: Scores, may_be_empty: bool = False) -> NDArray[np.bool_]:
    """Give each image at least one concept, its most probable, and at most as many as the task allows.

    Parameters
    ----------
    predicted : ndarray of bool, shape (n_images, n_concepts)
        Changed in place.
    scores : ndarray of float32, shape (n_images, n_concepts)
    may_be_empty : bool
        Leave an image without concepts as it is.

    Returns
    -------
    ndarray of bool, shape (n_images, n_concepts)
        `predicted`.

    Examples
    --------
    >>> bound_sizes(np.zeros((1, 3), bool), np.array([[0.1, 0.3, 0.2]], np.float32)).tolist()
    [[False, True, False]]
    """
    if not may_be_empty:
        empty = np.flatnonzero(~predicted.any(axis=1))
        predicted[empty, scores[empty].argmax(axis=1)] = True
    crowded = np.flatnonzero(np.count_nonzero(predicted, axis=1) > MAX_CONCEPTS)
    if len(crowded):
        of_predicted = np.where(predicted[crowded], scores[crowded], -np.inf)
        predicted[crowded] = mark(most_probable(of_predicted, MAX_CONCEPTS), predicted.shape[1])
    return predicted


def rank(
    scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts
) -> tuple[Scores, NDArray[np.bool_], NDArray[np.int64]]:
    """Rank the most probable concepts of each image, as many as the task allows.

    Parameters
    ----------
    scores : ndarray of float32, shape (n_images, n_concepts)
    Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
    n_true : ndarray of int, shape (n_images,), or None

    Returns
    -------
    ranked : ndarray of float32, shape (n_images, n_ranked)
        Their scores, falling.
    hits : ndarray of bool, shape (n_images, n_ranked)
        Whether they are true.
    n_true : ndarray of int64, shape (n_images,)
        How many concepts each image truly has.
    """
    n_ranked = min(MAX_CONCEPTS, scores.shape[1])
    ranked, hits = np.empty((len(scores), n_ranked), np.float32), np.empty((len(scores), n_ranked), bool)

    def rank_block(block: slice) -> None:
        columns = most_probable(scores[block], n_ranked)
        ranked[block] = np.take_along_axis(scores[block], columns, axis=1)
        hits[block] = np.take_along_axis(np.asarray(Y[block].todense(), dtype=bool), columns, axis=1)

    from joblib import cpu_count

    with ThreadPoolExecutor(cpu_count()) as pool:  # NumPy releases Python's lock while it sorts
        list(pool.map(rank_block, split_rows(len(scores), BLOCK_ROWS)))
    return ranked, hits, np.diff(Y.indptr).astype(np.int64) if n_true is None else n_true
