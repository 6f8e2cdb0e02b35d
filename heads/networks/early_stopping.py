"""Early stopping on what is scored: the official F1 of held-out training images, not the loss."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from eval.f1 import image_f1, mean_f1
from heads.decoders.thresholds import GlobalThreshold
from heads.networks.backend import import_keras

Weights = list[NDArray[Any]]


class BestEpoch:
    """The weights of the epoch that scores best on held-out images.

    An epoch's score is the official primary F1 at its own best global threshold. At a fixed one, epochs would be
    chosen by where their scores lie, which the focal and asymmetric losses move and a decoder settles later.

    Parameters
    ----------
    Y : sparse matrix of {0, 1}, shape (n_held_out, n_concepts)
        Concepts of the held-out images.
    patience : int
        Epochs without a better score after which training ends.

    Attributes
    ----------
    f1 : list of float
        Score of each epoch so far; -1 for one that has diverged.
    weights : list of ndarray or None
        Those of the best epoch, the first of equals.
    """

    def __init__(self, Y: scipy.sparse.csr_matrix, patience: int) -> None:
        self.f1: list[float] = []
        self.weights: Weights | None = None
        self._Y = Y
        self._patience = patience

    def note(self, scores: NDArray[np.float32], weights: Callable[[], Weights]) -> bool:
        """Score an epoch; returns whether training should end.

        Parameters
        ----------
        scores : ndarray of float32, shape (n_held_out, n_concepts)
        weights : callable
            Gives the weights of the epoch; called if it is the best so far.
        """
        f1 = best_f1(scores, self._Y) if np.isfinite(scores).all() else -1.0
        if f1 > max(self.f1, default=-1.0):
            self.weights = weights()
        self.f1.append(f1)
        return self.is_over

    @property
    def is_over(self) -> bool:
        """Whether the last epochs, as many as patience has, were no better than one before."""
        return bool(self.f1) and len(self.f1) - 1 - int(np.argmax(self.f1)) >= self._patience


def best_f1(scores: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> float:
    """Official primary F1 at the global threshold that is best for these images.

    Examples
    --------
    >>> Y = scipy.sparse.csr_matrix([[1, 0], [1, 1]])
    >>> best_f1(np.array([[0.9, 0.1], [0.6, 0.2]], np.float32), Y)
    1.0
    """
    decoder = GlobalThreshold().fit(scores, Y)
    return mean_f1(image_f1(Y, decoder.predict(scores)))


def stop_early(best: BestEpoch, score: Callable[[], NDArray[np.float32]]) -> Any:
    """A Keras callback that scores the model after each epoch, ends training, and restores the best weights.

    Parameters
    ----------
    best : BestEpoch
    score : callable
        Scores the held-out images with the model as it is, shape (n_held_out, n_concepts), in [0, 1].

    Returns
    -------
    keras.callbacks.Callback
    """
    keras = import_keras()

    def end_epoch(epoch: int, logs: Any) -> None:
        callback.model.stop_training = best.note(score(), callback.model.get_weights)

    def end(logs: Any) -> None:
        if best.weights is not None:
            callback.model.set_weights(best.weights)

    callback = keras.callbacks.LambdaCallback(on_epoch_end=end_epoch, on_train_end=end)
    return callback
