"""Logistic regression for all concepts at once against scikit-learn's one-vs-rest loop, at the size of 2024.

Run as ``python benchmarks/logistic.py [--size 80000 1024 1945] [--concepts 24] [--C 0.01 1]``. scikit-learn fits some
concepts, every so many by frequency, and its time is extrapolated to all; ours fits all. Processor seconds stand in
brackets: their ratio holds where other programs run too.
"""

import argparse
import resource
import time
import warnings

import numpy as np
from full_size import N_CONCEPTS, N_FEATURES, N_IMAGES, draw
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from heads.estimators.logistic import LogisticHead

N_JOBS = 2


class Timed(LogisticRegression):
    """scikit-learn's, noting the processor seconds of its fit, in whichever process that is."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Timed":
        """Fit."""
        start = time.process_time()
        super().fit(X, y)
        self.seconds_ = time.process_time() - start
        return self


def objective(Z: np.ndarray, y: np.ndarray, coef: np.ndarray, intercept: float, C: float) -> float:
    """What both minimise, in float64."""
    margin = Z @ coef + intercept
    return float(C * (np.logaddexp(0, margin) - y * margin).sum() + coef @ coef / 2)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = (N_IMAGES, N_FEATURES, N_CONCEPTS)
    parser.add_argument("--size", type=int, nargs=3, default=size, help="images, features, concepts (as in 2024)")
    parser.add_argument("--concepts", type=int, default=24, help="concepts that scikit-learn fits (24)")
    parser.add_argument("--exact", type=int, default=6, help="concepts that it fits at a tight tolerance too (6)")
    parser.add_argument("--C", type=float, nargs="+", default=[0.01])
    args = parser.parse_args()
    X, Y = draw(*args.size)
    counts = np.asarray(Y.sum(axis=0)).ravel()
    by_frequency = np.argsort(counts, kind="stable")
    middles = (np.arange(args.concepts) + 0.5) / args.concepts
    sample = by_frequency[(middles * Y.shape[1]).astype(int)]
    print(f"{X.shape[0]:,} images, {X.shape[1]:,} features, {Y.shape[1]:,} concepts; {N_JOBS} threads or processes")
    print(f"scikit-learn fits {len(sample)} concepts, with {', '.join(f'{counts[each]:,}' for each in sample)} images")
    for C in args.C:
        start, processor = time.perf_counter(), time.process_time()
        head = LogisticHead(C=C, n_jobs=N_JOBS).fit(X, Y)
        ours, our_processor = time.perf_counter() - start, time.process_time() - processor
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        start, processor = time.perf_counter(), time.process_time()
        Z = StandardScaler().fit_transform(X)
        scaling, scaling_processor = time.perf_counter() - start, time.process_time() - processor
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # So that the start of the processes is not extrapolated.
            OneVsRestClassifier(Timed(C=C, max_iter=1), n_jobs=N_JOBS).fit(Z, Y[:, sample[:N_JOBS]])
        start = time.perf_counter()
        loop = OneVsRestClassifier(Timed(C=C, max_iter=1000), n_jobs=N_JOBS).fit(Z, Y[:, sample])
        theirs = scaling + (time.perf_counter() - start) / len(sample) * Y.shape[1]
        their_processor = scaling_processor + np.mean([each.seconds_ for each in loop.estimators_]) * Y.shape[1]
        print(
            f"C={C:g}: ours {ours:.0f} s ({our_processor:.0f}), {peak:.1f} GiB at most; scikit-learn {theirs:,.0f} s "
            f"({their_processor:,.0f}): {theirs / ours:.1f} x ({their_processor / our_processor:.1f})", flush=True
        )  # fmt: skip
        Z64 = StandardScaler().fit_transform(X.astype(np.float64))
        for number in np.linspace(0, len(sample) - 1, args.exact).astype(int):
            compare(Z64, Y[:, [sample[number]]].toarray().ravel(), head, sample[number], loop.estimators_[number], C)
        del Z64


def compare(Z: np.ndarray, y: np.ndarray, head: LogisticHead, column: int, usual: LogisticRegression, C: float) -> None:
    """Print how far ours and scikit-learn's usual tolerance are from a tight one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tight = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(Z, y)
    best = objective(Z, y, tight.coef_[0], tight.intercept_[0], C)
    far = objective(Z, y, head.coef_[column], head.intercept_[column], C) / best - 1
    their = objective(Z, y, usual.coef_[0].astype(np.float64), float(usual.intercept_[0]), C) / best - 1
    p = 1 / (1 + np.exp(-(Z @ head.coef_[column] + head.intercept_[column])))
    apart = np.abs(p - tight.predict_proba(Z)[:, 1]).max()
    print(f"  {int(y.sum()):6,} images: objective {far:+.1e} of the optimum, probabilities within {apart:.1e}; "
          f"scikit-learn at its usual tolerance {their:+.1e}")  # fmt: skip


if __name__ == "__main__":
    main()
