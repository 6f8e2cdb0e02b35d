"""Label files: every dialect of the task reads the same; errors have the line."""

from pathlib import Path

import pytest

from cache.support.errors import DataError
from eval.labels import find_label_file, read_concepts, read_ids

EXPECTED = {"img_1": ("C0040405", "C0817096"), "img_2": ("C1306645",)}

DIALECTS = {
    "2022": b"ID\tcuis\nimg_1\tC0040405;C0817096\nimg_2\tC1306645\n",
    "2024": b"ID,CUIs\r\nimg_1,C0040405;C0817096\r\nimg_2,C1306645\r\n",
    "2025": b"ImageCLEFmedical 2025 ID,Cuis\nimg_1,C0040405;C0817096\nimg_2,C1306645\n",
    "submission of 2023": b"img_1|C0040405;C0817096\nimg_2|C1306645\n",
    "no header": b"img_1,C0040405;C0817096\nimg_2,C1306645",
    "byte order mark": b"\xef\xbb\xbfID,CUIs\nimg_1,C0040405;C0817096\nimg_2,C1306645\n",
    "quotes": b'"ID","CUIs"\n"img_1","C0040405;C0817096"\n"img_2","C1306645"\n',
    "image endings": b"ID,CUIs\nimg_1.jpg,C0040405;C0817096\nimg_2.JPG,C1306645\n",
    "spaces, case, blank lines": b"ID,CUIs\n\nimg_1 , c0040405 ; C0817096\n\nimg_2,C1306645\n",
    "extra separators": b"ID,CUIs\nimg_1,C0040405;;C0817096;\nimg_2,C1306645;C1306645\n",
    "a row twice": b"ID,CUIs\nimg_1,C0040405;C0817096\nimg_2,C1306645\nimg_2,C1306645\n",
}


def write(path: Path, content: bytes = DIALECTS["2024"]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_reads_the_same(tmp_path: Path, dialect: str) -> None:
    assert read_concepts(write(tmp_path / "labels.csv", DIALECTS[dialect])).to_dict() == EXPECTED


@pytest.mark.parametrize("content", [b"ID,CUIs\na,\nb,C1\n", b"a,\nb,C1\n", b"ID,CUIs\na\nb,C1\n"])
def test_an_empty_cell_is_no_concept(tmp_path: Path, content: bytes) -> None:
    assert read_concepts(write(tmp_path / "labels.csv", content)).to_dict() == {"a": (), "b": ("C1",)}


@pytest.mark.parametrize("content", [b"ID\nb\na\n", b"ID,CUIs\nb,\na,\n", b"b\na\n", b"b\na\nb\n"])
def test_a_list_of_ids_keeps_its_order(tmp_path: Path, content: bytes) -> None:
    assert read_ids(write(tmp_path / "ids.csv", content)) == ["b", "a"]
    assert read_concepts(write(tmp_path / "ids.csv", content)).index.tolist() == ["b", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no image in it"),
        (b"ID,CUIs\n", "no image in it"),
        (b"ID,CUIs\na,C1,C2\n", "line 2: 'a,C1,C2' is not an id and its concepts"),
        (b"ID,CUIs\n,C1\n", "line 2: ',C1' is not an id"),
        (b"ID,CUIs\na,C1\na,C2\n", "line 3: image 'a' has an earlier row with other concepts; keep one of them"),
        (b"ID,CUIs\na,C1\xff\n", "not a text file in UTF-8"),
        (b"ID,CUIs\n" + b"x" * 200_000 + b",C1\n", "line 2: field larger than field limit"),
    ],
)
def test_a_file_of_another_kind_is_an_error_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_concepts(write(tmp_path / "labels.csv", content))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: no such file"):
        read_concepts(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    "name",
    [
        "train_concepts.csv",
        "ImageCLEFmedCaption_2022_concept_detection_train.csv",
        "ImageCLEFmedical_Caption_2023_concept_detection_train_labels.csv",
        "train/concepts.csv",
        "train_images/concepts.csv",
        "concepts.csv",
    ],
)
def test_the_labels_of_every_edition_are_found(tmp_path: Path, name: str) -> None:
    expected = write(tmp_path / name)
    for other in ("train_captions.csv", "valid_concepts.csv", "train_concepts_manual.csv", "cui_mapping.csv"):
        write(tmp_path / other)
    assert find_label_file(tmp_path, "train") == expected


@pytest.mark.parametrize("name", ["test_ids.csv", "test/ids.csv", "ids.csv"])
def test_the_list_of_ids_is_found(tmp_path: Path, name: str) -> None:
    expected = write(tmp_path / name)
    assert find_label_file(tmp_path, "test", "ids") == expected
    assert find_label_file(tmp_path, "valid", "ids") is None


def test_two_files_for_one_purpose_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "train_concepts.csv")
    write(tmp_path / "train" / "concepts.csv")
    with pytest.raises(DataError, match=r"train_concepts\.csv, concepts\.csv are all concepts of train"):
        find_label_file(tmp_path, "train")
