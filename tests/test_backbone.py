"""Backbones: any Keras application by name, cut and pooled, with its own preprocessing and weights."""

import inspect
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from cache.support.errors import ParameterError
from featurize.applications import APPLICATIONS
from featurize.backbone import Backbone, find_application
from featurize.layers import find_layer
from featurize.weights import describe_weights, load_weights

SMALL = {"name": "mobilenet", "weights": "random:0", "size": 32}


def images(n_images: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n_images, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """MobileNet with weights of its own."""
    return load_weights(keras.applications.MobileNet, "random:7", 32)


def run(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    """What a model gives; `predict` would compile it first."""
    return np.asarray(model(inputs, training=False))


@pytest.fixture(scope="module")
def whole_densenet() -> np.ndarray:
    """What a whole DenseNet-121 gives of two images."""
    return run(Backbone("densenet121", "random:0", 32).build().model, images(2))


def test_every_application_of_keras_is_found_with_its_preprocessing() -> None:
    titles = [
        title
        for title, each in inspect.getmembers(keras.applications)
        if inspect.isfunction(each) and title[0].isupper()
    ]
    assert len(titles) > 30
    for title in titles:
        module, application = find_application(title.lower())
        assert application.__name__ == title
        assert callable(module.preprocess_input)


def test_the_front_is_keras_own_network_after_keras_own_preprocessing() -> None:
    front = Backbone(**SMALL).build()
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    pixels = keras.applications.mobilenet.preprocess_input(images(2).astype("float32"))
    expected = network.predict(pixels, verbose=0)
    np.testing.assert_allclose(run(front.model, images(2)), expected, atol=1e-5 * expected.max(), rtol=0)
    assert front.cut.preprocessing == "mobilenet"


@pytest.mark.parametrize("name", ["vgg16", "efficientnetb0", "mobilenetv3small", "resnet50v2"])
def test_each_way_of_preprocessing_works_inside_the_network(name: str) -> None:
    front = Backbone(name, "random:0", 32).build()
    embeddings = run(front.model, images(1))
    assert embeddings.shape == (1, front.model.output_shape[-1])
    assert np.isfinite(embeddings).all()


def test_a_seed_decides_the_weights() -> None:
    digests = [Backbone("mobilenet", f"random:{seed}", 32).build().cut.weights for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_a_layer_is_named_or_numbered() -> None:
    named = Backbone(**SMALL, layer="conv_pw_3_relu").build()
    index = [layer.name for layer in keras.applications.MobileNet(include_top=False, weights=None).layers]
    numbered = Backbone(**SMALL, layer=str(index.index("conv_pw_3_relu"))).build()
    assert named.cut.layer == numbered.cut.layer == "conv_pw_3_relu"
    assert named.model.output_shape == (None, 128)


def test_several_layers_stand_side_by_side_in_the_order_of_the_network() -> None:
    singles = [Backbone(**SMALL, layer=layer).build() for layer in ("conv_pw_1_relu", "conv_pw_3_relu")]
    expected = np.concatenate([run(front.model, images(2)) for front in singles], axis=1)
    for layer in ("conv_pw_1_relu,conv_pw_3_relu", " conv_pw_3_relu , conv_pw_1_relu", "22,conv_pw_3_relu,9,9"):
        front = Backbone(**SMALL, layer=layer).build()
        assert (front.cut.layer, front.cut.widths) == ("conv_pw_1_relu,conv_pw_3_relu", (64, 128))
        assert front.cut.shape == (192,)
        np.testing.assert_array_equal(run(front.model, images(2)), expected)


def test_a_layer_that_gives_one_vector_stays_as_it_is() -> None:
    # Squeeze and excitation; whatever the pooling, of a map of one pixel it is the pixel.
    front = Backbone("efficientnetb0", "random:0", 32, "block2a_se_squeeze", "avg,max").build()
    assert front.cut.shape == (2 * 96,)
    average, greatest = np.split(run(front.model, images(2)), 2, axis=1)
    assert np.abs(average).max() > 0
    np.testing.assert_array_equal(average, greatest)


@pytest.mark.parametrize(
    ("layer", "cut", "frozen"),
    [
        ("276", "conv4_block19_concat", 3),
        ("conv4_block19_concat", "conv4_block19_concat", 0),
        ("pool3_relu", "pool3_relu", 0),
    ],
)
def test_a_cut_is_where_all_paths_meet_and_what_stands_between_stays_frozen(
    layer: str, cut: str, frozen: int, whole_densenet: np.ndarray
) -> None:
    front = Backbone("densenet121", "random:0", 32, layer, "none").build()
    assert front.cut.layer == cut
    assert front.cut.moved_from == ("conv4_block20_1_conv" if frozen else "")
    assert sum(not each.trainable for each in front.tail.layers) == frozen
    maps = run(front.model, images(2))
    assert maps.shape[1:] == front.cut.shape
    through = run(front.tail, maps).mean(axis=(1, 2))
    np.testing.assert_allclose(through, whole_densenet, atol=1e-4 * np.abs(whole_densenet).max(), rtol=0)


def test_a_cut_at_the_end_leaves_a_tail_that_changes_nothing() -> None:
    front = Backbone(**SMALL, pooling="none").build()
    maps = run(front.model, images(2))
    np.testing.assert_array_equal(run(front.tail, maps), maps)


@pytest.mark.parametrize(
    ("name", "size", "layer"),
    [("mobilenet", 64, "conv_pw_11_relu"), ("densenet121", 64, "pool4_relu"), ("vgg16", 64, "block5_conv3")],
)
def test_earlier_is_the_widest_layer_before_the_maps_become_small(name: str, size: int, layer: str) -> None:
    assert Backbone(name, "random:0", size, "earlier").build().cut.layer == layer


def test_earlier_and_last_are_layers_like_others() -> None:
    small = {**SMALL, "size": 64}
    front = Backbone(**small, layer="last,earlier").build()
    assert front.cut.layer == "conv_pw_11_relu,conv_pw_13_relu"
    named = Backbone(**small, layer=front.cut.layer).build()
    np.testing.assert_array_equal(run(front.model, images(2, 64)), run(named.model, images(2, 64)))


def test_a_network_whose_maps_stay_as_large_has_no_earlier_layer() -> None:
    inputs = keras.Input((8, 8, 3))
    network = keras.Model(inputs, keras.layers.Conv2D(4, 1)(inputs), name="flat")
    with pytest.raises(ParameterError, match="layer 'earlier': no maps of flat are larger than its last; name a layer"):
        find_layer(network, "earlier")


def test_max_pooling_is_the_maximum_of_the_map() -> None:
    maps, average, greatest = (
        run(Backbone(**SMALL, pooling=pooling, layer="conv_pw_3_relu").build().model, images(2))
        for pooling in ("none", "avg", "max")
    )
    np.testing.assert_allclose(greatest, maps.max(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(average, maps.mean(axis=(1, 2)), rtol=1e-5)
    assert (greatest > average).any()


def test_gem_is_the_cubic_mean_of_the_map() -> None:
    small = {**SMALL, "layer": "conv_pw_1_relu"}
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    cut = keras.Model(network.input, network.get_layer("conv_pw_1_relu").output)
    maps = cut.predict(keras.applications.mobilenet.preprocess_input(images(2).astype("float32")), verbose=0)
    expected = (np.maximum(maps, 1e-6) ** 3).mean(axis=(1, 2)) ** (1 / 3)
    found = run(Backbone(**small, pooling="gem").build().model, images(2))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("ending", [".weights.h5", ".keras"])
def test_weights_are_read_from_keras_files(network: keras.Model, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"mine{ending}"
    network.save_weights(path) if ending == ".weights.h5" else network.save(path)
    front = Backbone("mobilenet", str(path), 32).build()
    assert front.cut.weights == Backbone("mobilenet", "random:7", 32).build().cut.weights


def test_weights_are_read_from_the_legacy_layout_of_the_official_files(network: keras.Model, tmp_path: Path) -> None:
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    path = tmp_path / "mobilenet_notop.h5"
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, network)
    front = Backbone("mobilenet", str(path), 32).build()
    assert front.cut.weights == Backbone("mobilenet", "random:7", 32).build().cut.weights


def test_weights_of_another_network_are_refused(network: keras.Model, tmp_path: Path) -> None:
    network.save_weights(tmp_path / "mine.weights.h5")
    with pytest.raises(
        ParameterError, match=r"do not fit DenseNet121 without its top \(.*\); expected the weights of this very"
    ):
        Backbone("densenet121", str(tmp_path / "mine.weights.h5"), 32).build()


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    for name in ("a.h5", "a.weights.h5", "a.keras"):
        (tmp_path / name).write_text("not weights")
        with pytest.raises(ParameterError, match=f"{name}': neither an HDF5 file nor a .keras archive"):
            Backbone("mobilenet", str(tmp_path / name), 32).build()


def test_weights_that_cannot_be_found_list_the_three_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise Exception("URL fetch failure on https://example.org/weights.h5: None -- Name or service not known")

    monkeypatch.setattr("keras.src.applications.mobilenet.file_utils.get_file", no_network)
    with pytest.raises(
        ParameterError, match=r"(?s)no ImageNet weights.*--weights PATH.*--weights random:0.*--weights imagenet"
    ):
        Backbone("mobilenet", "imagenet", 224).build()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "densenet"}, "no backbone 'densenet'; Keras has convnextbase, .*xception"),
        ({"layer": "relu9"}, r"no layer 'relu9' in mobilenet.* to conv_pw_13_relu \(85\); did you mean conv.*_relu\?$"),
        ({"layer": "999"}, r"no layer '999' .* to conv_pw_13_relu \(85\); name one of them, earlier or last$"),
        ({"layer": "conv_pw_1_relu,relu9"}, "no layer 'relu9'"),
        ({"layer": "conv_pw_1_relu,global_average_pooling2d"}, "no layer 'global_average_pooling2d'"),
        ({"layer": "conv_pw_1_relu,,-1"}, "layer 'conv_pw_1_relu,,-1': nothing between two commas"),
        ({"layer": "9,22", "pooling": "none"}, "layer '9,22': 2 layers without pooling, expected one"),
        ({"pooling": "median"}, "pooling 'median': expected one of avg, max, gem"),
        ({"size": 16}, "MobileNet takes no image of 16 pixels"),
    ],
)
def test_an_unknown_choice_lists_the_right_ones(change: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Backbone(**{**SMALL, **change}).build()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("random:x", "expected random:SEED with a whole number"),
        ("random:-1", "expected random:SEED"),
        ("radimagenet", "no such file; expected imagenet, random:SEED or a file"),
        ("nowhere.h5", "no such file; .*; name a file"),
    ],
)
def test_weights_of_no_known_kind_are_refused(weights: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        describe_weights(weights)


def test_a_weights_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    for name, value in {"a.h5": 1.0, "b.h5": 1.0, "c.h5": 2.0}.items():
        with h5py.File(tmp_path / name, "w") as file:
            file["conv1/conv1/kernel:0"] = [value]
    first, same, other = (describe_weights(str(tmp_path / name)) for name in ("a.h5", "b.h5", "c.h5"))
    assert first == same != other


def test_the_names_that_are_known_without_keras_are_those_of_keras() -> None:
    with pytest.raises(ParameterError) as refused:
        find_application("resnet999")
    assert set(str(refused.value).partition("Keras has ")[2].split(", ")) == APPLICATIONS
