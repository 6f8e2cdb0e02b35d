"""Scoring at full size, 17,237 images and 1,945 concepts, against the organisers' rule written plainly.

The peer computes one `sklearn.metrics.f1_score` an image and score, as the evaluators do. Prints times from arrays and
from CSV files, the ratio to the peer in the same run, and how long bootstrap intervals and a comparison take.
"""

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.metrics import f1_score

from eval.bootstrap import N_RESAMPLES, compare_scores, find_interval
from eval.editions import ALLOWED_2025, find_edition
from eval.evaluator_files import ConceptSets
from eval.f1 import image_f1, mean_f1
from eval.faults import find_faults
from eval.scored_file import score_files
from eval.submission import render_submission

N_IMAGES, N_CONCEPTS = 17_237, 1_945
PEER_IMAGES = 1_000
"""The peer scores the first of them; all would take a minute."""

REPEATS = 7
NAMES = [*sorted(ALLOWED_2025), *(f"C9{number:06d}" for number in range(N_CONCEPTS - len(ALLOWED_2025)))]
IDS = [f"ImageCLEFmedical_Caption_2024_test_{number:06d}" for number in range(N_IMAGES)]


def draw(random: np.random.Generator) -> scipy.sparse.csr_matrix:
    """Indicators with a long tail, 1 to 8 concepts an image, 3.2 in the mean."""
    rates = 1 / np.arange(1, N_CONCEPTS + 1)
    counts = 1 + random.binomial(7, 0.314, N_IMAGES)
    rows = np.repeat(np.arange(N_IMAGES), counts)
    columns = random.choice(N_CONCEPTS, len(rows), p=rates / rates.sum())
    Y = scipy.sparse.csr_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(N_IMAGES, N_CONCEPTS))
    Y.data[:] = 1
    return Y


def disturb(Y: scipy.sparse.csr_matrix, share: float, random: np.random.Generator) -> scipy.sparse.csr_matrix:
    """Leave out a share of the concepts, and add as many wrong ones."""
    kept = Y.copy()
    kept.data = (random.random(Y.nnz) > share).astype(np.int8)
    kept.eliminate_zeros()
    wrong = draw(random)
    wrong.data = (random.random(wrong.nnz) < share).astype(np.int8)
    wrong.eliminate_zeros()
    return (kept + wrong).minimum(1).tocsr()


def name(Y: scipy.sparse.csr_matrix) -> list[list[str]]:
    """The concepts of each image."""
    return [[NAMES[column] for column in Y.indices[start:end]] for start, end in zip(Y.indptr, Y.indptr[1:])]  # noqa: B905


def best(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the fastest of several calls, and what it gives."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def score_plainly(truth: ConceptSets, given: ConceptSets) -> tuple[float, float]:
    """The rule as it is told: an image at a time, one F1 of scikit-learn for each score."""
    primary, secondary, n_images = 0.0, 0.0, 0
    for id, true in truth.items():
        primary += _plain_f1(true, given[id])
        if true & ALLOWED_2025:
            secondary += _plain_f1(true & ALLOWED_2025, given[id] & ALLOWED_2025)
            n_images += 1
    return primary / len(truth), secondary / n_images


def _plain_f1(true: frozenset[str], given: frozenset[str]) -> float:
    names = sorted(true | given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of images with nothing predicted
        return float(f1_score([name in true for name in names], [name in given for name in names]))


def main() -> None:
    """Print the figures."""
    random = np.random.default_rng(0)
    Y_true = draw(random)
    runs = [disturb(Y_true, share, random) for share in (0.4, 0.41)]
    dense = [Y.toarray().astype(bool) for Y in (Y_true, runs[0])]
    from_sparse, f1 = best(lambda: image_f1(Y_true, runs[0]))
    from_dense, same = best(lambda: image_f1(*dense))
    assert np.array_equal(f1, same)
    print(f"{N_IMAGES:,} images x {N_CONCEPTS:,} concepts; primary F1 {mean_f1(f1):.4f}")
    print(f"from arrays: sparse {1e3 * from_sparse:.1f} ms, dense {1e3 * from_dense:.1f} ms")

    with tempfile.TemporaryDirectory() as folder:
        edition = find_edition(2025)
        data = [render_submission(IDS, name(Y), edition) for Y in (Y_true, *runs)]
        paths = [Path(folder) / f"{number}.csv" for number in range(3)]
        for path, content in zip(paths, data, strict=True):
            path.write_bytes(content)
        from_files, scored = best(lambda: score_files(paths[1], paths[0], paths[0], edition))
        checked, faults = best(lambda: find_faults(data[1], IDS, find_edition(2026), "submission"))
        other = score_files(paths[2], paths[0], paths[0], edition)
    assert scored.secondary is not None
    assert scored.secondary_f1 is not None
    assert abs(scored.primary - mean_f1(f1)) < 1e-12
    assert not faults
    print(f"from CSV files, both scores: {from_files:.3f} s; the check of 2026: {checked:.3f} s")

    part = {id: scored.truth.sets[id] for id in IDS[:PEER_IMAGES]}
    start = time.perf_counter()
    plain = score_plainly(part, scored.predicted.sets)
    peer = (time.perf_counter() - start) * N_IMAGES / PEER_IMAGES
    assert abs(plain[0] - mean_f1(f1[:PEER_IMAGES])) < 1e-12
    print(f"the plain rule, both scores: {peer:.1f} s (from {PEER_IMAGES:,} images)")
    print(f"ratio: {peer / 2 / from_sparse:,.0f} times from arrays (one score), {peer / from_files:,.0f} from files")

    seconds, ends = best(lambda: (find_interval(scored.primary_f1), find_interval(scored.secondary_f1)))
    print(f"intervals of both scores, {N_RESAMPLES:,} resamples: {seconds:.2f} s; {np.round(ends, 4).tolist()}")
    seconds, change = best(lambda: compare_scores(scored.primary_f1, other.primary_f1))
    print(f"paired comparison: {seconds:.2f} s; {change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}]")


if __name__ == "__main__":
    main()
