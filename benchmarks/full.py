"""The whole way at full size: every image of ROCOv2 as a phantom, from drawing to a checked submission; a million rows.

The commands are the real ones, each in a process of its own, and the peak memory of each is that of the largest of its
processes: all of it, and in brackets without the pages of files, which the system takes back when it needs them.
Embedding is killed once in the middle, and must end with the bytes of a run that was not disturbed: that of a cluster
of two workers on this machine, so that both ways are run.

A million rows are drawn, not embedded: `status`, `verify`, `duplicates` of a part of them (all pairs are compared, so
time grows with the square), a run of `ridge`, the default run, and scores of all of test.

At full size this takes hours. ``--images`` and ``--rows`` make it smaller; 0 leaves that half out.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from full_size import N_CONCEPTS, N_FEATURES, draw_embeddings, draw_labels

from cache.images import Listing
from cache.parts import find_unfinished
from cache.provenance import Provenance
from cache.rows import Rows
from cache.store import FeatureStore
from cache.writer import write_store
from featurize.phantoms.dataset import make_phantoms

N_IMAGES, N_ROWS = 97_317, 1_000_000
SHARES = {"train": 0.72, "valid": 0.10, "test": 0.18}
"""Splits of the drawn rows, about as ROCOv2 has them."""

BLOCK_ROWS = 50_000
"""Rows that are drawn; further ones repeat them with noise."""

NOISE = 0.2
"""Standard deviation of that noise, where embeddings are about 1."""

FACTS = ("densenet121", "0" * 64, "relu", "avg", 224, "1", "bilinear antialiased", "densenet", "openvino", "float32")


def run(name: str, *words: object, kill_at: float | None = None, store: Path | None = None) -> str:
    """Run a command, print its seconds and the peak memory of its processes, and return what it printed.

    Parameters
    ----------
    name : str
        What the line of the result begins with.
    *words : object
        The words after ``python -m``.
    kill_at : float, optional
        Kill the command once so many images are finished in the parts of `store`.
    """
    begun, peak = time.perf_counter(), [0, 0]
    with subprocess.Popen(
        [sys.executable, "-m", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        done = threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, peak, done))
        watcher.start()
        if kill_at is not None and store is not None:
            while process.poll() is None and _count_finished(store) < kill_at:
                time.sleep(0.2)
            process.send_signal(signal.SIGKILL)
        out = process.communicate()[0]
        done.set()
        watcher.join()
    expected = -signal.SIGKILL if kill_at is not None else 0
    assert process.returncode == expected, f"{name}: {out}"
    seconds, (whole, own) = time.perf_counter() - begun, (each / 2**20 for each in peak)
    print(f"{name:<34} {seconds:9.1f} s {whole:9,.0f} MiB ({own:,.0f})", flush=True)
    return out


def _watch(pid: int, peak: list[int], done: threading.Event) -> None:
    """Note the most memory, in bytes, that one of the processes of a command ever had: all, and without files."""
    import psutil

    while not done.wait(0.2):
        try:
            processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            for memory in (each.memory_info() for each in processes):
                peak[:] = max(peak[0], memory.rss), max(peak[1], memory.rss - memory.shared)
        except psutil.Error:
            continue  # one of them has ended


def _count_finished(store: Path) -> int:
    return sum(len(digests) for parts in find_unfinished(store) for digests in parts.digests())


def go_the_whole_way(place: Path, n_images: int) -> None:
    """Draw phantoms, embed them, train, score, and write a submission of test."""
    data, store, other, out = place / "data", place / "s.h5", place / "cluster.h5", place / "run"
    begun = time.perf_counter()
    make_phantoms(data, n_images, 0)
    print(f"{f'{n_images:,} phantoms drawn':<34} {time.perf_counter() - begun:9.1f} s", flush=True)
    options = ("--weights", "random:0")
    run(
        "featurize, killed in the middle",
        "featurize",
        data,
        "--store",
        store,
        *options,
        kill_at=n_images / 2,
        store=store,
    )
    n_finished = _count_finished(store)
    resumed = run("featurize, to the end", "featurize", data, "--store", store, *options)
    assert f"{n_images - n_finished:,} images to embed" in resumed, resumed
    run(
        "featurize on a cluster of two",
        "featurize",
        data,
        "--store",
        other,
        *options,
        "--scheduler",
        "local",
        "--workers",
        2,
    )
    assert FeatureStore(store).content == FeatureStore(other).content
    fit = ("heads", "fit", "kernel", "--store", store, "--data", data, "--out", out)
    run("heads fit, the default run", *fit)
    for decoder in ("global", "per-concept", "fixed:0.3"):
        run(f"heads fit, decoder {decoder}", *fit, "--decoder", decoder)
    run("heads predict", "heads", "predict", out, "--store", store, "--data", data)
    submission = out / "submission.csv"
    n_rows = len(submission.read_text(encoding="utf-8").splitlines())
    print(f"{n_rows:,} lines in {submission.name}")
    run("eval score of valid", "eval", "score", out / "valid.csv", "--truth", data / "valid_concepts.csv")
    shutil.rmtree(place)


def go_through_rows(place: Path, n_rows: int) -> None:
    """Draw a store of many rows, and run what reads it."""
    data, store, part = place / "data", place / "rows.h5", place / "part.h5"
    begun = time.perf_counter()
    sizes = {split: int(share * n_rows) for split, share in SHARES.items()}
    _draw_store(store, data, sizes)
    print(f"{f'{n_rows:,} rows drawn':<34} {time.perf_counter() - begun:9.1f} s", flush=True)
    run("cache status", "cache", "status", store)
    run("cache verify", "cache", "verify", store)
    few = {split: min(size, 10_000) for split, size in sizes.items()}
    _draw_store(part, place / "few", few)
    run(f"cache duplicates of {sum(few.values()):,}", "cache", "duplicates", part)
    paths = ("--store", store, "--data", data, "--out")
    run("heads fit ridge", "heads", "fit", "ridge", *paths, place / "ridge")
    run("heads fit, the default run", "heads", "fit", "kernel", *paths, place / "run")
    run("heads predict", "heads", "predict", place / "run", "--store", store)
    shutil.rmtree(place)


def _draw_store(path: Path, data: Path, sizes: dict[str, int]) -> None:
    """Write a store of drawn embeddings, and the labels that go with them.

    Labels and embeddings of the first rows are repeated by the others, with noise on the embeddings.
    """
    data.mkdir(parents=True, exist_ok=True)
    n_all = sum(sizes.values())
    n_drawn = min(n_all, BLOCK_ROWS)
    concepts = [
        [f"C{column:07d}" for column in row.indices] or ["C0000000"] for row in draw_labels(n_drawn, N_CONCEPTS, 0)
    ]
    listings, start = {}, 0
    for split, size in sizes.items():
        ids = [f"{split}_{number:07d}" for number in range(size)]
        listings[split] = Listing(ids, [_digest(number) for number in range(start, start + size)], [""] * size)
        if split != "test":
            rows = (f"{id},{';'.join(concepts[(start + row) % n_drawn])}" for row, id in enumerate(ids))
            (data / f"{split}_concepts.csv").write_text("\n".join(["ID,CUIs", *rows, ""]), encoding="utf-8")
        start += size
    record = {"asked": {"weights": "random:0", "layer": ""}, "weights_source": "random:0"}
    write_store(path, Provenance(*FACTS), record, listings, _draw_rows(n_all, n_drawn), (N_FEATURES,))


def _draw_rows(n_all: int, n_drawn: int) -> Iterator[Rows]:
    drawn = draw_embeddings(draw_labels(n_drawn, N_CONCEPTS, 0), N_FEATURES, 0)
    for start in range(0, n_all, n_drawn):
        numbers = range(start, min(start + n_drawn, n_all))
        noise = np.random.default_rng(start).standard_normal((len(numbers), N_FEATURES), np.float32)
        digests = np.frombuffer(b"".join(map(_digest, numbers)), np.uint8).reshape(-1, 32)
        X = np.maximum(drawn[: len(numbers)] + NOISE * noise, 0)
        yield Rows(digests, np.zeros(len(numbers), np.uint8), [""] * len(numbers), X)


def _digest(number: int) -> bytes:
    """A digest that stands for an image's bytes."""
    return number.to_bytes(31) + b"\1"


def main() -> None:
    """Run both parts, and print a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=N_IMAGES, help="phantoms that are drawn and embedded")
    parser.add_argument("--rows", type=int, default=N_ROWS, help="rows that are drawn")
    parser.add_argument("--folder", type=Path, help="where to work (a temporary folder)")
    args = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[1]))
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        if args.images:
            go_the_whole_way(Path(name) / "whole", args.images)
        if args.rows:
            go_through_rows(Path(name) / "rows", args.rows)


if __name__ == "__main__":
    main()
