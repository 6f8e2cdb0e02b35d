"""Standardise embeddings, in blocks of images, so that no float64 copy of all embeddings is made.

There are two precisions. Heads that score in float32 use float32, in which a feature counts as constant if its standard
deviation is below float32's rounding of its mean. `logistic` promises scikit-learn's optimum, also for a feature that
varies little about a large mean; it uses float64 and the rule of scikit-learn's `StandardScaler`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.data.blocks import split_rows

BLOCK_IMAGES = 4096
"""Images per block: 32 MiB of 1,024 features in float64."""


def standardisation(X: NDArray[np.float32], dtype: type = np.float32) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean and standard deviation of each feature.

    Parameters
    ----------
    X : ndarray of float32, shape (n_images, n_features)
    dtype : {numpy.float32, numpy.float64}
        The precision of the result. Sums are in float64 in either case.

    Returns
    -------
    mean, scale : ndarray, shape (n_features,)
        The scale is 1 where a feature is constant.

    Examples
    --------
    >>> mean, scale = standardisation(np.array([[1, 7.1], [5, 7.1]], np.float32))
    >>> scale
    array([2., 1.], dtype=float32)
    """
    is_float32 = dtype is np.float32
    # The size of a block decides the last bits of a sum.
    blocks = list(split_rows(len(X), BLOCK_IMAGES if is_float32 else 2 * BLOCK_IMAGES))
    # In float64: squares of the features of a random network can be too small for float32.
    mean = sum((X[block].sum(axis=0, dtype=np.float64) for block in blocks), np.zeros(X.shape[1])) / len(X)
    squares = sum((np.square(X[block] - mean).sum(axis=0) for block in blocks), np.zeros(X.shape[1]))
    deviation = np.sqrt(squares / len(X))
    # A smaller deviation is rounding error; dividing by it would turn it into noise.
    if is_float32:
        smallest = np.finfo(np.float32).eps * np.abs(mean)
    else:
        smallest = 10 * np.finfo(np.float64).eps * np.maximum(np.abs(mean), np.finfo(np.float32).tiny)
    return mean.astype(dtype), np.where(deviation > smallest, deviation, 1).astype(dtype)


def standardise(
    X: NDArray[np.float32], mean: NDArray[Any], scale: NDArray[Any], rows: NDArray[np.int64] | None = None
) -> NDArray[Any]:
    """Subtract the mean and divide by the scale, in their precision.

    Parameters
    ----------
    X : ndarray of float32, shape (n_images, n_features)
    mean, scale : ndarray of float32 or float64, shape (n_features,)
    rows : ndarray of int, shape (n_rows,), optional
        The images to standardise, in this order; all if not given.

    Returns
    -------
    ndarray, shape (n_rows, n_features)
        A new array of the type of `mean`.
    """
    n_rows = len(X) if rows is None else len(rows)
    standardised = np.empty((n_rows, X.shape[1]), mean.dtype)
    for block in split_rows(n_rows, BLOCK_IMAGES):
        np.subtract(X[block if rows is None else rows[block]], mean, out=standardised[block])
        standardised[block] /= scale
    return standardised
