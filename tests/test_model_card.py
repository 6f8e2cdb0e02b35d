"""The model card of a run: right numbers, escaped texts, and commands that repeat it."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import make_store

from heads import fit_run, make_ensemble
from heads.__main__ import main
from heads.runs.files import RunFiles
from heads.runs.folder import CARD, find_whole

pytestmark = pytest.mark.filterwarnings("ignore::cache.support.reporting.DataWarning")  # of what cannot be read

HOSTILE = "<script>alert(1)</script>|*x*"


def write_labels(path: Path, rows: dict[str, list[str]]) -> None:
    path.write_text("ID,CUIs\n" + "".join(f"{id},{';'.join(concepts)}\n" for id, concepts in rows.items()))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A data folder with a rare concept, an unseen one, an image that cannot be read, and its store."""
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    splits = {}
    for split, n_images in (("train", 40), ("valid", 12)):
        ids = [f"{split}_{number:02d}" for number in range(n_images)]
        labels = {id: ["C1", *(["C2"] if number % 2 else [])] for number, id in enumerate(ids)}
        labels[ids[5]].append("C3" if split == "train" else "C4")
        splits[split] = {id: random.normal(size=3) + len(labels[id]) for id in ids}
        write_labels(tmp_path / "data" / f"{split}_concepts.csv", labels)
    make_store(tmp_path / "s.h5", splits, unreadable={"train_01": "damaged"})
    (tmp_path / "data" / "cui_mapping.csv").write_text(f'CUI,Canonical name\nC3,"{HOSTILE}"\nC4,Unseen\n')
    rows = [f"{id},{'CC BY' if id.endswith('1') else 'a|b' if id.endswith('2') else ''}" for id in
            (id for rows in splits.values() for id in rows)]  # fmt: skip
    (tmp_path / "data" / "sources.csv").write_text("ID,licence\n" + "\n".join(rows) + "\n")
    return tmp_path


def fit(place: Path, name: str = "ridge", **options: object) -> str:
    fit_run(name, place / "s.h5", place / "data", place / name, **options)  # type: ignore[arg-type]
    return (place / name / CARD).read_text(encoding="utf-8")


def test_the_card_has_the_scores_of_the_run(place: Path) -> None:
    metrics = fit_run("ridge", place / "s.h5", place / "data", place / "ridge")
    card = (place / "ridge" / CARD).read_text(encoding="utf-8")
    valid, folds = metrics["valid"], metrics["folds"]
    assert valid
    assert folds
    assert f"| primary F1 | valid, 12 images | {valid['primary']:.4f} [" in card
    assert f"| primary F1, by folds | train | {folds['primary']:.4f} [" in card
    assert "It is not a medical device" in card


def test_the_card_counts_images_and_licences(place: Path) -> None:
    card = fit(place)
    assert "| train | 40 | 1 | 1.5 |" in card
    assert "| valid | 12 | 0 | 1.6 |" in card
    assert "- not stated: 41 images" in card
    assert "- CC BY: 6 images" in card
    assert "- a\\|b: 5 images" in card
    (place / "data" / "sources.csv").unlink()
    assert "Not known: no sources.csv with a column `licence`" in fit(place, "knn")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"ID,licence\n\0", b"licence\nx\n", b"ID,licence\ntrain_01\n"])
def test_a_table_of_sources_that_is_at_fault_gives_no_licence(place: Path, content: bytes) -> None:
    from heads.runs.card import find_licences

    (place / "data" / "sources.csv").write_bytes(content)
    assert set(find_licences(place / "data", ["train_01"])) <= {"not stated"}


def test_the_card_names_what_is_rare_and_what_was_never_seen(place: Path) -> None:
    card = fit(place)
    assert "1 of 3 concepts have fewer than 10 training images" in card
    assert "never predicted: 1: Unseen (C4)." in card


def test_texts_of_the_data_are_escaped(place: Path) -> None:
    card = fit(place)
    assert "<script>" not in card
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\|\\*x\\* (C3)" in card


def test_the_commands_of_the_card_repeat_the_run(place: Path) -> None:
    fit(place, "knn", params={"k": 3}, decoder="top-k:2", tune="valid", concepts=["C1", "C2"], nested=True)
    before = {path.name: path.read_bytes() for path in (place / "knn").iterdir()}
    command = re.findall(r"^python -m heads (.*)$", before[CARD].decode(), re.MULTILINE)[0]
    words = shlex.split(command)
    words[words.index("--out") + 1] = str(place / "again")
    assert main(words) == 0
    for name in ("valid.csv", "decoder.json", "vocabulary.json", "head.json"):
        assert (place / "again" / name).read_bytes() == before[name]
    assert main(shlex.split(command)) == 0
    assert {path.name: path.read_bytes() for path in (place / "knn").iterdir()} == before  # it was up to date


@pytest.mark.parametrize(
    "params",
    [{"hidden": [8, 4], "epochs": 1}, {"loss": "focal", "epochs": 1, "hidden": [4]}, {"hidden": [], "epochs": 1}],
)
def test_parameters_of_every_kind_are_read_back(place: Path, params: dict[str, object]) -> None:
    from heads.runs.command_line import repeat_run
    from heads.runs.request import RunRequest
    from heads.settings import parse_settings

    request = RunRequest("dense", "/d", "/s", params, [], "top-k:1", "", "train", "folds", False)
    words = shlex.split(repeat_run(request, Path("/r")))
    assert parse_settings(words[words.index("--set") + 1 :]) == params


def test_an_ensemble_has_a_card(place: Path) -> None:
    fit(place, "ridge"), fit(place, "knn")
    make_ensemble([place / "ridge", place / "knn"], place / "both", "vote")
    card = (place / "both" / CARD).read_text(encoding="utf-8")
    assert "# Model card: ensemble by vote on data" in card
    assert f"python -m heads ensemble {place / 'ridge'} {place / 'knn'} --how vote --out {place / 'both'}" in card


def test_the_card_belongs_to_the_run(place: Path) -> None:
    fit(place)
    assert CARD in RunFiles.open(place / "ridge").digests
    (place / "ridge" / CARD).write_text("better than it is")
    assert find_whole(place / "ridge") is None


def test_a_run_without_any_score_says_so(tmp_path: Path, place: Path) -> None:
    splits = {"train": {f"train_{number:02d}": np.ones(3) * number for number in range(40)}}
    make_store(tmp_path / "lone.h5", splits)
    fit_run("ridge", tmp_path / "lone.h5", place / "data", tmp_path / "run", decoder="top-k:1")
    assert "No score: there is no image of valid" in (tmp_path / "run" / CARD).read_text()
