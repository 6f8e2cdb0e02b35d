"""Loss and gradient of many logistic regressions on a GPU, through TensorFlow; all else stays where it is.

The products over all rows are nearly all of the work. What comes back is as large as the coefficients. TensorFlow is
imported where there is a GPU and not otherwise.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.support.command import muted_imports
from cache.support.devices import has_nvidia_device

ROWS = 16_384
"""Rows a product: 16 MiB of scores for 256 concepts."""


def find_gpu() -> str | None:
    """TensorFlow's name of the first GPU, None if there is none.

    Where the system has no device of that kind TensorFlow is not asked: it takes seconds to load.
    """
    if not has_nvidia_device():
        return None
    return "/GPU:0" if _tensorflow().config.list_physical_devices("GPU") else None


class GpuRows:
    """Rows that stay on a device.

    Parameters
    ----------
    Z : ndarray of float32 or float64, shape (n_rows, n_features + 1)
    weight : ndarray, shape (n_rows,)
        How many rows each stands for.
    device : str
        TensorFlow's name of the device.
    """

    def __init__(self, Z: NDArray[Any], weight: NDArray[Any], device: str) -> None:
        tf = _tensorflow()
        self.device = device
        with tf.device(device):
            starts = range(0, len(Z), ROWS)
            self._parts = [(tf.constant(Z[at : at + ROWS]), tf.constant(weight[at : at + ROWS])) for at in starts]

    def evaluate(
        self, W: NDArray[Any], Y: scipy.sparse.csr_matrix, absent: NDArray[Any], present: NDArray[Any]
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[Any], Any]]:
        """Loss, its gradient and the probabilities of some rows after the other.

        Parameters
        ----------
        W : ndarray, shape (n_concepts, n_features + 1)
            Of the rows' type.
        Y : sparse matrix of {0, 1}, shape (n_rows, n_concepts)
        absent, present : ndarray, shape (n_concepts,)
            Weights of the two sides.
        """
        tf = _tensorflow()
        with tf.device(self.device), _full_precision(tf):
            sides = tf.constant(absent.astype(W.dtype)), tf.constant(present.astype(W.dtype))
            coefficients = tf.constant(W)
            for number, (Z, weight) in enumerate(self._parts):
                named = Y[number * ROWS : (number + 1) * ROWS].tocoo()
                places = np.column_stack([named.row, named.col]).astype(np.int64)
                loss, gradient, p = _sum_rows()(Z, weight, coefficients, tf.constant(places), *sides)
                yield loss.numpy(), gradient.numpy(), p


@lru_cache
def _sum_rows() -> Any:
    tf = _tensorflow()

    @tf.function(reduce_retracing=True, autograph=False)
    def sum_rows(Z: Any, weight: Any, W: Any, places: Any, absent: Any, present: Any) -> Any:
        logits = tf.matmul(Z, W, transpose_b=True)
        shown = tf.scatter_nd(places, tf.ones(tf.shape(places)[0], Z.dtype), tf.shape(logits, tf.int64))
        sides = weight[:, None] * (absent + (present - absent) * shown)
        loss = sides * (tf.nn.softplus(logits) - shown * logits)
        p = tf.sigmoid(logits)
        gradient = tf.matmul(sides * (p - shown), Z, transpose_a=True)
        return tf.reduce_sum(tf.cast(loss, tf.float64), axis=0), gradient, p

    return sum_rows


@contextmanager
def _full_precision(tf: Any) -> Iterator[None]:
    """TensorFloat-32, TensorFlow's default on recent GPUs, keeps three digits: too few for an optimum."""
    experimental = tf.config.experimental
    before = experimental.tensor_float_32_execution_enabled()
    experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        experimental.enable_tensor_float_32_execution(before)


def _tensorflow() -> Any:
    with muted_imports():
        import tensorflow as tf
    return tf
