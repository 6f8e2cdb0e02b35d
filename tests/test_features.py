"""Making features: only what is missing is embedded, rows stay aligned, other features are refused."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import UserError
from cache.parts import Parts
from cache.store import FeatureStore
from featurize import features
from featurize.features import make_features

SMALL = {"backbone": "mobilenet", "weights": "random:0", "size": 32, "engine": "tensorflow", "precision": "float32"}


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each run embeds."""
    counts: list[int] = []
    embed = features._embed

    def count(pending: list[Path], *args: Any) -> float:
        counts.append(len(pending))
        return embed(pending, *args)

    monkeypatch.setattr(features, "_embed", count)
    return counts


@pytest.fixture(scope="module")
def template(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a finished store beside it."""
    folder = tmp_path_factory.mktemp("features")
    shutil.copytree(phantoms, folder / "data")
    make(folder)
    return folder


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    """A copy of the template."""
    shutil.copytree(template, tmp_path / "place")
    return tmp_path / "place"


def make(place: Path, warn: Any = pytest.fail, **given: Any) -> FeatureStore:
    return make_features(place / "data", place / "s.h5", {**SMALL, **given}, say=lambda line: None, warn=warn)


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
    store = make_features(place / "data", place / "s.h5", {}, say=lambda line: None, warn=pytest.fail)
    assert embedded == []
    assert store.provenance.backbone == "mobilenet"


def test_only_a_new_image_is_embedded(place: Path, embedded: list[int]) -> None:
    before = FeatureStore(place / "s.h5").split("train").embeddings.copy()
    shutil.copy(sorted((place / "data" / "test").iterdir())[0], place / "data" / "train" / "zz_copy.jpg")
    data = first(place).read_bytes()
    (place / "data" / "train" / "zz_new.jpg").write_bytes(data + b"one more byte makes another image")
    split = make(place).split("train")
    assert embedded == [1]
    assert split.ids[-2:].tolist() == ["zz_copy", "zz_new"]
    np.testing.assert_array_equal(split.embeddings[:-2], before)


def test_a_renamed_image_is_not_embedded_again(place: Path, embedded: list[int]) -> None:
    before = FeatureStore(place / "s.h5").split("train").embeddings[0].copy()
    first(place).rename(place / "data" / "valid" / "moved.jpg")
    store = make(place)
    assert embedded == []
    assert len(store.split("train").ids) == 27
    row = store.split("valid").ids.tolist().index("moved")
    np.testing.assert_array_equal(store.split("valid").embeddings[row], before)


def test_a_changed_image_is_embedded_again_and_a_removed_one_leaves(place: Path, embedded: list[int]) -> None:
    paths = sorted((place / "data" / "train").iterdir())
    paths[0].write_bytes(paths[1].read_bytes() + b"changed")
    paths[2].unlink()
    split = make(place).split("train")
    assert embedded == [1]
    assert len(split.ids) == 27


def test_finished_units_of_a_stopped_run_are_not_embedded_again(place: Path, embedded: list[int]) -> None:
    finished = FeatureStore(place / "s.h5")
    parts = Parts(place / "s.h5", finished.fingerprint)
    parts.add(finished.split("valid").rows)
    (place / "s.h5").rename(place / "whole.h5")
    again = make(place)
    assert embedded == [34]
    assert again.content == finished.content
    assert not parts.root.exists()


def test_unreadable_images_keep_their_rows_and_are_told(place: Path) -> None:
    paths = sorted((place / "data" / "train").iterdir())
    paths[3].write_bytes(b"not an image")
    paths[5].write_bytes(paths[5].read_bytes()[:300])
    told: list[str] = []
    split = make(place, warn=told.append).split("train")
    assert np.flatnonzero(~split.readable).tolist() == [3, 5]
    assert split.ids.tolist() == [path.stem for path in paths]
    assert "train: 2 images cannot be read; their rows stay" in told[0]
    assert f"{paths[3].stem}: not an image of a known format" in told[0]


def test_an_image_that_never_had_bytes_does_not_make_a_store_stale(place: Path, embedded: list[int]) -> None:
    (place / "data" / "train" / "zz.jpg").symlink_to("nowhere.jpg")
    told: list[str] = []
    make(place, warn=told.append)
    make(place, warn=told.append)
    assert embedded == []
    assert len(told) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 64}, "it has size 32, not 64; name another STORE"),
        ({"pooling": "max"}, "it has pooling avg, not max"),
        ({"weights": "random:1"}, "it has weights [0-9a-f]{64}, not [0-9a-f]{64}"),
        ({"layer": "conv_pw_3_relu"}, "it has layer conv_pw_13_relu, not conv_pw_3_relu"),
    ],
)
def test_other_features_are_refused_and_the_store_stays(place: Path, given: dict[str, Any], message: str) -> None:
    before = (place / "s.h5").read_bytes()
    with pytest.raises(UserError, match=message):
        make(place, **given)
    assert (place / "s.h5").read_bytes() == before


def test_a_layer_under_another_name_is_the_same_layer(place: Path, embedded: list[int]) -> None:
    make(place, layer="-1")
    make(place, layer="conv_pw_13_relu")
    assert embedded == []


def test_rebuild_replaces_other_features(place: Path, embedded: list[int]) -> None:
    given = {**SMALL, "pooling": "max"}
    store = make_features(place / "data", place / "s.h5", given, rebuild=True, say=lambda line: None, warn=pytest.fail)
    assert embedded == [40]
    assert store.provenance.pooling == "max"


def test_processes_give_the_same_embeddings_as_one(place: Path) -> None:
    given = {**SMALL, "engine": "openvino"}
    stores = [
        make_features(place / "data", place / f"{n}.h5", given, workers=n, say=lambda line: None, warn=pytest.fail)
        for n in (1, 2)
    ]
    assert stores[0].content == stores[1].content
