"""What a card does for this project, in a few minutes, with nothing to download; on a CPU, a smaller run of the same.

Prints the card and the versions; images a second from pixels in memory and from JPEG files, and the share of the
card's arithmetic that this is; where the time goes; how far fast arithmetic is from float32, and whether a store made
on the card equals one made on the CPU; `logistic` on the card and on the CPU. Each part that cannot run says why.

It needs NumPy, SciPy, pandas, scikit-learn, h5py, Pillow, joblib, tqdm, threadpoolctl, msgspec, Keras, and JAX or
TensorFlow. OpenVINO and pydicom are not needed.
"""

import argparse
import importlib.metadata
import io
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import PIL.Image
from joblib import cpu_count

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

HEIGHT, WIDTH = 600, 700
"""Size of radiographs in papers, in pixels."""

FLOP = {("densenet121", 224): 5.7e9, ("mobilenet", 64): 0.095e9}
"""Floating-point operations per image: twice the multiplications of the network's layers."""


@dataclass
class Bench:
    """What is measured, and how much of it."""

    folder: Path
    engine: str
    is_small: bool
    end: float
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def backbone(self) -> tuple[str, int]:
        """Name and image size of the network."""
        return ("mobilenet", 64) if self.is_small else ("densenet121", 224)

    def pick(self, full: int, small: int) -> int:
        """A number of things to measure."""
        return small if self.is_small else full


def describe_machine(bench: Bench) -> None:
    """Card, processor, versions."""
    from featurize.engines.registry import choose_engine, find_engine

    kind = find_engine(bench.engine)
    choice = choose_engine(bench.engine)
    print(f"  card: {', '.join(kind.find_gpus()) or 'none; this is a run on the CPU'}")
    print(f"  processor: {_find_processor()}, {cpu_count()} cores; Python {platform.python_version()}")
    names = "jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "tensorflow", "keras", "numpy", "pillow", "h5py"
    print(f"  versions: {', '.join(f'{name} {found}' for name in names if (found := _find_version(name)))}")
    print(f"  engine: {bench.engine} in {choice.engine.precision}, batches of {choice.engine.batch}")
    bench.notes["engine"] = choice.engine


def build_networks(bench: Bench) -> None:
    """The network in fast arithmetic and in float32."""
    from featurize.backbone import Backbone
    from featurize.prepared_network import prepare_network
    from featurize.request import Request

    name, size = bench.backbone
    for precision in dict.fromkeys((bench.notes["engine"].precision, "float32")):
        engine = replace(bench.notes["engine"], precision=precision)
        request = Request(Backbone(name, "random:0", size), engine.name, precision, "float32", "random:0")
        begun = time.perf_counter()
        network = prepare_network(request, engine, bench.folder / f"{precision}.h5")
        built = time.perf_counter()
        network.embed(np.zeros((1, size, size, 3), np.uint8))
        print(f"  {precision}: built in {built - begun:.1f} s, compiled in {time.perf_counter() - built:.1f} s")
        bench.notes[precision] = network


def measure_pixels(bench: Bench) -> None:
    """Images a second from pixels in memory, and the share of the arithmetic that a large product reaches."""
    network = bench.notes[bench.notes["engine"].precision]
    size, batch = bench.backbone[1], network.engine.batch
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
    n_batches = bench.pick(120, 2) if network.engine.n_gpus else 2

    def run() -> float:
        begun = time.perf_counter()
        for _ in network.engine.embed_batches((images for _ in range(n_batches)), network.files):
            pass
        return n_batches * batch / (time.perf_counter() - begun)

    rate = max(run() for _ in range(3))
    flop = rate * FLOP[bench.backbone]
    peak = _find_peak(bench, network.engine.precision)
    print(f"  {rate:,.0f} images/s from pixels in memory, batches of {batch}")
    print(
        f"  {flop / 1e12:.2f} TFLOP/s, {flop / peak:.1%} of the {peak / 1e12:.1f} that one large product reaches here"
    )
    bench.notes["rate"] = rate


def measure_decoding(bench: Bench) -> None:
    """Images a second that are read and decoded, by threads and by processes."""
    from featurize.image_loader import close_processes, load_batches

    folder, n_images, size = bench.folder / "jpeg", bench.pick(1024, 32), bench.backbone[1]
    folder.mkdir()
    for number, drawn in enumerate([_draw_jpeg(number) for number in range(bench.pick(64, 8))]):
        (folder / f"{number}.jpg").write_bytes(drawn)
    paths = sorted(folder.iterdir()) * (n_images // len(list(folder.iterdir())))
    for n_workers in dict.fromkeys((1, 2, cpu_count() // 2 or 1, cpu_count())):
        line = f"  {n_workers:3} workers:"
        for name, kind in (("threads", {"threads": n_workers}), ("processes", {"processes": n_workers})):
            for _ in load_batches(paths[: 2 * 16 * n_workers], size, 128, **kind):
                pass  # started, and imported
            begun = time.perf_counter()
            n_loaded = sum(len(loaded) for loaded, _ in load_batches(paths, size, 128, **kind))
            line += f" {n_loaded / (time.perf_counter() - begun):8,.0f} images/s by {name}"
        print(f"{line} ({WIDTH}x{HEIGHT} JPEG to {size} px)", flush=True)
    close_processes()


def measure_files(bench: Bench) -> None:
    """Images a second from JPEG files to a store, as the command makes it."""
    from featurize.pipeline import make_features

    folder, n_images = bench.folder / "data" / "train", bench.pick(24_000 if bench.notes["engine"].n_gpus else 256, 48)
    folder.mkdir(parents=True)
    drawn = [_draw_jpeg(number) for number in range(bench.pick(64, 8))]
    for number in range(n_images):  # bytes after the end of a JPEG make it another file
        (folder / f"p{number:06d}.jpg").write_bytes(drawn[number % len(drawn)] + number.to_bytes(4, "big"))
    name, size = bench.backbone
    given = {"backbone": name, "weights": "random:0", "size": size, "engine": bench.engine}
    begun = time.perf_counter()
    with _Printing():
        store = make_features(bench.folder / "data", bench.folder / "files.h5", **given)
    seconds = time.perf_counter() - begun
    n_made = len(store.split("train").ids)
    print(f"  {n_made / seconds:,.0f} images/s with everything, from an empty folder to a store of {n_made:,} images")


def measure_drift(bench: Bench) -> None:
    """How far fast arithmetic is from float32 of the same engine."""
    fast, exact = bench.notes[bench.notes["engine"].precision], bench.notes["float32"]
    images = _decode_all([_draw_jpeg(number) for number in range(bench.pick(256, 8))], bench.backbone[1])
    _print_difference(fast.engine.precision, fast.embed(images), exact.embed(images))


def compare_with_cpu(bench: Bench) -> None:
    """Whether a store that was made on the card equals one from the CPU, each in a process of its own."""
    from cache.store import FeatureStore
    from featurize.phantoms.dataset import make_phantoms

    make_phantoms(bench.folder / "phantoms", bench.pick(96, 20))
    name, size = bench.backbone
    code = (
        "import sys; from featurize import make_features; make_features(sys.argv[1], sys.argv[2], "
        f"backbone={name!r}, weights='random:0', size={size}, engine={bench.engine!r}, precision='float32')"
    )
    found = {}
    for place, hidden in (("card", {}), ("CPU", {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"})):
        store = bench.folder / f"{place}.h5"
        words = [sys.executable, "-c", code, str(bench.folder / "phantoms"), str(store)]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        subprocess.run(words, check=True, env=os.environ | hidden | {"PYTHONPATH": path}, stdout=subprocess.DEVNULL)
        found[place] = FeatureStore(store)
    card, cpu = found["card"], found["CPU"]
    print(f"  the same fingerprint: {card.fingerprint == cpu.fingerprint}")
    rows = [np.concatenate([each.embeddings for each in store.splits.values()]) for store in (card, cpu)]
    _print_difference("float32 on the card", *rows)


def measure_heads(bench: Bench) -> None:
    """`logistic` on the card and on the CPU."""
    from heads import LogisticHead
    from heads.solvers import one_vs_rest

    rng = np.random.default_rng(0)
    n_images, n_features, n_concepts = bench.pick(60_000, 600), bench.pick(1024, 32), bench.pick(256, 8)
    X = rng.normal(size=(n_images, n_features)).astype(np.float32)
    Y = (X @ rng.normal(size=(n_features, n_concepts)) / np.sqrt(n_features) > 2).astype(np.int8)
    Y[0] = 1
    seconds, scores = {}, {}
    places = {"CPU": patch.object(one_vs_rest, "find_gpu", lambda: None)}
    if one_vs_rest.find_gpu():
        places["card"] = patch.object(one_vs_rest, "find_gpu", one_vs_rest.find_gpu)
    for place, chosen in places.items():
        with chosen:
            if place == "card":
                LogisticHead().fit(X[:2000], Y[:2000])  # compiled
            begun = time.perf_counter()
            scores[place] = LogisticHead().fit(X, Y).predict_proba(X[:1000])
            seconds[place] = time.perf_counter() - begun
    words = ", ".join(f"{taken:.1f} s on the {place}" for place, taken in seconds.items())
    print(f"  logistic, {n_images:,} x {n_features:,} x {n_concepts}: {words}")
    if "card" in scores:
        print(f"  largest difference of a probability: {np.abs(scores['card'] - scores['CPU']).max():.1e}")
    else:
        print("  not on a card: none that the solver can use")
    print("  knn: its search runs on the CPU alone")


PARTS: dict[str, Callable[[Bench], None]] = {
    "machine": describe_machine,
    "network": build_networks,
    "pixels in memory": measure_pixels,
    "decoding": measure_decoding,
    "JPEG files": measure_files,
    "drift": measure_drift,
    "card and CPU": compare_with_cpu,
    "heads": measure_heads,
}


def _find_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _find_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _find_peak(bench: Bench, precision: str) -> float:
    """Operations a second of a large product of matrices in the same library and precision."""
    side = bench.pick(8192, 512) if bench.notes["engine"].n_gpus else 1024
    if bench.engine == "jax":
        from cache.support.jax import import_jax

        jax = import_jax()
        a = jax.random.normal(jax.random.key(0), (side, side)).astype(precision)
        product = jax.jit(lambda a, b: a @ b)
        call = lambda: product(a, a).block_until_ready()  # noqa: E731
    else:
        from cache.support.keras import import_tensorflow

        tf = import_tensorflow()
        b = tf.cast(tf.random.normal((side, side)), precision)
        call = lambda: tf.reduce_sum(tf.matmul(b, b)).numpy()  # noqa: E731
    call()
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return 2 * side**3 / min(times)


def _draw_jpeg(number: int) -> bytes:
    """A JPEG file of grey waves and grain, of about the size of a radiograph's."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / 100
    pixels = 120 + 60 * np.sin(x * rng.uniform(0.5, 2) + number) * np.cos(y * rng.uniform(0.5, 2))
    file = io.BytesIO()
    PIL.Image.fromarray(np.uint8(pixels + rng.normal(0, 6, pixels.shape))).convert("RGB").save(file, "JPEG", quality=90)
    return file.getvalue()


def _decode_all(files: list[bytes], size: int = 224) -> np.ndarray:
    from featurize.decoding.image import decode

    return np.stack([decode(each, size) for each in files])


def _print_difference(what: str, found: np.ndarray, expected: np.ndarray) -> None:
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosine = ((found * expected).sum(axis=1) / norms).min()
    relative = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"  {what}: cosine {cosine:.7f} or more to float32; largest difference {relative:.1e} of the largest number")


class _Printing:
    """Print what the library reports."""

    def __enter__(self) -> None:
        self._handler = logging.StreamHandler(sys.stdout)
        self._handler.setFormatter(logging.Formatter("  %(message)s"))
        self._logger = logging.getLogger("radconcepts")
        self._level = self._logger.level
        self._logger.addHandler(self._handler)
        self._logger.setLevel(logging.INFO)

    def __exit__(self, *args: object) -> None:
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._level)


def main() -> int:
    """Run every part; the status is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="", help="jax or tensorflow; the one that sees a card if not given")
    parser.add_argument("--small", action="store_true", help="a few seconds of each part: a test of this script")
    parser.add_argument("--seconds", type=float, default=230, help="no part begins later than this")
    args = parser.parse_args()
    from featurize.engines.registry import find_engine

    kinds = {name: find_engine(name) for name in ("jax", "tensorflow")}
    seen = [name for name, kind in kinds.items() if kind.is_installed() and kind.find_gpus()]
    engine = args.engine or (seen or [name for name, kind in kinds.items() if kind.is_installed()] or [""])[0]
    if not engine:
        print("neither JAX nor TensorFlow is installed: pip install jax keras flatbuffers", file=sys.stderr)
        return 1
    begun, failed = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), engine, args.small, begun + args.seconds)
        for name, part in PARTS.items():
            taken = time.perf_counter()
            if taken > bench.end:
                print(f"{name}: left out, the time is up")
                continue
            print(f"{name}:", flush=True)
            try:
                part(bench)
            except Exception as error:
                failed.append(name)
                print(f"  could not run: {type(error).__name__}: {error}")
                traceback.print_exc()
            print(f"  ({time.perf_counter() - taken:.0f} s)", flush=True)
    print(f"{time.perf_counter() - begun:.0f} s in all; {', '.join(failed) or 'no part'} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
