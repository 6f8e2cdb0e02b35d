"""The network beside a store: whole, of the store's features, or refused with what to do."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import PROVENANCE

from cache.network_files import FACTS, FRONT, TAIL, NetworkFiles, find_folder
from cache.provenance import WeightsOrigin
from cache.support.errors import StoreError

WANTED = {"name": "densenet121", "weights": "random:0", "size": 224, "layer": "", "pooling": "avg", "engine": "openvino",
          "layers": "float32", "batch": 2}  # fmt: skip
SEED, FILE = WeightsOrigin("random:0", "random:0"), WeightsOrigin("/w/mine.h5", "sha256:" + "ab" * 32)
CUT = {"weights": "0" * 64, "layer": "relu", "preprocessing": "densenet", "shape": [1024], "n_weights": 3}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where a store would be that has a network beside it."""
    store = tmp_path / "s.h5"
    folder = find_folder(store)
    folder.mkdir()
    (folder / FRONT).write_bytes(b"a front")
    (folder / "front.xml").write_bytes(b"a converted front")
    NetworkFiles.write(folder, WANTED, CUT)
    return store


def test_what_was_written_is_read(store: Path) -> None:
    files = NetworkFiles.read(store)
    assert files.is_whole()
    assert (files.folder, files.wanted, files.cut) == (find_folder(store), WANTED, CUT)
    assert set(files.files) == {FRONT, "front.xml"}
    assert files.check_file(FRONT).read_bytes() == b"a front"
    files.check_provenance(PROVENANCE, SEED)


FACTS_OF = {"wanted": WANTED, "cut": CUT, "files": {}}


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"files": 3}', '{"files": {}, "wanted": {}, "cut": {}}', "[" * 100_000, '{"files":' * 100_000,
     *[json.dumps(FACTS_OF | change) for change in [
         {"files": {"a": 1}}, {"files": [["a", "b"]]}, {"wanted": WANTED | {"weights": 5}}, {"wanted": WANTED | {"size": "224"}},
         {"wanted": "ab"}, {"cut": CUT | {"shape": 7}}, {"cut": CUT | {"widths": "ab"}}, {"cut": CUT | {"shape": ["a"]}}, {"cut": CUT | {"layer": None}},
     ]]],
)  # fmt: skip
def test_damaged_facts_are_refused(store: Path, text: str) -> None:
    (find_folder(store) / FACTS).write_text(text)
    with pytest.raises(
        StoreError, match=r"s\.h5\.network: a damaged network \(.*\); copy the folder from .* or build it"
    ):
        NetworkFiles.read(store)


def test_a_folder_without_facts_is_unfinished(store: Path) -> None:
    (find_folder(store) / FACTS).unlink()
    with pytest.raises(StoreError, match=r"a damaged network .*No such file"):
        NetworkFiles.read(store)
    with pytest.raises(StoreError, match="no network beside the store"):
        NetworkFiles.read(store.with_name("other.h5"))


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_one_file_that_is_not_as_written_makes_it_incomplete(store: Path, damage: str) -> None:
    files, path = NetworkFiles.read(store), find_folder(store) / "front.xml"
    path.write_bytes(b"another") if damage == "changed" else path.unlink()
    assert not files.is_whole()
    with pytest.raises(StoreError, match=r"front\.xml is (not what was written|missing)"):
        files.check_file("front.xml")
    assert files.check_file(FRONT)
    with pytest.raises(StoreError, match=r"tail\.keras is missing"):
        files.check_file(TAIL)


@pytest.mark.parametrize("name", ["", ".", "..", "a\0b", "\udc80\ud800"])
def test_a_name_that_is_none_is_that_of_no_file(store: Path, name: str) -> None:
    assert not replace(NetworkFiles.read(store), files={name: "00"}).is_whole()


def test_a_name_in_the_facts_leads_nowhere_else(store: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"a front")
    files = NetworkFiles.read(store)
    elsewhere = replace(files, files={"../secret": files.files[FRONT]})
    assert not elsewhere.is_whole()


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("backbone", "mobilenet"),
        ("layer", "conv1"),
        ("pooling", "max"),
        ("size", 255),
        ("preprocessing", "resnet"),
    ],
)
def test_the_network_of_other_features_is_refused(store: Path, fact: str, value: object) -> None:
    other = replace(PROVENANCE, **{fact: value})  # type: ignore[arg-type]
    with pytest.raises(
        StoreError, match=rf"the network of other features \({fact} {getattr(PROVENANCE, fact)}, not {value}\)"
    ):
        NetworkFiles.read(store).check_provenance(other, SEED)


@pytest.mark.parametrize(
    ("built_from", "made_from", "message"),
    [
        ("random:0", FILE, r"weights random:0, not /w/mine\.h5"),
        ("imagenet", SEED, "weights imagenet, not random:0"),
        ("random:0", SEED, r"weights random:0 \(0{12}\), not random:0 \(1{12}\)"),
        ("sha256:" + "cd" * 32, SEED, r"weights a file \(SHA-256 (cd){6}\), not random:0"),
        ("sha256:" + "cd" * 32, FILE, r"weights a file \(SHA-256 (cd){6}\), not /w/mine\.h5 \(SHA-256 (ab){6}\)"),
    ],
)
def test_other_weights_are_called_as_the_user_knows_them(
    store: Path, built_from: str, made_from: WeightsOrigin, message: str
) -> None:
    files = replace(NetworkFiles.read(store), wanted=WANTED | {"weights": built_from})
    with pytest.raises(StoreError, match=rf"\({message}\)"):
        files.check_provenance(replace(PROVENANCE, weights="1" * 64), made_from)


def test_the_version_changes_with_any_file(store: Path) -> None:
    before, folder = NetworkFiles.read(store), find_folder(store)
    (folder / "front.xml").write_bytes(b"another")
    (folder / FACTS).unlink()
    after = NetworkFiles.write(folder, WANTED, CUT)
    assert after.version == NetworkFiles.read(store).version != before.version


@pytest.mark.parametrize(
    ("layers", "precision", "rounds"),
    [
        ("float32", "float32", False),
        ("float32", "bfloat16", True),
        ("bfloat16", "bfloat16", False),
        ("bfloat16", "float32", False),
    ],
)
def test_an_engine_rounds_beyond_the_layers_where_their_precisions_differ(
    store: Path, layers: str, precision: str, rounds: bool
) -> None:
    files = replace(NetworkFiles.read(store), wanted=WANTED | {"layers": layers})
    assert files.rounds_beyond_layers(replace(PROVENANCE, precision=precision)) is rounds
