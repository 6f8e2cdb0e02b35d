"""Named arrays: in an HDF5 file, and lists of arrays under numbered names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.support.files import SteadyFile, replacing
from heads.data.types import Arrays


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays to an HDF5 file, whole or not at all."""
    # h5py does not lock a file object, which is well: not every file system has locks.
    with replacing(path) as temporary, open(temporary, "w+b", buffering=0) as raw:
        steady = SteadyFile(raw)
        with h5py.File(steady, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array)
                steady.check()
        steady.check()


def read_arrays(path: Path) -> Arrays:
    """Read what `write_arrays` wrote.

    Raises
    ------
    OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError
        The file is missing or damaged; HDF5 reports damage in many ways.
    """
    with h5py.File(path, "r", locking=False) as file:
        return {name: dataset[()] for name, dataset in file.items()}


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
