"""Unexpected rules of the official score: reported with what they cost."""

import json
from pathlib import Path

import pytest
from conftest import warned

from cache.support.errors import DataError
from eval.editions import find_edition
from eval.scored_file import score_files
from eval.traps import find_traps, find_vocabulary

TRUTH = "ID,CUIs\na1,C1;C2\na2,C3\na3,\n"


def traps(
    tmp_path: Path, submission: str, truth: str = TRUTH, vocabulary: set[str] | None = None
) -> tuple[float, list[str]]:
    (tmp_path / "s.csv").write_text(submission)
    (tmp_path / "t.csv").write_text(truth)
    scored = score_files(tmp_path / "s.csv", tmp_path / "t.csv", None, find_edition(2025))
    return scored.primary, find_traps(scored, vocabulary)


def test_a_submission_without_a_trap_has_no_warning(tmp_path: Path) -> None:
    assert traps(tmp_path, TRUTH, vocabulary={"C1", "C2", "C3"}) == (1.0, [])


def test_skipped_images_are_reported_with_their_cost(tmp_path: Path) -> None:
    truth = "ID,CUIs\nMID1,C1\nMID2,C2\na1,C1\na2,C2\n"
    primary, lines = traps(tmp_path, "ID,CUIs\nMID1,C1\na1,C1\na2,C9\nXID,C1\n", truth)
    assert primary == 0.5
    assert lines == [
        "2 images with the letters ID in the id, such as 'MID1': the evaluator takes them for headers and skips "
        "them; it cost 0.0000 of primary F1 (0.5000 if they counted)",
        "1 row of the submission with the letters ID in the first cell, such as 'XID', which the truth does not have: "
        "the evaluator ignores them",
    ]


def test_an_extra_separator_is_reported_with_its_cost(tmp_path: Path) -> None:
    primary, lines = traps(tmp_path, "a1,C1;C2;\na2,C3\na3,\n")
    assert primary == pytest.approx((0.8 + 2) / 3)
    assert lines == [
        "1 row of the submission with an extra ';', such as that of 'a1': it makes an empty concept, which counts "
        "like any other; it cost 0.0667 of primary F1 (1.0000 without it)"
    ]
    primary, lines = traps(tmp_path, "a1,C1;C2;\na2,C3\na3,\n", TRUTH.replace("C1;C2", "C1;C2;"))
    assert primary == 1.0
    assert "of the submission" in lines[0]
    assert "it added 0.0667 of primary F1 (0.9333 without it)" in lines[0]
    assert "of the truth" in lines[1]


def test_an_id_alone_for_an_image_without_concepts_is_reported_with_its_cost(tmp_path: Path) -> None:
    primary, lines = traps(tmp_path, "a1,C1;C2\na2,C3\na3\n")
    assert primary == pytest.approx(2 / 3)
    assert len(lines) == 1
    assert "it cost 0.3333 of primary F1 (1.0000 with it)" in lines[0]


def test_true_concepts_outside_the_vocabulary_are_reported_with_their_cost(tmp_path: Path) -> None:
    primary, lines = traps(tmp_path, "a1,C1\na2,C1\na3,\n", vocabulary={"C1"})
    assert primary == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert lines == [
        "2 true concepts of 2 images outside the vocabulary, such as 'C2': they count as missed; it cost 0.1111 of "
        "primary F1 (0.6667 without them), and no prediction from this vocabulary can exceed 0.5556"
    ]


def test_the_vocabulary_is_that_of_the_training_labels_or_of_the_run(tmp_path: Path) -> None:
    submission = tmp_path / "valid.csv"
    assert find_vocabulary(submission, None) is None
    (tmp_path / "vocabulary.json").write_text(json.dumps({"vocabulary": ["C1", "C2"]}))
    assert find_vocabulary(submission, None) == {"C1", "C2"}
    (tmp_path / "train.csv").write_text("ID,CUIs\na,C7\n")
    assert find_vocabulary(submission, tmp_path / "train.csv") == {"C7"}
    with pytest.raises(DataError, match="no such file"):
        find_vocabulary(submission, tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"vocabulary": 3}', '{"vocabulary": "C1"}', '{"vocabulary": [1]}', "[" * 100_000, "\ufffd"],
)
def test_a_damaged_vocabulary_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "vocabulary.json").write_text(content)
    assert find_vocabulary(tmp_path / "valid.csv", None) is None


LISTS = {
    "['C1', 'C2']": "a list in brackets",
    '["C1","C2"]': "a list in brackets",
    "{'C1'}": "a list in brackets",
    "['C1' 'C2']": "a list in brackets",
    "C0000001 C0000002": "several CUIs",
    "C0000001|C0000002": "several CUIs",
    "C0000001,C0000002": "several CUIs",
    "C0000001/C0000002": "several CUIs",
    "'C1'": "a CUI in quotes",
}


@pytest.mark.parametrize("cell", LISTS)
@pytest.mark.parametrize("file", ["truth", "submission"])
def test_a_list_that_the_evaluator_takes_for_one_concept_is_reported(tmp_path: Path, cell: str, file: str) -> None:
    quoted = cell.replace('"', '""')
    odd = f'ID,CUIs\na1,"{quoted}"\na2,C3\na3,\n'
    texts = {"truth": TRUTH, "submission": TRUTH, file: odd}
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_text(text)
    with warned() as lines:
        scored = score_files(tmp_path / "submission.csv", tmp_path / "truth.csv", None, 2025)
    assert scored.primary == pytest.approx(2 / 3)  # as the evaluator has it
    assert lines == scored.oddities
    [line] = lines
    assert line.startswith(f"{tmp_path / file}.csv: 1 row with {LISTS[cell]}, such as ")
    assert line.endswith(": the evaluator takes it for one concept; expected a list such as C0040405;C0817096")


@pytest.mark.parametrize("header", ["image_id,cui", "file_name,concepts", "id,cuis", "Image,Labels", "id,findings"])
def test_a_header_that_the_evaluator_counts_as_an_image_is_named(tmp_path: Path, header: str) -> None:
    truth = TRUTH.replace("ID,CUIs", header)
    with pytest.raises(DataError, match=rf"the truth's header is '{header.partition(',')[0]}', .*; write ID,CUIs in"):
        traps(tmp_path, TRUTH, truth)
    primary, _ = traps(tmp_path, truth, truth)
    scored = score_files(tmp_path / "s.csv", tmp_path / "t.csv", None, 2025)
    assert primary == 1.0
    assert scored.n_images == 4  # as the evaluator has it
    assert scored.oddities == [
        f"{tmp_path / 't.csv'}: line 1: '{header}' looks like a header, but the evaluator counts it as an image; "
        "write ID,CUIs"
    ]


def test_rows_that_do_not_count_are_reported(tmp_path: Path) -> None:
    truth = "ID,CUIs\na1,C1\na1,C2\na2,C3,C4\na3,,a caption\n"
    primary, _ = traps(tmp_path, "ID,CUIs\na1,C2\na2,C3\na3,\n", truth)
    scored = score_files(tmp_path / "s.csv", tmp_path / "t.csv", None, 2025)
    assert primary == 1.0
    assert scored.oddities == [
        f"{tmp_path / 't.csv'}: 1 row {line}; write all concepts into the second cell of one row"
        for line in (
            "that replaces an earlier one of its image, such as that of 'a1': the evaluator counts the last one",
            "with concepts after the second cell, such as that of 'a2': the evaluator ignores them",
        )
    ]


def test_a_truth_without_any_cui_is_reported(tmp_path: Path) -> None:
    truth = "ID,caption,CUIs\na1,CT of a chest,C1\na2,X-ray,C3\na3,,\n"
    with warned() as lines:
        assert traps(tmp_path, TRUTH, truth)[0] == pytest.approx(1 / 3)
    assert lines == [
        f"{tmp_path / 't.csv'}: no concept is 'C' and digits, such as 'CT OF A CHEST'; expected CUIs in the second cell"
    ]


def test_the_commands_print_what_is_odd_and_put_it_into_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from eval.__main__ import main

    (tmp_path / "s.csv").write_text(TRUTH)
    (tmp_path / "t.csv").write_text("ID,CUIs\na1,\"['C1', 'C2']\"\na2,C3\na2,C4\na3,\n")
    files = [str(tmp_path / "s.csv"), "--truth", str(tmp_path / "t.csv")]
    assert main(["score", *files, "--edition", "2025", "--json"]) == 0
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert [line.removeprefix("eval: warning: ") for line in lines] == json.loads(printed.out)["warnings"]
    assert ["a list in brackets" in lines[0], "replaces an earlier one" in lines[1]] == [True, True]


@pytest.mark.parametrize("spelled", ["a1.jpg", "a1;C1", "a1|C1", "train/a1.png", "a1\u202f", "\ufeffa1"])
def test_an_id_that_the_truth_spells_in_another_way_is_named(tmp_path: Path, spelled: str) -> None:
    truth = f"{spelled},C2\na2,C3\na3,\n"
    with pytest.raises(
        DataError, match=r"line 2: image 'a1' is not in the truth; write ids as in the truth, which has "
    ):
        traps(tmp_path, TRUTH, truth)
