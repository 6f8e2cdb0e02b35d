"""A cluster on this machine: images per second of two workers beside one, and what a unit costs the coordinator.

Every worker is a process with one thread, and so is the network in it: one worker never uses two cores. The costs are
those of units whose embeddings cost nothing: 128 images with 1,024 features each, sent, fetched and written as parts.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cache.parts import Parts
from cache.provenance import Provenance
from cache.rows import Rows
from cache.support.cluster import connected, find_workers
from featurize.cluster import dispatcher
from featurize.phantoms.dataset import make_phantoms
from featurize.units import Unit

ROOT = Path(__file__).parents[1]
ENV = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}", "OMP_NUM_THREADS": "1"}
UNIT_IMAGES, N_FEATURES = 128, 1024
FACTS = ("densenet121", "0" * 64, "relu", "avg", 224, "1", "bilinear", "densenet", "openvino", "float32")


@contextmanager
def started(folder: Path, n_workers: int) -> Iterator[tuple[str, list[int]]]:
    """A scheduler and workers, each a process; gives its address, and the processes, the scheduler first."""
    file = Path(tempfile.mkdtemp(dir=folder)) / "scheduler.json"
    with ExitStack() as stack:

        def start(*words: str) -> int:
            command = [sys.executable, "-m", *words, "--no-dashboard"]
            process = stack.enter_context(subprocess.Popen(command, env=ENV, stderr=subprocess.DEVNULL))
            stack.callback(process.kill)
            return process.pid

        place: tuple[str, ...] = "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file)
        pids = [start("distributed.cli.dask_scheduler", *place)]
        while not file.exists() or not file.read_text():
            time.sleep(0.05)
        address = re.findall(r"tcp://[\d.:]+", file.read_text())[0]
        for _ in range(n_workers):
            options = "--nthreads", "1", "--no-nanny", "--local-directory", str(folder)
            pids.append(start("distributed.cli.dask_worker", address, *options))
        with connected(address) as client:
            while len(find_workers(client)) < n_workers:
                time.sleep(0.1)
        yield address, pids


def embed(data: Path, store: Path, scheduler: str) -> float:
    """Embed with the command; images per second."""
    words = [sys.executable, "-m", "featurize", str(data), "--store", str(store), "--weights", "random:0"]
    out = subprocess.run([*words, "--scheduler", scheduler], env=ENV, capture_output=True, text=True, check=True).stdout
    return float(re.findall(r"\(([\d.]+) images/s", out)[0])


def make_unit(version: str, images: list[Any], size: int, dtype: str) -> Unit:
    """On a worker: a unit that costs nothing."""
    digests = np.random.default_rng(images[0]).integers(0, 256, (UNIT_IMAGES, 32), np.uint8)
    rows = Rows(
        digests, np.zeros(UNIT_IMAGES, np.uint8), [""] * UNIT_IMAGES, np.zeros((UNIT_IMAGES, N_FEATURES), dtype)
    )
    return Unit(rows, {"read": 0.0, "decode": 0.0, "infer": 0.0})


class AnyWorkers:
    """In place of the checked workers: all."""

    def __init__(self, client: Any) -> None:
        self.fit = find_workers(client)

    def update(self) -> None:
        """Nothing changes."""


def measure_costs(folder: Path, n_units: int) -> None:
    """Print seconds and memory per unit of coordinator and scheduler."""
    import psutil

    dispatcher.embed_if_taken = make_unit  # type: ignore[assignment]
    parts = Parts(folder / "s.h5", Provenance(*FACTS))
    parts.start({})
    with started(folder, 2) as (address, pids), connected(address) as client:
        scheduler, own = psutil.Process(pids[0]), psutil.Process()
        workers: Any = AnyWorkers(client)

        def measure(first: int, n: int) -> None:
            units: Any = [[number] * UNIT_IMAGES for number in range(first, first + n)]
            dispatch = dispatcher.Dispatcher(client, workers, units, ("", 0, "float32"))
            before = (
                time.perf_counter(),
                time.process_time(),
                sum(scheduler.cpu_times()[:2]),
                scheduler.memory_info().rss,
            )
            writing = 0.0
            for unit in dispatch.run():
                begun = time.perf_counter()
                parts.add(unit.rows)
                writing += time.perf_counter() - begun
            wall, ours = time.perf_counter() - before[0], time.process_time() - before[1]
            theirs, grown = sum(scheduler.cpu_times()[:2]) - before[2], scheduler.memory_info().rss - before[3]
            sizes = [each.memory_info().rss / 2**20 for each in (scheduler, own)]
            print(f"{n:,} units: {1e3 * wall / n:.2f} ms each, of them {1e3 * writing / n:.2f} to write; processor "
                  f"{1e3 * ours / n:.2f} ms of the coordinator, {1e3 * theirs / n:.2f} ms of the scheduler; memory of "
                  f"the scheduler {sizes[0]:.0f} MiB ({grown / 2**20:+.1f}), of ours {sizes[1]:.0f} MiB")  # fmt: skip

        measure(0, n_units)
        measure(n_units, 4 * n_units)


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--units", type=int, default=250)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_costs(folder, args.units)
        make_phantoms(folder / "data", args.images, 0)
        rates = {}
        for n_workers in (1, 2):
            with started(folder, n_workers) as (address, pids):
                before = _spend(pids[1:])
                rates[n_workers] = embed(folder / "data", folder / f"{n_workers}.h5", address)
                spent = _spend(pids[1:]) - before
            print(f"{n_workers} worker: {rates[n_workers]:.1f} images/s; {1e3 * spent / args.images:.1f} ms of the "
                  "workers' processor per image, with loading the engine")  # fmt: skip
        print(f"efficiency of two: {rates[2] / rates[1] / 2:.0%}")


def _spend(pids: list[int]) -> float:
    """Processor seconds of some processes."""
    import psutil

    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


if __name__ == "__main__":
    main()
