"""What faster arithmetic and faster decoding cost, against TensorFlow in float32 that decodes every pixel.

For each engine and precision that this machine has: cosine of its embeddings to the reference's, the largest difference
relative to the largest number, and the change of a logistic head's valid F1 at threshold 0.3. JPEG files are decoded at
a fraction where that is not below the target, which small files never are at full size: that choice is looked at apart,
at half the size. On real images and trained weights if there are any, else on phantoms and random ones.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

from cache.store import FeatureStore
from featurize.engines.registry import choose_engine
from featurize.phantoms.dataset import make_phantoms
from featurize.pipeline import make_features
from heads.runs.builder import fit_run

SHARED = Path(__file__).parents[2] / "shared"
REAL, TRAINED = SHARED / "data" / "radiology_mix", SHARED / "weights" / "densenet121_radiology_notop.h5"
SIZE = 224
LEAST_COSINE, MOST_CHANGE, MOST_BETWEEN = 0.9995, 0.005, 1e-4


@dataclass(frozen=True)
class Result:
    """All readable embeddings of a data folder, and the valid F1 of a head that is trained on them."""

    embeddings: np.ndarray
    f1: float


@dataclass(frozen=True)
class Bench:
    """On what it is measured."""

    data: Path
    folder: Path
    weights: str

    def embed(self, engine: str, precision: str, size: int, *, whole: bool = False) -> Result:
        """Embed, fit and score; `whole` decodes every pixel."""
        name = f"{engine}.{precision}.{size}.{whole}"
        given = {"weights": self.weights, "engine": engine, "precision": precision, "size": size}
        with _every_pixel() if whole else contextlib.nullcontext():
            # What is patched is this process alone.
            workers = 1 if whole else None
            store = make_features(self.data, self.folder / f"{name}.h5", **given, workers=workers)
        metrics = fit_run("logistic", store.path, self.data, self.folder / name, decoder="fixed:0.3")
        return Result(_embeddings(store), metrics["valid"]["primary"])


@contextlib.contextmanager
def _every_pixel() -> Iterator[None]:
    with patch.object(JpegImageFile, "draft", lambda *args: None):
        yield


def _embeddings(store: FeatureStore) -> np.ndarray:
    return np.concatenate([split.embeddings[split.readable] for split in store.splits.values()]).astype(np.float64)


def tell(name: str, reference: Result, found: Result) -> tuple[float, float]:
    """Print a row, hold it to the aim that all rows have; returns the median cosine and the largest difference."""
    a, b = reference.embeddings, found.embeddings
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    difference, change = np.abs(a - b).max() / np.abs(a).max(), found.f1 - reference.f1
    print(f"{name:<34}{np.median(cosine):>14.6f}{cosine.min():>10.6f}{difference:>12.1e}{change:>+14.4f}", flush=True)
    assert abs(change) <= MOST_CHANGE, "the head's score has changed too much"
    return float(np.median(cosine)), float(difference)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", default=str(TRAINED) if TRAINED.is_file() else "random:0")
    parser.add_argument("--phantoms", type=int, default=1500)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(REAL if REAL.is_dir() else Path(name, "phantoms"), Path(name), args.weights)
        if bench.data != REAL:
            make_phantoms(bench.data, args.phantoms, 0)
        reference = bench.embed("tensorflow", "float32", SIZE, whole=True)
        print(f"{len(reference.embeddings):,} images of {bench.data.name}, weights {Path(bench.weights).name}")
        print(f"tensorflow, float32, {SIZE} px, whole JPEG: valid F1 {reference.f1:.4f}; against it")
        print(f"{'':<34}{'median cosine':>14}{'worst':>10}{'difference':>12}{'change of F1':>14}")
        natives = [(engine, choose_engine(engine, "auto").engine.precision) for engine in ("openvino", "tensorflow")]
        for engine, precision in dict.fromkeys([("openvino", "float32"), *natives]):
            if (engine, precision) == ("tensorflow", "float32"):
                continue
            median, difference = tell(f"{engine}, {precision}", reference, bench.embed(engine, precision, SIZE))
            assert median >= LEAST_COSINE, "the median cosine is too low"
            assert precision != "float32" or difference <= MOST_BETWEEN, "the engines differ"
        whole, scaled = (bench.embed("openvino", "float32", SIZE // 2, whole=each) for each in (True, False))
        tell(f"{SIZE // 2} px: JPEG scaled, not whole", whole, scaled)


if __name__ == "__main__":
    main()
