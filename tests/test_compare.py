"""``python -m eval``: comparing runs, warnings, and reading any bytes."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.support.errors import ParameterError
from eval.__main__ import main
from eval.comparison import compare_files
from eval.scored_file import score_files

IDS = [f"x{number}" for number in range(60)]


def write(path: Path, wrong: int = 0) -> Path:
    """Write a submission that is correct except for its first images."""
    path.parent.mkdir(exist_ok=True)
    rows = [f"{id},{'C0817096' if row < wrong else 'C0040405;C1'}\n" for row, id in enumerate(IDS)]
    path.write_text("ID,CUIs\n" + "".join(rows))
    return path


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write(tmp_path / "truth.csv")


def test_two_runs_that_differ_have_a_verdict_in_words(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "run" / "valid.csv", wrong=30)
    other = write(tmp_path / "s.csv", wrong=5)
    options = ("--truth", truth, "--manual", truth)
    status, out, err = call(capsys, "compare", tmp_path / "run", other, *options)
    assert (status, err) == (0, "")
    assert out.count(f"they differ, {other} is better than {tmp_path / 'run'}") == 2
    assert f"  {tmp_path / 'run'!s:{len(str(other))}}  0.5000  [0." in out
    assert "-0.4167  [-0." in out
    status, out, _ = call(capsys, "compare", tmp_path / "run", other, *options, "--json")
    result = json.loads(out)
    assert result["primary"]["scores"] == pytest.approx([30 / 60, 55 / 60])
    assert result["primary"]["difference"] == pytest.approx(-25 / 60)
    low, high = result["primary"]["interval"]
    assert low < -25 / 60 < high < 0
    assert result["primary"]["p_value"] < 0.01
    assert result["primary"]["differ"]
    assert result["secondary"]["differ"]


def test_two_runs_that_hardly_differ_have_no_significant_difference(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = write(tmp_path / "a.csv", wrong=5), write(tmp_path / "b.csv", wrong=6)
    _, out, _ = call(capsys, "compare", one, other, "--truth", truth)
    assert f"primary F1: no significant difference between {one} and {other}; it may be chance" in out
    assert "secondary" not in out
    _, out, _ = call(capsys, "compare", one, one, "--truth", truth)
    assert "no difference, every image scores the same" in out


def test_only_files_scored_on_the_same_truth_are_compared(tmp_path: Path, truth: Path) -> None:
    other = write(tmp_path / "other.csv", wrong=1)
    scored = score_files(truth, truth)
    for second in (score_files(truth, other), score_files(truth, truth, edition=2025)):
        with pytest.raises(ParameterError, match=r"60 images, rules of 202\d\): expected .* the same truth"):
            compare_files(scored, second)


def test_a_run_is_scored_as_its_submission_is(tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "run" / "valid.csv", wrong=30)
    scores = [call(capsys, "score", each, "--truth", truth, "--json") for each in (path, path.parent)]
    assert scores[0] == scores[1]
    assert json.loads(scores[0][1])["primary"] == 0.5
    assert score_files(str(path.parent), truth).primary == 0.5


def test_a_folder_without_a_submission_is_an_error(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capsys, "compare", tmp_path, truth, "--truth", truth)
    assert (status, out) == (1, "")
    assert err == (
        f"eval: error: {tmp_path}: no valid.csv in it; give a finished run (`make head RUN={tmp_path}`) or a submission\n"
    )


def test_traps_are_printed_to_standard_error_and_listed_for_programs(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submission = write(tmp_path / "s.csv")
    submission.write_text(submission.read_text().replace("C1\n", "C1;\n"))
    score = ("score", submission, "--truth", truth, "--edition", 2025, "--breakdown", tmp_path / "b.csv")
    status, out, err = call(capsys, *score)
    assert status == 0
    assert "primary F1    0.8000" in out
    assert err.startswith(f"eval: warning: {submission}: 60 rows of the submission with an extra ';'")
    assert (tmp_path / "b.csv").read_text().startswith("level,name,group,n_true,n_predicted,n_hits,precision,recall,f1")
    _, out, _ = call(capsys, *score, "--json")
    assert len(json.loads(out)["warnings"]) == 1
    _, out, err = call(capsys, "compare", truth, submission, "--truth", truth, "--json", "--edition", 2026)
    assert [line.partition(": ")[0] for line in json.loads(out)["warnings"]] == [str(submission)] * 2
    assert f"{submission}: the form check of 2026 would refuse it: line 2: " in err


def test_every_fault_is_printed_however_many(tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.csv").write_text("ID,CUIs\n" + "".join(f"{id},nodule\n" for id in IDS))
    status, out, err = call(capsys, "check", tmp_path / "s.csv", "--ids", truth)
    assert status == 1
    assert [line.split(": ")[1] for line in out.splitlines()] == [f"line {number}" for number in range(2, 62)]
    assert err.startswith(
        f"eval: error: {tmp_path / 's.csv'}: would be refused in 2026: 60 faults, the first: line 2: "
    )
    assert err.count("\n") == 1
    status, out, same = call(capsys, "check", tmp_path / "s.csv", "--ids", truth, "--json")
    assert (status, same) == (1, err)
    assert [fault["line"] for fault in json.loads(out)["faults"]] == [*range(2, 62)]


def test_a_check_that_finds_faults_fails_even_if_its_reader_goes_away(tmp_path: Path, truth: Path) -> None:
    (tmp_path / "s.csv").write_text("ID,CUIs\n" + "x0,nodule\n" * 5000)
    words = [sys.executable, "-m", "eval", "check", tmp_path / "s.csv", "--ids", truth]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert b"line 2: " in process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert re.fullmatch(rb"eval: error: .* would be refused in 2026: [^\n]+\n", process.stderr.read())
    assert process.returncode == 1


def test_a_check_warns_about_ids_that_the_evaluator_skips(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth.write_text("ID,CUIs\nVALID_1,C1\na2,C1\n")
    status, out, err = call(capsys, "check", truth, "--ids", truth)
    assert (status, out.count("passes the check")) == (0, 1)
    assert err.startswith(f"eval: warning: {truth}: 1 id with the letters ID, such as 'VALID_1': the evaluator takes")


def test_a_check_says_how_to_hand_in_a_file_that_passes(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = call(capsys, "check", truth, "--ids", truth)
    assert status == 0
    assert out.endswith("60 images, passes the check of 2026; hand it in as a zip with the one file submission.csv\n")
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.write(truth, "submission.csv")
    assert call(capsys, "check", tmp_path / "s.zip", "--ids", truth)[1].endswith("passes the check of 2026\n")
    status, out, _ = call(capsys, "check", tmp_path / "s.zip", "--ids", truth, "--edition", 2024)
    assert (status, out) == (1, f"{tmp_path / 's.zip'}: a zip, but 2024 expects the file in it; hand in that file\n")


def test_a_name_of_two_lines_is_printed_on_one(tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capsys, "score", tmp_path / "two\nlines.csv", "--truth", truth)
    assert (status, err) == (1, f"eval: error: {tmp_path}/two\\nlines.csv: no such file\n")


def test_a_truth_that_only_the_form_check_cannot_read_is_an_error(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "odd.csv"
    # The evaluator reads each line end within quotes as one character, the check as two: too many for a cell.
    odd.write_bytes(truth.read_bytes().rpartition(b"x59")[0] + b'x59,"C1' + b"\r\n" * 70_000 + b'"\n')
    status, out, err = call(capsys, "score", truth, "--truth", odd)
    assert (status, out) == (1, "")
    assert err.startswith(f"eval: error: {odd}: line 61: field larger than field limit (131072); expected CSV")


def test_a_folder_in_the_place_of_the_breakdown_is_an_error(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path, "."):
        status, _, err = call(capsys, "score", truth, "--truth", truth, "--breakdown", folder)
        assert (status, err) == (
            1,
            f"eval: error: {folder}: is a folder, expected a file to write; give another path\n",
        )


@pytest.mark.parametrize("number", ["0", "-1", "x", "1e3", "1000001"])
def test_a_number_of_resamples_out_of_its_range_is_wrong_usage(
    truth: Path, capsys: pytest.CaptureFixture[str], number: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["score", str(truth), "--truth", str(truth), f"--resamples={number}"])
    assert end.value.code == 2
    assert f"'{number}', expected a number from 1 to 1,000,000" in capsys.readouterr().err


PIECES = st.sampled_from(
    [b"ID,CUIs\n", b"x0,", b"x1|", b"C1", b";", b",", b"\n", b"\r", b'"', b"\xff", b"\x00", b"\xef\xbb\xbf", b"\x1b[2J",
     b"PK\x03\x04", b"PK\x05\x06", "\u2028".encode(), b"\t", b" ", b"=1+1", b"x" * 140_000, b";C1" * 101]
)  # fmt: skip
JUNK = st.binary(max_size=60) | st.lists(PIECES, max_size=12).map(b"".join)


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=JUNK, year=st.sampled_from([2022, 2023, 2024, 2025, 2026]))
def test_any_bytes_give_a_result_or_a_clear_error(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str], junk: bytes, year: int
) -> None:
    path = tmp_path / "junk.csv"
    path.write_bytes(junk)
    for words in (
        ("score", path, "--truth", truth),
        ("score", truth, "--truth", path, "--manual", path),
        ("score", path, "--truth", path, "--resamples", 10),
        ("score", truth, "--truth", truth, "--train", path, "--resamples", 10),
        ("check", path, "--ids", truth),
        ("check", truth, "--ids", path),
        ("compare", path, path, "--truth", path, "--resamples", 10),
    ):
        status, out, err = call(capsys, *words, "--edition", year)
        assert status in (0, 1)
        assert err.count("eval: error: ") == status
        # The faults are the result of a check.
        assert bool(out) == (status == 0 or "would be refused" in err)
        for line in err.splitlines():
            assert line.startswith(("eval: error: ", "eval: warning: "))
            assert line.isprintable()
