"""Layers of a network after which it can be cut, and their names."""

import difflib
from typing import Any

import numpy as np

from cache.provenance import NO_POOLING
from cache.support.errors import ParameterError

LAST, EARLIER = "last", "earlier"
"""Names of layers that every network has. `EARLIER` is the widest layer with larger maps than the last one; of several
the last. What it tells of an image is finer and less specific: ``pool4_relu`` of DenseNet-121."""

N_NEAREST = 5
"""Most layers that are named for one that is not there."""


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


def find_layer(network: Any, layer: str) -> Any:
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
    nearest = ", ".join(difflib.get_close_matches(layer.lower(), names, N_NEAREST, 0.4))
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


def find_clean_cut(network: Any, requested: Any) -> Any:
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
