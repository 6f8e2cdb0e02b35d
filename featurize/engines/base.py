"""What an engine is: one class that answers every question about itself.

An engine takes batches of one fixed shape; the last batch is padded. So an embedding depends on its image alone, and a
resumed run equals an undisturbed one.
"""

import importlib.util
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray

from cache.network_files import FRONT
from cache.support.keras import import_keras
from featurize.backbone import cut_before_pooling

AHEAD = 2
"""Batches that are sent to a device before the result of the first is waited for."""

MAP_BATCH = 16
"""Images whose maps Keras computes at a time."""

UNIT_IMAGES = 128
"""Images per unit of work on CPUs."""


@dataclass(frozen=True)
class FrontFiles:
    """Where the files of a front are, and which front they are.

    Parameters
    ----------
    folder : Path
        ``STORE.network/``.
    version : str
        Another one whenever a network is built there: a process that has the files open must not run the earlier
        network under the name of the new one.
    """

    folder: Path
    version: str


@dataclass(frozen=True)
class Engine(ABC):
    """Executes the front from its files; the base class of all engines.

    An instance is what was chosen for one run. It is small and travels to worker processes; it opens the network's
    files where it is first called. A new engine is a subclass in a file of its own and a line in
    `featurize.engines.registry`. By default it runs in one process per GPU, or in one process that uses every core.

    Parameters
    ----------
    precision : str
        The arithmetic, one of `cache.support.devices.POLICIES`.
    n_gpus : int
        How many GPUs it sees.

    Attributes
    ----------
    name : str
        Its name in requests, and in the provenance of stores: never change it.
    package : str
        The package that it imports.
    pip_line : str
        The command that installs the package.
    cuda_line : str
        The command that installs it for GPUs; empty if it is for CPUs alone.
    distributions : tuple of str
        Names under which pip may have installed it; a store records their versions.
    files : tuple of str
        The files beside the store that it runs.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    pip_line: ClassVar[str]
    cuda_line: ClassVar[str] = ""
    distributions: ClassVar[tuple[str, ...]]
    files: ClassVar[tuple[str, ...]]

    precision: str
    n_gpus: int = 0

    @classmethod
    def is_installed(cls) -> bool:
        """Whether its package is installed, found out without importing it."""
        return importlib.util.find_spec(cls.package) is not None

    @classmethod
    def find_gpus(cls) -> list[str]:
        """Names of the GPUs that it can use, such as ``NVIDIA H100``; none by default."""
        return []

    @classmethod
    @abstractmethod
    def find_native_precision(cls) -> str:
        """The fastest arithmetic that it has on this machine. Only asked where the engine is installed."""

    @property
    @abstractmethod
    def batch(self) -> int:
        """Images per batch."""

    @property
    @abstractmethod
    def layer_precision(self) -> str:
        """Precision of the Keras layers: its own, or float32 if it lowers the precision of float32 layers itself."""

    @property
    def wanted(self) -> dict[str, Any]:
        """What decides the files, beyond the backbone; see `cache.network_files.NetworkFiles`."""
        return {"engine": self.name, "layers": self.layer_precision}

    def prepare(self, model: Any, folder: Path) -> None:  # noqa: B027  # an engine may need no files of its own
        """Write the files that it needs beside ``front.keras``; none by default.

        Parameters
        ----------
        model : keras.Model
            The built front.
        folder : Path
            Where to write.
        """

    def count_processes(self, workers: int | None = None) -> int:
        """How many processes to start.

        Parameters
        ----------
        workers : int, optional
            How many the user wants.
        """
        most = max(1, self.n_gpus)
        return min(workers or most, most)

    @property
    def threads(self) -> int:
        """Threads that read and decode images in each process."""
        return max(1, int(cpu_count()) // self.count_processes())

    @property
    def decoders(self) -> int:
        """Processes that read and decode for each process, instead of its threads; none by default."""
        return 0

    @property
    def unit_images(self) -> int:
        """Images per unit of work: a few seconds, so that a kill loses little and part files cost little time."""
        return UNIT_IMAGES

    @abstractmethod
    def infer(self, images: NDArray[np.uint8], files: FrontFiles) -> Any:
        """Embed one full batch.

        Parameters
        ----------
        images : ndarray of uint8, shape (batch, size, size, 3)
        files : FrontFiles

        Returns
        -------
        array of float32, shape (batch, n_features) or (batch, height, width, n_features)
            What NumPy can convert. The result may come later than the array: then its conversion waits.
        """

    def embed(self, images: NDArray[np.uint8], files: FrontFiles) -> NDArray[np.float32]:
        """Embed any number of images, in padded batches.

        Parameters
        ----------
        images : ndarray of uint8, shape (n_images, size, size, 3)
        files : FrontFiles

        Returns
        -------
        ndarray of float32, shape (n_images, n_features) or (n_images, height, width, n_features)
        """
        batches = (images[start : start + self.batch] for start in range(0, len(images), self.batch))
        return np.concatenate(list(self.embed_batches(batches, files)))

    def find_maps(self, images: NDArray[np.uint8], files: FrontFiles, n_layers: int) -> list[NDArray[np.float32]]:
        """The maps that the front pools; by default Keras computes them.

        Parameters
        ----------
        images : ndarray of uint8, shape (n_images, size, size, 3)
        files : FrontFiles
        n_layers : int
            Of how many layers the front pools the maps.

        Returns
        -------
        list of ndarray of float32, shape (n_images, height, width, n_features)
            One per layer, in the order of the network. The means over height and width, side by side, are the
            embedding, where pooling is ``avg``.
        """
        model, flatten = _open_before_pooling(files), import_keras().tree.flatten
        batches = (images[start : start + MAP_BATCH] for start in range(0, len(images), MAP_BATCH))
        maps = zip(*(flatten(model(batch, training=False)) for batch in batches), strict=True)
        return [np.concatenate([np.asarray(each, np.float32) for each in of_layer]) for of_layer in maps]

    def embed_batches(self, batches: Iterable[NDArray[np.uint8]], files: FrontFiles) -> Iterator[NDArray[np.float32]]:
        """Embed batches. While a device computes one, the next ones are read and sent to it.

        Parameters
        ----------
        batches : iterable of ndarray of uint8, each of shape (n_images, size, size, 3)
            None has more images than `batch`.
        files : FrontFiles

        Yields
        ------
        ndarray of float32, shape (n_images, n_features) or (n_images, height, width, n_features)
            In the order of the batches.
        """
        pending: deque[tuple[Any, int]] = deque()
        for images in batches:
            missing = self.batch - len(images)
            padded = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)]) if missing else images
            pending.append((self.infer(padded, files), len(images)))
            if len(pending) > AHEAD:
                yield _wait(*pending.popleft())
        while pending:
            yield _wait(*pending.popleft())


@lru_cache(maxsize=1)
def _open_before_pooling(files: FrontFiles) -> Any:
    """The Keras front up to its maps."""
    return cut_before_pooling(import_keras().saving.load_model(files.folder / FRONT, compile=False))


def _wait(result: Any, n_images: int) -> NDArray[np.float32]:
    return np.asarray(result, np.float32)[:n_images]
