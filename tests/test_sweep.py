"""A sweep fits every combination once, keeps the best run, and goes on where it was stopped."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_store, reported

from cache.support.errors import UserError
from heads.runs.builder import RunBuilder, fit_run
from heads.selection.sweep import sweep_runs


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A data folder whose concepts can be read off the embeddings but for some noise, and its store."""
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    splits = {}
    for split, n_images in (("train", 90), ("valid", 30)):
        X = random.normal(size=(n_images, 12))
        positive = X[:, :3] + random.normal(size=(n_images, 3)) > 0.3
        ids = [f"{split}_{number:03d}" for number in range(n_images)]
        splits[split] = dict(zip(ids, X, strict=True))
        rows = [
            f"{id},{';'.join(f'C{n}' for n in np.flatnonzero(row)) or 'C9'}\n"
            for id, row in zip(ids, positive, strict=True)
        ]
        (tmp_path / "data" / f"{split}_concepts.csv").write_text("ID,CUIs\n" + "".join(rows))
    make_store(tmp_path / "s.h5", splits)
    return tmp_path


def sweep(place: Path, grid: dict[str, list[Any]], by: str = "valid", **given: Any) -> tuple[list[dict], list[str]]:
    paths = place / "s.h5", place / "data", place / "run"
    with reported() as lines:
        return sweep_runs("logistic", *paths, grid, by=by, **given), lines


GRID: dict[str, list[Any]] = {"C": [1e-5, 0.05, 100.0]}


def test_each_trial_scores_as_a_run_of_its_own(place: Path) -> None:
    table, _ = sweep(place, GRID)
    assert sorted(row["params"]["C"] for row in table) == GRID["C"]
    for row in table:
        paths = place / "s.h5", place / "data", place / f"alone{row['params']['C']}"
        with reported():
            alone = fit_run("logistic", *paths, params=row["params"])
        assert row["valid"] == pytest.approx(alone["valid"]["primary"], abs=1e-9)
    assert [row["valid"] for row in table] == sorted((row["valid"] for row in table), reverse=True)
    assert table[0]["valid"] > table[-1]["valid"]


def test_the_best_run_is_saved_and_followed(place: Path) -> None:
    table, lines = sweep(place, GRID)
    metrics = json.loads((place / "run" / "metrics.json").read_text())
    assert metrics["params"]["C"] == table[0]["params"]["C"]
    assert metrics["valid"]["primary"] == table[0]["valid"]
    assert "chosen on valid, so the best one's score there is optimistic" in lines[-4]
    paths = place / "s.h5", place / "data", place / "run"
    with reported() as again:
        fit_run("logistic", *paths)
    assert "up to date" in again[0]


def test_a_finished_trial_is_not_done_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = sweep(place, {"C": GRID["C"][:2]})
    fitted = []
    build = RunBuilder.build
    monkeypatch.setattr(
        RunBuilder, "build", lambda self, *rest: fitted.append(self.request.params) or build(self, *rest)
    )
    table, lines = sweep(place, GRID)
    assert fitted == [{"C": 100.0}]
    assert "2 of 3 trials are done already" in lines[0]
    assert all(row in table for row in first)


def test_a_killed_sweep_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = sweep(place, GRID)
    keep = (place / "run" / "metrics.json").read_bytes()
    for path in (place / "run").iterdir():
        path.unlink()
    build, calls = RunBuilder.build, []

    def stop(self: RunBuilder, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return build(self, *args)

    monkeypatch.setattr(RunBuilder, "build", stop)
    with pytest.raises(KeyboardInterrupt):
        sweep(place, GRID)
    table, _ = sweep(place, GRID)
    assert len(calls) == 4
    assert [(row["params"], row["valid"]) for row in table] == [(row["params"], row["valid"]) for row in whole]
    assert json.loads(keep)["valid"] == json.loads((place / "run" / "metrics.json").read_text())["valid"]


def test_folds_of_train_may_decide(place: Path) -> None:
    table, lines = sweep(place, GRID, by="folds", decoder="global")
    assert [row["folds"] for row in table] == sorted((row["folds"] for row in table), reverse=True)
    assert json.loads((place / "run" / "metrics.json").read_text())["params"]["C"] == table[0]["params"]["C"]
    assert "chosen on folds of train" in lines[-4]
    assert re.search(r"out-of-fold F1 \d\.\d{4} \[\d\.\d{4}, \d\.\d{4}\], valid primary F1 .*\]", lines[-3])


def test_a_run_that_took_the_best_ones_place_is_replaced(place: Path) -> None:
    table, _ = sweep(place, GRID)
    paths = place / "s.h5", place / "data", place / "run"
    with reported():
        fit_run("logistic", *paths, params={"C": 7.0})
    sweep(place, GRID)
    assert json.loads((place / "run" / "metrics.json").read_text())["params"]["C"] == table[0]["params"]["C"]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"c": [1]}, "head 'logistic': .*'c'"),
        ({"C": [1.0, -1.0]}, "head 'logistic': C is -1.0, expected a number above 0"),
    ],
)
def test_a_bad_grid_is_refused_before_anything_is_fitted(place: Path, grid: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sweep(place, grid)
    assert not (place / "run").exists()


def test_where_the_evaluator_counts_no_image_of_valid_folds_must_decide(place: Path) -> None:
    text = (place / "data" / "valid_concepts.csv").read_text()
    (place / "data" / "valid_concepts.csv").write_text(text.replace("valid", "PID"))
    random = np.random.default_rng(0)
    splits = {"train": ("train", 90), "valid": ("PID", 30)}
    make_store(place / "s.h5", {split: {f"{name}_{n:03d}": random.normal(size=4) for n in range(n_images)}
                                for split, (name, n_images) in splits.items()})  # fmt: skip
    with pytest.raises(UserError, match=r"the official evaluator counts no image of valid.*; choose by folds"):
        sweep(place, GRID)
    assert not (place / "run").exists()
    assert "valid" not in sweep(place, GRID, by="folds")[0][0]


def test_without_valid_folds_must_decide(place: Path) -> None:
    make_store(place / "s.h5", {"train": {f"train_{n:03d}": np.arange(4) + n for n in range(80)}})
    with pytest.raises(UserError, match="no split 'valid' to choose by; choose by folds"):
        sweep(place, GRID)
    assert "valid" not in sweep(place, GRID, by="folds")[0][0]
