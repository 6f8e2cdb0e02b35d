"""Status: what a store contains, and what the next run would do to it; which digests are remembered."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cheap
import numpy as np
import pytest
from conftest import PROVENANCE, make_rows, reported

from cache.__main__ import main
from cache.digest_memo import DigestMemo
from cache.parts import Parts
from cache.status import describe_store
from cache.store import FeatureStore
from cache.support.json_file import parse_sealed_json, seal_json
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
        make_features(place / "data", place / "s.h5", **cheap.GIVEN)


def status(place: Path) -> dict[str, Any]:
    return describe_store(place / "s.h5", place / "data")


def test_a_store_that_is_up_to_date_says_so(place: Path) -> None:
    described = status(place)
    assert described["complete"]
    assert described["writer"] is None
    assert described["next"] == "`make features` would do nothing: every image of the data folder is in the store"


def test_every_kind_of_change_is_listed(place: Path) -> None:
    paths = sorted((place / "data" / "train").iterdir())
    data = [path.read_bytes() for path in paths]
    (place / "data" / "train" / "new.jpg").write_bytes(data[0] + b"new")
    paths[1].write_bytes(data[1] + b"changed")
    paths[2].rename(place / "data" / "valid" / "moved.jpg")
    paths[3].unlink()
    paths[4].unlink()
    paths[4].symlink_to("nowhere.jpg")
    described = status(place)
    assert described["changes"] == {
        "new": ["train/new"],
        "changed": [f"train/{paths[1].stem}"],
        "renamed": ["valid/moved"],
        "removed": [f"train/{paths[3].stem}"],
        "lost": [f"train/{paths[4].stem}"],
        "recovered": [],
        "gone": 2,
    }
    assert described["next"] == (
        "`make features` would embed at most 2 images (1 new, 1 changed, 1 renamed, 1 removed, 1 lost)"
    )


def test_an_unfinished_store_says_where_a_run_would_continue(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "s.h5").unlink()
    rename, count = os.replace, [0]

    def stop(*args: Any) -> None:
        count[0] += 1
        if count[0] == 5:
            raise KeyboardInterrupt
        rename(*args)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        make(place)
    monkeypatch.setattr(os, "replace", rename)
    described = status(place)
    assert not described["complete"]
    assert described["next"] == "`make features` would continue from 12 images of an unfinished run"


def test_unfinished_images_are_counted_without_reading_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(tmp_path / "s.h5", PROVENANCE)
    parts.start({})
    parts.add(make_rows([1, 2], np.ones((2, 3))))
    parts.add(make_rows([3], np.ones((1, 3))))
    monkeypatch.setattr("cache.parts._read_rows", lambda *args: pytest.fail("read embeddings"))
    (unfinished,) = describe_store(tmp_path / "s.h5")["unfinished"]
    assert unfinished["images"] == 3


def test_status_is_printed_as_text_and_as_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(place / "s.h5"), "--data", str(place / "data")]) == 0
    assert capsys.readouterr().out.endswith(
        "`make features` would do nothing: every image of the data folder is in the store\n"
    )
    assert main(["status", str(place / "s.h5"), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["splits"]["train"] == {"rows": 28, "features": 48, "unreadable": []}
    assert described["changes"] is None


def age(path: Path) -> None:
    """Set the times of a file to long ago."""
    os.utime(path, ns=(10**18, 10**18))


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.digest_memo.QUIET_NS", -(10**18))
    (tmp_path / "a.jpg").write_bytes(b"a")
    memo = DigestMemo(tmp_path / "s.h5")
    expected = memo.digest(tmp_path / "a.jpg")
    memo.save()
    monkeypatch.setattr("cache.digest_memo.digest_file", lambda path: pytest.fail("read again"))
    assert DigestMemo(tmp_path / "s.h5").digest(tmp_path / "a.jpg") == expected


def test_a_file_of_the_same_size_and_time_that_changed_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.digest_memo.QUIET_NS", -(10**18))
    path = tmp_path / "a.jpg"
    path.write_bytes(b"a")
    age(path)
    memo = DigestMemo(tmp_path / "s.h5")
    first = memo.digest(path)
    path.write_bytes(b"b")
    age(path)
    assert memo.digest(path) != first


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    memo = DigestMemo(tmp_path / "s.h5")
    memo.digest(tmp_path / "a.jpg")
    memo.save()
    assert not (tmp_path / ".s.h5.seen.json").exists()


@pytest.fixture
def remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, bytes]:
    """A memo's file, an image in it, and the digest of the image."""
    monkeypatch.setattr("cache.digest_memo.QUIET_NS", -(10**18))
    (tmp_path / "a.jpg").write_bytes(b"a")
    memo = DigestMemo(tmp_path / "s.h5")
    digest = memo.digest(tmp_path / "a.jpg")
    memo.save()
    return tmp_path / ".s.h5.seen.json", tmp_path / "a.jpg", digest


def digest_anew(file: Path, image: Path) -> bytes:
    """The digest of an image with the memo as it is; afterwards the memo can be written and read again."""
    memo = DigestMemo(file.parent / "s.h5")
    digest = memo.digest(image)
    memo.save()
    return digest


def test_no_flipped_bit_of_a_memo_is_believed(remembered: tuple[Path, Path, bytes]) -> None:
    file, image, digest = remembered
    whole = file.read_bytes()
    for at in range(0, len(whole), 5):
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        file.write_bytes(data)
        assert digest_anew(file, image) == digest
        assert file.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [b"", b"not json", b"[1]", b'{"a": 1}', b"[" * 100_000, b'{"a":' * 100_000, seal_json([1]), seal_json({"a": 1}),
     seal_json({"a": []}), b'{"sha256": "", "content": 1}\n'],
)  # fmt: skip
def test_what_is_no_memo_is_ignored(remembered: tuple[Path, Path, bytes], content: bytes) -> None:
    file, image, digest = remembered
    file.write_bytes(content)
    assert digest_anew(file, image) == digest


@pytest.mark.parametrize("wrong", ["zz" * 32, "00", "", 5, None, [], {}])
def test_a_memo_of_anything_but_digests_is_ignored(remembered: tuple[Path, Path, bytes], wrong: object) -> None:
    file, image, digest = remembered
    (marks,) = parse_sealed_json(file.read_bytes(), dict[str, list[Any]]).values()
    file.write_bytes(seal_json({str(image): [wrong, *marks[1:]]}))
    assert digest_anew(file, image) == digest


def test_a_memo_that_cannot_be_read_or_written_stops_nothing(remembered: tuple[Path, Path, bytes]) -> None:
    file, image, digest = remembered
    file.unlink()
    file.mkdir()
    assert digest_anew(file, image) == digest
    file.rmdir()
    os.mkfifo(file)
    assert digest_anew(file, image) == digest


def test_a_longer_memo_is_not_read(remembered: tuple[Path, Path, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    file, image, digest = remembered
    monkeypatch.setattr("cache.digest_memo.MAX_MEMO_BYTES", file.stat().st_size - 1)
    monkeypatch.setattr("cache.digest_memo.parse_sealed_json", lambda *args: pytest.fail("read"))
    assert digest_anew(file, image) == digest


def test_a_run_that_would_be_refused_says_so(place: Path) -> None:
    shutil.rmtree(place / "data" / "test")
    assert status(place)["next"].startswith("`make features` would refuse to run: split 'test' has vanished")


def test_parts_with_other_features_are_listed_apart(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Parts(place / "s.h5", replace(FeatureStore(place / "s.h5").provenance, size=99)).start({})
    assert status(place)["next"] == "`make features` would do nothing: every image of the data folder is in the store"
    main(["status", str(place / "s.h5")])
    assert "0 images with other features, in" in capsys.readouterr().out
