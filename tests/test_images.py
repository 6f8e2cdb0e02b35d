"""Finding images: every layout is read, and what is odd in a folder is reported."""

import os
from pathlib import Path

import pytest
from conftest import warned

from cache.digest_memo import DigestMemo
from cache.images import find_images, identify
from cache.support.errors import DataError


def touch(path: Path, content: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("folder", ["train", "train_images", "train_images/train"])
def test_images_are_found_in_every_layout(tmp_path: Path, folder: str) -> None:
    touch(tmp_path / folder / "b.JPG")
    touch(tmp_path / folder / "a.png")
    found = find_images(tmp_path)
    assert [image.id for image in found["train"]] == ["a", "b"]


def test_files_that_are_no_images_are_left_out_with_a_warning(tmp_path: Path) -> None:
    touch(tmp_path / "train" / "a.jpg")
    touch(tmp_path / "train" / "notes.txt")
    touch(tmp_path / "train" / "._a.jpg")
    with warned() as lines:
        assert len(find_images(tmp_path)["train"]) == 1
    assert lines == [f"{tmp_path / 'train'}: left out 1 file without the ending of an image: notes.txt"]


def test_an_empty_split_is_left_out_with_a_warning(tmp_path: Path) -> None:
    touch(tmp_path / "train" / "a.jpg")
    (tmp_path / "valid").mkdir()
    with warned() as lines:
        assert list(find_images(tmp_path)) == ["train"]
    assert "no image in it; split 'valid' is left out" in lines[0]


@pytest.mark.parametrize("second", ["valid/a.jpg", "train/sub/a.jpg", "train/a.png"])
def test_an_id_for_two_images_is_refused_with_both_files(tmp_path: Path, second: str) -> None:
    touch(tmp_path / "train" / "a.jpg")
    touch(tmp_path / second)
    with pytest.raises(DataError, match=r"1 id used by more than one image \(a; a is .*a\.(jpg|png) and .*\)"):
        find_images(tmp_path)


def test_a_folder_without_images_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no image found; expected <split>/<ID>\.jpg"):
        find_images(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        find_images(tmp_path / "nowhere")


def test_identity_is_the_content_not_the_name(tmp_path: Path) -> None:
    for name, content in (("a", b"same"), ("b", b"same"), ("c", b"other")):
        touch(tmp_path / "train" / f"{name}.jpg", content)
    a, b, c = identify(find_images(tmp_path), DigestMemo(tmp_path / "s.h5"))["train"].digests
    assert a == b != c


def test_a_file_that_cannot_be_opened_keeps_its_place_and_a_reason(tmp_path: Path) -> None:
    touch(tmp_path / "train" / "a.jpg")
    os.symlink("nowhere.jpg", tmp_path / "train" / "b.jpg")
    listing = identify(find_images(tmp_path), DigestMemo(tmp_path / "s.h5"))["train"]
    assert listing.ids == ["a", "b"]
    assert listing.digests[1] is None
    assert listing.reasons == ["", "cannot be read: No such file or directory"]


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    touch(tmp_path / "train" / "a.jpg")
    os.mkfifo(tmp_path / "train" / "b.jpg")
    listing = identify(find_images(tmp_path), DigestMemo(tmp_path / "s.h5"))["train"]
    assert listing.reasons == ["", "cannot be read: not a regular file"]


def test_a_file_without_permission_keeps_its_place_and_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "train" / "a.jpg")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("cache.digest_memo.digest_file", refuse)
    listing = identify(find_images(tmp_path), DigestMemo(tmp_path / "s.h5"))["train"]
    assert (listing.digests, listing.reasons) == ([None], ["cannot be read: Permission denied"])


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "train" / "a.jpg")
    (tmp_path / "train" / os.fsdecode(b"b\xff.jpg")).write_bytes(b"x")
    with pytest.raises(DataError, match=r"b\\xff\.jpg: its name is not UTF-8, which an id must be; rename it"):
        find_images(tmp_path)


def test_linked_folders_are_searched_once(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "a.jpg")
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "part").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "data" / "train")
    assert [image.id for image in find_images(tmp_path / "data")["train"]] == ["a"]
