"""Standardising embeddings, a block of images at a time, so that nothing wider than float32 is as large as they are."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BLOCK_IMAGES = 4096
"""Images that are worked on at a time: 32 MiB of 1,024 features in float64."""


def standardisation(X: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each feature.

    Parameters
    ----------
    X : ndarray of float32, shape (n_images, n_features)

    Returns
    -------
    mean, scale : ndarray of float32, shape (n_features,)
        The scale is 1 where a feature is constant.

    Examples
    --------
    >>> mean, scale = standardisation(np.array([[1, 7.1], [5, 7.1]], np.float32))
    >>> scale
    array([2., 1.], dtype=float32)
    """
    # In float64: the squares of a random network's features can be too small for float32.
    mean = sum(block.sum(axis=0, dtype=np.float64) for block in _blocks(X)) / len(X)
    squares = sum(np.square(block - mean).sum(axis=0) for block in _blocks(X))
    deviation = np.sqrt(squares / len(X))
    # What is no wider than float32's steps is rounding, and would be blown up to noise.
    varies = deviation > np.finfo(np.float32).eps * np.abs(mean)
    return mean.astype(np.float32), np.where(varies, deviation, 1).astype(np.float32)


def standardise(
    X: NDArray[np.float32], mean: NDArray[np.float32], scale: NDArray[np.float32], rows: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Standardised embeddings of some images, or of all, in one new array.

    Parameters
    ----------
    X : ndarray of float32, shape (n_images, n_features)
    mean, scale : ndarray of float32, shape (n_features,)
    rows : ndarray of int, shape (n_rows,), optional
        Which images, in which order.
    """
    n_rows = len(X) if rows is None else len(rows)
    standardised = np.empty((n_rows, X.shape[1]), np.float32)
    for start in range(0, n_rows, BLOCK_IMAGES):
        part = slice(start, start + BLOCK_IMAGES)
        np.subtract(X[part if rows is None else rows[part]], mean, out=standardised[part])
        standardised[part] /= scale
    return standardised


def _blocks(X: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    return (X[start : start + BLOCK_IMAGES] for start in range(0, len(X), BLOCK_IMAGES))
