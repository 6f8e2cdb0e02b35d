"""That nothing is to be done is found out at once, and only where it is so."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, make_store, reported

from heads import fit_run, predict_run
from heads.registry import HEADS, make_head
from heads.runs.files import FORMAT

DEFAULTS = {FORMAT: "e4f5a56fc6110ef8440ab9573efa6db1d1df1866f14b1050494e6ba34e08fe2f"}
"""Digest of the default parameters of all heads, by the format of runs."""

AGAIN = """
import sys
from heads.__main__ import main
main(["fit", "kernel", "--store", "s.h5", "--data", "data", "--out", "run"])
main(["predict", "run", "--store", "s.h5", "--data", "data"])
print(*sorted({"sklearn", "pandas", "scipy.stats", "tensorflow"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a finished run and its submission."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    splits = {split: {f"{split}{n}": random.normal(size=4) for n in range(20)} for split in ("train", "valid", "test")}
    make_store(tmp_path / "s.h5", splits)
    (tmp_path / "data").mkdir()
    for split in ("train", "valid"):
        rows = [f"{id},{'C1;C2' if x[0] > 0 else 'C3'}\n" for id, x in splits[split].items()]
        (tmp_path / "data" / f"{split}_concepts.csv").write_text("ID,CUIs\n" + "".join(rows))
    with reported():
        fit_run("kernel", "s.h5", "data", "run")
        predict_run("run", "s.h5", "data")
    return tmp_path


def fit_again(**options: object) -> str:
    with reported() as lines:
        fit_run("kernel", "s.h5", "data", "run", **options)  # type: ignore[arg-type]
    return lines[0]


def test_that_nothing_is_to_be_done_is_found_out_without_large_libraries(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AGAIN], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert [line.split(" (")[0] for line in done.stdout.splitlines()] == [
        "run: up to date",
        "run/submission.zip: up to date",
    ]
    assert done.stderr.split() == []


def test_what_is_given_with_the_value_of_the_run_changes_nothing(place: Path) -> None:
    assert fit_again(params={"alpha": 0.2}).startswith("run: up to date")
    assert fit_again(decoder="platt+expected-f1").startswith("run: up to date")


def test_another_parameter_or_label_makes_the_run_again(place: Path) -> None:
    assert fit_again(params={"alpha": 0.5}).startswith("run: replaces an earlier run")
    assert fit_again().startswith("run: up to date")
    labels = place / "data" / "train_concepts.csv"
    labels.write_text(labels.read_text() + "other,C1\n")
    assert "up to date" not in fit_again()


def test_other_defaults_of_a_head_have_another_format_of_runs() -> None:
    # An up-to-date run is recognised by the parameters that it was made with, without making the head.
    defaults = {name: make_head(name).get_params() for name in HEADS}
    assert {FORMAT: hashlib.sha256(json.dumps(defaults, sort_keys=True).encode()).hexdigest()} == DEFAULTS, (
        "the default parameters of a head have changed: raise FORMAT in heads/runs/files.py, and put the digest here"
    )
