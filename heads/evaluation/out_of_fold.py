"""Out-of-fold scores of training images: those of heads that learnt from the other folds."""

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from heads.data.folds import split_folds
from heads.data.split import LabelledSplit

if TYPE_CHECKING:
    from heads.estimators.base import Head, ProgressCallback


def out_of_fold_scores(
    head: "Head", split: LabelledSplit, progress: "ProgressCallback | None" = None
) -> NDArray[np.float32]:
    """Score each image of a split by a head that learnt neither from it nor from another image of its group.

    A decoder is fitted to these scores: those of a head for the images that it learnt from are too good.

    Parameters
    ----------
    head : Head
        Its parameters are used; it is not fitted.
    split : LabelledSplit
        Its groups stay together.
    progress : callable, optional
        As in `Head.fit`, for the fit on each fold.

    Returns
    -------
    ndarray of float32, shape (n_readable, n_concepts)

    Raises
    ------
    DataError
        There are fewer than two images, or groups.
    """
    return score_out_of_fold(head, split.X, split.Y, split.groups, progress)


def score_out_of_fold(
    head: "Head",
    X: Any,
    Y: scipy.sparse.csr_matrix,
    groups: NDArray[Any] | None = None,
    progress: "ProgressCallback | None" = None,
) -> NDArray[np.float32]:
    """Score each image by a head that learnt neither from it nor from another image of its group.

    Parameters
    ----------
    head : Head
        Its parameters are used; it is not fitted.
    X : ndarray of float, shape (n_images, n_features), or Maps
    Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
    groups : ndarray, shape (n_images,), optional
    progress : callable, optional
        As in `Head.fit`, for the fit on each fold.

    Returns
    -------
    ndarray of float32, shape (n_images, n_concepts)

    Raises
    ------
    DataError
        There are fewer than two images, or groups.
    """
    scores = np.empty(Y.shape, np.float32)
    for rest, held_out in split_folds(len(X), groups):
        fitted = head.with_params({}).fit(X[rest], Y[rest], progress=progress)
        scores[held_out] = fitted.predict_proba(X[held_out])
    return scores
