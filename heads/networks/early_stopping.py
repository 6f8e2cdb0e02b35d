"""Early stopping by the official F1 of held-out training images, not by the loss."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from eval.f1 import image_f1, mean_f1
from heads.data.types import Scores
from heads.decoders.thresholds import GlobalThreshold
from heads.networks.backend import import_keras

Weights = list[NDArray[Any]]


class BestEpoch:
    """The weights of the epoch with the best F1 on held-out images.

    The F1 of an epoch is the official primary F1 at the global threshold that is best for this epoch. At a fixed
    threshold, an epoch could win because its scores happen to lie well for this threshold: the focal and the asymmetric
    loss shift scores, and a decoder corrects the shift later.

    Parameters
    ----------
    Y : sparse matrix of {0, 1}, shape (n_held_out, n_concepts)
        Concepts of the held-out images.
    patience : int
        Training ends after this many epochs without a better F1.

    Attributes
    ----------
    f1 : list of float
        F1 of each epoch so far; -1 for one that has diverged.
    weights : list of ndarray or None
        Those of the best epoch, the first one if several are equal.
    """

    def __init__(self, Y: scipy.sparse.csr_matrix, patience: int) -> None:
        self.f1: list[float] = []
        self.weights: Weights | None = None
        self._Y = Y
        self._patience = patience

    def note(self, scores: Scores, weights: Callable[[], Weights]) -> bool:
        """Evaluate an epoch.

        Parameters
        ----------
        scores : ndarray of float32, shape (n_held_out, n_concepts)
        weights : callable
            Returns the weights of the epoch; called if it is the best so far.

        Returns
        -------
        bool
            Whether training should end.
        """
        f1 = best_f1(scores, self._Y) if np.isfinite(scores).all() else -1.0
        if f1 > max(self.f1, default=-1.0):
            self.weights = weights()
        self.f1.append(f1)
        return self.is_over

    @property
    def is_over(self) -> bool:
        """Whether F1 has not improved for `patience` epochs."""
        return bool(self.f1) and len(self.f1) - 1 - int(np.argmax(self.f1)) >= self._patience


def best_f1(scores: Scores, Y: scipy.sparse.csr_matrix) -> float:
    """Official primary F1 at the global threshold that is best for these images.

    Examples
    --------
    >>> Y = scipy.sparse.csr_matrix([[1, 0], [1, 1]])
    >>> best_f1(np.array([[0.9, 0.1], [0.6, 0.2]], np.float32), Y)
    1.0
    """
    decoder = GlobalThreshold().fit(scores, Y)
    return mean_f1(image_f1(Y, decoder.predict(scores)))


def stop_early(best: BestEpoch, score: Callable[[], Scores]) -> Any:
    """A Keras callback that scores the model after each epoch, ends training, and restores the best weights.

    Parameters
    ----------
    best : BestEpoch
    score : callable
        Scores the held-out images with the current weights of the model, shape (n_held_out, n_concepts), in [0, 1].

    Returns
    -------
    keras.callbacks.Callback
    """
    keras = import_keras()

    def end_epoch(epoch: int, logs: Any) -> None:
        callback.model.stop_training = best.note(score(), callback.model.get_weights)

    def end_training(logs: Any) -> None:
        if best.weights is not None:
            callback.model.set_weights(best.weights)

    callback = keras.callbacks.LambdaCallback(on_epoch_end=end_epoch, on_train_end=end_training)
    return callback
