"""A refused command changes nothing: no file's bytes, no name in a folder.

Times may change. So may the digests remembered beside a store; `conftest.snapshot` says why.
"""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cheap
import h5py
import numpy as np
import pytest
from conftest import PROVENANCE, ROOT, make_store, reported, reseal, snapshot
from forks import run_command

from cache.lock import locked
from cache.parts import Parts
from cache.store import FeatureStore
from cache.support.errors import ParameterError
from featurize.pipeline import make_features
from heads.data.arrays import write_arrays
from heads.ensembles.builder import make_ensemble
from heads.ensembles.prediction import predict_run
from heads.estimators.ridge import RidgeHead
from heads.runs.builder import fit_run
from heads.selection.sweep import sweep_runs

CONCEPTS = np.array(["C1", "C2", "C3"])
FIT = "heads fit ridge --store s.h5 --data data --out run"
SWEEP = "heads sweep logistic --store s.h5 --data data --out run --decoder fixed:0.3"

Change = Callable[[], object]
"""What a case does to the current folder, a copy of `template`, before the command is given."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder, a store, two runs with a submission, an ensemble of them and a sweep."""
    place, random = tmp_path_factory.mktemp("template"), np.random.default_rng(0)
    (place / "data").mkdir()
    splits: dict[str, dict[str, np.ndarray]] = {}
    for split, n_images in (("train", 40), ("valid", 12), ("test", 6)):
        X = random.normal(size=(n_images, 4))
        ids = [f"{split}_{number:02d}" for number in range(n_images)]
        splits[split] = dict(zip(ids, X, strict=True))
        rows = [f"{id},{';'.join(CONCEPTS[row]) or 'C1'}" for id, row in zip(ids, X[:, :3] > 0.4, strict=True)]
        name = "test_ids" if split == "test" else f"{split}_concepts"
        rows = [f"{id}," for id in ids] if split == "test" else rows
        (place / "data" / f"{name}.csv").write_text("\n".join(["ID,CUIs", *rows, ""]))
    make_store(place / "s.h5", splits)
    with reported():
        for out, head in (("run", "ridge"), ("other", "knn")):
            fit_run(head, place / "s.h5", place / "data", place / out, decoder="fixed:0.3")
        predict_run(place / "run", place / "s.h5", place / "data")
        make_ensemble([place / "run", place / "other"], place / "both", decoder="fixed:0.3")
        sweep_runs("ridge", place / "s.h5", place / "data", place / "swept", {"alpha": [1, 10]}, decoder="fixed:0.3")
    (place / "run" / "notes.txt").write_text("mine")
    return place


@pytest.fixture
def place(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the template, which is the current folder. The copy's runs know its store by its place."""
    place = tmp_path / "place"
    shutil.copytree(template, place)
    for path in place.rglob("*.json"):
        path.write_text(path.read_text().replace(str(template), str(place)))
    reseal(place)
    monkeypatch.chdir(place)
    return place


def refuse(place: Path, capsys: pytest.CaptureFixture[str], words: str, message: str) -> None:
    """Give a command in this process. It is refused with a message, and leaves the folder as it was."""
    before = snapshot(place)
    package, *args = words.split()
    try:
        status = importlib.import_module(f"{package}.__main__").main(args)
    except SystemExit as stop:
        status = int(stop.code or 0)
    err = capsys.readouterr().err
    assert status in (1, 2), err
    assert message in err
    assert snapshot(place) == before


def in_data(name: str, text: str) -> Change:
    return lambda: Path("data", name).write_text(text)


def replace_text(name: str, old: str, new: str) -> Change:
    return lambda: Path(name).write_text(Path(name).read_text().replace(old, new))


def without_valid() -> None:
    train = FeatureStore("s.h5").split("train")
    make_store(Path("s.h5"), {"train": dict(zip(train.ids, train.embeddings, strict=True))})


def damaged_store() -> None:
    with h5py.File("s.h5", "a") as file:
        file["splits/train/embeddings"][5, 1] = np.nan


def damaged_byte() -> None:
    with h5py.File("s.h5") as file:
        place = file["splits/train/embeddings"].id.get_offset()
    with open("s.h5", "r+b") as file:
        file.seek(place + 3)
        file.write(b"\x7f")


def odd_concept() -> None:
    replace_text("run/vocabulary.json", '"C3"', '"NODULE"')()
    replace_text("data/test_ids.csv", "test_00,\n", "")()
    reseal(Path("run"))


def other_store() -> None:
    make_store(Path("s.h5"), {"test": {"test_00": np.ones(4)}}, provenance=replace(PROVENANCE, size=255))


def maps_store() -> None:
    splits = {split: {id: np.ones((2, 2, 3)) for id in rows.ids} for split, rows in FeatureStore("s.h5").splits.items()}
    make_store(Path("s.h5"), splits, provenance=replace(PROVENANCE, pooling="none"))


def one_group() -> None:
    ids = [id for split in ("train", "valid") for id in FeatureStore("s.h5").split(split).ids]
    Path("data/groups.csv").write_text("\n".join(["ID,group", *(f"{id},p" for id in ids), ""]))


def two_groups() -> None:
    one_group()
    replace_text("data/groups.csv", "train_00,p", "train_00,q")()


def other_files() -> None:
    shutil.rmtree("run")
    Path("run").mkdir()
    Path("run/thesis.tex").write_text("precious")


def no_change() -> None:
    pass


def learnt_from_valid() -> None:
    with reported():
        fit_run("ridge", "s.h5", "data", "run", decoder="fixed:0.3", train="train+valid")
    Path("run/valid_scores.npy").unlink()


def run_on_other_labels() -> None:
    shutil.copytree("data", "elsewhere")
    replace_text("elsewhere/train_concepts.csv", "C3", "C8")()
    with reported():
        fit_run("knn", "s.h5", "elsewhere", "other", decoder="fixed:0.3")


def second_store_gone() -> None:
    shutil.copy("s.h5", "t.h5")
    with reported():
        fit_run("prior", "t.h5", "data", "other", decoder="fixed:0.3")
    Path("t.h5").unlink()


REQUESTS: dict[str, tuple[str, Change, str]] = {
    "unknown head": ("heads fit forest --store s.h5 --data data --out run", no_change, "no head 'forest'"),
    "unknown decoder": (f"{FIT} --decoder best", no_change, "no decoder 'best'"),
    "value of a decoder": (f"{FIT} --decoder fixed:2", no_change, "expected a threshold from 0 to 1"),
    "unknown parameter": (f"{FIT} --set depth=3", no_change, "Invalid parameter 'depth'"),
    "parameter out of range": (f"{FIT} --set alpha=-1", no_change, "alpha is -1"),
    "parameter without value": (f"{FIT} --set alpha", no_change, "--set 'alpha': expected KEY=VALUE"),
    "parameter that does not fit the data": (
        "heads fit logistic --store s.h5 --data data --out run --set C=1,2", no_change, "C has 2 values"),
    "labels are missing": (FIT, lambda: os.unlink("data/train_concepts.csv"), "no labels for split 'train'"),
    "labels of valid are missing": (FIT, lambda: os.unlink("data/valid_concepts.csv"), "no labels for split 'valid'"),
    "labels of other images": (FIT, in_data("train_concepts.csv", "ID,CUIs\nx,C1\n"), "none of its 1 ids is an image"),
    "no concept": (FIT, in_data("train_concepts.csv", "ID,CUIs\ntrain_00,\n"), "no training image that can be read has"),
    "contradictory labels": (
        FIT, in_data("train_concepts.csv", "ID,CUIs\ntrain_00,C1\ntrain_00,C2\n"), "train_00"),
    "two label files": (FIT, in_data("ImageCLEF_train_concepts.csv", "ID,CUIs\ntrain_00,C1\n"), "keep one of them"),
    "labels that are no text": (
        FIT, lambda: Path("data/train_concepts.csv").write_bytes(b"ID,CUIs\ntrain_00,\xff\n"), "not a text file in UTF-8"),
    "groups are missing": (FIT, in_data("groups.csv", "ID,group\ntrain_00,p\n"), "39 training images have no group"),
    "one group": (f"{FIT} --decoder global", one_group, "1 groups that can be read, expected at least 2"),
    "two groups for two cross-validations": (
        f"{FIT} --decoder global --nested", two_groups, "1 groups that can be read, expected at least 2"),
    "store is missing": (FIT.replace("s.h5", "none.h5"), no_change, "none.h5: no such store"),
    "store is something else": (FIT.replace("s.h5", "data/train_concepts.csv"), no_change, "not a finished feature store"),
    "store is cut": (FIT, lambda: os.truncate("s.h5", 2000), "not a finished feature store"),
    "store is damaged": (FIT, damaged_store, "embedding of image 'train_05' of train is not finite"),
    "store has maps": (FIT, maps_store, "holds maps after relu"),
    "store has embeddings": (FIT.replace("ridge", "tail"), no_change, "holds embeddings"),
    "network is missing": (FIT.replace("ridge", "tail"), maps_store, "no network beside the store"),
    "pooling": (f"{FIT} --pooling gem", no_change, "no features 'gem'"),
    "no valid to tune on": (f"{FIT} --decoder global --tune valid", without_valid, "tuned on valid, which has no image"),
    "no valid to learn from": (f"{FIT} --train train+valid", without_valid, "the store has no split 'valid'"),
    "folder of something else": (FIT, other_files, "has files in it and is not a run"),
    "file in the place of the folder": (FIT.replace("run", "s.h5"), no_change, "is a file, expected a folder"),
    "folder in the place of a result": (
        f"{FIT} --set alpha=3", lambda: [os.unlink("run/head.h5"), os.mkdir("run/head.h5")], "is a folder where a file"),
    "unknown parameter of the second trial": (
        "heads sweep ridge --store s.h5 --data data --out run --grid alpha=1,-1", no_change, "alpha is -1"),
    "grid of an unknown parameter": (f"{SWEEP} --grid depth=1,2", no_change, "Invalid parameter 'depth'"),
    "second trial does not fit the data": (f"{SWEEP} --grid C=0.1,[1,2]", no_change, "C has 2 values"),
    "grid without values": (f"{SWEEP} --grid C=", no_change, "the grid has no value of C, expected at least one"),
    "sweep without valid": (f"{SWEEP} --grid C=1", without_valid, "no split 'valid' to choose by"),
    "sweep to learn from no valid": (
        f"{SWEEP} --by folds --train train+valid --grid C=1,2", without_valid, "the store has no split 'valid'"),
    "sweep by folds of one group": (f"{SWEEP} --by folds --grid C=1,2", one_group, "1 groups that can be read"),
    "sweep into a folder of something else": (f"{SWEEP} --grid C=1,2", other_files, "is not a run"),
    "sweep over maps": (f"{SWEEP} --grid C=1,2", maps_store, "holds maps after relu"),
    "sweep of another head": (
        "heads sweep forest --store s.h5 --data data --out swept --grid a=1", no_change, "no head 'forest'"),
    "choose an unknown head": (
        "heads choose --store s.h5 --data data --heads ridge forest", no_change, "no head 'forest'"),
    "choose an unknown decoder": (
        "heads choose --store s.h5 --data data --heads prior --decoders global best", no_change, "no decoder 'best'"),
    "choose without labels": (
        "heads choose --store s.h5 --data data", lambda: os.unlink("data/valid_concepts.csv"), "no labels for split"),
    "ensemble by an unknown method": (
        "heads ensemble run other --out both --how median", no_change, "how is 'median'"),
    "ensemble of sets with a decoder": (
        "heads ensemble run other --out both --how vote --decoder global", no_change, "leave it out, or mix scores"),
    "ensemble of one run": ("heads ensemble run --out both", no_change, "1 runs given"),
    "ensemble of a run that is missing": (
        "heads ensemble run none --out both --how weighted", no_change, "none: no finished run in it"),
    "ensemble of an ensemble": ("heads ensemble run both --out new", no_change, "is an ensemble itself"),
    "ensemble in place of its run": (
        "heads ensemble run other --out run --how weighted", no_change, "is one of the runs to join"),
    "ensemble in place of its run by another name": (
        "heads ensemble run other --out data/../run", no_change, "is one of the runs to join"),
    "ensemble on other labels": (
        "heads ensemble run other --out both --how weighted", run_on_other_labels, "was trained on other labels"),
    "ensemble of a store that is gone": (
        "heads ensemble run other --out both --how weighted", second_store_gone, "t.h5: no such store"),
    "ensemble of other features": ("heads ensemble run other --out both --how stack", other_store, "size 224, not 255"),
    "ensemble with scores of valid gone": (
        "heads ensemble other run --out both --how weighted", learnt_from_valid, "the scores that it gave before are gone"),
    "ensemble in a folder of something else": (
        "heads ensemble other swept --out run --how weighted", other_files, "is not a run"),
    "ensemble with a damaged run": (
        "heads ensemble run other --out both --how weighted", lambda: Path("other/head.h5").write_text("{}"),
        "a damaged run (head.h5 has 2 bytes"),
    "ensemble of one group": ("heads ensemble run other --out both --how weighted", one_group, "1 groups that can be"),
    "predict without a run": ("heads predict data --store s.h5", no_change, "data: no finished run in it"),
    "predict with a damaged run": (
        "heads predict run --store s.h5 --data data --edition 2024", lambda: Path("run/head.h5").write_text("{}"),
        "a damaged run (head.h5 has 2 bytes"),
    "predict without a store": ("heads predict run --data data", no_change, "needs the store that it was trained on"),
    "predict with other features": ("heads predict run --store s.h5", other_store, "size 224, not 255"),
    "predict a split that is missing": (
        "heads predict run --store s.h5 --split final", no_change, "no split 'final'"),
    "predict without a data folder": ("heads predict run --store s.h5 --data none", no_change, "none: no such folder"),
    "list of ids that is no text": (
        "heads predict run --store s.h5 --data data --edition 2024",
        lambda: Path("data/test_ids.csv").write_bytes(b"ID,CUIs\n\xff,\n"), "not a text file in UTF-8"),
    "list of other ids": (
        "heads predict run --store s.h5 --data data", in_data("test_ids.csv", "ID,CUIs\nx,\n"), "none of its ids"),
    "list without ids": ("heads predict run --store s.h5 --data data", in_data("test_ids.csv", ""), "no id in it"),
    "submission that the edition refuses": (
        "heads predict run --store s.h5 --data data", odd_concept,
        "would be refused in 2026"),
    "folder in the place of the submission": (
        "heads predict run --store s.h5 --data data --edition 2024",
        lambda: [os.unlink("run/submission.csv"), os.mkdir("run/submission.csv")],
        "run/submission.csv: is a folder, expected a file",
    ),
    "edition that never was": (
        "heads predict run --store s.h5 --data data --edition 1999", no_change, "edition 1999: expected one of 2022"),
    "export without a run": ("heads export data", no_change, "data: no finished run in it"),
    "export of an ensemble": ("heads export both", no_change, "an ensemble, expected one run"),
    "export under another ending": ("heads export run --out run/model.h5", no_change, "expected a name that ends in .keras"),
    "export without a network": ("heads export run --out new/model.keras", no_change, "no network beside the store"),
    "export with other features": ("heads export run", other_store, "size 224, not 255"),
    "table without recipes": ("heads table data run", no_change, "data: no recipe in it"),
    "status of no store": ("cache status none.h5 --data data", no_change, "none.h5: no such store"),
    "status of something else": ("cache status data/train_concepts.csv", no_change, "not a finished feature store"),
    "damage": ("cache verify s.h5", damaged_byte, "s.h5: damaged in 1 place"),
    "cosine": ("cache duplicates s.h5 --cosine 2", no_change, "cosine 2: expected a number above 0"),
    "score of nothing": ("eval score none.csv --truth data/valid_concepts.csv", no_change, "none.csv: no such file"),
    "score of other images": (
        "eval score run/submission.csv --truth data/valid_concepts.csv --breakdown new.csv", no_change, "test_00"),
    "breakdown into a folder": (
        "eval score run --truth data/valid_concepts.csv --breakdown data", no_change, "data: is a folder"),
    "check of other images": (
        "eval check run/valid.csv --ids data/test_ids.csv", no_change, "run/valid.csv: would be refused in 2026"),
    "compare with other images": (
        "eval compare run run/submission.csv --truth data/valid_concepts.csv", no_change, "test_00"),
    "too few phantoms": ("featurize.phantoms new --images 3", no_change, "expected a whole number of at least 20"),
    "phantoms in the place of something else": (
        "featurize.phantoms data --images 20", no_change, "data: contains something else"),
}  # fmt: skip


@pytest.mark.parametrize("case", REQUESTS)
def test_a_refused_command_changes_nothing(place: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    words, change, message = REQUESTS[case]
    change()
    refuse(place, capsys, words, message)


@pytest.fixture(scope="module")
def featurized(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder and its store, made by a network that costs nothing, with parts of other features beside it."""
    place = tmp_path_factory.mktemp("featurized")
    shutil.copytree(phantoms, place / "data")
    with h5py.File(place / "mine.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = np.ones((3, 3), np.float32)
    with pytest.MonkeyPatch.context() as patch, reported():
        cheap.install(patch.setattr)
        store = make_features(place / "data", place / "s.h5", **cheap.GIVEN)
    Parts(place / "s.h5", replace(store.provenance, size=64)).start({})
    (place / "s.h5.network").mkdir()
    (place / "s.h5.network" / "network.json").write_text("{}")
    return place


def lose_train() -> None:
    for path in sorted(Path("data/train").iterdir())[1:]:
        path.unlink()


def all_of_valid_are_dicom() -> None:
    for path in Path("data/valid").iterdir():
        path.rename(path.with_suffix(".dcm"))


def damaged_byte_and_lost_image() -> None:
    damaged_byte()
    next(Path("data/train").iterdir()).unlink()


MAKE = "featurize data --store s.h5"
NEW = "featurize data --store new/t.h5 --size 8 --engine tensorflow --precision float32"
FEATURES: dict[str, tuple[str, Change, str]] = {
    "no folder": ("featurize none --store s.h5", no_change, "none: no such folder"),
    "no image": ("featurize s.h5.network --store s.h5", no_change, "s.h5.network"),
    "one id twice": (MAKE, lambda: shutil.copytree("data/train", "data/valid/more"), "used by more than one image"),
    "weights of no kind": (f"{NEW} --weights resnet", no_change, "weights 'resnet': no such file; expected imagenet"),
    "weights of no seed": (f"{NEW} --weights random:x", no_change, "expected random:SEED"),
    "weights that are gone": (f"{NEW} --weights none.h5", no_change, "weights 'none.h5': no such file"),
    "unknown dtype": (f"{NEW} --weights random:0 --dtype float8", no_change, "dtype 'float8'"),
    "unknown pooling": (f"{NEW} --weights random:0 --pooling min", no_change, "pooling 'min'"),
    "unknown engine": (f"{MAKE} --engine torch", no_change, "engine 'torch': expected one of auto, openvino"),
    "unknown precision": (f"{MAKE} --precision int8", no_change, "precision 'int8': expected one of auto, float32"),
    "unknown dtype of a store": (f"{MAKE} --dtype float8", no_change, "dtype 'float8': expected one of float32"),
    "unknown backbone": (f"{NEW} --backbone resnet999", no_change, "no backbone 'resnet999'; Keras has convnextbase"),
    "other engine": (f"{MAKE} --engine jax", no_change, "it has engine tensorflow, not jax"),
    "another size": (f"{MAKE} --size 64", no_change, "it has size 8, not 64"),
    "another network": (f"{MAKE} --backbone vgg16", no_change, "it has backbone densenet121, not vgg16"),
    "other weights": (f"{MAKE} --weights mine.weights.h5", no_change, "/mine.weights.h5; name another STORE"),
    "other weights of a store to be made again": (
        f"{MAKE} --weights none.h5 --rebuild", no_change, "weights 'none.h5': no such file"),
    "images that are gone": (MAKE, lose_train, "of the store's images are not in data"),
    "split that is gone": (MAKE, lambda: shutil.rmtree("data/valid"), "split 'valid' has vanished"),
    "damaged store": (MAKE, damaged_byte_and_lost_image, "s.h5: damaged (bytes"),
    "store that is something else": (MAKE.replace("s.h5", "mine.weights.h5"), no_change, "not a finished feature store"),
    "store that is a folder": (MAKE.replace("s.h5", "data"), no_change, "data: no such store"),
    "DICOM without pydicom": (MAKE, all_of_valid_are_dicom, "which pydicom reads: pip install"),
    "disk without room": (f"{NEW} --weights random:0", no_change, "its disk has 1e-06 GB free"),
}  # fmt: skip


@pytest.mark.parametrize("case", FEATURES)
def test_features_that_are_refused_change_nothing(
    featurized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    words, change, message = FEATURES[case]
    place = tmp_path / "place"
    shutil.copytree(featurized, place, copy_function=shutil.copy2)
    monkeypatch.chdir(place)
    cheap.install(monkeypatch.setattr, weights="1" * 64 if case == "other weights" else "0" * 64)
    monkeypatch.setattr("featurize.pipeline.is_installed", lambda: False)
    if "room" in case:
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    change()
    refuse(place, capsys, words, message)


def test_a_second_member_that_is_being_written_leaves_the_first_as_it_was(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(place / "other"):
        refuse(
            place, capsys, "heads ensemble run other --out both --how weighted", "other: is being written by process"
        )


@pytest.mark.parametrize(
    "words",
    [
        FIT,
        f"{SWEEP} --grid C=1,2",
        "heads ensemble other swept --out run",
        "heads predict run --store s.h5 --edition 2024",
    ],
)
def test_a_run_that_is_being_written_stays_as_it_is(
    place: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    with locked(place / "run"):
        refuse(place, capsys, words.replace("ridge", "prior"), "run: is being written by process")


def test_a_training_that_is_refused_leaves_no_checkpoint(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a training has diverged is found out after many epochs, each with a checkpoint."""

    def diverge(self: RidgeHead, X: np.ndarray, Y: Any) -> None:
        write_arrays(self._checkpoint, {"epoch": np.ones(3)})
        raise ParameterError("scores are not finite: training has diverged")

    monkeypatch.setattr(RidgeHead, "_fit", diverge)
    refuse(place, capsys, f"{FIT} --set alpha=3", "training has diverged")
    Path("run.training").mkdir()
    Path("run.training/0123.h5").write_bytes(b"of another request, which was interrupted")
    refuse(place, capsys, f"{FIT} --set alpha=3", "training has diverged")


def test_tensorflow_is_not_loaded_where_it_would_end_the_process_for_want_of_memory(place: Path) -> None:
    before = snapshot(place)
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({2 * 10**9}, {2 * 10**9}))"
    code = f"{limit}; import sys; from heads.__main__ import main; sys.exit(main({FIT.replace('ridge', 'dense').split()[1:]}))"
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 1
    assert done.stderr.startswith("heads: error: not enough memory: this process may take 2.0 GB")
    assert len(done.stderr.splitlines()) == 1
    assert snapshot(place) == before


@pytest.mark.parametrize(
    ("words", "largest"),
    [
        (f"{FIT} --set alpha=3", 100),
        (f"{FIT} --set alpha=3", 1000),
        (f"{FIT} --decoder global", 600),
        ("heads sweep ridge --store s.h5 --data data --out run --grid alpha=3,4", 1000),
        ("heads ensemble other swept --out run --decoder fixed:0.3", 1000),
        ("heads ensemble run other --out both --how weighted --decoder fixed:0.3", 300),
        ("heads predict run --store s.h5 --edition 2024", 60),
        ("heads predict run --store s.h5 --edition 2025", 200),
        ("eval score run --truth data/valid_concepts.csv --breakdown run/notes.txt", 60),
        ("featurize.phantoms new/drawn --images 20", 2000),
    ],
)
def test_a_full_disk_leaves_what_was_there(place: Path, words: str, largest: int) -> None:
    before = snapshot(place)
    package, *args = words.split()
    done = run_command(package, *args, cwd=place, largest_file=largest)
    assert done.returncode == 1, done.stderr
    assert "File too large" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert snapshot(place) == before
