"""A weights file as layers with arrays, in any of Keras' layouts. Nothing in a file is executed.

    legacy       HDF5; a group per layer, and the order of layers in attributes: tf.keras 2, and .h5 of Keras 3
    Keras 3      HDF5; a group per layer, named by its class and a number: .weights.h5, and within .keras

A file may come from a stranger. Links to other files are not followed. Arrays are not read before their shape is known
to be that of a layer of the network, so a declared shape cannot take memory. What is packed may unpack to more than is
declared, and names may take any amount of memory: `check_file` tries both in a process that can be ended.
"""

import math
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.support.errors import ParameterError
from cache.support.machine_faults import is_fault_of_machine
from cache.support.messages import describe_error, quote, some
from featurize.file_kinds import WEIGHTS, describe_other_kind, is_archive
from featurize.limited_process import LimitError, call_limited

MAX_DEPTH, MAX_ITEMS = 40, 200_000
"""Levels of groups in a file, and groups and arrays, beyond which it is refused."""

MAX_UNPACKED = 20
"""An archive that unpacks to more times its own size is refused. Weights hardly become smaller."""

CHUNK_BYTES = 2**26
"""Largest chunk of a compressed array, in bytes, that is unpacked."""

SECONDS, BYTES_PER_SECOND, MAX_MEMORY = 5, 10**7, 2**29
"""Most processor time for a small file, bytes of a larger one for each second more, and most memory, while it is read
for the first time."""

CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
"""Groups in Keras 3's layout that hold the layers of a model; the second is from Keras 2.12 to 2.15."""

EXPECTED = "expected the weights of a Keras network, a .h5, .weights.h5 or .keras file"


class UnreadableArrayError(Exception):
    """An array of a file is damaged."""


@dataclass(frozen=True, order=True)
class LayerName:
    """A name in two parts, ``conv2d_12`` as ``conv2d`` and 12; one for each model around the layer, and its own.

    Parameters
    ----------
    bases : tuple of str
    numbers : tuple of int
        0 where there is none: Keras counts ``conv2d``, ``conv2d_1``.
    """

    bases: tuple[str, ...]
    numbers: tuple[int, ...]

    @classmethod
    def parse(cls, *parts: str) -> "LayerName":
        """Split the number off each part.

        >>> LayerName.parse("conv2d_12")
        LayerName(bases=('conv2d',), numbers=(12,))
        """
        found = [re.fullmatch(r"(.+?)(?:_(\d{1,9}))?", part, re.DOTALL) for part in parts]
        pairs = [(each[1], int(each[2] or 0)) if each else ("", 0) for each in found]
        return cls(tuple(base for base, _ in pairs), tuple(number for _, number in pairs))


@dataclass(frozen=True)
class StoredLayer:
    """A layer of a weights file.

    Parameters
    ----------
    name : str
        Its name, or in Keras 3's layout its place: ``conv1``, ``layers/conv2d_3``.
    key : LayerName
        The same in parts.
    arrays : mapping of str to h5py.Dataset
        By the name of the variable, such as ``kernel``; in Keras 3's layout by its number.
    """

    name: str
    key: LayerName
    arrays: Mapping[str, h5py.Dataset]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the arrays, sorted."""
        return tuple(sorted(array.shape for array in self.arrays.values()))


@dataclass(frozen=True)
class StoredModel:
    """Layers of one model in a weights file: the whole file, or a model that is a layer in it.

    Parameters
    ----------
    layers : sequence of StoredLayer
        Those that have weights.
    has_names : bool
        Whether layers have the names that they had in the network, as in the legacy layout.
    is_ordered : bool
        Whether layers are in the order of the network.
    """

    layers: Sequence[StoredLayer]
    has_names: bool
    is_ordered: bool


def check_file(path: Path) -> None:
    """Refuse a file that cannot be weights of any network, or that is damaged.

    A damaged file may take any amount of time and memory while it is read, or end the process. So it is read in a
    process that may take only so much, before another opens it.

    Raises
    ------
    ParameterError
        The message says what the file is.
    MemoryError, OSError
        The machine lacks memory or room, or its disk fails.
    """
    _refuse_other_kind(path)
    seconds = SECONDS + path.stat().st_size // BYTES_PER_SECOND
    try:
        # The process may have been started in another folder.
        call_limited(_read_once, path.absolute(), seconds=seconds, n_bytes=MAX_MEMORY)
    except LimitError as error:
        raise _to_damage(path, error) from error


@contextmanager
def open_models(path: Path) -> Iterator[list[StoredModel]]:
    """The models in a weights file; their arrays can be read while the block runs.

    Parameters
    ----------
    path : Path
        A file that `check_file` has read, or one that is trusted.

    Raises
    ------
    ParameterError
        It is no weights file of Keras, or it is damaged. The message says what it is.
    """
    _refuse_other_kind(path)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_open_hdf5(path))
            models = _read_models(file)
            names = list(file)
        except Exception as error:  # damage shows itself in many ways
            if is_fault_of_machine(error):
                raise
            raise _to_damage(path, error) from error
        if not models:
            found = some([quote(name) for name in names]) or "nothing"
            raise ParameterError(f"weights '{path}': an HDF5 file without layers of Keras (it has {found}); {EXPECTED}")
        try:
            yield models
        except UnreadableArrayError as error:
            raise _to_damage(path, error) from error


def _refuse_other_kind(path: Path) -> None:
    kind = describe_other_kind(path)
    if kind:
        raise ParameterError(f"weights '{path}': {kind}; {EXPECTED}")


def _to_damage(path: Path, error: Exception) -> ParameterError:
    how = "truncated" if "truncated" in str(error) else "damaged"
    return ParameterError(f"weights '{path}': a {how} file ({describe_error(error)[:200]}); copy or download it again")


def _read_once(path: Path) -> None:
    """Read all of a file that can take more than its declared size: names, and arrays that are packed."""
    with open_models(path) as models:
        for model in models:
            for layer in model.layers:
                for array in layer.arrays.values():
                    _unpack(array)


def _unpack(array: h5py.Dataset) -> None:
    """Unpack each chunk of an array that is there; of a large declared array that may be few."""
    if array.chunks is None:
        return
    starts: list[tuple[int, ...]] = []
    try:
        array.id.chunk_iter(lambda chunk: starts.append(chunk.chunk_offset))
        for start in starts:
            array[tuple(slice(at, at + side) for at, side in zip(start, array.chunks, strict=True))]
    except Exception as error:
        raise _to_unreadable(array, error) from error


@contextmanager
def _open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The HDF5 file that a path is, or that is packed in it."""
    if not is_archive(path):
        with open(path, "rb") as opened, h5py.File(opened, "r") as file:  # HDF5 would lock a path; not all can be
            yield file
        return
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryFile() as unpacked:
        n_left = MAX_UNPACKED * path.stat().st_size
        with archive.open(WEIGHTS) as member:
            while block := member.read(2**20):
                unpacked.write(block)
                n_left -= len(block)
                if n_left < 0:
                    raise OSError(f"{WEIGHTS} unpacks to more than {MAX_UNPACKED} times the archive")
        with h5py.File(unpacked, "r") as file:
            yield file


def read_array(array: h5py.Dataset) -> NDArray[Any]:
    """The numbers of an array: float32, or integers where the file has such.

    Raises
    ------
    UnreadableArrayError
        It is damaged.
    """
    try:
        stored: NDArray[Any] = array[...]
    except Exception as error:
        raise _to_unreadable(array, error) from error
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:  # bfloat16: the upper half of a float32
        upper = stored.view(np.uint16).astype(np.uint32) << np.uint32(16)
        return upper.view(np.float32)
    with np.errstate(over="ignore"):  # what is too large becomes infinity, and is refused as such
        floats: NDArray[Any] = stored.astype(np.float32) if stored.dtype.kind == "f" else stored
    return floats


def find_address(array: h5py.Dataset) -> int:
    """Where an array stands in its file, which is the same for all names that it has.

    Raises
    ------
    UnreadableArrayError
        It is damaged.
    """
    try:
        return int(h5py.h5o.get_info(array.id).addr)
    except Exception as error:
        raise _to_unreadable(array, error) from error


def _to_unreadable(array: h5py.Dataset, error: Exception) -> Exception:
    """The error of a damaged array; one that is the machine's fault stays as it is."""
    return error if is_fault_of_machine(error) else UnreadableArrayError(f"{array.name}: {describe_error(error)}")


def _read_models(file: h5py.File) -> list[StoredModel]:
    """Every model in a file that has layers with weights."""
    root = file["model_weights"] if isinstance(_get(file, "model_weights"), h5py.Group) else file
    arrays = {parts: array for parts, array in _walk(root) if len(parts) > 1}
    is_legacy = root is not file or "layer_names" in root.attrs or "layer_names0" in root.attrs
    if is_legacy:
        return _read_legacy(root, arrays)
    numbered = {parts: array for parts, array in arrays.items() if parts[-2] == "vars"}
    if numbered:
        return _read_numbered(numbered)
    named = {parts: array for parts, array in arrays.items() if re.fullmatch(r".+:\d+", parts[-1])}
    return _read_legacy(root, named)


def _read_legacy(root: h5py.Group, arrays: Mapping[tuple[str, ...], h5py.Dataset]) -> list[StoredModel]:
    """Models in the legacy layout: the whole file, and each of its groups that is a model itself."""
    by_group: dict[str, dict[tuple[str, ...], h5py.Dataset]] = {}
    for parts, array in arrays.items():
        by_group.setdefault(parts[0], {})[parts[1:]] = array
    names = _read_names(root, "layer_names")
    order = [name for name in names if name in by_group] if names is not None else sorted(by_group)
    models, all_layers, is_ordered = [], [], names is not None
    for name in order:
        listed = _read_names(root[name], "weight_names")
        position = {} if listed is None else {tuple(each.split("/")): number for number, each in enumerate(listed)}
        inside: dict[tuple[str, ...], dict[str, h5py.Dataset]] = {}
        for parts in sorted(by_group[name], key=lambda parts: (position.get(parts, len(position)), parts)):
            variable = re.sub(r":\d+$", "", parts[-1])
            inside.setdefault(parts[:-1], {})[variable] = by_group[name][parts]
        if len(inside) == 1:  # a layer: variables may be named after another, from an earlier network
            all_layers.append(StoredLayer(name, LayerName.parse(name), *inside.values()))
            continue
        layers = [_name_layer(parts, found) for parts, found in inside.items()]
        models.append(StoredModel(layers, has_names=True, is_ordered=listed is not None))
        all_layers += layers
        is_ordered &= listed is not None
    models.append(StoredModel(all_layers, has_names=True, is_ordered=is_ordered))
    return [model for model in models if model.layers]


def _name_layer(parts: tuple[str, ...], arrays: Mapping[str, h5py.Dataset]) -> StoredLayer:
    name = parts[-1] if parts else ""
    return StoredLayer(name, LayerName.parse(name), arrays)


def _read_numbered(arrays: Mapping[tuple[str, ...], h5py.Dataset]) -> list[StoredModel]:
    """Models in Keras 3's layout: every group that holds layers."""
    layers: dict[tuple[str, ...], dict[str, h5py.Dataset]] = {}
    for parts in sorted(arrays, key=lambda parts: (parts[:-1], len(parts[-1]), parts[-1])):
        layers.setdefault(parts[:-2], {})[parts[-1]] = arrays[parts]
    models: dict[tuple[str, ...], list[StoredLayer]] = {}
    for parts, found in layers.items():
        for depth in [number for number, part in enumerate(parts) if part in CONTAINERS]:
            inside = ["layers" if part in CONTAINERS else part for part in parts[depth:]]
            layer = StoredLayer("/".join(inside), LayerName.parse(*inside), found)
            models.setdefault(parts[:depth], []).append(layer)
    return [
        StoredModel(sorted(each, key=lambda layer: layer.key), has_names=False, is_ordered=False)
        for each in models.values()
    ]


def _walk(root: h5py.Group) -> Iterator[tuple[tuple[str, ...], h5py.Dataset]]:
    """Every array in a group and its place; only what is in this very file."""
    n_items = 0
    waiting: list[tuple[tuple[str, ...], h5py.Group]] = [((), root)]
    while waiting:
        parts, group = waiting.pop()
        for name in group:
            n_items += 1
            if n_items > MAX_ITEMS or len(parts) > MAX_DEPTH:
                raise ValueError("groups within groups without an end")
            item = _get(group, name)
            if isinstance(item, h5py.Group):
                waiting.append(((*parts, name), item))
            elif isinstance(item, h5py.Dataset) and _is_plain(item):
                yield (*parts, name), item


def _get(group: h5py.Group, name: str) -> object:
    """What a group has under a name; None for a link to elsewhere."""
    is_here = name in group and isinstance(group.get(name, getlink=True), h5py.HardLink)
    return group[name] if is_here else None


def _is_plain(array: h5py.Dataset) -> bool:
    """Whether an array has numbers that are in this file."""
    is_number = array.dtype.kind in "fiu" or (array.dtype.kind == "V" and array.dtype.itemsize == 2)
    if array.shape is None or array.is_virtual or array.external is not None or not is_number:
        return False
    return array.chunks is None or math.prod(array.chunks) * array.dtype.itemsize <= CHUNK_BYTES


def _read_names(group: h5py.Group, name: str) -> list[str] | None:
    """A list of names in an attribute, which Keras splits if it is long; None if there is none."""
    names = [name] if name in group.attrs else [f"{name}{number}" for number in range(len(group.attrs))]
    found: list[str] = []
    for each in names:
        if each not in group.attrs:
            break
        attribute = h5py.h5a.open(group.id, each.encode())
        if attribute.get_storage_size() > group.file.id.get_filesize():
            raise ValueError(f"the attribute {each} is larger than the file")
        texts = np.atleast_1d(group.attrs[each]).tolist()
        found += [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in texts]
    return found if names and names[0] in group.attrs else None
