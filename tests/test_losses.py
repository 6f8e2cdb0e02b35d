"""Losses are as their papers define them; early stopping keeps the epoch with the best official F1."""

import numpy as np
import pytest
import scipy.sparse
from scipy.special import expit

from cache.support.errors import ParameterError
from eval.f1 import image_f1, mean_f1
from heads.networks.backend import import_keras
from heads.networks.early_stopping import BestEpoch, best_f1, stop_early
from heads.networks.losses import LOSSES, asymmetric, make_loss

keras = import_keras()


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    """Labels, and logits from small ones to some whose exponential overflows float32."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(6, 40)).astype(np.float32) * np.repeat([0.1, 3.0, 200.0], 2)[:, None].astype("f")
    return (random.random((6, 40)) < 0.3).astype(np.uint8), logits


def value(loss: object, y_true: np.ndarray, logits: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(loss(y_true, keras.ops.convert_to_tensor(logits)))  # type: ignore[operator]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_focus_and_clip_the_asymmetric_loss_is_cross_entropy(data: tuple, smoothing: float) -> None:
    peer = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=None)
    expected = value(lambda y, z: peer(keras.ops.cast(y, "float32"), z), *data)
    plain = {"gamma": 0.0, "gamma_pos": 0.0, "gamma_neg": 0.0, "clip": 0.0, "label_smoothing": smoothing}
    for name in LOSSES:
        np.testing.assert_allclose(value(make_loss(name, **plain), *data), expected, rtol=1e-5)


def test_the_focal_loss_is_keras_own(data: tuple) -> None:
    peer = keras.losses.BinaryFocalCrossentropy(gamma=2.0, from_logits=True, reduction=None)
    expected = value(lambda y, z: peer(keras.ops.cast(y, "float32"), z), *data)
    np.testing.assert_allclose(value(make_loss("focal"), *data), expected, rtol=1e-5)


@pytest.mark.parametrize(("gamma_pos", "gamma_neg", "clip"), [(0.0, 4.0, 0.05), (1.0, 2.5, 0.2), (0.5, 0.0, 0.1)])
def test_the_asymmetric_loss_is_the_papers(data: tuple, gamma_pos: float, gamma_neg: float, clip: float) -> None:
    y, logits = data[0], data[1].astype(np.float64).clip(-30, 30)
    p = expit(logits)
    shifted = np.maximum(p - clip, 0)
    present, absent = (1 - p) ** gamma_pos * np.log(p), shifted**gamma_neg * np.log(1 - shifted)
    expected = -(y * present + (1 - y) * absent).mean(axis=1)
    loss = make_loss("asymmetric", gamma_pos=gamma_pos, gamma_neg=gamma_neg, clip=clip)
    np.testing.assert_allclose(value(loss, y, logits.astype(np.float32)), expected, rtol=2e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_gradients_are_finite_for_large_logits(data: tuple, gamma: float, clip: float) -> None:
    import tensorflow as tf

    logits = tf.constant(data[1])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = asymmetric(tf.constant(data[0], tf.float32), logits, gamma, gamma, clip)
    assert np.isfinite(tape.gradient(loss, logits).numpy()).all()


def test_an_unknown_loss_lists_the_known_ones() -> None:
    with pytest.raises(ParameterError, match="loss is 'hinge', expected cross-entropy, focal or asymmetric"):
        make_loss("hinge")


@pytest.mark.parametrize("settings", [{"gamma": -1.0}, {"clip": 1.0}, {"label_smoothing": "much"}])
def test_a_number_out_of_range_is_refused_by_its_name(settings: dict) -> None:
    with pytest.raises(ParameterError, match=next(iter(settings))):
        make_loss("focal", **settings)


def test_an_epochs_score_is_the_best_that_one_threshold_reaches() -> None:
    random = np.random.default_rng(0)
    Y = scipy.sparse.csr_matrix(random.random((50, 8)) < 0.3, dtype=np.int8)
    scores = (0.4 * random.random(Y.shape) + 0.3 * Y.toarray()).astype(np.float32)
    likeliest = scores.argmax(axis=1)  # every image gets at least one concept
    tried = []
    for threshold in np.unique(scores):
        predicted = scores >= threshold
        predicted[np.flatnonzero(~predicted.any(axis=1)), likeliest[~predicted.any(axis=1)]] = True
        tried.append(mean_f1(image_f1(Y, predicted)))
    assert best_f1(scores, Y) == pytest.approx(max(tried), abs=1e-12)


def test_training_ends_after_patience_and_keeps_the_first_of_the_best_epochs() -> None:
    Y = scipy.sparse.csr_matrix([[1, 0], [0, 1]])
    right, half, broken = [[0.9, 0.1], [0.1, 0.9]], [[0.9, 0.1], [0.9, 0.1]], [[np.nan, 0], [0, 0]]
    best, ended = BestEpoch(Y, patience=2), []
    for number, scores in enumerate([broken, half, right, right, half]):
        ended.append(best.note(np.array(scores, np.float32), lambda number=number: [np.array(number)]))
    assert ended == [False, False, False, False, True]
    assert best.weights == [2]
    assert best.f1 == [-1.0, pytest.approx(2 / 3), 1.0, 1.0, pytest.approx(2 / 3)]


def test_the_callback_stops_keras_and_restores_the_best_weights() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse")
    best, seen = BestEpoch(scipy.sparse.csr_matrix([[1, 0], [0, 1]]), patience=2), []

    def score() -> np.ndarray:
        seen.append(model.get_weights())
        right = np.eye(2, dtype=np.float32)
        return right if len(seen) == 2 else right[::-1].copy()

    X = np.ones((4, 1), np.float32)
    model.fit(X, X, epochs=20, verbose=0, callbacks=[stop_early(best, score)])
    assert len(seen) == 4
    np.testing.assert_array_equal(model.get_weights()[0], seen[1][0])
    assert not np.array_equal(seen[1][0], seen[3][0])
