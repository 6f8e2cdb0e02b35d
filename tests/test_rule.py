"""The scores against the evaluators' rules written plainly, row by row, on files that hypothesis makes up."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.support.errors import DataError
from eval.editions import ALLOWED_2023, ALLOWED_2025, find_edition
from eval.faults import find_faults
from eval.form_check import listed_ids
from eval.scored_file import score_files

TRUTH = "ID,CUIs\na1,C0040405;C1\na2,C1306645\na3,\na4,C0920367;C2;C0817096\n"


class RefusedError(Exception):
    """The plain rule refuses the file."""


def plain_rows(text: str, year: int) -> Iterator[list[str]]:
    """The rows that are not headers."""
    lines = io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8")
    for row in csv.reader(lines) if year > 2022 else csv.reader(lines, delimiter="|", quoting=csv.QUOTE_NONE):
        if not row:
            raise RefusedError
        if year == 2022 or "ID" not in row[0]:
            yield row


def plain_truth(text: str, year: int) -> dict[str, list[str]]:
    truth = {}
    for row in plain_rows(text, year):
        if len(row) < 2:
            raise RefusedError
        truth[row[0]] = [part.strip() for part in row[1].split(";")]
    return truth


def plain_submission(text: str, truth: dict[str, list[str]], year: int) -> dict[str, list[str]]:
    given = {}
    for row in plain_rows(text, year):
        if len(row) > 2 or row[0] not in truth or row[0] in given:
            raise RefusedError
        concepts = [part.strip() for part in row[1].split(";")] if len(row) == 2 else []
        if len(concepts) > 100 or len(concepts) != len(set(concepts)):
            raise RefusedError
        given[row[0]] = concepts
    if len(given) != len(truth):
        raise RefusedError
    return given


def plain_f1(truth: list[str], given: list[str]) -> float:
    names = sorted(set(truth) | set(given))
    hits = sum(name in truth and name in given for name in names)
    missed = sum(name in truth and name not in given for name in names)
    wrong = sum(name not in truth and name in given for name in names)
    return 2 * hits / (2 * hits + missed + wrong) if hits else 0.0


def plain_scores(submission: str, truth_text: str, manual_text: str, year: int) -> tuple[float, float]:
    truth = plain_truth(truth_text, year)
    manual = plain_truth(manual_text, year) if year > 2022 else {}
    given = plain_submission(submission, truth, year)
    if not truth:
        raise RefusedError
    upper = {id: [concept.upper() for concept in concepts] for id, concepts in given.items()}
    primary = sum(plain_f1([c.upper() for c in truth[id]], upper[id]) for id in given) / len(truth)
    if year == 2022:
        return primary, 0.0
    allowed = ALLOWED_2023 if year < 2025 else ALLOWED_2025
    secondary, n_images = 0.0, len(manual)
    for id in given:
        if id not in manual:
            raise RefusedError
        cut = [concept.upper() for concept in manual[id] if concept.upper() in allowed]
        if cut:
            secondary += plain_f1(cut, [concept for concept in upper[id] if concept in allowed])
        else:
            n_images -= 1
    if not n_images:
        raise RefusedError
    return primary, secondary / n_images


def plain_form(submission: str, truth: str, manual: str) -> bool:
    """Whether the form check of 2026 accepts."""
    lines = submission.splitlines()
    if any(not line.strip() for line in lines if line != lines[0]):
        return False
    official: list[str] = []
    for text in (truth, manual):
        for row in list(csv.reader(io.StringIO(text, newline="")))[1:]:
            if row and row[0].strip() not in official:
                official.append(row[0].strip())
    rows = list(csv.reader(io.StringIO(submission, newline="")))
    if not rows or rows[0] != ["ID", "CUIs"] or [row[0] for row in rows[1:] if row] != official:
        return False
    for row in rows[1:]:
        if len(row) != 2 or any(cell != cell.strip() for cell in row):
            return False
        parts = [part.strip() for part in row[1].split(";")] if row[1] else []
        if len(set(parts)) < len(parts) or not all(re.fullmatch(r"C\d+", part) for part in parts):
            return False
    return True


NAMES = st.sampled_from(["C1", "c1", "C2", "C0040405", "c0040405", "C1306645", "C0920367", "C0817096", "", "x", "C٣"])
CELLS = st.lists(NAMES, max_size=5).map(";".join) | st.lists(NAMES, max_size=4, unique=True).map(" ; ".join)
IDS = st.sampled_from(["a1", "a2", "a3", "a4"])
ODD_ROWS = st.sampled_from(
    ["", " ", "a1", "a3", "ID,CUIs", "MID1,C1", "MID1", "ID", "a1,C1,C2", '"a1","C1"', '"a1,C1', "\ufeffa1,C1", "a1 ,C1",
     "a2,C1\x0c", "a1,C1\r", "a2|C1", "a2,=1+1", "zz,C1", "a1," + ";".join(f"C{n}" for n in range(101))]
)  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> str:
    """A correct file with a few changes."""
    ids = draw(st.permutations(["a1", "a2", "a3", "a4"])) if draw(st.booleans()) else ["a1", "a2", "a3", "a4"]
    rows = [f"{id},{draw(CELLS)}" for id in ids]
    for odd in draw(st.lists(ODD_ROWS, max_size=2)):
        place = draw(st.integers(0, len(rows)))
        rows[place : place + draw(st.integers(0, 1))] = [odd]
    header = ["ID,CUIs"] * draw(st.booleans())
    return draw(st.sampled_from(["\n", "\r\n"])).join([*header, *rows, ""])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(submission=files(), truth=st.just(TRUTH) | files(), manual=st.just(TRUTH) | files())
def test_any_file_is_scored_or_refused_as_by_the_plain_rule(
    tmp_path_factory: pytest.TempPathFactory, submission: str, truth: str, manual: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    paths = [folder / name for name in ("rule_s.csv", "rule_t.csv", "rule_m.csv")]
    for year in (2022, 2024, 2026):
        texts = [text.replace(",", "|") if year == 2022 else text for text in (submission, truth, manual)]
        for path, text in zip(paths, texts, strict=True):
            path.write_bytes(text.encode())
        try:
            expected = plain_scores(*texts, year)
        except RefusedError:
            with pytest.raises(DataError) as refusal:
                score_files(*paths, find_edition(year))
            assert "\n" not in str(refusal.value)
            continue
        scored = score_files(*paths, find_edition(year))
        assert (scored.primary, scored.secondary) == pytest.approx(expected, abs=1e-12)
        # The list of faults is empty exactly if the file can be scored.
        if year == 2026:
            assert (not scored.form_faults) == plain_form(*texts)
        else:
            assert find_faults(texts[0].encode(), list(plain_truth(texts[1], year)), find_edition(year), "s") == []


@settings(max_examples=200, deadline=None, derandomize=True)
@given(submission=files())
def test_there_are_no_faults_exactly_if_the_plain_rule_accepts(submission: str) -> None:
    for year in (2024, 2026):
        try:
            plain_submission(submission, plain_truth(TRUTH, year), year)
            accepted = year == 2024 or plain_form(submission, TRUTH, TRUTH)
        except RefusedError:
            accepted = False
        ids = listed_ids({Path("truth.csv"): TRUTH.encode()}, find_edition(2026))
        faults = find_faults(submission.encode(), ids, find_edition(year), "s")
        assert accepted == (not faults)


def test_the_plain_rule_gives_the_official_scores() -> None:
    """These scores come from the organisers' own code, so that the two are not wrong together."""
    truth = "ID,CUIs\na1,C0040405;C1\na2,C1306645\n"
    scores = {
        "a1,C0040405;C1;\na2,C1306645\n": (0.9, 1.0),
        "a1\na2,C1306645\n": (0.5, 0.5),
        "a1,C1\na2,C9\n": (1 / 3, 0),
    }
    for text, expected in scores.items():
        assert plain_scores(text, truth, truth, 2025) == pytest.approx(expected, abs=1e-12)


def test_a_concept_in_another_case_in_the_truth_is_the_same_concept(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a1,c1;C2\n")
    (tmp_path / "s.csv").write_text("a1,C1;c2\n")
    assert score_files(tmp_path / "s.csv", tmp_path / "t.csv", None, find_edition(2025)).primary == 1.0
