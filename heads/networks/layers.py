"""Heads as Keras models: Keras' own layers and operations, so that the models load without this project."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heads.networks.backend import import_keras

HEAD = "head"
"""Name of a head's Keras model, by which it is found in a larger one."""


def head_model(features: Any, scores: Any) -> Any:
    """The Keras model of a head.

    Parameters
    ----------
    features : keras.KerasTensor
        Its input.
    scores : keras.KerasTensor, shape (n_images, n_concepts)
        Its output.
    """
    return import_keras().Model(features, scores, name=HEAD)


def standardised(features: Any, mean: NDArray[Any], scale: NDArray[Any]) -> Any:
    """Subtract the mean from features and divide them by the scale.

    The subtraction is a layer of its own. Folded into the kernel of the next layer, the result would be a small
    difference of large products. Keras' `Normalization` alone is not enough: it stores squares of the scale, which for
    random networks are too small for float32.

    Parameters
    ----------
    features : keras.KerasTensor, shape (n_images, n_features)
    mean, scale : ndarray, shape (n_features,)
        From `heads.data.standardization.standardisation`.

    Returns
    -------
    keras.KerasTensor, shape (n_images, n_features)
    """
    keras = import_keras()
    centred = keras.layers.Normalization(mean=np.float32(mean), variance=np.ones(len(mean), np.float32))(features)
    return keras.layers.Rescaling((1 / scale.astype(np.float64)).tolist())(centred)


def linear(features: Any, coef: ArrayLike, intercept: ArrayLike | None = None, activation: str | None = None) -> Any:
    """Apply a dense layer with given weights.

    Parameters
    ----------
    features : keras.KerasTensor, shape (n_images, n_features)
    coef : array, shape (n_outputs, n_features)
    intercept : array, shape (n_outputs,), optional
    activation : str, optional
        Keras' name of the activation function.

    Returns
    -------
    keras.KerasTensor, shape (n_images, n_outputs)
    """
    kernel = np.asarray(coef).T
    weights = [kernel] if intercept is None else [kernel, np.asarray(intercept)]
    layer = import_keras().layers.Dense(kernel.shape[1], activation, use_bias=intercept is not None)
    outputs = layer(features)
    layer.set_weights(weights)
    return outputs
