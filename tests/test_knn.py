"""The search is exact, votes follow their definition, and labels from a stranger's file stay in their matrix."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse

from cache.support.errors import UserError
from heads.estimators import knn
from heads.estimators.knn import KNeighborsHead, nearest
from heads.estimators.storage import load_head, save_head
from heads.registry import make_head


@pytest.fixture
def data() -> tuple[np.ndarray, scipy.sparse.csr_matrix]:
    """Embeddings that are all similar, as those of a network, and concepts."""
    random = np.random.default_rng(0)
    X = random.random((500, 6)).astype(np.float32)
    return X, scipy.sparse.csr_matrix(random.random((500, 4)) < 0.3).astype(np.int8)


@pytest.mark.parametrize("k", [1, 2, 5, 100])
@pytest.mark.parametrize("n_values", [1, 3, 64, 453, 9663])
def test_the_nearest_are_those_of_a_full_sort(n_values: int, k: int) -> None:
    similar = np.random.default_rng(k).standard_normal((20, n_values)).astype(np.float32)
    np.testing.assert_array_equal(nearest(similar, k), np.argsort(-similar, axis=1)[:, :k])


def test_equal_similarities_are_each_counted_once() -> None:
    similar = np.repeat(np.array([[0.25, 0.75, 0.5]], np.float32), 640, axis=1)
    columns = nearest(similar, 768)[0]
    assert len(set(columns)) == 768
    np.testing.assert_array_equal(similar[0, columns], np.repeat([0.75, 0.5], [640, 128]))


@pytest.mark.parametrize("k", [1, 7, 500, 9000])
def test_scores_are_shares_of_similarity(data: tuple, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "BLOCK_VALUES", 5000)  # ten images per block
    X, Y = data
    queries = np.random.default_rng(1).random((37, 6)).astype(np.float32) - np.float32(0.2)
    cosine = (queries / np.linalg.norm(queries, axis=1)[:, None]) @ (X / np.linalg.norm(X, axis=1)[:, None]).T
    order = np.argsort(-cosine, axis=1)[:, :k]
    weights = np.take_along_axis(cosine, order, axis=1).clip(0)
    expected = np.einsum("ij,ijk->ik", weights, Y.toarray()[order]) / weights.sum(axis=1)[:, None]
    np.testing.assert_allclose(KNeighborsHead(k).fit(X, Y).predict_proba(queries), expected, atol=1e-5)


def test_scores_of_several_k_from_one_search_are_those_of_each(data: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    X, Y = data
    alone = {k: KNeighborsHead(k).fit(X, Y).predict_proba(X) for k in (5, 1, 40)}
    searched = []
    monkeypatch.setattr(knn, "nearest", lambda similar, k: searched.append(k) or nearest(similar, k))
    together = KNeighborsHead().fit(X, Y).scores_for(X, [5, 1, 40])
    assert searched == [40]
    assert list(together) == [5, 1, 40]
    for k, scores in together.items():
        np.testing.assert_array_equal(scores, alone[k])
    with pytest.raises(ValueError, match="k is 0, expected a whole number of at least 1"):
        KNeighborsHead().fit(X, Y).scores_for(X, [5, 0])


def test_no_neighbour_gives_the_training_frequencies(data: tuple) -> None:
    X, Y = data
    scores = KNeighborsHead().fit(X, Y).predict_proba(np.array([np.zeros(6), -np.ones(6)]))
    np.testing.assert_allclose(scores, np.tile(Y.toarray().mean(axis=0), (2, 1)), rtol=1e-6)


def test_a_training_image_of_zeros_has_no_vote() -> None:
    head = KNeighborsHead(k=3).fit([[1, 0], [0, 0], [1, 1]], [[1], [0], [1]])
    np.testing.assert_allclose(head.predict_proba([[1, 0]]), [[1]])


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_only_the_direction_counts(data: tuple, factor: float) -> None:
    X, Y = data
    head = KNeighborsHead(3).fit(X, Y)
    np.testing.assert_allclose(head.predict_proba(X * np.float32(factor)), head.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize(("array", "value"), [("labels", 4), ("labels", -1), ("label_ends", 10**6)])
def test_a_strangers_labels_outside_the_matrix_are_refused(data: tuple, tmp_path: Path, array: str, value: int) -> None:
    save_head(KNeighborsHead().fit(*data), "knn", tmp_path)
    with h5py.File(tmp_path / "head.h5", "r+") as file:
        file[array][-1] = value
    with pytest.raises(UserError, match="no finished head in it"):
        load_head(tmp_path)


@pytest.mark.parametrize("k", [0, -3, 1.5, "many", True])
def test_a_number_of_neighbours_out_of_range_is_refused_by_its_name(k: object) -> None:
    with pytest.raises(UserError, match="head 'knn': k"):
        make_head("knn", {"k": k})
