"""The store at full size: 97,317 × 1,024 float32, as ImageCLEFmedical Caption 2024 has it.

Prints the time to open it and take a split, beside h5py's reading of the same rows, the time to check every
byte, to find duplicates, and the peak memory of that.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from cache.images import Listing
from cache.provenance import Provenance
from cache.rows import Rows
from cache.store import FeatureStore
from cache.verify import verify_store
from cache.writer import write_store

SIZES = {"train": 70_108, "valid": 9_972, "test": 17_237}
FEATURES = 1024
REPEATS = 5


def make_store(path: Path) -> None:
    """Write a store of drawn embeddings; every hundredth image is nearly one of those before it."""
    random = np.random.default_rng(0)
    listings, parts, first = {}, [], 1
    for split, n_images in SIZES.items():
        digests = [number.to_bytes(32, "big") for number in range(first, first + n_images)]
        ids = [f"ImageCLEFmedical_Caption_2024_{split}_{number:06d}" for number in range(n_images)]
        listings[split] = Listing(ids, list(digests), [""] * n_images)
        parts += [digests[start : start + 4096] for start in range(0, n_images, 4096)]
        first += n_images

    def rows() -> object:
        for digests in parts:
            values = random.random((len(digests), FEATURES), np.float32) - np.float32(0.3)
            values[99::100] = values[98::100][: len(values[99::100])] * np.float32(1.001)
            joined = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
            yield Rows(joined, np.zeros(len(digests), np.uint8), [""] * len(digests), values)

    facts = Provenance("densenet121", "0" * 64, "relu", "avg", 224, "1", "bilinear", "densenet", "openvino", "float32")
    record = {"asked": {"weights": "random:0", "layer": ""}, "weights_source": "random:0"}
    write_store(path, facts, record, listings, rows(), (FEATURES,))  # type: ignore[arg-type]


def take_split(path: Path) -> float:
    """Seconds to open the store and take the training embeddings."""
    start = time.perf_counter()
    embeddings = FeatureStore(path).split("train").embeddings
    assert embeddings.shape == (SIZES["train"], FEATURES)
    return time.perf_counter() - start


def read_split(path: Path) -> float:
    """Seconds to read the training embeddings with h5py."""
    start = time.perf_counter()
    with h5py.File(path, "r", locking=False) as file:
        file["splits/train/embeddings"][:]
    return time.perf_counter() - start


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.h5"
        start = time.perf_counter()
        make_store(path)
        print(f"packed {path.stat().st_size / 1e6:.0f} MB in {time.perf_counter() - start:.1f} s")
        ours, peer = (min(take(path) for _ in range(REPEATS)) for take in (take_split, read_split))
        print(f"open and take a split: {1e3 * ours:.0f} ms, h5py {1e3 * peer:.0f} ms ({peer / ours:.0f} times)")
        start = time.perf_counter()
        assert not verify_store(path)
        print(f"verify: {time.perf_counter() - start:.1f} s")
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "cache", "duplicates", path], check=True)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
        print(f"duplicates: {seconds:.0f} s, {peak:.2f} GiB at the most")
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "cache", "duplicates", path, "--cosine", "0.01"], check=True)
        print(f"duplicates where every pair is one: {time.perf_counter() - start:.0f} s")
        start = time.perf_counter()
        store = FeatureStore(path)
        listings = {
            name: Listing(split.ids, [digest.tobytes() for digest in split.rows.digests], [""] * len(split.ids))
            for name, split in store.splits.items()
        }
        write_store(Path(folder) / "again.h5", store.provenance, store.record, listings, store.blocks(), (FEATURES,))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        print(f"packed again in {time.perf_counter() - start:.1f} s; {peak:.2f} GiB at the most in this process")


if __name__ == "__main__":
    main()
