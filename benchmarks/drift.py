"""What faster arithmetic and faster decoding cost, against TensorFlow in float32 that decodes every pixel.

For each engine and precision that this machine has: cosine of its embeddings to the reference's, and the change of a
logistic head's valid F1 at threshold 0.3. On real images if there are any, else on phantoms.
"""

import argparse
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

from cache.store import FeatureStore
from featurize.engines import choose
from featurize.features import make_features
from featurize.phantoms.dataset import make_phantoms
from heads.fitting import fit_run

REAL = Path(__file__).parents[2] / "shared" / "data" / "radiology_mix"
LEAST_COSINE, MOST_CHANGE = 0.9995, 0.005


def embed(data: Path, folder: Path, name: str, engine: str, precision: str, weights: str) -> tuple[np.ndarray, float]:
    """All readable embeddings of a data folder, and the valid F1 of a head that is trained on them."""
    given = {"weights": weights, "engine": engine, "precision": precision}
    store = make_features(data, folder / f"{name}.h5", given, say=lambda line: None, warn=lambda line: None)
    quiet = {"say": lambda line: None, "warn": lambda line: None}
    metrics = fit_run("logistic", store.path, data, folder / name, {"decoder": "fixed:0.3"}, **quiet)
    return _embeddings(store), metrics["valid"]["primary"]


def _embeddings(store: FeatureStore) -> np.ndarray:
    return np.concatenate([split.embeddings[split.readable] for split in store.splits.values()]).astype(np.float64)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows."""
    cosine: np.ndarray = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return cosine


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--phantoms", type=int, default=1500)
    args = parser.parse_args()
    native = choose("openvino", "auto").precision
    settings = [("openvino", "float32"), ("tensorflow", "float32")]
    settings = settings if native == "float32" else [("openvino", native), *settings]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = REAL
        if not REAL.is_dir():
            data = folder / "phantoms"
            make_phantoms(data, args.phantoms, 0, lambda line: None)
        with patch.object(JpegImageFile, "draft", lambda *args: None):  # in this process, where TensorFlow decodes
            reference, exact = embed(data, folder, "reference", "tensorflow", "float32", args.weights)
        print(f"{len(reference):,} images of {data.name}, {args.weights}; valid F1 of the reference {exact:.4f}")
        print(f"{'engine':<12}{'precision':<11}{'JPEG':<9}{'median cosine':>14}{'worst':>11}{'change of F1':>14}")
        for engine, precision in settings:
            embeddings, f1 = embed(data, folder, f"{engine}.{precision}", engine, precision, args.weights)
            close = cosines(reference, embeddings)
            row = f"{engine:<12}{precision:<11}{'scaled':<9}{np.median(close):>14.6f}{close.min():>11.6f}"
            print(f"{row}{f1 - exact:>+14.4f}", flush=True)
            assert np.median(close) >= LEAST_COSINE, "the median cosine is too low"
            assert abs(f1 - exact) <= MOST_CHANGE, "the head's score has changed too much"


if __name__ == "__main__":
    main()
