"""What executes the front: OpenVINO on CPUs, TensorFlow on GPUs (or any CPU).

An engine is a callable from pixels to embeddings with a fixed batch shape: the last batch is padded, so an
embedding depends on its image alone and a resumed run repeats an undisturbed one.
"""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import UserError

ENGINES = ("auto", "openvino", "tensorflow")
PRECISIONS = ("auto", "float32", "bfloat16")
BATCH = 16
"""Images a step: the measured best for one OpenVINO thread, and small beside a worker's memory."""


@dataclass(frozen=True)
class Choice:
    """A settled engine and precision, and the reason in words."""

    engine: str
    precision: str
    why: str


def choose(engine: str, precision: str) -> Choice:
    """Settle ``auto``: OpenVINO unless there is a GPU, bfloat16 where this CPU computes in it.

    Raises
    ------
    UserError
        The name is unknown, the engine is not installed or the machine has no such arithmetic.
    """
    if engine not in ENGINES:
        raise UserError(f"engine '{engine}': expected one of {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise UserError(f"precision '{precision}': expected one of {', '.join(PRECISIONS)}")
    reasons = []
    if engine == "auto":
        engine, reason = _best_engine()
        reasons.append(reason)
    if engine == "openvino" and importlib.util.find_spec("openvino") is None:
        raise UserError("engine 'openvino' is not installed: pip install openvino, or choose tensorflow")
    native = engine == "openvino" and "BF16" in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "auto":
        precision = "bfloat16" if native else "float32"
        reasons.append("this CPU computes in bfloat16" if native else f"{engine} computes in float32 here")
    if precision == "bfloat16" and not native:
        raise UserError(f"precision 'bfloat16' needs the engine openvino on a CPU that has it; {engine} has float32")
    return Choice(engine, precision, "; ".join(reasons) or "as asked, or as before")


def prepare(choice: Choice, model: Any, folder: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Make a chosen engine ready to run a front.

    Parameters
    ----------
    choice : Choice
        From `choose`.
    model : keras.Model
        The front.
    folder : Path
        Where a converted model may be kept for workers to load.

    Returns
    -------
    callable
        From uint8 images ``(n, size, size, 3)`` to float32 embeddings ``(n, n_features)``.
    """
    if choice.engine == "openvino":
        return convert(model, folder / "front.xml", choice.precision)
    return TensorFlowEngine(model)


@dataclass(frozen=True)
class OpenVINOEngine:
    """One single-threaded OpenVINO network a process, compiled when it is first called.

    It travels to worker processes as a path, so workers never load TensorFlow.
    """

    path: str
    precision: str

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        request = _compile(self.path, self.precision)
        return _in_batches(images, lambda batch: np.array(request.infer({0: batch})[0], dtype=np.float32))


class TensorFlowEngine:
    """One compiled function in this process, which uses every core or the GPU by itself."""

    def __init__(self, model: Any) -> None:
        self._function = _concrete_function(model)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        import tensorflow as tf

        return _in_batches(images, lambda batch: self._function(tf.constant(batch)).numpy())


def convert(model: Any, path: Path, precision: str) -> OpenVINOEngine:
    """Convert a Keras front to an OpenVINO file pair (``.xml`` and ``.bin``) and return the engine on it."""
    ov = _openvino()
    path.parent.mkdir(parents=True, exist_ok=True)
    # compress_to_fp16 would round the weights to 11 bits even for float32 inference.
    ov.save_model(ov.convert_model(_concrete_function(model)), path, compress_to_fp16=False)
    return OpenVINOEngine(str(path), precision)


def _best_engine() -> tuple[str, str]:
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return "tensorflow", "there is a GPU"
    if importlib.util.find_spec("openvino") is None:
        return "tensorflow", "openvino is not installed"
    return "openvino", "no GPU"


def _concrete_function(model: Any) -> Any:
    import tensorflow as tf

    signature = [tf.TensorSpec((BATCH, *model.input_shape[1:]), tf.uint8)]
    return tf.function(lambda images: model(images, training=False), input_signature=signature, autograph=False)


def _in_batches(
    images: NDArray[np.uint8], infer: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    outputs = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        missing = BATCH - len(batch)
        padded = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.uint8)]) if missing else batch
        outputs.append(infer(padded)[: len(batch)])
    return np.concatenate(outputs)


@lru_cache(maxsize=1)
def _compile(path: str, precision: str) -> Any:
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
