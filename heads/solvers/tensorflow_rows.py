"""Rows on a GPU through TensorFlow."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from heads.data.blocks import split_rows
from heads.networks.backend import full_precision, import_tensorflow
from heads.solvers.gpu import BLOCK_ROWS, GpuRows, list_places


class TensorFlowRows(GpuRows):
    """Rows in the memory of a device of TensorFlow; see `heads.solvers.gpu.GpuRows`."""

    def __init__(self, Z: NDArray[Any], weight: NDArray[Any], device: str) -> None:
        super().__init__(Z, weight, device)
        tf = import_tensorflow()
        with tf.device(device):
            blocks = split_rows(len(Z), BLOCK_ROWS)
            self._blocks = [(block, tf.constant(Z[block]), tf.constant(weight[block])) for block in blocks]

    @classmethod
    def find_device(cls) -> str | None:
        """TensorFlow's name of the first GPU."""
        return "/GPU:0" if import_tensorflow().config.list_physical_devices("GPU") else None

    def evaluate(
        self, W: NDArray[Any], Y: scipy.sparse.csr_matrix, negative: NDArray[Any], positive: NDArray[Any]
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[Any], Any]]:
        """Loss, gradient and probabilities of each block of rows."""
        tf = import_tensorflow()
        with tf.device(self.device), full_precision():
            weights = tf.constant(negative.astype(W.dtype)), tf.constant(positive.astype(W.dtype))
            coefficients = tf.constant(W)
            for block, Z, weight in self._blocks:
                places = tf.constant(list_places(Y[block]))
                loss, gradient, p = _sum_rows()(Z, weight, coefficients, places, *weights)
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
