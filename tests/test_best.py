"""The search for the best run: folds decide, a budget limits, and an interrupted search goes on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PROVENANCE, make_store, reported

from cache.join import join_stores
from cache.support.errors import UserError
from eval.f1 import mean_f1
from heads.__main__ import main
from heads.runs.folder import read_metrics, read_request
from heads.selection import best, budget, choice, trials
from heads.selection.best import Search, find_best, list_survivors
from heads.selection.budget import Budget, Pace
from heads.selection.choice import Candidate, Choice, Trial, choose, mean_scores

GROUP = 2
"""Images per group."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Concepts that can be read off two stores together, but for some noise; the stores are joined."""
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    one: dict[str, dict[str, np.ndarray]] = {}
    two: dict[str, dict[str, np.ndarray]] = {}
    for split, n_images in (("train", 120), ("valid", 60)):
        X = random.normal(size=(n_images, 8))
        positive = X[:, :4] + X[:, 4:] + 0.5 * random.normal(size=(n_images, 4)) > 0.5
        ids = [f"{split}_{number:03d}" for number in range(n_images)]
        one[split] = {id: row[:4] for id, row in zip(ids, X, strict=True)}
        two[split] = {id: row[4:] for id, row in zip(ids, X, strict=True)}
        cells = [";".join(f"C{n}" for n in np.flatnonzero(row)) or "C9" for row in positive]
        text = "".join(f"{id},{cell}\n" for id, cell in zip(ids, cells, strict=True))
        (tmp_path / "data" / f"{split}_concepts.csv").write_text("ID,CUIs\n" + text)
    groups = "".join(f"{id},g{number // GROUP}\n" for number, id in enumerate(one["train"]))
    (tmp_path / "data" / "groups.csv").write_text("ID,group\n" + groups)
    make_store(tmp_path / "s.one.h5", one)
    make_store(tmp_path / "s.two.h5", two, provenance=PROVENANCE)
    with reported():
        join_stores([tmp_path / "s.one.h5", tmp_path / "s.two.h5"], tmp_path / "s.h5")
    settings: dict[str, list[dict[str, Any]]] = {"ridge": [{}], "kernel": [{}, {"gamma": 1.0}]}
    monkeypatch.setattr(trials, "SETTINGS", settings)
    monkeypatch.setattr(choice, "DECODERS", ("platt+expected-f1", "platt+global"))
    monkeypatch.setattr(trials, "MIN_IMAGES", 50)
    return tmp_path


def search(place: Path, name: str = "best", budget: str = "10m") -> tuple[dict[str, Any], list[str]]:
    with reported() as lines:
        found = find_best(place / "s.h5", place / "data", place / "runs" / name, budget=budget)
    return found, lines


def test_the_winner_is_an_ordinary_run_with_what_was_tried(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, lines = search(place)
    scores = [row["f1"] for row in found["trials"]]
    assert scores == sorted(scores, reverse=True)
    assert read_metrics(place / "runs" / "best") == found["metrics"]
    # Both stores are needed for a good score.
    assert found["folds"]["primary"] > 0.6
    assert " on " not in found["chosen"]
    assert any(
        line.startswith(f"chosen: {found['chosen']}, F1 {found['folds']['primary']:.4f} by folds;") for line in lines
    )
    assert any(line.startswith("the same selection, made without each fold in turn, has F1 ") for line in lines)
    assert not list((place / "runs" / "best.search").glob("*.npy"))


def test_rounds_keep_groups_together_and_the_last_has_all_images(place: Path) -> None:
    rounds = Search(place / "s.h5", place / "data", place / "run", "train", Budget(60)).trials.rounds
    assert [len(rows) for rows in rounds] == [60, 120]
    for rows in rounds:
        assert set(np.unique(rows // GROUP, return_counts=True)[1]) == {GROUP}


def test_a_part_that_is_left_out_is_named_instead_of_all_others(place: Path) -> None:
    with reported():
        (place / "s.h5").unlink()
        sizes = {"train": 120, "valid": 60}
        make_store(place / "s.three.h5", {
            split: {f"{split}_{n:03d}": np.full(3, n) for n in range(size)} for split, size in sizes.items()
        })  # fmt: skip
        join_stores([*(place / f"s.{name}.h5" for name in ("one", "two", "three"))], place / "s.h5")
    found = Search(place / "s.h5", place / "data", place / "run", "train", Budget(60)).trials.list_candidates()
    names = {str(each): (each.parts, each.n_parts, each.n_features) for each in found}
    assert names["ridge on all but two"] == ("one,three", 2, 7)
    assert names["ridge on three"] == ("three", 1, 3)
    assert names["kernel gamma=1"] == ("", 3, 11)
    assert "kernel on all but two" not in names


def test_valid_decides_nothing(place: Path) -> None:
    before, _ = search(place)
    path = place / "data" / "valid_concepts.csv"
    path.write_text("\n".join(f"{row.split(',')[0]},C9" for row in path.read_text().split()))
    after, _ = search(place, "other")
    assert [(row["trial"], row["f1"]) for row in before["trials"]] == [
        (row["trial"], row["f1"]) for row in after["trials"]
    ]
    assert before["chosen"] == after["chosen"]
    assert before["metrics"]["valid"]["primary"] != after["metrics"]["valid"]["primary"]


def test_an_interrupted_search_goes_on_from_what_is_finished(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []
    real = trials.score_out_of_fold

    def count(head: Any, X: Any, *rest: Any) -> Any:
        if len(fitted) == 4:
            raise KeyboardInterrupt
        fitted.append(len(X))
        return real(head, X, *rest)

    monkeypatch.setattr(trials, "score_out_of_fold", count)
    with pytest.raises(KeyboardInterrupt):
        search(place)
    monkeypatch.setattr(
        trials, "score_out_of_fold", lambda head, X, *rest: fitted.append(len(X)) or real(head, X, *rest)
    )
    resumed, _ = search(place)
    n_fitted = len(fitted)
    undisturbed, _ = search(place, "other")
    assert n_fitted == len(fitted) - n_fitted
    assert resumed["chosen"] == undisturbed["chosen"]
    assert [row["f1"] for row in resumed["trials"]] == [row["f1"] for row in undisturbed["trials"]]


def test_when_the_time_is_over_no_trial_is_begun(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**6, 20))
    for module in (trials, budget):
        monkeypatch.setattr(module, "read_clock", lambda: next(clock))
    found, lines = search(place, budget="15m")
    assert any(line.startswith("  no time for ") for line in lines)
    assert found["trials"]
    assert found["metrics"]["valid"]["primary"] > 0.4


def test_a_budget_too_short_for_one_trial_is_refused_with_one_that_would_do(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10**6, 20))
    for module in (trials, budget):
        monkeypatch.setattr(module, "read_clock", lambda: next(clock))
    with pytest.raises(UserError, match=r"budget of 1:00, too short for one trial .*; expected at least 2:13"):
        search(place, budget="1m")
    assert not (place / "runs" / "best").exists()


@pytest.mark.parametrize("text", ["", "soon", "10 years", "-5m", "0m", "5mm"])
def test_a_budget_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="expected a time such as 90s, 30m or 2h"):
        Budget.parse(text)


def make_trial(name: str, scores: np.ndarray, Y: Any, n_parts: int = 1) -> Trial:
    return Trial(Candidate(name, {}, "", n_parts, 9), np.zeros(len(scores)), 1.0, scores.astype(np.float32))


def make_scores(Y: np.ndarray, seed: int, noise: float) -> np.ndarray:
    logits = 2 * Y - 1 + noise * np.random.default_rng(seed).normal(size=Y.shape)
    return 1 / (1 + np.exp(-logits))


def test_the_mean_of_runs_with_errors_of_their_own_is_better_than_each() -> None:
    Y = np.random.default_rng(0).integers(0, 2, (400, 4))
    trials = [make_trial(name, make_scores(Y, seed, 1.0), Y) for seed, name in enumerate(("a", "b", "c"))]
    choice = choose(trials, np.arange(400), csr(Y), None)
    assert len(choice.members) == 3
    assert str(choice).startswith("mean of 3 runs: ")
    assert "more than its standard error" in choice.reason


def test_the_simplest_of_equals_is_chosen() -> None:
    Y = np.random.default_rng(0).integers(0, 2, (400, 4))
    scores = make_scores(Y, 1, 1.0)
    scores_of_more = scores.copy()
    scores_of_more[:1] = make_scores(Y, 2, 0.1)[:1]  # one image alone is no more than its standard error
    trials = [make_trial("large", scores_of_more, Y, n_parts=4), make_trial("small", scores, Y)]
    choice = choose(trials, np.arange(400), csr(Y), None)
    assert [each.candidate.head for each in choice.members] == ["small"]
    assert choice.reason == "the simplest within one standard error of the best"


def test_the_estimate_sees_nothing_of_the_fold_that_it_is_scored_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    real = best.choose

    def witness(trials: Any, rows: np.ndarray, Y: Any, groups: Any) -> Choice:
        seen.append(rows)
        return real(trials, rows, Y, groups)

    monkeypatch.setattr(best, "choose", witness)
    search(place)
    whole, *parts = seen
    assert len(whole) == 120
    assert len(parts) == 5
    left_out = [np.setdiff1d(whole, rows) for rows in parts]
    assert sorted(np.concatenate(left_out).tolist()) == list(range(120))
    for rows in left_out:
        assert set(np.unique(rows // GROUP, return_counts=True)[1]) == {GROUP}


def test_the_best_trial_on_each_part_alone_goes_on_however_many_are_better() -> None:
    def make(f1: float, parts: str) -> Trial:
        return Trial(Candidate("ridge", {}, parts, len(parts.split(",")), 4), np.full(2, f1), 1.0, np.zeros((2, 1)))

    alone = [make(0.4, "b"), make(0.3, "a"), make(0.2, "b")]
    trials = [*(make(0.9 - number / 100, "a,b") for number in range(14)), *alone]
    survivors = list_survivors(trials)
    assert survivors == [each.candidate for each in [*trials[:6], alone[0], alone[1], *trials[6:8]]]


def test_members_of_an_ensemble_are_runs_beside_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [Candidate("ridge", {}, "one", 1, 4), Candidate("kernel", {}, "", 2, 8)]
    real = best.choose

    def force(trials: Any, rows: np.ndarray, Y: Any, groups: Any) -> Choice:
        choice = real(trials, rows, Y, groups)
        members = [Trial(each, choice.members[0].f1, 0.0, choice.members[0].scores) for each in both]
        return Choice(members, choice.decoder, choice.f1, "forced")

    monkeypatch.setattr(best, "choose", force)
    found, _ = search(place)
    assert found["metrics"]["head"] == "ensemble by mean"
    request = read_request(place / "runs" / "best.1-ridge")
    assert request is not None
    assert request["pooling"] == "one"
    assert (place / "runs" / "best.2-kernel" / "digests.json").exists()


def test_the_command_prints_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["best", "--store", place / "s.h5", "--data", place / "data", "--out", place / "run", "--budget", "5m"]
    assert main([*map(str, words), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chosen"]


def csr(Y: np.ndarray) -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix(Y)


def test_the_time_of_a_trial_is_expected_from_those_on_fewer_features() -> None:
    def trial(n_features: int, seconds: float) -> Trial:
        return Trial(Candidate("ridge", {}, "", 1, n_features), np.zeros(1), seconds, np.zeros((1, 1)))

    pace, wide = Pace(), Candidate("ridge", {}, "", 1, 4000)
    assert pace.expect(wide, 100) == 0
    pace.add(trial(1000, 2.0), 100)
    assert pace.expect(wide, 100) == pytest.approx(8.0)
    pace.add(trial(2000, 16.0), 100)  # the cube of the features
    assert pace.expect(wide, 200) == pytest.approx(2 * 16 * 8)


def test_a_mean_is_in_float32() -> None:
    Y = np.ones((3, 2), int)
    trials = [make_trial("a", np.zeros((3, 2)), Y), make_trial("b", np.ones((3, 2)), Y)]
    mean = mean_scores(trials, np.array([0, 2]))
    assert (mean.dtype, mean.tolist()) == (np.float32, [[0.5, 0.5], [0.5, 0.5]])
    assert mean_f1(np.array([0.5])) == 0.5
