"""The frozen network: any Keras application, cut at a layer, with its own preprocessing inside.

Keras is imported inside the functions: a run with nothing to do must not pay for it.
"""

import inspect
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from cache.errors import UserError
from featurize.weights import digest_weights, load_weights

POOLINGS = ("avg", "max", "gem")
"""How an output map becomes one vector."""

GEM_POWER, GEM_LEAST = 3.0, 1e-6
"""Exponent of the generalised mean, and what smaller values are raised to: Radenović et al., Fine-tuning CNN Image
Retrieval with No Human Annotation, 2019."""


@dataclass(frozen=True)
class Front:
    """A built backbone.

    Parameters
    ----------
    model : keras.Model
        From uint8 images ``(n, size, size, 3)`` to float32 embeddings ``(n, n_features)``.
    weights : str
        Digest of the weights' values.
    layer : str
        Name of the layer whose output is pooled.
    preprocessing : str
        Name of the Keras module whose ``preprocess_input`` stands before the network.
    """

    model: Any
    weights: str
    layer: str
    preprocessing: str

    @property
    def n_features(self) -> int:
        """Length of an embedding."""
        return int(self.model.output_shape[-1])

    @property
    def n_weights(self) -> int:
        """How many numbers the network's weights are."""
        return int(self.model.count_params())


@dataclass(frozen=True)
class Backbone:
    """What to build.

    Parameters
    ----------
    name : str
        A Keras application, in any case: ``densenet121``, ``EfficientNetB0``.
    weights : str
        ``imagenet``, ``random:SEED`` or a path; see `featurize.weights.load_weights`.
    size : int
        Side of the input image, in pixels.
    layer : str
        Name or index of the layer to cut after; the last one if empty.
    pooling : str
        One of `POOLINGS`.
    """

    name: str = "densenet121"
    weights: str = "imagenet"
    size: int = 224
    layer: str = ""
    pooling: str = "avg"

    def build(self) -> Front:
        """Build the network in inference mode.

        Raises
        ------
        UserError
            The name, layer or pooling is unknown (the known ones are listed), or the weights cannot be had.
        """
        import keras

        if self.pooling not in POOLINGS:
            raise UserError(f"pooling '{self.pooling}': expected one of {', '.join(POOLINGS)}")
        module, application = find_application(self.name)
        network = load_weights(application, self.weights, self.size)
        network.trainable = False
        cut = _find_layer(network, self.layer)
        if len(cut.output.shape) != 4:
            raise UserError(
                f"layer '{cut.name}' of {self.name} gives shape {cut.output.shape}, not a map; choose another"
            )
        images = keras.Input((self.size, self.size, 3), dtype="uint8")
        # A cast makes a new array: preprocess_input may change a float array in place.
        pixels = module.preprocess_input(keras.ops.cast(images, "float32"))
        maps = keras.Model(network.input, cut.output)(pixels, training=False)
        pooled = _pool(maps, self.pooling)
        return Front(keras.Model(images, pooled), digest_weights(network), cut.name, module.__name__.rpartition(".")[2])


def find_application(name: str) -> tuple[ModuleType, Any]:
    """Find a Keras application by its name in any case, and the module that holds its ``preprocess_input``.

    Raises
    ------
    UserError
        There is no such application; the message lists all of them.
    """
    import keras

    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    found = {title.lower(): function for title, function in functions if title[0].isupper()}
    if name.lower() not in found:
        raise UserError(f"no backbone '{name}'; Keras has {', '.join(sorted(found))}")
    application = found[name.lower()]
    # The module that defines a network has the preprocess_input that its weights were trained with.
    return sys.modules[application.__module__], application


def _pool(maps: Any, pooling: str) -> Any:
    """Pool maps ``(n, height, width, n_features)`` to vectors ``(n, n_features)``."""
    import keras

    if pooling == "avg":
        return keras.layers.GlobalAveragePooling2D()(maps)
    if pooling == "max":
        return keras.layers.GlobalMaxPooling2D()(maps)
    powers = keras.ops.power(keras.ops.maximum(maps, GEM_LEAST), GEM_POWER)
    return keras.ops.power(keras.ops.mean(powers, axis=(1, 2)), 1 / GEM_POWER)


def _find_layer(network: Any, layer: str) -> Any:
    names = [each.name for each in network.layers]
    if not layer:
        return network.layers[-1]
    if layer in names:
        return network.get_layer(layer)
    if layer.lstrip("-").isdecimal() and -len(names) <= int(layer) < len(names):
        return network.layers[int(layer)]
    raise UserError(f"no layer '{layer}' in {network.name}; it has 0 to {len(names) - 1}: {', '.join(names)}")
