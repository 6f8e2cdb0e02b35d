"""Joined stores: features of the same images side by side, and parts of an embedding."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import PROVENANCE, RECORD, make_store, reported

from cache.__main__ import main
from cache.feature_parts import FeatureParts
from cache.images import Listing
from cache.join import join_stores
from cache.provenance import Provenance
from cache.store import FeatureStore
from cache.support.errors import UserError
from cache.verify import verify_store
from cache.writer import write_store

IDS = {"train": ["a", "b", "c", "d"], "valid": ["e", "f"]}
OTHER = replace(PROVENANCE, backbone="xception", size=299, weights="1" * 64)


def rows(seed: int, width: int, ids: dict[str, list[str]] = IDS) -> dict[str, dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    values = {id: random.normal(size=width).astype(np.float32) for each in IDS.values() for id in each}
    return {split: {id: values[id] for id in each} for split, each in ids.items()}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_store(tmp_path / "x.one.h5", rows(1, 3), unreadable={"b": "damaged"})
    make_store(tmp_path / "x.two.h5", rows(2, 5), unreadable={"f": "empty file"}, provenance=OTHER)
    return tmp_path


def join(place: Path) -> FeatureStore:
    with reported():
        return join_stores([place / "x.one.h5", place / "x.two.h5"], place / "both.h5")


def test_features_of_each_image_stand_side_by_side(place: Path) -> None:
    joined = join(place)
    one, two = (FeatureStore(place / name) for name in ("x.one.h5", "x.two.h5"))
    for name, split in joined.splits.items():
        expected = np.hstack([store.split(name).embeddings for store in (one, two)])
        assert split.ids == one.split(name).ids
        np.testing.assert_array_equal(split.embeddings[split.readable], expected[split.readable])
        assert isinstance(split.embeddings, np.memmap)
        assert np.isnan(split.embeddings[~split.readable]).all()
    assert verify_store(place / "both.h5") == []


def test_an_image_that_one_store_cannot_read_is_unreadable(place: Path) -> None:
    joined = join(place)
    assert joined.split("train").describe_unreadable() == ["b: damaged"]
    assert joined.split("valid").describe_unreadable() == ["f: empty file"]


def test_the_order_of_images_may_differ(place: Path) -> None:
    straight = {name: split.embeddings.copy() for name, split in join(place).splits.items()}
    other = FeatureStore(place / "x.two.h5")
    backward = {name: Listing(split.ids[::-1], list(map(bytes, split.rows.digests[::-1])), [""] * len(split.ids))
                for name, split in other.splits.items()}  # fmt: skip
    (place / "x.two.h5").unlink()
    write_store(place / "x.two.h5", OTHER, RECORD, backward, [split.rows for split in other.splits.values()], (5,))
    assert FeatureStore(place / "x.two.h5").split("train").ids == ["d", "c", "b", "a"]
    for name, split in join(place).splits.items():
        np.testing.assert_array_equal(split.embeddings, straight[name])


def test_the_provenance_has_those_of_all_members(place: Path) -> None:
    joined = join(place).provenance
    assert joined.joined == (PROVENANCE, OTHER)
    assert (joined.backbone, joined.size) == ("densenet121+xception", 299)
    assert Provenance.from_json(joined.to_json()) == joined
    assert joined.fingerprint not in (PROVENANCE.fingerprint, OTHER.fingerprint)
    other = Provenance.join([PROVENANCE, replace(OTHER, size=224)])
    assert joined.differences(other) == ["size 299, not 224"]


def test_a_store_that_is_not_joined_has_the_fingerprint_that_it_always_had() -> None:
    assert "joined" not in json.loads(PROVENANCE.to_json())


def test_parts_are_named_after_the_files_and_can_be_selected(place: Path) -> None:
    split = join(place).split("train")
    assert split.parts == FeatureParts(("one", "two"), (3, 5))
    np.testing.assert_array_equal(split.select("two"), split.embeddings[:, 3:])
    assert np.shares_memory(split.select("two"), split.embeddings)
    with pytest.raises(UserError, match="no features 'three'; there are one, two"):
        split.select("one,three")


def test_the_poolings_of_a_store_select_all_its_parts() -> None:
    parts = FeatureParts.read("avg", {"parts": {"names": ["pool3", "relu"], "widths": [2, 3]}}, 5)
    assert parts.split("avg") == ["pool3", "relu"]
    assert parts.find_columns("avg") == slice(0, 5)


def test_the_same_stores_are_joined_once_and_changed_ones_again(place: Path) -> None:
    before = join(place).content
    with reported() as lines:
        join_stores([place / "x.one.h5", place / "x.two.h5"], place / "both.h5")
    assert lines == [f"{place}/both.h5: up to date (2 stores, 8 features)"]
    make_store(place / "x.two.h5", rows(3, 5), provenance=OTHER)
    assert join(place).content != before


def test_stores_of_different_images_are_refused_with_counts_and_examples(place: Path) -> None:
    ids = {"train": ["a", "b", "c"], "valid": ["e", "f"]}
    make_store(place / "x.two.h5", rows(2, 5, ids), provenance=OTHER)
    with pytest.raises(UserError, match=r"hold different images of train: 1 image only in the first \(d\)"):
        join(place)
    make_store(place / "x.two.h5", rows(2, 5, {"train": IDS["train"]}), provenance=OTHER)
    with pytest.raises(UserError, match=r"has splits train, valid, .* train; expected stores of the same images"):
        join(place)
    assert not (place / "both.h5").exists()


def test_what_cannot_be_joined_is_refused(place: Path) -> None:
    one, both = place / "x.one.h5", place / "both.h5"
    join(place)
    make_store(place / "maps.h5", {"train": {"a": np.zeros((2, 2, 3))}}, provenance=replace(PROVENANCE, pooling="none"))
    for stores, out, message in (
        ([one], place / "new.h5", "1 store given, expected at least two"),
        ([one, one], place / "new.h5", "given twice"),
        ([one, place / "x.two.h5"], one, "is one of the stores to join"),
        ([one, place / "maps.h5"], place / "new.h5", "holds maps, expected embeddings"),
        ([one, both], place / "new.h5", "is joined itself"),
        ([one, place / "x.two.h5"], place / "maps.h5", "is a store that is not joined"),
        ([one, place / "gone.h5"], place / "new.h5", "no such store"),
    ):
        with pytest.raises(UserError, match=message):
            join_stores(stores, out)
    assert not (place / "new.h5").exists()


def test_the_command_joins(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(place / name) for name in ("both.h5", "x.one.h5", "x.two.h5")]
    assert main(["join", *words]) == 0
    assert capsys.readouterr().out.endswith("2 stores joined, 6 images of 8 features (one, two)\n")
    assert main(["join", *words[:2]]) == 1


@pytest.mark.parametrize(
    "parts",
    [
        {"names": ["one", "two"], "widths": [3, 4]},
        {"names": ["one", "one"], "widths": [3, 5]},
        {"names": ["one"], "widths": [3, 5]},
        {"names": ["one", "two"], "widths": [9, -1]},
        {"names": ["one", "two"], "widths": "35"},
        7,
    ],
)
def test_parts_that_do_not_fit_are_damage(place: Path, parts: object) -> None:
    make_store(place / "bad.h5", rows(1, 8), record=RECORD | {"parts": parts})
    with pytest.raises(UserError, match="not a finished feature store"):
        FeatureStore(place / "bad.h5")
