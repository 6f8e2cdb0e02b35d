"""Match the layers of a weights file with those of a network, so that none can be taken for another.

Layers are matched by name. Names that Keras numbers, such as ``conv2d_12``, depend on what was built before in the same
process: of those, only the order counts. If the names are foreign, all layers are matched by order and shape. A file
may have more layers, such as a top, before or after those of the network.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.support.messages import describe_shape, quote, some
from featurize.weights_file import LayerName, StoredLayer, StoredModel, find_address, read_array

SYNONYMS = {
    "depthwise_kernel": "kernel",
    "W": "kernel",
    "b": "bias",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",
}
"""Names of variables in earlier versions of Keras, and those of today."""

Shapes = tuple[tuple[int, ...], ...]


class MismatchError(Exception):
    """A file does not have the weights of a network; the message says why."""


@dataclass(frozen=True)
class NetworkLayer:
    """A layer of a network that has weights.

    Parameters
    ----------
    layer : keras.Layer
    name : str
    place : LayerName
        Where Keras 3's layout has it.
    ancestors : int
        A bit for each layer of the network that comes before this one; `bit` is its own.
    bit : int
    """

    layer: Any
    name: str
    place: LayerName
    ancestors: int
    bit: int

    @property
    def shapes(self) -> Shapes:
        """The shapes of its variables, sorted."""
        return tuple(sorted(tuple(variable.shape) for variable in self.layer.weights))

    @property
    def is_numbered(self) -> bool:
        """Whether Keras has named it after its class, with a number."""
        return LayerName.parse(self.name).bases[0] == self.place.bases[-1]


def read_weights(network: Any, models: Sequence[StoredModel]) -> None:
    """Set every weight of a network from the model in a file that has its layers.

    Parameters
    ----------
    network : keras.Model
    models : sequence of StoredModel

    Raises
    ------
    MismatchError
        No model has them, more than one has, or the numbers are not finite.
    """
    wanted = list(_list_layers(network))
    found: dict[tuple[int, ...], list[dict[str, h5py.Dataset]]] = {}
    reasons = []
    for model in sorted(models, key=lambda model: -len(model.layers)):
        try:
            arrays = [_match_variables(*pair) for pair in zip(wanted, match_layers(wanted, model), strict=True)]
            places = tuple(find_address(array) for each in arrays for array in each.values())
            found[places] = arrays
        except MismatchError as error:
            reasons.append(error)
    if not found:
        raise reasons[0]
    if len(found) > 1:
        raise MismatchError("it has this network more than once")
    (matched,) = found.values()
    for layer, stored in zip(wanted, matched, strict=True):
        values = [_read_values(layer, name, array) for name, array in stored.items()]
        for variable, value in zip(layer.layer.weights, values, strict=True):
            variable.assign(value)
    finish_layers(network)


def finish_layers(network: Any) -> None:
    """Let layers compute what they derive from their weights, such as `Normalization` its mean and variance."""
    for layer in _flatten(network):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def match_layers(wanted: Sequence[NetworkLayer], model: StoredModel) -> list[StoredLayer]:
    """The layer of a file for each layer of a network.

    Raises
    ------
    MismatchError
        A layer has none, or could have several.
    """
    try:
        return _match_names(wanted, model)
    except MismatchError:
        by_order = _match_order(wanted, model) if model.has_names and model.is_ordered else None
        if by_order is None:
            raise
        return by_order


def _match_names(wanted: Sequence[NetworkLayer], model: StoredModel) -> list[StoredLayer]:
    """Match layers of the same name, and numbered ones of the same class by their order."""
    families: dict[tuple[str, ...], list[NetworkLayer]] = {}
    for layer in wanted:
        families.setdefault(_find_family(layer, model), []).append(layer)
    stored: dict[tuple[str, ...], list[StoredLayer]] = {}
    for each in model.layers:
        # A name can stand for itself and, without its number, for a class.
        for family in {each.key.bases, (each.name, "")} if model.has_names else {each.key.bases}:
            stored.setdefault(family, []).append(each)
    matched: dict[int, StoredLayer] = {}
    for family, members in families.items():
        candidates = sorted(stored.get(family, []), key=lambda layer: layer.key.numbers)
        if not candidates:
            others = some([quote(name) for name in dict.fromkeys(each.name for each in model.layers)])
            raise MismatchError(f"it has no layer {quote(members[0].name)}, but {others}")
        members = sorted(members, key=lambda layer: _find_numbers(layer, model))
        chosen = _embed([each.shapes for each in members], [each.shapes for each in candidates])
        if chosen is None:
            raise MismatchError(_explain(members, candidates))
        matched |= {id(member): candidates[number] for member, number in zip(members, chosen, strict=True)}
    found = [matched[id(layer)] for layer in wanted]
    if len({id(each) for each in found}) < len(found):
        raise MismatchError("two layers of the network have the same layer in the file")
    _refuse_others_between(found, model)
    return found


def _find_family(layer: NetworkLayer, model: StoredModel) -> tuple[str, ...]:
    """The layers among which only order tells: the class of a numbered layer, the name of another."""
    if not model.has_names:
        return layer.place.bases
    return layer.place.bases[-1:] if layer.is_numbered else (layer.name, "")


def _find_numbers(layer: NetworkLayer, model: StoredModel) -> tuple[int, ...]:
    return LayerName.parse(layer.name).numbers if model.has_names else layer.place.numbers


def _embed(wanted: Sequence[Shapes], given: Sequence[Shapes]) -> list[int] | None:
    """Find the wanted shapes among the given ones, in order; None if there is no way, or more than one."""
    # first[i]: the earliest place of the i-th; last[i]: the latest. There is one way if they are the same.
    first, last = _place(wanted, given), _place(wanted[::-1], given[::-1])
    if first is None or last is None or first != [len(given) - 1 - number for number in reversed(last)]:
        return None
    return first


def _place(wanted: Sequence[Shapes], given: Sequence[Shapes]) -> list[int] | None:
    """The earliest place of each of the wanted shapes."""
    places: list[int] = []
    for number, shapes in enumerate(given):
        if len(places) < len(wanted) and shapes == wanted[len(places)]:
            places.append(number)
    return places if len(places) == len(wanted) else None


def _explain(members: Sequence[NetworkLayer], candidates: Sequence[StoredLayer]) -> str:
    """Why the layers of one name or class do not match."""
    if len(members) == len(candidates):
        for member, candidate in zip(members, candidates, strict=True):
            if member.shapes != candidate.shapes:
                shapes = [_describe_shapes(each.shapes) for each in (candidate, member)]
                return f"its layer {quote(candidate.name)} has {shapes[0]}, not {shapes[1]}"
    if _place([each.shapes for each in members], [each.shapes for each in candidates]) is None:
        base = members[0].place.bases[-1]
        return f"its {len(candidates):,} layers of the kind {base} are not the {len(members):,} of the network"
    return f"several of its layers could be {quote(members[0].name)}: {some([each.name for each in candidates])}"


def _describe_shapes(shapes: Shapes) -> str:
    return " and ".join(describe_shape(shape) or "one number" for shape in dict.fromkeys(shapes)) or "no weights"


def _refuse_others_between(found: Sequence[StoredLayer], model: StoredModel) -> None:
    """Refuse a larger network of the same names, such as a ResNet-101 for a ResNet-50."""
    ours = {id(each) for each in found}
    places = [number for number, each in enumerate(model.layers) if id(each) in ours]
    others = [each for each in model.layers[places[0] : places[-1]] if id(each) not in ours]
    if not model.is_ordered:  # a top ends in vectors; what has maps may be anywhere
        others = [each for each in model.layers if id(each) not in ours and any(len(one) > 2 for one in each.shapes)]
    if others and model.has_names:
        raise MismatchError(f"it has more layers in between, such as {some([quote(each.name) for each in others])}")


def _match_order(wanted: Sequence[NetworkLayer], model: StoredModel) -> list[StoredLayer] | None:
    """Match all layers by order and shape; None if that is not certain."""
    shapes, given = [each.shapes for each in wanted], [each.shapes for each in model.layers]
    starts = [start for start in range(len(given) - len(shapes) + 1) if given[start : start + len(shapes)] == shapes]
    if len(starts) != 1 or _has_twins(wanted):
        return None
    return list(model.layers[starts[0] : starts[0] + len(shapes)])


def _has_twins(wanted: Sequence[NetworkLayer]) -> bool:
    """Whether two layers of the same shapes are in parallel branches, whose order means nothing."""
    by_shapes: dict[Shapes, list[NetworkLayer]] = {}
    for layer in wanted:
        by_shapes.setdefault(layer.shapes, []).append(layer)
    return any(
        not (one.bit & two.ancestors) and one.bit != two.bit
        for each in by_shapes.values()
        for one, two in pairwise(each)
    )


def _match_variables(layer: NetworkLayer, stored: StoredLayer) -> dict[str, h5py.Dataset]:
    """The array of a file for each variable of a layer.

    Raises
    ------
    MismatchError
        A variable has none, or could have several.
    """
    variables = {variable.name: tuple(variable.shape) for variable in layer.layer.weights}
    names = list(variables)
    given = dict(stored.arrays)
    if all(name.isdecimal() for name in given) and len(given) == len(names):
        given = dict(zip(names, given.values(), strict=True))
    if set(given) != set(names):
        short = {name.removeprefix(f"{stored.name}_"): array for name, array in given.items()}
        given = {SYNONYMS.get(name, name): array for name, array in short.items()}
    if set(given) != set(names) and len(set(variables.values())) == len(names) == len(stored.arrays):
        by_shape = {array.shape: array for array in stored.arrays.values()}  # no two variables have the same shape
        given = {name: by_shape[shape] for name, shape in variables.items() if shape in by_shape}
    if set(given) != set(names):
        raise MismatchError(f"its layer {quote(stored.name)} has {some(list(stored.arrays))}, not {', '.join(names)}")
    for name, shape in variables.items():
        if given[name].shape != shape:
            shapes = f"{_describe_shapes((given[name].shape,))}, not {_describe_shapes((shape,))}"
            raise MismatchError(f"{name} of its layer {quote(stored.name)} has {shapes}")
    return {name: given[name] for name in names}


def _read_values(layer: NetworkLayer, name: str, array: h5py.Dataset) -> NDArray[Any]:
    """The numbers of one variable.

    Raises
    ------
    MismatchError
        They are not finite, or integers for a variable that is not one.
    """
    values = read_array(array)
    (variable,) = [each for each in layer.layer.weights if each.name == name]
    where = f"{name} of the layer {quote(layer.name)}"
    if values.dtype.kind != "f" and str(variable.dtype).startswith(("float", "bfloat")):
        raise MismatchError(f"{where} has {values.dtype}, not floating-point numbers: the network was quantized")
    n_bad = int((~np.isfinite(values)).sum())
    if n_bad:
        raise MismatchError(f"{where} has NaN or infinity in {n_bad:,} of {values.size:,} numbers: a failed training")
    return values


def _list_layers(network: Any) -> Iterator[NetworkLayer]:
    """The layers of a network that have weights, those of models within it included."""
    ancestors = {id(layer): 0 for layer in network.layers}
    counts: dict[str, int] = {}
    for number, layer in enumerate(network.layers):
        for node in layer._outbound_nodes:
            if id(node.operation) in ancestors:
                ancestors[id(node.operation)] |= ancestors[id(layer)] | 1 << number
        place = _number(layer, counts)
        inner: dict[str, int] = {}
        for leaf in _flatten(layer):
            parts = place if leaf is layer else [*place, *_number(leaf, inner)]
            if leaf.weights:
                yield NetworkLayer(leaf, leaf.name, LayerName.parse(*parts), ancestors[id(layer)], 1 << number)


def _number(layer: Any, counts: dict[str, int]) -> list[str]:
    """The place of a layer in Keras 3's layout: its class and a number."""
    title = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
    base = re.sub("([a-z])([A-Z])", r"\1_\2", title).lower()
    number = counts[base] = counts.get(base, -1) + 1
    return ["layers", f"{base}_{number}" if number else base]


def _flatten(layer: Any) -> Iterator[Any]:
    """A layer itself, or the layers of a model; models in models of models do not occur in Keras' networks."""
    inner = getattr(layer, "layers", None)
    if inner is None:
        yield layer
    else:
        for each in inner:
            yield from _flatten(each)
