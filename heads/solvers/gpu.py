"""Loss and gradient of many logistic regressions on a GPU, through TensorFlow.

The products over all rows are nearly all of the work, so these alone are on the GPU; what comes back is as large as the
coefficients. TensorFlow is imported only where there is a GPU.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.support.devices import has_nvidia_device
from cache.support.errors import NotInstalledError
from heads.data.blocks import split_rows
from heads.networks.backend import full_precision, import_tensorflow

BLOCK_ROWS = 16_384
"""Rows per product: 16 MiB of scores for 256 concepts."""


def find_gpu() -> str | None:
    """TensorFlow's name of the first GPU, None if there is none or TensorFlow is not installed.

    TensorFlow takes seconds to load, so it is not imported where the system has no NVIDIA device.
    """
    if not has_nvidia_device():
        return None
    try:
        return "/GPU:0" if import_tensorflow().config.list_physical_devices("GPU") else None
    except NotInstalledError:
        return None


class GpuRows:
    """Rows in the memory of a device.

    Parameters
    ----------
    Z : ndarray of float32 or float64, shape (n_rows, n_features + 1)
    weight : ndarray, shape (n_rows,)
        How many rows each row stands for.
    device : str
        TensorFlow's name of the device.
    """

    def __init__(self, Z: NDArray[Any], weight: NDArray[Any], device: str) -> None:
        tf = import_tensorflow()
        self.device = device
        with tf.device(device):
            blocks = split_rows(len(Z), BLOCK_ROWS)
            self._blocks = [(block, tf.constant(Z[block]), tf.constant(weight[block])) for block in blocks]

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
        probabilities : tf.Tensor, shape (n_block, n_concepts)
            On the device.
        """
        tf = import_tensorflow()
        with tf.device(self.device), full_precision():
            weights = tf.constant(negative.astype(W.dtype)), tf.constant(positive.astype(W.dtype))
            coefficients = tf.constant(W)
            for block, Z, weight in self._blocks:
                labels = Y[block].tocoo()
                places = np.column_stack([labels.row, labels.col]).astype(np.int64)
                loss, gradient, p = _sum_rows()(Z, weight, coefficients, tf.constant(places), *weights)
                yield loss.numpy(), gradient.numpy(), p


@cache
def _sum_rows() -> Any:
    """The compiled sum of loss and gradient over a block of rows."""
    tf = import_tensorflow()

    def sum_rows(Z: Any, weight: Any, W: Any, places: Any, negative: Any, positive: Any) -> Any:
        logits = tf.matmul(Z, W, transpose_b=True)  # (n_block, n_concepts)
        labels = tf.scatter_nd(places, tf.ones(tf.shape(places)[0], Z.dtype), tf.shape(logits, tf.int64))
        weights = weight[:, None] * (negative + (positive - negative) * labels)
        loss = weights * (tf.nn.softplus(logits) - labels * logits)
        p = tf.sigmoid(logits)
        gradient = tf.matmul(weights * (p - labels), Z, transpose_a=True)
        return tf.reduce_sum(tf.cast(loss, tf.float64), axis=0), gradient, p

    return tf.function(sum_rows, reduce_retracing=True, autograph=False)
