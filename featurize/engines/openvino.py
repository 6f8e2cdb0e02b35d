"""OpenVINO: the fastest engine on CPUs, one single-threaded network per process."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray

from cache.support.keras import import_tensorflow, own_variables
from featurize.engines.base import Engine, FrontFiles
from featurize.engines.tensorflow import compile_function

BATCH, FLOAT32_BATCH = 16, 2
"""Images per batch. In float32 the maps of two images stay in a core's cache, which is the fastest. In bfloat16 memory
matters less, and AMX needs larger batches."""

HINTS = {"float32": "f32", "bfloat16": "bf16"}
"""OpenVINO's names of its precisions."""

REDUCTIONS, POWER, JOINING = ("ReduceMean", "ReduceMax"), "Power", "Concat"
"""OpenVINO's names of the operations that poolings are made of, and of the one that puts them side by side."""

CONVERTED = "front.xml"
"""The converted front; its weights are in ``front.bin``."""


@dataclass(frozen=True)
class OpenVINOEngine(Engine):
    """One single-threaded OpenVINO network per process, compiled when it is first called.

    Workers read the converted files and never load TensorFlow.
    """

    name = "openvino"
    package = "openvino"
    pip_line = "pip install openvino"
    distributions = ("openvino",)
    files = (CONVERTED, "front.bin")

    @classmethod
    def find_native_precision(cls) -> str:
        """bfloat16 where the processor computes in it."""
        capabilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return "bfloat16" if "BF16" in capabilities else "float32"

    @property
    def batch(self) -> int:
        """Images per batch; the converted network takes no other number."""
        return FLOAT32_BATCH if self.precision == "float32" else BATCH

    @property
    def layer_precision(self) -> str:
        """float32: OpenVINO lowers the precision when it compiles."""
        return "float32"

    @property
    def wanted(self) -> dict[str, Any]:
        """The batch size is fixed by the conversion."""
        return super().wanted | {"batch": self.batch}

    def count_processes(self, workers: int | None = None) -> int:
        """One process per core, or as many as the user wants."""
        return workers or cpu_count()

    @property
    def threads(self) -> int:
        """One: there is a process per core."""
        return 1

    def prepare(self, model: Any, folder: Path) -> None:
        """Convert the front to OpenVINO's pair of files, for one batch size."""
        tf = import_tensorflow()
        kinds = (model.trainable_variables, model.non_trainable_variables)
        values = [[variable.numpy() for variable in variables] for variables in kinds]

        def infer(images: Any) -> Any:
            # Constants, because OpenVINO looks for each variable among all of them, again and again: 5 s instead of 2.
            constants = [[tf.constant(value) for value in each] for each in values]
            return model.stateless_call(*constants, images, training=False)[0]

        openvino = import_openvino()
        with own_variables(), _stating_version(tf.__version__):  # OpenVINO looks at tf.keras
            converted = openvino.convert_model(compile_function(infer, model, self.batch))
        # compress_to_fp16 would round the weights to 11 bits even for float32 inference.
        openvino.save_model(converted, folder / CONVERTED, compress_to_fp16=False)

    def infer(self, images: NDArray[np.uint8], files: FrontFiles) -> NDArray[np.float32]:
        """Embed one full batch."""
        request = _open(files, self.precision)
        return np.array(request.infer({0: images})[0], dtype=np.float32)

    def find_maps(self, images: NDArray[np.uint8], files: FrontFiles, n_layers: int) -> list[NDArray[np.float32]]:
        """The maps that the front pools, without Keras: the converted network ends where pooling begins."""
        request = _open(files, self.precision, n_layers)
        found = [request.infer({0: image[None]}).to_tuple() for image in images]
        return [
            np.concatenate([np.array(each, np.float32) for each in of_layer]) for of_layer in zip(*found, strict=True)
        ]


@contextmanager
def _stating_version(version: str) -> Iterator[None]:
    """Tell OpenVINO the version of TensorFlow while the block runs, where it cannot find it out.

    OpenVINO 2026.4 imports and deletes a name by ``exec`` within a function. From Python 3.13 on (PEP 667) the second
    no longer sees the first, and raises a NameError.
    """
    if sys.version_info < (3, 13):
        yield
        return
    from openvino.frontend.tensorflow import utils

    before = utils.get_environment_setup
    utils.get_environment_setup = lambda framework: {"tensorflow": version}
    try:
        yield
    finally:
        utils.get_environment_setup = before


class _Opened(threading.local):
    """The network that a thread opened last: a request serves one thread at a time, and Dask runs several threads."""

    key: tuple[FrontFiles, str, int] | None = None
    request: Any = None


_opened = _Opened()


def _open(files: FrontFiles, precision: str, n_maps: int = 0) -> Any:
    """This thread's network, to its end or to the maps of so many layers before pooling."""
    key = (files, precision, n_maps)
    if _opened.key != key:
        _opened.key, _opened.request = key, _compile(files.folder / CONVERTED, precision, n_maps)
    return _opened.request


def _compile(path: Path, precision: str, n_maps: int) -> Any:
    openvino = import_openvino()
    core = openvino.Core()
    model = core.read_model(path)
    if n_maps:
        model = openvino.Model(_find_maps(model, n_maps), model.get_parameters(), "maps")
        model.reshape([1, *model.inputs[0].shape[1:]])  # few images are explained, and those one by one
    options = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        # Pinned, two processes land on one core and run at half speed.
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(model, "CPU", options).create_infer_request()


def _find_maps(model: Any, n_layers: int) -> list[Any]:
    """The outputs of a converted network that it pools, one per layer, with features last."""
    last = model.outputs[0].node.input_value(0)
    pooled = last.get_node().input_values() if last.get_node().get_type_name() == JOINING else [last]
    # The poolings of a layer are neighbours, and of several any will do.
    return [_find_map(each) for each in pooled[:: len(pooled) // n_layers]]


def _find_map(pooled: Any) -> Any:
    """What is pooled, with features last.

    From the end, the first operation that reduces axes is the pooling. Before the mean of ``gem`` come a lower bound
    and a power.
    """
    node = pooled.get_node()
    while node.get_type_name() not in REDUCTIONS:
        node = node.input_value(0).get_node()
    axes = sorted(int(axis) for axis in node.input_value(1).get_node().get_vector())
    maps = node.input_value(0)
    if maps.get_node().get_type_name() == POWER:
        maps = maps.get_node().input_value(0).get_node().input_value(0)
    if axes == [1, 2]:
        return maps
    opset = import_openvino().opset13
    return opset.transpose(maps, opset.constant([0, 2, 3, 1]))


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    OpenVINO reports its use over the network through the package ``openvino_telemetry``. Where that package cannot be
    imported, it does not.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
