"""Data of the size of ImageCLEFmedical Caption 2024: real labels where they are at hand, embeddings that go with them.

Labels are ROCOv2's training labels if ``../shared/data/rocov2_labels`` is there; more images repeat rows drawn from
them. Otherwise concepts are drawn independently with frequencies as ROCOv2 has them: half of the concepts have at most
22 images of 60,000. An embedding is a sum of directions, one a concept, that its labels draw, and of noise
whose spectrum decays as that of a network's features does.
"""

from pathlib import Path

import numpy as np
import scipy.sparse

from eval.labels import read_concepts
from heads.data.vocabulary import find_vocabulary, indicator

LABELS = Path(__file__).parents[2] / "shared" / "data" / "rocov2_labels" / "train_concepts.csv"
N_IMAGES, N_FEATURES, N_CONCEPTS = 80_000, 1024, 1945
N_TEST = 17_237


def draw_labels(n_images: int, n_concepts: int, seed: int) -> scipy.sparse.csr_matrix:
    """Labels, shape (n_images, n_concepts): the most frequent concepts of ROCOv2, or as frequent ones."""
    random = np.random.default_rng(seed)
    if LABELS.is_file():
        concepts = read_concepts(LABELS).tolist()
        Y = indicator(concepts, find_vocabulary(concepts))
        frequent = np.sort(np.argsort(-np.asarray(Y.sum(axis=0)).ravel(), kind="stable")[:n_concepts])
        Y = Y[:, frequent]
        extra = random.choice(Y.shape[0], max(0, n_images - Y.shape[0]), replace=False)
        return scipy.sparse.vstack([Y, Y[extra]], format="csr")[:n_images]
    rates = np.clip(0.35 / np.arange(1, n_concepts + 1) ** 1.05, 5e-5, None)
    columns = [random.choice(n_images, max(2, int(rate * n_images)), replace=False) for rate in rates]
    rows, places = np.concatenate(columns), np.repeat(np.arange(n_concepts), [len(each) for each in columns])
    return scipy.sparse.csr_matrix((np.ones(len(rows), np.int8), (rows, places)), shape=(n_images, n_concepts))


def draw_embeddings(Y: scipy.sparse.csr_matrix, n_features: int, seed: int) -> np.ndarray:
    """Embeddings that go with labels, shape (n_images, n_features), float32, none below zero, as after a ReLU."""
    random = np.random.default_rng([seed, 1])
    mixing = np.linalg.qr(random.standard_normal((n_features, n_features)))[0].astype(np.float32)
    decay = (np.arange(1, n_features + 1) ** -0.6).astype(np.float32)
    directions = random.standard_normal((Y.shape[1], n_features), np.float32) * decay
    X = np.empty((Y.shape[0], n_features), np.float32)
    for start in range(0, Y.shape[0], 4096):
        part = Y[start : start + 4096]
        noise = random.standard_normal((part.shape[0], n_features), np.float32) * (1.5 * decay)
        X[start : start + 4096] = np.maximum((part @ directions + noise) @ mixing + np.float32(0.05), 0)
    return X


def draw(
    n_images: int = N_IMAGES, n_features: int = N_FEATURES, n_concepts: int = N_CONCEPTS, seed: int = 0
) -> tuple[np.ndarray, scipy.sparse.csr_matrix]:
    """Embeddings and labels."""
    Y = draw_labels(n_images, n_concepts, seed)
    return draw_embeddings(Y, n_features, seed), Y
