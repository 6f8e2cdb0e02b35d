"""Calibrated scores are probabilities, also of concepts that hardly any image shows."""

import json

import numpy as np
import pytest
import scipy.sparse

from cache.support.errors import UserError
from heads.decoders.calibration import LEAST, Platt, Temperature
from heads.registry import make_decoder


def draw(n_images: int = 4000) -> tuple[np.ndarray, np.ndarray, scipy.sparse.csr_matrix]:
    """Overconfident scores of concepts that are over- and underrated, their true probabilities, and labels."""
    random = np.random.default_rng(0)
    logits = random.normal(-1, 1.5, (n_images, 8))
    p = 1 / (1 + np.exp(-logits))
    Y = scipy.sparse.csr_matrix((random.random(p.shape) < p).astype(int))
    scores = 1 / (1 + np.exp(-(2 * logits + np.linspace(-2, 2, 8))))
    return scores.astype(np.float32), p, Y


def log_loss(p: np.ndarray, Y: scipy.sparse.csr_matrix) -> float:
    shown = Y.toarray().astype(bool)
    return float(-np.log(np.where(shown, p, 1 - p).clip(1e-9)).mean())


def test_platt_finds_the_true_probabilities() -> None:
    scores, p, Y = draw()
    calibration = Platt().fit(scores, Y)
    assert np.abs(calibration.transform(scores) - p).mean() < 0.01
    np.testing.assert_allclose(calibration.slope_, 0.5, atol=0.06)


def test_one_temperature_undoes_what_all_concepts_share() -> None:
    scores, _, Y = draw()
    calibration = Temperature().fit(scores, Y)
    assert log_loss(calibration.transform(scores), Y) < log_loss(scores, Y) - 0.1
    assert 0.3 < calibration.slope_ < 0.6


def test_a_calibration_is_the_optimum_that_scikit_learn_finds() -> None:
    from sklearn.linear_model import LogisticRegression

    scores, _, Y = draw(500)
    scores = scores.clip(LEAST, 1 - LEAST)
    z = np.log(scores / (1 - scores)).reshape(-1, 1)
    calibration = Temperature().fit(scores, Y)
    peer = LogisticRegression(C=np.inf, tol=1e-10).fit(z, Y.toarray().ravel())
    assert calibration.slope_ == pytest.approx(peer.coef_[0, 0], abs=1e-3)
    assert calibration.offset_ == pytest.approx(peer.intercept_[0], abs=1e-3)


def test_a_concept_with_few_images_is_calibrated_as_all_are() -> None:
    scores, _, Y = draw(1000)
    Y = Y.tolil()
    Y[:, 3] = 0
    Y[int(scores[:, 3].argmax()), 3] = 1
    calibration = Platt().fit(scores, Y.tocsr())
    alone = 0.2 * abs(calibration.slope_[0])
    assert calibration.slope_[3] > alone
    assert np.isfinite(calibration.offset_).all()
    rate = calibration.transform(scores)[:, 3].mean()
    assert 0 < rate < 0.05


def test_scores_that_were_cut_to_probabilities_do_not_outweigh_the_others() -> None:
    scores, p, Y = draw()
    cut = np.clip(1.3 * scores - 0.15, 0, 1).astype(np.float32)  # most say no more than "near 0" or "near 1"
    assert ((cut == 0) | (cut == 1)).mean() > 0.5
    between = (cut > 0) & (cut < 1)
    assert np.abs(Platt().fit(cut, Y).transform(cut) - p)[between].mean() < 0.045


def test_what_a_head_is_sure_of_stays_sure() -> None:
    scores, _, Y = draw(100)
    scores[:, 0], scores[:, 1] = 0, 1
    np.testing.assert_array_equal(Platt().fit(scores, Y).transform(scores)[:, :2], scores[:, :2])


def test_it_comes_back_from_what_is_saved() -> None:
    scores, _, Y = draw(200)
    decoder = make_decoder("platt+expected-f1").fit(scores, Y)
    again = make_decoder("platt+expected-f1").set_state(json.loads(json.dumps(decoder.get_state())))
    assert (decoder.predict(scores) != again.predict(scores)).nnz == 0


def test_a_decoder_of_calibrated_scores_is_tuned() -> None:
    assert make_decoder("temperature+fixed:0.5").tuned
    assert not make_decoder("expected-f1").tuned


def test_an_unknown_calibration_lists_those_known() -> None:
    with pytest.raises(UserError, match="no calibration 'beta'; there are temperature, platt"):
        make_decoder("beta+global")
