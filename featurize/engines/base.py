"""What executes the front: OpenVINO on CPUs, TensorFlow on GPUs (or any CPU).

An engine is a callable from pixels to embeddings with a fixed batch shape: the last batch is padded, so an
embedding depends on its image alone and a resumed run repeats an undisturbed one.
"""

import fcntl
import importlib.util
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray

from cache.support.command import muted_imports
from cache.support.devices import find_fastest_precision, has_nvidia_device
from cache.support.errors import UserError

ENGINES = ("auto", "openvino", "tensorflow")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
BATCH, SMALL_BATCH, GPU_BATCH = 16, 2, 128
"""Images a step. Of two, one OpenVINO thread keeps the maps in its cache, which is the fastest in float32; arithmetic
as quick as AMX's wants more to do at a time, and a GPU most."""

FRONT, CONVERTED = "front.keras", "front.xml"
"""The front's files beside a store, for TensorFlow and for OpenVINO (whose weights stand in ``front.bin``)."""


@dataclass(frozen=True)
class Choice:
    """A settled engine and precision, the reason in words, and on how many GPUs."""

    engine: str
    precision: str
    why: str
    n_gpus: int = 0

    def processes(self, workers: int | None = None) -> int:
        """One single-threaded process a core, or as many as are asked for; with TensorFlow at most one a GPU, or one
        alone on a CPU, every core of which it uses by itself."""
        if self.engine == "openvino":
            return workers or cpu_count()
        most = max(1, self.n_gpus)
        return min(workers or most, most)


def choose(engine: str, precision: str) -> Choice:
    """Settle ``auto``: TensorFlow on GPUs, else OpenVINO; bfloat16 (or float16) where the machine computes in it.

    Raises
    ------
    UserError
        The name is unknown, the engine is not installed or the machine has no such arithmetic.
    """
    if engine not in ENGINES:
        raise UserError(f"engine '{engine}': expected one of {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise UserError(f"precision '{precision}': expected one of {', '.join(PRECISIONS)}")
    gpus = find_gpus() if engine != "openvino" else []
    has_openvino = importlib.util.find_spec("openvino") is not None
    reasons = []
    if engine == "auto":
        engine = "tensorflow" if gpus or not has_openvino else "openvino"
        reasons.append(f"on {len(gpus)} x {gpus[0]}" if gpus else "no GPU" if has_openvino else "openvino is missing")
    if engine == "openvino" and not has_openvino:
        raise UserError("engine 'openvino' is not installed: pip install openvino, or choose tensorflow")
    native = _native_precision(engine, bool(gpus))
    if precision == "auto":
        precision = native
        reasons.append(f"{native} is its fastest arithmetic here")
    if precision not in ("float32", native):
        raise UserError(
            f"precision '{precision}': this machine has {' and '.join(dict.fromkeys((native, 'float32')))} with the "
            f"engine {engine}; choose one, or auto"
        )
    return Choice(engine, precision, "; ".join(reasons) or "as asked, or as before", len(gpus))


def _native_precision(engine: str, has_gpu: bool) -> str:
    if engine == "tensorflow":
        return _gpu_precision() if has_gpu else "float32"
    return "bfloat16" if "BF16" in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "float32"


class Engine(Protocol):
    """From uint8 images ``(n, size, size, 3)`` to float32 embeddings ``(n, n_features)``, or to maps."""

    @property
    def batch(self) -> int:
        """How many images it takes at a time; fewer are padded."""

    @property
    def threads(self) -> int:
        """How many threads decode for it."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed images."""


@dataclass(frozen=True)
class OpenVINOEngine:
    """One single-threaded OpenVINO network a process, compiled when it is first called.

    It travels to worker processes as a path, so workers never load TensorFlow.
    """

    folder: Path
    precision: str
    threads: int = 1

    @property
    def batch(self) -> int:
        """Images a step; the converted network takes no other number."""
        return openvino_batch(self.precision)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        request = _request(self.folder / CONVERTED, self.precision)
        return _in_batches(images, self.batch, lambda batch: np.array(request.infer({0: batch})[0], dtype=np.float32))


@dataclass(frozen=True)
class TensorFlowEngine:
    """One compiled function a process, on a GPU of its own or on every core."""

    folder: Path
    batch: int = BATCH
    threads: int = 1

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        function = _load(self.folder, self.batch)
        return _in_batches(images, self.batch, lambda batch: function(batch).numpy())


def engine_on(choice: Choice, folder: Path) -> Engine:
    """The chosen engine on the network in a folder."""
    if choice.engine == "openvino":
        return OpenVINOEngine(folder, choice.precision)
    return TensorFlowEngine(folder, GPU_BATCH if choice.n_gpus else BATCH, max(1, cpu_count() // choice.processes()))


def openvino_batch(precision: str) -> int:
    """Images a step of OpenVINO in a precision."""
    return SMALL_BATCH if precision == "float32" else BATCH


def convert(model: Any, folder: Path, batch_size: int) -> None:
    """Convert a Keras front to OpenVINO's file pair in a folder, for a number of images a step."""
    import tensorflow as tf

    ov = _openvino()
    kinds = (model.trainable_variables, model.non_trainable_variables)
    values = [[variable.numpy() for variable in variables] for variables in kinds]

    def infer(images: Any) -> Any:
        # Constants, because OpenVINO looks for each variable among all of them, again and again: 5 s instead of 2.
        constants = [[tf.constant(value) for value in each] for each in values]
        return model.stateless_call(*constants, images, training=False)[0]

    # compress_to_fp16 would round the weights to 11 bits even for float32 inference.
    converted = ov.convert_model(_compiled(infer, model, batch_size))
    ov.save_model(converted, folder / CONVERTED, compress_to_fp16=False)


def find_gpus() -> list[str]:
    """Names of the GPUs that TensorFlow can use, such as ``NVIDIA H100``.

    Where the system has no device of that kind TensorFlow is not asked: it takes seconds to load.
    """
    if not has_nvidia_device():
        return []
    with muted_imports():
        import tensorflow as tf
    gpus = tf.config.list_physical_devices("GPU")
    return [str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)) for gpu in gpus]


def _gpu_precision() -> str:
    """The fastest arithmetic that every GPU has."""
    import tensorflow as tf

    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return find_fastest_precision(each.get("compute_capability", (0, 0)) for each in details)


def _compiled(infer: Callable[[Any], Any], model: Any, batch_size: int, jit_compile: bool = False) -> Any:
    """One graph of a function from images to embeddings, for a fixed number of images."""
    import tensorflow as tf

    signature = [tf.TensorSpec((batch_size, *model.input_shape[1:]), tf.uint8)]
    return tf.function(infer, input_signature=signature, autograph=False, jit_compile=jit_compile)


def _in_batches(
    images: NDArray[np.uint8], batch_size: int, infer: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    outputs = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        missing = batch_size - len(batch)
        padded = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.uint8)]) if missing else batch
        outputs.append(infer(padded)[: len(batch)])
    return np.concatenate(outputs)


@lru_cache(maxsize=1)
def _load(folder: Path, batch_size: int) -> Callable[[NDArray[np.uint8]], Any]:
    """The compiled front in TensorFlow; where there are several GPUs, on one that no other process of ours has."""
    with muted_imports():
        import tensorflow as tf
    import keras

    gpus = tf.config.list_physical_devices("GPU")
    if len(gpus) > 1:
        tf.config.set_visible_devices([gpus[_claim_gpu(folder, len(gpus))]], "GPU")
    model = keras.saving.load_model(folder / FRONT, compile=False)
    # XLA takes half a minute to compile for a CPU, and gains little there.
    infer = partial(model, training=False)
    function = _compiled(infer, model, batch_size, jit_compile=bool(gpus))
    return lambda batch: function(tf.constant(batch))


def _claim_gpu(folder: Path, n_gpus: int) -> int:
    """Take a GPU that no other process has taken; the claim ends with this process."""
    for number in range(n_gpus):
        claim = os.open(folder / f".gpu{number}.lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(claim)
        else:
            return number  # the descriptor stays open on purpose
    return os.getpid() % n_gpus


class _Mine(threading.local):
    """What a thread has compiled last: one request serves one thread at a time, and Dask runs several in a process."""

    key: tuple[Path, str] | None = None
    request: Any = None


_mine = _Mine()


def _request(path: Path, precision: str) -> Any:
    """This thread's network."""
    if _mine.key != (path, precision):
        _mine.key, _mine.request = (path, precision), _compile(path, precision)
    return _mine.request


def _compile(path: Path, precision: str) -> Any:
    options = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        # Pinned, two processes land on one core and run at half speed.
        "ENABLE_CPU_PINNING": False,
    }
    return _openvino().Core().compile_model(path, "CPU", options).create_infer_request()


def _openvino() -> Any:
    # OpenVINO reports its use over the network through this package; with no such package it does not.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
