"""Reading an HDF5 file that a stranger made: nothing outside it is opened, nothing large is believed.

HDF5 can point to other files (external links, external storage, virtual data sets), unpack small files into large
arrays (filters), and declare any shape. A feature store has none of that, so all of it is refused.
"""

import h5py
import numpy as np
from numpy.typing import NDArray

MOST_TEXT_BYTES = 1_000_000
"""Provenance and record take about a thousand."""


class UnsafeFileError(ValueError):
    """The file is not built like a feature store."""


def open_group(parent: h5py.Group, name: str) -> h5py.Group:
    """A group that stands in this very file."""
    found = _hard(parent, name)
    if not isinstance(found, h5py.Group):
        raise UnsafeFileError(f"'{name}' is not a group")
    return found


def open_dataset(parent: h5py.Group, name: str, kind: str, n_dims: int) -> h5py.Dataset:
    """A data set whose plain bytes stand in this very file.

    Parameters
    ----------
    parent : h5py.Group
    name : str
    kind : str
        The allowed NumPy kinds of its type: ``S`` bytes, ``u`` unsigned, ``i`` signed, ``f`` floating.
    n_dims : int

    Raises
    ------
    UnsafeFileError
        It is something else.
    """
    found = _hard(parent, name)
    if not isinstance(found, h5py.Dataset):
        raise UnsafeFileError(f"'{name}' is not a data set")
    if found.is_virtual or found.external is not None or found.chunks is not None:
        raise UnsafeFileError(f"'{name}' does not stand in the file as it is")
    if found.dtype.kind not in kind or found.ndim != n_dims:
        raise UnsafeFileError(f"'{name}' has type {found.dtype} and {found.ndim} dimensions")
    size = found.file.id.get_filesize()
    n_bytes = found.dtype.itemsize * int(np.prod([int(side) for side in found.shape], dtype=object))
    offset = found.id.get_offset()
    if n_bytes and (offset is None or offset + n_bytes > size):
        raise UnsafeFileError(f"'{name}' declares {n_bytes:,} bytes, more than the file holds")
    return found


def read_array(parent: h5py.Group, name: str, kind: str, n_dims: int = 1) -> NDArray:
    """Read a small data set; see `open_dataset`."""
    array: NDArray = open_dataset(parent, name, kind, n_dims)[...]
    return array


def read_text(parent: h5py.Group, name: str) -> str:
    """Read a text that is kept as plain bytes.

    Texts are not attributes: reading a damaged attribute of variable length can take any memory, or never end.
    """
    if open_dataset(parent, name, "u", 1).nbytes > MOST_TEXT_BYTES:
        raise UnsafeFileError(f"'{name}' is longer than any text of a store")
    return read_array(parent, name, "u").tobytes().decode("utf-8")


def _hard(parent: h5py.Group, name: str) -> object:
    if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
        raise UnsafeFileError(f"'{name}' points elsewhere or is missing")
    return parent[name]
