"""What follows a cut in a network, and the average over the image: from maps to one vector an image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.support.command import muted_imports
from cache.support.devices import POLICIES
from heads.data.maps import Maps, in_order
from heads.networks.backend import import_keras
from heads.networks.serialization import from_text

POOLED_IMAGES = 32
"""Images that go through at a time, always as many: one shape is one compiled function, and the same numbers."""


class PooledTail:
    """A tail, built from its text and weights.

    Parameters
    ----------
    text : str
        Its layers, from `heads.networks.serialization.to_text`.
    weights : sequence of ndarray
    precision : str
        Arithmetic of its layers, one of `cache.support.devices.POLICIES`.

    Attributes
    ----------
    network : keras.Model
        From maps to maps.
    model : keras.Model
        From maps to vectors, float32.
    """

    def __init__(self, text: str, weights: Sequence[NDArray[Any]], precision: str = "float32") -> None:
        with muted_imports():
            import tensorflow as tf
        keras = import_keras()
        self.network = from_text(text, POLICIES[precision])
        self.network.set_weights(weights)
        maps = keras.ops.cast(self.network.output, "float32")
        self.model = keras.Model(self.network.input, keras.layers.GlobalAveragePooling2D()(maps))
        self._compiled = tf.function(lambda maps: self.model(maps, training=False))

    def pool(self, X: Maps) -> NDArray[np.float32]:
        """Vectors of some images, by batch normalisation's kept statistics, shape (n_images, n_features)."""
        pooled = np.empty((len(X), self.model.output_shape[-1]), np.float32)
        starts = range(0, len(X), POOLED_IMAGES)
        for start, maps in zip(starts, in_order(X, POOLED_IMAGES), strict=True):
            whole = np.zeros((POOLED_IMAGES, *maps.shape[1:]), np.float32)
            whole[: len(maps)] = maps
            pooled[start : start + len(maps)] = self._compiled(whole)[: len(maps)]
        return pooled
