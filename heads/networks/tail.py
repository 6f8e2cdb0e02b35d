"""The part of a network that follows a cut, and the average over the image: from maps to one vector per image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.support.devices import POLICIES
from cache.support.errors import RunError
from cache.support.messages import describe_error
from heads.data.blocks import split_rows
from heads.data.maps import Maps, in_order
from heads.networks.backend import import_keras, import_tensorflow
from heads.networks.serialization import from_text

POOLED_IMAGES = 32
"""Images per call. The last batch is filled up: with one shape TensorFlow compiles once and results do not vary."""


class PooledTail:
    """A tail and average pooling, built from the tail's text and weights.

    Parameters
    ----------
    text : str
        Layers of the tail, from `heads.networks.serialization.to_text`.
    weights : sequence of ndarray
    precision : str
        Precision in which the layers compute, one of `cache.support.devices.POLICIES`.

    Raises
    ------
    RunError
        The text is not a model of Keras' own layers, or one with other weights.

    Attributes
    ----------
    network : keras.Model
        The tail, from maps to maps.
    model : keras.Model
        From maps to pooled vectors, float32.
    """

    def __init__(self, text: str, weights: Sequence[NDArray[Any]], precision: str = "float32") -> None:
        keras, tf = import_keras(), import_tensorflow()
        self.network = from_text(text, POLICIES[precision])
        try:
            self.network.set_weights(weights)
        except ValueError as error:
            why = describe_error(error)[:200]
            raise RunError(f"a network of other weights ({why}); train the run again with `make head`") from error
        maps = keras.ops.cast(self.network.output, "float32")
        self.model = keras.Model(self.network.input, keras.layers.GlobalAveragePooling2D()(maps))
        self._compiled = tf.function(lambda maps: self.model(maps, training=False))

    def pool(self, X: Maps) -> NDArray[np.float32]:
        """Pooled vectors of images, with the saved statistics of batch normalisation, shape (n_images, n_features)."""
        pooled = np.empty((len(X), self.model.output_shape[-1]), np.float32)
        blocks = split_rows(len(X), POOLED_IMAGES)
        for block, maps in zip(blocks, in_order(X, POOLED_IMAGES), strict=True):
            filled = np.zeros((POOLED_IMAGES, *maps.shape[1:]), np.float32)
            filled[: len(maps)] = maps
            pooled[block] = self._compiled(filled)[: len(maps)]
        return pooled
