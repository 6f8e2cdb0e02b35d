"""Duplicates: identical images have the same bytes, near ones similar embeddings; leaks come first."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import PROVENANCE, RECORD, digest, make_rows, make_store

from cache import duplicates as module
from cache.__main__ import main
from cache.duplicates import find_duplicates
from cache.images import Listing
from cache.store import FeatureStore
from cache.writer import write_store

TRAINED = {"asked": {"weights": "imagenet", "layer": ""}, "weights_source": "imagenet"}


def test_identical_images_are_grouped_and_leaks_come_first(tmp_path: Path) -> None:
    listings = {
        "train": Listing(["a", "b", "c", "x"], [digest(1), digest(1), digest(2), None], ["", "", "", "gone"]),
        "test": Listing(["d", "y"], [digest(2), None], ["", "gone"]),
    }
    write_store(tmp_path / "s.h5", PROVENANCE, RECORD, listings, [make_rows([1, 2], np.eye(2))], (2,))
    found = find_duplicates(FeatureStore(tmp_path / "s.h5"), 0.995)
    assert [(each.leak, each.images) for each in found.identical] == [
        (True, ["train/c", "test/d"]),
        (False, ["train/a", "train/b"]),
    ]
    assert found.near == []


@pytest.mark.parametrize("tile", [7, 2048])
def test_near_pairs_are_those_of_all_cosines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    monkeypatch.setattr(module, "TILE_ROWS", tile)
    random = np.random.default_rng(0)
    values = random.normal(size=(40, 5)).astype(np.float32)
    names = [f"train/i{n}" for n in range(25)] + [f"test/i{n}" for n in range(25, 40)]
    make_store(
        tmp_path / "s.h5",
        {"train": {f"i{n}": values[n] for n in range(25)}, "test": {f"i{n}": values[n] for n in range(25, 40)}},
        unreadable={"i3": "empty file"},
        record=TRAINED,
    )
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    expected = {
        (names[i], names[j]): float(unit[i] @ unit[j])
        for i in range(40)
        for j in range(i + 1, 40)
        if unit[i] @ unit[j] >= 0.8 and 3 not in (i, j)
    }
    found = find_duplicates(FeatureStore(tmp_path / "s.h5"), 0.8)
    assert {each.images: each.cosine for each in found.near} == pytest.approx(expected, abs=1e-5)
    assert found.n_near == len(expected) > 10
    assert found.n_near_leaks == sum(a.split("/")[0] != b.split("/")[0] for a, b in expected) > 0
    order = [(each.leak, each.cosine) for each in found.near]
    assert order == sorted(order, reverse=True)


def test_of_too_many_pairs_all_are_counted_and_the_best_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PAIRS", 5)
    monkeypatch.setattr(module, "TILE_ROWS", 8)
    angles = np.linspace(0, 0.05, 30)
    rows = {f"i{n}": np.array([np.cos(angle), np.sin(angle)]) for n, angle in enumerate(angles)}
    make_store(tmp_path / "s.h5", {"train": rows}, record=TRAINED)
    found = find_duplicates(FeatureStore(tmp_path / "s.h5"), 0.99)
    assert found.n_near == 30 * 29 // 2
    assert len(found.near) == 5
    assert min(each.cosine for each in found.near) > 0.99999


def test_duplicates_are_printed_as_text_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = {"train": {"a": np.array([1, 0.01])}, "valid": {"b": np.array([1, 0.0])}}
    make_store(tmp_path / "s.h5", splits, record=TRAINED)
    assert main(["duplicates", str(tmp_path / "s.h5")]) == 0
    out = capsys.readouterr().out
    assert "0 groups of identical images, 0 of them in two splits" in out
    assert "1 pair with a cosine of 0.995 or more, 1 of them between splits" in out
    assert "LEAK 1.0000 train/a ~ valid/b" in out or "LEAK 0.9999" in out
    assert main(["duplicates", str(tmp_path / "s.h5"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["near"][0]["images"] == ["train/a", "valid/b"]
    assert main(["duplicates", str(tmp_path / "s.h5"), "--cosine", "2"]) == 1
    assert "cache: error: cosine 2: expected a number above 0, at most 1" in capsys.readouterr().err


def test_a_leak_through_a_copy_lists_the_copy(tmp_path: Path) -> None:
    listings = {
        "train": Listing(["a", "b"], [digest(1), digest(2)], ["", ""]),
        "test": Listing(["c"], [digest(2)], [""]),
    }
    values = np.array([[1, 0], [1, 0.001]])
    write_store(tmp_path / "s.h5", PROVENANCE, TRAINED, listings, [make_rows([1, 2], values)], (2,))
    (near,) = find_duplicates(FeatureStore(tmp_path / "s.h5"), 0.995).near
    assert (near.leak, near.images) == (True, ("train/a", "test/c"))


def test_of_a_random_network_identical_images_alone_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listings = {
        "train": Listing(["a", "b"], [digest(1), digest(2)], ["", ""]),
        "test": Listing(["c"], [digest(2)], [""]),
    }
    values = np.array([[1, 0], [1, 0.001]])
    write_store(tmp_path / "s.h5", PROVENANCE, RECORD, listings, [make_rows([1, 2], values)], (2,))
    assert main(["duplicates", str(tmp_path / "s.h5")]) == 0
    out = capsys.readouterr().out
    assert "LEAK train/b = test/c" in out
    assert "nearly identical images are not listed: the network is random" in out
    assert "cosine" not in out
    assert main(["duplicates", str(tmp_path / "s.h5"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (len(found["identical"]), found["near"], found["n_near"]) == (1, [], 0)
    assert found["withheld"].startswith("nearly identical images are not listed")
