"""The logistic head is scikit-learn's one-vs-rest optimum, whatever the concepts look like."""

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cache.support.devices import has_nvidia_device
from heads.estimators.logistic import LogisticHead
from heads.solvers import gpu, lbfgs, objective
from heads.solvers import one_vs_rest as solver
from heads.solvers.gpu import GpuRows
from heads.solvers.jax_rows import JaxRows
from heads.solvers.tensorflow_rows import TensorFlowRows

CPUS: dict[type[GpuRows], str] = {TensorFlowRows: "/CPU:0", JaxRows: "cpu"}
"""The name of a CPU in each library for GPUs."""

RATES = (0.5, 0.9, 0.1, 0.02, 0.0, 0.3)
"""Share of positive images of each concept; 0 stands for one image."""


def draw(n_images: int, n_features: int, kind: str) -> tuple[np.ndarray, scipy.sparse.csr_matrix]:
    """Embeddings of a kind, and concepts that depend on them, with some noise."""
    random = np.random.default_rng(0)
    X = random.standard_normal((n_images, n_features), np.float32)
    if kind == "correlated":
        X = np.maximum(X @ random.standard_normal((n_features, n_features), np.float32), 0)
    elif kind == "constant and double":
        X[:, :3], X[:, 3] = 7.1, X[:, 4]
    elif kind == "about a large mean":
        X = X * np.float32(1e-6) + np.float32(1e-3)
    signal = X.astype(np.float64) @ random.standard_normal((n_features, len(RATES)))
    signal /= signal.std(axis=0)
    if kind != "separable":
        signal += random.standard_normal(signal.shape)
    Y = np.zeros(signal.shape, np.int8)
    for column, rate in enumerate(RATES):
        Y[np.argsort(-signal[:, column])[: max(1, int(rate * n_images))], column] = 1
    return X, scipy.sparse.csr_matrix(Y)


def loss(Z: np.ndarray, y: np.ndarray, coef: np.ndarray, intercept: float, C: float, weight: np.ndarray) -> float:
    """scikit-learn's objective."""
    margin = Z @ coef + intercept
    return C * (weight * (np.logaddexp(0, margin) - y * margin)).sum() + coef @ coef / 2


def assert_is_the_optimum(head: LogisticHead, X: np.ndarray, Y: scipy.sparse.csr_matrix) -> None:
    """Compare objective and probabilities with scikit-learn's at a tight tolerance."""
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    scores = head.predict_proba(X)
    for column, C in enumerate(np.broadcast_to(head.C, Y.shape[1])):
        y = Y[:, [column]].toarray().ravel()
        weight = np.ones(len(y))
        if head.class_weight == "balanced":
            weight = np.where(y, len(y) / 2 / y.sum(), len(y) / 2 / (len(y) - y.sum()))
        method = "newton-cholesky" if X.shape[1] <= len(X) else "lbfgs"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns where it does not reach its tolerance
            peer = LogisticRegression(C=C, class_weight=head.class_weight, solver=method, tol=1e-9, max_iter=20_000)
            peer.fit(Z, y)
        best = loss(Z, y, peer.coef_[0], peer.intercept_[0], C, weight)
        assert loss(Z, y, head.coef_[column], head.intercept_[column], C, weight) <= best * (1 + 1e-6)
        np.testing.assert_allclose(scores[:, column], peer.predict_proba(Z)[:, 1], atol=2e-3)


@pytest.mark.parametrize("C", [1e-4, 0.01, 1.0, 100.0])
@pytest.mark.parametrize("kind", ["plain", "correlated", "separable", "constant and double", "about a large mean"])
def test_it_is_scikit_learns_optimum(kind: str, C: float) -> None:
    X, Y = draw(400, 20, kind)
    assert_is_the_optimum(LogisticHead(C=C).fit(X, Y), X, Y)


def test_it_is_the_optimum_with_more_features_than_images() -> None:
    X, Y = draw(100, 150, "plain")
    assert_is_the_optimum(LogisticHead(C=0.1).fit(X, Y), X, Y)


@pytest.mark.parametrize("n_images", [3, 12, 63, 64, 65, 130])
def test_it_is_the_optimum_of_few_images(n_images: int) -> None:
    X, Y = draw(n_images, 4, "separable")
    assert_is_the_optimum(LogisticHead(C=1.0).fit(X, Y), X, Y)


@pytest.mark.parametrize("C", [0.01, 100.0])
def test_balanced_weights_are_scikit_learns(C: float) -> None:
    X, Y = draw(1000, 20, "correlated")
    assert_is_the_optimum(LogisticHead(C=C, class_weight="balanced").fit(X, Y), X, Y)


def test_each_concept_may_have_its_own_penalty() -> None:
    X, Y = draw(400, 20, "plain")
    assert_is_the_optimum(LogisticHead(C=[1.0, 0.1, 0.01, 0.001, 1.0, 10.0]).fit(X, Y), X, Y)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_large_data_in_float32_reach_the_optimum_through_a_sample(
    class_weight: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solver, "FLOAT64_SIZE", 0)
    monkeypatch.setattr(solver, "MIN_SAMPLED_ROWS", 0)
    monkeypatch.setattr(objective, "SAMPLE", 500)
    X, Y = draw(5000, 24, "correlated")
    assert_is_the_optimum(LogisticHead(C=0.1, class_weight=class_weight).fit(X, Y), X, Y)


@pytest.mark.parametrize("rows", [TensorFlowRows, JaxRows])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_through_a_library_for_gpus_it_is_the_same_optimum(
    class_weight: str | None, rows: type[GpuRows], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solver, "FLOAT64_SIZE", 0)
    monkeypatch.setattr(solver, "MIN_SAMPLED_ROWS", 0)
    monkeypatch.setattr(objective, "SAMPLE", 500)
    monkeypatch.setattr(sys.modules[rows.__module__], "BLOCK_ROWS", 1500)
    monkeypatch.setattr(solver, "find_gpu", lambda: partial(rows, device=CPUS[rows]))
    monkeypatch.setattr(objective.Problem, "_sum_strip", None)  # so that NumPy cannot evaluate
    X, Y = draw(5000, 24, "correlated")
    assert_is_the_optimum(LogisticHead(C=0.1, class_weight=class_weight).fit(X, Y), X, Y)


@pytest.mark.parametrize("rows", [TensorFlowRows, JaxRows])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_library_for_gpus_evaluates_as_numpy_does(
    dtype: type, rows: type[GpuRows], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[rows.__module__], "BLOCK_ROWS", 700)
    random = np.random.default_rng(0)
    Z, weight = random.standard_normal((2000, 9)).astype(dtype), random.integers(1, 4, 2000).astype(dtype)
    Y = scipy.sparse.csr_matrix(random.random((2000, 3)) < 0.2, dtype=np.float32)
    W = (30 * random.standard_normal((3, 9))).astype(dtype)  # whose exponential overflows
    with ThreadPoolExecutor(2) as pool:
        plain = replace(objective.Problem.from_arrays(Z, np.ones(9), Y, np.ones(3), "balanced", pool), weight=weight)
        found = []
        for problem in (plain, replace(plain, gpu=rows(Z, weight, CPUS[rows]))):
            curvature = objective.Curvature(np.full(3, 0.01, dtype))
            found.append((problem.evaluate(W, curvature), curvature.collect()))
    tolerance = 1e-4 if dtype == np.float32 else 1e-10
    for one, other in zip(
        [*vars(found[0][0]).values(), *found[0][1]], [*vars(found[1][0]).values(), *found[1][1]], strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_the_first_library_that_sees_a_gpu_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "has_nvidia_device", lambda: True)
    monkeypatch.setattr(TensorFlowRows, "find_device", lambda: None)
    monkeypatch.setattr(JaxRows, "find_device", lambda: "cpu")
    make_rows = gpu.find_gpu()
    assert make_rows is not None
    assert isinstance(make_rows(np.ones((3, 2)), np.ones(3)), JaxRows)
    monkeypatch.setattr(JaxRows, "find_device", lambda: None)
    assert gpu.find_gpu() is None


def test_without_a_gpu_tensorflow_is_not_loaded() -> None:
    if has_nvidia_device():
        pytest.skip("there is one")
    code = "import sys; from heads.solvers.gpu import find_gpu; assert find_gpu() is None; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=True)


def test_concepts_in_several_blocks_are_put_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    X, Y = draw(300, 10, "plain")
    whole = LogisticHead().fit(X, Y)
    monkeypatch.setattr(solver, "BLOCK", 2)
    np.testing.assert_allclose(LogisticHead().fit(X, Y).coef_, whole.coef_, atol=1e-4)


@pytest.mark.parametrize("small", [0, solver.FLOAT64_SIZE])
def test_the_number_of_threads_changes_no_bit(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "FLOAT64_SIZE", small)
    X, Y = draw(3000, 16, "correlated")
    one, three = LogisticHead(n_jobs=1).fit(X, Y), LogisticHead(n_jobs=3).fit(X, Y)
    np.testing.assert_array_equal(one.coef_, three.coef_)
    np.testing.assert_array_equal(one.intercept_, three.intercept_)


def test_one_warning_counts_the_concepts_that_did_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lbfgs, "MAX_ITER", 2)
    with pytest.warns(ConvergenceWarning, match=r"6 of 6 concepts did not converge; a smaller C converges sooner"):
        LogisticHead(C=100.0).fit(*draw(400, 20, "plain"))


def test_concepts_that_do_not_converge_in_float32_converge_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "FLOAT64_SIZE", 0)
    monkeypatch.setattr(solver, "FLOAT32_TOLERANCE", 1e-9)
    X, Y = draw(3000, 16, "correlated")
    head = LogisticHead(C=1.0, class_weight="balanced").fit(X, Y)
    margin = (X - head.mean_) / head.scale_ @ head.coef_.T + head.intercept_
    counts = np.asarray(Y.sum(axis=0)).ravel()
    weight = np.where(Y.toarray(), 3000 / 2 / counts, 3000 / 2 / (3000 - counts))
    slope = ((expit(margin) - Y.toarray()) * weight).sum(axis=0)  # of the intercept; 0 at the optimum
    assert np.abs(slope).max() < 0.02


def test_a_problem_in_float64_has_no_copy_of_the_rows() -> None:
    X, Y = draw(3000, 16, "correlated")
    Z = np.column_stack([X, np.ones(len(X), np.float32)])
    W = np.random.default_rng(0).standard_normal((Y.shape[1], Z.shape[1]))
    with ThreadPoolExecutor(1) as pool:
        single = objective.Problem.from_arrays(Z, np.square(Z).sum(axis=0), Y, np.ones(Y.shape[1]), None, pool)
        double = single.to_float64()
        assert double.Z is Z
        copied = replace(double, Z=Z.astype(np.float64))
        found, expected = double.evaluate(W), copied.evaluate(W)
    assert found.gradient.dtype == np.float64
    np.testing.assert_array_equal(found.gradient, expected.gradient)
    np.testing.assert_array_equal(found.objective, expected.objective)


def test_steps_within_rounding_error_end_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "FLOAT64_SIZE", 0)
    evaluate, random, calls = objective.Problem.evaluate, np.random.default_rng(0), []

    def coarse(self: objective.Problem, W: np.ndarray, curvature: object = None) -> objective.Evaluation:
        found = evaluate(self, W, curvature)  # type: ignore[arg-type]
        if W.dtype == np.float32:
            calls.append(len(W))
            found.objective[:] *= 1 + 2e-7 * random.standard_normal(len(W))
            found.gradient[:] += 0.05 * random.standard_normal(W.shape, np.float32)
        return found

    monkeypatch.setattr(objective.Problem, "evaluate", coarse)
    X, Y = draw(3000, 16, "correlated")
    head = LogisticHead(C=0.1).fit(X, Y)
    assert len(calls) < 40
    assert_is_the_optimum(head, X, Y)


def test_steps_on_a_sample_save_steps_on_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "FLOAT64_SIZE", 0)
    monkeypatch.setattr(solver, "MIN_SAMPLED_ROWS", 0)
    monkeypatch.setattr(objective, "SAMPLE", 500)
    minimise, rows = solver.minimise, []
    X, Y = draw(5000, 24, "correlated")
    for forgets in (False, True):

        def count(problem: objective.Problem, *args: object, forgets: bool = forgets) -> lbfgs.Minimum:
            found = minimise(problem, *args[: 2 if forgets else 3])  # type: ignore[arg-type]
            rows[-1] += found.evaluations if len(problem.Z) == 5000 else 0
            return found

        rows.append(0.0)
        monkeypatch.setattr(solver, "minimise", count)
        LogisticHead(C=0.1).fit(X, Y)
    assert rows[0] < rows[1]


def test_a_path_gives_what_each_fit_gives() -> None:
    X, Y = draw(400, 20, "plain")
    trials = [{"C": 1.0}, {"C": 0.01}, {"C": 0.1, "class_weight": "balanced"}, {"C": [0.1] * 6}]
    found = list(LogisticHead().fit_each(X, Y, trials))
    assert sorted(map(str, trials)) == sorted(str(trial) for trial, _ in found)
    for trial, head in found:
        assert {key: head.get_params()[key] for key in trial} == trial
        alone = LogisticHead(**trial).fit(X, Y)
        np.testing.assert_allclose(head.predict_proba(X), alone.predict_proba(X), atol=1e-4)


def test_penalties_for_another_number_of_concepts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"C has 2 values, expected one, or one per concept \(6\)"):
        LogisticHead(C=[1.0, 2.0]).fit(*draw(50, 4, "plain"))


def test_progress_reaches_the_number_of_concepts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "BLOCK", 4)
    reports: list[tuple[int, int]] = []
    LogisticHead().fit(*draw(50, 4, "plain"), progress=lambda n_done, n_all: reports.append((n_done, n_all)))
    assert reports == [(4, 6), (6, 6)]
