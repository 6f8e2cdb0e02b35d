"""The paper's head: sigmoid outputs on frozen embeddings, trained with Keras.

Keras is imported inside the functions: asking for this head's parameters must not cost seconds.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.special import expit

from heads.estimators.base import Head, State, check_number, positive_rate
from heads.estimators.standardization import standardisation, standardise
from heads.networks.backend import import_keras, seeded, start_as_prior
from heads.networks.early_stopping import BestEpoch, Weights, stop_early
from heads.networks.layers import head_model, standardised
from heads.networks.losses import make_loss

STEPS_AT_ONCE = 32
"""Training steps that Keras runs before it comes back to Python."""

COMPILED_FROM = 2**31
"""Weights times steps from which XLA saves more than the seconds that it takes to compile: it fuses Adam's passes
over the weights, which are half of the work. Not with dropout, whose random numbers it draws slowly on CPUs."""

PREDICT_IMAGES = 8192
"""Images that are scored at a time: 64 MiB of scores at 2,000 concepts."""


class DenseHead(Head):
    """Optional hidden layers and one sigmoid output a concept, trained with Adam.

    The defaults are those of SSNMLRGKSR at ImageCLEFmedical Caption 2024: no hidden layer, binary cross-entropy,
    batch 32, learning rate 0.001, times 0.9 every 100 steps. Embeddings are standardised first; training stops early
    on the official F1 of a held-out part of the training images, and the best epoch's weights are kept.

    Parameters
    ----------
    hidden : int or sequence of int
        Units of each ReLU layer before the outputs; 0 for none.
    dropout : float
        Share of the units that is left out behind each hidden layer while training; of the embeddings if there is
        none.
    loss : {"cross-entropy", "focal", "asymmetric"}
        As in `heads.networks.losses.make_loss`. The last two move the scores: no threshold is right for all three,
        tune it.
    gamma : float
        The focal loss' focus.
    gamma_pos, gamma_neg, clip : float
        The asymmetric loss' focus on concepts that are shown and that are not, and its margin.
    label_smoothing : float
        How far targets move towards 0.5.
    epochs : int
        Most passes over the training images.
    batch_size : int
    learning_rate : float
        Adam's, at the start.
    decay : float
        What the learning rate is multiplied with every `decay_steps` steps; 1 for a constant rate.
    decay_steps : int
    patience : int
        Epochs without a better held-out F1 after which training stops.
    held_out : float
        Share of the training images that is held out; 0 trains on all, for all epochs.
    random_state : int
        Seeds the weights, the held-out part, dropout and the order of batches.

    Attributes
    ----------
    mean_, scale_ : ndarray of float32, shape (n_features,)
        The standardisation.
    weights_ : list of ndarray
        The layers' kernels and biases, in order.
    held_out_f1_ : ndarray of float64, shape (n_epochs,)
        Official F1 of the held-out part after each epoch, at the global threshold that is best for it; empty if
        nothing was held out.
    n_epochs_ : int
        Passes that were made.

    Examples
    --------
    AUEB NLP Group's head of 2024, at a constant rate, and DS@BioMed's:

    >>> aueb = DenseHead(learning_rate=1e-4, decay=1.0)
    >>> biomed = DenseHead(hidden=[1024, 512], dropout=0.4)
    """

    counts = "epochs"

    def __init__(
        self,
        hidden: int | Sequence[int] = 0,
        dropout: float = 0.0,
        loss: str = "cross-entropy",
        gamma: float = 2.0,
        gamma_pos: float = 0.0,
        gamma_neg: float = 4.0,
        clip: float = 0.05,
        label_smoothing: float = 0.0,
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
        self.dropout = dropout
        self.loss = loss
        self.gamma = gamma
        self.gamma_pos = gamma_pos
        self.gamma_neg = gamma_neg
        self.clip = clip
        self.label_smoothing = label_smoothing
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
        if isinstance(self.hidden, (list, tuple)):
            for units in self.hidden:
                check_number(units, "hidden", int, 1)
        else:
            check_number(self.hidden, "hidden", int, 0)
        for name, least in (("epochs", 1), ("batch_size", 1), ("decay_steps", 1), ("patience", 1)):
            check_number(getattr(self, name), name, int, least)
        check_number(self.random_state, "random_state", int, 0, 2**32 - 1)
        check_number(self.learning_rate, "learning_rate", float, 0, closed="neither")
        check_number(self.decay, "decay", float, 0, 1, closed="right")
        check_number(self.held_out, "held_out", float, 0, 1, closed="left")
        check_number(self.dropout, "dropout", float, 0, 1, closed="left")
        self._loss()

    def _loss(self) -> Any:
        names = ("gamma", "gamma_pos", "gamma_neg", "clip", "label_smoothing")
        return make_loss(self.loss, **{name: getattr(self, name) for name in names})

    def _fit(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> None:
        self.mean_, self.scale_ = standardisation(X)
        order = np.random.default_rng(self.random_state).permutation(len(X))
        n_held_out = int(self.held_out * len(X))
        with seeded(self.random_state):
            model = self._build()
            start_as_prior(model.layers[-1], positive_rate(Y))
            self._compile(model, n_steps=self.epochs * -(-(len(X) - n_held_out) // self.batch_size))
            self._train(model, X, Y, order[:n_held_out], order[n_held_out:])
        self.weights_ = model.get_weights()

    def _build(self) -> Any:
        """The network, from standardised embeddings to logits."""
        keras = import_keras()
        layers, hidden = [keras.Input(self.mean_.shape)], self._hidden
        for units in hidden:
            layers += [keras.layers.Dense(units, activation="relu"), keras.layers.Dropout(self.dropout)]
        if not hidden:
            layers.append(keras.layers.Dropout(self.dropout))
        return keras.Sequential([*layers, keras.layers.Dense(self.n_concepts_)])

    @property
    def _hidden(self) -> list[int]:
        if isinstance(self.hidden, (list, tuple)):
            return list(self.hidden)
        return [self.hidden] if self.hidden else []  # type: ignore[list-item]

    def _compile(self, model: Any, n_steps: int) -> None:
        pays = self.dropout == 0 and model.count_params() * n_steps >= COMPILED_FROM
        model.compile(self._optimizer(), self._loss(), steps_per_execution=STEPS_AT_ONCE, jit_compile=pays)

    def _optimizer(self) -> Any:
        keras = import_keras()
        rate = keras.optimizers.schedules.ExponentialDecay(
            self.learning_rate, self.decay_steps, self.decay, staircase=True
        )
        return keras.optimizers.Adam(rate)

    def _train(self, model: Any, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix, held: Any, rest: Any) -> None:
        """Train the built model on some rows, and stop by the others."""
        tell = import_keras().callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: self._tell_progress(epoch + 1, self.epochs)
        )
        best, callbacks = BestEpoch(Y[held], self.patience), [tell]
        if len(held):
            callbacks.append(stop_early(best, lambda: self._score(X[held], model.get_weights())))
        # Keras gathers batches from these in native code. Labels in bytes take a fraction of what embeddings take.
        rows, labels = standardise(X, self.mean_, self.scale_, rest), Y[rest].astype(np.uint8).toarray()
        history = model.fit(
            rows, labels, batch_size=self.batch_size, epochs=self.epochs, callbacks=callbacks, verbose=0
        )
        self.n_epochs_, self.held_out_f1_ = len(history.epoch), np.array(best.f1)
        self._tell_progress(self.n_epochs_, self.n_epochs_)

    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._score(X, self.weights_)

    def _score(self, X: NDArray[np.float32], weights: Weights) -> NDArray[np.float32]:
        """What Keras would give, without it: a run predicts before TensorFlow would have been imported."""
        scores = np.empty((len(X), self.n_concepts_), np.float32)
        *hidden, (kernel, bias) = zip(weights[::2], weights[1::2], strict=True)
        for start in range(0, len(X), PREDICT_IMAGES):
            part = slice(start, start + PREDICT_IMAGES)
            values = standardise(X[part], self.mean_, self.scale_)
            for each in hidden:
                values = values @ each[0] + each[1]
                np.maximum(values, 0, out=values)
            np.matmul(values, kernel, out=scores[part])
            scores[part] += bias
            expit(scores[part], out=scores[part])
        return scores

    def get_state(self) -> State:
        """What was learnt, as named arrays."""
        weights = {f"weights_{number}": array for number, array in enumerate(self.weights_)}
        return {"mean": self.mean_, "scale": self.scale_, "held_out_f1": self.held_out_f1_, **weights}

    def to_keras(self) -> Any:
        """This head as a Keras model."""
        keras, network = import_keras(), self._build()
        network.set_weights(self.weights_)
        features = keras.Input(self.mean_.shape)
        logits = network(standardised(features, self.mean_, self.scale_))
        return head_model(features, keras.ops.sigmoid(logits))

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.mean_, self.scale_, self.held_out_f1_ = state["mean"], state["scale"], state["held_out_f1"]
        widths = [len(self.mean_), *self._hidden, self.n_concepts_]
        shapes = [shape for ends in pairwise(widths) for shape in (ends, ends[1:])]
        self.weights_ = [state[f"weights_{number}"] for number in range(len(shapes))]
        if [weights.shape for weights in self.weights_] != shapes:
            raise ValueError(f"weights of other shapes than {shapes}")
