"""Label files: every dialect of the task reads the same; errors have the line."""

import csv
from pathlib import Path

import pytest
from conftest import warned

from cache.support.errors import DataError
from eval.editions import find_edition
from eval.evaluator_files import read_truth
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
    "Excel in German": b"ID;CUIs\r\nimg_1;C0040405;C0817096\r\nimg_2;C1306645\r\n",
    "Excel in German, with quotes": b'ID;CUIs\nimg_1;"C0040405;C0817096"\nimg_2;C1306645\n',
    "Excel in German, commas between CUIs": b"ID;CUIs\nimg_1;C0040405,C0817096\nimg_2;C1306645\n",
    "Excel in German, no header": b"img_1;C0040405 C0817096\nimg_2;C1306645\n",
    "Excel in German, empty columns": b"ID;CUIs;;\nimg_1;C0040405;C0817096;;\nimg_2;C1306645;;\n",
    "separator in a line": b"sep=;\r\nID;CUIs\r\nimg_1;C0040405;C0817096\r\nimg_2;C1306645\r\n",
    "Unicode text of Excel": "ID\tCUIs\r\nimg_1\tC0040405;C0817096\r\nimg_2\tC1306645\r\n".encode("utf-16"),
    "UTF-16, the other order": b"\xfe\xff" + "ID,CUIs\nimg_1,C0040405;C0817096\nimg_2,C1306645\n".encode("utf-16-be"),
    "UTF-32": "ID,CUIs\nimg_1,C0040405;C0817096\nimg_2,C1306645\n".encode("utf-32"),
    "empty columns": b"ID,CUIs,,\nimg_1,C0040405;C0817096,,\nimg_2,C1306645,,\n",
    "image_id,cui": b"image_id,cui\nimg_1,C0040405;C0817096\nimg_2,C1306645\n",
    "file_name,concepts": b"file_name,concepts\nimg_1.png,C0040405;C0817096\nimg_2.png,C1306645\n",
    "id,cuis": b"id,cuis\nimg_1,C0040405;C0817096\nimg_2,C1306645\n",
    "Image,Labels": b"Image,Labels\nimg_1,C0040405;C0817096\nimg_2,C1306645\n",
    "concepts first": b"CUIs,ID\nC0040405;C0817096,img_1\nC1306645,img_2\n",
    "an unknown name beside CUIs": b"scan,CUIs\nimg_1,C0040405;C0817096\nimg_2,C1306645\n",
    "extra columns": b'image_id,caption,cui\nimg_1,"CT, of a chest",C0040405;C0817096\nimg_2,X-ray,C1306645\n',
    "columns of Hugging Face": b"image,image_id,caption,cui\n{},img_1,CT,C0040405;C0817096\n{},img_2,X,C1306645\n",
    "the index of pandas": b",ID,Caption,CUIs\n0,img_1,CT,C0040405;C0817096\n1,img_2,X-ray,C1306645\n",
    "names beside CUIs": b"ID,CUIs,Concepts\nimg_1,C0040405;C0817096,CT;Chest\nimg_2,C1306645,X-ray\n",
    "extra columns in TAB": b"id\tcaption\tcuis\nimg_1\tCT; chest\tC0040405;C0817096\nimg_2\t\tC1306645\n",
    "one row per concept": b"ID,CUIs\nimg_1,C0040405\nimg_1,C0817096\nimg_2,C1306645\n",
    "one row per concept, mixed": b"image_id,cui\nimg_1,C0040405\nimg_2,C1306645\nimg_1,C0817096\nimg_1,C0040405\n",
}

LISTS = [
    "['C0040405', 'C0817096']", '["C0040405","C0817096"]', "{'C0040405', 'C0817096'}", "('C0040405', 'C0817096')",
    "['C0040405' 'C0817096']", "['C0040405'\n 'C0817096']", "[C0040405, C0817096]", "['C0040405;C0817096']",
    "array(['C0040405', 'C0817096'], dtype=object)", "frozenset({'C0040405', 'C0817096'})", "list(['C0040405','C0817096'])",
    "C0040405|C0817096", "C0040405 C0817096", "C0040405, C0817096", "C0040405; C0817096", "C0040405 | C0817096 ",
    "'C0040405', 'C0817096'", "C0040405\tC0817096", "C0040405\uff1bC0817096", "\u201cC0040405\u201d,\u201cC0817096\u201d",
    "c0040405,c0817096,C0040405",
]  # fmt: skip
"""A cell with two concepts, as people and programs write it."""


def write(path: Path, content: bytes = DIALECTS["2024"]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_reads_the_same(tmp_path: Path, dialect: str) -> None:
    with warned() as lines:
        assert read_concepts(write(tmp_path / "labels.csv", DIALECTS[dialect])).to_dict() == EXPECTED
    path = tmp_path / "labels.csv"
    joined = [f"{path}: 1 image with one row per concept; their rows are joined"]
    assert lines == (joined if dialect.startswith("one row") else [])


def test_labels_may_be_larger_than_any_submission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.files.MAX_BYTES", 100)
    monkeypatch.setattr("eval.files.MAX_LINES", 10)
    path = write(tmp_path / "labels.csv", b"ID,CUIs\n" + b"".join(b"img_%d,C1\n" % row for row in range(1000)))
    assert len(read_concepts(path)) == len(read_ids(path)) == len(read_truth(path, find_edition(2026)).sets) == 1000


@pytest.mark.parametrize(("limit", "message"), [("BYTES", "over 0 MiB"), ("LINES", "over 100 lines")])
def test_labels_above_their_own_limit_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, message: str
) -> None:
    monkeypatch.setattr(f"eval.files.MAX_LABEL_{limit}", 100)
    path = write(tmp_path / "labels.csv", b"ID,CUIs\n" + b"a,C1\n" * 100)
    with pytest.raises(DataError, match=f"{message}, more than any file of the task has; give the right file$"):
        read_concepts(path)


def test_images_share_their_concepts_in_memory(tmp_path: Path) -> None:
    first, second = read_concepts(write(tmp_path / "labels.csv", b"ID,CUIs\na,C1234567\nb,C7654321;C1234567\n"))
    assert first[0] is second[1]


@pytest.mark.parametrize("dialect", [each for each in DIALECTS if "spaces" not in each])
def test_ids_are_read_in_every_dialect(tmp_path: Path, dialect: str) -> None:
    found = read_ids(write(tmp_path / "ids.csv", DIALECTS[dialect]))
    assert [id.partition(".")[0] for id in found] == ["img_1", "img_2"]


@pytest.mark.parametrize("delimiter", [",", "\t", "|", ";"])
@pytest.mark.parametrize("cell", LISTS)
def test_every_list_reads_the_same(tmp_path: Path, cell: str, delimiter: str) -> None:
    with open(tmp_path / "labels.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([["ID", "CUIs"], ["a", cell], ["b", "C1306645"]])
    assert read_concepts(tmp_path / "labels.csv").to_dict() == {"a": ("C0040405", "C0817096"), "b": ("C1306645",)}


@pytest.mark.parametrize("cell", ["[]", "()", "{}", "set()", "['']", '""', " ", ";", "array([], dtype=object)"])
def test_an_empty_list_is_no_concept(tmp_path: Path, cell: str) -> None:
    with open(tmp_path / "labels.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["ID", "CUIs"], ["a", cell], ["b", "('C1',)"]])
    assert read_concepts(tmp_path / "labels.csv").to_dict() == {"a": (), "b": ("C1",)}


def test_a_list_without_quotes_around_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", b"ID,CUIs\na,['C0040405', 'C0817096']\nb,[]\nc,[C1]\n")
    assert read_concepts(path).tolist() == [("C0040405", "C0817096"), (), ("C1",)]


@pytest.mark.parametrize(
    ("cell", "names"),
    [("CT (contrast); left", ("CT (CONTRAST)", "LEFT")), ("chest, lateral", ("CHEST, LATERAL",)), ("(left)", ("(LEFT)",)),
     ("['CT (contrast)', 'left']", ("CT (CONTRAST)", "LEFT")), ("[\"Crohn's\"]", ("CROHN'S",)),
     ("UMLS:C0040405", ("UMLS:C0040405",)), ("C0040405 CT", ("C0040405 CT",))],
)  # fmt: skip
def test_other_names_of_concepts_are_divided_by_semicolons_alone(
    tmp_path: Path, cell: str, names: tuple[str, ...]
) -> None:
    with open(tmp_path / "labels.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["ID", "CUIs"], ["a", cell]])
    assert read_concepts(tmp_path / "labels.csv")["a"] == names


@pytest.mark.parametrize(
    "cell",
    ["C0040405/C0817096", "C0040405+C0817096", "C0040405C0817096", "C0040405_C0817096", "C0040405 and C0817096",
     "['C0040405' 'C0817096' ... 'C1306645']", '[{"cui": "C0040405"}]', "[chest, CT]", "['C0040405'",
     "CT C0040405; X-ray C0817096, C1306645"],
)  # fmt: skip
def test_several_cuis_are_never_one_concept(tmp_path: Path, cell: str) -> None:
    with open(tmp_path / "labels.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["ID", "CUIs"], ["b", "C1306645"], ["a", cell]])
    with pytest.raises(DataError, match=r"labels\.csv: line 3: .* is not a list of CUIs; expected one such as 'C"):
        read_concepts(tmp_path / "labels.csv")


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
        (b"ID,CUIs\nr\xf6ntgen,C1\n", r"in UTF-8 \(line 2, byte 9: 0xf6, as in cp1252 and .*\); save it as UTF-8"),
        (
            "ID,CUIs\na,C1\n".encode("utf-16-le"),
            "zero bytes, as UTF-16 without a byte order mark has; save it as UTF-8",
        ),
        (b"PK\x03\x04" + bytes(40), "a zip or an Excel workbook, not a text file; save it as CSV in UTF-8"),
        (b"\x1f\x8b\x08" + bytes(40), "a gzip, not a text file"),
        (b"PAR1" + bytes(40), "a parquet file, not a text file"),
        (b"ID,CUIs\na,C1;C2\na,C3\nb,C4\n", "line 3: image 'a' has an earlier row with other concepts; keep one"),
        (b"ID,CUIs\na,C1\na,C2\nb,C3;C4\n", "line 3: image 'a' has an earlier row with other concepts; keep one"),
        (b"ID,CUIs\na,C1\na,\nb,C3\n", "line 3: image 'a' has an earlier row with other concepts; keep one"),
        (b"ID,Caption\na,CT\n", "line 1: header 'ID,Caption' names no column of concepts; expected ID,CUIs"),
        (b"scan,text,CUIs\na,CT,C1\n", "line 1: header 'scan,text,CUIs' names no column of ids; expected ID,CUIs"),
        (b"id,file_name,cuis\n1,a,C1\n", "line 1: columns 'id' and 'file_name' may both hold the ids; remove one"),
        (b"ID,CUIs,CUI\na,C1,C2\n", "line 1: columns 'CUIs' and 'CUI' may both hold the concepts; remove one"),
        (b"image_id,cui,caption\na,C1,CT,left\n", "line 2: 'a,C1,CT,left' is not an id and its concepts"),
        (b"ID;CUIs;Caption\na;C1;C2;CT\n", "line 2: 'a;C1;C2;CT' is not an id and its concepts"),
        (b"ID,CUIs\na;C0040405;C0817096\n", "line 2: .* concepts in one cell, with ';' between them; expected .* ','"),
        (b"ID,CUIs\na;C0040405,C0817096\n", "line 2: 'a;C0040405' has an id and concepts in one cell, with ';'"),
        (b"ID CUIs\na C0040405\n", "line 2: 'a C0040405' has an id and concepts in one cell, with ' ' between"),
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
        "training_concepts.csv",
        "Train_Concepts.CSV",
        "train concepts.csv",
        "rocov2_train_concepts.csv",
        "Training/concepts.csv",
        "train/train_concepts.csv",
        "train_concepts.txt",
        "train_concepts.tsv",
    ],
)
def test_the_labels_of_every_edition_are_found(tmp_path: Path, name: str) -> None:
    expected = write(tmp_path / name)
    for other in ("train_captions.csv", "valid_concepts.csv", "train_concepts_manual.csv", "cui_mapping.csv",
                  "._train_concepts.csv", "train/._concepts.csv", "test/concepts.csv"):  # fmt: skip
        write(tmp_path / other)
    assert find_label_file(tmp_path, "train") == expected


@pytest.mark.parametrize("name", ["test_ids.csv", "test/ids.csv", "ids.csv"])
def test_the_list_of_ids_is_found(tmp_path: Path, name: str) -> None:
    expected = write(tmp_path / name)
    assert find_label_file(tmp_path, "test", "ids") == expected
    assert find_label_file(tmp_path, "valid", "ids") is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("val_concepts.csv", "concepts"),
        ("validation_concepts.csv", "concepts"),
        ("ROCO_Val_concepts.csv", "concepts"),
        ("val/concepts.csv", "concepts"),
        ("Validation_Images/concepts.csv", "concepts"),
        ("val_concepts_manual.csv", "manual"),
        ("validation/concepts_manual.csv", "manual"),
        ("val_ids.csv", "ids"),
    ],
)
def test_the_files_of_valid_are_found_under_its_other_names(tmp_path: Path, name: str, kind: str) -> None:
    expected = write(tmp_path / name)
    assert find_label_file(tmp_path, "valid", kind) == expected
    assert find_label_file(tmp_path, "train", kind) is None


def test_a_table_of_another_ending_counts_only_where_there_is_no_csv(tmp_path: Path) -> None:
    write(tmp_path / "train_concepts.txt")
    expected = write(tmp_path / "train_concepts.csv")
    assert find_label_file(tmp_path, "train") == expected


@pytest.mark.parametrize(
    "names", [("val_concepts.csv", "valid_concepts.csv"), ("val/concepts.csv", "valid/concepts.csv")]
)
def test_files_under_two_names_of_a_split_are_an_error(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        write(tmp_path / name)
    with pytest.raises(DataError, match=f"{names[0]}, {names[1]} are all concepts of valid; keep one of them"):
        find_label_file(tmp_path, "valid")


def test_two_files_for_one_purpose_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "train_concepts.csv")
    write(tmp_path / "train" / "concepts.csv")
    with pytest.raises(DataError, match=r"train_concepts\.csv, concepts\.csv are all concepts of train"):
        find_label_file(tmp_path, "train")
