"""An epoch of fine-tuning from cached maps, beside an epoch of the same training end to end from JPEG files.

Both train DenseNet-121 from layer 277 on at 255 px with batches of 32 in float32, batch normalisation by its kept
statistics. The peer decodes and resizes with tf.data on all cores and runs the whole network, its first layers frozen.
The first epoch of each, in which TensorFlow compiles, does not count.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from embedding import draw
from joblib import cpu_count

from cache.network_files import TAIL
from cache.store import FeatureStore
from cache.support.command import muted_imports
from featurize.pipeline import make_features
from featurize.weights import load_weights
from heads.data.maps import Maps
from heads.estimators.tail import TailHead
from heads.networks.stored import StoredNetwork

SIZE, LAST_FROZEN, BATCH, N_CONCEPTS = 255, 276, 32, 100


def time_tail(store: FeatureStore, Y: scipy.sparse.csr_matrix, repeats: int) -> list[float]:
    """Seconds of each epoch from the cut, but the first."""
    head = TailHead(epochs=1 + repeats, batch_size=BATCH, held_out=0.0, precision="float32")
    head.set_network(StoredNetwork.find(store, TAIL).path)
    ends: dict[int, float] = {}
    n_images = Y.shape[0]

    def watch(n_done: int, n_all: int) -> None:
        if n_done >= n_images * (len(ends) + 1) - 1 or n_done == n_all:
            ends[len(ends)] = time.perf_counter()

    head.fit(Maps.from_array(store.split("train").embeddings), Y, progress=watch)
    return np.diff(list(ends.values())[: 1 + repeats]).tolist()


def time_whole(folder: Path, Y: scipy.sparse.csr_matrix, repeats: int) -> list[float]:
    """Seconds of each epoch end to end, but the first."""
    with muted_imports():
        import keras
        import tensorflow as tf

    class Whole(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = load_weights(keras.applications.DenseNet121, "random:0", SIZE)
            for layer in self.network.layers[: LAST_FROZEN + 1]:
                layer.trainable = False
            self.pool, self.outputs_ = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(N_CONCEPTS)

        def call(self, pixels: Any) -> Any:
            return self.outputs_(self.pool(self.network(pixels, training=False)))

    def load(path: Any, labels: Any) -> Any:
        pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        pixels = tf.image.resize(pixels, (SIZE, SIZE), antialias=True)
        return keras.applications.densenet.preprocess_input(pixels), labels

    paths = sorted(map(str, (folder / "train").iterdir()))
    images = tf.data.Dataset.from_tensor_slices((paths, Y.toarray().astype(np.uint8))).shuffle(len(paths), 0)
    images = images.map(load, tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)
    ends: list[float] = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
    model = Whole()
    model.compile(keras.optimizers.Adam(0.001), keras.losses.BinaryCrossentropy(from_logits=True), jit_compile=False)
    model.fit(images, epochs=1 + repeats, callbacks=[note], shuffle=False, verbose=0)
    return np.diff(ends).tolist()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "data", args.images)
        random = np.random.default_rng(0)
        Y = scipy.sparse.csr_matrix(random.random((args.images, N_CONCEPTS)) < 0.03, dtype=np.int8)
        start = time.perf_counter()
        store = make_features(
            folder / "data", folder / "maps.h5", weights="random:0", size=SIZE, layer=LAST_FROZEN, pooling="none"
        )
        made = time.perf_counter() - start
        shape = store.split("train").embeddings.shape[1:]
        print(f"{args.images:,} JPEG files of 700x600; {cpu_count()} cores; maps of {shape} made once in {made:.0f} s")
        ours = min(time_tail(store, Y, args.repeats))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rate = f"{args.images / ours:.1f} images/s"
        print(f"from the cut: {ours:.1f} s an epoch, {rate}; {peak:.1f} GiB at most", flush=True)
        peer = min(time_whole(folder / "data", Y, args.repeats))
        print(f"end to end with tf.data: {peer:.1f} s an epoch, {args.images / peer:.1f} images/s")
        print(f"an epoch from the cut is {peer / ours:.1f} times as fast")


if __name__ == "__main__":
    main()
