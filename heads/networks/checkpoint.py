"""A training that can be killed: after every epoch all that decides the rest of it is on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.support.files import replacing

State = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """Named arrays in a file that is whole or absent.

    Parameters
    ----------
    path : Path or None
        The file; without one nothing is kept.
    """

    path: Path | None

    def save(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Keep a state in the place of the last one."""
        if self.path is None:
            return
        with replacing(self.path) as temporary, h5py.File(temporary, "w") as file:
            for key, array in state.items():
                file.create_dataset(key, data=array)

    def load(self) -> State | None:
        """The state that was kept, None if there is none or it is damaged."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                return {key: dataset[()] for key, dataset in file.items()}
        except (OSError, ValueError, KeyError, RuntimeError):
            return None


def number(name: str, arrays: Sequence[Any]) -> State:
    """Name a list of arrays: ``weights_0``, ``weights_1``, …"""
    return {f"{name}_{place}": np.asarray(array) for place, array in enumerate(arrays)}


def numbered(name: str, state: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """The list that `number` named.

    >>> [int(each) for each in numbered("w", number("w", [3, 4]) | {"other": np.array(5)})]
    [3, 4]
    """
    count = sum(key.startswith(f"{name}_") and key.removeprefix(f"{name}_").isdecimal() for key in state)
    return [state[f"{name}_{place}"] for place in range(count)]
