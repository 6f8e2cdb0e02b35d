"""TensorFlow: for GPUs, one process each, or for any CPU, in one process that uses every core."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.network_files import FRONT
from cache.support.command import TENSORFLOW_PIP_LINE
from cache.support.devices import find_fastest_precision, has_nvidia_device
from cache.support.keras import full_precision, import_keras, import_tensorflow
from featurize.engines.base import FrontFiles
from featurize.engines.gpu import GpuEngine
from featurize.engines.gpu_batch import ShrinkingBatch
from featurize.engines.gpu_lock import lock_gpu


@dataclass(frozen=True)
class TensorFlowEngine(GpuEngine):
    """TensorFlow, which also builds the networks."""

    name = "tensorflow"
    package = "tensorflow"
    pip_line = TENSORFLOW_PIP_LINE
    cuda_line = "pip install 'tensorflow[and-cuda]'"
    distributions = ("tensorflow", "tensorflow-cpu")
    files = (FRONT,)

    @classmethod
    def find_gpus(cls) -> list[str]:
        """Names of the GPUs that TensorFlow can use.

        TensorFlow takes seconds to load, so it is loaded only where the system has such a device.
        """
        return [str(each.get("device_name", "GPU")) for each in _describe_gpus()]

    @classmethod
    def find_native_precision(cls) -> str:
        """The fastest arithmetic that every GPU has; float32 on a CPU."""
        return find_fastest_precision(each.get("compute_capability", (0, 0)) for each in _describe_gpus())

    def infer(self, images: NDArray[np.uint8], files: FrontFiles) -> Any:
        """Begin to embed one full batch; the result is a tensor, whose conversion waits for its numbers."""
        return _open(files)(images)


def compile_function(infer: Callable[[Any], Any], model: Any, batch: int, jit_compile: bool = False) -> Any:
    """Compile a function from images to embeddings to one graph, for a fixed batch size."""
    tf = import_tensorflow()
    signature = [tf.TensorSpec((batch, *model.input_shape[1:]), tf.uint8)]
    return tf.function(infer, input_signature=signature, autograph=False, jit_compile=jit_compile)


def _describe_gpus() -> list[dict[str, Any]]:
    """What TensorFlow reports about each GPU."""
    if not has_nvidia_device():
        return []
    tf = import_tensorflow()
    gpus = tf.config.list_physical_devices("GPU")
    return [{"device_name": gpu.name} | tf.config.experimental.get_device_details(gpu) for gpu in gpus]


@lru_cache(maxsize=1)
def _open(files: FrontFiles) -> Callable[[NDArray[np.uint8]], Any]:
    """The front for any number of images per batch; where there are several GPUs, on one that no other process uses."""
    tf, keras = import_tensorflow(), import_keras()
    gpus = tf.config.list_physical_devices("GPU")
    if len(gpus) > 1:
        tf.config.set_visible_devices([gpus[lock_gpu(files.folder, len(gpus))]], "GPU")
    model = keras.saving.load_model(files.folder / FRONT, compile=False)

    def compile_for(batch: int) -> Callable[[NDArray[np.uint8]], Any]:
        # XLA takes half a minute to compile for a CPU, and gains little there.
        function = compile_function(partial(model, training=False), model, batch, jit_compile=bool(gpus))

        def infer(images: NDArray[np.uint8]) -> Any:
            with full_precision():
                return function(tf.constant(images))

        return infer

    return ShrinkingBatch(compile_for, lambda error: isinstance(error, tf.errors.ResourceExhaustedError))
