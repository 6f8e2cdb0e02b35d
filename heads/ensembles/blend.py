"""How the scores of several runs become one: a mean, a weighted mean, or a stacked logistic regression."""

from collections.abc import Sequence

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from heads.decoders.calibration import EPSILON, clipped_logit

Scores = Sequence[NDArray[np.float32]]

MOST_ROWS, ABSENT = 5000, 20
"""Images from which weights are learnt, and absent concepts for each present one in a stack: a handful of numbers
needs no more."""

STEPS, SETTLED = 200, 1e-6
"""Rounds of the weights at most, and the change at which they have settled."""


def fit_weights(scores: Scores, Y: scipy.sparse.csr_matrix) -> NDArray[np.float64]:
    """Weights of greatest likelihood of a weighted mean, by expectation maximisation.

    Parameters
    ----------
    scores : sequence of ndarray of float32, shape (n_images, n_concepts)
        One a run, of images that it did not learn from.
    Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)

    Returns
    -------
    ndarray of float64, shape (n_runs,)
        None below 0; their sum is 1.
    """
    rows = _some_rows(Y.shape[0])
    present = np.asarray(Y[rows].todense(), dtype=bool)
    # How probable each run holds what is true.
    likely = [np.where(present, each[rows], 1 - each[rows]).clip(EPSILON, 1) for each in scores]
    weights = np.full(len(scores), 1 / len(scores))
    for _ in range(STEPS):
        mixed = sum(weight * each for weight, each in zip(weights, likely, strict=True))
        updated = weights * [float((each / mixed).mean(dtype=np.float64)) for each in likely]
        change, weights = np.abs(updated - weights).max(), updated / updated.sum()
        if change < SETTLED:
            break
    return weights


def mix(scores: Scores, weights: Sequence[float]) -> NDArray[np.float32]:
    """Weighted mean of scores."""
    mixed = np.zeros(scores[0].shape, np.float32)
    for weight, each in zip(weights, scores, strict=True):
        mixed += np.float32(weight) * each
    return mixed


def fit_stack(scores: Scores, Y: scipy.sparse.csr_matrix) -> NDArray[np.float64]:
    """Coefficients of a logistic regression on the runs' logits, one set for all concepts, and its intercept.

    One set, because most concepts have too few images for one of their own.

    Parameters
    ----------
    scores, Y
        As in `fit_weights`.

    Returns
    -------
    ndarray of float64, shape (n_runs + 1,)
    """
    rows = _some_rows(Y.shape[0])
    present = np.asarray(Y[rows].todense(), dtype=bool)
    kept = present.copy()
    random = np.random.default_rng(0)
    share = min(1.0, ABSENT * present.sum() / max(1, (~present).sum()))
    kept |= random.random(present.shape) < share
    X = np.column_stack([clipped_logit(each[rows][kept]) for each in scores])
    y = present[kept]
    if y.all() or not y.any():
        return np.append(np.full(len(scores), 1 / len(scores)), 0.0)
    model = LogisticRegression(C=1.0, max_iter=1000).fit(X, y, sample_weight=np.where(y, 1.0, 1 / share))
    return np.append(model.coef_[0], model.intercept_[0])


def stack(scores: Scores, coefficients: Sequence[float]) -> NDArray[np.float32]:
    """Scores of the stacked logistic regression."""
    margin = np.full(scores[0].shape, np.float32(coefficients[-1]))
    for coefficient, each in zip(coefficients[:-1], scores, strict=True):
        margin += np.float32(coefficient) * clipped_logit(each)
    return expit(margin, out=margin)


def _some_rows(n_images: int) -> NDArray[np.int64]:
    if n_images <= MOST_ROWS:
        return np.arange(n_images)
    return np.sort(np.random.default_rng(0).choice(n_images, MOST_ROWS, replace=False))
