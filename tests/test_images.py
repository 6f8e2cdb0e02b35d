"""Finding images: every layout is read, and what is odd in a folder is reported."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import make_store, warned

from cache.digest_memo import DigestMemo
from cache.images import find_images, identify, is_dicom
from cache.store import FeatureStore
from cache.support.errors import DataError

DICOM = bytes(128) + b"DICM" + bytes(8)


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


ODD_NAMES = {
    "narrow space": "3.45.12\u202fPM",
    "ideographic space": "chest\u3000front",
    "no-break space": "chest\u00a0front",
    "soft hyphen": "tho\u00adrax",
    "zero-width space": "a\u200bb",
    "joined emoji": "\U0001f468\u200d\u2695\ufe0f",
    "composed": "r\u00f6ntgen",
    "decomposed": "ro\u0308ntgen",
    "right to left": "\u202ea",
    "private": "a\ue000",
    "unassigned": "a\u0378",
    "spaces around": " a ",
    "marks of CSV": "a,b;c|'d'\"",
    "percent and backslash": "100%\\n{x}",
    "longest": "x" * 251,
}


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
def test_a_name_that_can_be_written_gives_a_store_that_can_be_read(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "train" / f"{name}.jpg")
    [image] = find_images(tmp_path)["train"]
    assert image.id == name
    make_store(tmp_path / "s.h5", {"train": {image.id: np.ones(2)}})
    assert FeatureStore(tmp_path / "s.h5").split("train").ids == [name]


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\tb", "a\x1b[2J", "a\x7f", "a\u0085b", "a\u2028b", "a\u2029b"])
def test_a_name_with_a_line_break_or_control_character_is_refused_on_one_line(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "train" / "a.jpg")
    touch(tmp_path / "train" / f"{name}.jpg")
    with pytest.raises(DataError, match=r"its name has a control character or a line break, .*; rename it") as caught:
        find_images(tmp_path)
    assert repr(name)[1:-1] in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_folder_that_is_not_utf8_matters_only_where_it_becomes_part_of_an_id(tmp_path: Path) -> None:
    folder = os.fsdecode(b"p\xff")
    touch(tmp_path / "train" / folder / "a.jpg")
    assert [image.id for image in find_images(tmp_path)["train"]] == ["a"]
    touch(tmp_path / "train" / "p" / "a.jpg")
    with pytest.raises(DataError, match=r"p\\xff/a\.jpg: its name is not UTF-8"):
        find_images(tmp_path)


def test_names_that_differ_in_composition_alone_are_two_images(tmp_path: Path) -> None:
    touch(tmp_path / "train" / "caf\u00e9.jpg")
    touch(tmp_path / "train" / "cafe\u0301.jpg")
    assert len(find_images(tmp_path)["train"]) == 2


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("val", "valid"), ("Val", "valid"), ("validation", "valid"), ("VALID", "valid"), ("val_images", "valid"),
        ("valid-images", "valid"), ("images_val", "valid"), ("training", "train"), ("Train", "train"),
        ("train images", "train"), ("TrainSet", "train"), ("testing", "test"), ("Test_Images", "test"),
        ("test_set", "test"),
    ],
)  # fmt: skip
def test_a_split_is_found_under_its_other_names(tmp_path: Path, folder: str, split: str) -> None:
    touch(tmp_path / folder / "a.jpg")
    assert list(find_images(tmp_path)) == [split]


@pytest.mark.parametrize("other", ["validation", "valid_images", "Valid"])
def test_two_folders_of_one_split_are_refused_with_both(tmp_path: Path, other: str) -> None:
    touch(tmp_path / "valid" / "a.jpg")
    touch(tmp_path / other / "b.jpg")
    with pytest.raises(DataError, match=rf"valid/ and {other}/ both have images of split 'valid'; put them into one"):
        find_images(tmp_path)


def test_a_second_folder_without_images_or_that_is_a_link_is_no_second_folder(tmp_path: Path) -> None:
    touch(tmp_path / "train" / "concepts.csv")
    touch(tmp_path / "train_images" / "a.jpg")
    touch(tmp_path / "valid" / "b.jpg")
    (tmp_path / "val").symlink_to("valid")
    with warned() as lines:
        found = find_images(tmp_path)
    assert {split: [image.id for image in images] for split, images in found.items()} == {
        "train": ["a"],
        "valid": ["b"],
    }
    assert lines == []


@pytest.mark.parametrize("folder", ["dev", "eval", "holdout/deep", "val2017"])
def test_a_folder_of_images_that_is_no_split_is_left_out_with_a_warning(tmp_path: Path, folder: str) -> None:
    touch(tmp_path / "train" / "a.jpg")
    touch(tmp_path / folder / "b.jpg")
    touch(tmp_path / "notes" / "read.txt")
    with warned() as lines:
        assert list(find_images(tmp_path)) == ["train"]
    [line] = lines
    assert (
        f"{folder.split('/')[0]}/: left out with its images, such as b.jpg; if it is a split, call it train, valid or test"
        in line
    )


def test_images_beside_the_folders_are_left_out_with_a_warning(tmp_path: Path) -> None:
    touch(tmp_path / "train" / "a.jpg")
    touch(tmp_path / "b.jpg")
    with warned() as lines:
        find_images(tmp_path)
    assert lines == [f"{tmp_path}: left out 1 image beside the folders of the splits: b.jpg"]


def test_the_folder_around_the_data_is_told_from_the_data(tmp_path: Path) -> None:
    touch(tmp_path / "rocov2" / "train" / "a.jpg")
    with pytest.raises(DataError, match=rf"no image found; .*; rocov2/ in it has such folders: give {tmp_path}/rocov2"):
        find_images(tmp_path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("train.zip", "train.zip is not unpacked: unpack it there"),
        ("images.tar.gz", "images.tar.gz is not unpacked"),
        ("train/part.7z", "train/part.7z is not unpacked"),
        ("data/train-00000-of-00001.parquet", "data/train-00000-of-00001.parquet is not read: save the images and"),
        ("data.arrow", "data.arrow is not read"),
    ],
)
def test_what_is_still_packed_is_named_where_images_are_missing(tmp_path: Path, name: str, hint: str) -> None:
    touch(tmp_path / name)
    with warned(), pytest.raises(DataError, match=f"no image found; .*; {hint}"):
        find_images(tmp_path)
    touch(tmp_path / "train" / "a.jpg")
    with warned() as lines:
        find_images(tmp_path)
    assert any(f"no folder of valid or test; {hint}" in line for line in lines)


def test_what_file_managers_and_archives_leave_behind_is_ignored(tmp_path: Path) -> None:
    for name in ("a.JPG", "._a.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "DICOMDIR", "__MACOSX/b.jpg",
                 "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", ".ipynb_checkpoints/a-checkpoint.jpg", ".Trash-1000/c.jpg"):  # fmt: skip
        touch(tmp_path / "train" / name, DICOM)
    touch(tmp_path / "__MACOSX" / "train" / "._a.jpg")
    with warned() as lines:
        assert [image.id for image in find_images(tmp_path)["train"]] == ["a"]
    assert lines == []


@pytest.mark.parametrize(
    ("name", "content", "id"),
    [
        ("IM0001", DICOM, "IM0001"),
        ("1.2.840.113619.2.55", DICOM, "1.2.840.113619.2.55"),
        ("IM0001", b"\x08\0\x05\0\x0a\0\0\0ISO_IR 100", "IM0001"),
        ("scan.MR", DICOM, "scan.MR"),
        ("bitmap", b"BM\x36\x04\0\0\0\0\0\0\x36\0\0\0", "bitmap"),
        ("webp", b"RIFF\x1a\0\0\0WEBPVP8L", "webp"),
        ("early", b"\x08\0\x05\0CS\x0a\0ISO_IR 100", "early"),  # DICOM without a preamble
        ("scan.ima", b"", "scan"),
        ("a", b"\xff\xd8\xff\xe0", "a"),
        ("a.1", b"\x89PNG\r\n\x1a\n", "a.1"),
        ("a.jpe", b"", "a"),
    ],
)
def test_a_file_without_the_ending_of_an_image_is_found_by_its_content(
    tmp_path: Path, name: str, content: bytes, id: str
) -> None:
    touch(tmp_path / "train" / name, content)
    touch(tmp_path / "train" / "README", b"The images of the trial")
    with warned() as lines:
        [image] = find_images(tmp_path)["train"]
    assert image.id == id
    assert is_dicom(image.path) == (content == DICOM or name.endswith("ima"))
    assert len(lines) == 1
    assert lines[0].endswith(": README")


def test_a_pipe_without_an_ending_is_not_opened(tmp_path: Path) -> None:
    touch(tmp_path / "train" / "a.jpg")
    os.mkfifo(tmp_path / "train" / "b")
    with warned():
        assert len(find_images(tmp_path)["train"]) == 1


@pytest.mark.parametrize("ending", ["", ".dcm", ".jpg"])
def test_images_of_one_name_in_folders_have_their_paths_as_ids(tmp_path: Path, ending: str) -> None:
    for name in ("train/p1/IM1", "train/p1/IM2", "train/p2/s1/IM1", "train/plain", "valid/p3/IM1", "test/p4/IM9"):
        touch(tmp_path / f"{name}{ending}", DICOM)
    with warned() as lines:
        found = find_images(tmp_path)
    assert {split: [image.id for image in images] for split, images in found.items()} == {
        "train": ["p1/IM1", "p1/IM2", "p2/s1/IM1", "plain"],
        "valid": ["p3/IM1"],
        "test": ["IM9"],
    }
    assert lines == [
        f"{tmp_path}: file names repeat, so ids of train are paths, such as p1/IM1",
        f"{tmp_path}: file names repeat, so ids of valid are paths, such as p3/IM1",
    ]


@pytest.mark.parametrize("paths", [("train/p1/a.jpg", "valid/p1/a.jpg"), ("train/p1/a.jpg", "train/p1/a.png")])
def test_images_whose_paths_are_equal_too_are_refused(tmp_path: Path, paths: tuple[str, str]) -> None:
    for path in paths:
        touch(tmp_path / path)
    with pytest.raises(DataError, match=r"p1/a is .* and .*: give their folders other names, or remove one of each"):
        find_images(tmp_path)


def test_a_path_that_is_too_long_for_an_id_is_refused(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        touch(tmp_path / "train" / patient / ("x" * 250) / ("y" * 250) / "IM0000001", DICOM)
    with pytest.raises(DataError, match="its name is longer than 512 bytes, so it cannot be an id; rename it"):
        find_images(tmp_path)
