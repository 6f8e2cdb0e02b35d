"""The default run at full size: from a finished store to the sets of the test images, beside scikit-learn.

Run as ``python benchmarks/default.py [--share 0.25] [--labels FOLDER] [--without-peer]``. The store has 80,080 train,
9,972 valid and 17,237 test images, or a share of them. Labels are drawn, or those of a folder with
``train_concepts.csv`` are, from which rows are drawn. Prints seconds, processor seconds and peak memory of

- ``python -m heads fit kernel``, with the default decoder on out-of-fold scores, and ``python -m heads predict``;
- the same scores from scikit-learn: `Nystroem` and `Ridge` with `cross_val_predict`, `fit` and `predict`. There is no
  Platt calibration and no decoding in it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.sparse
from full_size import draw_embeddings

from cache.images import Listing
from cache.provenance import Provenance
from cache.rows import Rows
from cache.writer import write_store
from eval.labels import read_concepts
from heads.data.vocabulary import find_vocabulary, indicator

SIZES = {"train": 80_080, "valid": 9_972, "test": 17_237}
N_FEATURES, N_CONCEPTS, N_MODALITIES = 1024, 1945, 8

PEER = """
import sys
import numpy as np, scipy.sparse
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
X, queries = np.load(sys.argv[1] + "/train.npy", mmap_mode="r"), np.load(sys.argv[1] + "/test.npy", mmap_mode="r")
Y = scipy.sparse.load_npz(sys.argv[1] + "/labels.npz").toarray().astype(np.float32)
model = make_pipeline(
    StandardScaler(), Nystroem(gamma=0.5 / X.shape[1], n_components=4096, random_state=0), Ridge(alpha=0.2)
)
scores = cross_val_predict(model, X, Y, cv=KFold(5, shuffle=True, random_state=0))
model.fit(X, Y).predict(queries)
"""


def draw_labels(n_images: int, random: np.random.Generator) -> scipy.sparse.csr_matrix:
    """Labels like ROCOv2's: half of the concepts have few images, and concepts of one modality occur together."""
    rates = 1 / np.arange(1, N_CONCEPTS + 1) ** 1.05
    modality_of = random.integers(0, N_MODALITIES, N_CONCEPTS)
    modalities = random.choice(N_MODALITIES, n_images, p=np.arange(N_MODALITIES, 0, -1) / 36)
    sizes = 1 + random.poisson(2.2, n_images)
    rows = np.repeat(np.arange(n_images), sizes)
    columns = random.choice(N_CONCEPTS, len(rows), p=rates / rates.sum())
    for modality in range(N_MODALITIES):
        own = np.flatnonzero(modality_of == modality)
        chosen = np.flatnonzero((modalities[rows] == modality) & (random.random(len(rows)) < 0.6))
        columns[chosen] = random.choice(own, len(chosen), p=rates[own] / rates[own].sum())
    Y = scipy.sparse.csr_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(n_images, N_CONCEPTS))
    Y.data[:] = 1
    return Y


def read_labels(folder: Path, n_images: int, random: np.random.Generator) -> scipy.sparse.csr_matrix:
    """Labels of images that are drawn from a folder."""
    concepts = read_concepts(folder / "train_concepts.csv").tolist()
    Y = indicator(concepts, find_vocabulary(concepts))
    return Y[random.integers(0, Y.shape[0], n_images)]


def make_inputs(folder: Path, share: float, labels: Path | None) -> None:
    """Write a store, a data folder, and the same as arrays for scikit-learn."""
    random = np.random.default_rng(0)
    sizes = {split: round(share * n_images) for split, n_images in SIZES.items()}
    n_images = sum(sizes.values())
    Y = read_labels(labels, n_images, random) if labels else draw_labels(n_images, random)
    X = draw_embeddings(Y, N_FEATURES, 0)
    (folder / "data").mkdir()
    listings, first = {}, 0
    digests = np.random.default_rng(1).integers(0, 256, (n_images, 32), np.uint8)
    for split, size in sizes.items():
        rows = slice(first, first + size)
        ids = [f"{split}_{number:06d}" for number in range(size)]
        listings[split] = Listing(ids, [digest.tobytes() for digest in digests[rows]], [""] * size)
        cells = np.split(Y[rows].indices, Y[rows].indptr[1:-1])
        lines = [f"{id},{';'.join(f'C{column:07d}' for column in cell)}" for id, cell in zip(ids, cells, strict=True)]
        if split != "test":
            (folder / "data" / f"{split}_concepts.csv").write_text("\n".join(["ID,CUIs", *lines, ""]))
        np.save(folder / f"{split}.npy", X[rows])
        first += size
    (folder / "data" / "test_ids.csv").write_text("\n".join(["ID", *listings["test"].ids, ""]))
    known = np.unique(Y[: sizes["train"]].indices)
    scipy.sparse.save_npz(folder / "labels.npz", Y[: sizes["train"], known])
    facts = Provenance("densenet121", "0" * 64, "relu", "avg", 224, "1", "bilinear", "densenet", "openvino", "float32")
    record = {"asked": {"weights": "random:0", "layer": ""}, "weights_source": "random:0"}
    block = Rows(digests, np.zeros(n_images, np.uint8), [""] * n_images, X)
    write_store(folder / "s.h5", facts, record, listings, [block], (N_FEATURES,))  # type: ignore[arg-type]
    print(f"{sizes['train']:,} train images, {N_FEATURES:,} features, {len(known):,} concepts", flush=True)


def measure(name: str, command: list[str]) -> None:
    """Run a command and print its seconds, those of the processor, and its peak memory."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    assert not status, name
    line = (
        f"{seconds:.1f} s ({usage.ru_utime + usage.ru_stime:.0f} processor seconds), {usage.ru_maxrss / 2**20:.2f} GiB"
    )
    print(f"{name}: {line}", flush=True)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the images (1)")
    parser.add_argument("--labels", type=Path, help="folder with train_concepts.csv (labels are drawn)")
    parser.add_argument("--without-peer", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: the memory of the drawing must not count.
        if os.fork() == 0:
            make_inputs(folder, args.share, args.labels)
            sys.stdout.flush()
            os._exit(0)
        os.wait()
        places = ["--store", str(folder / "s.h5"), "--data", str(folder / "data")]
        run = str(folder / "run")
        measure("heads fit kernel", ["-m", "heads", "fit", "kernel", *places, "--out", run])
        measure("heads predict", ["-m", "heads", "predict", run, *places])
        if not args.without_peer:
            measure("scikit-learn: Nystroem, Ridge, cross_val_predict, fit, predict", ["-c", PEER, str(folder)])


if __name__ == "__main__":
    main()
