"""The paper's head: sigmoid outputs on frozen embeddings, trained with Keras.

Keras is imported inside the functions: asking for this head's parameters must not cost seconds.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.command import muted_imports
from heads.base import Head, State, check_number, positive_rate
from heads.layers import head_model, standardised

RAREST = 1e-4
"""Frequency at which the outputs of a concept that is never or always shown start."""

STEPS_AT_ONCE = 32
"""Training steps that Keras runs before it comes back to Python."""

PREDICT_IMAGES = 8192
"""Images that are scored at a time: 64 MiB of scores at 2,000 concepts."""


class DenseHead(Head):
    """An optional hidden layer and one sigmoid output a concept, with binary cross-entropy and Adam.

    The defaults for batch size and learning rate are those of SSNMLRGKSR at ImageCLEFmedical Caption 2024: batch
    32, 0.001, times 0.9 every 100 steps. Embeddings are standardised first; training stops early on the loss of a
    held-out part of the training images, whose best weights are kept.

    Parameters
    ----------
    hidden : int
        Units of a ReLU layer before the outputs; 0 for none, as in the paper.
    epochs : int
        Most passes over the training images.
    batch_size : int
    learning_rate : float
        Adam's, at the start.
    decay : float
        What the learning rate is multiplied with every `decay_steps` steps; 1 for a constant rate.
    decay_steps : int
    patience : int
        Epochs without a better held-out loss after which training stops.
    held_out : float
        Share of the training images that is held out; 0 trains on all, for all epochs.
    random_state : int
        Seeds the weights, the held-out part and the order of batches. Keras and NumPy's global generator are
        seeded with it.

    Attributes
    ----------
    mean_, scale_ : ndarray of float32, shape (n_features,)
        The standardisation.
    weights_ : list of ndarray
        The layers' kernels and biases, in order.
    n_epochs_ : int
        Passes that were made.
    """

    def __init__(
        self,
        hidden: int = 0,
        epochs: int = 50,
        batch_size: int = 32,
        learning_rate: float = 0.001,
        decay: float = 0.9,
        decay_steps: int = 100,
        patience: int = 5,
        held_out: float = 0.1,
        random_state: int = 0,
    ) -> None:
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.decay = decay
        self.decay_steps = decay_steps
        self.patience = patience
        self.held_out = held_out
        self.random_state = random_state

    def check_params(self) -> None:
        """Check parameters before anything is computed."""
        for name, least in (("hidden", 0), ("epochs", 1), ("batch_size", 1), ("decay_steps", 1), ("patience", 1)):
            check_number(getattr(self, name), name, int, least)
        check_number(self.random_state, "random_state", int, 0, 2**32 - 1)
        check_number(self.learning_rate, "learning_rate", float, 0, closed="neither")
        check_number(self.decay, "decay", float, 0, 1, closed="right")
        check_number(self.held_out, "held_out", float, 0, 1, closed="left")

    def _fit(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> None:
        keras = _import_keras()
        keras.utils.set_random_seed(self.random_state)
        # In float64: the squares of a random network's features can be too small for float32.
        self.mean_ = X.mean(axis=0, dtype=np.float64).astype(np.float32)
        deviation = X.std(axis=0, dtype=np.float64)
        self.scale_ = np.where(deviation > 0, deviation, 1).astype(np.float32)
        self._model = self._build()
        self._start_as_prior(positive_rate(Y))
        rate = keras.optimizers.schedules.ExponentialDecay(
            self.learning_rate, self.decay_steps, self.decay, staircase=True
        )
        self._model.compile(
            keras.optimizers.Adam(rate), "binary_crossentropy", steps_per_execution=STEPS_AT_ONCE, jit_compile=False
        )
        self.n_epochs_ = self._train(keras, (X - self.mean_) / self.scale_, Y.toarray())
        self.weights_ = self._model.get_weights()

    def _start_as_prior(self, rate: NDArray[np.float32]) -> None:
        """Let the untrained outputs give the training frequencies.

        From 0.5 each, a short schedule ends before rare concepts have come down to theirs; see Lin et al., Focal
        Loss for Dense Object Detection, 2017, section 4.1.
        """
        outputs = self._model.layers[-1]
        kernel, bias = outputs.get_weights()
        likely = np.clip(rate, RAREST, 1 - RAREST)
        outputs.set_weights([np.zeros_like(kernel), np.log(likely / (1 - likely)).astype(bias.dtype)])

    def _train(self, keras: Any, X: NDArray[np.float32], Y: NDArray[np.float32]) -> int:
        """Train the built model; returns the number of epochs."""
        order = np.random.default_rng(self.random_state).permutation(len(X))
        n_held_out = int(self.held_out * len(X))
        held, rest = order[:n_held_out], order[n_held_out:]
        watch = {}
        if n_held_out:
            stop = keras.callbacks.EarlyStopping("val_loss", patience=self.patience, restore_best_weights=True)
            watch = {"validation_data": (X[held], Y[held]), "callbacks": [stop]}
        history = self._model.fit(
            X[rest], Y[rest], batch_size=self.batch_size, epochs=self.epochs, shuffle=True, verbose=0, **watch
        )
        return len(history.epoch)

    def _build(self) -> Any:
        keras = _import_keras()
        layers = [keras.Input((self.n_features_in_,))]
        if self.hidden:
            layers.append(keras.layers.Dense(self.hidden, activation="relu"))
        layers.append(keras.layers.Dense(self.n_concepts_, activation="sigmoid"))
        return keras.Sequential(layers)

    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = np.empty((len(X), self.n_concepts_), np.float32)
        for start in range(0, len(X), PREDICT_IMAGES):
            part = slice(start, start + PREDICT_IMAGES)
            scores[part] = self._model((X[part] - self.mean_) / self.scale_, training=False)
        return scores

    def get_state(self) -> State:
        """What was learnt, as named arrays."""
        weights = {f"weights_{number}": array for number, array in enumerate(self.weights_)}
        return {"mean": self.mean_, "scale": self.scale_, **weights}

    def to_keras(self) -> Any:
        """This head as a Keras model."""
        keras = _import_keras()
        features = keras.Input((self.n_features_in_,))
        return head_model(features, self._model(standardised(features, self.mean_, self.scale_)))

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.mean_, self.scale_ = state["mean"], state["scale"]
        self.weights_ = [state[f"weights_{number}"] for number in range(len(state) - 2)]
        self._model = self._build()
        self._model.set_weights(self.weights_)


def _import_keras() -> Any:
    with muted_imports():
        import keras
    return keras
