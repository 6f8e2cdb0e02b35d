"""Train a Keras model from maps on disk, with a checkpoint after each epoch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse

from cache.support.command import check_interrupted
from heads.data.arrays import SavedArray, check_arrays, list_arrays, number_arrays
from heads.data.maps import Batch, Maps, shuffled
from heads.data.types import Arrays, Scores
from heads.networks.backend import import_keras, import_tensorflow
from heads.networks.checkpoint import Checkpoint
from heads.networks.early_stopping import BestEpoch, stop_early


@dataclass
class Trainer:
    """Trains one model; after a kill it continues from the last complete epoch.

    Parameters
    ----------
    model : keras.Model
        Compiled, from maps to logits. It is trained in place.
    checkpoint : Checkpoint
    constants : dict of ndarray
        What the model was built with and does not learn; saved with each epoch.
    batch_size, epochs, seed : int
    best : BestEpoch
        Gets the scores of the held-out images after each epoch.
    progress : callable
        Called with the number of images trained on, and the largest number there can be.

    Attributes
    ----------
    n_epochs : int
        Completed epochs.
    """

    model: Any
    checkpoint: Checkpoint
    constants: Arrays
    batch_size: int
    epochs: int
    seed: int
    best: BestEpoch
    progress: Callable[[int, int], None]
    n_epochs: int = field(default=0, init=False)
    _error: Exception | None = field(default=None, init=False)

    def run(
        self, X: Maps, Y: scipy.sparse.csr_matrix, score: Callable[[], Scores] | None, saved: Arrays | None
    ) -> None:
        """Train, and end with the weights of the best epoch.

        Parameters
        ----------
        X : Maps
        Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
        score : callable or None
            Scores the held-out images with the current weights of the model. None if there are none; then the last
            epoch counts as the best.
        saved : dict of ndarray or None
            What the checkpoint had, to continue from.

        Raises
        ------
        DamagedFileError
            The checkpoint is that of another training. Nothing has been changed.
        """
        keras = import_keras()
        self.model.optimizer.build(self.model.trainable_variables)
        if saved is not None:
            self._restore(saved)
        saving = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: self._count(batch, len(X)), on_epoch_end=self._save
        )
        callbacks = [saving] if score is None else [stop_early(self.best, score), saving]
        if self.n_epochs < self.epochs and not self.best.is_over:
            try:
                span = {"epochs": self.epochs, "initial_epoch": self.n_epochs}
                self.model.fit(self._batches(X, Y), callbacks=callbacks, shuffle=False, verbose=0, **span)
            # TensorFlow replaces an error that is raised while it reads a batch.
            except Exception as error:
                raise self._error or error from None
        elif self.best.weights is not None:
            self.model.set_weights(self.best.weights)
        self.progress(self.epochs * len(X), self.epochs * len(X))

    def _batches(self, X: Maps, Y: scipy.sparse.csr_matrix) -> Any:
        """The epochs as a TensorFlow data set, which reads one batch ahead."""
        tf = import_tensorflow()
        # Each device takes its part of a batch, and no part may be empty.
        smallest = tf.distribute.get_strategy().num_replicas_in_sync

        def read() -> Iterator[Batch]:
            try:
                batches = shuffled(X, Y, self.batch_size, [self.seed, self.n_epochs])
                yield from (batch for batch in batches if len(batch[0]) >= smallest)
            except Exception as error:
                self._error = error
                raise

        kinds = (tf.TensorSpec((None, *X.shape[1:]), X.dtype), tf.TensorSpec((None, Y.shape[1]), tf.uint8))
        batches = tf.data.Dataset.from_generator(read, output_signature=kinds)
        n_batches = len(X) // self.batch_size + (len(X) % self.batch_size >= smallest)
        return batches.apply(tf.data.experimental.assert_cardinality(n_batches)).prefetch(1)

    def _count(self, batch: int, n_images: int) -> None:
        check_interrupted()
        n_done = self.n_epochs * n_images + min((batch + 1) * self.batch_size, n_images)
        # The last step is reported by `run`, once the best weights have been restored.
        self.progress(min(n_done, self.epochs * n_images - 1), self.epochs * n_images)

    def _save(self, epoch: int, logs: Any) -> None:
        """Save all that decides the epochs to come."""
        self.n_epochs = epoch + 1
        state = self.constants | {"n_epochs": np.array(self.n_epochs), "f1": np.array(self.best.f1, np.float64)}
        state |= number_arrays("variable", self.model.variables)
        state |= number_arrays("optimizer", self.model.optimizer.variables)
        self.checkpoint.save(state | number_arrays("best", self.best.weights or []))

    def _restore(self, saved: Arrays) -> None:
        variables = {"variable": self.model.variables, "optimizer": self.model.optimizer.variables}
        if list_arrays("best", saved):
            variables["best"] = self.model.weights
        expected = {
            f"{name}_{number}": SavedArray(tuple(each.shape), np.number)
            for name, listed in variables.items()
            for number, each in enumerate(listed)
        }
        expected |= {"n_epochs": SavedArray((), np.integer), "f1": SavedArray(("scored epochs",), np.float64)}
        check_arrays(saved, expected)
        for name in ("variable", "optimizer"):
            for number, variable in enumerate(variables[name]):
                variable.assign(saved[f"{name}_{number}"])
        self.n_epochs = int(saved["n_epochs"])
        self.best.f1, self.best.weights = saved["f1"].tolist(), list_arrays("best", saved) or None
