"""What an exported model's scores of image files differ by from the run's, and what it costs to write.

For each precision of this machine's CPU engine: the largest and the mean difference over the images of test, for every
head, and how many of them are given other concepts at threshold 0.3. On real images if there are any, else on phantoms.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import keras
import numpy as np

from cache.images import find_images
from cache.store import FeatureStore
from cache.support.reporting import DataWarning
from featurize.decoding.image import decode
from featurize.engines.registry import choose_engine
from featurize.phantoms.dataset import make_phantoms
from featurize.pipeline import make_features
from heads.registry import HEADS
from heads.runs.builder import fit_run
from heads.runs.keras_model import export_run
from heads.runs.predictor import StoredRun

REAL = Path(__file__).parents[2] / "shared" / "data" / "radiology_mix"
MOST_FLOAT32 = 1e-3
"""Largest difference of a score where both compute in float32; neighbours that are equally near differ by more."""

BATCH = 16


def read_images(data: Path, store: FeatureStore, most: int) -> np.ndarray:
    """Pixels of the first images of test that can be read, in the store's order."""
    paths = {image.id: image.path for image in find_images(data)["test"]}
    split = store.split("test")
    readable = [paths[id] for id, can in zip(split.ids, split.readable, strict=True) if can]
    return np.stack([decode(path.read_bytes(), store.provenance.size) for path in readable[:most]])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--phantoms", type=int, default=600)
    parser.add_argument("--images", type=int, default=90)
    args = parser.parse_args()
    warnings.simplefilter("ignore", DataWarning)
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name), REAL
        if not REAL.is_dir():
            data = folder / "phantoms"
            make_phantoms(data, args.phantoms, 0)
        print(f"{data.name}, {args.weights}")
        print(f"{'precision':<11}{'head':<10}{'worst':>9}{'mean':>9}{'sets':>9}{'MB':>8}{'s':>6}")
        for precision in dict.fromkeys(("float32", choose_engine("openvino", "auto").engine.precision)):
            given = {"weights": args.weights, "engine": "openvino", "precision": precision}
            store = make_features(data, folder / f"{precision}.h5", **given)
            pixels = read_images(data, store, args.images)
            for head in HEADS:
                run = folder / precision / head
                fit_run(head, store.path, data, run)
                began = time.perf_counter()
                path = export_run(run)
                seconds = time.perf_counter() - began
                expected = StoredRun(run, store.path).scores("test")[: len(pixels)]
                model = keras.saving.load_model(path)
                parts = [model(pixels[start : start + BATCH], training=False) for start in range(0, len(pixels), BATCH)]
                scores = np.concatenate(parts)
                apart = np.abs(scores - expected)
                sets = ((scores >= 0.3) != (expected >= 0.3)).any(axis=1).sum()
                print(f"{precision:<11}{head:<10}{apart.max():>9.1e}{apart.mean():>9.1e}{f'{sets}/{len(pixels)}':>9}"
                      f"{path.stat().st_size / 1e6:>8.1f}{seconds:>6.1f}", flush=True)  # fmt: skip
                assert precision != "float32" or head == "knn" or apart.max() <= MOST_FLOAT32


if __name__ == "__main__":
    main()
