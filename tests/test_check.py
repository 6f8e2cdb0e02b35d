"""A request is checked before images are embedded: the same line as from the command that would fail hours later."""

import importlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, make_store, reported, snapshot

from cache.images import find_images
from cache.support.errors import UserError
from heads.estimators.ridge import RidgeHead
from heads.runs.builder import fit_run
from heads.selection.check import check_fit

PLACES = "--store s.h5 --data data"
FIT = f"ridge {PLACES} --out run"
EDITIONS_LINE = "edition 1999: expected one of 2022, 2023, 2024, 2025, 2026\n"
Change = Callable[[], object]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder whose images are empty files: nothing may read them. It is the current folder."""
    rows = {"train": 30, "valid": 8, "test": 4}
    for split, n_images in rows.items():
        (tmp_path / "data" / split).mkdir(parents=True)
        ids = [f"{split}_{number:02d}" for number in range(n_images)]
        for id in ids:
            (tmp_path / "data" / split / f"{id}.jpg").touch()
        name = "test_ids" if split == "test" else f"{split}_concepts"
        cells = ["" if split == "test" else f"C{number % 3 + 1}" for number in range(n_images)]
        text = "".join(f"{id},{cell}\n" for id, cell in zip(ids, cells, strict=True))
        (tmp_path / "data" / f"{name}.csv").write_text("ID,CUIs\n" + text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], words: str) -> tuple[int, str, str]:
    """Give a command of `heads` in this process; gives status, standard output and standard error."""
    try:
        status = importlib.import_module("heads.__main__").main(words.split())
    except SystemExit as stop:
        status = int(stop.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def embed() -> None:
    """Make the store that would have been made of the data folder."""
    random = np.random.default_rng(0)
    images = find_images("data")
    make_store(Path("s.h5"), {split: {each.id: random.normal(size=4) for each in images[split]} for split in images})


def nothing() -> None:
    pass


def write(name: str, text: str) -> Change:
    return lambda: Path("data", name).write_text(text)


def a_thesis() -> None:
    Path("run").mkdir()
    Path("run/thesis.tex").write_text("precious")


def one_group() -> None:
    ids = [id for split in ("train", "valid") for id in (path.stem for path in Path("data", split).iterdir())]
    Path("data/groups.csv").write_text("ID,group\n" + "".join(f"{id},p\n" for id in ids))


def one_image() -> None:
    for path in sorted(Path("data/train").iterdir())[1:]:
        path.unlink()


def without_valid() -> None:
    shutil.rmtree("data/valid")


CASES: dict[str, tuple[str, Change, str]] = {
    "head": (f"fit svm {PLACES} --out run", nothing, "no head 'svm'; there are dense, kernel"),
    "decoder": (f"fit {FIT} --decoder best", nothing, "no decoder 'best'; there are fixed"),
    "parameter": (f"fit {FIT} --set depth=3", nothing, "Invalid parameter 'depth'"),
    "value of a parameter": (f"fit {FIT} --set alpha=-1", nothing, "alpha is -1"),
    "values for other concepts": (f"fit logistic {PLACES} --out run --set C=1,2", nothing, "C has 2 values"),
    "concepts": (f"fit {FIT} --concepts C9999999", nothing, "none of the concepts to learn is in a training image"),
    "training": (f"fit {FIT} --train train+valid", without_valid, "no split 'valid'; use TRAIN=train"),
    "tuning": (f"fit {FIT} --decoder global --tune valid", without_valid, "decoder 'global' is tuned on valid"),
    "unknown training": (f"fit {FIT} --train all", nothing, "train is 'all', expected train or train+valid"),
    "unknown tuning": (f"fit {FIT} --tune test", nothing, "tune is 'test', expected folds or valid"),
    "what decides": (f"sweep {FIT} --grid alpha=1 --by test", nothing, "by is 'test', expected valid or folds"),
    "folder of something else": (f"fit {FIT}", a_thesis, "run: has files in it and is not a run"),
    "no labels": (f"fit {FIT}", lambda: os.unlink("data/train_concepts.csv"), "no labels for split 'train'; expected"),
    "two label files": (f"fit {FIT}", write("my_train_concepts.csv", ""), "are all concepts of train; keep one"),
    "labels of other images": (f"fit {FIT}", write("valid_concepts.csv", "ID,CUIs\nx,C1\n"), "none of its 1 ids"),
    "labels in another encoding": (
        f"fit {FIT}", lambda: Path("data/train_concepts.csv").write_bytes(b"ID,CUIs\n\xff,C1\n"), "not a text file"),
    "groups": (f"fit {FIT}", write("groups.csv", "ID,group\ntrain_00,p\n"), "29 training images have no group"),
    "too few groups": (f"fit {FIT}", one_group, "1 groups that can be read"),
    "too few images": (f"fit {FIT}", one_image, "1 images that can be read"),
    "head for maps": (f"fit tail {PLACES} --out run", nothing, "expected maps, because this head trains the layers"),
    "grid": (f"sweep {FIT} --grid depth=1,2", nothing, "Invalid parameter 'depth'"),
    "value of a grid": (f"sweep {FIT} --grid alpha=1,-1", nothing, "alpha is -1"),
    "sweep by valid": (f"sweep {FIT} --grid alpha=1", without_valid, "no split 'valid' to choose by"),
    "one of several heads": (f"choose {PLACES} --heads ridge svm", nothing, "no head 'svm'"),
    "one of several decoders": (f"choose {PLACES} --heads prior --decoders global best", nothing, "no decoder 'best'"),
    "budget": (f"best {PLACES} --out run --budget soon", nothing, "budget 'soon', expected a time such as 90s"),
    "training of the best": (
        f"best {PLACES} --out run --budget 5m --train train+valid", without_valid, "no split 'valid'; use TRAIN=train"),
    "too few images to search": (f"best {PLACES} --out run --budget 5m", one_image, "1 images that can be read"),
    "folder of the best": (f"best {PLACES} --out run --budget 5m", a_thesis, "run: has files in it and is not a run"),
    "too few images to choose": (f"choose {PLACES} --heads prior", one_image, "1 images that can be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_check_gives_the_line_of_the_later_command(
    place: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    words, change, message = CASES[case]
    change()
    before = snapshot(place)
    status, out, err = call(capsys, f"check {words.partition(' ')[2].replace('--heads ', '')}")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("heads: error: ")
    assert message in err
    assert snapshot(place) == before
    embed()
    _, _, later = call(capsys, words)
    if "store" not in later and "s.h5" not in later:
        assert later.splitlines()[-1] == err.strip()
    assert message in later


def test_an_edition_that_never_was_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(place)
    assert call(capsys, f"check {FIT} --edition 1999") == (1, "", "heads: error: " + EDITIONS_LINE)
    assert call(capsys, "predict run --edition 1999") == (1, "", "heads: error: " + EDITIONS_LINE)
    assert snapshot(place) == before


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("ID,CUIs\nx,\n", "none of its ids is an image of split 'test'"),
        ("ID,CUIs\ntest_00,\ntest_00.jpg,\n", "are both image 'test_00'; keep one"),
        ("", "no id in it"),
    ],
)
def test_the_list_of_ids_is_checked_where_a_submission_will_be_made(
    place: Path, capsys: pytest.CaptureFixture[str], ids: str, message: str
) -> None:
    write("test_ids.csv", ids)()
    status, _, err = call(capsys, f"check {FIT} --edition 2026")
    assert status == 1
    assert message in err
    assert call(capsys, f"check {FIT}") == (0, "", "")


@pytest.mark.parametrize(
    "words",
    [
        FIT,
        f"{FIT} --edition 2026 --decoder global --train train+valid --concepts C1 C7",
        f"{FIT} --grid alpha=1,2 --by folds",
        f"tail {PLACES} --out run --pooling none",
        f"ridge knn {PLACES} --decoders global top-k",
        PLACES,
    ],
)
def test_nothing_is_printed_or_written_if_all_is_well(
    place: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    before = snapshot(place)
    assert call(capsys, f"check {words}") == (0, "", "")
    assert snapshot(place) == before


def test_options_of_an_earlier_run_are_followed_as_by_the_run(place: Path) -> None:
    embed()
    with reported():
        fit_run("ridge", "s.h5", "data", "run", train="train+valid")
    without_valid()
    with pytest.raises(UserError, match="no split 'valid'; use TRAIN=train"):
        check_fit("ridge", "s.h5", "data", "run")
    check_fit("ridge", "s.h5", "data", "run", train="train")


def test_where_nothing_is_to_be_embedded_a_run_is_not_checked_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed()
    with reported():
        fit_run("ridge", "s.h5", "data", "run")
    monkeypatch.setattr(RidgeHead, "check_data", lambda self, X, Y: pytest.fail("the head was made"))
    check_fit("ridge", "s.h5", "data", "run")
    write("train/new.jpg", "")()
    with pytest.raises(pytest.fail.Exception):
        check_fit("ridge", "s.h5", "data", "run")


def test_what_is_not_used_is_named_before_there_is_a_store(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/old").mkdir()
    for name in ("notes.csv", "train_captions.csv", "valid_concepts_manual.csv", "readme.txt"):
        Path("data", name).touch()
    assert call(capsys, f"check {FIT}") == (0, "data: not used: notes.csv, old/\n", "")
    embed()
    assert call(capsys, f"check {FIT}") == (0, "", "")


def make(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("target", ["head", "submit", "sweep", "choose", "best"])
def test_make_checks_before_it_embeds(target: str) -> None:
    lines = make("-n", target, "GRID=alpha=1", "DATA=data", "EDITION=2025", "HEAD=ridge").stdout.splitlines()
    commands = [line.partition(" -m ")[2].split(" ") for line in lines if " -m " in line]
    packages = [" ".join(words[:2]) if words[0] == "heads" else words[0] for words in commands]
    assert packages[packages.index("heads check") + 1] == "featurize"
    check = commands[packages.index("heads check")]
    assert ("--edition" in check) == (target in ("submit", "best"))
    assert ("--grid" in check) == (target == "sweep")


@pytest.mark.parametrize(("target", "lacking"), [("sweep", "GRID"), ("ensemble", "RUNS")])
def test_make_says_which_variable_is_lacking(target: str, lacking: str) -> None:
    done = make("-n", target)
    assert done.returncode == 2
    assert f"make {target} needs {lacking}, the " in done.stderr
    assert done.stderr.count("\n") == 1
