"""Blend the scores of several runs: a weighted mean, or a stacked logistic regression."""

from collections.abc import Sequence

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from heads.data.types import Scores
from heads.decoders.calibration import EPSILON, clipped_logit

MAX_ROWS = 5000
"""Weights are learnt from at most so many images: there are few of them."""

N_NEGATIVES = 20
"""A stack is learnt from so many negative labels per positive one."""

MAX_ITER, TOLERANCE = 200, 1e-6
"""Expectation maximisation ends after so many steps, or when no weight changes by more."""


def fit_weights(scores: Sequence[Scores], Y: scipy.sparse.csr_matrix) -> NDArray[np.float64]:
    """Weights of a weighted mean by maximum likelihood.

    The mean is a mixture: with the probability of its weight, a run is drawn, and its score is the probability of the
    label. Expectation maximisation finds the weights. Each step multiplies a weight by the mean share that its run has
    in the probability of the true labels.

    Parameters
    ----------
    scores : sequence of ndarray of float32, each of shape (n_images, n_concepts)
        One per run, of images that the run did not learn from.
    Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)

    Returns
    -------
    ndarray of float64, shape (n_runs,)
        At least 0, with the sum 1.
    """
    rows = _some_rows(Y.shape[0])
    positive = np.asarray(Y[rows].todense(), dtype=bool)
    # Probability that each run gives to the true label.
    likelihoods = [np.where(positive, each[rows], 1 - each[rows]).clip(EPSILON, 1) for each in scores]
    weights = np.full(len(scores), 1 / len(scores))
    for _ in range(MAX_ITER):
        mixed = sum(weight * each for weight, each in zip(weights, likelihoods, strict=True))
        updated = weights * [float((each / mixed).mean(dtype=np.float64)) for each in likelihoods]
        change, weights = np.abs(updated - weights).max(), updated / updated.sum()
        if change < TOLERANCE:
            break
    return weights


def mix(scores: Sequence[Scores], weights: Sequence[float]) -> Scores:
    """Weighted mean of scores, shape (n_images, n_concepts).

    Parameters
    ----------
    scores : sequence of ndarray of float32, each of shape (n_images, n_concepts)
    weights : sequence of float, length n_runs
    """
    mixed = np.zeros(scores[0].shape, np.float32)
    for weight, each in zip(weights, scores, strict=True):
        mixed += np.float32(weight) * each
    return mixed


def fit_stack(scores: Sequence[Scores], Y: scipy.sparse.csr_matrix) -> NDArray[np.float64]:
    """Coefficients and intercept of a logistic regression on the logits of the runs.

    All concepts share them, because most have too few images for their own.

    Parameters
    ----------
    scores, Y
        As in `fit_weights`.

    Returns
    -------
    ndarray of float64, shape (n_runs + 1,)
        The intercept is the last.
    """
    rows = _some_rows(Y.shape[0])
    positive = np.asarray(Y[rows].todense(), dtype=bool)
    # All positive labels and a sample of the negative ones, which is weighted up to their true number.
    sampled = positive.copy()
    random = np.random.default_rng(0)
    share = min(1.0, N_NEGATIVES * positive.sum() / max(1, (~positive).sum()))
    sampled |= random.random(positive.shape) < share
    X = np.column_stack([clipped_logit(each[rows][sampled]) for each in scores])
    y = positive[sampled]
    if y.all() or not y.any():
        return np.append(np.full(len(scores), 1 / len(scores)), 0.0)
    model = LogisticRegression(C=1.0, max_iter=1000).fit(X, y, sample_weight=np.where(y, 1.0, 1 / share))
    return np.append(model.coef_[0], model.intercept_[0])


def stack(scores: Sequence[Scores], coefficients: Sequence[float]) -> Scores:
    """Scores of the stacked logistic regression, shape (n_images, n_concepts).

    Parameters
    ----------
    scores : sequence of ndarray of float32, each of shape (n_images, n_concepts)
    coefficients : sequence of float, length n_runs + 1
        Those of `fit_stack`.
    """
    margin = np.full(scores[0].shape, np.float32(coefficients[-1]))
    for coefficient, each in zip(coefficients[:-1], scores, strict=True):
        margin += np.float32(coefficient) * clipped_logit(each)
    expit(margin, out=margin)
    return margin


def _some_rows(n_images: int) -> NDArray[np.int64]:
    if n_images <= MAX_ROWS:
        return np.arange(n_images)
    return np.sort(np.random.default_rng(0).choice(n_images, MAX_ROWS, replace=False))
