"""The table per concept of a run, and the table of all runs."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_store, reported

from cache.support.errors import UserError
from cache.support.reporting import DataWarning
from heads.__main__ import main
from heads.ensembles.builder import make_ensemble
from heads.runs import builder
from heads.runs.builder import fit_run
from heads.runs.concept_table import ConceptTable
from heads.selection.run_table import report_runs


def make_data(folder: Path, splits: tuple[str, ...] = ("train", "valid")) -> Path:
    """A data folder with noisy concepts and the names of some, and its store."""
    random = np.random.default_rng(1)
    (folder / "data").mkdir(parents=True)
    rows = {}
    for split in splits:
        X = random.normal(size=(40, 5))
        positive = X[:, :3] + random.normal(size=(40, 3)) > 0
        rows[split] = {f"{split}_{number:02d}": row for number, row in enumerate(X)}
        cells = [";".join(f"C{n}" for n in np.flatnonzero(row)) for row in positive]
        text = "".join(f"{id},{cell}\n" for id, cell in zip(rows[split], cells, strict=True))
        (folder / "data" / f"{split}_concepts.csv").write_text("ID,CUIs\n" + text)
    (folder / "data" / "cui_mapping.csv").write_text('CUI,Canonical name\nC0,Chest\nC1,"Effusion, pleural"\n')
    make_store(folder / "s.h5", rows)
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make_data(tmp_path)


def fit(place: Path, name: str = "ridge", head: str = "ridge", decoder: str = "global") -> list[str]:
    with reported() as lines:
        fit_run(head, place / "s.h5", place / "data", place / "runs" / name, decoder=decoder)
    return lines


def read(path: Path) -> dict[str, dict[str, str]]:
    with open(path, newline="") as file:
        return {row["concept"]: row for row in csv.DictReader(file)}


def sets(path: Path) -> dict[str, set[str]]:
    with open(path, newline="") as file:
        rows = [row for row in csv.reader(file) if row[0].startswith(("train", "valid"))]
    return {id: set(cell.split(";")) - {""} for id, cell in rows}


def test_a_run_counts_the_hits_of_each_concept_on_valid(place: Path) -> None:
    lines = fit(place)
    table = read(place / "runs" / "ridge" / "concepts.csv")
    truth, predicted = sets(place / "data" / "valid_concepts.csv"), sets(place / "runs" / "ridge" / "valid.csv")
    train = sets(place / "data" / "train_concepts.csv")
    assert set(table) == {"C0", "C1", "C2"}
    for concept, row in table.items():
        true, found = ({id for id, each in rows.items() if concept in each} for rows in (truth, predicted))
        assert int(row["n_train"]) == sum(concept in each for each in train.values())
        assert (int(row["n_true"]), int(row["n_predicted"])) == (len(true), len(found))
        assert int(row["n_hits"]) == len(true & found)
        assert float(row["f1"]) == pytest.approx(2 * len(true & found) / (len(true) + len(found)), abs=1e-4)
    assert [table[concept]["name"] for concept in ("C0", "C1", "C2")] == ["Chest", "Effusion, pleural", ""]
    assert any(line.startswith("  Effusion, pleural (C1) ") for line in lines)
    assert any(line.startswith("  C2 ") for line in lines)
    assert lines[-1].startswith(f"{place}/runs/ridge: ")


def test_without_valid_folds_of_train_are_scored(tmp_path: Path) -> None:
    place = make_data(tmp_path, ("train",))
    lines = fit(place)
    metrics = json.loads((place / "runs" / "ridge" / "metrics.json").read_text())
    assert metrics["valid"] is None
    low, high = metrics["folds"]["primary_interval"]
    score = f"{metrics['folds']['primary']:.4f} [{low:.4f}, {high:.4f}]"
    assert f"no image of valid to score on, primary F1 {score} by folds of train" in lines[-1]
    assert "3 concepts of folds of train" in lines[-2]
    table = read(place / "runs" / "ridge" / "concepts.csv")
    assert sum(int(row["n_true"]) for row in table.values()) == sum(int(row["n_train"]) for row in table.values())


def test_of_many_images_some_decide_f1_by_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "FOLDS_IMAGES", 30)
    place = make_data(tmp_path, ("train",))
    fit(place)
    metrics = json.loads((place / "runs" / "ridge" / "metrics.json").read_text())
    assert metrics["folds"]["n_images"] == 30
    table = read(place / "runs" / "ridge" / "concepts.csv")
    assert 0 < int(table["C0"]["n_true"]) < int(table["C0"]["n_train"])


def test_without_anything_to_score_there_is_an_empty_table(tmp_path: Path) -> None:
    place = make_data(tmp_path, ("train",))
    lines = fit(place, decoder="fixed:0.5")
    assert read(place / "runs" / "ridge" / "concepts.csv") == {}
    assert lines[-1].startswith(f"{place}/runs/ridge: 3 concepts")


def test_concepts_that_are_never_found_are_counted() -> None:
    truth = [("C1", "C2"), ("C1",), ("C3",)]
    table = ConceptTable.from_predictions(truth, [("C1",), ("C2",), ("C9",)], {}, {"C1": 7}, "valid")
    lines = table.describe(Path("concepts.csv"))
    assert lines[-1] == "  3 concepts of valid, 2 of them never found (concepts.csv)"
    assert lines[1].split() == ["C1", "7", "2", "1", "1.000", "0.500", "0.667"]
    assert lines[-3].split() == ["C9", "0", "0", "1", "0.000", "-", "0.000"]


def test_frequent_and_rare_concepts_are_counted_apart() -> None:
    n_train = {"C1": 101, "C2": 100, "C3": 20, "C4": 19}
    truth = [("C1", "C2"), ("C1", "C3"), ("C4",)]
    table = ConceptTable.from_predictions(truth, [("C1", "C2"), ("C1",), ("C9",)], {}, n_train, "valid")
    bands = {each["name"]: each for each in table.count_bands()}
    assert list(bands) == ["frequent", "medium", "rare"]
    assert [bands[name]["n_concepts"] for name in bands] == [1, 2, 2]  # C9 is never in train
    assert [bands[name]["f1"] for name in bands] == pytest.approx([1, 2 / 3, 0])
    assert (bands["medium"]["precision"], bands["medium"]["recall"]) == (1, 0.5)
    line = table.describe(Path("concepts.csv"))[-2]
    assert line == "  F1 by how frequent concepts are in train: 1 frequent 1.000, 2 medium 0.667, 2 rare 0.000"


def test_runs_are_listed_the_best_first_those_of_the_same_data_together(place: Path) -> None:
    fit(place), fit(place, "prior", "prior"), fit(place, "fixed", decoder="fixed:0.5")
    other = make_data(place / "other")
    fit(other)
    with reported():
        make_ensemble([place / "runs" / "ridge", place / "runs" / "prior"], place / "runs" / "deep" / "both")
    with reported() as lines:
        table = report_runs([place / "runs", other / "runs", place / "runs" / "ridge"])
    assert [row["data"] for row in table] == [str(place / "data")] * 4 + [str(other / "data")]
    valid = [row["valid"]["primary"] for row in table[:4]]
    assert valid == sorted(valid, reverse=True)
    assert {row["head"] for row in table} == {"ridge", "prior", "ensemble by mean"}
    assert all(row["folds"] for row in table if row["decoder"] != "fixed:0.5")
    assert len(lines) == 1 + len(table) + 2
    ridge = next(row for row in table if row["run"] == str(place / "runs" / "ridge"))
    assert ridge["bytes"] == sum(path.stat().st_size for path in (place / "runs" / "ridge").iterdir())
    assert all(line.endswith(" MB") for line in lines if "/runs/" in line)


def test_a_score_on_the_images_that_tuned_it_is_marked(place: Path) -> None:
    with reported():
        fit_run("ridge", place / "s.h5", place / "data", place / "runs" / "a", decoder="global", tune="valid")
    with reported() as lines:
        table = report_runs([place / "runs"])
    assert table[0]["optimistic"]
    assert "]*" in lines[-2]
    assert lines[-1].startswith("* tuned on valid")


def test_a_run_that_cannot_be_read_is_a_warning(place: Path) -> None:
    fit(place), fit(place, "broken", "prior")
    (place / "runs" / "broken" / "metrics.json").write_text("{}")
    with pytest.warns(DataWarning, match="^left out: .*/runs/broken: a damaged run"):
        table = report_runs([place / "runs"])
    assert len(table) == 1


def test_where_there_is_no_run_the_command_that_makes_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run; make one with `make head`"):
        report_runs([tmp_path])


def test_the_command_prints_the_table_or_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(place)
    assert main(["runs", str(place)]) == 0
    assert "ridge" in capsys.readouterr().out
    assert main(["runs", str(place), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["run"] == str(place / "runs" / "ridge")
