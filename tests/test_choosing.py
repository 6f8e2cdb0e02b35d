"""One table of heads and decoders, in which folds of train choose."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import make_store, reported

from cache.support.errors import UserError
from heads.__main__ import main
from heads.runs.builder import fit_run
from heads.selection.leaderboard import choose


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A data folder whose concepts can be read off the embeddings but for some noise, and its store."""
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    splits = {}
    for split, n_images in (("train", 90), ("valid", 40)):
        X = random.normal(size=(n_images, 6))
        positive = X[:, :3] + random.normal(size=(n_images, 3)) > 0.3
        splits[split] = {f"{split}_{number:03d}": row for number, row in enumerate(X)}
        rows = ["".join(f"C{n};" for n in np.flatnonzero(row)).strip(";") or "C9" for row in positive]
        text = "".join(f"{id},{row}\n" for id, row in zip(splits[split], rows, strict=True))
        (tmp_path / "data" / f"{split}_concepts.csv").write_text("ID,CUIs\n" + text)
    make_store(tmp_path / "s.h5", splits, unreadable={"valid_003": "damaged"})
    return tmp_path


def test_each_pair_scores_as_a_run_of_its_own(place: Path) -> None:
    with reported() as lines:
        table = choose(place / "s.h5", place / "data", heads=["logistic", "prior"], decoders=["fixed:0.5", "global"])
    assert [(row["head"], row["decoder"]) for row in table] == [
        ("logistic", "fixed:0.5"), ("logistic", "global"), ("prior", "fixed:0.5"), ("prior", "global"),
    ]  # fmt: skip
    for row in table:
        given = {"decoder": row["decoder"], "nested": True}
        with reported():
            alone = fit_run(row["head"], place / "s.h5", place / "data", place / "run", **given)
        assert row["primary"] == alone["valid"]["primary"]
        assert row["primary_interval"] == alone["valid"]["primary_interval"]
        if row["decoder"] == "fixed:0.5":  # nothing to tune: the two estimates are one
            assert row["folds"] == alone["nested"]["primary"]
    best = max(table, key=lambda row: row["folds"])
    assert [row["chosen"] for row in table] == [row is best for row in table]
    assert lines[-2] == f"folds of train choose {best['head']}, {best['decoder']}"


def test_the_command_that_hands_in_the_chosen_pair_is_printed(place: Path) -> None:
    (place / "data").rename(place / "my data")
    with reported() as lines:
        choose(place / "s.h5", place / "my data", heads=["prior"], decoders=["top-k:2"])
    words = f"make submit 'DATA={place / 'my data'}' STORE={place / 's.h5'} HEAD=prior DECODER=top-k:2"
    assert shlex.split(lines[-1].partition(": ")[2]) == shlex.split(words)


def test_a_run_has_the_f1_on_folds_that_a_choice_has(place: Path) -> None:
    with reported():
        row = choose(place / "s.h5", place / "data", heads=["ridge"], decoders=["per-concept"])[0]
        run = fit_run("ridge", place / "s.h5", place / "data", place / "run", decoder="per-concept")
        fixed = fit_run("ridge", place / "s.h5", place / "data", place / "fixed", decoder="fixed:0.3")
    assert run["folds"] is not None
    assert (run["folds"]["primary"], run["folds"]["primary_interval"]) == (row["folds"], row["folds_interval"])
    assert fixed["folds"] is None


def test_valid_decides_nothing(place: Path) -> None:
    with reported():
        before = choose(place / "s.h5", place / "data", heads=["logistic", "prior"], decoders=["global", "top-k"])
    path = place / "data" / "valid_concepts.csv"
    path.write_text("\n".join(f"{row.split(',')[0]},C9" for row in path.read_text().split()))
    with reported():
        after = choose(place / "s.h5", place / "data", heads=["logistic", "prior"], decoders=["global", "top-k"])
    assert [(row["folds"], row["chosen"]) for row in before] == [(row["folds"], row["chosen"]) for row in after]
    assert [row["primary"] for row in before] != [row["primary"] for row in after]


def test_the_table_is_printed_for_people_and_programs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["choose", "--store", str(place / "s.h5"), "--data", str(place / "data"), "--heads", "prior"]
    assert main([*words, "--decoders", "top-k", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["table"]
    assert main([*words, "--decoders", "top-k"]) == 0
    out = capsys.readouterr().out
    assert f"{row['primary']:.4f} [{row['primary_interval'][0]:.4f}, {row['primary_interval'][1]:.4f}]" in out
    assert main([*words, "--decoders", "best"]) == 1
    assert "no decoder 'best'" in capsys.readouterr().err


def test_the_paper_is_compared_with_where_it_is_in_the_table(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heads.selection.leaderboard.PAPER", ("prior", "global"))
    with reported() as lines:
        table = choose(place / "s.h5", place / "data", heads=["ridge", "prior"], decoders=["global"])
    better = next(row for row in table if row["chosen"])
    assert better["head"] == "ridge"
    low, high = better["over_paper"]["interval"]
    assert low < better["over_paper"]["difference"] < high
    assert f"on valid {better['over_paper']['difference']:+.4f}" in lines[-1]


def test_an_unknown_name_is_refused_before_anything_is_fitted(place: Path) -> None:
    with pytest.raises(UserError, match="no head 'forest'"), reported() as lines:
        choose(place / "s.h5", place / "data", heads=["prior", "forest"])
    assert lines == []
