"""The store keeps rows aligned, in whatever order they come; a file that is not a finished store is refused."""

import inspect
import json
import os
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import PROVENANCE, RECORD, digest, make_rows, make_store

from cache.images import Listing
from cache.parts import Parts
from cache.provenance import Provenance
from cache.store import FeatureStore
from cache.support.errors import DataError, ParameterError, StoreError
from cache.support.files import SteadyFile, replacing
from cache.writer import write_store


def test_a_store_returns_what_was_written(tmp_path: Path) -> None:
    make_store(
        tmp_path / "s.h5", {"train": {"a": np.array([1, 2]), "ä": np.array([3, 4])}, "test": {"c": np.array([5, 6])}}
    )
    store = FeatureStore(tmp_path / "s.h5")
    assert list(store.splits) == ["train", "test"]
    assert store.provenance == PROVENANCE
    assert store.split("train").ids == ["a", "ä"]
    assert store.split("train").embeddings.tolist() == [[1, 2], [3, 4]]
    assert store.split("test").readable.all()


def test_embeddings_are_mapped_not_copied(tmp_path: Path) -> None:
    make_store(tmp_path / "s.h5", {"train": {"a": np.array([1, 2])}})
    embeddings = FeatureStore(tmp_path / "s.h5").split("train").embeddings
    assert isinstance(embeddings, np.memmap)
    assert not embeddings.flags.writeable


def test_rows_may_come_from_any_part_in_any_order(tmp_path: Path) -> None:
    ids = [f"i{number}" for number in range(20)]
    listing = Listing(ids, [digest(number) for number in range(20)], [""] * 20)
    order = np.random.default_rng(0).permutation(20)
    parts = [make_rows(part.tolist(), np.c_[part, part]) for part in np.array_split(order, 3)]
    write_store(tmp_path / "s.h5", PROVENANCE, RECORD, {"train": listing}, parts, (2,))
    assert FeatureStore(tmp_path / "s.h5").split("train").embeddings[:, 0].tolist() == list(range(20))


def test_one_image_under_two_ids_is_stored_under_both(tmp_path: Path) -> None:
    listings = {
        "train": Listing(["a", "b"], [digest(1), digest(1)], ["", ""]),
        "test": Listing(["c"], [digest(1)], [""]),
    }
    write_store(tmp_path / "s.h5", PROVENANCE, RECORD, listings, [make_rows([1], np.ones((1, 2)))], (2,))
    store = FeatureStore(tmp_path / "s.h5")
    assert store.split("train").embeddings.tolist() == [[1, 1], [1, 1]]
    assert store.split("test").embeddings.tolist() == [[1, 1]]


def test_embeddings_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    write = SteadyFile.write

    def count(file: SteadyFile, data: object) -> int:
        written.append(write(file, data))
        return written[-1]

    monkeypatch.setattr(SteadyFile, "write", count)
    make_store(tmp_path / "s.h5", {"train": {f"i{row}": np.full(1000, row) for row in range(500)}}, {"i7": "damaged"})
    embeddings = FeatureStore(tmp_path / "s.h5").split("train").embeddings
    assert embeddings.nbytes < sum(written) < 1.1 * embeddings.nbytes
    assert np.isnan(embeddings[7]).all()


def test_unreadable_images_keep_their_row_and_reason(tmp_path: Path) -> None:
    rows = {id: np.ones(2) for id in "abc"}
    make_store(tmp_path / "s.h5", {"train": rows}, unreadable={"b": "damaged: truncated"})
    split = FeatureStore(tmp_path / "s.h5").split("train")
    assert split.readable.tolist() == [True, False, True]
    assert np.isnan(split.embeddings[1]).all()
    assert split.describe_unreadable() == ["b: damaged: truncated"]


def test_a_file_without_bytes_keeps_its_row(tmp_path: Path) -> None:
    listing = Listing(["a", "b"], [digest(1), None], ["", "cannot be read: Permission denied"])
    write_store(tmp_path / "s.h5", PROVENANCE, RECORD, {"train": listing}, [make_rows([1], np.ones((1, 2)))], (2,))
    assert FeatureStore(tmp_path / "s.h5").split("train").describe_unreadable() == [
        "b: cannot be read: Permission denied"
    ]


def test_an_image_in_no_source_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    listing = Listing(["a", "b"], [digest(1), digest(2)], ["", ""])
    with pytest.raises(DataError, match=r"1 image changed or vanished while being embedded \(b\)"):
        write_store(tmp_path / "s.h5", PROVENANCE, RECORD, {"train": listing}, [make_rows([1], np.ones((1, 2)))], (2,))
    assert list(tmp_path.iterdir()) == []


def test_content_changes_with_ids_and_embeddings_but_not_with_the_record(tmp_path: Path) -> None:
    contents = []
    for id, value in (("a", 1), ("a", 1), ("b", 1), ("a", 2)):
        make_store(tmp_path / "s.h5", {"train": {id: np.array([value])}})
        contents.append(FeatureStore(tmp_path / "s.h5").content)
    assert contents[0] == contents[1]
    assert len(set(contents)) == 3


def test_each_fact_changes_the_fingerprint_and_is_reported() -> None:
    facts = json.loads(PROVENANCE.to_json())
    for name, value in facts.items():
        other = Provenance(**{**facts, name: value + 1 if isinstance(value, int) else value + "x"})
        assert other.fingerprint != PROVENANCE.fingerprint
        assert [line.split()[0] for line in PROVENANCE.differences(other)] == [name]


def test_an_unknown_pooling_lists_those_that_exist(tmp_path: Path) -> None:
    make_store(tmp_path / "s.h5", {"train": {"a": np.ones(2)}})
    with pytest.raises(ParameterError, match="no features 'max'; there are avg"):
        FeatureStore(tmp_path / "s.h5").split("train").select("max")


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="is a folder, expected a file to write"), replacing(tmp_path):
        pass


def test_the_example_of_a_store_runs_with_paths_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "data" / "my_images.densenet121.h5", {"train": {"a": np.array([1, 2])}})
    example = inspect.cleandoc(str(FeatureStore.__doc__)).partition("one split::\n\n")[2]
    names: dict[str, Any] = {"FeatureStore": FeatureStore}
    exec(textwrap.dedent(example), names)
    assert names["ids"] == ["a"]
    assert names["X"].tolist() == [[1, 2]]


def test_a_repr_is_short_whatever_the_store_holds(tmp_path: Path) -> None:
    rows = {f"i{number}": np.ones(3) for number in range(1200)}
    make_store(tmp_path / "s.h5", {"train": rows, "test": {"x": np.ones(3)}}, unreadable={"i7": "empty file"})
    store = FeatureStore(tmp_path / "s.h5")
    fingerprint = PROVENANCE.fingerprint[:16]
    assert repr(store) == (
        f"FeatureStore('{tmp_path / 's.h5'}': 1,200 train, 1 test images of 3 features, fingerprint {fingerprint})"
    )
    assert repr(store.split("train")) == ("Split(1,200 images, 1 unreadable, embeddings 1,200 x 3 float32 of avg)")
    assert repr(store.split("train").rows) == "Rows(1,200 images, 1 unreadable, embeddings 1,200 x 3 float32)"
    assert repr(Listing(["a", "b"], [digest(1), None], ["", "gone"])) == "Listing(2 images, 1 cannot be read)"


def test_parts_are_read_back_and_removed(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "s.h5", PROVENANCE)
    rows = make_rows([1, 2], np.ones((2, 3)), {2: "empty file"})
    parts.start({})
    parts.add(rows)
    parts.add(rows)
    (back,) = Parts(tmp_path / "s.h5", PROVENANCE)
    assert back.digests.tolist() == rows.digests.tolist()
    assert back.reasons == ["", "empty file"]
    assert list(Parts(tmp_path / "s.h5", replace(PROVENANCE, size=255))) == []
    parts.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write_and_fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("new")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_and_fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def relabel(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["schema"]
        file["schema"] = np.frombuffer(b"99", np.uint8)


def shorten(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["splits/train/status"]
        file["splits/train/status"] = np.zeros(1, np.uint8)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "not a finished feature store"),
        (lambda path: path.write_text("ID,CUIs"), "not a finished feature store"),
        (lambda path: h5py.File(path, "w").close(), "not a finished feature store"),
        (shorten, "differ in length"),
        (relabel, "layout version 99, expected 1"),
        (lambda path: path.unlink(), "no such store; make it with `make features`"),
    ],
)
def test_what_is_not_a_finished_store_is_refused(tmp_path: Path, damage: object, message: str) -> None:
    path = tmp_path / "s.h5"
    make_store(path, {"train": {"a": np.ones(2), "b": np.ones(2)}})
    damage(path)  # type: ignore[operator]
    with pytest.raises(StoreError, match=message):
        FeatureStore(path)


def test_an_unknown_split_lists_those_that_exist(tmp_path: Path) -> None:
    make_store(tmp_path / "s.h5", {"train": {"a": np.ones(2)}})
    with pytest.raises(StoreError, match="no split 'test'; it has train"):
        FeatureStore(tmp_path / "s.h5").split("test")


def test_a_writer_cannot_swap_the_file_under_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.h5"
    make_store(path, {"train": {"a": np.array([1, 2]), "b": np.array([3, 4])}})
    make_store(tmp_path / "new.h5", {"train": {"b": np.array([3, 4]), "a": np.array([1, 2])}})
    memmap = np.memmap

    def replace_and_map(*args: object, **kwargs: object) -> np.memmap:
        if (tmp_path / "new.h5").exists():
            os.replace(tmp_path / "new.h5", path)
        return memmap(*args, **kwargs)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(np, "memmap", replace_and_map)
    split = FeatureStore(path).split("train")
    assert split.ids == ["a", "b"]
    assert split.embeddings.tolist() == [[1, 2], [3, 4]]


def overwrite(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"other")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # the clock of the file system may be coarse


def copy_another_over_it(path: Path) -> None:
    make_store(path.with_name("other.h5"), {"train": {"c": np.ones(5)}})
    path.write_bytes(path.with_name("other.h5").read_bytes())


@pytest.mark.parametrize("change", [truncate, overwrite, copy_another_over_it, lambda path: os.truncate(path, 10**6)])
def test_a_store_that_is_changed_in_place_while_it_is_in_use_is_noticed(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "s.h5"
    make_store(path, {"train": {"a": np.ones(2), "b": np.ones(2)}})
    store = FeatureStore(path)
    store.check_unchanged()
    change(path)
    message = r"s\.h5: was changed while it was in use, so what was computed from it may be wrong; check it with"
    with pytest.raises(StoreError, match=message):
        store.check_unchanged()
    with pytest.raises(StoreError, match=message):
        list(store.blocks())


def replace_it(path: Path) -> None:
    make_store(path, {"train": {"c": np.zeros(3)}})


def move_it(path: Path) -> None:
    path.rename(path.with_name("moved.h5"))


@pytest.mark.parametrize("change", [replace_it, move_it, Path.unlink, lambda path: path.chmod(0o444)])
def test_a_store_that_is_replaced_or_moved_while_it_is_in_use_stays_as_it_was(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "s.h5"
    make_store(path, {"train": {"a": np.ones(2), "b": np.ones(2)}})
    store = FeatureStore(path)
    change(path)
    store.check_unchanged()
    assert store.split("train").embeddings.tolist() == [[1, 1], [1, 1]]


def test_maps_of_a_store_that_was_replaced_are_refused_because_they_are_read_by_name(tmp_path: Path) -> None:
    path, provenance = tmp_path / "s.h5", replace(PROVENANCE, pooling="none")
    make_store(path, {"train": {"a": np.ones((2, 2, 3))}}, provenance=provenance)
    store = FeatureStore(path)
    store.check_unchanged()
    make_store(path, {"train": {"b": np.ones((2, 2, 3))}}, provenance=provenance)
    with pytest.raises(StoreError, match="was changed while it was in use"):
        store.check_unchanged()


def test_rows_of_a_store_that_was_replaced_are_not_read_from_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    make_store(path, {"train": {"a": np.ones(2), "b": np.ones(2)}})
    store = FeatureStore(path)
    replace_it(path)
    with pytest.raises(StoreError, match=r"s\.h5: was replaced while it was in use; run the same command again"):
        list(store.blocks())


def test_a_write_in_several_pieces_loses_nothing(tmp_path: Path) -> None:
    import io

    class Stingy(io.FileIO):
        def write(self, data: object) -> int:
            return super().write(memoryview(data)[:3])  # type: ignore[arg-type]

    with Stingy(tmp_path / "file", "w+b") as raw:
        steady = SteadyFile(raw)
        assert steady.write(b"0123456789") == 10
        steady.check()
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_full_disk_raises_in_check(tmp_path: Path) -> None:
    import io

    class Full(io.FileIO):
        def write(self, data: object) -> int:
            return 0

    with Full(tmp_path / "file", "w+b") as raw:
        steady = SteadyFile(raw)
        assert steady.write(b"0123456789") == 10
        with pytest.raises(OSError, match="No space left on device"):
            steady.check()
