"""Sigmoid outputs on frozen embeddings, trained with Keras."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.special import expit

from heads.data.arrays import SavedArray, check_arrays, number_arrays
from heads.data.blocks import split_rows
from heads.data.standardization import standardisation, standardise
from heads.data.types import Arrays
from heads.data.validation import check_number, positive_rate
from heads.estimators.base import Head
from heads.estimators.linearization import Linearization
from heads.networks.backend import import_keras, seeded, start_as_prior
from heads.networks.early_stopping import BestEpoch, Weights, stop_early
from heads.networks.layers import head_model, standardised
from heads.networks.losses import make_loss

STEPS_AT_ONCE = 32
"""Training steps that Keras runs before it returns to Python."""

MIN_COMPILED = 2**31
"""Weights times steps from which compiling with XLA takes less time than it saves: it fuses Adam's passes over the
weights, which are half of the work. Not with dropout, whose random numbers XLA draws slowly on CPUs."""

BLOCK_IMAGES = 8192
"""Images that are scored at a time: 64 MiB of scores for 2,000 concepts."""


# A dataclass, so that its subclass `TailHead` inherits the parameters: scikit-learn reads them from the signature of
# ``__init__``, which would otherwise have to be written out twice. ``eq`` and ``repr`` stay those of scikit-learn.
@dataclass(eq=False, repr=False)
class DenseHead(Head):
    """Optional hidden layers and one sigmoid output per concept, trained with Adam.

    The defaults are those of SSNMLRGKSR at ImageCLEFmedical Caption 2024: no hidden layer, binary cross-entropy,
    batches of 32, and a learning rate of 0.001 that is multiplied by 0.9 every 100 steps. Embeddings are standardised.
    Training stops early by the official F1 of a held-out part of the training images and ends with the weights of the
    best epoch.

    Parameters
    ----------
    hidden : int or sequence of int
        Units of each hidden layer, which is followed by ReLU; 0 for none.
    dropout : float
        Share of units that are dropped after each hidden layer while training; of the embeddings if there is none.
    loss : {"cross-entropy", "focal", "asymmetric"}
        As in `heads.networks.losses.make_loss`. The last two shift the scores: tune the threshold.
    gamma : float
        Focal loss: how strongly easy examples are down-weighted.
    gamma_pos, gamma_neg : float
        Asymmetric loss: the same for positive and for negative examples.
    clip : float
        Asymmetric loss: a negative example with a probability up to this has no loss.
    label_smoothing : float
        How far targets move towards 0.5.
    epochs : int
        Most passes over the training images.
    batch_size : int
    learning_rate : float
        Of Adam, at the start.
    decay : float
        Factor of the learning rate every `decay_steps` steps; 1 for a constant rate.
    decay_steps : int
    patience : int
        Training stops after this many epochs without a better held-out F1.
    held_out : float
        Share of the training images that is held out; with 0, training uses all images for all epochs.
    random_state : int
        Seed of the weights, the held-out part, dropout and the order of batches.

    Attributes
    ----------
    mean_, scale_ : ndarray of float32, shape (n_features,)
        Mean and standard deviation of each feature.
    weights_ : list of ndarray
        Kernel and bias of each layer.
    held_out_f1_ : ndarray of float64, shape (n_epochs,)
        Official F1 of the held-out part after each epoch, at the global threshold that is best for it; empty if
        nothing was held out.
    n_epochs_ : int
        Passes over the training images.

    Examples
    --------
    The head of AUEB NLP Group in 2024, with a constant rate, and that of DS@BioMed:

    >>> aueb = DenseHead(learning_rate=1e-4, decay=1.0)
    >>> biomed = DenseHead(hidden=[1024, 512], dropout=0.4)
    """

    progress_unit = "epochs"

    _inputs: ClassVar = "features"
    """What the dense layers get, as a side of a saved array."""

    hidden: int | Sequence[int] = 0
    dropout: float = 0.0
    loss: str = "cross-entropy"
    gamma: float = 2.0
    gamma_pos: float = 0.0
    gamma_neg: float = 4.0
    clip: float = 0.05
    label_smoothing: float = 0.0
    epochs: int = 50
    batch_size: int = 32
    learning_rate: float = 0.001
    decay: float = 0.9
    decay_steps: int = 100
    patience: int = 5
    held_out: float = 0.1
    random_state: int = 0

    def check_params(self) -> None:
        """Check the parameters before anything is computed."""
        if isinstance(self.hidden, (list, tuple)):
            for units in self.hidden:
                check_number(units, "hidden", int, 1)
        else:
            check_number(self.hidden, "hidden", int, 0)
        for name in ("epochs", "batch_size", "decay_steps", "patience"):
            check_number(getattr(self, name), name, int, 1)
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
        """The Keras model, from standardised embeddings to logits."""
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
        pays = self.dropout == 0 and model.count_params() * n_steps >= MIN_COMPILED
        model.compile(self._optimizer(), self._loss(), steps_per_execution=STEPS_AT_ONCE, jit_compile=pays)

    def _optimizer(self) -> Any:
        keras = import_keras()
        rate = keras.optimizers.schedules.ExponentialDecay(
            self.learning_rate, self.decay_steps, self.decay, staircase=True
        )
        return keras.optimizers.Adam(rate)

    def _train(self, model: Any, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix, held: Any, rest: Any) -> None:
        """Train the compiled model on the rows in `rest`, with early stopping by those in `held`."""
        report = import_keras().callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: self._report_progress(epoch + 1, self.epochs)
        )
        best, callbacks = BestEpoch(Y[held], self.patience), [report]
        if len(held):
            callbacks.append(stop_early(best, lambda: self._score(X[held], model.get_weights())))
        # Keras gathers batches from these arrays in native code. Labels as bytes need a quarter of float32's memory.
        rows, labels = standardise(X, self.mean_, self.scale_, rest), Y[rest].astype(np.uint8).toarray()
        history = model.fit(
            rows, labels, batch_size=self.batch_size, epochs=self.epochs, callbacks=callbacks, verbose=0
        )
        self.n_epochs_, self.held_out_f1_ = len(history.epoch), np.array(best.f1)
        self._report_progress(self.n_epochs_, self.n_epochs_)

    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._score(X, self.weights_)

    def _score(self, X: NDArray[np.float32], weights: Weights) -> NDArray[np.float32]:
        """The scores of the Keras model, computed with NumPy: a run predicts without loading TensorFlow."""
        scores = np.empty((len(X), self.n_concepts_), np.float32)
        *hidden, (kernel, bias) = zip(weights[::2], weights[1::2], strict=True)
        for block in split_rows(len(X), BLOCK_IMAGES):
            values = standardise(X[block], self.mean_, self.scale_)
            for each in hidden:
                values = values @ each[0] + each[1]
                np.maximum(values, 0, out=values)
            np.matmul(values, kernel, out=scores[block])
            scores[block] += bias
            expit(scores[block], out=scores[block])
        return scores

    def _linearize(self, X: NDArray[np.float32], columns: NDArray[np.int64]) -> Linearization:
        """Logits and their gradients: the product of the layers' weights, without the hidden units that are 0."""
        *hidden, (kernel, bias) = zip(self.weights_[::2], self.weights_[1::2], strict=True)
        values, active = standardise(X, self.mean_, self.scale_).astype(np.float64), []
        for weights, shift in hidden:
            values = values @ weights + shift
            active.append(values > 0)
            values = np.maximum(values, 0)
        logits = values @ kernel[:, columns] + bias[columns]
        gradients: NDArray[np.float64] = np.repeat(kernel[:, columns].T[None].astype(np.float64), len(X), axis=0)
        for (weights, _), is_active in zip(reversed(hidden), reversed(active), strict=True):
            gradients = (gradients * is_active[:, None]) @ weights.T
        return Linearization(logits, gradients / self.scale_, "logit", not hidden)

    def to_keras(self) -> Any:
        """This head as a Keras model."""
        keras, network = import_keras(), self._build()
        network.set_weights(self.weights_)
        features = keras.Input(self.mean_.shape)
        logits = network(standardised(features, self.mean_, self.scale_))
        return head_model(features, keras.ops.sigmoid(logits))

    def get_state(self) -> Arrays:
        """What was learnt, as named arrays."""
        learnt = {"mean": self.mean_, "scale": self.scale_, "held_out_f1": self.held_out_f1_}
        return learnt | number_arrays("weights", self.weights_)

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        widths: list[str | int] = [self._inputs, *self._hidden, "concepts"]
        shapes = [shape for ends in pairwise(widths) for shape in (ends, ends[1:])]
        expected = {"mean": SavedArray((self._inputs,)), "scale": SavedArray((self._inputs,)),
                    "held_out_f1": SavedArray(("epochs",), np.float64)}  # fmt: skip
        expected |= {f"weights_{number}": SavedArray(shape) for number, shape in enumerate(shapes)}
        sides = {"features": self.n_features_in_, "concepts": self.n_concepts_}
        self.mean_, self.scale_, self.held_out_f1_, *self.weights_ = check_arrays(state, expected, **sides)
