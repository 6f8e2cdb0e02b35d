"""Kernel ridge regression is exact, and close to that if there are more images than landmarks."""

import numpy as np
import pytest
import scipy.sparse
from scipy.spatial.distance import cdist
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import StandardScaler

from cache.support.errors import ParameterError, UserError
from heads.data.folds import split_folds
from heads.data.standardization import standardisation
from heads.estimators import kernel
from heads.estimators.kernel import KernelHead
from heads.estimators.ridge import RidgeHead
from heads.registry import make_head


def draw(n_images: int, seed: int = 0) -> tuple[np.ndarray, scipy.sparse.csr_matrix]:
    """Features of different sizes, and three concepts, two of which are not linear in them."""
    Z = np.random.default_rng(seed).standard_normal((n_images, 4))
    Y = np.stack([Z[:, 0] * Z[:, 1] > 0, np.abs(Z[:, 2]) > 1, Z[:, 3] > 0.5], axis=1)
    return (Z * [1, 1e-3, 1e3, 7] + 5).astype(np.float32), scipy.sparse.csr_matrix(Y.astype(np.int8))


@pytest.mark.parametrize(("alpha", "gamma"), [(0.2, 0.5), (3.0, 2.0)])
def test_scores_are_those_of_scikit_learns_kernel_ridge_clipped_to_probabilities(alpha: float, gamma: float) -> None:
    X, Y = draw(150)
    Z, rate = StandardScaler().fit_transform(X.astype(np.float64)), Y.toarray().mean(axis=0)
    peer = KernelRidge(alpha=alpha, kernel="rbf", gamma=gamma / 4).fit(Z, Y.toarray() - rate).predict(Z) + rate
    np.testing.assert_allclose(KernelHead(alpha, gamma).fit(X, Y).predict_proba(X), peer.clip(0, 1), atol=1e-5)


def test_it_learns_what_no_linear_head_can() -> None:
    X, Y = draw(600)
    fresh, truth = draw(600, seed=1)
    right = [
        ((head.fit(X, Y).predict_proba(fresh) >= 0.5) == truth.toarray().astype(bool)).mean(axis=0)
        for head in (KernelHead(), RidgeHead())
    ]
    assert (right[0] > 0.85).all()
    assert right[1][0] < 0.65


def test_landmarks_approximate_the_exact_solution() -> None:
    X, Y = draw(900)
    fresh, _ = draw(200, seed=1)
    exact = KernelHead().fit(X, Y).predict_proba(fresh)
    far = [np.abs(KernelHead(landmarks=n).fit(X, Y).predict_proba(fresh) - exact).mean() for n in (10, 100, 500)]
    assert far[0] > 5 * far[1]
    assert far[2] < 0.005
    assert KernelHead(landmarks=100).fit(X, Y).get_state()["landmarks"].shape == (100, 4)


def test_identical_images_among_the_landmarks_do_no_harm() -> None:
    X, Y = draw(100)
    twice = np.vstack([X] * 5), scipy.sparse.vstack([Y] * 5, format="csr")
    # Five times the images with five times the penalty are the same problem.
    plain = KernelHead(alpha=0.2).fit(X, Y).predict_proba(X)
    np.testing.assert_allclose(KernelHead(alpha=1.0).fit(*twice).predict_proba(X), plain, atol=1e-4)
    np.testing.assert_allclose(KernelHead(alpha=1.0, landmarks=400).fit(*twice).predict_proba(X), plain, atol=2e-3)


def test_a_penalty_too_small_to_solve_the_equations_is_refused() -> None:
    X, Y = np.ones((5, 2), np.float32), np.eye(5, 2)
    with pytest.raises(ParameterError, match="alpha is 1e-30, too small for these images; choose a larger one"):
        KernelHead(alpha=1e-30).fit(X, Y)


def test_another_seed_draws_other_landmarks() -> None:
    X, Y = draw(60)
    chosen = [KernelHead(landmarks=20, random_state=seed).fit(X, Y).landmarks_ for seed in (0, 1)]
    assert not np.array_equal(*chosen)


def test_an_image_unlike_all_others_gets_the_training_frequencies() -> None:
    X, Y = draw(60)
    np.testing.assert_allclose(
        KernelHead().fit(X, Y).predict_proba(X[:1] * 1e6)[0], Y.toarray().mean(axis=0), atol=1e-6
    )


@pytest.mark.parametrize(
    "params", [{"alpha": 0}, {"alpha": "small"}, {"gamma": -1.0}, {"landmarks": 0}, {"landmarks": 1.5}]
)
def test_a_parameter_out_of_range_is_refused_by_its_name(params: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"head 'kernel': {next(iter(params))}"):
        make_head("kernel", params)


def fit_plainly(
    X: np.ndarray, Y: np.ndarray, mean: np.ndarray, scale: np.ndarray, landmarks: np.ndarray, fresh: np.ndarray
) -> np.ndarray:
    """Scores of fresh images by the equations of the method, in float64, with alpha = 0.2 and gamma = 0.5."""
    Z, L, F = ((each.astype(np.float64) - mean) / scale for each in (X, landmarks, fresh))
    K, M, Q = (np.exp(-0.5 / X.shape[1] * cdist(each, L, "sqeuclidean")) for each in (Z, L, F))
    rate = Y.mean(axis=0)
    penalty = 0.2 * (M + 1e-6 * np.eye(len(L)))
    return (Q @ np.linalg.solve(K.T @ K + penalty, K.T @ (Y - rate)) + rate).clip(0, 1)


def test_heads_without_a_fold_are_plain_fits_with_the_landmarks_outside_the_fold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel, "SUM_IMAGES", 64)
    monkeypatch.setattr(kernel, "THREAD_IMAGES", 20)
    X, Y = draw(500)
    X = np.random.default_rng(1).standard_normal((500, 30)).astype(np.float32) + np.tile(X, 8)[:, :30] / 1000
    groups = np.random.default_rng(2).permutation(500) % 60
    held_out = [rows for _, rows in split_folds(500, groups)]
    mean, scale = standardisation(X)
    chosen = np.random.default_rng(0).choice(500, 120, replace=False)
    heads = KernelHead(landmarks=120).fit_folds(X, Y, [np.empty(0, np.int64), *held_out])
    for rows, head in zip([np.empty(0, np.int64), *held_out], heads, strict=True):
        rest = np.setdiff1d(np.arange(500), rows)
        landmarks = X[np.sort(np.setdiff1d(chosen, rows))]
        expected = fit_plainly(X[rest], Y[rest].toarray(), mean, scale, landmarks, X)
        assert len(head.landmarks_) == len(landmarks)
        np.testing.assert_allclose(head.predict_proba(X), expected, atol=1e-5)


def test_the_whole_head_beside_its_folds_is_that_of_fit() -> None:
    X, Y = draw(300)
    whole, *_ = KernelHead(landmarks=50).fit_folds(X, Y, [np.empty(0, np.int64), np.arange(100)])
    np.testing.assert_allclose(whole.predict_proba(X), KernelHead(landmarks=50).fit(X, Y).predict_proba(X), atol=1e-5)


def test_labels_of_a_fold_change_nothing_of_the_head_without_it() -> None:
    X, Y = draw(300)
    fold, other = np.arange(0, 300, 3), Y.toarray()
    other[fold] = 1 - other[fold]
    heads = [next(KernelHead(landmarks=50).fit_folds(X, each, [fold])) for each in (Y.toarray(), other)]
    np.testing.assert_allclose(*(head.predict_proba(X) for head in heads), atol=1e-6)


def test_a_fold_with_most_of_the_landmarks_is_fitted_with_others() -> None:
    X, Y = draw(300)
    fold = np.sort(np.random.default_rng(0).choice(300, 50, replace=False))  # all landmarks
    (head,) = KernelHead(landmarks=50).fit_folds(X, Y, [fold])
    rest = np.setdiff1d(np.arange(300), fold)
    np.testing.assert_array_equal(
        head.predict_proba(X), KernelHead(landmarks=50).fit(X[rest], Y[rest]).predict_proba(X)
    )


def test_similarities_in_float32_keep_scores_within_1e_4_of_those_in_float64() -> None:
    random = np.random.default_rng(0)
    near = np.repeat(random.standard_normal((300, 64)), 5, axis=0)  # images that are nearly the same, in fives
    X = (near + 1e-2 * random.standard_normal(near.shape)).astype(np.float32)
    Y = scipy.sparse.csr_matrix((X[:, :8] + random.standard_normal((1500, 8)) > 0.7).astype(np.int8))
    mean, scale = standardisation(X)
    chosen = np.sort(np.random.default_rng(0).choice(1500, 400, replace=False))
    expected = fit_plainly(X, Y.toarray(), mean, scale, X[chosen], X)
    np.testing.assert_allclose(KernelHead(landmarks=400).fit(X, Y).predict_proba(X), expected, atol=1e-4)
