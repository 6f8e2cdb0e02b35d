"""Making features: only what is missing is embedded, rows stay aligned, other features are refused."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import cheap
import numpy as np
import PIL.Image
import pytest
from conftest import ROOT, reported, snapshot, warned
from joblib import parallel_config

import cache.parts
from cache.network_files import NetworkFiles
from cache.parts import Parts
from cache.store import FeatureStore
from cache.support.command import muted_imports
from cache.support.errors import UserError
from cache.support.files import digest_file
from cache.verify import verify_store
from featurize import pipeline as features
from featurize.pipeline import make_features

ENGINE, OTHER = ("tensorflow", "openvino")[:: -1 if find_spec("openvino") else 1]
SMALL = {"backbone": "mobilenet", "weights": "random:0", "size": 32, "layer": "conv_pw_3_relu", "engine": ENGINE,
         "precision": "float32"}  # fmt: skip


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each run embeds."""
    counts: list[int] = []
    embed = features.embed_images

    def count(paths: list[Path], *args: Any) -> None:
        counts.append(len(paths))
        embed(paths, *args)

    monkeypatch.setattr(features, "embed_images", count)
    return counts


@pytest.fixture(scope="module")
def template(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a finished store beside it."""
    with muted_imports():
        import tensorflow  # noqa: F401  # so that no network is built apart, which would load it each time
    folder = tmp_path_factory.mktemp("features")
    shutil.copytree(phantoms, folder / "data")
    make_features(folder / "data", folder / "s.h5", **SMALL, workers=1)
    return folder


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    """A copy of the template."""
    shutil.copytree(template, tmp_path / "place")
    return tmp_path / "place"


def make(place: Path, **given: Any) -> FeatureStore:
    return make_features(place / "data", place / "s.h5", **{**SMALL, **given})


def first(place: Path) -> Path:
    return sorted((place / "data" / "train").iterdir())[0]


def test_every_image_has_its_row(place: Path) -> None:
    store = FeatureStore(place / "s.h5")
    assert {name: len(split.ids) for name, split in store.splits.items()} == {"train": 28, "valid": 6, "test": 6}
    assert all(np.isfinite(split.embeddings).all() for split in store.splits.values())


def test_a_second_run_does_nothing(place: Path, embedded: list[int]) -> None:
    before = (place / "s.h5").read_bytes()
    make(place)
    assert embedded == []
    assert (place / "s.h5").read_bytes() == before


def test_options_that_are_left_open_follow_the_store(place: Path, embedded: list[int]) -> None:
    store = make_features(place / "data", place / "s.h5")
    assert embedded == []
    assert store.provenance.backbone == "mobilenet"


def test_only_a_new_image_is_embedded(place: Path, embedded: list[int]) -> None:
    before = FeatureStore(place / "s.h5").split("train").embeddings.copy()
    shutil.copy(sorted((place / "data" / "test").iterdir())[0], place / "data" / "train" / "zz_copy.jpg")
    data = first(place).read_bytes()
    (place / "data" / "train" / "zz_new.jpg").write_bytes(data + b"one more byte makes another image")
    split = make(place).split("train")
    assert embedded == [1]
    assert split.ids[-2:] == ["zz_copy", "zz_new"]
    np.testing.assert_array_equal(split.embeddings[:-2], before)


def test_a_renamed_image_is_not_embedded_again(place: Path, embedded: list[int]) -> None:
    before = FeatureStore(place / "s.h5").split("train").embeddings[0].copy()
    first(place).rename(place / "data" / "valid" / "moved.jpg")
    store = make(place)
    assert embedded == []
    assert len(store.split("train").ids) == 27
    row = store.split("valid").ids.index("moved")
    np.testing.assert_array_equal(store.split("valid").embeddings[row], before)


def test_a_changed_image_is_embedded_again_and_a_removed_one_leaves(place: Path, embedded: list[int]) -> None:
    paths = sorted((place / "data" / "train").iterdir())
    paths[0].write_bytes(paths[1].read_bytes() + b"changed")
    paths[2].unlink()
    with warned() as lines:
        split = make(place).split("train")
    assert embedded == [1]
    assert len(split.ids) == 27
    assert "1 of the store's images are not in" in lines[0]


def test_finding_what_is_missing_reads_no_embedding_of_a_part(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, read = Counter[str](), cache.parts._read_rows

    def count(file: BinaryIO, head: Any) -> Any:
        reads[file.name] += 1
        return read(file, head)

    finished = FeatureStore(place / "s.h5")
    parts = Parts(place / "s.h5", finished.provenance)
    for split in finished.splits.values():
        parts.add(split.rows)
    (place / "s.h5").unlink()
    monkeypatch.setattr(cache.parts, "_read_rows", count)
    assert make(place).content == finished.content
    # Once, to write the new store.
    assert list(reads.values()) == [1, 1, 1]


@pytest.mark.parametrize("at", [0, -1])
def test_a_damaged_part_is_reported_and_embedded_again(place: Path, embedded: list[int], at: int) -> None:
    finished = FeatureStore(place / "s.h5")
    parts = Parts(place / "s.h5", finished.provenance)
    for split in finished.splits.values():
        parts.add(split.rows)
    (place / "s.h5").unlink()
    path = max(parts.folder.iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with warned() as lines:
        assert make(place).content == finished.content
    assert embedded == [28]
    assert all(f"{parts.folder}: 1 damaged part passed over ({path.name}: " in line for line in lines)
    assert len(lines) == (2 if at == 0 else 1)  # a damaged head is found before embedding, too


def test_finished_units_of_a_stopped_run_are_not_embedded_again(place: Path, embedded: list[int]) -> None:
    finished = FeatureStore(place / "s.h5")
    parts = Parts(place / "s.h5", finished.provenance)
    parts.add(finished.split("valid").rows)
    (place / "s.h5").rename(place / "whole.h5")
    again = make(place)
    assert embedded == [34]
    assert again.content == finished.content
    assert not parts.root.exists()


def test_unreadable_images_keep_their_rows_and_are_reported(place: Path) -> None:
    paths = sorted((place / "data" / "train").iterdir())
    paths[3].write_bytes(b"not an image")
    paths[5].write_bytes(paths[5].read_bytes()[:300])
    with warned() as lines:
        split = make(place).split("train")
    assert np.flatnonzero(~split.readable).tolist() == [3, 5]
    assert split.ids == [path.stem for path in paths]
    assert "train: 2 images cannot be read; they keep their rows" in lines[0]
    assert f"{paths[3].stem}: not an image of a known format" in lines[0]


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_file_of_any_kind_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 4), dtype=np.uint8)
    picture = PIL.Image.fromarray(noise)
    deep = PIL.Image.fromarray((noise[..., 0].astype(np.uint16) << 8) + noise[..., 1])
    kinds = {
        "grey.jpg": picture.convert("L"), "colour.jpg": picture.convert("RGB"), "cmyk.jpg": picture.convert("CMYK"),
        "bits.png": picture.convert("1"), "palette.png": picture.convert("P"), "alpha.png": picture, "deep.png": deep,
        "plain.tiff": picture.convert("L"), "deep.tif": deep, "float.tiff": deep.convert("F"),
        "plain.bmp": picture.convert("RGB"), "plain.gif": picture.convert("P"), "plain.webp": picture,
    }  # fmt: skip
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    for name, image in kinds.items():
        image.save(folder / f"whole_{name.replace('.', '_')}{Path(name).suffix}")
    if find_spec("pydicom") is not None:
        import pydicom

        shipped = Path(pydicom.__file__).parent / "data" / "test_files" / "MR_small.dcm"
        shutil.copy(shipped, folder / "whole_dcm.dcm")
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        left = (
            data[: len(data) // 2] if damage == "cut" else b"\0" * 64 + data[64:132].replace(b"DICM", b"") + data[132:]
        )
        path.with_name(path.name.replace("whole", "torn")).write_bytes(left)
    cheap.install(monkeypatch.setattr)
    with warned() as lines:
        store = make_features(tmp_path / "data", tmp_path / "s.h5", **cheap.GIVEN)
    split = store.split("train")
    assert len(split.ids) == 2 * len(list(folder.glob("whole_*")))
    assert [id.startswith("whole") for id in split.ids] == split.readable.tolist()
    assert len(lines) == 1


def test_an_image_that_never_had_bytes_does_not_make_a_store_stale(place: Path, embedded: list[int]) -> None:
    (place / "data" / "train" / "zz.jpg").symlink_to("nowhere.jpg")
    with warned() as lines:
        make(place)
    make(place)
    assert embedded == []
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 64}, "it has size 32, not 64; name another STORE"),
        ({"pooling": "max"}, "it has pooling avg, not max"),
        ({"weights": "random:1"}, "it has weights random:0, not random:1; name another STORE"),
        ({"layer": "conv_pw_1_relu"}, "it has layer conv_pw_3_relu, not conv_pw_1_relu"),
    ],
)
def test_other_features_are_refused_and_the_store_stays(place: Path, given: dict[str, Any], message: str) -> None:
    before = snapshot(place)
    with pytest.raises(UserError, match=message):
        make(place, **given)
    assert snapshot(place) == before


def test_a_layer_under_another_name_is_the_same_layer(place: Path, embedded: list[int]) -> None:
    for layer in ("", "-1", "conv_pw_13_relu"):
        make_features(place / "data", place / "last.h5", **SMALL | {"layer": layer})
    assert embedded == [40]


TWO = SMALL | {"layer": "conv_pw_3_relu, conv_pw_1_relu"}


def test_several_layers_are_one_store_of_one_run_whatever_their_order(place: Path, embedded: list[int]) -> None:
    store = make_features(place / "data", place / "two.h5", **TWO)
    parts = store.split("train").parts
    assert (parts.names, parts.widths) == (("conv_pw_1_relu", "conv_pw_3_relu"), (64, 128))
    alone = FeatureStore(place / "s.h5")
    for name, split in store.splits.items():
        np.testing.assert_array_equal(split.select("conv_pw_3_relu"), alone.split(name).embeddings)
    before = (place / "two.h5").read_bytes()
    for layer in ("conv_pw_1_relu,conv_pw_3_relu", "conv_pw_3_relu,conv_pw_1_relu,conv_pw_3_relu", None):
        make_features(place / "data", place / "two.h5", **TWO | {"layer": layer})
    assert (place / "two.h5").read_bytes() == before
    assert make_features(place / "data", place / "two.h5", **TWO | {"layer": "22,9"}).content == store.content
    assert embedded == [40]
    with pytest.raises(UserError, match=r"it has layer conv_pw_1_relu,conv_pw_3_relu, not conv_pw_3_relu; name"):
        make_features(place / "data", place / "two.h5", **SMALL)


def test_names_of_layers_by_which_heads_select_follow_the_store(place: Path, embedded: list[int]) -> None:
    make_features(place / "data", place / "two.h5", **TWO)
    make_features(place / "data", place / "two.h5", **TWO, pooling="conv_pw_3_relu")
    assert embedded == [40]
    with pytest.raises(UserError, match="pooling 'conv_pw_9_relu': expected one of avg"):
        make_features(place / "data", place / "two.h5", **TWO, pooling="conv_pw_9_relu")


def test_a_store_of_several_layers_keeps_its_parts_when_images_come_and_go(place: Path, embedded: list[int]) -> None:
    parts = make_features(place / "data", place / "two.h5", **TWO).split("train").parts
    image = first(place)
    image.rename(place / "data" / "valid" / "moved.jpg")  # for this no network is needed
    assert make_features(place / "data", place / "two.h5").split("train").parts == parts
    (place / "data" / "train" / "new.jpg").write_bytes((place / "data" / "valid" / "moved.jpg").read_bytes() + b"new")
    assert make_features(place / "data", place / "two.h5").split("train").parts == parts
    assert embedded == [40, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layer": "a,b", "pooling": "none"}, "layer 'a,b': 2 layers without pooling, expected one"),
        ({"layer": "a,,b"}, "layer 'a,,b': nothing between two commas"),
        ({"layer": ","}, "layer ',': nothing between two commas"),
    ],
)
def test_layers_that_make_no_store_are_refused_before_an_image_is_read(
    place: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(features, "find_images", lambda *args: pytest.fail("images were looked for"))
    with pytest.raises(UserError, match=message):
        make_features(place / "data", place / "new.h5", **SMALL | given)


def test_maps_of_several_layers_are_refused_where_the_store_says_that_it_holds_maps(place: Path) -> None:
    make_features(place / "data", place / "maps.h5", **SMALL | {"pooling": "none"})
    before = snapshot(place)
    with pytest.raises(UserError, match="2 layers without pooling"):
        make_features(place / "data", place / "maps.h5", layer="9,22")
    assert snapshot(place) == before


def test_rebuild_replaces_other_features(place: Path, embedded: list[int]) -> None:
    given = {**SMALL, "pooling": "max"}
    store = make_features(place / "data", place / "s.h5", **given, rebuild=True)
    assert embedded == [40]
    assert store.provenance.pooling == "max"


def test_processes_give_the_same_embeddings_as_one(place: Path) -> None:
    if find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    shutil.copytree(place / "s.h5.network", place / "two.h5.network")
    two = make_features(place / "data", place / "two.h5", **SMALL, workers=2)
    assert two.content == FeatureStore(place / "s.h5").content


def test_another_backend_of_joblib_gives_the_same_store(place: Path) -> None:
    shutil.copytree(place / "s.h5.network", place / "other.h5.network")
    with parallel_config("threading"):
        other = make_features(place / "data", place / "other.h5", **SMALL, workers=3)
    assert other.content == FeatureStore(place / "s.h5").content


def test_progress_reports_rate_time_left_and_where_the_time_goes(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cache.support.progress.LINE_SECONDS", 0)
    cheap.install(monkeypatch.setattr)
    with reported() as lines:
        make_features(phantoms, tmp_path / "s.h5", **cheap.GIVEN, workers=1)
    shares = r"read \d+%, decode \d+%, infer \d+%, write \d+%"
    progress = [line for line in capsys.readouterr().err.splitlines() if line.startswith("embedding")]
    assert len(progress) == 10
    assert re.fullmatch(rf"embedding: 4 of 40, [\d.,]+ images/s, 0:00:\d\d left; {shares}", progress[0])
    assert re.fullmatch(rf"embedding: 40 of 40, [\d.,]+ images/s, 0:00:00 left; {shares}", progress[-1])
    assert re.fullmatch(rf"40 images embedded in \d+ s \([\d.]+ images/s; {shares}\)", lines[-2])


def test_an_option_that_differs_is_refused_before_anything_is_built(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "preparing_network", lambda *args: pytest.fail("built"))
    with pytest.raises(UserError, match=f"it has engine {ENGINE}, not {OTHER}"):
        make_features(place / "data", place / "s.h5", engine=OTHER)


def test_a_store_of_another_folder_is_not_emptied(place: Path, tmp_path: Path) -> None:
    before = snapshot(place)
    for path in sorted((place / "data" / "train").iterdir())[:2]:
        (tmp_path / "other" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "other" / "train" / path.name).write_bytes(path.read_bytes() + b"other")
    for split in ("valid", "test"):
        shutil.copytree(place / "data" / split, tmp_path / "other" / split)
    with pytest.raises(
        UserError,
        match=r"split 'train' has vanished|was made from .*, and 26 of the store's images are not in .*; name another STORE",
    ):
        make_features(tmp_path / "other", place / "s.h5")
    assert snapshot(place) == before


def test_a_split_that_vanishes_is_refused_unless_it_is_meant(place: Path, embedded: list[int]) -> None:
    shutil.rmtree(place / "data" / "valid")
    with pytest.raises(UserError, match="split 'valid' has vanished: 6 of the store's images are not in"):
        make(place)
    store = make_features(place / "data", place / "s.h5", rebuild=True)
    assert list(store.splits) == ["train", "test"]
    assert embedded == []


def test_a_finished_store_does_not_need_its_weights_file(place: Path, tmp_path: Path, embedded: list[int]) -> None:
    import keras

    from featurize.weights import load_weights

    weights = tmp_path / "mine.weights.h5"
    load_weights(keras.applications.MobileNet, "random:3", 32).save_weights(weights)
    given = {**SMALL, "weights": str(weights)}
    made = make_features(place / "data", place / "w.h5", **given)
    weights.rename(tmp_path / "renamed.weights.h5")
    again = make_features(place / "data", place / "w.h5")
    first(place).rename(place / "data" / "valid" / "moved.jpg")
    moved = make_features(place / "data", place / "w.h5")
    assert embedded == [40]
    assert made.fingerprint == again.fingerprint == moved.fingerprint
    (place / "data" / "valid" / "new.jpg").write_bytes((place / "data" / "valid" / "moved.jpg").read_bytes() + b"new")
    make_features(place / "data", place / "w.h5")
    assert embedded == [40, 1]
    shutil.rmtree(place / "w.h5.network")
    (place / "data" / "valid" / "other.jpg").write_bytes((place / "data" / "valid" / "new.jpg").read_bytes() + b"other")
    with pytest.raises(UserError, match=r"mine\.weights\.h5': no such file"):
        make_features(place / "data", place / "w.h5")


def test_a_split_of_unreadable_images_alone_makes_a_store_that_opens(place: Path) -> None:
    for path in (place / "data" / "test").iterdir():
        path.write_bytes(path.name.encode())
    with warned():
        make(place)
    split = FeatureStore(place / "s.h5").split("test")
    assert not split.readable.any()
    assert np.isnan(split.embeddings).all()


def test_several_poolings_stand_side_by_side_from_one_run(place: Path, embedded: list[int]) -> None:
    both, gem = (
        make_features(place / "data", place / name, **SMALL | {"pooling": pooling})
        for name, pooling in (("both.h5", "gem,avg"), ("gem.h5", "gem"))
    )
    assert embedded == [40, 40]
    split, width = both.split("train"), FeatureStore(place / "s.h5").split("train").embeddings.shape[1]
    assert both.provenance.pooling == "avg,gem"
    assert split.embeddings.shape[1] == 2 * width
    for pooling, alone in (("avg", FeatureStore(place / "s.h5")), ("gem", gem)):
        expected = alone.split("train").embeddings
        assert np.shares_memory(split.select(pooling), split.embeddings)
        np.testing.assert_allclose(split.select(pooling), expected, atol=1e-5 * np.abs(expected).max(), rtol=0)
    with pytest.raises(UserError, match="no features 'max'; there are avg, gem"):
        split.select("max")
    # A store that has more poolings than requested has the requested ones.
    make_features(place / "data", place / "both.h5", pooling="avg")
    with pytest.raises(UserError, match="it has pooling avg,gem, not avg,max"):
        make_features(place / "data", place / "both.h5", pooling="avg,max")
    assert embedded == [40, 40]


def test_maps_are_stored_for_what_follows_a_cut(place: Path, embedded: list[int]) -> None:
    import keras

    given = {**SMALL, "layer": "conv_pw_1_relu", "pooling": "none"}
    first(place).write_bytes(b"not an image")
    with reported():
        store = make_features(place / "data", place / "maps.h5", **given)
    split = store.split("train")
    assert store.has_maps
    assert split.embeddings.shape == (28, 16, 16, 64)
    assert split.embeddings.dtype == np.float16  # left open, maps take half the room
    assert split.readable.sum() == 27
    assert np.isnan(split.embeddings[~split.readable]).all()
    assert not verify_store(place / "maps.h5")
    (place / "data" / "valid" / "new.jpg").write_bytes(sorted((place / "data" / "test").iterdir())[0].read_bytes())
    with reported():
        make_features(place / "data", place / "maps.h5")
    assert embedded == [40]
    tail = keras.saving.load_model(place / "maps.h5.network" / "tail.keras")
    assert tail.output_shape == (None, 1, 1, 1024)


def test_maps_that_the_disk_cannot_hold_are_refused_with_the_number(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1_000_000}))
    given = {**SMALL, "layer": "conv_pw_1_relu", "pooling": "none"}
    before = snapshot(place)
    for name in ("maps.h5", "s.h5"):
        with pytest.raises(UserError, match=r"needs 0\.00(262|524) GB while it is made, its disk has 0\.001 GB free"):
            make_features(place / "data", place / name, **given, rebuild=True)
    assert snapshot(place) == before


def test_float16_is_stored_as_requested(place: Path) -> None:
    # Of an early layer: a random MobileNet's last features are too small for float16.
    given = {**SMALL, "layer": "conv_pw_1_relu", "dtype": "float16"}
    half = make_features(place / "data", place / "half.h5", **given)
    shutil.copytree(place / "half.h5.network", place / "whole.h5.network")
    whole = make_features(place / "data", place / "whole.h5", **given | {"dtype": "float32"})
    assert half.split("test").embeddings.dtype == np.float16
    assert half.fingerprint != whole.fingerprint
    np.testing.assert_array_equal(half.split("test").embeddings, whole.split("test").embeddings.astype(np.float16))


@pytest.mark.parametrize("name", ["half.h5", "s.h5"])
def test_embeddings_that_do_not_fit_into_float16_are_refused(place: Path, name: str) -> None:
    # A random MobileNet's features are about 1e-21: all would become 0. Only embedding them shows it.
    before = snapshot(place)
    given = {"layer": "", "pooling": "max", "dtype": "float16", "rebuild": True}
    with pytest.raises(UserError, match="do not fit into float16; store them as float32"):
        make_features(place / "data", place / name, **SMALL | given)
    assert snapshot(place) == before


def test_a_rebuild_that_fails_leaves_the_earlier_network(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise UserError("a worker was ended")

    before = snapshot(place / "s.h5.network")
    monkeypatch.setattr(features, "embed_images", fail)
    with pytest.raises(UserError, match="a worker was ended"):
        make_features(place / "data", place / "s.h5", **SMALL | {"pooling": "max"}, rebuild=True)
    assert snapshot(place / "s.h5.network") == before
    with pytest.raises(UserError, match="a worker was ended"):
        make_features(place / "data", place / "new.h5", **SMALL)
    assert NetworkFiles.read(place / "new.h5").is_whole()  # the next run need not build it
    assert not list(place.glob(".*.tmp"))


def test_the_process_that_builds_a_network_refuses_it_before_it_writes(
    place: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    before = snapshot(place)
    done = command("featurize", place / "data", "--store", place / "s.h5", "--weights", "random:1")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert (
        "holds other features than requested: it has weights random:0, not random:1; name another STORE" in done.stderr
    )
    assert snapshot(place) == before


def test_a_weights_file_that_has_changed_is_refused_by_its_digest(place: Path) -> None:
    import keras

    from featurize.weights import load_weights

    weights, digests = place / "mine.weights.h5", []
    for seed in (3, 4):
        load_weights(keras.applications.MobileNet, f"random:{seed}", 32).save_weights(weights)
        digests.append(digest_file(weights).hex()[:12])
        if seed == 3:
            make_features(place / "data", place / "w.h5", **SMALL | {"weights": weights})
    before = snapshot(place)
    message = rf"it has weights {weights} \(SHA-256 {digests[0]}\), not {weights} \(SHA-256 {digests[1]}\); name"
    with pytest.raises(UserError, match=message):
        make_features(place / "data", place / "w.h5", weights=weights)
    with pytest.raises(UserError, match=rf"it has weights {weights}, not random:0; name"):
        make_features(place / "data", place / "w.h5", weights="random:0")
    assert snapshot(place) == before


def test_parts_of_other_features_do_not_make_a_finished_store_work(place: Path, embedded: list[int]) -> None:
    from dataclasses import replace

    other = Parts(place / "s.h5", replace(FeatureStore(place / "s.h5").provenance, size=64))
    other.start({})
    before = (place / "s.h5").stat().st_mtime_ns
    make(place)
    assert (place / "s.h5").stat().st_mtime_ns == before
    assert other.folder.exists()


def test_a_missing_disk_does_not_empty_a_store(place: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (place / "data").rename(disk)
    for split in ("train", "valid", "test"):
        (place / "data" / split).mkdir(parents=True)
        for path in (disk / split).iterdir():
            (place / "data" / split / path.name).symlink_to(path)
    make(place)
    before = (place / "s.h5").read_bytes()
    disk.rename(tmp_path / "unmounted")
    with pytest.raises(
        UserError, match=r"split 'train' has vanished: 40 of the store's images are not in .* or cannot be read"
    ):
        make(place)
    assert (place / "s.h5").read_bytes() == before


def test_a_few_images_that_cannot_be_read_any_more_are_reported(place: Path) -> None:
    paths = sorted((place / "data" / "train").iterdir())
    paths[-1].unlink()
    paths[-1].symlink_to("nowhere.jpg")
    with warned() as lines:
        make(place)
    assert "their embeddings leave the store" in lines[0]


def test_damage_is_not_copied_under_a_fresh_digest(place: Path, embedded: list[int]) -> None:
    import h5py

    with h5py.File(place / "s.h5", "r") as file:
        at = file["splits/train/embeddings"].id.get_offset() + 100
    data = bytearray((place / "s.h5").read_bytes())
    data[at] ^= 1
    (place / "s.h5").write_bytes(data)
    (place / "data" / "train" / "zz_new.jpg").write_bytes(first(place).read_bytes() + b"new")
    before = (place / "s.h5").read_bytes()
    with pytest.raises(UserError, match=r"damaged \(bytes .* lists all\); run with --rebuild"):
        make(place)
    assert (place / "s.h5").read_bytes() == before
    make_features(place / "data", place / "s.h5", rebuild=True)
    assert embedded == [41]
    assert verify_store(place / "s.h5") == []


def test_damage_beside_embeddings_is_found_before_an_image_is_read(place: Path, embedded: list[int]) -> None:
    import h5py

    with h5py.File(place / "s.h5", "r") as file:
        at = file["splits/valid/digests"].id.get_offset() + 5
    data = bytearray((place / "s.h5").read_bytes())
    data[at] ^= 1
    (place / "s.h5").write_bytes(data)
    (place / "data" / "train" / "zz_new.jpg").write_bytes(first(place).read_bytes() + b"new")
    with pytest.raises(UserError, match=r"damaged \(bytes .* run with --rebuild"):
        make(place)
    assert embedded == []


def test_rebuild_brings_back_a_network_that_is_gone_and_embeds_nothing(place: Path, embedded: list[int]) -> None:
    content, network = FeatureStore(place / "s.h5").content, place / "s.h5.network"
    (network / "front.keras").write_bytes(b"damaged")
    for _ in range(2):
        store = make_features(place / "data", place / "s.h5", rebuild=True)
        assert (network / "front.keras").stat().st_size > 1000
        assert store.content == content
    assert embedded == []
    shutil.rmtree(network)
    make(place)
    assert not network.exists()  # what needs no network builds none


def test_rebuild_looks_at_a_weights_file_that_changed(place: Path, tmp_path: Path, embedded: list[int]) -> None:
    import keras

    from featurize.weights import load_weights

    weights = tmp_path / "mine.weights.h5"
    load_weights(keras.applications.MobileNet, "random:3", 32).save_weights(weights)
    given = {**SMALL, "weights": str(weights)}
    old = make_features(place / "data", place / "w.h5", **given)
    load_weights(keras.applications.MobileNet, "random:4", 32).save_weights(weights)
    new = make_features(place / "data", place / "w.h5", rebuild=True)
    assert embedded == [40, 40]
    assert new.fingerprint != old.fingerprint


def test_a_worker_that_is_ended_is_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cheap.install(monkeypatch.setattr, cheap.CheapEngine(die=True))
    with pytest.raises(UserError, match="a worker process was ended, most likely for lack of memory"):
        make_features(place / "data", place / "k.h5", **cheap.GIVEN, workers=2)


def test_a_full_disk_while_the_network_is_converted_is_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from featurize.engines.openvino import OpenVINOEngine

    def fail(*args: Any) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(OpenVINOEngine, "prepare", fail)
    with pytest.raises(UserError, match=r"cannot be written .*finished work is saved"):
        make_features(place / "data", place / "k.h5", **SMALL | {"engine": "openvino"})


def test_a_split_whose_images_are_all_replaced_is_brought_up_to_date(place: Path, embedded: list[int]) -> None:
    for number, path in enumerate(sorted((place / "data" / "test").iterdir())):
        path.write_bytes(path.read_bytes() + b"other")
        path.rename(path.with_name(f"other_{number}.jpg"))
    with warned() as lines:
        make(place)
    assert embedded == [6]
    assert "6 of the store's images are not in" in lines[0]


def test_public_names_are_those_that_a_notebook_imports() -> None:
    import featurize
    from featurize import Unreadable, decode

    assert all(getattr(featurize, name) is not None for name in featurize.__all__)
    assert set(featurize.__all__) <= set(dir(featurize))
    with pytest.raises(Unreadable, match="empty file"):
        decode(b"", 8)
    with pytest.raises(ImportError, match="no_such_name"):
        from featurize import no_such_name  # noqa: F401


def test_importing_the_package_loads_no_numeric_library() -> None:
    check = "import sys, featurize; sys.exit(bool({'numpy', 'h5py', 'PIL', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0
