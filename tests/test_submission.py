"""Submissions: each edition's form, and nothing that its rules refuse can be written."""

import csv
import io
import zipfile
from pathlib import Path

import pytest

from eval.editions import find_edition
from eval.errors import UserError
from eval.faults import find_faults
from eval.files import read_submission_bytes
from eval.submission import render_submission, write_submission

IDS = ["b", "a"]
CONCEPTS = [["C1", "C2"], []]


@pytest.mark.parametrize(
    ("year", "expected"),
    [
        (2022, b"b|C1;C2\na|\n"),
        (2023, b"b|C1;C2\na|\n"),
        (2024, b"ID,CUIs\nb,C1;C2\na,\n"),
        (2025, b"ID,CUIs\nb,C1;C2\na,\n"),
        (2026, b"ID,CUIs\nb,C1;C2\na,\n"),
    ],
)
def test_each_edition_has_its_format(year: int, expected: bytes) -> None:
    assert render_submission(IDS, CONCEPTS, find_edition(year)) == expected


@pytest.mark.parametrize("year", [2025, 2026])
def test_a_zip_with_one_file_is_handed_in(tmp_path: Path, year: int) -> None:
    edition = find_edition(year)
    data = render_submission(IDS, CONCEPTS, edition)
    paths = write_submission(tmp_path / "submission.csv", data, edition)
    assert [path.name for path in paths] == ["submission.csv", "submission.zip"]
    with zipfile.ZipFile(paths[1]) as archive:
        assert archive.namelist() == ["submission.csv"]
    assert read_submission_bytes(paths[0]) == read_submission_bytes(paths[1]) == data
    first = paths[1].read_bytes()
    write_submission(tmp_path / "submission.csv", data, edition)
    assert paths[1].read_bytes() == first


@pytest.mark.parametrize(
    ("ids", "concepts", "message"),
    [
        (["a", "a"], [["C1"], ["C1"]], "image 'a' has a row already"),
        (["a"], [["C1", "C1"]], "concept 'C1' twice"),
        (["a"], [[f"C{n}" for n in range(101)]], "101 concepts, at most 100"),
        (["a"], [["nodule"]], "concept 'nodule', expected 'C' and digits"),
        ([" a"], [["C1"]], "spaces around a cell"),
    ],
)
def test_what_would_be_refused_cannot_be_rendered(ids: list[str], concepts: list[list[str]], message: str) -> None:
    with pytest.raises(UserError, match=rf"would be refused in 2026: .*{message}"):
        render_submission(ids, concepts, find_edition(2026))


@pytest.mark.parametrize("year", [2024, 2026])
def test_an_image_that_the_evaluator_skips_keeps_its_row(year: int) -> None:
    assert b"MID1,C1\n" in render_submission(["MID1", "a"], [["C1"], ["C2"]], find_edition(year))


@pytest.mark.parametrize("cell", ["=1+1", "+C1", "-C1", "@C1", 'a"b', "a,b"])
def test_cells_come_out_as_they_went_in(cell: str) -> None:
    data = render_submission([cell], [["C1"]], find_edition(2025))
    assert list(csv.reader(io.StringIO(data.decode())))[1] == [cell, "C1"]


def test_a_write_that_fails_leaves_the_earlier_submission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "submission.csv"
    path.write_text("earlier")
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_submission(path, b"new", find_edition(2024))
    assert [each.name for each in tmp_path.iterdir()] == ["submission.csv"]
    assert path.read_text() == "earlier"


@pytest.mark.parametrize(
    ("submission", "line", "message"),
    [
        (b"ID,CUIs\na,C1\nb,C2\n", 2, "image 'a' is out of order"),
        (b"b,C1\na,C2\n", 1, "header 'b,C1', expected exactly 'ID,CUIs'"),
        (b"\xef\xbb\xbfID,CUIs\nb,C1\na,C2\n", 1, "expected exactly 'ID,CUIs' without a byte order mark"),
        (b"", 1, "header 'nothing'"),
        (b"ID,CUIs\nb,c1\na,C2\n", 2, "concept 'c1', expected 'C' and digits"),
        (b"ID,CUIs\nb,C1;C1\na,C2\n", 2, "concept 'C1' twice"),
        (b"ID,CUIs\nb, C1\na,C2\n", 2, "spaces around a cell of image 'b'"),
        (b"ID,CUIs\nb,C1;\na,C2\n", 2, "an empty concept"),
        (b"ID,CUIs\nb\na,C2\n", 2, "1 cell for image 'b'"),
        (b"ID,CUIs\nb,C1\nb,C1\n", 3, "image 'b' has a row already"),
        (b"ID,CUIs\nb,C1\n", 0, "image 'a' has no row"),
        (b"ID,CUIs\nb,C1\na,C2\n\n", 4, "blank line"),
        (b"ID,CUIs\nb,C1\na,C2\nz,C2\n", 4, "image 'z' is not in the list of ids"),
        (b"ID,CUIs\nb,C1\xff\n", 2, "byte 0xff is not UTF-8"),
    ],
)
def test_the_form_check_of_2026_names_line_and_remedy(submission: bytes, line: int, message: str) -> None:
    fault = find_faults(submission, IDS, find_edition(2026), "submission.csv")[0]
    assert fault.line == line
    assert message in fault.message


@pytest.mark.parametrize(
    "submission", [b"ID,CUIs\nb,C1;C2\na,\n", b"ID,CUIs\r\nb,C1\r\na,C2\r\n", b'ID,CUIs\n"b",C1\na,C2']
)
def test_the_form_check_accepts_what_is_right(submission: bytes) -> None:
    assert find_faults(submission, IDS, find_edition(2026), "submission.csv") == []


def test_every_fault_is_found_once() -> None:
    data = b"ID,CUIs\nb,C1;C1\nzz,C2\n"
    assert [fault.line for fault in find_faults(data, IDS, find_edition(2026), "s")] == [2, 3, 0]
    assert [fault.line for fault in find_faults(data, IDS, find_edition(2024), "s")] == [2, 3, 0]


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "submission.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("run1/submission.csv", "ID,CUIs\n")
    with pytest.raises(UserError, match=r"holds 'run1/submission.csv', expected one file named submission.csv"):
        read_submission_bytes(path)
