"""The frozen network: any Keras application, cut at a layer, with its own preprocessing inside.

Keras is imported inside the functions, because it takes seconds and a command with nothing to do does not need it.
"""

import inspect
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from cache.provenance import NO_POOLING
from cache.support.devices import POLICIES
from cache.support.errors import ParameterError
from cache.support.keras import import_keras
from featurize.layers import find_clean_cut, find_layer, refuse_several_maps, split_layers
from featurize.pooling import pool, split_poolings
from featurize.weights import copy_weights, digest_weights, load_weights


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
        One or several of `featurize.pooling.POOLINGS`, joined by commas; ``none`` for maps of one layer, which the
        tail can be trained on.

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
        requested = sorted({find_layer(network, name) for name in names}, key=network.layers.index)
        cuts = requested if poolings else [find_clean_cut(network, requested[0])]
        images = keras.Input((self.size, self.size, 3), dtype="uint8")
        # The cast makes a new array, because preprocess_input may change a float array in place.
        pixels = module.preprocess_input(keras.ops.cast(images, "float32"))
        outputs = [_as_map(cut) for cut in cuts]
        front = keras.Model(network.input, outputs if len(outputs) > 1 else outputs[0])
        maps = [keras.ops.cast(output, "float32") for output in keras.tree.flatten(front(pixels, training=False))]
        vectors = [pool(each, pooling) for each in maps for pooling in poolings] or maps
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


def _build_tail(network: Any, cut: Any, requested: Any) -> Any:
    """The network after the cut, frozen up to the requested layer."""
    keras = import_keras()
    for layer in network.layers[network.layers.index(requested) + 1 :]:
        layer.trainable = True
    if cut is network.layers[-1]:
        maps = keras.Input(cut.output.shape[1:])
        return keras.Model(maps, keras.layers.Identity()(maps))
    return keras.Model(cut.output, network.output)
