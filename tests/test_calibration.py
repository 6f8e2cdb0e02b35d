"""Calibrated scores are probabilities, also of concepts with few positive images."""

import json
import tracemalloc

import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import minimize

from cache.support.errors import ParameterError
from heads.decoders.calibrated import Calibrated
from heads.decoders.calibration import EPSILON, SHRINKAGE, Platt, Temperature
from heads.decoders.thresholds import FixedThreshold, GlobalThreshold
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
    positive = Y.toarray().astype(bool)
    return float(-np.log(np.where(positive, p, 1 - p).clip(1e-9)).mean())


def test_platt_finds_the_true_probabilities() -> None:
    scores, p, Y = draw()
    calibration = Platt().fit(scores, Y)
    assert np.abs(calibration.transform(scores) - p).mean() < 0.01
    np.testing.assert_allclose(calibration.slope_, 0.5, atol=0.06)


def test_one_temperature_corrects_what_all_concepts_share() -> None:
    scores, _, Y = draw()
    calibration = Temperature().fit(scores, Y)
    assert log_loss(calibration.transform(scores), Y) < log_loss(scores, Y) - 0.1
    assert 0.3 < calibration.slope_ < 0.6


def test_a_calibration_is_the_optimum_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    scores, _, Y = draw(500)
    scores = scores.clip(EPSILON, 1 - EPSILON)
    z = np.log(scores / (1 - scores)).reshape(-1, 1)
    calibration = Temperature().fit(scores, Y)
    peer = LogisticRegression(C=np.inf, tol=1e-10).fit(z, Y.toarray().ravel())
    assert calibration.slope_ == pytest.approx(peer.coef_[0, 0], abs=1e-3)
    assert calibration.offset_ == pytest.approx(peer.intercept_[0], abs=1e-3)


def test_each_concept_is_drawn_towards_the_optimum_of_all_together() -> None:
    scores, _, Y = draw(40)
    scores = scores.clip(EPSILON, 1 - EPSILON)
    scores[::7] = 0.5  # whose logit is 0
    z, labels = np.log(scores / (1 - scores)).astype(np.float64), Y.toarray()

    def loss(p: np.ndarray, concept: int | slice = slice(None)) -> float:
        logits = p[0] * z[:, concept] + p[1]
        return float((np.logaddexp(0, logits) - labels[:, concept] * logits).sum())

    shared = minimize(loss, [1.0, 0.0], tol=1e-12).x
    calibration = Platt().fit(scores, Y)
    for concept in range(8):

        def drawn(p: np.ndarray, concept: int = concept) -> float:
            return loss(p, concept) + SHRINKAGE / 2 * float(((p - shared) ** 2).sum())

        slope, offset = minimize(drawn, shared, tol=1e-12).x
        assert calibration.slope_[concept] == pytest.approx(slope, abs=1e-4)
        assert calibration.offset_[concept] == pytest.approx(offset, abs=1e-4)


def test_a_concept_with_few_positive_images_is_calibrated_like_the_others() -> None:
    scores, _, Y = draw(1000)
    Y = Y.tolil()
    Y[:, 3] = 0
    Y[int(scores[:, 3].argmax()), 3] = 1
    calibration = Platt().fit(scores, Y.tocsr())
    assert calibration.slope_[3] > 0.2 * abs(calibration.slope_[0])
    assert np.isfinite(calibration.offset_).all()
    rate = calibration.transform(scores)[:, 3].mean()
    assert 0 < rate < 0.05


def test_scores_clipped_to_0_and_1_do_not_dominate_the_fit() -> None:
    scores, p, Y = draw()
    clipped = np.clip(1.3 * scores - 0.15, 0, 1).astype(np.float32)
    assert ((clipped == 0) | (clipped == 1)).mean() > 0.5
    between = (clipped > 0) & (clipped < 1)
    assert np.abs(Platt().fit(clipped, Y).transform(clipped) - p)[between].mean() < 0.045


def test_scores_of_exactly_0_and_1_stay() -> None:
    scores, _, Y = draw(100)
    scores[:, 0], scores[:, 1] = 0, 1
    np.testing.assert_array_equal(Platt().fit(scores, Y).transform(scores)[:, :2], scores[:, :2])


def test_a_calibrated_decoder_is_restored_from_its_state() -> None:
    scores, _, Y = draw(200)
    decoder = make_decoder("platt+expected-f1").fit(scores, Y)
    again = make_decoder("platt+expected-f1").set_state(json.loads(json.dumps(decoder.get_state())))
    assert (decoder.predict(scores) != again.predict(scores)).nnz == 0


def test_a_calibrated_decoder_is_tuned() -> None:
    assert make_decoder("temperature+fixed:0.5").tuned
    assert not make_decoder("expected-f1").tuned


def test_an_unknown_calibration_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ParameterError, match="no calibration 'beta'; there are temperature, platt"):
        make_decoder("beta+global")


def test_the_objects_of_the_constructor_are_not_fitted() -> None:
    scores, _, Y = draw(200)
    calibration, decoder = Platt(), GlobalThreshold()
    calibrated = Calibrated(calibration, decoder).fit(scores, Y)
    assert (vars(calibration), vars(decoder)) == ({}, {"may_be_empty": False})
    expected = GlobalThreshold().fit(Platt().fit(scores, Y).transform(scores), Y)
    assert calibrated.decoder_.threshold_ == expected.threshold_
    again = Calibrated(calibration, decoder).set_state(calibrated.get_state())
    assert (vars(calibration), vars(decoder)) == ({}, {"may_be_empty": False})
    assert (again.predict(scores) != calibrated.predict(scores)).nnz == 0


@pytest.mark.parametrize("name", ["platt+expected-f1", "temperature+global", "platt+per-concept,empty"])
def test_predicting_in_blocks_is_predicting_at_once(name: str) -> None:
    scores, _, Y = draw(6000)
    decoder = make_decoder(name).fit(scores[:500], Y[:500])
    at_once = decoder.decoder_.predict(decoder.calibration_.transform(scores))  # type: ignore[attr-defined]
    assert (decoder.predict(scores) != at_once).nnz == 0


def test_predicting_needs_far_less_memory_than_the_scores() -> None:
    scores = np.random.default_rng(0).random((40_000, 200), np.float32) ** 16
    state = {"calibration": {"slope": [1.0] * 200, "offset": [0.0] * 200}, "decoder": {"threshold": 0.9}}
    decoder = make_decoder("platt+fixed:0.9").set_state(state)
    tracemalloc.start()
    decoder.predict(scores)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.6 * scores.nbytes


def test_no_image_is_no_obstacle() -> None:
    nothing = np.empty((0, 3), np.float32)
    decoder = make_decoder("platt+expected-f1").fit(nothing, scipy.sparse.csr_matrix((0, 3), dtype=np.int8))
    assert decoder.predict(nothing).shape == (0, 3)


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (Calibrated("platt", GlobalThreshold()), "calibration = 'platt', expected an instance of Calibration"),  # type: ignore[arg-type]
        (Calibrated(Platt(), Platt()), r"decoder = Platt\(\), expected an instance of Decoder"),  # type: ignore[arg-type]
        (Calibrated(Platt(), FixedThreshold(2)), "threshold = 2, expected a number from 0 to 1"),
    ],
)
def test_a_part_of_another_kind_is_an_error(decoder: Calibrated, message: str) -> None:
    scores, _, Y = draw(100)
    with pytest.raises(ParameterError, match=message):
        decoder.fit(scores, Y)
