"""Submissions: each edition's format, and nothing that its rules refuse can be written."""

import contextlib
import csv
import io
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.support.errors import DataError, ParameterError
from eval.csv_rows import read_rows
from eval.editions import find_edition
from eval.faults import find_faults
from eval.files import Limit, read_submission_bytes
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
def test_a_submission_that_would_be_refused_is_not_rendered(
    ids: list[str], concepts: list[list[str]], message: str
) -> None:
    with pytest.raises(DataError, match=rf"would be refused in 2026: .*{message}"):
        render_submission(ids, concepts, find_edition(2026))


@pytest.mark.parametrize("year", [2024, 2026])
def test_an_image_that_the_evaluator_skips_has_a_row(year: int) -> None:
    assert b"MID1,C1\n" in render_submission(["MID1", "a"], [["C1"], ["C2"]], find_edition(year))


@pytest.mark.parametrize("year", [2022, 2023, 2024, 2025, 2026])
@pytest.mark.parametrize("id", ["=1+1", "+a", "-a", "@a", "=cmd|'/c'!A0", 'a"b', "a,b", "a;b", "ä"])
def test_ids_are_written_unchanged(year: int, id: str) -> None:
    edition = find_edition(year)
    if "|" in id and year == 2022:
        with pytest.raises(DataError, match="3 cells for image"):
            render_submission([id], [["C1"]], edition)
        return
    rows = list(read_rows(render_submission([id], [["C1"]], edition), edition, "s"))
    assert rows[-1].cells == [id, "C1"]


@pytest.mark.parametrize("concept", ["=1+1", "+C1", "-C1", "@C1", "=HYPERLINK(1,2)"])
def test_concepts_are_written_unchanged(concept: str) -> None:
    edition = find_edition(2025)
    data = render_submission(["a"], [["C1", concept]], edition)
    assert next(row.cells for row in read_rows(data, edition, "s") if row.cells[0] == "a") == ["a", f"C1;{concept}"]


@pytest.mark.parametrize("concepts", [["C1;C2"], [" C1"], ["C1", ""], ["C1\n"]])
def test_a_submission_that_would_not_read_back_the_same_is_not_rendered(concepts: list[str]) -> None:
    with pytest.raises(DataError, match=r"would not read back as it is; correct the id|would be refused"):
        render_submission(["a"], [concepts], find_edition(2024))


TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from(',;|"\n\r\t =+-@C1\ufeff\x00'), min_size=1, max_size=4)
CUIS = st.integers(1, 9999).map(lambda number: f"C{number}")
CONCEPT_LISTS = st.lists(CUIS, max_size=3, unique=True) | st.lists(CUIS | TEXTS, max_size=3)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(TEXTS, CONCEPT_LISTS), min_size=1, max_size=4, unique_by=lambda row: row[0]),
    year=st.sampled_from([2022, 2023, 2024, 2025, 2026]),
)
def test_what_is_written_reads_back_the_same_or_is_refused(rows: list[tuple[str, list[str]]], year: int) -> None:
    """By `csv.reader` itself, with the separator and quoting of each year."""
    ids, concepts = [id for id, _ in rows], [predicted for _, predicted in rows]
    try:
        data = render_submission(ids, concepts, find_edition(year))
    except DataError:
        return
    mark, quoting = ("|" if year < 2024 else ","), (csv.QUOTE_NONE if year == 2022 else csv.QUOTE_MINIMAL)
    read = list(csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8"), delimiter=mark, quoting=quoting))
    assert read[year >= 2024 :] == [[id, ";".join(predicted)] for id, predicted in rows]


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
        (b"\nb,C1\na,C2\n", 1, "no header, expected exactly 'ID,CUIs'"),
        (b"", 1, "no header, expected exactly 'ID,CUIs'"),
        (b"ID,CUIs\nb,c1\na,C2\n", 2, "concept 'c1', expected 'C' and digits"),
        (b"ID,CUIs\nb,C1;C1\na,C2\n", 2, "concept 'C1' twice"),
        (b"ID,CUIs\nb, C1\na,C2\n", 2, "spaces around a cell of image 'b'"),
        (b"ID,CUIs\nb,C1;\na,C2\n", 2, "an empty concept"),
        (b"ID,CUIs\nb\na,C2\n", 2, "1 cell for image 'b'"),
        (b"ID,CUIs\nb,C1\nb,C1\n", 3, "image 'b' has a row already"),
        (b"ID,CUIs\nb,C1\n", 0, "image 'a' has no row"),
        (b"ID,CUIs\nb,C1\na,C2\n\n", 4, "blank line"),
        (b"ID,CUIs\nb,C1\n \t\na,C2\n", 3, "blank line"),
        (b"ID,CUIs\nb,C1\x0c\na,C2\n", 2, "blank line"),
        (b"ID,CUIs\nb,C1\na,C2\nz,C2\n", 4, "image 'z' is not in the list of ids"),
        (b"ID,CUIs\nb,C1\xff\n", 2, "byte 0xff is not UTF-8"),
    ],
)
def test_the_form_check_of_2026_gives_line_and_remedy(submission: bytes, line: int, message: str) -> None:
    fault = find_faults(submission, IDS, find_edition(2026), "submission.csv")[0]
    assert fault.line == line
    assert message in fault.message


def test_a_line_end_within_an_id_is_read_as_the_form_check_reads_it() -> None:
    data = b'ID,CUIs\n"b\r\nc",C1\n'
    assert find_faults(data, ["b\r\nc"], find_edition(2026), "s") == []
    assert len(find_faults(data, ["b\nc"], find_edition(2026), "s")) == 2


@pytest.mark.parametrize(
    "submission", [b"ID,CUIs\nb,C1;C2\na,\n", b"ID,CUIs\r\nb,C1\r\na,C2\r\n", b'ID,CUIs\n"b",C1\na,C2']
)
def test_the_form_check_accepts_a_correct_submission(submission: bytes) -> None:
    assert find_faults(submission, IDS, find_edition(2026), "submission.csv") == []


def test_every_fault_is_reported_with_its_line() -> None:
    many = ";".join(f"C{n}" for n in range(101))
    data = f"ID,CUIs\nb,{many};C1\nzz,C2\n a,C1\nb,nodule;;C3;C3\n\nc\nd,C1,C2\n"
    faults = find_faults(data.encode(), [*"abcde"], find_edition(2026), "s")
    assert [str(fault) for fault in faults] == [
        "line 2: image 'b': concept 'C1' twice; list each once",
        "line 2: image 'b': 102 concepts, at most 100 are allowed; predict fewer",
        "line 2: image 'b' is out of order; keep the order of the list of ids",
        "line 3: image 'zz' is not in the list of ids; write ids as in the list of ids",
        "line 4: spaces around a cell of image 'a'; remove them",
        "line 5: image 'b': an empty concept; remove the extra ';'",
        "line 5: image 'b': concept 'nodule', expected 'C' and digits",
        "line 5: image 'b': concept 'C3' twice; list each once",
        "line 5: image 'b' has a row already; keep one",
        "line 6: blank line; remove it",
        "line 7: 1 cell for image 'c', expected an id, ',', and concepts with ';' between them",
        "line 8: 3 cells for image 'd', expected an id, ',', and concepts with ';' between them",
        "image 'e' has no row; add it",
    ]
    assert [fault.line for fault in find_faults(data.encode(), [*"abcde"], find_edition(2024), "s")] == [
        2, 2, 3, 4, 5, 5, 6, 8, 0, 0,
    ]  # fmt: skip


def test_bytes_that_are_not_text_are_reported_line_by_line_beside_other_faults() -> None:
    data = b"ID,CUIs\nb,C1\xff\na,C1;C1\n\xfe\n"
    assert [fault.line for fault in find_faults(data, IDS, find_edition(2026), "s")] == [2, 3, 4]


@pytest.mark.parametrize(
    ("order", "moved"),
    [("acdebf", [6]), ("bcdefa", [7]), ("fabcde", [2]), ("abcdef", []), ("bacdef", [2]), ("aecdbf", [3, 6])],
)
def test_the_smallest_set_of_rows_that_must_move_is_reported(order: str, moved: list[int]) -> None:
    data = "ID,CUIs\n" + "".join(f"{id},C1\n" for id in order)
    assert [fault.line for fault in find_faults(data.encode(), [*"abcdef"], find_edition(2026), "s")] == moved


def test_a_missing_row_does_not_put_other_rows_out_of_order() -> None:
    data = "ID,CUIs\n" + "".join(f"{id},C1\n" for id in "abdf")
    faults = find_faults(data.encode(), [*"abcdef"], find_edition(2026), "s")
    assert [str(fault) for fault in faults] == ["image 'c' has no row; add it", "image 'e' has no row; add it"]


def test_the_search_ends_at_too_many_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.faults.MAX_FAULTS", 10)
    for year in (2024, 2026):
        faults = find_faults(b"z\n" * 1000, IDS, find_edition(year), "s")
        assert len(faults) == 11
        assert str(faults[-1]) == "the search ended at 10 faults; give the right file, or correct these"


def test_a_zip_of_something_else_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "submission.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("run1/submission.csv", "ID,CUIs\n")
    with pytest.raises(
        DataError, match=r"contains 'run1/submission.csv', expected one file named submission.csv; make the zip again"
    ):
        read_submission_bytes(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.files.TASK", Limit(1000, 100, "any file of the task"))
    (tmp_path / "s.csv").write_bytes(b"x" * 1001)
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("submission.csv", b"x" * 100_000)
    for name in ("s.csv", "s.zip"):
        with pytest.raises(DataError, match=r"more than any file of the task has; give the right file"):
            read_submission_bytes(tmp_path / name)
    for blank in (b"\n", b"\r"):
        (tmp_path / "s.csv").write_bytes(blank * 101)
        with pytest.raises(DataError, match="over 100 lines, more than any file of the task has"):
            read_submission_bytes(tmp_path / "s.csv")
    with pytest.raises(DataError, match="not a file"):
        read_submission_bytes(tmp_path)


def test_a_gibibyte_of_junk_is_refused_in_little_memory(tmp_path: Path) -> None:
    with open(tmp_path / "s.csv", "wb") as file:
        file.truncate(2**30)  # takes no room on the disk
    block = b"x" * 2**20
    packed = zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with packed as archive, archive.open("submission.csv", "w") as member:
        for _ in range(100):
            member.write(block)
    for name, most in (("s.csv", 1), ("s.zip", 70)):
        tracemalloc.start()
        with pytest.raises(DataError, match="over 32 MiB, more than any file of the task has"):
            read_submission_bytes(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < most * 2**20
        tracemalloc.stop()


@pytest.mark.parametrize("place", [0, 10, 30, 45, 60, 80, 100])
def test_a_damaged_zip_is_an_error_or_reads_the_same(tmp_path: Path, place: int) -> None:
    path = tmp_path / "s.zip"
    edition = find_edition(2026)
    data = render_submission(IDS, CONCEPTS, edition)
    write_submission(tmp_path / "s.csv", data, edition)
    whole = path.read_bytes()
    for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]):
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            # Without its signature it is read as text, which the reader of rows refuses.
            assert read_submission_bytes(path) in (data, damaged)


def test_faults_are_found_in_files_by_year(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("ID\nb\na\n")
    (tmp_path / "s.csv").write_text("ID,CUIs\nb,C1\n")
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.write(tmp_path / "s.csv", "submission.csv")
    missing = "image 'a' has no row; add it"
    assert [str(fault) for fault in find_faults(str(tmp_path / "s.csv"), str(tmp_path / "ids.csv"))] == [missing]
    assert [str(fault) for fault in find_faults(tmp_path / "s.zip", IDS, 2025)] == [missing]
    assert [str(fault) for fault in find_faults(tmp_path / "s.zip", IDS, 2024)] == [
        missing, "a zip, but 2024 expects the file in it; hand in that file",
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"nowhere\.csv: no such file"):
        find_faults(tmp_path / "nowhere.csv", IDS)
    with pytest.raises(ParameterError, match="edition 2021: expected one of 2022"):
        find_faults(b"", IDS, 2021)


def test_a_submission_is_written_to_a_path_as_text(tmp_path: Path) -> None:
    paths = write_submission(f"{tmp_path}/submission.csv", render_submission(IDS, CONCEPTS, 2024), 2024)
    assert [path.read_bytes() for path in paths] == [b"ID,CUIs\nb,C1;C2\na,\n"]
