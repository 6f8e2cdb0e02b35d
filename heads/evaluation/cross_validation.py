"""Cross-validated estimates of F1: each image is scored by what was fitted to the other folds."""

from typing import TYPE_CHECKING, TypedDict

import numpy as np
import scipy.sparse

from eval.bootstrap import find_interval
from eval.f1 import ImageF1, image_f1, mean_f1
from heads.data.folds import split_folds
from heads.data.official_score import Bounds
from heads.data.split import LabelledSplit
from heads.data.types import Counts, Groups, Scores
from heads.evaluation.out_of_fold import CrossFit

if TYPE_CHECKING:
    from heads.decoders.base import Decoder
    from heads.estimators.base import Head, ProgressCallback


class EstimateMetrics(TypedDict):
    """A cross-validated estimate of the primary score as ``metrics.json`` has it."""

    primary: float
    primary_interval: Bounds
    n_images: int
    on: str
    """``train`` or ``valid``: the split that was divided into folds."""


def nested_f1(
    head: "Head", decoder: "Decoder", split: LabelledSplit, progress: "ProgressCallback | None" = None
) -> ImageF1:
    """F1 per image by nested cross-validation: head and decoder are fitted to the other folds alone (Stone, 1974).

    A decoder with something to tune is tuned on out-of-fold scores of these folds: a second cross-validation inside
    the first.

    Parameters
    ----------
    head, decoder
        Their parameters are used; they are not fitted.
    split : LabelledSplit
        Its groups stay together in both cross-validations.
    progress : callable, optional
        As in `Head.fit`, for each fit of the head.

    Returns
    -------
    ndarray of float64, shape (n_readable,)
        Of the images of `LabelledSplit.tuning`. Concepts without a column are not counted.

    Raises
    ------
    DataError
        There are fewer than two images, or groups.
    """
    from sklearn.base import clone

    X, Y, groups, scored = split.X, split.Y, split.groups, split.tuning_rows
    f1 = np.full(len(X), np.nan)
    for rest, held_out in split_folds(len(X), groups):
        rest_groups = None if groups is None else groups[rest]
        tuning = np.flatnonzero(np.isin(rest, scored))
        inner = np.empty((0, Y.shape[1]), np.float32)
        if decoder.tuned:
            crossed = CrossFit(head, X[rest], Y[rest], rest_groups, progress)
            fitted, inner = crossed.head, crossed.score_folds(tuning)
        else:
            fitted = head.with_params({}).fit(X[rest], Y[rest], progress=progress)
        tuned = clone(decoder).fit(inner, Y[rest][tuning], None, None if rest_groups is None else rest_groups[tuning])
        unseen = np.intersect1d(held_out, scored)
        f1[unseen] = image_f1(Y[unseen], tuned.predict(fitted.predict_proba(X[unseen])))
    return f1[scored]


def decoder_f1(
    decoder: "Decoder", scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts = None, groups: Groups = None
) -> ImageF1:
    """F1 per image by cross-validation of the decoder alone; the parameters are those of `decode_held_out`.

    Returns
    -------
    ndarray of float64, shape (n_images,)

    Raises
    ------
    DataError
        There are fewer than two images, or groups.
    """
    return image_f1(Y, decode_held_out(decoder, scores, Y, n_true, groups), n_true)


def decode_held_out(
    decoder: "Decoder", scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts = None, groups: Groups = None
) -> scipy.sparse.csr_matrix:
    """Decode each image by a decoder that was fitted to the scores of the other folds.

    Parameters
    ----------
    decoder
        Its parameters are used; it is not fitted.
    scores, Y, n_true, groups
        As in `Decoder.fit`: the scores are of images that the head did not learn from.

    Returns
    -------
    sparse matrix of {0, 1}, shape (n_images, n_concepts)

    Raises
    ------
    DataError
        There are fewer than two images, or groups.
    """
    from sklearn.base import clone

    parts, order = [], []
    for rest, held_out in split_folds(len(scores), groups):
        rest_true, rest_groups = (None if each is None else each[rest] for each in (n_true, groups))
        fitted = clone(decoder).fit(scores[rest], Y[rest], rest_true, rest_groups)
        parts.append(fitted.predict(scores[held_out]))
        order.append(held_out)
    return scipy.sparse.vstack(parts, format="csr")[np.argsort(np.concatenate(order))]


def summarise(f1: ImageF1, split: str) -> EstimateMetrics:
    """The mean of F1 per image with its 95% interval, and the split that was divided into folds."""
    return {"primary": mean_f1(f1), "primary_interval": list(find_interval(f1)), "n_images": len(f1), "on": split}
