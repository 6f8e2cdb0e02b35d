"""The official scores, quirks included: each case has the score that the organisers' evaluator gives."""

import random
from pathlib import Path

import pytest

from cache.support.errors import DataError, ParameterError
from eval.editions import EDITIONS, find_edition
from eval.scored_file import ScoredFile, score_files

TRUTH = "ID,CUIs\na1,C0040405;C1\na2,C1306645\n"


def score(
    tmp_path: Path, submission: str | bytes, year: int = 2024, truth: str = TRUTH, manual: str | None = None
) -> ScoredFile:
    data = submission.encode() if isinstance(submission, str) else submission
    (tmp_path / "s.csv").write_bytes(data)
    (tmp_path / "t.csv").write_text(truth, newline="")
    (tmp_path / "m.csv").write_text(truth if manual is None else manual, newline="")
    return score_files(tmp_path / "s.csv", tmp_path / "t.csv", tmp_path / "m.csv", find_edition(year))


@pytest.mark.parametrize("year", [2024, 2025, 2026])
@pytest.mark.parametrize(
    ("submission", "primary", "secondary"),
    [
        ("a1,C0040405;C1\ra2,C1306645\r", 1.0, 1.0),  # line ends of old Macs
        ("ID,CUIs\na1,C0040405;C1\na2,C1306645", 1.0, 1.0),  # no line end
        ("ID,CUIs,what,ever\na1,C0040405;C1\nID\na2,C1306645\n", 1.0, 1.0),  # headers of any form
        ('ID,CUIs\na1,"C0040405\n;C1"\na2,C1306645\n', 1.0, 1.0),  # a cell on two lines
        ("ID,CUIs\na1,\tC0040405\u00a0;C1\na2,C1306645\n", 1.0, 1.0),  # every kind of space is stripped
        ("ID,CUIs\na1,C0040405;C1\na2,C1306645\n", 1.0, 1.0),
        ("ID,CUIs\na2,C1306645\na1,C1;C0040405\n", 1.0, 1.0),  # any order
        ("a1,C0040405;C1\na2,C1306645\n", 1.0, 1.0),  # no header
        ("ID,CUIs\na1,c0040405;c1\na2,C1306645\n", 1.0, 1.0),  # any case
        ("ID,CUIs\na1,C0040405;C1;c1\na2,C1306645\n", 1.0, 1.0),  # twice, in another case
        ("ID,CUIs\na1, C0040405 ; C1 \na2,C1306645\n", 1.0, 1.0),  # concepts are stripped
        ("ID,CUIs\na1,C0040405;C1;\na2,C1306645\n", 0.9, 1.0),  # a trailing ; is a concept
        ("ID,CUIs\na1,\na2,C1306645\n", 0.5, 0.5),  # an empty cell
        ("ID,CUIs\na1\na2,C1306645\n", 0.5, 0.5),  # an id alone
        ("\ufeffID,CUIs\na1,C0040405;C1\na2,C1306645\n", 1.0, 1.0),  # a byte order mark in the header
        ('ID,CUIs\n"a1","C0040405;C1"\n"a2","C1306645"\n', 1.0, 1.0),
        ("ID,CUIs\r\na1,C0040405;C1\r\na2,C1306645\r\n", 1.0, 1.0),
        ("ID,CUIs\na1,C0040405;C1\nID,CUIs\na2,C1306645\n", 1.0, 1.0),  # a header inside
        ("ID,CUIs\na1,hello\na2,C1306645\n", 0.5, 0.5),
        ("ID,CUIs\na1,C1\na2,C9\n", 1 / 3, 0.0),
        ("ID,CUIs\na1,C0040405;C2;C3\na2,C1306645\n", 0.7, 1.0),  # the secondary score counts allowed concepts only
    ],
)
def test_scores_are_those_of_the_evaluator(
    tmp_path: Path, year: int, submission: str, primary: float, secondary: float
) -> None:
    scores = score(tmp_path, submission, year)
    assert scores.primary == pytest.approx(primary, abs=1e-12)
    assert scores.secondary == pytest.approx(secondary, abs=1e-12)


@pytest.mark.parametrize(
    ("submission", "message"),
    [
        ("ID,CUIs\na1,C1;C1\na2,C1306645\n", "line 2: image 'a1': concept 'C1' twice"),
        ("ID,CUIs\na1,C1;;\na2,C1306645\n", "line 2: image 'a1': concept '' twice"),
        ("ID,CUIs\n a1,C1\na2,C1306645\n", "line 2: image ' a1' is not in the truth; remove the spaces around it"),
        ("ID,CUIs\na1,C0040405,C1\na2,C1306645\n", "line 2: 3 cells for image 'a1'"),
        ("ID,CUIs\nzz,C1\na2,C1306645\n", "line 2: image 'zz' is not in the truth; write ids as in the truth"),
        ("ID,CUIs\na1,C1\na1,C1\n", "line 3: image 'a1' has a row already"),
        ("ID,CUIs\na1,C1\n", "1 of 2 images have no row, such as 'a2'"),
        ("", "2 of 2 images have no row"),
        ("ID,CUIs\na1,C1\n\na2,C1306645\n", "line 3: blank line"),
        (
            "\ufeffa1,C0040405;C1\na2,C1306645\n",
            r"image '\\ufeffa1' is not .*; save the file without a byte order mark",
        ),
        ("a1|C1\na2|C1306645\n", r"line 1: image 'a1\|C1' is not .*; put ',' between id and concepts, not '\|'"),
        ("a1;C1\na2,C1306645\n", "line 1: image 'a1;C1' is not .*; put ',' between id and concepts, not ';'"),
        ("a1\tC1\na2\tC1306645\n", r"line 1: image 'a1\\tC1' is not .*; put ',' between id and concepts, not '\\t'"),
        ("a1.jpg,C1\na2,C1306645\n", "line 1: image 'a1.jpg' is not in the truth; remove the file extension"),
        (b"ID,CUIs\na1,C1\xff\na2,C1306645\n", "line 2: byte 0xff is not UTF-8"),
        (
            "a1," + ";".join(f"C{n}" for n in range(101)) + "\na2,\n",
            "line 1: image 'a1': 101 concepts, at most 100 are allowed; predict fewer",
        ),
    ],
)
def test_what_the_evaluator_refuses_is_an_error_with_line_and_remedy(
    tmp_path: Path, submission: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        score(tmp_path, submission)


def test_a_hundred_concepts_are_allowed(tmp_path: Path) -> None:
    many = ";".join(["C0040405", *(f"C9{n}" for n in range(99))])
    assert score(tmp_path, f"a1,{many}\na2,C1306645\n").primary == pytest.approx((2 / 102 + 1) / 2, abs=1e-12)


@pytest.mark.parametrize(("row", "primary"), [("a1,", 1.0), ("a1", 0.5), ("a1,C1", 0.5)])
def test_only_an_empty_cell_is_right_for_an_image_without_concepts(tmp_path: Path, row: str, primary: float) -> None:
    scores = score(tmp_path, f"ID,CUIs\n{row}\na2,C1306645\n", truth="ID,CUIs\na1,\na2,C1306645\n")
    # No concept of a1 counts for the secondary score, so the image is left out whatever is predicted.
    assert (scores.primary, scores.secondary, scores.n_images) == (primary, 1.0, 2)


def test_the_last_of_two_truth_rows_counts(tmp_path: Path) -> None:
    manual = "ID,CUIs\na1,C0040405\na2,C1306645\n"
    truth = "ID,CUIs\na1,C2\na1,C1\na2,C1306645\n"
    assert score(tmp_path, "a1,C1\na2,C1306645\n", truth=truth, manual=manual).primary == 1.0


def test_a_truth_row_may_have_more_cells(tmp_path: Path) -> None:
    scores = score(tmp_path, "a1,C0040405\na2,C1306645\n", truth="ID,CUIs\na1,C0040405,C9\na2,C1306645,,\n")
    assert (scores.primary, scores.secondary) == (1.0, 1.0)


def write_2022(tmp_path: Path) -> Path:
    (tmp_path / "2022.csv").write_text("a1|C1\n")
    return tmp_path / "2022.csv"


@pytest.mark.parametrize("year", [2022, 2023])
def test_the_label_files_of_2022_and_2023_are_truth_too(tmp_path: Path, year: int) -> None:
    truth = "ID\tcuis\na1\tC0040405;C1\na2\tC1306645\n"
    scores = score(tmp_path, "a1|C0040405\na2|C1306645\n", year, truth)
    assert (scores.primary, scores.n_images) == (pytest.approx(5 / 6), 2)


def test_2022_reads_no_manual_file(tmp_path: Path) -> None:
    assert score_files(*[write_2022(tmp_path)] * 2, None, find_edition(2022)).secondary == 0.0
    assert score(tmp_path, "a1|C1\n", 2022, "a1|C1\n", manual="ID,CUIs\na1\n").secondary == 0.0


def test_a_truth_row_with_an_id_alone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: line 2: 1 cell for image 'a1', expected an id and its concepts"):
        score(tmp_path, "a1,\na2,C1306645\n", truth="ID,CUIs\na1\na2,C1306645\n")


@pytest.mark.parametrize("concepts", ["C0040405", "C9", ""])
def test_an_image_that_only_the_manual_file_has_scores_zero(tmp_path: Path, concepts: str) -> None:
    """Even one without a concept that counts, which would be left out if the submission had it."""
    manual = f"ID,CUIs\na1,C0040405\na2,C1306645\na3,{concepts}\n"
    assert score(tmp_path, TRUTH, manual=manual).secondary == pytest.approx(2 / 3, abs=1e-12)


def test_an_image_that_the_manual_file_lacks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"m\.csv: image 'a1' is not in the manual truth, expected every image of the truth; add its row",
    ):
        score(tmp_path, TRUTH, manual="ID,CUIs\na2,C1306645\n")


def test_nothing_to_score_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"m\.csv: no image of the manual truth has a concept .*; give the manual truth"
    ):
        score(tmp_path, TRUTH, manual="ID,CUIs\na1,C1\na2,\n")


def test_optical_coherence_tomography_counts_from_2025_on(tmp_path: Path) -> None:
    truth = "ID,CUIs\na1,C0920367;C1\na2,C1306645\n"
    submission = "ID,CUIs\na1,C1\na2,C1306645\n"
    assert [score(tmp_path, submission, year, truth).secondary for year in (2024, 2025, 2026)] == [1.0, 0.5, 0.5]


def test_an_id_with_the_letters_id_is_skipped_as_a_header(tmp_path: Path) -> None:
    scores = score(tmp_path, "MID1,C9\na2,C1306645\n", truth="ID,CUIs\nMID1,C1\na2,C1306645\n")
    assert (scores.primary, scores.secondary, scores.n_images) == (1.0, 1.0, 1)


def test_a_truth_of_such_ids_alone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: every id contains the letters ID, such as 'VALID_1'.*; rename"):
        score(tmp_path, "VALID_1,C1\n", truth="ID,CUIs\nVALID_1,C1\n")


def test_2022_has_bars_no_header_no_quotes_and_no_secondary_score(tmp_path: Path) -> None:
    truth = "a1|C0040405;C1\na2|C1306645\n"
    scores = score(tmp_path, truth, 2022, truth)
    assert (scores.primary, scores.secondary, scores.n_images) == (1.0, 0.0, 2)
    assert score(tmp_path, "a1|\na2|C1306645\n", 2022, truth).primary == 0.5


@pytest.mark.parametrize(
    ("submission", "message"),
    [
        (
            "ID|CUIs\na1|C1\na2|C2\n",
            "line 1: 'ID|CUIs' looks like a header, but the evaluator takes it for an image; 2022 takes no header, remove the row",
        ),
        ('"a1"|C1\na2|C2\n', "line 1: image '\"a1\"' is not in the truth; remove the quotes"),
        ("a1|C1\na2|C2\n\n", "line 3: blank line; remove it"),
        ("a1,C1\na2,C2\n", r"line 1: image 'a1,C1' is not in the truth; put '\|' between id and concepts, not ','"),
    ],
)
def test_2022_refuses_what_is_not_its_format(tmp_path: Path, submission: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"s\.csv: {message}"):
        score(tmp_path, submission, 2022, "a1|C1\na2|C2\n")


def test_primary_is_the_mean_of_scikit_learns_f1_per_image(tmp_path: Path) -> None:
    from sklearn.metrics import f1_score

    dice = random.Random(0)
    names = [f"C{n}" for n in range(12)]
    truth = [dice.sample(names, dice.randint(1, 6)) for _ in range(50)]
    given = [dice.sample(names, dice.randint(1, 6)) for _ in range(50)]
    files = ["".join(f"x{n},{';'.join(row)}\n" for n, row in enumerate(rows)) for rows in (given, truth)]
    expected = sum(
        f1_score([name in t for name in names], [name in g for name in names])
        for t, g in zip(truth, given, strict=True)
    )
    manual = "".join(f"x{n},C0040405\n" for n in range(50))
    assert score(tmp_path, files[0], truth=files[1], manual=manual).primary == pytest.approx(expected / 50, abs=1e-12)


def test_an_edition_that_never_was_lists_those_that_were() -> None:
    with pytest.raises(ParameterError, match="edition 2021: expected one of 2022, 2023, 2024, 2025, 2026"):
        find_edition(2021)
    with pytest.raises(ParameterError, match="edition '2024': expected one of 2022"):
        find_edition("2024")  # type: ignore[arg-type]
    assert list(EDITIONS) == sorted(EDITIONS)


def test_paths_may_be_text_and_an_edition_a_year(tmp_path: Path) -> None:
    expected = score(tmp_path, TRUTH, 2024)
    paths = [str(tmp_path / name) for name in ("s.csv", "t.csv", "m.csv")]
    scored = score_files(*paths, edition=2024)
    assert (scored.primary, scored.secondary) == (expected.primary, expected.secondary) == (1.0, 1.0)
    assert score_files(*paths).edition is EDITIONS[2026]


def test_a_scored_file_shows_both_scores(tmp_path: Path) -> None:
    assert repr(score(tmp_path, "a1,C1\na2,C9\n")) == (
        "ScoredFile(primary F1 0.3333, secondary F1 0.0000, 2 images, rules of 2024)"
    )
    without_manual = score_files(tmp_path / "s.csv", tmp_path / "t.csv", edition=2024)
    assert str(without_manual) == "ScoredFile(primary F1 0.3333, no secondary F1, 2 images, rules of 2024)"
    assert repr(without_manual.truth) == "ConceptFile(2 images, 0 skipped)"
    assert "frozenset" not in repr(without_manual.edition)
