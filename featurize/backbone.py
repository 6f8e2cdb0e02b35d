"""The frozen network: any Keras application, cut at a layer, with its own preprocessing inside.

Keras is imported inside the functions: a run with nothing to do must not pay for it.
"""

import inspect
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from cache.provenance import NO_POOLING
from cache.support.devices import POLICIES
from cache.support.errors import UserError
from featurize.weights import digest_weights, load_weights

POOLINGS = ("avg", "max", "gem")
"""How an output map becomes one vector. Several stand side by side in one embedding: ``avg,gem``."""

GEM_POWER, GEM_LEAST = 3.0, 1e-6
"""Exponent of the generalised mean, and what smaller values are raised to: Radenović et al., Fine-tuning CNN Image
Retrieval with No Human Annotation, 2019."""


@dataclass(frozen=True)
class Cut:
    """What is known of a front once it has been built.

    Parameters
    ----------
    weights : str
        Digest of the weights' values.
    layer : str
        Name of the layer whose output is pooled.
    preprocessing : str
        Name of the Keras module whose ``preprocess_input`` stands before the network.
    shape : tuple of int
        Of an embedding: ``(n_features,)``, or ``(height, width, n_features)`` where it stays a map.
    n_weights : int
        How many numbers the network's weights are.
    moved_from : str
        Name of the layer that was asked for, if a cut there would not separate front from tail.
    """

    weights: str
    layer: str
    preprocessing: str
    shape: tuple[int, ...]
    n_weights: int
    moved_from: str = ""


@dataclass(frozen=True)
class Front:
    """A built backbone.

    Parameters
    ----------
    model : keras.Model
        From uint8 images ``(n, size, size, 3)`` to float32 embeddings ``(n, n_features)``, or to maps.
    cut : Cut
    tail : keras.Model or None
        Where embeddings are maps: from them to the network's last output. Its layers up to the one that was
        asked for are frozen.
    """

    model: Any
    cut: Cut
    tail: Any = None


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
        One or several of `POOLINGS`, joined by commas; ``none`` for maps, from which the tail can be trained.
    """

    name: str = "densenet121"
    weights: str = "imagenet"
    size: int = 224
    layer: str = ""
    pooling: str = "avg"

    def build(self, precision: str = "float32") -> Front:
        """Build the network in inference mode.

        Parameters
        ----------
        precision : str
            The arithmetic of its layers, one of `cache.support.devices.POLICIES`; weights are the same in each.

        Raises
        ------
        UserError
            The name, layer or pooling is unknown (the known ones are listed), or the weights cannot be had.
        """
        import keras

        poolings = [] if self.pooling == NO_POOLING else split_poolings(self.pooling)
        module, application = find_application(self.name)
        network = load_weights(application, self.weights, self.size)
        weights = digest_weights(network)
        if precision != "float32":
            network = _compute_in(POLICIES[precision], application, network)
        network.trainable = False
        asked = _find_layer(network, self.layer)
        cut = asked if poolings else _find_clean_cut(network, asked)
        images = keras.Input((self.size, self.size, 3), dtype="uint8")
        # A cast makes a new array: preprocess_input may change a float array in place.
        pixels = module.preprocess_input(keras.ops.cast(images, "float32"))
        maps = keras.Model(network.input, _as_map(cut))(pixels, training=False)
        maps = keras.ops.cast(maps, "float32")
        vectors = [_pool(maps, pooling) for pooling in poolings]
        model = keras.Model(images, keras.ops.concatenate(vectors, axis=1) if len(vectors) > 1 else (*vectors, maps)[0])
        preprocessing = module.__name__.rpartition(".")[2]
        n_weights, moved_from = int(model.count_params()), asked.name if cut is not asked else ""
        facts = Cut(weights, cut.name, preprocessing, model.output_shape[1:], n_weights, moved_from)
        return Front(model, facts, None if poolings else _build_tail(network, cut, asked))


def split_poolings(text: str) -> list[str]:
    """Read ``avg`` or ``avg,gem``, in the order of `POOLINGS` whatever order they are given in.

    Raises
    ------
    UserError
        One is unknown, or there is none.

    Examples
    --------
    >>> split_poolings("gem,avg")
    ['avg', 'gem']
    """
    asked = [name.strip() for name in text.split(",")]
    unknown = [name for name in asked if name not in POOLINGS]
    if unknown:
        raise UserError(
            f"pooling '{unknown[0]}': expected one of {', '.join(POOLINGS)}, several as in avg,gem, or none for maps"
        )
    return [name for name in POOLINGS if name in asked]


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


def _compute_in(policy: str, application: Any, network: Any) -> Any:
    """The same network, whose layers compute in another precision."""
    import keras

    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        same = application(include_top=False, weights=None, input_shape=network.input_shape[1:])
    finally:
        keras.config.set_dtype_policy(usual)
    same.set_weights(network.get_weights())
    return same


def _as_map(cut: Any) -> Any:
    """A layer's output as a map; where it is one vector already, such as within squeeze and excitation, of one pixel.

    Raises
    ------
    UserError
        It is neither.
    """
    import keras

    output = cut.output
    if getattr(output, "shape", None) is not None and len(output.shape) == 2:
        return keras.layers.Reshape((1, 1, output.shape[-1]))(output)
    if getattr(output, "shape", None) is None or len(output.shape) != 4:
        raise UserError(f"layer '{cut.name}' gives neither a map nor a vector of numbers; choose another")
    return output


def _pool(maps: Any, pooling: str) -> Any:
    """Pool maps ``(n, height, width, n_features)`` to vectors ``(n, n_features)``."""
    import keras

    if pooling == "avg":
        return keras.layers.GlobalAveragePooling2D()(maps)
    if pooling == "max":
        return keras.layers.GlobalMaxPooling2D()(maps)
    powers = keras.ops.power(keras.ops.maximum(maps, GEM_LEAST), GEM_POWER)
    return keras.ops.power(keras.ops.mean(powers, axis=(1, 2)), 1 / GEM_POWER)


def _find_clean_cut(network: Any, asked: Any) -> Any:
    """The last layer, up to the one asked for, through which alone everything after it sees the image.

    Where a path leads around a layer, its output does not determine what follows: so inside a DenseNet block.
    """
    place = {id(layer): number for number, layer in enumerate(network.layers)}
    clean, reach = network.layers[0], 0
    for number, layer in enumerate(network.layers[: place[id(asked)] + 1]):
        if reach <= number:  # nothing before this layer is used after it
            clean = layer
        users = [node.operation for node in layer._outbound_nodes if id(node.operation) in place]
        reach = max([reach, *(place[id(user)] for user in users)])
    return clean


def _build_tail(network: Any, cut: Any, asked: Any) -> Any:
    """The network after the cut, frozen up to the layer that was asked for."""
    import keras

    for layer in network.layers[network.layers.index(asked) + 1 :]:
        layer.trainable = True
    if cut is network.layers[-1]:
        maps = keras.Input(cut.output.shape[1:])
        return keras.Model(maps, keras.layers.Identity()(maps))
    return keras.Model(cut.output, network.output)


def _find_layer(network: Any, layer: str) -> Any:
    names = [each.name for each in network.layers]
    if not layer:
        return network.layers[-1]
    if layer in names:
        return network.get_layer(layer)
    if layer.lstrip("-").isdecimal() and -len(names) <= int(layer) < len(names):
        return network.layers[int(layer)]
    raise UserError(f"no layer '{layer}' in {network.name}; it has 0 to {len(names) - 1}: {', '.join(names)}")
