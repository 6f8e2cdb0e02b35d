"""Engines give the same numbers, and an embedding depends on its image alone."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, warned
from joblib import cpu_count

from cache.network_files import NetworkFiles
from cache.support import keras as keras_support
from cache.support.errors import NotInstalledError, ParameterError, UserError
from cache.support.reporting import DataWarning
from featurize import image_loader
from featurize.backbone import Backbone
from featurize.decoding.image import decode
from featurize.engines import base, gpu, registry
from featurize.engines import jax as jax_engine
from featurize.engines import tensorflow as tensorflow_engine
from featurize.engines.base import AHEAD, Engine, FrontFiles
from featurize.engines.gpu_batch import ShrinkingBatch
from featurize.engines.gpu_lock import lock_gpu
from featurize.engines.openvino import OpenVINOEngine, import_openvino
from featurize.engines.registry import ENGINES, choose_engine, find_engine
from featurize.engines.tensorflow import TensorFlowEngine
from featurize.image_loader import load_batches
from featurize.isolated_process import call_isolated
from featurize.pipeline import make_features
from featurize.prepared_network import Network, prepare_network
from featurize.request import Request
from featurize.units import embed_unit

# By its name alone: importing it here would import its telemetry.
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


def images(n_images: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n_images, 32, 32, 3), dtype=np.uint8)


LAYER, N_FEATURES = "conv_pw_3_relu", 128
"""A cut after three blocks, with every kind of layer that the whole network has; JAX takes seconds for each other."""

REQUEST = Request(Backbone("mobilenet", "random:0", 32, LAYER), "auto", "float32", "float32", "random:0")


@cache
def keras_embeddings(n_images: int) -> np.ndarray:
    """What Keras itself gives."""
    return np.asarray(_keras_model()(images(n_images), training=False))


@cache
def _keras_model() -> Any:
    return REQUEST.backbone.build().model


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Network]:
    """The network beside a store, for an engine and a precision."""
    folder = tmp_path_factory.mktemp("engine")

    def make(engine: str, precision: str = "float32") -> Network:
        if find_spec(find_engine(engine).package) is None:
            pytest.skip(f"{engine} is not installed")
        return prepare_network(REQUEST, find_engine(engine)(precision), folder / f"{engine}.{precision}.h5")

    return make


@pytest.fixture(scope="module", params=ENGINES)
def network(request: pytest.FixtureRequest, beside: Callable[[str], Network]) -> Network:
    return beside(request.param)


def test_an_engine_agrees_with_keras(network: Network) -> None:
    expected = keras_embeddings(5)
    np.testing.assert_allclose(network.embed(images(5)), expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


@pytest.mark.long
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_agrees_with_keras_on_a_whole_network(engine: str, tmp_path: Path) -> None:
    if find_spec(find_engine(engine).package) is None:
        pytest.skip(f"{engine} is not installed")
    request = replace(REQUEST, backbone=Backbone("mobilenet", "random:0", 32))
    network = prepare_network(request, find_engine(engine)("float32"), tmp_path / "s.h5")
    expected = np.asarray(request.backbone.build().model(images(5), training=False))
    assert expected.shape == (5, 1024)
    np.testing.assert_allclose(network.embed(images(5)), expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_several_layers_at_once_give_the_numbers_of_each_alone(
    beside: Callable[[str], Network], engine: str, tmp_path: Path
) -> None:
    alone, earlier = beside(engine), "conv_pw_1_relu"
    for store, layer in (("earlier.h5", earlier), ("both.h5", f"{LAYER},{earlier}")):
        request = replace(REQUEST, backbone=replace(REQUEST.backbone, layer=layer))
        network = prepare_network(request, alone.engine, tmp_path / store)
        found = network.embed(images(5))
        if layer == earlier:
            expected = np.concatenate([found, alone.embed(images(5))], axis=1)
    assert network.cut.layers == [earlier, LAYER]
    np.testing.assert_array_equal(found, expected)


def test_an_embedding_depends_on_its_image_alone(network: Network) -> None:
    many = images(2 * network.engine.batch + 3)
    expected = network.embed(many)
    assert expected.shape == (len(many), N_FEATURES)
    np.testing.assert_array_equal(network.embed(many[::-1])[::-1], expected)
    np.testing.assert_array_equal(network.embed(many[5:6]), expected[5:6])


def test_a_network_travels_without_its_numbers(network: Network) -> None:
    import pickle

    sent = pickle.dumps(network)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).embed(images(2)), network.embed(images(2)))


def test_an_engine_finds_the_files_that_it_says_it_runs(network: Network) -> None:
    assert network.engine.files
    assert all((network.files.folder / name).is_file() for name in network.engine.files)


@pytest.mark.parametrize("engine", ["tensorflow", "jax"])
def test_an_engine_for_gpus_computes_in_bfloat16_as_they_would(
    beside: Callable[[str, str], Network], engine: str
) -> None:
    # On a CPU it is slow, and the same arithmetic.
    coarse, exact = beside(engine, "bfloat16").embed(images(2)), keras_embeddings(2)
    cosine = (exact * coarse).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(coarse, axis=1)
    assert coarse.dtype == np.float32
    assert 0.99 < cosine.min() < 1 - 1e-9


@pytest.mark.parametrize(
    ("capability", "precision"), [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float16"), ((6, 1), "float32")]
)
def test_gpus_are_chosen_with_the_arithmetic_that_all_of_them_have(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    import tensorflow as tf

    details = {
        tf.config.PhysicalDevice("a", "GPU"): {"device_name": "NVIDIA A", "compute_capability": capability},
        tf.config.PhysicalDevice("b", "GPU"): {"device_name": "NVIDIA B", "compute_capability": (9, 0)},
    }
    monkeypatch.setattr(tensorflow_engine, "has_nvidia_device", lambda: True)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(details))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details.get)
    choice = choose_engine("auto", "auto")
    engine = choice.engine
    assert (engine.name, engine.precision, engine.count_processes()) == ("tensorflow", precision, 2)
    assert [engine.count_processes(workers) for workers in (1, 5)] == [1, 2]
    assert choice.why == f"on 2 x NVIDIA A; {precision} is its fastest arithmetic here"
    assert engine.batch == gpu.GPU_BATCH
    assert engine.threads == max(1, cpu_count() // 2)


def test_what_a_gpu_runs_gives_the_same_embeddings_on_a_cpu(
    beside: Callable[[str], Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    network = beside("tensorflow")
    on_gpus = replace(network, engine=replace(network.engine, n_gpus=2))
    taken: list[str] = []
    expected = keras_embeddings(4)
    monkeypatch.setattr(gpu, "GPU_BATCH", 3)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["first", "second"])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: taken.extend(devices))
    tensorflow_engine._open.cache_clear()  # another test may have opened these files without a GPU
    compiled = on_gpus.embed(images(4))  # through XLA
    tensorflow_engine._open.cache_clear()
    np.testing.assert_allclose(compiled, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)
    assert taken == ["first"]


class FakeGpu:
    """What JAX tells of a GPU."""

    def __init__(self, capability: str) -> None:
        self.device_kind, self.compute_capability = "NVIDIA B", capability


@pytest.mark.parametrize(("capability", "precision"), [("9.0", "bfloat16"), ("7.5", "float16"), ("6.1", "float32")])
def test_jax_is_chosen_where_it_alone_sees_the_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: str, precision: str
) -> None:
    monkeypatch.setattr(jax_engine, "has_nvidia_device", lambda: True)
    monkeypatch.setattr(jax_engine, "list_gpus", lambda: [FakeGpu("10.0"), FakeGpu(capability)])
    choice = choose_engine("auto", "auto")
    assert (choice.engine.name, choice.engine.precision, choice.engine.count_processes()) == ("jax", precision, 2)
    assert choice.why == f"on 2 x NVIDIA B; {precision} is its fastest arithmetic here"
    assert choice.engine.batch == gpu.GPU_BATCH


@pytest.mark.parametrize(
    ("engine", "line"),
    [("jax", r"pip install 'jax\[cuda12\]'"),
     ("openvino", r"pip install 'tensorflow\[and-cuda\]' or pip install 'jax\[cuda12\]'")],
)  # fmt: skip
def test_a_gpu_that_the_engine_does_not_see_gives_the_line_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, engine: str, line: str
) -> None:
    if not find_engine(engine).is_installed():
        pytest.skip(f"{engine} is not installed")
    monkeypatch.setattr(registry, "has_nvidia_device", lambda: True)
    monkeypatch.setattr(find_engine(engine), "find_gpus", list)
    with pytest.warns(DataWarning, match=f"a GPU that is not used: the engine {engine} does not see it; {line}$"):
        choose_engine(engine, "float32")


def fitting(most: int, tried: list[int]) -> ShrinkingBatch:
    """A function for batches on a device that has memory for `most` images."""

    def compile_for(size: int) -> Callable[[np.ndarray], np.ndarray]:
        def infer(images: np.ndarray) -> np.ndarray:
            tried.append(len(images))
            if len(images) > most:
                raise MemoryError
            return images * 2

        return infer

    return ShrinkingBatch(compile_for, lambda error: isinstance(error, MemoryError))


def test_a_batch_without_memory_is_tried_in_halves() -> None:
    tried: list[int] = []
    infer, batch = fitting(3, tried), np.arange(8)
    with warned() as lines:
        assert np.asarray(infer(batch)).tolist() == (batch * 2).tolist()
    assert lines == [
        "the GPU has no memory for 8 images at once; trying 4", "the GPU has no memory for 4 images at once; trying 2"
    ]  # fmt: skip
    assert tried == [8, 4, 2, 2, 2, 2]
    infer(batch)
    assert tried[6:] == [2, 2, 2, 2]  # what did not fit is not tried again


def test_a_gpu_without_memory_for_one_image_is_one_line() -> None:
    with warned(), pytest.raises(UserError, match="no memory for 1 image at once; end other programs that use it"):
        fitting(0, [])(np.arange(4))


def test_another_error_on_a_gpu_keeps_its_traceback() -> None:
    def compile_for(size: int) -> Callable[[np.ndarray], np.ndarray]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ShrinkingBatch(compile_for, lambda error: isinstance(error, MemoryError))(np.arange(4))


def test_each_process_takes_a_gpu_of_its_own(tmp_path: Path) -> None:
    assert [lock_gpu(tmp_path, 3) for _ in range(3)] == [0, 1, 2]


def test_threads_that_decode_change_nothing(
    beside: Callable[[str], Network], phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "BATCH", 4)
    paths = [*sorted((phantoms / "train").iterdir()), Path("vanished.jpg")]
    one, several = (embed_unit(beside("tensorflow"), paths, 32, "float32", threads=n) for n in (1, 3))
    np.testing.assert_array_equal(one.rows.digests, several.rows.digests)
    np.testing.assert_array_equal(one.rows.embeddings, several.rows.embeddings)


@pytest.fixture
def close_processes() -> Iterator[None]:
    yield
    image_loader.close_processes()


@pytest.mark.usefixtures("close_processes")
def test_processes_that_decode_change_nothing(phantoms: Path, tmp_path: Path) -> None:
    """Each batch is used as late as an engine may: when `AHEAD` more have been taken."""
    (tmp_path / "damaged.jpg").write_bytes(b"no image")
    paths = [*sorted((phantoms / "train").iterdir()), tmp_path / "damaged.jpg", tmp_path / "vanished.jpg"] * 4
    found: list[list[Any]] = []
    for kind in ({"threads": 2}, {"processes": 2}):
        late: deque[Any] = deque()
        found.append([])
        for images, pixels in load_batches(paths, 32, 7, **kind):
            late.append((images, pixels))
            time.sleep(0.05)  # time to overwrite what is still in use
            if len(late) > AHEAD:
                found[-1].append(copy_of(late.popleft()))
        found[-1] += map(copy_of, late)
    images = [[(each.digest, each.reason) for part, _ in batches for each in part] for batches in found]
    assert images[0] == images[1]
    assert sum(not reason for _, reason in images[0]) == 4 * len(list((phantoms / "train").iterdir()))
    np.testing.assert_array_equal(*(np.concatenate([pixels for _, pixels in batches]) for batches in found))


def copy_of(batch: tuple[list[Any], np.ndarray]) -> tuple[list[Any], np.ndarray]:
    return batch[0], batch[1].copy()


@pytest.mark.usefixtures("close_processes")
def test_a_unit_is_the_same_with_processes_that_decode(beside: Callable[[str], Network], phantoms: Path) -> None:
    network, paths = beside("jax"), sorted((phantoms / "train").iterdir())
    one, other = (embed_unit(network, paths, 32, "float32", processes=n) for n in (0, 2))
    np.testing.assert_array_equal(one.rows.digests, other.rows.digests)
    np.testing.assert_array_equal(one.rows.embeddings, other.rows.embeddings)


@pytest.mark.usefixtures("close_processes")
def test_a_process_that_decodes_and_is_killed_ends_the_unit(phantoms: Path) -> None:
    paths = sorted((phantoms / "train").iterdir())
    batches = load_batches(paths, 32, 2, processes=1)
    next(batches)
    [processes] = image_loader._opened.values()
    os.kill(next(iter(processes._pool._processes)), signal.SIGKILL)
    with pytest.raises(BrokenProcessPool):
        list(batches)


def test_a_gpu_has_processes_that_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "cpu_count", lambda: 16)
    decoders = [find_engine("jax")("float32", n_gpus).decoders for n_gpus in (0, 1, 2, 8)]
    assert decoders == [0, 16, 8, 0]


@needs_openvino
def test_threads_of_one_process_do_not_disturb_each_other(beside: Callable[[str], Network]) -> None:
    # As Dask's workers do: they run several tasks in a process.
    network, many = beside("openvino"), images(24)
    expected = network.embed(many)
    with ThreadPoolExecutor(4) as pool:
        for start, found in zip(range(0, 24, 4), pool.map(network.embed, np.split(many, 6)), strict=True):
            np.testing.assert_array_equal(found, expected[start : start + 4])


@needs_openvino
def test_openvino_cannot_report_its_use() -> None:
    import_openvino()
    with pytest.raises(ImportError):
        import openvino_telemetry  # noqa: F401


@needs_openvino
def test_bfloat16_stays_close_where_the_machine_has_it(beside: Callable[[str, str], Network]) -> None:
    if choose_engine("openvino", "auto").engine.precision != "bfloat16":
        pytest.skip("this CPU does not compute in bfloat16")
    exact, coarse = keras_embeddings(8), beside("openvino", "bfloat16").embed(images(8))
    cosine = (exact * coarse).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(coarse, axis=1)
    assert cosine.min() > 0.999


@needs_openvino
def test_the_coordinator_never_loads_tensorflow(phantoms: Path, tmp_path: Path) -> None:
    # A script that does not look whether it is the main one: no other process may run it again.
    script = tmp_path / "script.py"
    script.write_text(
        "import logging, sys; from featurize import make_features\n"
        "logging.basicConfig(level='INFO', stream=sys.stdout)\n"
        "given = {'backbone': 'mobilenet', 'weights': 'random:0', 'size': 32, 'engine': 'openvino'}\n"
        "make_features(sys.argv[1], sys.argv[2], **given, workers=2)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    command = [sys.executable, script, phantoms, tmp_path / "s.h5"]
    path = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "40 images embedded" in done.stdout


def test_the_process_that_builds_a_network_ends_with_its_caller(tmp_path: Path) -> None:
    code = "import time; from featurize.isolated_process import call_isolated; call_isolated(time.sleep, 60, task='')"
    caller = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    deadline = time.monotonic() + 30
    while not (children := _children(caller.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    caller.kill()
    caller.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert children
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@needs_openvino
def test_a_network_that_cannot_be_built_in_its_process_is_one_line(phantoms: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "featurize", phantoms, "--store", tmp_path / "s.h5", "--engine", "openvino"]
    network = ["--backbone", "mobilenet", "--size", "32", "--weights", "random:0", "--layer", "no"]
    done = subprocess.run([*map(str, command), *network], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "featurize: error: no layer 'no' in mobilenet_1.00_32; it has input_layer (0) to conv_pw_13_relu (85);"
    )
    assert done.stderr.count("\n") == 1


@needs_openvino
def test_a_damaged_network_beside_a_store_is_built_again(tmp_path: Path) -> None:
    engine, store = find_engine("openvino")("float32"), tmp_path / "s.h5"
    before = prepare_network(REQUEST, engine, store)
    expected = before.embed(images(3))
    path = tmp_path / "s.h5.network" / "front.bin"
    data = bytearray(path.read_bytes())
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    after = prepare_network(REQUEST, engine, store)
    assert after.cut == before.cut
    assert after.files != before.files  # so that no process runs the damaged one that it has opened
    np.testing.assert_array_equal(after.embed(images(3)), expected)


def test_another_network_at_the_same_place_is_the_one_that_runs(network: Network, tmp_path: Path) -> None:
    # A notebook that rebuilds a store with other weights keeps its process, and joblib keeps the workers.
    first, second = (
        prepare_network(
            replace(REQUEST, backbone=replace(REQUEST.backbone, weights=weights), weights_source=weights),
            network.engine,
            tmp_path / "s.h5",
        ).embed(images(2))
        for weights in ("random:1", "random:2")
    )
    assert not np.array_equal(first, second)


def test_a_process_that_is_ended_from_outside_is_one_line() -> None:
    with pytest.raises(UserError, match="the process that sleeps was ended, most likely for lack of memory"):
        call_isolated(os._exit, 9, task="sleeps")


def test_what_another_process_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        call_isolated(int, "no number", task="reads a number")


@dataclass(frozen=True)
class ToyEngine(Engine):
    """An engine that the project does not know: some pixels, times a number from a file of its own."""

    name = "toy"
    package = "numpy"
    pip_line = "pip install numpy"
    distributions = ("numpy",)
    files = ("toy.npy",)
    batch = 3
    layer_precision = "float32"

    @classmethod
    def find_native_precision(cls) -> str:
        return "bfloat16"

    def prepare(self, model: Any, folder: Path) -> None:
        np.save(folder / "toy.npy", np.float32(model.output_shape[-1]))

    def infer(self, images: np.ndarray, files: FrontFiles) -> np.ndarray:
        assert len(images) == self.batch
        return images.reshape(self.batch, -1)[:, :1024] / np.load(files.folder / "toy.npy")


def test_an_engine_is_one_class_and_one_line_in_the_registry(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "toy", f"{__name__}:ToyEngine")
    small = {"backbone": "mobilenet", "weights": "random:0", "size": 32}
    store = make_features(phantoms, tmp_path / "s.h5", engine="toy", **small)
    assert (store.provenance.engine, store.provenance.precision) == ("toy", "bfloat16")
    paths = sorted((phantoms / "valid").iterdir())
    expected = [decode(path.read_bytes(), 32).reshape(-1)[:1024] / np.float32(1024) for path in paths]
    np.testing.assert_array_equal(store.split("valid").embeddings, expected)
    files = NetworkFiles.read(store.path)
    assert set(files.files) == {"front.keras", "toy.npy"}
    assert files.rounds_beyond_layers(store.provenance)
    (tmp_path / "s.h5.network" / "toy.npy").write_bytes(b"damaged")
    shutil.copytree(phantoms / "valid", tmp_path / "data" / "valid")
    (tmp_path / "data" / "valid" / "zz_new.jpg").write_bytes(paths[0].read_bytes() + b"new")
    again = make_features(tmp_path / "data", tmp_path / "s.h5", rebuild=True)
    np.testing.assert_array_equal(again.split("valid").embeddings, [*expected, expected[0]])


def test_a_missing_engine_gives_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenVINOEngine, "is_installed", lambda: False)
    with pytest.raises(NotInstalledError, match="'openvino' is not installed: pip install openvino, or choose tensor"):
        choose_engine("openvino")
    choice = choose_engine("auto", "float32")
    assert (choice.engine.name, choice.why) == ("tensorflow", "openvino is not installed")
    monkeypatch.setattr(TensorFlowEngine, "is_installed", lambda: False)
    monkeypatch.setattr(jax_engine.JaxEngine, "is_installed", lambda: False)
    with pytest.raises(
        NotInstalledError, match=r"no engine is installed; .* openvino: pip .*; tensorflow: pip install t.*; jax: pip"
    ):
        choose_engine()


def test_without_keras_a_backbone_gives_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keras_support._import.cache_clear()
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(NotInstalledError, match="keras is not installed: pip install tensorflow-cpu"):
        REQUEST.backbone.build()


def test_auto_is_chosen_and_explained() -> None:
    choice = choose_engine("auto", "auto")
    has_gpu = bool(TensorFlowEngine.find_gpus())
    expected = TensorFlowEngine if has_gpu or not OpenVINOEngine.is_installed() else OpenVINOEngine
    assert isinstance(choice.engine, expected)
    assert choice.engine.precision == expected.find_native_precision()
    assert choice.why.endswith(f"; {choice.engine.precision} is its fastest arithmetic here")
    assert choice.why.startswith("on " if has_gpu else "no GPU" if expected is OpenVINOEngine else "openvino is not")


@pytest.mark.parametrize(
    ("engine", "precision", "message"),
    [
        ("torch", "auto", "engine 'torch': expected one of auto, openvino, tensorflow, jax"),
        ("auto", "int8", "precision 'int8': expected one of auto, float32, bfloat16, float16"),
        (
            "openvino",
            "float16",
            "precision 'float16': this machine has .*float32 with the engine openvino; choose one, or auto",
        ),
    ],
)
def test_an_unknown_choice_lists_the_right_ones(engine: str, precision: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        choose_engine(engine, precision)
