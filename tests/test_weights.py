"""Weights files as users have them: what has this network's weights is read, anything else is refused for what it is."""

import contextlib
import io
import os
import pickle
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import ROOT

from cache.support import keras as keras_support
from cache.support.errors import ParameterError, UserError
from cache.support.keras import import_keras
from featurize import weights_file
from featurize.layer_matching import MismatchError, read_weights
from featurize.weights import copy_weights, describe_weights, digest_weights, load_weights
from featurize.weights_file import open_models

keras = import_keras()
MOBILENET = keras.applications.MobileNet


@pytest.fixture(scope="module")
def network() -> Any:
    """MobileNet with weights of its own; every statistic differs from its start."""
    made = load_weights(MOBILENET, "random:7", 32)
    random = np.random.default_rng(0)
    made.set_weights([np.float32(random.uniform(0.5, 1, each.shape)) for each in made.get_weights()])
    return made


@pytest.fixture(scope="module")
def target() -> Any:
    """A second MobileNet, to read weights into."""
    return load_weights(MOBILENET, "random:8", 32)


def read(target: Any, path: Path) -> str:
    """Read a file into a network that starts without any weights; gives their digest."""
    target.set_weights([np.full(each.shape, 9, np.float32) for each in target.get_weights()])
    with open_models(path) as models:
        read_weights(target, models)
    return digest_weights(target)


def write_legacy(path: Path, layers: list[Any], rename: Callable[[str], str] = str, **options: Any) -> None:
    """Write weights as tf.keras 2 did."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [rename(layer.name).encode() for layer in layers]
        for layer in layers:
            group = file.create_group(rename(layer.name))
            weights = {f"{rename(layer.name)}/{each.name}:0": each.numpy() for each in layer.weights}
            group.attrs["weight_names"] = np.array([name.encode() for name in weights], "S90")
            for name, values in weights.items():
                group.create_dataset(name, data=values, **(options if values.ndim else {}))


def with_top(network: Any) -> Any:
    """A convolution and a classifier after the network."""
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 1)(network.output))
    return keras.Model(network.input, keras.layers.Dense(14, name="predictions")(pooled))


def nested(network: Any) -> Any:
    return keras.Sequential([network, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(14)])


def as_layer(network: Any) -> Any:
    """A model with an input of its own, in which a network stands between other layers that have weights."""
    images = keras.Input((32, 32, 1))
    maps = network(keras.layers.Conv2D(3, 1)(images))
    return keras.Model(images, keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 1)(maps)))


def trained(model: Any) -> Any:
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def save(model: Any, path: Path, ending: str) -> None:
    """Save with Keras, in the layout of an ending, under any name."""
    made = path.with_name(f"made{ending}")
    model.save_weights(made) if ending == ".weights.h5" else model.save(made)
    made.rename(path)


def save_like_keras_1(network: Any, path: Path) -> None:
    """Variables as Keras 1 named them."""
    old = {"kernel": "W", "bias": "b", "moving_mean": "running_mean", "moving_variance": "running_std"}
    write_legacy(path, network.layers)
    with h5py.File(path, "a") as file:
        for layer in network.layers:
            for each in layer.weights:
                names = (
                    f"{layer.name}/{layer.name}/{each.name}:0",
                    f"{layer.name}/{layer.name}_{old.get(each.name, each.name)}:0",
                )
                file.move(*names)


def save_like_keras_2_15(network: Any, path: Path) -> None:
    """Keras 2.15 counted every layer that has weights twice."""
    save(network, path, ".weights.h5")
    with h5py.File(path, "a") as file:
        for name in file["layers"]:
            base, _, number = name.rpartition("_")
            double = f"{base}_{2 * int(number)}" if number.isdecimal() else name
            file.copy(file["layers"][name], file.require_group("_layer_checkpoint_dependencies"), double)
        del file["layers"]


def save_frozen(network: Any, path: Path) -> None:
    network.trainable = False
    save(nested(network), path, ".h5")
    network.trainable = True


def save_without_order(network: Any, path: Path) -> None:
    """No attributes, as some converters leave them out."""
    write_legacy(path, [*network.layers, with_top(network).layers[-1]])
    with h5py.File(path, "a") as file:
        del file.attrs["layer_names"]
        for group in file.values():
            del group.attrs["weight_names"]


FILES: dict[str, Callable[[Any, Path], None]] = {
    "plain": lambda network, path: write_legacy(path, network.layers),
    "compressed": lambda network, path: write_legacy(path, network.layers, compression="gzip"),
    "with a top": lambda network, path: write_legacy(path, with_top(network).layers),
    "with a top, in unknown order": save_without_order,
    "with a top, in Keras 3's layout": lambda network, path: save(with_top(network), path, ".weights.h5"),
    "with an optimizer, legacy": lambda network, path: save(trained(with_top(network)), path, ".h5"),
    "with an optimizer, .keras": lambda network, path: save(trained(with_top(network)), path, ".keras"),
    "nested, legacy": lambda network, path: save(nested(network), path, ".h5"),
    "nested and frozen, legacy": save_frozen,
    "nested, .weights.h5": lambda network, path: save(nested(network), path, ".weights.h5"),
    "nested, .keras": lambda network, path: save(nested(network), path, ".keras"),
    "a layer, legacy": lambda network, path: save(as_layer(network), path, ".h5"),
    "a layer, .weights.h5": lambda network, path: save(as_layer(network), path, ".weights.h5"),
    "a layer of a layer, .keras": lambda network, path: save(keras.Sequential([as_layer(network)]), path, ".keras"),
    "renamed": lambda network, path: write_legacy(path, with_top(network).layers, lambda name: f"fold0_{name}"),
    "as Keras 1 named it": save_like_keras_1,
    "as Keras 2.15 numbered it": save_like_keras_2_15,
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Keras warns of a model that was not compiled
@pytest.mark.parametrize("kind", FILES)
def test_a_file_with_this_network_gives_its_weights_whatever_is_around_it(
    network: Any, target: Any, tmp_path: Path, kind: str
) -> None:
    FILES[kind](network, tmp_path / "renamed.bin")
    assert read(target, tmp_path / "renamed.bin") == digest_weights(network)


def chain(*widths: int) -> Any:
    """Convolutions in a row, with names that Keras numbers."""
    images = maps = keras.Input((8, 8, 3))
    for width in widths:
        maps = keras.layers.Conv2D(width, 1)(maps)
    return keras.Model(images, maps)


def branches(prefix: str) -> Any:
    """Two convolutions of one shape side by side."""
    images = keras.Input((8, 8, 3))
    both = [keras.layers.Conv2D(4, 1, name=f"{prefix}{side}")(images) for side in ("left", "right")]
    return keras.Model(images, keras.layers.Add()(both))


@pytest.mark.parametrize("ending", [".h5", ".weights.h5"])
def test_of_numbered_layers_only_the_order_counts(tmp_path: Path, ending: str) -> None:
    target, *_, source = (chain(4, 4, 6) for _ in range(12))  # the last is past conv2d_9, which sorts after conv2d_10
    save(source, tmp_path / "a.h5", ending)
    assert read(target, tmp_path / "a.h5") == digest_weights(source) != digest_weights(chain(4, 4, 6))


def test_layers_that_could_be_confused_are_refused(tmp_path: Path) -> None:
    save(chain(4, 4, 4), tmp_path / "a.h5", ".weights.h5")  # which has no order of layers
    with pytest.raises(MismatchError, match="several of its layers could be 'conv2d"):
        read(chain(4, 4), tmp_path / "a.h5")


@pytest.mark.parametrize("ending", [".h5", ".weights.h5"])
def test_a_file_with_the_network_twice_is_refused(network: Any, target: Any, tmp_path: Path, ending: str) -> None:
    images = keras.Input((32, 32, 3))
    other = keras.models.clone_model(network)
    other.name = "other"
    save(keras.Model(images, keras.layers.Add()([network(images), other(images)])), tmp_path / "twice.h5", ending)
    with pytest.raises(MismatchError, match="it has this network more than once"):
        read(target, tmp_path / "twice.h5")


def test_parallel_branches_of_other_names_are_refused(tmp_path: Path) -> None:
    write_legacy(tmp_path / "a.h5", branches("a_").layers)
    assert read(branches("a_"), tmp_path / "a.h5")
    with pytest.raises(MismatchError, match="it has no layer 'b_left', but 'a_left', 'a_right'"):
        read(branches("b_"), tmp_path / "a.h5")


def test_a_deeper_network_of_the_same_names_is_refused(network: Any, target: Any, tmp_path: Path) -> None:
    deeper = list(network.layers)
    deeper.insert(9, chain(4).layers[-1])
    write_legacy(tmp_path / "a.h5", deeper)
    with pytest.raises(MismatchError, match="it has more layers in between, such as 'conv2d"):
        read(target, tmp_path / "a.h5")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("ending", "message"),
    [
        (".h5", "its layer 'conv1' has 3 x 3 x 3 x 16, not 3 x 3 x 3 x 32"),
        (".weights.h5", "its layer 'layers/conv2d' has 3 x 3 x 3 x 16, not 3 x 3 x 3 x 32"),
    ],
)
def test_a_narrower_network_is_refused_with_both_shapes(target: Any, tmp_path: Path, ending: str, message: str) -> None:
    save(MOBILENET(include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.5), tmp_path / "a.h5", ending)
    with pytest.raises(MismatchError, match=message):
        read(target, tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.float32(np.nan), r"gamma of the layer 'conv_pw_13_bn' has NaN or infinity in 1 of 1,024 numbers"),
        (np.float64(1e300), r"gamma of the layer 'conv_pw_13_bn' has NaN or infinity in 1 of 1,024 numbers"),
        (np.int8(3), r"gamma of the layer 'conv_pw_13_bn' has int8, not floating-point numbers"),
    ],
)
def test_numbers_that_cannot_be_weights_are_refused(
    network: Any, target: Any, tmp_path: Path, values: Any, message: str
) -> None:
    write_legacy(tmp_path / "a.h5", network.layers)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        group, name = file["conv_pw_13_bn"], "conv_pw_13_bn/gamma:0"
        changed = group[name][...].astype(values.dtype)
        changed[5] = values
        del group[name]
        group[name] = changed
    with pytest.raises(MismatchError, match=message):
        read(target, tmp_path / "a.h5")


def test_a_link_to_another_file_is_not_followed(network: Any, target: Any, tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        write_legacy(tmp_path / name, network.layers)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["conv1"]
        file["conv1"] = h5py.ExternalLink("b.h5", "conv1")
    with pytest.raises(MismatchError, match="it has no layer 'conv1'"):
        read(target, tmp_path / "a.h5")


def test_what_a_layer_derives_from_its_weights_is_derived_again(tmp_path: Path) -> None:
    source, read_into, copied = (
        keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Normalization()]) for _ in range(3)
    )
    images = np.random.default_rng(0).normal(5, 3, (4, 2, 2, 3)).astype(np.float32)
    source.layers[0].adapt(images)
    write_legacy(tmp_path / "a.h5", source.layers)
    read(read_into, tmp_path / "a.h5")
    copy_weights(source, copied)
    for each in (read_into, copied):
        np.testing.assert_array_equal(each(images), source(images))
    assert not np.array_equal(source(images), images)


def as_zip(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return buffer.getvalue()


def as_hdf5(**arrays: list[float]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return buffer.getvalue()


@pytest.mark.parametrize("error", [RuntimeError("addr overflow"), ValueError("cannot fit 'int'")])
def test_an_array_whose_place_is_damaged_is_a_damaged_file(
    network: Any, target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A changed address in a header is first noticed by whoever asks for it."""

    def fail(*args: object) -> None:
        raise error

    network.save_weights(tmp_path / "w.weights.h5")
    monkeypatch.setattr(h5py.h5o, "get_info", fail)
    with pytest.raises(ParameterError, match=r"w\.weights\.h5': a damaged file"):
        read(target, tmp_path / "w.weights.h5")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"\n <!DOCTYPE html><html>Google Drive", "an HTML page, most likely of a failed download"),
        (b"<?xml version='1.0'?><Error>", "an XML text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer.*git lfs pull"),
        (as_zip(archive__data_dot_pkl=b"x", archive__data__0=b"y"), "a PyTorch file, expected Keras"),
        (pickle.dumps({"torch": 1}), "a PyTorch file, expected Keras"),
        (pickle.dumps({"a": 1}), "a Python pickle, which is never opened"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a PyTorch file"),
        (b"\x08\x07\x12\x07pytorch", "an ONNX model"),
        (b"\x08\x01\x12\x80\x01", "a TensorFlow SavedModel"),
        (b"\x1c\x00\x00\x00TFL3", "a TensorFlow Lite model"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "a safetensors file"),
        (b"\x1f\x8b\x08\x00", "a gzip archive: unpack it"),
        (as_zip(weights__mobilenet_dot_h5=b"x"), "a zip archive of 'weights/mobilenet.h5': unpack it"),
        (as_zip(model_dot_weights_dot_h5=b"0" * 10**6), r"a damaged file \(model.weights.h5 unpacks to more than 20"),
        (as_zip(model_dot_weights_dot_h5=b"x")[:40], "a truncated zip or .keras archive"),
        (as_hdf5(a=[1.0] * 999)[:-100], "a truncated file"),
        (as_hdf5(a=[1.0], b=[2.0]), "an HDF5 file without layers of Keras .it has 'a', 'b'"),
        (b"not weights", r"neither an HDF5 file nor a .keras archive \(it begins with b'not weights'\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # an archive has the time of its making
)
def test_a_file_that_is_something_else_is_refused_for_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "mine.h5").write_bytes(content)
    with pytest.raises(ParameterError, match=f"mine.h5': {message}") as caught:
        describe_weights(str(tmp_path / "mine.h5"))
    assert "\n" not in str(caught.value)


def write_bomb(path: Path, n_bytes: int) -> None:
    """One layer whose only chunk unpacks to more than it declares."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(2**24)) for _ in range(n_bytes // 2**24)) + packer.flush()
    with h5py.File(path, "w") as file:
        shape = (3, 3, 3, 32)
        array = file.create_dataset("layers/conv2d/vars/0", shape, "f4", chunks=shape, compression="gzip")
        array.id.write_direct_chunk((0, 0, 0, 0), packed)


def test_an_array_that_unpacks_to_more_than_it_declares_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bomb(tmp_path / "bomb.h5", 2**28)
    monkeypatch.setattr(weights_file, "MAX_MEMORY", 2**27)
    with pytest.raises(ParameterError, match=r"bomb.h5': a damaged file \(/layers/conv2d/vars/0: .*download it again"):
        describe_weights(str(tmp_path / "bomb.h5"))


def test_a_large_shape_takes_nothing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file["layers/conv2d/vars/0"] = np.ones((3, 3, 3, 4), np.float32)
        options = {"chunks": (1000, 1000), "compression": "gzip"}
        array = file.create_dataset("layers/conv2d/vars/1", (10**7, 10**7), "f4", **options)
        array[:1000, -1000:] = 1
    assert describe_weights(str(tmp_path / "large.h5")).startswith("sha256:")
    with pytest.raises(MismatchError, match="has"):
        read(chain(4), tmp_path / "large.h5")


def test_numbers_in_another_file_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(3 * 3 * 3 * 4 * 4))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("layers/conv2d/vars/0", (3, 3, 3, 4), "f4", external=[(tmp_path / "secret", 0, 432)])
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("secret.h5", "a", (4,))
        file.create_virtual_dataset("layers/conv2d/vars/1", layout)
    with pytest.raises(ParameterError, match="an HDF5 file without layers of Keras"):
        describe_weights(str(tmp_path / "a.h5"))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("ending", [".h5", ".weights.h5", ".keras"])
def test_damage_of_any_byte_is_no_other_error(tmp_path: Path, ending: str) -> None:
    source, target = chain(4, 6), chain(4, 6)
    save(source, tmp_path / "whole", ending)
    whole, random = (tmp_path / "whole").read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole[: random.integers(len(whole) // 2, len(whole)) if random.random() < 0.2 else None])
        for place in random.integers(0, min(len(damaged), random.choice([800, 10**6])), 3):
            damaged[place] = random.integers(256)
        (tmp_path / "damaged").write_bytes(damaged)
        with contextlib.suppress(ParameterError, MismatchError):
            describe_weights(str(tmp_path / "damaged"))
            read(target, tmp_path / "damaged")


def test_a_damaged_list_of_names_of_any_length_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["conv/kernel:0"] = np.ones(3, np.float32)
        file.attrs.create("layer_names", ["conv"] * 50, dtype=h5py.string_dtype())
    whole = (tmp_path / "a.h5").read_bytes()
    place = whole.index(b"GCOL")  # where HDF5 keeps texts of variable length
    for number in range(60):
        damaged = bytearray(whole)
        damaged[place + 8 + number] ^= 0xFF
        (tmp_path / "a.h5").write_bytes(damaged)
        with contextlib.suppress(ParameterError):
            describe_weights(str(tmp_path / "a.h5"))


def test_an_archive_that_is_damaged_says_so(tmp_path: Path) -> None:
    whole = as_zip(model_dot_weights_dot_h5=as_hdf5(a=[1.0]))
    entry = whole.index(b"PK\1\2")
    for place, value in (
        (entry, 0),
        (entry + 8, 1),
        (entry + 10, 99),
        (entry + 6, 99),
        (whole.index(b"PK\3\4") + 28, 99),
    ):
        damaged = bytearray(whole)
        damaged[place] = value
        (tmp_path / "mine.keras").write_bytes(damaged)
        with pytest.raises(ParameterError, match=r"mine\.keras': a damaged"):
            describe_weights(str(tmp_path / "mine.keras"))


def test_a_folder_is_refused_for_what_it_is(tmp_path: Path) -> None:
    for name, message in {
        "saved_model.pb": "a TensorFlow SavedModel",
        "model.weights.h5": "an unpacked .keras",
    }.items():
        folder = tmp_path / name[:5]
        folder.mkdir()
        (folder / name).touch()
        with pytest.raises(ParameterError, match=message):
            describe_weights(str(folder))
    (tmp_path / "ckpt-1.index").touch()
    with pytest.raises(ParameterError, match="a TensorFlow checkpoint"):
        describe_weights(str(tmp_path / "ckpt-1"))


# Keras as the user has set it


def test_settings_of_the_process_are_set_again_at_every_call() -> None:
    keras.config.set_floatx("float16")
    keras.config.set_epsilon(1e-3)
    keras.config.set_image_data_format("channels_first")
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_max_epochs(1)
    config = import_keras().config
    assert (config.floatx(), config.epsilon(), config.image_data_format()) == ("float32", 1e-7, "channels_last")
    assert (config.dtype_policy().name, config.max_epochs()) == ("float32", None)


def test_settings_of_the_user_do_not_reach_keras(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text('{"backend": "jax", "floatx": "float16", "epsilon": 0.1}')
    given = {"KERAS_BACKEND": "torch", "KERAS_MAX_EPOCHS": "1", "TF_USE_LEGACY_KERAS": "1", "KERAS_HOME": str(tmp_path)}
    code = (
        "import os; from heads.networks.backend import import_keras, import_tensorflow; config = import_keras().config;"
        "print(config.backend(), config.floatx(), config.epsilon(), config.max_epochs(), os.environ['KERAS_BACKEND'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | given, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("tensorflow float32 1e-07 None torch\n", "")


def test_keras_with_another_backend_in_the_same_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(UserError, match=r"the backend jax in this process, expected tensorflow; .*KERAS_BACKEND="):
        import_keras()


def test_an_invalid_file_of_settings_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(name: str) -> None:
        raise ValueError("Invalid `floatx` configuration.")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras_support, "import_module", fail)
    keras_support._import.cache_clear()
    with pytest.raises(UserError, match=r"Invalid `floatx` configuration.*mend or remove .*keras\.json"):
        import_keras()


def test_a_file_is_found_from_where_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that reads it first may have been started in another folder."""
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        with h5py.File("mine.weights.h5", "w") as file:
            file["layers/dense/vars/0"] = np.ones((3, 3), np.float32)
        assert describe_weights("mine.weights.h5").startswith("sha256:")
        os.rename("mine.weights.h5", "gone")
