"""A tail trained from stored maps equals one trained end to end, stays frozen where it should, and survives kills."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from forks import TENSORFLOW, Fork, run_fork

from cache.support.errors import ParameterError, UserError
from featurize.backbone import Backbone
from featurize.weights import load_weights
from heads.data.maps import Maps
from heads.estimators.dense import DenseHead
from heads.estimators.storage import load_head, save_head
from heads.estimators.tail import TailHead
from heads.networks.serialization import from_text
from heads.networks.tail import PooledTail

SHAPE = (4, 4, 6)
N_CONCEPTS = 5
QUICK = {"epochs": 2, "batch_size": 16}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tail with a frozen convolution, a trained one, batch normalisation and a shortcut around them."""
    keras.utils.set_random_seed(0)
    maps = keras.Input(SHAPE)
    first = keras.layers.Conv2D(6, 1, name="first", trainable=False)(maps)
    second = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="second")(first)
    normal = keras.layers.BatchNormalization(name="normal")(second)
    active = keras.layers.Activation("relu", name="active")(normal)
    network = keras.Model(maps, keras.layers.Concatenate(name="together")([first, active]))
    network.get_layer("normal").set_weights([np.full(8, value, np.float32) for value in (1.5, 0.1, -0.2, 2.0)])
    path = tmp_path_factory.mktemp("network") / "tail.keras"
    network.save(path)
    return path


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, scipy.sparse.csr_matrix]:
    """Maps, and five concepts that depend on their means; the fourth is in no image, the fifth in all."""
    random = np.random.default_rng(0)
    X = random.normal(size=(90, *SHAPE)) + random.normal(size=(90, 1, 1, 6))
    Y = (X.mean(axis=(1, 2)) @ random.normal(size=(6, N_CONCEPTS)) > 0.3).astype(int)
    Y[:, 3], Y[:, 4] = 0, 1
    return X.astype(np.float16), scipy.sparse.csr_matrix(Y)


def make(network: Path, **params: Any) -> TailHead:
    head = TailHead(**QUICK | params)
    head.set_network(network)
    return head


@pytest.fixture(scope="module")
def fitted(network: Path, data: tuple) -> TailHead:
    return make(network, epochs=6, learning_rate=0.01).fit(*data)


def test_scores_are_probabilities_one_per_concept(fitted: TailHead, data: tuple) -> None:
    scores = fitted.predict_proba(data[0])
    assert scores.shape == (90, N_CONCEPTS)
    assert scores.dtype == np.float32
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert scores[:, 3].max() < 0.05
    assert scores[:, 4].min() > 0.95


def test_it_learns_what_is_there(fitted: TailHead, data: tuple) -> None:
    right = (fitted.predict_proba(data[0]) >= 0.5) == data[1].toarray().astype(bool)
    assert right.mean() > 0.85
    assert 1 < len(fitted.held_out_f1_) == fitted.n_epochs_ <= 6


def test_the_same_seed_gives_the_same_scores_and_another_seed_others(network: Path, data: tuple) -> None:
    scores = [make(network, random_state=seed, dropout=0.2).fit(*data).predict_proba(data[0]) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_a_score_depends_on_its_image_alone(fitted: TailHead, data: tuple) -> None:
    several, all_of_them = fitted.predict_proba(data[0][40:43]), fitted.predict_proba(data[0])
    np.testing.assert_allclose(several, all_of_them[40:43], rtol=1e-5)


def test_a_saved_tail_gives_bit_equal_scores_in_a_new_process(fitted: TailHead, data: tuple, tmp_path: Path) -> None:
    save_head(fitted, "tail", tmp_path / "run")
    np.save(tmp_path / "X.npy", data[0])
    code = (
        "import sys, pathlib, numpy as np; from heads.estimators.storage import load_head; place = pathlib.Path(sys.argv[1])\n"
        "np.save(place / 'scores.npy', load_head(place / 'run').predict_proba(np.load(place / 'X.npy')))"
    )
    run_fork(code, tmp_path, libraries=TENSORFLOW).check_returncode()
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), fitted.predict_proba(data[0]))


def test_it_is_a_keras_model_from_maps_to_scores(fitted: TailHead, data: tuple) -> None:
    scores = np.asarray(fitted.to_keras()(data[0].astype(np.float32), training=False))
    np.testing.assert_allclose(scores, fitted.predict_proba(data[0]), atol=1e-6, rtol=0)


def weights(head: TailHead) -> dict[str, np.ndarray]:
    """The learnt weights of the tail, by layer and name."""
    tail = from_text(head.tail_)
    tail.set_weights(head.tail_weights_)
    return {f"{layer.name}.{each.name}": each.numpy() for layer in tail.layers for each in layer.weights}


def moved(network: Path, data: tuple, **params: Any) -> set[str]:
    """Names of the tail's weights that training has changed."""
    before = keras.saving.load_model(network)
    began = {f"{layer.name}.{each.name}": each.numpy() for layer in before.layers for each in layer.weights}
    after = weights(make(network, held_out=0.0, **params).fit(*data))
    return {name for name in began if not np.array_equal(began[name], after[name])}


def test_frozen_layers_and_statistics_do_not_change(network: Path, data: tuple) -> None:
    assert moved(network, data) == {"second.kernel", "normal.gamma", "normal.beta"}


def test_statistics_are_learnt_on_request(network: Path, data: tuple) -> None:
    statistics = {"normal.moving_mean", "normal.moving_variance"}
    assert moved(network, data, train_statistics=True) == {"second.kernel", "normal.gamma", "normal.beta"} | statistics


def test_training_starts_at_the_given_layer(network: Path, data: tuple) -> None:
    assert moved(network, data, train_from="normal") == {"normal.gamma", "normal.beta"}
    assert moved(network, data, train_from="first") >= {"first.kernel", "second.kernel"}
    with pytest.raises(ValueError, match=r"train_from: no layer 'third' after the cut; there are .*first, second"):
        make(network, train_from="third").fit(*data)


def test_a_warm_start_is_the_dense_head_on_pooled_maps(network: Path, data: tuple) -> None:
    """With a learning rate near zero, training all layers does not change the warm head."""
    head = make(network, warm_epochs=3, learning_rate=1e-30, epochs=1, held_out=0.0, hidden=7).fit(*data)
    began = keras.saving.load_model(network)
    pooled = PooledTail(began.to_json(), began.get_weights()).pool(Maps.from_array(data[0]))
    np.testing.assert_allclose(pooled, np.asarray(began(data[0])).mean(axis=(1, 2)), atol=1e-5)
    warm = DenseHead(hidden=7, epochs=3, decay=1.0, held_out=0.0, batch_size=16).fit(pooled, data[1])
    np.testing.assert_allclose(head.predict_proba(data[0]), warm.predict_proba(pooled), atol=1e-6)


def test_lower_precision_trains_and_is_saved_in_float32(network: Path, data: tuple) -> None:
    exact, rounded = (make(network, precision=each).fit(*data) for each in ("float32", "bfloat16"))
    assert {each.dtype for each in rounded.tail_weights_} == {np.dtype(np.float32)}
    assert not np.array_equal(exact.tail_weights_[2], rounded.tail_weights_[2])  # the kernel that is trained
    np.testing.assert_allclose(exact.predict_proba(data[0]), rounded.predict_proba(data[0]), atol=0.05)


def test_one_step_from_the_cut_is_one_step_of_the_whole_network(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    Y = (random.random((8, 4)) < 0.5).astype(np.int8)
    front = Backbone("mobilenetv2", "random:0", 32, "block_14_expand", "none").build()
    assert front.cut.moved_from == "block_14_expand"  # the layers between the cut and this one stay frozen
    front.tail.save(tmp_path / "tail.keras")
    maps = front.model.predict(images, verbose=0)
    head = make(tmp_path / "tail.keras", epochs=1, batch_size=8, held_out=0.0, warm_epochs=4).fit(maps, Y)

    whole = load_weights(keras.applications.MobileNetV2, "random:0", 32)
    last_frozen = [layer.name for layer in whole.layers].index("block_14_expand")
    for place, layer in enumerate(whole.layers):
        layer.trainable = place > last_frozen
    pixels = keras.applications.mobilenet_v2.preprocess_input(images.astype(np.float32))
    pooled = whole.predict(pixels, verbose=0).mean(axis=(1, 2))
    scale = np.abs(front.tail.predict(maps, verbose=0)).max()
    np.testing.assert_allclose(front.tail.predict(maps, verbose=0).mean(axis=(1, 2)), pooled, atol=1e-4 * scale, rtol=0)
    warm = DenseHead(epochs=4, decay=1.0, held_out=0.0, batch_size=8).fit(pooled, Y)
    dense = warm._build()
    dense.set_weights(warm.weights_)
    trained = whole.trainable_variables + dense.trainable_variables
    began = [each.numpy() for each in trained]
    with tf.GradientTape() as tape:
        maps = whole(pixels, training=False)  # batch normalisation uses its own statistics
        logits = dense((tf.reduce_mean(maps, axis=(1, 2)) - warm.mean_) / warm.scale_)
        loss = keras.losses.BinaryCrossentropy(from_logits=True)(Y, logits)
    slopes = tape.gradient(loss, [each.value for each in trained])
    keras.optimizers.Adam(0.001).apply(slopes, trained)
    theirs = {layer.name: layer.get_weights() for layer in whole.layers[last_frozen + 1 :] if layer.weights}
    tail = from_text(head.tail_)
    tail.set_weights(head.tail_weights_)
    ours = [array for name in theirs for array in tail.get_layer(name).get_weights()] + head.weights_
    peer = [array for arrays in theirs.values() for array in arrays] + dense.get_weights()
    far = np.sqrt(sum(np.square(a - b, dtype=np.float64).sum() for a, b in zip(ours, peer, strict=True)))
    size = np.sqrt(sum(np.square(each, dtype=np.float64).sum() for each in peer))
    after = [each.numpy() for each in trained]
    step = np.sqrt(sum(np.square(a - b, dtype=np.float64).sum() for a, b in zip(after, began, strict=True)))
    assert step > 1e-3 * size  # something has been learnt
    assert far <= 1e-4 * size


KILLED = """
import sys, pathlib, numpy as np, scipy.sparse
sys.path.insert(0, "tests")
from test_tail import make
place, folder = map(pathlib.Path, sys.argv[1:])
X, Y = np.load(place / "X.npy"), scipy.sparse.load_npz(place / "Y.npz")
head = make(place / "tail.keras", epochs=40, patience=40, dropout=0.3, learning_rate=0.01)
head.fit(X, Y, progress=lambda n_done, n_all: print(n_done, flush=True), checkpoint=folder / "checkpoint.h5")
np.save(folder / "scores.npy", head.predict_proba(X))
"""


def test_a_training_that_is_killed_continues_to_the_same_result(network: Path, data: tuple, tmp_path: Path) -> None:
    (tmp_path / "tail.keras").write_bytes(network.read_bytes())
    np.save(tmp_path / "X.npy", data[0])
    scipy.sparse.save_npz(tmp_path / "Y.npz", data[1])
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    words = {name: (KILLED, tmp_path, tmp_path / name) for name in ("whole", "killed")}
    with Fork(*words["whole"], libraries=TENSORFLOW) as whole:
        with Fork(*words["killed"], libraries=TENSORFLOW) as killed:
            deadline = time.monotonic() + 120
            while not (tmp_path / "killed" / "checkpoint.h5").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            killed.kill()
        assert killed.wait() == -signal.SIGKILL
        again = run_fork(*words["killed"], libraries=TENSORFLOW)
        assert again.returncode == 0, again.stderr
        assert int(again.stdout.split()[0]) > 81  # the first epoch, of 81 images, was not repeated
    assert whole.wait() == 0
    np.testing.assert_array_equal(*(np.load(tmp_path / name / "scores.npy") for name in words))


def test_a_damaged_checkpoint_is_ignored(network: Path, data: tuple, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.h5"
    checkpoint.write_bytes(b"damaged")
    head, other = make(network, epochs=1), make(network, epochs=1)
    head.fit(*data, checkpoint=checkpoint)
    np.testing.assert_array_equal(head.predict_proba(data[0]), other.fit(*data).predict_proba(data[0]))


@pytest.mark.parametrize("odd", ["flipped bit", "another training"])
def test_a_checkpoint_that_is_not_of_this_training_is_not_believed(
    network: Path, data: tuple, tmp_path: Path, odd: str
) -> None:
    checkpoint = tmp_path / "checkpoint.h5"
    hidden = 3 if odd == "another training" else 0
    make(network, epochs=1, hidden=hidden).fit(*data, checkpoint=checkpoint)
    if odd == "flipped bit":
        with h5py.File(checkpoint) as file:
            place = file["mean"].id.get_offset()
        with open(checkpoint, "r+b") as file:
            file.seek(place)
            file.write(b"\x01")
    head, other = make(network, epochs=2), make(network, epochs=2)
    head.fit(*data, checkpoint=checkpoint)
    np.testing.assert_array_equal(head.predict_proba(data[0]), other.fit(*data).predict_proba(data[0]))


SEVERAL = """
import contextlib, sys, pathlib, numpy as np, scipy.sparse, tensorflow as tf
sys.path.insert(0, "tests")
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import heads.networks.backend
real = tf.config.list_logical_devices
tf.config.list_logical_devices = lambda kind=None: real("CPU") if kind == "GPU" else real(kind)
mirrored = tf.distribute.MirroredStrategy
made = []
tf.distribute.MirroredStrategy = lambda: made.append(mirrored(["/cpu:0", "/cpu:1"])) or made[-1]
from test_tail import make
place = pathlib.Path(sys.argv[1])
X, Y = np.load(place / "X.npy"), scipy.sparse.load_npz(place / "Y.npz")
np.save(place / "scores.npy", make(place / "tail.keras", batch_size=18, held_out=0.0).fit(X, Y).predict_proba(X))
assert [each.num_replicas_in_sync for each in made] == [2]
"""


def test_several_devices_give_the_scores_of_one(network: Path, data: tuple, tmp_path: Path) -> None:
    (tmp_path / "tail.keras").write_bytes(network.read_bytes())
    np.save(tmp_path / "X.npy", data[0])
    scipy.sparse.save_npz(tmp_path / "Y.npz", data[1])
    done = run_fork(SEVERAL, tmp_path, libraries=TENSORFLOW)
    assert done.returncode == 0, done.stderr
    one = make(network, batch_size=18, held_out=0.0).fit(*data).predict_proba(data[0])
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), one, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((3, 2)), r"X has shape \(3, 2\), expected maps: \(n_images, height, width, n_features\)"),
        (np.ones((3, 2, 2, 6)), r"X has maps of shape \(2, 2, 6\), the tail takes \(4, 4, 6\)"),
        (np.ones((2, *SHAPE)), "X has 2 rows and Y 3, expected as many rows in both"),
    ],
)
def test_maps_that_do_not_fit_are_refused(network: Path, X: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(network).fit(X, np.ones((3, 2)))


def test_maps_of_another_shape_are_refused_at_prediction(fitted: TailHead) -> None:
    with pytest.raises(ValueError, match="X has 24 features, expected 96 as in fit"):
        fitted.predict_proba(np.ones((2, 2, 2, 6)))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"precision": "int8"}, "precision is 'int8', expected auto, float32, bfloat16, float16"),
        ({"warm_epochs": -1}, "warm_epochs"),
        ({"train_statistics": "yes"}, "train_statistics is 'yes', expected true or false"),
        ({"train_from": 277}, "train_from is 277, expected the name of a layer"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_its_name(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        TailHead(**params).check_params()


@pytest.mark.parametrize(
    "part",
    [
        {"module": "keras.layers", "class_name": "Lambda", "config": {"function": "x"}},
        {"module": "os", "class_name": "system", "config": "true"},
        {"module": "keras.utils", "class_name": "get_file", "config": {"origin": "file:///etc/passwd"}},
        {"class_name": "__lambda__", "config": {"value": ["x", None, None]}},
        {"module": "builtins", "class_name": "function", "config": "eval"},
    ],
    ids=["lambda layer", "module", "function", "lambda", "builtin"],
)
def test_a_strangers_tail_executes_nothing(fitted: TailHead, tmp_path: Path, part: dict[str, Any]) -> None:
    config = json.loads(fitted.tail_)
    config["config"]["layers"][1]["config"]["kernel_initializer"] = part
    with pytest.raises(UserError, match="not a network of Keras' own layers"):
        from_text(json.dumps(config))
    state = fitted.get_state() | {"tail": np.frombuffer(json.dumps(config).encode(), np.uint8)}
    strange = TailHead().set_state(state, fitted.n_features_in_, N_CONCEPTS)
    save_head(strange, "tail", tmp_path)
    with pytest.raises(UserError, match="not a network of Keras' own layers"):
        load_head(tmp_path).predict_proba(np.ones((1, *SHAPE)))


def test_a_tail_of_other_weights_is_refused(fitted: TailHead, tmp_path: Path) -> None:
    state = fitted.get_state()
    state["tail_weights_0"] = state["tail_weights_0"][..., :-1]
    save_head(TailHead().set_state(state, fitted.n_features_in_, N_CONCEPTS), "tail", tmp_path)
    with pytest.raises(UserError, match="a network of other weights"):
        load_head(tmp_path).predict_proba(np.ones((1, *SHAPE)))


def test_maps_are_never_all_in_memory(network: Path, data: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Maps.read
    largest = []

    def noting(self: Maps) -> Any:
        largest.append(len(self))
        return read(self)

    monkeypatch.setattr(Maps, "read", noting)
    monkeypatch.setattr("heads.data.maps.WINDOW_BYTES", 1)
    make(network).fit(*data).predict_proba(data[0])
    assert max(largest) == 32
