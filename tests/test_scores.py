"""Scores from arrays, their intervals, and their breakdown."""

import csv
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_recall_fscore_support

from cache.support.errors import ParameterError
from eval.bootstrap import Difference, compare_scores, find_interval
from eval.breakdown import break_down, write_breakdown
from eval.f1 import image_f1, mean_f1, primary_f1


def draw(n_images: int, n_concepts: int = 12, share: float = 0.2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n_images, n_concepts)) < share


def as_sets(Y: np.ndarray) -> dict[str, frozenset[str]]:
    """Concept sets as read from a file: an empty cell is the empty concept."""
    return {str(row): frozenset(f"C{c}" for c in np.flatnonzero(each)) or frozenset({""}) for row, each in enumerate(Y)}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seeds=st.tuples(st.integers(0, 999), st.integers(0, 999)), share=st.sampled_from([0.0, 0.1, 0.4, 1.0]))
def test_arrays_and_files_score_the_same(seeds: tuple[int, int], share: float) -> None:
    Y_true, Y_pred = draw(20, share=share, seed=seeds[0]), draw(20, seed=seeds[1])
    expected = primary_f1(as_sets(Y_true), as_sets(Y_pred))
    sparse = scipy.sparse.csr_matrix(Y_pred, dtype=np.float32)
    for pair in [(Y_true, Y_pred), (Y_true.astype(int), sparse), (scipy.sparse.coo_array(Y_true), sparse.astype(bool))]:
        np.testing.assert_array_equal(image_f1(*pair), expected)


def test_arrays_score_as_scikit_learn_does_for_each_image() -> None:
    Y_true, Y_pred = draw(200, seed=1), draw(200, seed=2)
    expected = [f1_score(t, p, zero_division=1) for t, p in zip(Y_true, Y_pred, strict=True)]
    np.testing.assert_allclose(image_f1(Y_true, Y_pred), expected, rtol=0, atol=1e-12)


def test_a_single_concept_is_scored() -> None:
    assert image_f1([[1], [1], [0]], [[1], [0], [0]]).tolist() == [1, 0, 1]


def test_true_concepts_without_a_column_count_as_missed() -> None:
    assert image_f1([[1, 0]], [[1, 0]], n_true=np.array([3])).tolist() == [0.5]


def test_stored_zeros_and_repeated_entries_of_a_sparse_matrix_do_not_change_the_score() -> None:
    twice = scipy.sparse.csr_matrix(([1, 1, 0], ([0, 0, 0], [0, 0, 1])), shape=(1, 3))
    given = scipy.sparse.csr_matrix((np.array([1, 1, 0]), np.array([0, 0, 1]), np.array([0, 3])), shape=(1, 3))
    assert image_f1(twice, given).tolist() == [1.0]
    assert given.nnz == 3  # the caller's matrix has not changed


def test_shapes_that_differ_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"Y_true has shape \(1, 2\) and Y_pred \(1, 3\)"):
        image_f1([[1, 0]], [[1, 0, 0]])
    with pytest.raises(ValueError, match="n_true has shape"):
        image_f1([[1, 0]], [[1, 0]], n_true=np.array([1, 1]))
    with pytest.raises(ValueError, match=r"first has shape \(2,\) and second \(3,\)"):
        compare_scores(np.ones(2), np.ones(3))


def test_the_mean_does_not_depend_on_the_order_of_the_images() -> None:
    f1 = np.random.default_rng(0).random(1000)
    assert mean_f1(f1) == mean_f1(f1[::-1]) == mean_f1(np.sort(f1))


def test_an_interval_is_that_of_a_plain_bootstrap() -> None:
    f1 = image_f1(draw(400, seed=1), draw(400, seed=1) ^ draw(400, share=0.05, seed=2))
    random = np.random.default_rng(1)
    means = [f1[random.integers(0, 400, 400)].mean() for _ in range(4000)]
    np.testing.assert_allclose(find_interval(f1, 4000), np.quantile(means, [0.025, 0.975]), atol=0.003)


def test_an_interval_contains_the_true_mean_in_95_of_100_cases() -> None:
    random = np.random.default_rng(0)
    values = np.array([0.0, 0.5, 2 / 3, 1.0])
    hits = 0
    for seed in range(300):
        low, high = find_interval(random.choice(values, 200, p=[0.2, 0.3, 0.3, 0.2]), 400, seed)
        hits += low <= 0.55 <= high
    assert 0.91 <= hits / 300 <= 0.98


def test_the_same_data_give_the_same_interval() -> None:
    f1 = np.random.default_rng(0).random(50)
    assert find_interval(f1) == find_interval(f1[::-1])
    assert find_interval(f1) != find_interval(f1, random_state=1)


@pytest.mark.parametrize("n_resamples", [0, -5])
def test_a_number_of_resamples_below_one_is_an_error(n_resamples: int) -> None:
    with pytest.raises(ParameterError, match=f"n_resamples = {n_resamples}, expected at least 1"):
        find_interval(np.ones(3), n_resamples)
    with pytest.raises(ParameterError, match="n_resamples"):
        compare_scores(np.ones(3), np.zeros(3), n_resamples)


def test_blocks_of_resamples_are_all_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    f1 = np.random.default_rng(0).random(50)
    monkeypatch.setattr("eval.bootstrap.BLOCK", 170)
    low, high = find_interval(f1, 2000)
    assert (low, high) == pytest.approx(find_interval(f1, 2000, 1), abs=0.02)


def test_a_better_run_differs_significantly_and_an_equal_one_does_not() -> None:
    truth = draw(500, seed=1)
    noisy = truth ^ draw(500, share=0.05, seed=2)
    noisier = noisy ^ draw(500, share=0.02, seed=3)
    other = truth ^ draw(500, share=0.05, seed=4)
    better = compare_scores(image_f1(truth, noisy), image_f1(truth, noisier))
    assert better.is_significant
    assert better.low > 0
    assert better.p_value < 0.001
    same = compare_scores(image_f1(truth, noisy), image_f1(truth, other))
    assert not same.is_significant
    assert same.low < 0 < same.high


def test_equal_runs_have_a_p_value_below_5_percent_in_one_case_of_twenty() -> None:
    random = np.random.default_rng(0)
    values = np.array([0.0, 0.5, 2 / 3, 1.0])
    p_values = [compare_scores(*random.choice(values, (2, 40)), 300, seed).p_value for seed in range(300)]
    assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.08


def test_runs_differ_only_if_interval_and_p_value_say_so() -> None:
    assert Difference(0.1, 0.01, 0.2, 0.04).is_significant
    assert Difference(-0.1, -0.2, -0.01, 0.04).is_significant
    assert not Difference(0.1, -0.01, 0.2, 0.04).is_significant
    assert not Difference(0.1, 0.01, 0.2, 0.06).is_significant


def test_a_single_image_proves_nothing() -> None:
    difference = compare_scores(np.ones(1), np.zeros(1))
    assert difference.p_value == 1.0
    assert not difference.is_significant


def test_precision_recall_and_f1_of_concepts_are_scikit_learns() -> None:
    Y_true, Y_pred = draw(100, seed=1), draw(100, seed=2)
    tallies = {each.name: each for each in break_down(as_sets(Y_true), as_sets(Y_pred)) if each.level == "concept"}
    expected = precision_recall_fscore_support(Y_true, Y_pred)
    for column, (precision, recall, f1, support) in enumerate(zip(*expected, strict=True)):
        tally = tallies[f"C{column}"]
        assert (tally.precision, tally.recall, tally.f1) == pytest.approx((precision, recall, f1))
        assert (tally.n_true, tally.n_predicted) == (support, Y_pred[:, column].sum())


def test_groups_and_images_without_a_hit_are_counted(tmp_path: Path) -> None:
    truth = {"a": {"C0040405", "C0817096", "C9"}, "b": {""}, "c": {"C9"}, "=1+1": {"C0040405"}}
    given = {"a": {"C0040405", "C9"}, "b": {""}, "c": {"C0041618"}, "=1+1": {""}}
    tallies = break_down(*({id: frozenset(each) for id, each in sets.items()} for sets in (truth, given)))
    write_breakdown(tmp_path / "b.csv", tallies, {"C9": "Mass"})
    with open(tmp_path / "b.csv", newline="") as file:
        rows = [list(row.values()) for row in csv.DictReader(file)]
    assert [row[:6] for row in rows] == [
        ["all", "all", "", "5", "3", "2"],
        ["group", "modality", "modality", "2", "2", "1"],
        ["group", "region", "region", "1", "0", "0"],
        ["group", "rest", "rest", "2", "1", "1"],
        ["concept", "C0040405", "modality", "2", "1", "1"],
        ["concept", "C9", "rest", "2", "1", "1"],
        ["concept", "C0817096", "region", "1", "0", "0"],
        ["concept", "C0041618", "modality", "0", "1", "0"],
        ["image", "c", "", "1", "1", "0"],
        ["image", "=1+1", "", "1", "0", "0"],
    ]
    assert [row[-1] for row in rows if row[1] in ("C9", "C0040405")] == ["", "Mass"]
    assert rows[2][6:9] == ["", "0.0", "0.0"]  # precision is undefined if nothing is predicted
