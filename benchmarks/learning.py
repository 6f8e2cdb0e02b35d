"""Seconds of the heads at the size of 2024, beside what one would write with scikit-learn or Keras.

Run as ``python benchmarks/learning.py [--heads ridge knn dense kernel] [--epochs 10]``. Peers do a stated part of the
work and their time is extrapolated. Processor seconds stand in brackets: two a second where both cores are busy.
Logistic regression is fitted in ``benchmarks/logistic.py``.
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from full_size import N_IMAGES, N_TEST, draw
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler, normalize

from heads.estimators.kernel import KernelHead
from heads.estimators.logistic import LogisticHead
from heads.estimators.ridge import ALPHAS
from heads.networks.backend import import_keras
from heads.networks.early_stopping import best_f1
from heads.registry import make_head

PEER_QUERIES, PEER_STEPS = 1000, 500

Labels = scipy.sparse.csr_matrix


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What some work gives, its seconds, and the processor's."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - processor


def peer_ridge(X: np.ndarray, Y: Labels, queries: np.ndarray) -> tuple[str, float]:
    """scikit-learn's Ridge with one penalty."""
    Z, targets = StandardScaler().fit_transform(X), Y.toarray().astype(np.float32)
    Ridge(alpha=0.1 * len(Z)).fit(Z, targets)
    return f"scikit-learn's Ridge, 1 penalty of {len(ALPHAS)}", 1.0


def peer_knn(X: np.ndarray, Y: Labels, queries: np.ndarray) -> tuple[str, float]:
    """scikit-learn's brute-force search, without the votes: on unit vectors, where it is faster than by cosine."""
    search = NearestNeighbors(n_neighbors=33, algorithm="brute").fit(normalize(X))
    search.kneighbors(normalize(queries[:PEER_QUERIES]))
    return f"scikit-learn's NearestNeighbors, {PEER_QUERIES:,} queries, no votes", PEER_QUERIES / len(queries)


def peer_kernel(X: np.ndarray, Y: Labels, queries: np.ndarray) -> tuple[str, float]:
    """scikit-learn's approximation by as many landmarks, and its Ridge on what comes of it."""
    usual = KernelHead()
    Z, targets = StandardScaler().fit_transform(X), Y.toarray().astype(np.float32)
    near = Nystroem(gamma=usual.gamma / X.shape[1], n_components=usual.landmarks, random_state=0, n_jobs=2)
    Ridge(alpha=usual.alpha).fit(near.fit_transform(Z), targets)
    return f"scikit-learn's Nystroem and Ridge, {usual.landmarks:,} landmarks", 1.0


def peer_dense(X: np.ndarray, Y: Labels, queries: np.ndarray) -> tuple[str, float]:
    """Keras as its guide has it, on standardised rows that are enough for some steps."""
    keras = import_keras()
    rows = slice(0, 32 * PEER_STEPS)
    model = keras.Sequential([keras.Input((X.shape[1],)), keras.layers.Dense(Y.shape[1], activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", jit_compile=False)
    model.fit(StandardScaler().fit_transform(X[rows]), Y[rows].toarray().astype(np.float32), verbose=0)
    return f"Keras' fit, {PEER_STEPS:,} steps, no F1", PEER_STEPS / (len(X) / 32)


PEERS = {"ridge": peer_ridge, "knn": peer_knn, "dense": peer_dense, "kernel": peer_kernel}


def measure(name: str, X: np.ndarray, Y: Labels, queries: np.ndarray, truth: Labels, epochs: int) -> Any:
    """Print a head's line and its peer's; returns the fitted head."""
    params = {"epochs": epochs, "patience": epochs} if name == "dense" else {}
    head, *fitted = timed(lambda: make_head(name, params).fit(X, Y))
    scores, *predicted = timed(lambda: head.predict_proba(queries))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    told = f"fit {tell(*fitted)}, predict {tell(*predicted)}, at most {peak:.1f} GiB so far"
    print(f"{name:<9} {told}: F1 {best_f1(scores, truth):.4f} at its best threshold", flush=True)
    (what, share), *seconds = timed(lambda: PEERS[name](X, Y, queries))
    share /= epochs if name == "dense" else 1
    print(f"          {what}: {tell(*seconds, share)}", flush=True)
    return head


def tell(wall: float, processor: float, share: float = 1.0) -> str:
    """Seconds, if they were a share of the work."""
    return f"{wall / share:.1f} s ({processor / share:.0f})"


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--epochs", type=int, default=10, help="of dense, none left out by early stopping (10)")
    args = parser.parse_args()
    X, Y = draw(N_IMAGES + N_TEST)
    X, queries, Y, truth = X[:N_IMAGES], X[N_IMAGES:], Y[:N_IMAGES], Y[N_IMAGES:]
    print(f"{X.shape[0]:,} images, {X.shape[1]:,} features, {Y.shape[1]:,} concepts; {len(queries):,} queries")
    for name in args.heads:
        head = measure(name, X, Y, queries, truth, args.epochs)
        if name == "ridge":
            arrays = {key: array.astype(np.float64) for key, array in head.get_state().items()}
            stand_in = LogisticHead().set_state(arrays, X.shape[1], Y.shape[1])
            _, *seconds = timed(lambda stand_in=stand_in: stand_in.predict_proba(queries))
            print(f"logistic  predict {tell(*seconds)}, with ridge's coefficients", flush=True)
        if name == "knn":
            _, *seconds = timed(lambda head=head: head.scores_for(queries, (5, 17, 33, 65)))
            print(f"knn       predict {tell(*seconds)} for 4 k", flush=True)


if __name__ == "__main__":
    main()
