"""Checkpoints: after every epoch, all that decides the rest of a training is on disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cache.support.json_file import DamagedFileError
from cache.support.messages import describe_error
from heads.data.arrays import read_arrays, write_arrays
from heads.data.types import Arrays


@dataclass(frozen=True)
class Checkpoint:
    """Named arrays in a file that is complete or absent.

    Parameters
    ----------
    path : Path or None
        The file. Without one, nothing is saved.
    """

    path: Path | None

    def save(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Save a state in place of the last one.

        Raises
        ------
        OSError
            It cannot be written; the last one stays.
        """
        if self.path is None:
            return
        try:
            write_arrays(self.path, state, sealed=True)
        except OSError as error:
            # With the name of the file. It is no UserError: the same command continues from the last epoch.
            raise OSError(error.errno, error.strerror or describe_error(error), str(self.path)) from error

    def load(self) -> Arrays | None:
        """The saved state, None if there is none or the file is damaged."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            return read_arrays(self.path, sealed=True)
        except (DamagedFileError, OSError):
            return None
