"""What heads are made of as Keras models: Keras' own layers and operations, so that they load without this project.

Keras is imported inside the functions: most commands never need it.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heads.networks.backend import import_keras

HEAD = "head"
"""Name of a head's Keras model, under which it is found in a larger one."""


def head_model(features: Any, scores: Any) -> Any:
    """The Keras model of a head.

    Parameters
    ----------
    features : keras.KerasTensor
        Its input.
    scores : keras.KerasTensor, shape (n_images, n_concepts)
    """
    return import_keras().Model(features, scores, name=HEAD)


def standardised(features: Any, mean: NDArray[Any], scale: NDArray[Any]) -> Any:
    """Features less their mean, divided by their scale.

    Subtracting comes first, in a layer of its own: folded into a kernel, what matters would be the small difference of
    large products. Keras' `Normalization` alone keeps squares of the scale, too small for float32 in random networks.

    Parameters
    ----------
    features : keras.KerasTensor, shape (n_images, n_features)
    mean, scale : ndarray, shape (n_features,)

    Returns
    -------
    keras.KerasTensor, shape (n_images, n_features)
    """
    keras = import_keras()
    centred = keras.layers.Normalization(mean=np.float32(mean), variance=np.ones(len(mean), np.float32))(features)
    return keras.layers.Rescaling((1 / scale.astype(np.float64)).tolist())(centred)


def linear(features: Any, coef: ArrayLike, intercept: ArrayLike | None = None, activation: str | None = None) -> Any:
    """A dense layer with given weights.

    Parameters
    ----------
    features : keras.KerasTensor, shape (n_images, n_features)
    coef : array, shape (n_outputs, n_features)
    intercept : array, shape (n_outputs,), optional
    activation : str, optional
        Keras' name for it.

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
