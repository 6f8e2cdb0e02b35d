"""Loss and gradient of many logistic regressions on a GPU, through TensorFlow or JAX.

The products over all rows are nearly all of the work, so these alone are on the GPU; what comes back is as large as the
coefficients. A library is imported only where there is a GPU.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from pkgutil import resolve_name
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.support.devices import has_nvidia_device
from cache.support.errors import NotInstalledError

BLOCK_ROWS = 16_384
"""Rows per product: 16 MiB of scores for 256 concepts."""

ROWS = {
    "tensorflow": "heads.solvers.tensorflow_rows:TensorFlowRows",
    "jax": "heads.solvers.jax_rows:JaxRows",
}
"""The libraries, in the order in which they are tried."""


class GpuRows(ABC):
    """Rows in the memory of a device.

    Parameters
    ----------
    Z : ndarray of float32 or float64, shape (n_rows, n_features + 1)
    weight : ndarray, shape (n_rows,)
        How many rows each row stands for.
    device : str
        The library's name of the device.
    """

    @abstractmethod
    def __init__(self, Z: NDArray[Any], weight: NDArray[Any], device: str) -> None:
        self.device = device

    @classmethod
    @abstractmethod
    def find_device(cls) -> str | None:
        """The library's name of the first GPU; None if it sees none.

        Raises
        ------
        NotInstalledError
            The library is not installed.
        """

    @abstractmethod
    def evaluate(
        self, W: NDArray[Any], Y: scipy.sparse.csr_matrix, negative: NDArray[Any], positive: NDArray[Any]
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[Any], Any]]:
        """Loss, gradient and probabilities of each block of rows.

        Parameters
        ----------
        W : ndarray, shape (n_concepts, n_features + 1)
            Coefficients, of the same type as the rows.
        Y : sparse matrix of {0, 1}, shape (n_rows, n_concepts)
        negative, positive : ndarray, shape (n_concepts,)
            Weights of the two classes.

        Yields
        ------
        loss : ndarray of float64, shape (n_concepts,)
        gradient : ndarray, shape (n_concepts, n_features + 1)
        probabilities : array, shape (n_block, n_concepts)
            On the device; NumPy can convert it.
        """

    def with_rows(self, Z: NDArray[Any], weight: NDArray[Any]) -> Self:
        """Other rows on the same device."""
        return type(self)(Z, weight, self.device)


def find_gpu() -> Callable[[NDArray[Any], NDArray[Any]], GpuRows] | None:
    """What puts rows on the first GPU; None if there is none, or no library that sees it.

    A library takes seconds to load, so none is imported where the system has no NVIDIA device.
    """
    if not has_nvidia_device():
        return None
    for name in ROWS.values():
        kind: type[GpuRows] = resolve_name(name)
        try:
            device = kind.find_device()
        except NotInstalledError:
            continue
        if device:
            return partial(kind, device=device)
    return None


def list_places(Y: scipy.sparse.csr_matrix) -> NDArray[np.int64]:
    """Row and column of each label, shape (n_labels, 2)."""
    labels = Y.tocoo()
    return np.column_stack([labels.row, labels.col]).astype(np.int64)
