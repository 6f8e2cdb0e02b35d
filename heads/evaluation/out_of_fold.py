"""Out-of-fold scores of training images: those of heads that learnt from the other folds."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from heads.data.folds import split_folds
from heads.data.rounding import round_scores
from heads.data.split import LabelledSplit

if TYPE_CHECKING:
    from heads.estimators.base import Head, ProgressCallback


def out_of_fold_scores(
    head: "Head", split: LabelledSplit, progress: "ProgressCallback | None" = None
) -> NDArray[np.float32]:
    """Score each image of a split by a head that learnt neither from it nor from another image of its group.

    A decoder is fitted to these scores: those of a head for the images that it learnt from are too good. They are
    rounded as runs save them, to 16 bits.

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


def tuning_scores(
    head: "Head", split: LabelledSplit, progress: "ProgressCallback | None" = None
) -> NDArray[np.float32]:
    """Score the images of a split that decoders are tuned on, as `out_of_fold_scores` does.

    Returns
    -------
    ndarray of float32, shape (n_tuning, n_concepts)
        Of the readable images of `LabelledSplit.tuning`.
    """
    return score_out_of_fold(head, split.X, split.Y, split.groups, progress, split.tuning_rows)


def score_out_of_fold(
    head: "Head",
    X: Any,
    Y: scipy.sparse.csr_matrix,
    groups: NDArray[Any] | None = None,
    progress: "ProgressCallback | None" = None,
    rows: NDArray[np.int64] | None = None,
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
    rows : ndarray of int, shape (n_scored,), optional
        The images to score, all if None. Heads learn from all others, too.

    Returns
    -------
    ndarray of float32, shape (n_scored, n_concepts)

    Raises
    ------
    DataError
        There are fewer than two images, or groups.
    """
    held_out = [fold for _, fold in split_folds(len(X), groups)]
    return _score_folds(head.fit_folds(X, Y, held_out, progress), X, Y.shape, held_out, rows)


class CrossFit:
    """A head fitted to all images, and then without each fold; many heads share the work (`Head.fit_folds`).

    Parameters
    ----------
    head : Head
        Its parameters are used; it is not fitted.
    X : ndarray of float, shape (n_images, n_features), or Maps
    Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
    groups : ndarray, shape (n_images,), optional
    progress : callable, optional
        As in `Head.fit`, for each fit.
    checkpoint : Path, optional
        As in `Head.fit`, for the fit on all images.

    Attributes
    ----------
    head : Head
        Fitted to all images.

    Raises
    ------
    DataError
        There are fewer than two images, or groups.
    """

    def __init__(
        self,
        head: "Head",
        X: Any,
        Y: scipy.sparse.csr_matrix,
        groups: NDArray[Any] | None = None,
        progress: "ProgressCallback | None" = None,
        checkpoint: Path | None = None,
    ) -> None:
        self._X, self._shape = X, Y.shape
        self._held_out = [fold for _, fold in split_folds(len(X), groups)]
        folds = [np.empty(0, np.int64), *self._held_out]
        self._heads = head.fit_folds(X, Y, folds, progress, checkpoint)
        self.head = next(self._heads)

    def score_folds(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Score some images by the heads without their folds, as `score_out_of_fold` does; can be called once."""
        return _score_folds(self._heads, self._X, self._shape, self._held_out, rows)


def _score_folds(
    heads: "Iterable[Head]",
    X: Any,
    shape: tuple[int, int],
    held_out: Sequence[NDArray[np.int64]],
    rows: NDArray[np.int64] | None,
) -> NDArray[np.float32]:
    n_images, n_concepts = shape
    rows = np.arange(n_images) if rows is None else rows
    places = np.full(n_images, -1)
    places[rows] = np.arange(len(rows))
    scores = np.empty((len(rows), n_concepts), np.float32)
    for fold, head in zip(held_out, heads, strict=True):
        scored = fold[places[fold] >= 0]
        if len(scored):
            scores[places[scored]] = round_scores(head.predict_proba(X[scored]))
    return scores
