"""Training a Keras model from maps that stay on the disk, an epoch at a time; a kill costs the epoch it falls in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.support.command import check_interrupted, muted_imports
from heads.data.maps import Batch, Maps, shuffled
from heads.networks.backend import import_keras
from heads.networks.checkpoint import Checkpoint, State, number, numbered
from heads.networks.early_stopping import BestEpoch, stop_early


@dataclass
class Training:
    """One training, which goes on from its checkpoint.

    Parameters
    ----------
    model : keras.Model
        Compiled; from maps to what its loss takes. It is trained in place.
    checkpoint : Checkpoint
    constants : dict of ndarray
        Kept with each epoch: what the model was built with and does not learn.
    batch_size, epochs, seed : int
    best : BestEpoch
        Told the scores of the held-out images after each epoch.
    tell : callable
        Told how many images have been gone through, and of how many at most.

    Attributes
    ----------
    n_epochs : int
        Passes that were made.
    """

    model: Any
    checkpoint: Checkpoint
    constants: State
    batch_size: int
    epochs: int
    seed: int
    best: BestEpoch
    tell: Callable[[int, int], None]
    n_epochs: int = field(default=0, init=False)
    _error: Exception | None = field(default=None, init=False)

    def run(
        self,
        X: Maps,
        Y: scipy.sparse.csr_matrix,
        score: Callable[[], NDArray[np.float32]] | None,
        kept: State | None,
    ) -> None:
        """Train, and end with the weights of the best epoch.

        Parameters
        ----------
        X : Maps
        Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
        score : callable or None
            Scores the held-out images with the model as it is; None if there are none, and the last epoch is best.
        kept : dict of ndarray or None
            What the checkpoint held.
        """
        keras = import_keras()
        self.model.optimizer.build(self.model.trainable_variables)
        if kept is not None:
            self._take_back(kept)
        keeping = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: self._count(batch, len(X)), on_epoch_end=self._keep
        )
        callbacks = [keeping] if score is None else [stop_early(self.best, score), keeping]
        if self.n_epochs < self.epochs and not self.best.is_over:
            try:
                span = {"epochs": self.epochs, "initial_epoch": self.n_epochs}
                self.model.fit(self._batches(X, Y), callbacks=callbacks, shuffle=False, verbose=0, **span)
            # TensorFlow makes its own error of one that arises while it reads.
            except Exception as error:
                raise self._error or error from None
        elif self.best.weights is not None:
            self.model.set_weights(self.best.weights)
        self.tell(self.epochs * len(X), self.epochs * len(X))

    def _batches(self, X: Maps, Y: scipy.sparse.csr_matrix) -> Any:
        """The epochs as TensorFlow reads them, one batch ahead."""
        with muted_imports():
            import tensorflow as tf

        # Each device takes its part of a batch, and none can do with nothing.
        least = tf.distribute.get_strategy().num_replicas_in_sync

        def read() -> Iterator[Batch]:
            try:
                batches = shuffled(X, Y, self.batch_size, [self.seed, self.n_epochs])
                yield from (batch for batch in batches if len(batch[0]) >= least)
            except Exception as error:
                self._error = error
                raise

        kinds = (tf.TensorSpec((None, *X.shape[1:]), X.dtype), tf.TensorSpec((None, Y.shape[1]), tf.uint8))
        batches = tf.data.Dataset.from_generator(read, output_signature=kinds)
        n_batches = len(X) // self.batch_size + (len(X) % self.batch_size >= least)
        return batches.apply(tf.data.experimental.assert_cardinality(n_batches)).prefetch(1)

    def _count(self, batch: int, n_images: int) -> None:
        check_interrupted()
        n_done = self.n_epochs * n_images + min((batch + 1) * self.batch_size, n_images)
        self.tell(min(n_done, self.epochs * n_images - 1), self.epochs * n_images)

    def _keep(self, epoch: int, logs: Any) -> None:
        """Keep all that decides the epochs to come."""
        self.n_epochs = epoch + 1
        state = self.constants | {"n_epochs": np.array(self.n_epochs), "f1": np.array(self.best.f1, np.float64)}
        state |= number("variable", self.model.variables) | number("optimizer", self.model.optimizer.variables)
        self.checkpoint.save(state | number("best", self.best.weights or []))

    def _take_back(self, kept: State) -> None:
        for variables, name in ((self.model.variables, "variable"), (self.model.optimizer.variables, "optimizer")):
            for variable, value in zip(variables, numbered(name, kept), strict=True):
                variable.assign(value)
        self.n_epochs = int(kept["n_epochs"])
        self.best.f1, self.best.weights = kept["f1"].tolist(), numbered("best", kept) or None
