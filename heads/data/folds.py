"""What decoders are tuned on: scores of images that the head did not train on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold

from cache.support.errors import UserError
from cache.support.files import replacing
from heads.estimators.base import Head

N_FOLDS = 5
"""Parts of train: each is scored by a head that learnt from the others."""

SCORES, VALID_SCORES = "out_of_fold.npy", "valid_scores.npy"
"""Scores that a run keeps: of train, and of valid where the head has learnt from that too in the end."""


def score_out_of_fold(
    head: Head, X: NDArray[Any], Y: scipy.sparse.csr_matrix, groups: NDArray[Any] | None = None
) -> NDArray[np.float32]:
    """Score each training image by a head that did not see it, nor any other image of its group.

    Parameters
    ----------
    head : Head
        Its parameters are used; it is not fitted.
    X : ndarray of float, shape (n_images, n_features)
    Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
    groups : ndarray, shape (n_images,), optional
        Images of one group, such as a patient's, stay together.

    Returns
    -------
    ndarray of float32, shape (n_images, n_concepts)

    Raises
    ------
    UserError
        There are fewer than two images, or groups.
    """
    scores = np.empty(Y.shape, np.float32)
    for rest, held in split_folds(len(X), groups):
        scores[held] = head.with_params({}).fit(X[rest], Y[rest]).predict_proba(X[held])
    return scores


def split_folds(n_images: int, groups: NDArray[Any] | None = None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Rows to learn from and rows held out, `N_FOLDS` times or as often as there are images; the same every time.

    Raises
    ------
    UserError
        There are fewer than two images, or groups.
    """
    n_folds = count_folds(n_images, groups)
    if n_folds < 2:
        kind = "images" if groups is None else "groups"
        raise UserError(
            f"{n_folds} {kind} that can be read, expected at least 2 to make folds of; use fixed:0.3, which needs none"
        )
    kind = KFold(n_folds, shuffle=True, random_state=0) if groups is None else GroupKFold(n_folds)
    return iter(kind.split(np.zeros(n_images), groups=groups))


def count_folds(n_images: int, groups: NDArray[Any] | None = None) -> int:
    """Into how many parts images are split: `N_FOLDS`, or as many as there are images or groups."""
    return min(N_FOLDS, n_images if groups is None else len(np.unique(groups)))


def save_scores(scores: NDArray[np.float32], folder: Path, name: str = SCORES) -> None:
    """Keep scores with a run, so that another decoder, or an ensemble, needs no training."""
    with replacing(folder / name) as temporary, open(temporary, "wb") as file:
        np.save(file, scores, allow_pickle=False)


def load_scores(folder: Path, shape: tuple[int, int], name: str = SCORES) -> NDArray[np.float32] | None:
    """Scores that a run keeps, mapped from its file; None where they are missing or of another shape."""
    try:
        scores = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return scores if scores.shape == shape and scores.dtype == np.float32 else None
