"""Ridge regression is exact, and its cross-validation follows the definition."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from cache.support.errors import UserError
from heads.data.standardization import BLOCK_IMAGES, standardisation
from heads.estimators.ridge import ALPHAS, RidgeHead
from heads.registry import make_head


def draw(n_images: int, n_features: int, n_concepts: int = 4) -> tuple[np.ndarray, scipy.sparse.csr_matrix]:
    """Correlated features of different sizes, far from zero, and concepts that depend on them."""
    random = np.random.default_rng(0)
    Z = random.standard_normal((n_images, n_features)) @ random.standard_normal((n_features, n_features))
    Y = Z @ random.standard_normal((n_features, n_concepts)) + 3 * random.standard_normal((n_images, n_concepts)) > 2
    return (Z * np.logspace(-3, 3, n_features) + 5).astype(np.float32), scipy.sparse.csr_matrix(Y.astype(np.int8))


@pytest.mark.parametrize("alpha", [0.01, 3.0, 1000.0])
@pytest.mark.parametrize("shape", [(200, 12), (30, 50), (BLOCK_IMAGES + 7, 3)])
def test_scores_are_those_of_scikit_learns_ridge_clipped_to_probabilities(shape: tuple[int, int], alpha: float) -> None:
    X, Y = draw(*shape)
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    peer = Ridge(alpha=alpha, solver="svd").fit(Z, Y.toarray()).predict(Z).clip(0, 1)
    np.testing.assert_allclose(RidgeHead(alpha).fit(X, Y).predict_proba(X), peer, atol=2e-4)


@pytest.mark.parametrize("shape", [(80, 6), (30, 50)])
def test_cross_validation_follows_the_definition(shape: tuple[int, int]) -> None:
    X, Y = draw(*shape)
    mean, scale = standardisation(X)
    Z, T = ((X - mean) / scale).astype(np.float64), Y.toarray() - Y.toarray().mean(axis=0)
    Z -= Z.mean(axis=0)
    alphas, n_images = [0.5, 5.0, 500.0], len(X)
    expected = []
    for alpha in alphas:
        hat = Z @ np.linalg.solve(Z.T @ Z + alpha * np.eye(Z.shape[1]), Z.T)
        left = np.square(T - hat @ T).sum() / n_images
        expected.append(left / ((n_images - 1 - np.trace(hat)) / n_images) ** 2)
    head = RidgeHead(alphas).fit(X, Y)
    np.testing.assert_allclose(head.gcv_, expected, rtol=1e-5)
    assert head.alpha_ == alphas[int(np.argmin(expected))]


def test_cross_validation_finds_nearly_the_smallest_error_on_other_images() -> None:
    X, Y = draw(600, 40)
    seen, unseen = slice(0, 60), slice(60, None)
    errors = [
        np.square(RidgeHead(60 * alpha).fit(X[seen], Y[seen]).predict_proba(X[unseen]) - Y[unseen].toarray()).mean()
        for alpha in ALPHAS
    ]
    chosen = RidgeHead().fit(X[seen], Y[seen])
    error = np.square(chosen.predict_proba(X[unseen]) - Y[unseen].toarray()).mean()
    assert error < 1.05 * min(errors)
    assert error < 0.9 * errors[0]  # the choice matters


def test_labels_of_noise_get_a_large_penalty_and_their_frequency() -> None:
    random = np.random.default_rng(0)
    X, Y = random.standard_normal((2000, 5)), scipy.sparse.csr_matrix(random.integers(0, 2, (2000, 3)))
    head = RidgeHead().fit(X, Y)
    assert head.alpha_ >= 1000
    np.testing.assert_allclose(head.predict_proba(X), np.tile(Y.toarray().mean(axis=0), (2000, 1)), atol=0.1)


def test_a_constant_feature_has_no_effect_however_large() -> None:
    X, Y = draw(100, 5)
    with_constant = np.hstack([X, np.full((100, 1), 7.1e6, np.float32)])
    plain, other = RidgeHead(1.0).fit(X, Y), RidgeHead(1.0).fit(with_constant, Y)
    assert (other.coef_[:, -1] == 0).all()
    np.testing.assert_allclose(other.predict_proba(with_constant), plain.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("alpha", [-1, "large", True, [], [1, -1], [None], float("nan")])
def test_a_penalty_out_of_range_is_refused_by_its_name(alpha: object) -> None:
    with pytest.raises(UserError, match="head 'ridge': alpha"):
        make_head("ridge", {"alpha": alpha})


def test_penalties_tried_together_give_what_each_gives_alone() -> None:
    X, Y = draw(60, 5)
    trials = [{"alpha": 7.0}, {"alpha": [0.1, 1.0]}, {"alpha": None}]
    for trial, head in RidgeHead().fit_each(X, Y, trials):
        alone = RidgeHead(**trial).fit(X, Y)
        assert head.alpha_ == alone.alpha_
        np.testing.assert_array_equal(head.predict_proba(X), alone.predict_proba(X))
