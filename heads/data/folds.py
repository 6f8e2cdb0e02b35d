"""How images are split into folds for cross-validation: always in the same way, and groups stay together."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache.support.errors import DataError

N_FOLDS = 5
"""Each fold is scored by a head that learnt from the others."""


def split_folds(n_images: int, groups: NDArray[Any] | None = None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Split images into folds.

    Parameters
    ----------
    n_images : int
    groups : ndarray, shape (n_images,), optional
        Images of a group are in the same fold.

    Yields
    ------
    rest, held_out : ndarray of int
        Rows to learn from and rows that are held out, `count_folds` times.

    Raises
    ------
    DataError
        There are fewer than two images, or groups.
    """
    n_folds = count_folds(n_images, groups)
    if n_folds < 2:
        kind = "images" if groups is None else "groups"
        raise DataError(
            f"{n_folds} {kind} that can be read, expected at least 2 to make folds of; use fixed:0.3, which needs none"
        )
    from sklearn.model_selection import GroupKFold, KFold

    splitter = KFold(n_folds, shuffle=True, random_state=0) if groups is None else GroupKFold(n_folds)
    return iter(splitter.split(np.zeros(n_images), groups=groups))


def check_folds(n_images: int, groups: NDArray[Any] | None = None, nested: bool = False) -> None:
    """Check that images can be divided into folds, before anything is computed.

    Parameters
    ----------
    n_images, groups
        As in `split_folds`.
    nested : bool
        Whether the rest of each fold is divided again.

    Raises
    ------
    DataError
        There are too few images, or groups.
    """
    for rest, _ in split_folds(n_images, groups):
        if nested:
            split_folds(len(rest), None if groups is None else groups[rest])


def count_folds(n_images: int, groups: NDArray[Any] | None = None) -> int:
    """Number of folds: `N_FOLDS`, or the number of images or groups if that is smaller."""
    return min(N_FOLDS, n_images if groups is None else len(np.unique(groups)))


def other_rows(n_images: int, rows: ArrayLike) -> NDArray[np.int64]:
    """The rows that are not among some rows, in ascending order.

    >>> other_rows(5, [3, 0])
    array([1, 2, 4])
    """
    others = np.ones(n_images, dtype=bool)
    others[np.asarray(rows, np.int64)] = False
    return np.flatnonzero(others)
