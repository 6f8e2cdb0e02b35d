"""Ways in which the maps of a layer become one vector per image."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.support.errors import ParameterError
from cache.support.keras import import_keras

POOLINGS = ("avg", "max", "gem")
"""Ways in which an output map becomes one vector. With several, as in ``avg,gem``, their vectors are joined."""

GEM_POWER, GEM_EPSILON = 3.0, 1e-6
"""Exponent of the generalised mean (GeM), and its lower bound of values: Radenović et al., Fine-tuning CNN Image
Retrieval with No Human Annotation, 2019."""


def split_poolings(text: str) -> list[str]:
    """Split ``avg,gem`` into its poolings, in the order of `POOLINGS`.

    Raises
    ------
    ParameterError
        A pooling is unknown, or there is none.

    Examples
    --------
    >>> split_poolings("gem,avg")
    ['avg', 'gem']
    """
    given = [name.strip() for name in text.split(",")]
    unknown = [name for name in given if name not in POOLINGS]
    if unknown:
        raise ParameterError(
            f"pooling '{unknown[0]}': expected one of {', '.join(POOLINGS)}, several as in avg,gem, or none for maps"
        )
    return [name for name in POOLINGS if name in given]


def pool(maps: Any, pooling: str) -> Any:
    """Pool maps, shape (n_images, height, width, n_features), to vectors, shape (n_images, n_features)."""
    keras = import_keras()
    if pooling == "avg":
        return keras.layers.GlobalAveragePooling2D()(maps)
    if pooling == "max":
        return keras.layers.GlobalMaxPooling2D()(maps)
    powers = keras.ops.power(keras.ops.maximum(maps, GEM_EPSILON), GEM_POWER)
    return keras.ops.power(keras.ops.mean(powers, axis=(1, 2)), 1 / GEM_POWER)


def spread_pooling(maps: NDArray[np.float32], pooling: str) -> NDArray[np.float32]:
    """Divide pooled vectors among the places of their maps.

    Each pooling multiplies its result by a factor by which the map is multiplied. For such a function the sum of
    partial derivatives times their values is the result itself (Euler). These products, times the number of places,
    are what this returns.

    Parameters
    ----------
    maps : ndarray of float32, shape (n_images, height, width, n_features)
    pooling : str
        One of `POOLINGS`.

    Returns
    -------
    ndarray of float32, shape (n_images, height, width, n_features)
        Its mean over height and width is the pooled vector. For ``avg`` these are the maps.

    Examples
    --------
    >>> spread_pooling(np.array([[[[1.0], [3.0]]]]), "max").ravel()
    array([0., 6.])
    """
    if pooling == "avg":
        return maps
    n_images, height, width, n_features = maps.shape
    places = maps.reshape(n_images, height * width, n_features)
    if pooling == "max":
        shares = np.zeros_like(places)
        first = places.argmax(axis=1)[:, None]
        largest = np.take_along_axis(places, first, axis=1)
        np.put_along_axis(shares, first, height * width * largest, axis=1)
    else:
        powers = np.maximum(places, GEM_EPSILON) ** GEM_POWER
        shares = powers * powers.mean(axis=1, keepdims=True) ** (1 / GEM_POWER - 1)
    spread: NDArray[np.float32] = shares.reshape(maps.shape)
    return spread
