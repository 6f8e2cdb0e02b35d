"""JAX: for GPUs, one process each, or for any CPU, in one process that uses every core. It needs no TensorFlow.

Keras computes with one backend per process, and that of this process may be another. So a process of its own loads the
front with the backend JAX and turns it into a function of JAX; here it is compiled, without Keras. What compilers make
of it is kept nowhere: `front.keras` is the network, whatever version of JAX comes later.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.network_files import FRONT
from cache.support.command import JAX_PIP_LINE
from cache.support.devices import find_fastest_precision, has_nvidia_device
from cache.support.jax import import_jax, list_gpus
from cache.support.keras import import_keras
from featurize.engines.base import FrontFiles
from featurize.engines.gpu import GpuEngine
from featurize.engines.gpu_batch import ShrinkingBatch
from featurize.engines.gpu_lock import lock_gpu
from featurize.isolated_process import call_isolated

CPU, CUDA = "cpu", "cuda"
"""JAX's names of the platforms."""


@dataclass(frozen=True)
class JaxEngine(GpuEngine):
    """JAX, for which Keras exports the network."""

    name = "jax"
    package = "jax"
    pip_line = JAX_PIP_LINE
    cuda_line = "pip install 'jax[cuda12]'"
    distributions = ("jax", "jaxlib", "jax-cuda12-plugin")
    files = (FRONT,)

    @classmethod
    def find_gpus(cls) -> list[str]:
        """Names of the GPUs that JAX can use. It takes a second to load, so only where the system has such a device."""
        return [str(gpu.device_kind) for gpu in list_gpus()] if has_nvidia_device() else []

    @classmethod
    def find_native_precision(cls) -> str:
        """The fastest arithmetic that every GPU has; float32 on a CPU."""
        gpus = list_gpus() if has_nvidia_device() else []
        return find_fastest_precision(_parse_capability(gpu.compute_capability) for gpu in gpus)

    def infer(self, images: NDArray[np.uint8], files: FrontFiles) -> Any:
        """Begin to embed one full batch; the result is an array of JAX, whose conversion waits for its numbers."""
        return _open(files, self.n_gpus)(images)


def _parse_capability(text: str) -> tuple[int, int]:
    """The two numbers of a compute capability.

    >>> _parse_capability("9.0")
    (9, 0)
    """
    major, minor = text.split(".")
    return int(major), int(minor)


@lru_cache(maxsize=1)
def _open(files: FrontFiles, n_gpus: int) -> Callable[[NDArray[np.uint8]], Any]:
    """The front for any number of images per batch; where there are several GPUs, on one that no other process uses."""
    jax = import_jax()
    if n_gpus:
        devices = list_gpus()
        device = devices[lock_gpu(files.folder, len(devices)) if len(devices) > 1 else 0]
    else:
        device = jax.local_devices(backend=CPU)[0]
    weights: Any = None

    def compile_for(batch: int) -> Callable[[NDArray[np.uint8]], Any]:
        nonlocal weights
        args = files.folder / FRONT, batch, CUDA if n_gpus else CPU
        exported, values = call_isolated(_export, *args, task="prepares the network for JAX")
        weights = weights or jax.device_put(values, device)
        function = jax.jit(jax.export.deserialize(exported).call)
        first = True

        def infer(images: NDArray[np.uint8]) -> Any:
            nonlocal first
            result = function(weights, jax.device_put(images, device))
            # What does not fit into memory shows when a result is waited for; after the first one there is room.
            result, first = result.block_until_ready() if first else result, False
            return result

        return infer

    return ShrinkingBatch(compile_for, _is_out_of_memory)


def _is_out_of_memory(error: BaseException) -> bool:
    return "RESOURCE_EXHAUSTED" in str(error)


def _export(path: Path, batch: int, platform: str) -> tuple[bytearray, list[Any]]:
    """Turn a front into a function of JAX for a batch size; in a process of its own.

    Returns
    -------
    exported : bytearray
        The function, from weights and images to embeddings, as `jax.export` writes it.
    weights : list of two lists of ndarray
        Its first argument: those that can be trained, and the others.
    """
    os.environ["JAX_PLATFORMS"] = CPU  # the GPU's memory is for the caller
    jax, keras = import_jax(), import_keras("jax")
    model = keras.saving.load_model(path, compile=False)
    kinds = (model.trainable_variables, model.non_trainable_variables)
    weights = [[np.asarray(variable.value) for variable in kind] for kind in kinds]

    def infer(weights: Any, images: Any) -> Any:
        return model.stateless_call(*weights, images, training=False)[0]

    images = jax.ShapeDtypeStruct((batch, *model.input_shape[1:]), np.uint8)
    # By default a GPU multiplies float32 with the three digits of TensorFloat-32.
    with jax.default_matmul_precision("highest"):
        exported = jax.export.export(jax.jit(infer), platforms=[platform])(weights, images)
    return exported.serialize(), weights
