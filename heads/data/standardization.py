"""Standardise embeddings, in blocks of images, so that no float64 copy of all embeddings is made.

There are two precisions. Heads that score in float32 use float32, in which a feature counts as constant if its standard
deviation is below float32's rounding of its mean. `logistic` promises scikit-learn's optimum, also for a feature that
varies little about a large mean; it uses float64 and the rule of scikit-learn's `StandardScaler`.
"""

from dataclasses import dataclass
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
    # The size of a block decides the last bits of a sum.
    return Moments.from_embeddings(X, BLOCK_IMAGES if dtype is np.float32 else 2 * BLOCK_IMAGES).standardisation(dtype)


@dataclass(frozen=True)
class Moments:
    """Mean and squared deviations of each feature; those of two sets of images add up.

    Parameters
    ----------
    n_images : int
        At least 1.
    mean : ndarray of float64, shape (n_features,)
    squares : ndarray of float64, shape (n_features,)
        Sum of the squared deviations from the mean.

    Examples
    --------
    >>> X = np.array([[1], [5], [6]], np.float32)
    >>> Moments.from_embeddings(X[:1]) + Moments.from_embeddings(X[1:])
    Moments(n_images=3, mean=array([4.]), squares=array([14.]))
    """

    n_images: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def from_embeddings(
        cls, X: NDArray[np.float32], block_images: int = BLOCK_IMAGES, rows: NDArray[np.int64] | None = None
    ) -> "Moments":
        """Those of some rows; all if not given."""
        n_images = len(X) if rows is None else len(rows)
        blocks = [block if rows is None else rows[block] for block in split_rows(n_images, block_images)]
        # In float64: squares of the features of a random network can be too small for float32.
        mean = sum((X[block].sum(axis=0, dtype=np.float64) for block in blocks), np.zeros(X.shape[1])) / n_images
        squares = sum((np.square(X[block] - mean).sum(axis=0) for block in blocks), np.zeros(X.shape[1]))
        return cls(n_images, mean, squares)

    def __add__(self, other: "Moments") -> "Moments":
        # Chan, Golub and LeVeque, 1979: exact where a feature has the same value in both sets.
        n_images, apart = self.n_images + other.n_images, other.mean - self.mean
        mean = self.mean + apart * (other.n_images / n_images)
        between = np.square(apart) * (self.n_images * other.n_images / n_images)
        return Moments(n_images, mean, self.squares + other.squares + between)

    def varies(self, dtype: type = np.float32) -> NDArray[np.bool_]:
        """Whether a feature varies by more than the rounding error of a precision, shape (n_features,)."""
        smallest: NDArray[Any]
        if dtype is np.float32:
            smallest = np.finfo(np.float32).eps * np.abs(self.mean)
        else:
            smallest = 10 * np.finfo(np.float64).eps * np.maximum(np.abs(self.mean), np.finfo(np.float32).tiny)
        varies: NDArray[np.bool_] = np.sqrt(self.squares / self.n_images) > smallest
        return varies

    def standardisation(self, dtype: type = np.float32) -> tuple[NDArray[Any], NDArray[Any]]:
        """Mean, and standard deviation where a feature varies: dividing by rounding error would turn it into noise."""
        scale = np.where(self.varies(dtype), np.sqrt(self.squares / self.n_images), 1)
        return self.mean.astype(dtype), scale.astype(dtype)


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
