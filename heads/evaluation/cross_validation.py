"""Cross-validated estimates: what a head and its decoder reach on images that neither has seen, in any way."""

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.base import clone

from eval.bootstrap import find_interval
from eval.f1 import ImageF1, image_f1, mean_f1
from heads.data.folds import score_out_of_fold, split_folds
from heads.data.types import Counts, Groups, Scores
from heads.decoders.base import Decoder
from heads.estimators.base import Head


def estimate(
    head: Head, decoder: Decoder, X: NDArray[Any], Y: scipy.sparse.csr_matrix, groups: Groups = None
) -> ImageF1:
    """F1 of each training image, where everything is learnt from the other folds alone (Stone, 1974).

    For each fold, a decoder that is tuned is tuned on out-of-fold scores of the others: a second cross-validation
    inside the first.

    Parameters
    ----------
    head, decoder
        Their parameters are used; they are not fitted.
    X : ndarray of float, shape (n_images, n_features)
    Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
    groups : ndarray, shape (n_images,), optional
        What stays together, in both cross-validations.

    Returns
    -------
    ndarray of float64, shape (n_images,)
    """
    f1 = np.empty(len(X))
    for rest, held in split_folds(len(X), groups):
        together = None if groups is None else groups[rest]
        inner = score_out_of_fold(head, X[rest], Y[rest], together) if decoder.tuned else np.empty((0, Y.shape[1]))
        fresh = clone(decoder).fit(inner, Y[rest], None, together)
        scores = head.with_params({}).fit(X[rest], Y[rest]).predict_proba(X[held])
        f1[held] = image_f1(Y[held], fresh.predict(scores))
    return f1


def estimate_decoder(
    decoder: Decoder, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts = None, groups: Groups = None
) -> ImageF1:
    """F1 of each image, where the decoder is fitted to the scores of the other folds.

    Parameters
    ----------
    decoder
        Its parameters are used; it is not fitted.
    scores, Y, n_true, groups
        As `Decoder.fit` takes them: scores of images that the head did not learn from.

    Returns
    -------
    ndarray of float64, shape (n_images,)
    """
    f1 = np.empty(len(scores))
    for rest, held in split_folds(len(scores), groups):
        true, together = (None if each is None else each[rest] for each in (n_true, groups))
        fresh = clone(decoder).fit(scores[rest], Y[rest], true, together)
        f1[held] = image_f1(Y[held], fresh.predict(scores[held]), None if n_true is None else n_true[held])
    return f1


def summarise(f1: ImageF1, on: str) -> dict[str, Any]:
    """An estimate as a run keeps it."""
    return {"primary": mean_f1(f1), "primary_interval": list(find_interval(f1)), "n_images": len(f1), "on": on}
