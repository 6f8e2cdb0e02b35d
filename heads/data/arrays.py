"""Named arrays: in an HDF5 file, and lists of arrays under numbered names."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from cache import safe_hdf5
from cache.support.files import SteadyFile, replacing
from cache.support.json_file import DamagedFileError
from cache.support.messages import describe_error
from heads.data.types import Arrays

BLOCK_BYTES = 2**20
"""Bytes that are read at a time."""


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], sealed: bool = False) -> None:
    """Write named arrays to an HDF5 file, whole or not at all.

    Parameters
    ----------
    path : Path
    arrays : mapping of str to ndarray
    sealed : bool
        Whether the SHA-256 of the file stands behind its end, where HDF5 does not look, for `read_arrays` to check.
    """
    # h5py does not lock a file object, which is well: not every file system has locks.
    with replacing(path) as temporary, open(temporary, "w+b", buffering=0) as raw:
        steady = SteadyFile(raw)
        with h5py.File(steady, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array)
                steady.check()
        steady.check()
        if sealed:
            raw.seek(0)
            digest = hashlib.file_digest(raw, "sha256").digest()
            raw.seek(0, os.SEEK_END)
            steady.write(digest)
            steady.check()


def read_arrays(path: Path, sealed: bool = False) -> Arrays:
    """Read what `write_arrays` wrote. The file may come from a stranger.

    Raises
    ------
    DamagedFileError
        It is damaged, or built in another way.
    OSError
        It cannot be opened.
    """
    with open(path, "rb") as raw:
        if sealed:
            _check_seal(raw)
        try:
            with h5py.File(raw, "r") as file:
                return safe_hdf5.read_arrays(file)
        except MemoryError:
            raise
        except Exception as error:  # HDF5 reports damage in many ways
            raise DamagedFileError(f"{path.name}: {describe_error(error)}") from None


def _check_seal(file: BinaryIO) -> None:
    """Check the digest behind the end of a file."""
    digest, left = hashlib.sha256(), os.fstat(file.fileno()).st_size - hashlib.sha256().digest_size
    while left > 0 and (block := file.read(min(left, BLOCK_BYTES))):
        digest.update(block)
        left -= len(block)
    if left or file.read() != digest.digest():
        raise DamagedFileError("it is not what was written")
    file.seek(0)


@dataclass(frozen=True)
class SavedArray:
    """What an array of a file must be.

    Parameters
    ----------
    shape : tuple of str or int
        Its sides. A word stands for a number, the same one for all arrays that are checked together.
    dtype : dtype
        Such as float32, or ``numpy.integer`` for whole numbers of any size.
    finite : bool
        Whether its numbers must be finite. They may be infinite otherwise, but NaN is no number.
    """

    shape: tuple[str | int, ...]
    dtype: Any = np.float32
    finite: bool = True


def check_arrays(
    arrays: Mapping[str, NDArray[Any]], expected: Mapping[str, SavedArray], **sides: int
) -> list[NDArray[Any]]:
    """Take the expected arrays from those of a file, and check that they are what was saved.

    Parameters
    ----------
    arrays : mapping of str to ndarray
    expected : mapping of str to SavedArray
    **sides : int
        The numbers that some words of the shapes stand for.

    Returns
    -------
    list of ndarray
        In the order of `expected`.

    Raises
    ------
    DamagedFileError
        One is missing, or something else.

    Examples
    --------
    >>> expected = {"coef": SavedArray(("concepts", "features"), np.float64)}
    >>> check_arrays({"coef": np.zeros((2, 3))}, expected, features=4)
    Traceback (most recent call last):
    cache.support.json_file.DamagedFileError: 'coef' has shape (2, 3), expected (2, 4)
    """
    for name, one in expected.items():
        if name not in arrays:
            raise DamagedFileError(f"it has no '{name}'")
        array = arrays[name]
        if array.ndim == len(one.shape):
            for word, side in zip(one.shape, array.shape, strict=True):
                sides.setdefault(str(word), side if isinstance(word, str) else word)
        shape = tuple(sides.get(str(word), word) for word in one.shape)
        if array.shape != shape:
            raise DamagedFileError(f"'{name}' has shape {array.shape}, expected {shape}")
        if not np.issubdtype(array.dtype, one.dtype):
            raise DamagedFileError(f"'{name}' has numbers of type {array.dtype}, expected {one.dtype.__name__}")
        if array.dtype.kind == "f" and not (np.isfinite(array) if one.finite else ~np.isnan(array)).all():
            raise DamagedFileError(f"'{name}' has values that are not {'finite' if one.finite else 'numbers'}")
    return [arrays[name] for name in expected]


def number_arrays(name: str, arrays: Sequence[Any]) -> Arrays:
    """Name a list of arrays: ``weights_0``, ``weights_1``, …"""
    return {f"{name}_{number}": np.asarray(array) for number, array in enumerate(arrays)}


def list_arrays(name: str, arrays: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """The list that `number_arrays` named.

    >>> [int(each) for each in list_arrays("w", number_arrays("w", [3, 4]) | {"other": np.array(5)})]
    [3, 4]
    """
    n_arrays = sum(each.startswith(f"{name}_") and each.removeprefix(f"{name}_").isdecimal() for each in arrays)
    return [arrays[f"{name}_{number}"] for number in range(n_arrays)]
