"""Images a second, from JPEG files to a store, beside a well-written Keras baseline; memory and the time of a start.

The peer decodes and resizes with tf.data on all cores and calls `predict` in float32 with batches of 32. It and ours
take turns on the same files, from having built the network to having every embedding; of each the best turn counts.

What there is to gain is the share of this machine's arithmetic that is not used: the multiplications of the network's
convolutions, at the rate at which images are embedded, beside those of a plain matrix product in the same precision.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from joblib import cpu_count

from cache.support.command import muted_imports
from featurize.backbone import Backbone
from featurize.engines.openvino import HINTS
from featurize.engines.registry import choose_engine
from featurize.phantoms.canvas import resize
from featurize.phantoms.concepts import make_phantom

HEIGHT, WIDTH = 600, 700
SIZE = 224
FULL = 97_317
"""Images of ImageCLEFmedical Caption 2024."""


def draw(folder: Path, n_images: int) -> None:
    """Draw JPEG files of the size that radiographs in papers have."""
    (folder / "train").mkdir(parents=True)
    for number in range(n_images):
        pixels = resize(make_phantom(np.random.default_rng([1, number])).pixels, HEIGHT, WIDTH)
        grain = np.random.default_rng(number).normal(0, 0.02, pixels.shape)
        picture = PIL.Image.fromarray(np.uint8(255 * np.clip(pixels + grain, 0, 1)))
        picture.convert("RGB").save(folder / "train" / f"p{number:06d}.jpg", quality=90)


def make_peer(data: Path) -> Callable[[], float]:
    """tf.data and Keras: embeds the images once more at each call, and gives images a second."""
    with muted_imports():
        import tensorflow as tf
    model = Backbone("densenet121", "random:0", SIZE).build().model
    paths = sorted(map(str, (data / "train").iterdir()))

    def load(path: Any) -> Any:
        pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.cast(tf.round(tf.image.resize(pixels, (SIZE, SIZE), antialias=True)), tf.uint8)

    def embed(paths: list[str]) -> None:
        images = tf.data.Dataset.from_tensor_slices(paths).map(load, tf.data.AUTOTUNE)
        model.predict(images.batch(32).prefetch(tf.data.AUTOTUNE), verbose=0)

    def run() -> float:
        start = time.perf_counter()
        embed(paths)
        return len(paths) / (time.perf_counter() - start)

    embed(paths[:32])  # compiles it
    return run


@dataclass(frozen=True)
class Ours:
    """One run of the command: images a second, seconds to the first image, peak memory in bytes."""

    rate: float
    first: float
    coordinator: int
    worker: int


def run_ours(data: Path, store: Path, *options: str) -> Ours:
    """Run the command as a user would, and look at it from outside."""
    command = [sys.executable, "-m", "featurize", str(data), "--store", str(store), "--weights", "random:0", *options]
    start, first = time.perf_counter(), 0.0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid in [process.pid, *_children(process.pid)]:
            peaks[pid] = max(peaks.get(pid, 0), _peak_memory(pid))
        if not first and any(store.parent.glob(f"{store.name}.parts/*/*.part")):
            first = time.perf_counter() - start
        time.sleep(0.1)
    assert process.stdout is not None
    said = process.stdout.read()
    assert process.returncode == 0, said
    rate = next((float(line.split("(")[1].split()[0]) for line in said.splitlines() if " embedded in " in line), 0.0)
    coordinator = peaks.pop(process.pid)
    return Ours(rate, first, coordinator, max(peaks.values(), default=0))


def count_operations() -> int:
    """Multiplications and additions of the convolutions for one image."""
    model = Backbone("densenet121", "random:0", SIZE).build().model
    return sum(
        2 * int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:3]))
        for layer in model._flatten_layers(include_self=False, recursive=True)
        if type(layer).__name__ == "Conv2D"
    )


def measure_product(precision: str, side: int = 2048, n_times: int = 20) -> float:
    """Multiplications and additions a second of a matrix product in OpenVINO, on all cores: the best of some times."""
    import openvino
    from openvino import opset13 as operations

    matrix = np.random.default_rng(0).standard_normal((side, side), np.float32)
    parameter = operations.parameter([side, side], np.float32)
    product = openvino.Model([operations.matmul(parameter, operations.constant(matrix), False, False)], [parameter])
    request = openvino.Core().compile_model(product, "CPU", {"INFERENCE_PRECISION_HINT": HINTS[precision]})
    seconds = []
    for _ in range(n_times):
        start = time.perf_counter()
        request(matrix)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)


def _children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if path.read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(path.parent.name))
    return found


def _peak_memory(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return 1024 * int(line.split()[1])
    return 0


def run_many(folder: Path, n_images: int) -> tuple[Ours, float]:
    """A run over many small images with a cheap network, and the seconds of a second one, which finds nothing to do."""
    (folder / "many" / "train").mkdir(parents=True)
    for number in range(n_images):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / "many" / "train" / f"p{number:06d}.png")
    first = run_ours(folder / "many", folder / "many.h5", "--backbone", "mobilenet", "--size", "32")
    start = time.perf_counter()
    run_ours(folder / "many", folder / "many.h5")
    return first, time.perf_counter() - start


def tell(engine: str, precision: str, runs: list[Ours]) -> None:
    """One line of the best run of a setting; memory is that of the largest."""
    rate = max(run.rate for run in runs)
    print(
        f"{engine}, {precision}: {rate:.1f} images/s, {FULL:,} images in {FULL / rate / 60:.0f} minutes; "
        f"first images after {min(run.first for run in runs):.1f} s; memory "
        f"{max(run.coordinator for run in runs) / 2**20:.0f} MiB in the coordinator, "
        f"{max(run.worker for run in runs) / 2**20:.0f} MiB in the largest other process",
        flush=True,
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "data", args.images)
        kilobytes = sum(path.stat().st_size for path in (folder / "data" / "train").iterdir()) / args.images / 1000
        print(f"{args.images:,} JPEG files of {WIDTH}x{HEIGHT}, {kilobytes:.0f} KB each; {cpu_count()} cores")
        if "amx_bf16" not in Path("/proc/cpuinfo").read_text():
            print("this CPU has no AMX: only the ratio in float32 is to be held to the aim")
        native = choose_engine("openvino", "auto").engine.precision
        settings = list(dict.fromkeys([("openvino", native), ("openvino", "float32"), ("tensorflow", "float32")]))
        run_peer, peer = make_peer(folder / "data"), []
        ours: dict[tuple[str, str], list[Ours]] = {setting: [] for setting in settings}
        for turn in range(args.repeats):
            for engine, precision in settings:
                store = folder / f"{engine}.{precision}.{turn}.h5"
                options = ("--engine", engine, "--precision", precision)
                ours[engine, precision].append(run_ours(folder / "data", store, *options))
            peer.append(run_peer())
        for setting, runs in ours.items():
            tell(*setting, runs)
        operations = count_operations()
        for precision in dict.fromkeys(precision for engine, precision in settings if engine == "openvino"):
            ours_per_s = operations * max(run.rate for run in ours["openvino", precision])
            product = measure_product(precision)
            print(f"openvino, {precision}: {ours_per_s / 1e9:,.0f} of {product / 1e9:,.0f} GFLOP/s of a plain product, "
                  f"{ours_per_s / product:.0%}", flush=True)  # fmt: skip
        print(f"tf.data + Keras predict, float32: {max(peer):.1f} images/s")
        for (engine, precision), runs in ours.items():
            turns = ", ".join(f"{run.rate / rate:.2f}" for run, rate in zip(runs, peer, strict=True))
            ratio = max(run.rate for run in runs) / max(peer)
            print(f"{engine}, {precision}: {ratio:.2f} times the peer, best to best (turn by turn {turns})", flush=True)
        many, seconds = run_many(folder, args.many)
        print(f"{args.many:,} images: {many.coordinator / 2**20:.0f} MiB in the coordinator at most")
        print(f"{args.many:,} images, nothing to do: {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
