"""Rows on a GPU through JAX."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.support.jax import import_jax, list_gpus
from heads.data.blocks import split_rows
from heads.solvers.gpu import BLOCK_ROWS, GpuRows, list_places


class JaxRows(GpuRows):
    """Rows in the memory of a device of JAX; see `heads.solvers.gpu.GpuRows`."""

    def __init__(self, Z: NDArray[Any], weight: NDArray[Any], device: str) -> None:
        super().__init__(Z, weight, device)
        jax = import_jax()
        self._place = jax.local_devices(backend=device)[0]
        blocks = split_rows(len(Z), BLOCK_ROWS)
        with jax.enable_x64(True):  # float64 would become float32
            self._blocks = [(block, *jax.device_put((Z[block], weight[block]), self._place)) for block in blocks]

    @classmethod
    def find_device(cls) -> str | None:
        """JAX's name of GPUs."""
        return "gpu" if list_gpus() else None

    def evaluate(
        self, W: NDArray[Any], Y: scipy.sparse.csr_matrix, negative: NDArray[Any], positive: NDArray[Any]
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[Any], Any]]:
        """Loss, gradient and probabilities of each block of rows."""
        jax = import_jax()
        with jax.enable_x64(True):
            fixed = jax.device_put((W, negative.astype(W.dtype), positive.astype(W.dtype)), self._place)
            for block, Z, weight in self._blocks:
                labels = np.zeros((len(Z), len(W)), np.bool_)
                labels[tuple(list_places(Y[block]).T)] = True
                loss, gradient, p = _sum_rows()(Z, weight, labels, *fixed)
                yield np.asarray(loss), np.asarray(gradient), p


@cache
def _sum_rows() -> Any:
    """The compiled sum of loss and gradient over a block of rows."""
    jax = import_jax()
    jnp = jax.numpy

    def sum_rows(Z: Any, weight: Any, labels: Any, W: Any, negative: Any, positive: Any) -> Any:
        # By default a GPU multiplies float32 with the three digits of TensorFloat-32: too few for an optimum.
        with jax.default_matmul_precision("highest"):
            logits = Z @ W.T  # (n_block, n_concepts)
            weights = weight[:, None] * jnp.where(labels, positive, negative)
            loss = weights * (jax.nn.softplus(logits) - labels * logits)
            p = jax.nn.sigmoid(logits)
            gradient = (weights * (p - labels)).T @ Z
        return loss.astype(jnp.float64).sum(axis=0), gradient, p

    return jax.jit(sum_rows)
