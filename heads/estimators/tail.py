"""The paper's Model1: what follows a cut in the network is trained on, from the maps that the cut left.

Whatever stands before the cut is frozen, so its output never changes: it is in the store, and an epoch costs the tail
alone, with no image decoded. Keras is imported inside the functions.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.support.devices import POLICIES
from heads.data.maps import Maps
from heads.estimators.base import State, Trial, check_number, positive_rate
from heads.estimators.dense import DenseHead
from heads.estimators.standardization import standardisation
from heads.networks.backend import import_keras, seeded, start_as_prior
from heads.networks.checkpoint import Checkpoint, number, numbered
from heads.networks.early_stopping import BestEpoch
from heads.networks.layers import head_model
from heads.networks.precision import choose_precision, on_all_devices
from heads.networks.serialization import to_text
from heads.networks.stored import load_model
from heads.networks.tail import PooledTail
from heads.networks.trainer import Training


class TailHead(DenseHead):
    """What follows the cut, average pooling and the dense head, trained together from stored maps.

    The defaults are those of SSNMLRGKSR's Model1 at ImageCLEFmedical Caption 2024: batch 32, learning rate 0.001,
    times 0.9 every 100 steps. Batch normalisation keeps the statistics that it came with, as Keras' guide to
    fine-tuning says; its scale and shift are trained. Layers that the network beside the store holds frozen, those
    between the cut and the layer that was asked for, stay so.

    Parameters
    ----------
    train_from : str
        Name of the first layer that is trained; the first that is not frozen if empty.
    train_statistics : bool
        Whether batch normalisation goes by the statistics of each batch and learns them.
    warm_epochs : int
        Most epochs in which the dense head alone is trained, on the pooled maps of the tail as it came, before all
        is: a fresh head would pull the tail about (Kumar et al., Fine-Tuning can Distort Pretrained Features, 2022).
        0 begins with all at once, as the paper does.
    warm_learning_rate : float
        The learning rate of those epochs, which stays as it is.
    precision : {"auto", "float32", "bfloat16", "float16"}
        Arithmetic of the tail's layers; its weights are float32. ``auto`` takes the fastest that the device has.
    hidden, dropout, loss, gamma, gamma_pos, gamma_neg, clip, label_smoothing
        As in `heads.estimators.dense.DenseHead`.
    epochs, batch_size, learning_rate, decay, decay_steps, patience, held_out, random_state
        As in `heads.estimators.dense.DenseHead`, for all layers together.

    Attributes
    ----------
    mean_, scale_ : ndarray of float32, shape (n_features,)
        Standardisation of the pooled maps, as they were before training.
    weights_ : list of ndarray
        Those of the dense head.
    tail_ : str
        The tail's layers, as JSON.
    tail_weights_ : list of ndarray
    held_out_f1_ : ndarray of float64, shape (n_epochs,)
        Official F1 of the held-out part after each epoch.
    n_epochs_ : int
    """

    takes_maps = True
    counts = "images"

    def __init__(
        self,
        train_from: str = "",
        train_statistics: bool = False,
        warm_epochs: int = 0,
        warm_learning_rate: float = 0.001,
        precision: str = "auto",
        hidden: int | Sequence[int] = 0,
        dropout: float = 0.0,
        loss: str = "cross-entropy",
        gamma: float = 2.0,
        gamma_pos: float = 0.0,
        gamma_neg: float = 4.0,
        clip: float = 0.05,
        label_smoothing: float = 0.0,
        epochs: int = 10,
        batch_size: int = 32,
        learning_rate: float = 0.001,
        decay: float = 0.9,
        decay_steps: int = 100,
        patience: int = 3,
        held_out: float = 0.1,
        random_state: int = 0,
    ) -> None:
        super().__init__(
            hidden, dropout, loss, gamma, gamma_pos, gamma_neg, clip, label_smoothing, epochs, batch_size,
            learning_rate, decay, decay_steps, patience, held_out, random_state,
        )  # fmt: skip
        self.train_from = train_from
        self.train_statistics = train_statistics
        self.warm_epochs = warm_epochs
        self.warm_learning_rate = warm_learning_rate
        self.precision = precision

    def check_params(self) -> None:
        """Check parameters before anything is computed."""
        super().check_params()
        check_number(self.warm_epochs, "warm_epochs", int, 0)
        check_number(self.warm_learning_rate, "warm_learning_rate", float, 0, closed="neither")
        if not isinstance(self.train_statistics, bool):
            raise TypeError(f"train_statistics is {self.train_statistics!r}, expected true or false")
        if not isinstance(self.train_from, str):
            raise TypeError(f"train_from is {self.train_from!r}, expected the name of a layer")
        if self.precision not in ("auto", *POLICIES):
            raise ValueError(f"precision is {self.precision!r}, expected auto, {', '.join(POLICIES)}")

    def take_network(self, path: Path) -> None:
        """Take what follows the cut, a Keras model, as what training begins with."""
        self._start = path

    def with_params(self, trial: Trial) -> Self:
        """A new head with some parameters set otherwise, that begins with the same network."""
        head = super().with_params(trial)
        if hasattr(self, "_start"):
            head._start = self._start
        return head

    def _check_features(self, X: Any, reset: bool = True) -> Maps:
        maps = X if isinstance(X, Maps) else Maps.from_array(np.asarray(X))
        if len(maps.shape) != 4 or not len(maps):
            raise ValueError(f"X has shape {maps.shape}, expected maps: (n_images, height, width, n_features)")
        n_features = math.prod(maps.shape[1:])
        if reset:
            self.n_features_in_ = n_features
        elif n_features != self.n_features_in_:
            raise ValueError(f"X has {n_features:,} features, expected {self.n_features_in_:,} as in fit")
        return maps

    def _fit(self, X: Any, Y: scipy.sparse.csr_matrix) -> None:
        if not hasattr(self, "_start"):
            raise ValueError("there is no network to begin with: take_network comes before fit")
        began = load_model(self._start)
        if X.shape[1:] != began.input_shape[1:]:
            raise ValueError(f"X has maps of shape {X.shape[1:]}, the tail takes {began.input_shape[1:]}")
        self._freeze(began)
        self.tail_, self.tail_weights_ = to_text(began), began.get_weights()
        order = np.random.default_rng(self.random_state).permutation(len(X))
        held, rest = np.split(order, [int(self.held_out * len(X))])
        rest = np.sort(rest)  # neighbours in the file are read together
        checkpoint = Checkpoint(self.checkpoint)
        kept = checkpoint.load()
        with seeded(self.random_state), on_all_devices():
            self._tail = PooledTail(self.tail_, self.tail_weights_, choose_precision(self.precision))
            dense = self._begin(X, Y, kept)
            constants = {"mean": self.mean_, "scale": self.scale_}
            best = BestEpoch(Y[held], self.patience)
            settings = (self.batch_size, self.epochs, self.random_state)
            training = Training(self._join(dense), checkpoint, constants, *settings, best, self._tell_progress)
            score = (lambda: self._score(self._tail.pool(X[held]), dense.get_weights())) if len(held) else None
            training.run(X[rest], Y[rest], score, kept)
        self.n_epochs_, self.held_out_f1_ = training.n_epochs, np.array(best.f1)
        self.weights_, self.tail_weights_ = dense.get_weights(), self._tail.network.get_weights()
        del self._tail  # scores are in float32, here as in any process that loads the head

    def _begin(self, X: Maps, Y: scipy.sparse.csr_matrix, kept: State | None) -> Any:
        """The dense head, a Keras model, that training of all layers begins with; notes the standardisation."""
        if kept is not None:
            self.mean_, self.scale_ = kept["mean"], kept["scale"]
            return self._build()
        vectors = self._tail.pool(X)
        if self.warm_epochs:
            shared = {name: value for name, value in self.get_params().items() if name in DenseHead().get_params()}
            alone = {"epochs": self.warm_epochs, "learning_rate": self.warm_learning_rate, "decay": 1.0}
            warm = DenseHead(**shared | alone).fit(vectors, Y)
            self.mean_, self.scale_ = warm.mean_, warm.scale_
            dense = self._build()
            dense.set_weights(warm.weights_)
        else:
            self.mean_, self.scale_ = standardisation(vectors)
            dense = self._build()
            start_as_prior(dense.layers[-1], positive_rate(Y))
        return dense

    def _join(self, dense: Any) -> Any:
        """Tail and dense head as one model, from maps to logits, ready to be trained."""
        keras = import_keras()
        mean, scale, train_statistics = self.mean_, self.scale_, self.train_statistics

        # A class, because a functional model passes on that it is trained whatever its layers were called with, and
        # batch normalisation would learn: keras/src/models/functional.py, operation_fn.
        class Joined(keras.Model):  # type: ignore[name-defined]
            def __init__(self, tail: Any, dense: Any) -> None:
                super().__init__()
                self.tail, self.dense = tail, dense

            def call(self, maps: Any, training: bool | None = None) -> Any:
                vectors = self.tail(maps, training=training if train_statistics else False)
                return self.dense((vectors - mean) / scale, training=training)

        model = Joined(self._tail.model, dense)
        model(keras.Input(self._tail.model.input_shape[1:]))
        optimizer = self._optimizer()
        if choose_precision(self.precision) == "float16":
            # Small slopes would vanish: Micikevicius et al., Mixed Precision Training, 2018.
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        model.compile(optimizer, self._loss(), jit_compile=False)
        return model

    def _freeze(self, tail: Any) -> None:
        """Freeze what stands before the first layer that is to be trained."""
        if not self.train_from:
            return
        names = [layer.name for layer in tail.layers]
        if self.train_from not in names:
            raise ValueError(f"train_from: no layer '{self.train_from}' after the cut; there are {', '.join(names)}")
        for place, layer in enumerate(tail.layers):
            layer.trainable = place >= names.index(self.train_from)

    def _scores(self, X: Any) -> NDArray[np.float32]:
        if not hasattr(self, "_tail"):
            self._tail = PooledTail(self.tail_, self.tail_weights_)
        return super()._scores(self._tail.pool(X))

    def __getstate__(self) -> dict[str, Any]:
        """Copies, and what goes to other processes, take the arrays and build the network again."""
        return {key: value for key, value in super().__getstate__().items() if key != "_tail"}

    def get_state(self) -> State:
        """What was learnt, as named arrays."""
        text = np.frombuffer(self.tail_.encode(), np.uint8)
        return super().get_state() | {"tail": text} | number("tail_weights", self.tail_weights_)

    def to_keras(self) -> Any:
        """This head as a Keras model, from maps."""
        tail = PooledTail(self.tail_, self.tail_weights_).model
        maps = import_keras().Input(tail.input_shape[1:])
        return head_model(maps, super().to_keras()(tail(maps, training=False)))

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        super()._restore(state)
        self.tail_, self.tail_weights_ = state["tail"].tobytes().decode(), numbered("tail_weights", state)
