"""Command lines: a result on standard output, or one line on standard error that says what to do."""

import ast
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import PROVENANCE, RECORD, ROOT, make_rows, make_store

from cache.parts import Parts

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Command:
    """Call a package's command line in this process; gives status, standard output and standard error."""

    def run(package: str, *args: object) -> tuple[int, str, str]:
        try:
            status = importlib.import_module(f"{package}.__main__").main([str(arg) for arg in args])
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths lead to a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    make_store(tmp_path / "s.h5", {"train": {"a": np.ones(2), "b": np.ones(2)}}, unreadable={"b": "empty file"})
    return tmp_path / "s.h5"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("featurize nowhere --store s.h5", "featurize: error: nowhere: no such folder"),
        (
            "featurize {data} --store s.h5 --weights resnet",
            "featurize: error: weights 'resnet': no such file; expected imagenet",
        ),
        ("featurize {data} --store {text}", "featurize: error: {text}: not a finished feature store"),
        ("cache status nowhere.h5", "cache: error: nowhere.h5: no such store"),
        ("cache status {text}", "cache: error: {text}: not a finished feature store"),
        (
            "heads fit forest --store s.h5 --data . --out r",
            "heads: error: no head 'forest'; there are dense, kernel, knn, logistic, prior, ridge",
        ),
        ("heads fit prior --store nowhere.h5 --data . --out r", "heads: error: nowhere.h5: no such store"),
        ("heads fit prior --store {store} --data . --out r", "heads: error: .: no labels for split 'train'"),
        (
            "heads fit dense --store {store} --data . --out r --set epochs",
            "heads: error: --set 'epochs': expected KEY=VALUE",
        ),
        (
            "heads fit dense --store {store} --data . --out r --set a=1",
            "heads: error: head 'dense': Invalid parameter 'a'",
        ),
        ("heads fit prior --store {store} --data . --out r --decoder x", "heads: error: no decoder 'x'"),
        ("heads predict nowhere --store {store}", "heads: error: nowhere: no finished run in it"),
        ("heads export nowhere", "heads: error: nowhere: no finished run in it; make it with `make head RUN=nowhere`"),
        ("eval score nowhere.csv --truth {text}", "eval: error: nowhere.csv: no such file"),
        ("eval score {text} --truth nowhere.csv", "eval: error: nowhere.csv: no such file"),
        ("eval check {text} --ids nowhere.csv", "eval: error: nowhere.csv: no such file"),
    ],
)
def test_what_the_user_can_fix_is_one_line_and_status_1(
    call: Command, store: Path, phantoms: Path, tmp_path: Path, words: str, message: str
) -> None:
    text = tmp_path / "text.csv"
    text.write_text("ID,CUIs\na,C1\n")
    places = {"store": store, "data": phantoms, "text": text}
    status, out, err = call(*words.format(**places).split())
    assert status == 1
    assert out == ""
    assert err.startswith(message.format(**places))
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        "featurize",
        "featurize data --store s.h5 --size 0",
        "featurize data --store s.h5 --size big",
        "featurize.phantoms out --images 3",
        "cache",
        "cache forget s.h5",
        "heads fit dense",
        "heads predict run --store s.h5 --edition last",
        "eval score a.csv",
    ],
)
def test_wrong_usage_is_status_2(call: Command, words: str) -> None:
    status, out, err = call(*words.split())
    assert status == 2
    assert out == ""
    assert err.startswith("usage: python -m ")


def test_the_status_of_a_store_is_printed_as_text_and_as_json(call: Command, store: Path) -> None:
    status, out, _ = call("cache", "status", store)
    assert status == 0
    assert "train         2 rows of 2, 1 unreadable" in out
    assert "b: empty file" in out
    status, out, _ = call("cache", "status", store, "--json")
    assert json.loads(out)["splits"]["train"] == {"rows": 2, "features": 2, "unreadable": ["b: empty file"]}


def test_a_score_is_printed_as_text_and_as_json(call: Command, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ID,CUIs\na,C0040405;C1\nb,C1306645\n")
    (tmp_path / "s.csv").write_text("b,C1306645\na,C0040405\n")
    score = ("eval", "score", tmp_path / "s.csv", "--truth", tmp_path / "t.csv", "--manual", tmp_path / "t.csv")
    status, out, err = call(*score)
    assert status == 0
    assert "primary F1    0.8333  [0.6667, 1.0000]   (2 images, rules of 2026)" in out
    assert "secondary F1  1.0000  [1.0000, 1.0000]" in out
    assert "the form check of 2026 would refuse it: line 1: header" in err
    status, out, _ = call(*score, "--edition", 2024, "--json")
    printed = json.loads(out)
    groups = {each["name"]: (each["n_true"], each["n_hits"]) for each in printed.pop("breakdown")["group"]}
    assert groups == {"modality": (2, 2), "rest": (1, 0)}
    assert printed == {
        "edition": 2024,
        "n_images": 2,
        "primary": pytest.approx(5 / 6),
        "primary_interval": pytest.approx([2 / 3, 1]),
        "secondary": 1.0,
        "secondary_interval": [1.0, 1.0],
        "form": [],
        "warnings": [],
    }


def test_every_fault_of_a_submission_is_printed_with_its_line(call: Command, tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("ID,CUIs\na,\nb,\n")
    (tmp_path / "s.csv").write_text("ID,CUIs\na,C1;C1\nb,nodule\n")
    check = ("eval", "check", tmp_path / "s.csv", "--ids", tmp_path / "ids.csv")
    status, out, err = call(*check)
    assert status == 1
    first = "line 2: image 'a': concept 'C1' twice; list each once"
    assert [line.split("s.csv: ")[1] for line in (out + err).splitlines()] == [
        first,
        "line 3: image 'b': concept 'nodule', expected 'C' and digits",
        f"would be refused in 2026: 2 faults, the first: {first}",
    ]
    assert err.count("\n") == 1
    status, out, _ = call(*check, "--json")
    assert status == 1
    assert [fault["line"] for fault in json.loads(out)["faults"]] == [2, 3]
    (tmp_path / "s.csv").write_text("ID,CUIs\na,C1\nb,\n")
    assert call(*check)[:2] == (
        0,
        f"{tmp_path / 's.csv'}: 2 images, passes the check of 2026; hand it in as a zip with the one file submission.csv\n",
    )


EVIL = "x\x1b[2J\r\x9b31m\u202e\nfeaturize: error: forged"
"""A text that would clear a terminal, colour it, turn its direction, and forge a line."""


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A folder with such a name; a store in it whose texts are such."""
    store = tmp_path / EVIL / f"{EVIL}.h5"
    rows = {"a\u202e": np.ones(2), "b\u200b": np.ones(2), "c": np.ones(2)}
    make_store(store, {"train": rows, "test": {"d\u2067": np.ones(2)}}, unreadable={"c": EVIL})
    with h5py.File(store, "a") as file:
        file.move("splits/test", f"splits/{EVIL}")
        del file["record"]
        record = RECORD | {EVIL: EVIL, "data": EVIL}
        file["record"] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    return store


@pytest.mark.parametrize(
    "words",
    [
        ("cache", "status", "{store}"),
        ("cache", "status", "{store}", "--data", "{data}"),
        ("cache", "verify", "{store}"),
        ("cache", "duplicates", "{store}"),
        ("cache", "status", "{folder}/none.h5"),
        ("featurize", "{data}", "--store", "{store}", "--weights", "random:0"),
        ("featurize", "{folder}/none", "--store", "{store}"),
        ("eval", "score", "{csv}", "--truth", "{csv}"),
        ("eval", "score", "{csv}", "--truth", "{folder}/none.csv"),
        ("eval", "check", "{csv}", "--ids", "{csv}"),
        ("eval", "compare", "{csv}", "{csv}", "--truth", "{csv}"),
        ("heads", "fit", "prior", "--store", "{store}", "--data", "{data}", "--out", "{folder}/run"),
    ],
)
def test_texts_of_files_forge_no_line_and_command_no_terminal(
    call: Command, evil: Path, words: tuple[str, ...]
) -> None:
    folder = evil.parent
    (folder / "train").mkdir()
    (folder / "train" / "\u202ea.jpg").write_bytes(b"no image")
    csv = folder / f"{EVIL}.csv"
    csv.write_text("ID,CUIs\n\x1b[2Ja,C1\n\u202eb,\x1b[1mC2\n")
    (folder / "train_concepts.csv").write_text("ID,CUIs\na\u202e,\x1b[1mC2\n")
    status, out, err = call(*(word.format(store=evil, data=folder, folder=folder, csv=csv) for word in words))
    assert out or status
    for line in (out + err).removesuffix("\n").split("\n"):
        assert line.isprintable()
        assert not line.startswith("featurize: error: forged")


def test_what_is_printed_as_json_is_what_was_read(call: Command, evil: Path) -> None:
    status, out, _ = call("cache", "status", evil, "--json")
    described = json.loads(out)
    assert status == 0
    assert all(line.isprintable() for line in out.removesuffix("\n").split("\n"))
    assert described["splits"]["train"]["unreadable"] == [f"c: {EVIL}"]
    assert (described["store"], described["record"][EVIL]) == (str(evil), EVIL)


def test_nothing_is_printed_but_through_the_functions_that_escape() -> None:
    allowed = ROOT / "cache" / "support" / "command.py"
    for package in ("cache", "eval", "featurize", "heads", "show"):
        for path in sorted((ROOT / package).rglob("*.py")):
            names = [node.func.id for node in ast.walk(ast.parse(path.read_text()))
                     if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]  # fmt: skip
            assert path == allowed or "print" not in names, f"{path}: print"


def test_a_reader_that_goes_away_is_no_error(store: Path) -> None:
    words = [sys.executable, "-m", "cache", "status", str(store)]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(words, stdout=closed, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupted_command_says_that_it_would_continue(phantoms: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "featurize", phantoms, "--store", tmp_path / "s.h5", "--weights", "random:0",
             "--backbone", "mobilenet"]  # fmt: skip
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("engine"):
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "featurize: interrupted; the same command continues from what is finished\n"


@pytest.mark.parametrize(
    ("words", "end"),
    [
        ("heads fit prior --store s.h5 --data . --out new", "nothing of it is kept, and the same command begins again"),
        (
            "heads fit prior --store s.h5 --data . --out run",
            "nothing of it is kept, and the same command begins again; run still has the earlier run",
        ),
        (
            "heads fit tail --store s.h5 --data . --out tuned",
            "the same command continues after the last finished epoch",
        ),
        (
            "heads sweep prior --store s.h5 --data . --out run --grid a=1",
            "finished trials are kept, and the same command does the others",
        ),
        ("heads choose --store s.h5 --data .", "the same command begins again"),
        ("cache verify s.h5", "the same command begins again"),
        ("featurize . --store s.h5", "the same command continues from what is finished"),
    ],
)
def test_an_interrupted_command_says_what_it_has_kept(
    call: Command, monkeypatch: pytest.MonkeyPatch, words: str, end: str
) -> None:
    for name in ("run/digests.json", "tuned.training/0.h5"):
        Path(name).parent.mkdir()
        Path(name).touch()

    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    for name in ("heads.runs.builder.fit_run", "heads.selection.sweep.sweep_runs", "heads.selection.leaderboard.choose",
                 "cache.verify.verify_store", "featurize.pipeline.make_features"):  # fmt: skip
        monkeypatch.setattr(name, interrupt)
    package, *args = words.split()
    assert call(package, *args) == (130, "", f"{package}: interrupted; {end}\n")


def test_the_images_of_an_interrupted_first_run_are_not_of_other_features(call: Command, tmp_path: Path) -> None:
    parts = Parts(tmp_path / "new.h5", PROVENANCE)
    parts.start({})
    parts.add(make_rows([1, 2], np.ones((2, 3))))
    _, out, _ = call("cache", "status", "new.h5")
    assert f"  unfinished     2 images, in new.h5.parts/{PROVENANCE.fingerprint[:16]}\n" in out
    assert "other features" not in out
    make_store(tmp_path / "new.h5", {"train": {"a": np.ones(2)}}, provenance=replace(PROVENANCE, size=64))
    assert "2 images with other features, in" in call("cache", "status", "new.h5")[1]


def test_a_submission_for_another_split_is_called_so(call: Command, tmp_path: Path) -> None:
    for split in ("valid", "test"):
        text = "".join(f"{split}_{number},C1\n" for number in range(200))
        (tmp_path / f"{split}.csv").write_text("ID,CUIs\n" + text)
    status, _, err = call("eval", "score", "test.csv", "--truth", "valid.csv")
    assert status == 1
    assert err == (
        "eval: error: test.csv: none of its 200 ids is in the truth, which has 'valid_0', not 'test_0'; it seems to be "
        "of another split: give the truth of that\n"
    )
    status, _, err = call("eval", "check", "test.csv", "--ids", "valid.csv")
    assert (status, err.count("\n")) == (1, 1)
    assert "200 of 200 listed ids have no row, such as 'valid_0'; it seems to be of another split: give the list" in err
    (tmp_path / "test.csv").write_text("ID,CUIs\n" + text.replace("test_1", "valid_1"))
    assert "image 'test_0' is not in the truth; write ids as in the truth" in call(
        "eval", "score", "test.csv", "--truth", "valid.csv")[2]  # fmt: skip


@pytest.mark.parametrize(
    ("edition", "header", "remedy"),
    [
        (2024, "name,Concepts", "write ID,CUIs"),
        (2024, "image,CUIs", "write ID,CUIs"),
        (2022, "image|concepts", "2022 takes no header, remove the row"),
    ],
)
def test_a_header_that_counts_as_an_image_is_called_a_header(
    call: Command, tmp_path: Path, edition: int, header: str, remedy: str
) -> None:
    mark = "|" if edition == 2022 else ","
    (tmp_path / "truth.csv").write_text(f"a{mark}C1\nb{mark}C2\n")
    (tmp_path / "ids.csv").write_text("ID,CUIs\na,\nb,\n")
    (tmp_path / "s.csv").write_text(f"{header}\na{mark}C1\nb{mark}C2\n")
    line = f"line 1: '{header}' looks like a header, but the evaluator takes it for an image; {remedy}"
    assert line in call("eval", "score", "s.csv", "--truth", "truth.csv", "--edition", edition)[2]
    assert line in call("eval", "check", "s.csv", "--ids", "ids.csv", "--edition", edition)[2]
