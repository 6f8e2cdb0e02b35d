"""What a head says about why an image has its scores: how they change with the features, or which images voted."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Linearization(NamedTuple):
    """Scores of images before they are squashed or clipped, and how they change with the features.

    Parameters
    ----------
    values : ndarray of float64, shape (n_images, n_columns)
        Logits, or the values of a regression.
    gradients : ndarray of float64, shape (n_images, n_columns, n_features)
    unit : str
        What the values are: ``logit`` or ``score``.
    is_exact : bool
        Whether the values are linear in the features, so that the gradients are the same for every image.
    """

    values: NDArray[np.float64]
    gradients: NDArray[np.float64]
    unit: str
    is_exact: bool


class Neighbours(NamedTuple):
    """The training images that decide the scores of images, nearest first.

    Parameters
    ----------
    rows : ndarray of int64, shape (n_images, n_neighbours)
        Their rows in the training data.
    similarities : ndarray of float32, shape (n_images, n_neighbours)
        Cosine of the angle between the embeddings.
    labels : sparse matrix of {0, 1}, shape (n_training_images, n_concepts)
    """

    rows: NDArray[np.int64]
    similarities: NDArray[np.float32]
    labels: Any


def linear_scores(
    Z: NDArray[Any], coef: NDArray[Any], intercept: NDArray[Any], scale: NDArray[Any], unit: str
) -> Linearization:
    """The linearization of scores that are linear in standardised features.

    Parameters
    ----------
    Z : ndarray, shape (n_images, n_features)
        Standardised features.
    coef : ndarray, shape (n_columns, n_features)
    intercept : ndarray, shape (n_columns,)
    scale : ndarray, shape (n_features,)
        The standard deviation by which features were divided.
    unit : str
    """
    coef = coef.astype(np.float64)
    gradients = np.broadcast_to(coef / scale, (len(Z), *coef.shape))
    return Linearization(Z @ coef.T + intercept, gradients, unit, True)
