"""Two processes that write one run: the second is refused, with the name of the first."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, make_store, reported

from cache.lock import locked
from cache.support.errors import RunError
from heads import fit_run, make_ensemble, predict_run, sweep_runs
from heads.runs.builder import RunBuilder

STUCK = """
import sys, time
from heads import fit_run
from heads.runs.builder import RunBuilder

def wait(self, head):
    print("fitting", flush=True)
    time.sleep(60)

RunBuilder.fit = wait
fit_run("ridge", *sys.argv[1:], decoder="fixed:0.3")
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A data folder and a store."""
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    splits = {}
    for split, n_images in (("train", 40), ("valid", 20)):
        X = random.normal(size=(n_images, 4))
        splits[split] = {f"{split}_{number:03d}": row for number, row in enumerate(X)}
        rows = [";".join(f"C{n}" for n in np.flatnonzero(row > 0)) or "C9" for row in X]
        text = "".join(f"{id},{row}\n" for id, row in zip(splits[split], rows, strict=True))
        (tmp_path / "data" / f"{split}_concepts.csv").write_text("ID,CUIs\n" + text)
    make_store(tmp_path / "s.h5", splits)
    return tmp_path


def fit(place: Path, name: str = "ridge", out: str = "run", **options: Any) -> Any:
    with reported():
        return fit_run(name, place / "s.h5", place / "data", place / out, **{"decoder": "fixed:0.3"} | options)


def sweep(place: Path) -> Any:
    with reported():
        return sweep_runs("ridge", place / "s.h5", place / "data", place / "run", {"alpha": [1, 10]})


def join(place: Path) -> Any:
    with reported():
        return make_ensemble([place / "a", place / "b"], place / "run")


@pytest.mark.parametrize("write", [fit, sweep, join], ids=["fit", "sweep", "ensemble"])
def test_whoever_comes_second_is_refused(place: Path, write: Callable[[Path], Any]) -> None:
    for name in "ab":
        fit(place, out=name)
    with locked(place / "run", RunError), pytest.raises(RunError) as refused:
        write(place)
    message = str(refused.value)
    assert message.startswith(f"{place / 'run'}: is being written by process {os.getpid()} on ")
    assert "\n" not in message
    assert not (place / "run").exists()
    assert write(place)
    assert not list(place.glob(".*.lock"))


@pytest.mark.parametrize("first", [fit, sweep], ids=["fit", "sweep"])
def test_the_first_holds_the_lock_while_it_computes(
    place: Path, first: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    build, refused = RunBuilder.build, []

    def meet_another(self: RunBuilder, *args: Any) -> Any:
        thread = threading.Thread(target=lambda: refused.append(refusal(place)))
        thread.start()
        thread.join()
        return build(self, *args)

    monkeypatch.setattr(RunBuilder, "build", meet_another)
    first(place)
    assert refused
    assert all("is being written by process" in message for message in refused)
    assert json.loads((place / "run" / "metrics.json").read_text())["head"] == "ridge"


def refusal(place: Path) -> str:
    with pytest.raises(RunError) as refused:
        fit_run("knn", place / "s.h5", place / "data", place / "run", decoder="fixed:0.3")
    return str(refused.value)


def test_a_process_that_is_killed_holds_no_lock(place: Path) -> None:
    paths = [str(place / name) for name in ("s.h5", "data", "run")]
    with subprocess.Popen([sys.executable, "-c", STUCK, *paths], stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "fitting\n"
        message = refusal(place)
        other.send_signal(signal.SIGKILL)
    assert f"is being written by process {other.pid} on " in message
    assert fit(place)["valid"]["primary"] > 0


def test_a_finished_run_is_found_while_another_process_writes(place: Path) -> None:
    before = fit(place)
    with locked(place / "run", RunError):
        assert fit(place) == before


def test_a_submission_is_not_written_into_a_run_that_is_replaced(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from heads.runs.predictor import StoredRun

    fit(place)
    predict = StoredRun.predict

    def be_replaced(self: StoredRun, split: str) -> Any:
        predicted = predict(self, split)
        fit(place, "prior")
        return predicted

    monkeypatch.setattr(StoredRun, "predict", be_replaced)
    with pytest.raises(RunError, match="run: another run has taken its place meanwhile; run the same command again"):
        predict_run(place / "run", place / "s.h5", split="valid")
    assert not list((place / "run").glob("submission*"))
    monkeypatch.undo()
    with locked(place / "run", RunError), pytest.raises(RunError, match="is being written by process"):
        predict_run(place / "run", place / "s.h5", split="valid")


def test_scores_of_folds_are_saved_under_the_lock_of_the_member(place: Path) -> None:
    for name in "ab":
        fit(place, out=name)
    with locked(place / "b", RunError), pytest.raises(RunError, match="b: is being written by process"), reported():
        make_ensemble([place / "a", place / "b"], place / "run", "weighted")
    with reported():
        make_ensemble([place / "a", place / "b"], place / "run", "weighted")
    with locked(place / "b", RunError), reported():  # the scores are there: nothing is written
        make_ensemble([place / "a", place / "b"], place / "run", "stack")
