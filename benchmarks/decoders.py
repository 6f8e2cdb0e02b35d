"""Seconds of each decoder at full size: 17,237 images for naming, 9,972 for tuning, 1,945 concepts."""

import time

import numpy as np
import scipy.sparse
from full_size import N_CONCEPTS, N_TEST, draw_labels

from eval.f1 import image_f1
from heads.decoders.calibration import Platt, Temperature
from heads.registry import make_decoder

N_VALID = 9972


def draw_scores(Y: scipy.sparse.csr_matrix, seed: int) -> np.ndarray:
    """Scores as a good head gives them: the truth shows in the logits, under noise."""
    random = np.random.default_rng(seed)
    rate = np.asarray(Y.mean(axis=0)).ravel().clip(1e-5, 0.5).astype(np.float32)
    logits = np.log(rate / (1 - rate)) - 1 + 0.8 * random.standard_normal(Y.shape, np.float32)
    rows, columns = Y.nonzero()
    logits[rows, columns] += 5
    scores: np.ndarray = 1 / (1 + np.exp(-logits))
    return scores


def main() -> None:
    """Measure, print."""
    Y = draw_labels(N_TEST, N_CONCEPTS, 0)
    scores = draw_scores(Y, 0)
    for text in ("fixed:0.3", "top-k", "global", "per-concept", "expected-f1"):
        n_fitted = N_VALID if text == "per-concept" else N_TEST
        start = time.perf_counter()
        decoder = make_decoder(text).fit(scores[:n_fitted], Y[:n_fitted])
        fitted = time.perf_counter() - start
        start = time.perf_counter()
        named = decoder.predict(scores)
        seconds = time.perf_counter() - start
        f1 = image_f1(Y, named).mean()
        print(f"{text:<12} fit {fitted:5.1f} s on {n_fitted:,}, name {seconds:5.1f} s for {N_TEST:,}: F1 {f1:.4f}")
    for kind in (Temperature, Platt):
        start = time.perf_counter()
        calibration = kind().fit(scores[:N_VALID], Y[:N_VALID])
        fitted = time.perf_counter() - start
        start = time.perf_counter()
        calibration.transform(scores)
        print(f"{kind.__name__:<12} fit {fitted:5.1f} s on {N_VALID:,}, apply {time.perf_counter() - start:5.1f} s")


if __name__ == "__main__":
    main()
