"""Status: what a store is, and what a run would do to it now and why; what is remembered of files."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cheap
import pytest
from conftest import reported

from cache.__main__ import main
from cache.digest_memo import DigestMemo
from cache.status import describe_store
from featurize.pipeline import make_features


@pytest.fixture
def place(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder and its finished store."""
    cheap.install(monkeypatch.setattr)
    shutil.copytree(phantoms, tmp_path / "data")
    make(tmp_path)
    return tmp_path


def make(place: Path) -> None:
    with reported():
        make_features(place / "data", place / "s.h5", cheap.GIVEN)


def status(place: Path) -> dict[str, Any]:
    return describe_store(place / "s.h5", place / "data")


def test_a_store_that_is_up_to_date_says_so(place: Path) -> None:
    told = status(place)
    assert told["complete"]
    assert told["writer"] is None
    assert told["next"] == "a run would do nothing: every image of the data folder is here"


def test_every_kind_of_change_is_named(place: Path) -> None:
    paths = sorted((place / "data" / "train").iterdir())
    data = [path.read_bytes() for path in paths]
    (place / "data" / "train" / "new.jpg").write_bytes(data[0] + b"new")
    paths[1].write_bytes(data[1] + b"changed")
    paths[2].rename(place / "data" / "valid" / "moved.jpg")
    paths[3].unlink()
    paths[4].unlink()
    paths[4].symlink_to("nowhere.jpg")
    told = status(place)
    assert told["changes"] == {
        "new": ["train/new"],
        "changed": [f"train/{paths[1].stem}"],
        "renamed": ["valid/moved"],
        "removed": [f"train/{paths[3].stem}"],
        "lost": [f"train/{paths[4].stem}"],
        "recovered": [],
        "gone": 2,
    }
    assert told["next"] == ("a run would embed at most 2 images (1 new, 1 changed, 1 renamed, 1 removed, 1 lost)")


def test_an_unfinished_store_says_what_a_run_would_go_on_from(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "s.h5").unlink()
    replace, count = os.replace, [0]

    def stop(*args: Any) -> None:
        count[0] += 1
        if count[0] == 5:
            raise KeyboardInterrupt
        replace(*args)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        make(place)
    monkeypatch.setattr(os, "replace", replace)
    told = status(place)
    assert not told["complete"]
    assert told["next"] == "a run would go on from 12 images of an unfinished one"


def test_status_is_told_to_people_and_programs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(place / "s.h5"), "--data", str(place / "data")]) == 0
    assert capsys.readouterr().out.endswith("a run would do nothing: every image of the data folder is here\n")
    assert main(["status", str(place / "s.h5"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["splits"]["train"] == {"rows": 28, "features": 48, "unreadable": []}
    assert told["changes"] is None


def age(path: Path) -> None:
    """Let a file have been written long ago, as far as its own times tell."""
    os.utime(path, ns=(10**18, 10**18))


def test_a_file_that_is_as_it_was_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.digest_memo.QUIET_NS", -(10**18))
    (tmp_path / "a.jpg").write_bytes(b"a")
    seen = DigestMemo(tmp_path / "s.h5")
    expected = seen.digest(tmp_path / "a.jpg")
    seen.save()
    monkeypatch.setattr("cache.digest_memo.digest_file", lambda path: pytest.fail("read again"))
    assert DigestMemo(tmp_path / "s.h5").digest(tmp_path / "a.jpg") == expected


def test_a_file_of_the_same_size_and_time_that_changed_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.digest_memo.QUIET_NS", -(10**18))
    path = tmp_path / "a.jpg"
    path.write_bytes(b"a")
    age(path)
    seen = DigestMemo(tmp_path / "s.h5")
    first = seen.digest(path)
    path.write_bytes(b"b")
    age(path)
    assert seen.digest(path) != first


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    seen = DigestMemo(tmp_path / "s.h5")
    seen.digest(tmp_path / "a.jpg")
    seen.save()
    assert not (tmp_path / ".s.h5.seen.json").exists()


@pytest.mark.parametrize("content", ["not json", "[1]", '{"a": 1}'])
def test_a_damaged_memo_is_forgotten(tmp_path: Path, content: str) -> None:
    (tmp_path / ".s.h5.seen.json").write_text(content)
    (tmp_path / "a.jpg").write_bytes(b"a")
    assert len(DigestMemo(tmp_path / "s.h5").digest(tmp_path / "a.jpg")) == 32


def test_a_memo_of_something_else_than_digests_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.digest_memo.QUIET_NS", -(10**18))
    (tmp_path / "a.jpg").write_bytes(b"a")
    seen = DigestMemo(tmp_path / "s.h5")
    expected = seen.digest(tmp_path / "a.jpg")
    seen.save()
    memo = tmp_path / ".s.h5.seen.json"
    for wrong in ("zz" * 32, "00"):
        memo.write_text(memo.read_text().replace(expected.hex(), wrong))
        assert DigestMemo(tmp_path / "s.h5").digest(tmp_path / "a.jpg") == expected


def test_a_run_that_would_be_refused_says_so(place: Path) -> None:
    shutil.rmtree(place / "data" / "test")
    assert status(place)["next"].startswith("a run would refuse: split 'test' has vanished")


def test_parts_of_other_features_are_told_apart(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import replace

    from cache.parts import Parts
    from cache.store import FeatureStore

    Parts(place / "s.h5", replace(FeatureStore(place / "s.h5").provenance, size=99)).start({})
    assert status(place)["next"] == "a run would do nothing: every image of the data folder is here"
    main(["status", str(place / "s.h5")])
    assert "0 images of other features, in" in capsys.readouterr().out
