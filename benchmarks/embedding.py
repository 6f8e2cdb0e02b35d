"""Images a second, from JPEG files to a store, beside a well-written Keras baseline; and what lower precision costs.

The peer decodes and resizes with tf.data on all cores and calls `predict` in float32 with batches of 32; its best of
several runs counts. All run on the same files in one process after another, from having built the network to
having every embedding.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from cache.command import muted_imports
from cache.store import FeatureStore
from featurize.features import make_features
from featurize.phantoms.canvas import resize
from featurize.phantoms.concepts import make_phantom

with muted_imports():
    import tensorflow as tf

from featurize.backbone import Backbone

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


def run_peer(data: Path, repeats: int) -> tuple[float, np.ndarray]:
    """Images a second of tf.data and Keras, and its embeddings."""
    model = Backbone("densenet121", "random:0", SIZE).build().model
    paths = sorted(map(str, (data / "train").iterdir()))

    def load(path: Any) -> Any:
        pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.cast(tf.round(tf.image.resize(pixels, (SIZE, SIZE), antialias=True)), tf.uint8)

    best, embeddings = 0.0, np.empty(0)
    for _ in range(repeats):
        images = (
            tf.data.Dataset.from_tensor_slices(paths).map(load, tf.data.AUTOTUNE).batch(32).prefetch(tf.data.AUTOTUNE)
        )
        start = time.perf_counter()
        embeddings = model.predict(images, verbose=0)
        best = max(best, len(paths) / (time.perf_counter() - start))
    return best, embeddings


def run_ours(data: Path, engine: str, precision: str) -> tuple[float, np.ndarray]:
    """Images a second of this project, and its embeddings."""
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        given = {"weights": "random:0", "size": SIZE, "engine": engine, "precision": precision}
        path = Path(folder) / "s.h5"
        make_features(data, path, given, say=said.append)
        rate = next(line for line in said if "images embedded in" in line)
        embeddings = np.array(FeatureStore(path).split("train").embeddings)
    return float(rate.split("(")[1].split(" ")[0]), embeddings


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        draw(data, args.images)
        kilobytes = sum(path.stat().st_size for path in (data / "train").iterdir()) / args.images / 1000
        print(f"{args.images:,} JPEG files of {WIDTH}x{HEIGHT}, {kilobytes:.0f} KB each")
        peer, reference = run_peer(data, args.repeats)
        print(f"tf.data + Keras predict, float32: {peer:.1f} images/s")
        for engine, precision in (("openvino", "bfloat16"), ("openvino", "float32"), ("tensorflow", "float32")):
            rate, embeddings = run_ours(data, engine, precision)
            close = cosines(reference, embeddings)
            print(
                f"{engine}, {precision}: {rate:.1f} images/s, {rate / peer:.1f} times the peer, "
                f"{FULL:,} images in {FULL / rate / 60:.0f} minutes; cosine to the peer: "
                f"median {np.median(close):.6f}, worst {close.min():.6f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
