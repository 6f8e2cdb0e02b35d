"""The layers after a cut in the network, trained from the maps at the cut.

The layers before the cut are frozen, so their output never changes. It is in the store, and an epoch costs the tail
alone, without decoding an image.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from cache.support.devices import POLICIES
from cache.support.errors import ParameterError
from cache.support.json_file import DamagedFileError
from heads.data.arrays import SavedArray, check_arrays, list_arrays, number_arrays
from heads.data.maps import Maps
from heads.data.standardization import standardisation
from heads.data.types import Arrays
from heads.data.validation import check_number, positive_rate
from heads.estimators.base import Trial
from heads.estimators.dense import DenseHead
from heads.estimators.linearization import Linearization
from heads.networks.backend import choose_precision, import_keras, on_all_devices, seeded, start_as_prior
from heads.networks.checkpoint import Checkpoint
from heads.networks.early_stopping import BestEpoch
from heads.networks.layers import head_model
from heads.networks.serialization import to_text
from heads.networks.stored import load_model
from heads.networks.tail import PooledTail
from heads.networks.trainer import Trainer


@dataclass(eq=False, repr=False)
class TailHead(DenseHead):
    """The layers after the cut, average pooling and a dense head, trained together from stored maps.

    The defaults are those of SSNMLRGKSR's Model1 at ImageCLEFmedical Caption 2024: batches of 32, and a learning rate
    of 0.001 that is multiplied by 0.9 every 100 steps. Batch normalisation keeps the statistics of the pretrained
    network, as Keras' guide to fine-tuning advises; its scale and shift are trained. Layers that are frozen in the
    network beside the store (those between the cut and the requested layer) stay frozen.

    `set_network` must be called before `fit`.

    Parameters
    ----------
    hidden, dropout, loss, gamma, gamma_pos, gamma_neg, clip, label_smoothing
        As in `heads.estimators.dense.DenseHead`.
    epochs, batch_size, learning_rate, decay, decay_steps, patience, held_out, random_state
        As in `heads.estimators.dense.DenseHead`, for all layers together.
    train_from : str
        Name of the first layer to train; the first that is not frozen if empty.
    train_statistics : bool
        Whether batch normalisation uses the statistics of each batch and updates its own.
    warm_epochs : int
        Most epochs in which only the dense head is trained, on the pooled maps of the pretrained tail, before all
        layers are: gradients of an untrained head would distort the tail (Kumar et al., Fine-Tuning can Distort
        Pretrained Features, 2022). With 0, all layers are trained from the start, as in Model1.
    warm_learning_rate : float
        Constant learning rate of those epochs.
    precision : {"auto", "float32", "bfloat16", "float16"}
        Precision in which the layers of the tail compute; their weights are float32. ``auto`` is the fastest of the
        device.

    Attributes
    ----------
    mean_, scale_ : ndarray of float32, shape (n_features,)
        Mean and standard deviation of each feature of the pooled maps, before training.
    weights_ : list of ndarray
        Kernel and bias of each layer of the dense head.
    tail_ : str
        Layers of the tail, as JSON.
    tail_weights_ : list of ndarray
    held_out_f1_ : ndarray of float64, shape (n_epochs,)
        Official F1 of the held-out part after each epoch.
    n_epochs_ : int
    """

    takes_maps = True
    progress_unit = "images"

    _inputs: ClassVar = "pooled features"

    epochs: int = 10
    patience: int = 3
    train_from: str = ""
    train_statistics: bool = False
    warm_epochs: int = 0
    warm_learning_rate: float = 0.001
    precision: str = "auto"

    def check_params(self) -> None:
        """Check the parameters before anything is computed."""
        super().check_params()
        check_number(self.warm_epochs, "warm_epochs", int, 0)
        check_number(self.warm_learning_rate, "warm_learning_rate", float, 0, closed="neither")
        if not isinstance(self.train_statistics, bool):
            raise ParameterError(f"train_statistics is {self.train_statistics!r}, expected true or false")
        if not isinstance(self.train_from, str):
            raise ParameterError(f"train_from is {self.train_from!r}, expected the name of a layer")
        if self.precision not in ("auto", *POLICIES):
            raise ParameterError(f"precision is {self.precision!r}, expected auto, {', '.join(POLICIES)}")

    def set_network(self, path: str | Path) -> None:
        """Set the tail to start from: a Keras model, such as ``tail.keras`` beside a store."""
        self._start = Path(path)

    def with_params(self, trial: Trial) -> Self:
        """A new head, not fitted, with some parameters changed and the same network to start from."""
        head = super().with_params(trial)
        if hasattr(self, "_start"):
            head._start = self._start
        return head

    def _check_features(self, X: Any, reset: bool = True) -> Maps:
        maps = X if isinstance(X, Maps) else Maps.from_array(np.asarray(X))
        if len(maps.shape) != 4 or not len(maps):
            raise ParameterError(f"X has shape {maps.shape}, expected maps: (n_images, height, width, n_features)")
        n_features = math.prod(maps.shape[1:])
        if reset:
            self.n_features_in_ = n_features
        elif n_features != self.n_features_in_:
            raise ParameterError(f"X has {n_features:,} features, expected {self.n_features_in_:,} as in fit")
        return maps

    def _fit(self, X: Any, Y: scipy.sparse.csr_matrix) -> None:
        start = self._load_start(X)
        self.tail_, self.tail_weights_ = to_text(start), start.get_weights()
        order = np.random.default_rng(self.random_state).permutation(len(X))
        held, rest = np.split(order, [int(self.held_out * len(X))])
        rest = np.sort(rest)  # so that neighbours in the file are read together
        saved = Checkpoint(self._checkpoint).load()
        try:
            self._train_all(X, Y, held, rest, saved)
        except DamagedFileError:  # the checkpoint is that of another training
            if saved is None:
                raise
            self._train_all(X, Y, held, rest, None)

    def _train_all(self, X: Maps, Y: scipy.sparse.csr_matrix, held: Any, rest: Any, saved: Arrays | None) -> None:
        """Train tail and dense head on the rows in `rest`, from a checkpoint if there is one."""
        checkpoint = Checkpoint(self._checkpoint)
        with seeded(self.random_state), on_all_devices():
            self._tail = PooledTail(self.tail_, self.tail_weights_, choose_precision(self.precision))
            dense = self._start_dense(X, Y, saved)
            constants = {"mean": self.mean_, "scale": self.scale_}
            best = BestEpoch(Y[held], self.patience)
            settings = (self.batch_size, self.epochs, self.random_state)
            trainer = Trainer(self._join(dense), checkpoint, constants, *settings, best, self._report_progress)
            score = (lambda: self._score(self._tail.pool(X[held]), dense.get_weights())) if len(held) else None
            trainer.run(X[rest], Y[rest], score, saved)
        self.n_epochs_, self.held_out_f1_ = trainer.n_epochs, np.array(best.f1)
        self.weights_, self.tail_weights_ = dense.get_weights(), self._tail.network.get_weights()
        del self._tail  # `_scores` builds it in float32, as every process does that loads the head

    def check_data(self, X: Any, Y: Any) -> None:
        """Check that the network takes the maps, and has the layer to train from."""
        if X is not None:
            self._load_start(self._check_features(X))

    def _load_start(self, X: Maps) -> Any:
        """The network to start from, a Keras model, frozen up to the layer to train from."""
        if not hasattr(self, "_start"):
            raise ParameterError("the head has no network to start from; call set_network before fit")
        start = load_model(self._start)
        if X.shape[1:] != start.input_shape[1:]:
            raise ParameterError(f"X has maps of shape {X.shape[1:]}, the tail takes {start.input_shape[1:]}")
        self._freeze(start)
        return start

    def _start_dense(self, X: Maps, Y: scipy.sparse.csr_matrix, saved: Arrays | None) -> Any:
        """The dense head to start from, a Keras model; sets the standardisation."""
        if saved is not None:
            sides = {"pooled features": self._tail.model.output_shape[-1]}
            shape = SavedArray(("pooled features",))
            self.mean_, self.scale_ = check_arrays(saved, {"mean": shape, "scale": shape}, **sides)
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
        """Tail and dense head as one compiled model, from maps to logits."""
        keras = import_keras()
        mean, scale, train_statistics = self.mean_, self.scale_, self.train_statistics

        # A class, because a functional model passes on to its layers that it is trained, whatever they were called
        # with, and batch normalisation would update its statistics: keras/src/models/functional.py, operation_fn.
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
            # Without it small gradients would be 0: Micikevicius et al., Mixed Precision Training, 2018.
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        model.compile(optimizer, self._loss(), jit_compile=False)
        return model

    def _freeze(self, tail: Any) -> None:
        """Freeze the layers before the first one to train."""
        if not self.train_from:
            return
        names = [layer.name for layer in tail.layers]
        if self.train_from not in names:
            raise ParameterError(
                f"train_from: no layer '{self.train_from}' after the cut; there are {', '.join(names)}"
            )
        for place, layer in enumerate(tail.layers):
            layer.trainable = place >= names.index(self.train_from)

    def _scores(self, X: Any) -> NDArray[np.float32]:
        return super()._scores(self._open_tail().pool(X))

    def linearize(self, X: ArrayLike, columns: Sequence[int]) -> Linearization:
        """How the scores of some concepts change with the means of `final_maps`, shape (n_images, n_pooled)."""
        return self._linearize(np.asarray(X, np.float32), np.asarray(columns, np.int64))

    def final_maps(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """The maps after the tail, whose means the dense head scores."""
        return np.asarray(self._open_tail().network(maps, training=False), np.float32)

    def _open_tail(self) -> PooledTail:
        if not hasattr(self, "_tail"):
            self._tail = PooledTail(self.tail_, self.tail_weights_)
        return self._tail

    def __getstate__(self) -> dict[str, Any]:
        """Copies, also those in other processes, get the arrays and build the network again."""
        return {key: value for key, value in super().__getstate__().items() if key != "_tail"}

    def to_keras(self) -> Any:
        """This head as a Keras model, from maps."""
        tail = PooledTail(self.tail_, self.tail_weights_).model
        maps = import_keras().Input(tail.input_shape[1:])
        return head_model(maps, super().to_keras()(tail(maps, training=False)))

    def get_state(self) -> Arrays:
        """What was learnt, as named arrays."""
        text = np.frombuffer(self.tail_.encode(), np.uint8)
        return super().get_state() | {"tail": text} | number_arrays("tail_weights", self.tail_weights_)

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        super()._restore(state)
        (text,) = check_arrays(state, {"tail": SavedArray(("letters",), np.uint8)})
        self.tail_, self.tail_weights_ = text.tobytes().decode(), list_arrays("tail_weights", state)
