"""Read an HDF5 file that a stranger made: open nothing outside it, believe no size that it declares.

HDF5 can point to other files (external links, external storage, virtual data sets), unpack small files into large
arrays (filters), and declare any shape. Stores and heads use none of that, so all of it is refused.
"""

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

MAX_TEXT_BYTES = 1_000_000
"""Longest text that is read. Provenance and record take about a thousand bytes."""


class UnsafeFileError(ValueError):
    """The file is not built like those of this project."""


def open_group(parent: h5py.Group, name: str) -> h5py.Group:
    """Open a group that is in this very file.

    Raises
    ------
    UnsafeFileError
        It is missing, a link, or not a group.
    """
    found = _follow_hard_link(parent, name)
    if not isinstance(found, h5py.Group):
        raise UnsafeFileError(f"'{name}' is not a group")
    return found


def open_dataset(parent: h5py.Group, name: str, kind: str, n_dims: int | None = None) -> h5py.Dataset:
    """Open a data set whose plain bytes are in this very file.

    Parameters
    ----------
    parent : h5py.Group
    name : str
    kind : str
        The allowed NumPy kinds of its type: ``S`` bytes, ``u`` unsigned, ``i`` signed, ``f`` floating.
    n_dims : int, optional
        Its number of dimensions; any if not given.

    Returns
    -------
    h5py.Dataset

    Raises
    ------
    UnsafeFileError
        It is missing, a link, or anything else than such a data set.
    """
    found = _follow_hard_link(parent, name)
    if not isinstance(found, h5py.Dataset):
        raise UnsafeFileError(f"'{name}' is not a data set")
    if found.is_virtual or found.external is not None or found.chunks is not None:
        raise UnsafeFileError(f"'{name}' is not stored as plain bytes of this file")
    if found.dtype.kind not in kind or n_dims not in (None, found.ndim):
        raise UnsafeFileError(f"'{name}' has type {found.dtype} and {found.ndim} dimensions")
    size = found.file.id.get_filesize()
    # As Python integers: a declared shape can overflow 64 bits.
    n_bytes = found.dtype.itemsize * int(np.prod([int(side) for side in found.shape], dtype=object))
    offset = found.id.get_offset()
    if n_bytes and (offset is None or offset + n_bytes > size):
        raise UnsafeFileError(f"'{name}' declares {n_bytes:,} bytes, more than the file holds")
    return found


def read_array(parent: h5py.Group, name: str, kind: str, n_dims: int = 1) -> NDArray[Any]:
    """Read a small data set; see `open_dataset`."""
    array: NDArray[Any] = open_dataset(parent, name, kind, n_dims)[...]
    return array


def read_arrays(file: h5py.File) -> dict[str, NDArray[Any]]:
    """Read the numbers of a file that has data sets and nothing else.

    Together they take no more memory than the file is large: several data sets could share the same bytes.

    Raises
    ------
    UnsafeFileError
        Something in it is not a data set of numbers, stored as plain bytes.
    """
    found = {name: open_dataset(file, name, "fiu") for name in file}
    n_bytes = sum(each.nbytes for each in found.values())
    if n_bytes > file.id.get_filesize():
        raise UnsafeFileError(f"it declares {n_bytes:,} bytes, more than the file holds")
    return {name: each[()] for name, each in found.items()}


def read_text(parent: h5py.Group, name: str) -> str:
    """Read a text that is stored as plain bytes.

    Texts are not attributes: reading a damaged attribute of variable length can take any amount of memory, or never
    end.

    Raises
    ------
    UnsafeFileError
        It is longer than `MAX_TEXT_BYTES`, or not a plain data set.
    """
    if open_dataset(parent, name, "u", 1).nbytes > MAX_TEXT_BYTES:
        raise UnsafeFileError(f"'{name}' is longer than any text of a store")
    return read_array(parent, name, "u").tobytes().decode("utf-8")


def _follow_hard_link(parent: h5py.Group, name: str) -> object:
    if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
        raise UnsafeFileError(f"'{name}' points elsewhere or is missing")
    return parent[name]
