"""The frozen network: any Keras application, cut at a layer, with its own preprocessing inside.

Keras is imported inside the functions, because it takes seconds and a command with nothing to do does not need it.
"""

import difflib
import inspect
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.provenance import NO_POOLING
from cache.support.devices import POLICIES
from cache.support.errors import ParameterError
from cache.support.keras import import_keras
from featurize.weights import copy_weights, digest_weights, load_weights

POOLINGS = ("avg", "max", "gem")
"""Ways in which an output map becomes one vector. With several, as in ``avg,gem``, their vectors are joined."""

N_NEAREST = 5
"""Most layers that are named for one that is not there."""

LAST, EARLIER = "last", "earlier"
"""Names of layers that every network has. `EARLIER` is the widest layer with larger maps than the last one; of several
the last. What it tells of an image is finer and less specific: ``pool4_relu`` of DenseNet-121."""

GEM_POWER, GEM_EPSILON = 3.0, 1e-6
"""Exponent of the generalised mean (GeM), and its lower bound of values: Radenović et al., Fine-tuning CNN Image
Retrieval with No Human Annotation, 2019."""


@dataclass(frozen=True)
class Cut:
    """The facts of a front that are known once it is built.

    Parameters
    ----------
    weights : str
        Digest of the weights, from `featurize.weights.digest_weights`.
    layer : str
        Name of the layer whose output is pooled; of several, in the order of the network, with commas between them.
    preprocessing : str
        Name of the Keras module whose ``preprocess_input`` comes before the network.
    shape : tuple of int
        Shape of an embedding, ``(n_features,)``, or of a map, ``(height, width, n_features)``.
    n_weights : int
        Number of weights.
    moved_from : str
        Name of the requested layer, if a cut there would not separate front and tail; else empty.
    widths : tuple of int
        Number of features of each layer, for each pooling; empty where there is one layer.
    """

    weights: str
    layer: str
    preprocessing: str
    shape: tuple[int, ...]
    n_weights: int
    moved_from: str = ""
    widths: tuple[int, ...] = ()

    @property
    def layers(self) -> list[str]:
        """Name of each layer whose output is pooled."""
        return self.layer.split(",")


@dataclass(frozen=True)
class Front:
    """A built backbone.

    Parameters
    ----------
    model : keras.Model
        From uint8 images, shape (n_images, size, size, 3), to float32 embeddings, shape (n_images, n_features), or to
        float32 maps, shape (n_images, height, width, n_features).
    cut : Cut
    tail : keras.Model or None
        From maps to the last output of the network; None where there are no maps. Its layers up to the requested one
        are frozen.
    """

    model: Any
    cut: Cut
    tail: Any = None


@dataclass(frozen=True)
class Backbone:
    """A Keras application to be cut after a layer.

    Parameters
    ----------
    name : str
        A Keras application, in any case: ``densenet121``, ``EfficientNetB0``.
    weights : str
        ``imagenet``, ``random:SEED`` or a path; see `featurize.weights.load_weights`.
    size : int
        Side of the input image, in pixels.
    layer : str
        Name or index of the layer to cut after; the last layer if empty. With several, joined by commas, the pooled
        outputs of all are side by side, in the order of the network.
    pooling : str
        One or several of `POOLINGS`, joined by commas; ``none`` for maps of one layer, which the tail can be trained
        on.

    Examples
    --------
    >>> front = Backbone("mobilenet", weights="random:0", size=32).build()  # doctest: +SKIP
    >>> front.model(images).shape  # doctest: +SKIP
    TensorShape([2, 1024])
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
            The arithmetic of its layers, one of `cache.support.devices.POLICIES`; the weights are the same in each.

        Returns
        -------
        Front

        Raises
        ------
        ParameterError
            The name, layer or pooling is unknown (the message lists the known ones), the network takes no image of
            this size, or the weights cannot be found or do not fit.
        NotInstalledError
            Keras or TensorFlow is not installed.
        """
        keras = import_keras()
        poolings = [] if self.pooling == NO_POOLING else split_poolings(self.pooling)
        names = split_layers(self.layer)
        refuse_several_maps(self.layer, self.pooling)
        module, application = find_application(self.name)
        network = load_weights(application, self.weights, self.size)
        weights = digest_weights(network)
        if precision != "float32":
            network = _compute_in(POLICIES[precision], application, network)
        network.trainable = False
        # A layer that is requested by its name and by its index is one.
        requested = sorted({_find_layer(network, name) for name in names}, key=network.layers.index)
        cuts = requested if poolings else [_find_clean_cut(network, requested[0])]
        images = keras.Input((self.size, self.size, 3), dtype="uint8")
        # The cast makes a new array, because preprocess_input may change a float array in place.
        pixels = module.preprocess_input(keras.ops.cast(images, "float32"))
        outputs = [_as_map(cut) for cut in cuts]
        front = keras.Model(network.input, outputs if len(outputs) > 1 else outputs[0])
        maps = [keras.ops.cast(output, "float32") for output in keras.tree.flatten(front(pixels, training=False))]
        vectors = [_pool(each, pooling) for each in maps for pooling in poolings] or maps
        model = keras.Model(images, keras.ops.concatenate(vectors, axis=1) if len(vectors) > 1 else vectors[0])
        facts = Cut(
            weights,
            ",".join(cut.name for cut in cuts),
            preprocessing=module.__name__.rpartition(".")[2],
            shape=model.output_shape[1:],
            n_weights=int(model.count_params()),
            moved_from=requested[0].name if cuts != requested else "",
            widths=tuple(each.shape[-1] for each in maps) if len(maps) > 1 else (),
        )
        return Front(model, facts, None if poolings else _build_tail(network, cuts[0], requested[0]))


def cut_before_pooling(model: Any) -> Any:
    """The front up to the maps that are pooled.

    Parameters
    ----------
    model : keras.Model
        What `Backbone.build` has built, or what was saved of it.

    Returns
    -------
    keras.Model
        From uint8 images to float32 maps, shape (n_images, height, width, n_features), one output per layer.
    """
    _, *casts = (each for each in model.operations if type(each).__name__ == "Cast")
    return import_keras().Model(model.input, [each.output for each in casts])  # `build` casts pixels first, then maps


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


def split_layers(text: str) -> list[str]:
    """Split ``relu, pool3_pool`` into names or indices of layers, each once, sorted.

    Raises
    ------
    ParameterError
        There is nothing between two commas.

    Examples
    --------
    >>> split_layers("relu, pool3_pool,relu"), split_layers("")
    (['pool3_pool', 'relu'], [''])
    """
    names = [name.strip() for name in text.split(",")]
    if len(names) > 1 and "" in names:
        raise ParameterError(f"layer '{text}': nothing between two commas, expected names or indices as in relu,308")
    return sorted(set(names))


def refuse_several_maps(layer: str, pooling: str) -> None:
    """Refuse maps of several layers.

    Raises
    ------
    ParameterError
        There are several layers and no pooling.
    """
    n_layers = len(split_layers(layer))
    if pooling == NO_POOLING and n_layers > 1:
        raise ParameterError(
            f"layer '{layer}': {n_layers} layers without pooling, expected one, because maps are for the rest of a "
            "network after one cut; name one layer, or a pooling such as avg (POOLING=avg)"
        )


def find_application(name: str) -> tuple[ModuleType, Any]:
    """Find a Keras application by its name.

    Parameters
    ----------
    name : str
        In any case.

    Returns
    -------
    module : module
        The module with the application's ``preprocess_input``.
    application : callable

    Raises
    ------
    ParameterError
        There is no such application; the message lists all of them.
    """
    keras = import_keras()
    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    found = {title.lower(): function for title, function in functions if title[0].isupper()}
    if name.lower() not in found:
        raise ParameterError(f"no backbone '{name}'; Keras has {', '.join(sorted(found))}")
    application = found[name.lower()]
    # The module that defines a network has the preprocess_input that its weights were trained with.
    return sys.modules[application.__module__], application


def _compute_in(policy: str, application: Any, network: Any) -> Any:
    """The same network, with layers that compute in another precision."""
    keras = import_keras()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        same = application(include_top=False, weights=None, input_shape=network.input_shape[1:])
    finally:
        keras.config.set_dtype_policy(before)
    copy_weights(network, same)
    return same


def _as_map(cut: Any) -> Any:
    """A layer's output as a map. One vector, as within squeeze and excitation, becomes a map of one pixel.

    Raises
    ------
    ParameterError
        The output is neither a map nor a vector.
    """
    keras = import_keras()
    output = cut.output
    if getattr(output, "shape", None) is not None and len(output.shape) == 2:
        return keras.layers.Reshape((1, 1, output.shape[-1]))(output)
    if getattr(output, "shape", None) is None or len(output.shape) != 4:
        raise ParameterError(f"layer '{cut.name}' gives neither a map nor a vector of numbers; choose another")
    return output


def _pool(maps: Any, pooling: str) -> Any:
    """Pool maps, shape (n_images, height, width, n_features), to vectors, shape (n_images, n_features)."""
    keras = import_keras()
    if pooling == "avg":
        return keras.layers.GlobalAveragePooling2D()(maps)
    if pooling == "max":
        return keras.layers.GlobalMaxPooling2D()(maps)
    powers = keras.ops.power(keras.ops.maximum(maps, GEM_EPSILON), GEM_POWER)
    return keras.ops.power(keras.ops.mean(powers, axis=(1, 2)), 1 / GEM_POWER)


def _find_clean_cut(network: Any, requested: Any) -> Any:
    """The last layer, up to the requested one, whose output determines everything after it.

    Inside a DenseNet block there is no such layer: other paths lead around each of its layers. Layers are numbered so
    that every layer comes after its inputs. `reach` is the last layer that uses an output of those before the present
    one; where it is not beyond the present layer, all paths meet there.
    """
    place = {id(layer): number for number, layer in enumerate(network.layers)}
    clean, reach = network.layers[0], 0
    for number, layer in enumerate(network.layers[: place[id(requested)] + 1]):
        if reach <= number:
            clean = layer
        users = [node.operation for node in layer._outbound_nodes if id(node.operation) in place]
        reach = max([reach, *(place[id(user)] for user in users)])
    return clean


def _build_tail(network: Any, cut: Any, requested: Any) -> Any:
    """The network after the cut, frozen up to the requested layer."""
    keras = import_keras()
    for layer in network.layers[network.layers.index(requested) + 1 :]:
        layer.trainable = True
    if cut is network.layers[-1]:
        maps = keras.Input(cut.output.shape[1:])
        return keras.Model(maps, keras.layers.Identity()(maps))
    return keras.Model(cut.output, network.output)


def _find_layer(network: Any, layer: str) -> Any:
    """A layer by its name or index, `LAST` or `EARLIER`; the last if empty."""
    names = [each.name for each in network.layers]
    if layer in ("", LAST):
        return network.layers[-1]
    if layer == EARLIER:
        return _find_earlier(network)
    if layer in names:
        return network.get_layer(layer)
    if layer.lstrip("-").isdecimal() and -len(names) <= int(layer) < len(names):
        return network.layers[int(layer)]
    nearest = ", ".join(difflib.get_close_matches(layer, names, N_NEAREST, 0.4))
    hint = f"did you mean {nearest}?" if nearest else f"name one of them, {EARLIER} or {LAST}"
    raise ParameterError(
        f"no layer '{layer}' in {network.name}; it has {names[0]} (0) to {names[-1]} ({len(names) - 1}); {hint}"
    )


def _find_earlier(network: Any) -> Any:
    """The layer that `EARLIER` stands for.

    Raises
    ------
    ParameterError
        All maps are of one size.
    """
    maps = [each for each in network.layers[1:] if len(getattr(each.output, "shape", ())) == 4]
    _, *size, _ = network.layers[-1].output.shape
    # A border of zeros makes a map larger, and tells nothing.
    larger = [
        each
        for each in maps
        if np.prod(each.output.shape[1:3]) > np.prod(size) and type(each).__name__ != "ZeroPadding2D"
    ]
    if not larger:
        raise ParameterError(f"layer '{EARLIER}': no maps of {network.name} are larger than its last; name a layer")
    return max(reversed(larger), key=lambda each: each.output.shape[-1])
