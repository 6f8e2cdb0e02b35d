"""A run's files: what is damaged is refused, and a stranger's run reads nothing else and takes no more memory."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import make_store, reported, reseal

from cache.support.errors import RunError, UserError
from cache.support.messages import one_line
from heads import fit_run, make_ensemble, predict_run, sweep_runs
from heads.data.rounding import round_scores, unpack_scores
from heads.runs.files import DIGESTS, SCORES, RunFiles
from heads.runs.folder import find_metrics
from heads.runs.run import Run
from heads.runs.saved_scores import load_scores, save_scores

RUNS = {"ridge": "per-concept", "knn": "platt+expected-f1", "logistic": "top-k:2"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder, a store, a few runs and an ensemble of two of them."""
    place, random = tmp_path_factory.mktemp("template"), np.random.default_rng(0)
    (place / "data").mkdir()
    splits = {}
    for split, n_images in (("train", 40), ("valid", 12), ("test", 6)):
        X = random.normal(size=(n_images, 4))
        splits[split] = {f"{split}_{number:02d}": row for number, row in enumerate(X)}
        rows = [";".join(f"C{n}" for n in np.flatnonzero(row > 0)) or "C9" for row in X]
        text = "".join(f"{id},{row}\n" for id, row in zip(splits[split], rows, strict=True))
        if split != "test":
            (place / "data" / f"{split}_concepts.csv").write_text("ID,CUIs\n" + text)
    make_store(place / "s.h5", splits, {"test_02": "damaged"})
    with reported():
        for name, decoder in RUNS.items():
            fit_run(name, place / "s.h5", place / "data", place / name, decoder=decoder)
        make_ensemble([place / "ridge", place / "knn"], place / "both", "weighted", decoder="global")
    return place


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    """A copy of the runs in another place, with the store."""
    shutil.copytree(template, tmp_path / "copy")
    return tmp_path / "copy"


def predict(place: Path, run: str = "ridge") -> bytes:
    with reported():
        path = predict_run(place / run, place / "s.h5", edition=2024)
    return path.read_bytes()


def fit(place: Path, name: str = "ridge", **given: Any) -> list[str]:
    with reported() as lines:
        fit_run(name, place / "s.h5", place / "data", place / name, **{"decoder": RUNS[name]} | given)
    return lines


def refusal(place: Path, run: str = "ridge") -> str:
    with pytest.raises(UserError) as refused:
        predict(place, run)
    assert not (place / run / "submission.csv").exists()
    return one_line(str(refused.value))


def change(path: Path, **values: Any) -> None:
    """Change what a JSON file holds, and give the run right digests."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    reseal(path.parent.parent)


def test_a_run_works_in_another_place(template: Path, place: Path) -> None:
    right = {run: predict(place, run) for run in (*RUNS, "both")}
    shutil.copytree(template, place.parent / "moved")
    place.rename(place.parent / "away")
    for run in RUNS:
        assert predict(place.parent / "moved", run) == right[run]
        assert "up to date" in fit(place.parent / "moved", run)[0]


@pytest.mark.parametrize("run", ["ridge", "knn", "both"])
def test_a_flipped_bit_anywhere_is_refused_or_without_effect(place: Path, run: str) -> None:
    random = np.random.default_rng(0)
    right = predict(place, run)
    for path in sorted((place / run).glob("submission*")):
        path.unlink()
    for path in sorted(each for each in (place / run).rglob("*") if each.is_file()):
        data = path.read_bytes()
        for _ in range(4):
            flipped = bytearray(data)
            flipped[random.integers(len(data))] ^= 1 << int(random.integers(8))
            path.write_bytes(flipped)
            try:
                assert predict(place, run) == right, path
                (place / run / "submission.csv").unlink()
                (place / run / "submission.json").unlink()
            except RunError:
                pass
        path.write_bytes(data)


@pytest.mark.parametrize("name", ["head.h5", "head.json", "decoder.json", "vocabulary.json", "valid.csv", "run.json"])
def test_a_run_with_a_damaged_file_is_made_again(place: Path, name: str) -> None:
    whole = {path.name: path.read_bytes() for path in (place / "ridge").iterdir()}
    data = bytearray(whole[name])
    data[len(data) // 2] ^= 1
    (place / "ridge" / name).write_bytes(data)
    assert "one of its files is damaged; it is made again" in fit(place)[0]
    for each in set(whole) - {
        "metrics.json",
        "digests.json",
        "run.json",
        "MODEL_CARD.md",
    }:  # with times, and the place of the copy
        assert (place / "ridge" / each).read_bytes() == whole[each]


def test_a_file_that_is_not_the_size_that_was_written_is_not_read(place: Path) -> None:
    os.truncate(place / "ridge" / "head.h5", 10**12)  # a file with a hole takes no room
    assert "head.h5 has 1,000,000,000,000 bytes" in refusal(place)


def test_scores_that_are_damaged_are_made_again(place: Path) -> None:
    path = place / "ridge" / SCORES
    right = path.read_bytes()
    shape = np.load(path).shape
    assert load_scores(place / "ridge", shape) is not None
    for number in range(0, len(right), 97):
        data = bytearray(right)
        data[number] ^= 4
        path.write_bytes(data)
        assert load_scores(place / "ridge", shape) is None
    for cut in (0, 7, len(right) - 1):
        path.write_bytes(right[:cut])
        assert load_scores(place / "ridge", shape) is None
    with reported():
        make_ensemble([place / "ridge", place / "knn"], place / "new", "stack", decoder="global")
    assert path.read_bytes() == right


@pytest.mark.parametrize("shape", [(3, 5), (0, 5), (1, 1)])
def test_scores_are_an_array_that_numpy_reads(tmp_path: Path, shape: tuple[int, int]) -> None:
    scores = round_scores(np.random.default_rng(0).random(shape, np.float32))
    save_scores(scores[:, ::-1], tmp_path)
    np.testing.assert_array_equal(unpack_scores(np.load(tmp_path / SCORES)), scores[:, ::-1])
    loaded = load_scores(tmp_path, shape)
    assert loaded is not None
    np.testing.assert_array_equal(loaded, scores[:, ::-1])
    assert load_scores(tmp_path, (shape[0] + 1, 5)) is None


def test_only_scores_of_exactly_0_and_1_are_saved_as_such() -> None:
    scores = np.array([[0, 1e-12, 1e-5, 0.3, 0.99999, 1 - 2**-24, 1]], np.float32)
    rounded = round_scores(scores)
    assert ((rounded == 0) == (scores == 0)).all()
    assert ((rounded == 1) == (scores == 1)).all()
    assert np.abs(rounded - scores).max() < 2 / 65_535
    np.testing.assert_array_equal(round_scores(rounded), rounded)


def test_a_trial_with_a_damaged_score_is_done_again(place: Path) -> None:
    def sweep() -> list[str]:
        with reported() as lines:
            sweep_runs(
                "ridge", place / "s.h5", place / "data", place / "swept", {"alpha": [1, 1e6]}, decoder="fixed:0.3"
            )
        return lines

    sweep()
    assert "2 of 2 trials are done already" in sweep()[0]
    path = place / "swept" / "sweep.json"
    path.write_text(path.read_text().replace('"valid": 0.', '"valid": 0.9'))
    assert "are done already" not in sweep()[0]


def as_link(name: str) -> Callable[[Path], None]:
    def make(place: Path) -> None:
        (place / "ridge" / name).rename(place / name)
        (place / "ridge" / name).symlink_to(place / name)

    return make


def as_pipe(place: Path) -> None:
    (place / "ridge" / "head.h5").unlink()
    os.mkfifo(place / "ridge" / "head.h5")


def with_outside_numbers(place: Path) -> None:
    with h5py.File(place / "ridge" / "head.h5", "r+") as file:
        shape = file["intercept"].shape
        del file["intercept"]
        (place / "outside").write_bytes(np.ones(shape, np.float32).tobytes())
        file.create_dataset("intercept", shape, np.float32, external=[(str(place / "outside"), 0, 4 * shape[0])])
    reseal(place)


def with_shared_bytes(place: Path) -> None:
    with h5py.File(place / "ridge" / "head.h5", "r+") as file:
        file["more"] = np.zeros(10**5)
        for number in range(9):
            file[f"more_{number}"] = file["more"]
    reseal(place)


def with_packed_zeros(place: Path) -> None:
    with h5py.File(place / "ridge" / "head.h5", "r+") as file:
        del file["coef"]
        file.create_dataset("coef", (10**5, 10**4), np.float32, chunks=(1000, 1000), compression="gzip")
    reseal(place)


def edit(name: str, **values: Any) -> Callable[[Path], None]:
    return lambda place: change(place / "ridge" / name, **values)


STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file that is a link": (as_link("head.h5"), "head.h5 is a link"),
    "digests that are a link": (as_link(DIGESTS), "no finished run"),
    "a pipe": (as_pipe, "head.h5 is not a file"),
    "numbers outside": (with_outside_numbers, "not stored as plain bytes of this file"),
    "the same bytes ten times": (with_shared_bytes, "more than the file holds"),
    "packed zeros": (with_packed_zeros, "not stored as plain bytes of this file"),
    "brackets": (lambda place: [(place / "ridge" / "decoder.json").write_text("[" * 10**5), reseal(place)], "decoder.json"),
    "other keys": (lambda place: [(place / "ridge" / "head.json").write_text("{}"), reseal(place)], "missing required field"),
    "many features": (edit("head.json", n_features=10**12), "expected (1000000000000,)"),
    "no feature": (edit("head.json", n_features=0), "a head of 0 features"),
    "many concepts": (edit("head.json", n_concepts=10**12), "1,000,000,000,000 concepts in the head, 5 in"),
    "another kind of parameters": (edit("head.json", params=[1]), "Expected `object`, got `array`"),
    "a parameter of another head": (edit("head.json", params={"hidden": 10**9}), "Invalid parameter 'hidden'"),
    "a part of a parameter": (edit("head.json", params={"alpha__x": 1}), "Invalid parameter 'alpha__x'"),
    "another head": (edit("head.json", head="dense", params={"hidden": 10**9}), "it has no 'held_out_f1'"),
    "a wrong decoder": (edit("decoder.json", decoder="os:system"), "no decoder 'os'"),
    "a decoder of another kind": (edit("decoder.json", decoder="top-k"), "Expected `int`, got `null`"),
    "too few thresholds": (edit("decoder.json", decoder="global", state={"threshold": [0.5]}), "1 thresholds of 5 concepts"),
    "a threshold that is text": (edit("decoder.json", state={"threshold": "high"}), "Expected `float | array`"),
    "a threshold that is no number": (edit("decoder.json", decoder="global", state={"threshold": float("nan")}), "not a number"),
    "numbers for concepts": (edit("vocabulary.json", vocabulary=[1, 2, 3, 4, 5]), "Expected `str`, got `int`"),
    "fewer concepts": (edit("vocabulary.json", vocabulary=["C0", "C1"], usual=["C0"]), "2 concepts"),
    "a concept twice": (edit("vocabulary.json", vocabulary=["C0", "C1", "C1", "C2", "C3"]), "a concept twice"),
    "an unknown fallback": (edit("vocabulary.json", usual=["C77"]), "not in the vocabulary"),
    "metrics of other types": (edit("metrics.json", pooling=3), "Expected `str`, got `int`"),
    "metrics without a store": (edit("metrics.json", store={"weights": "x"}), "Expected `object`, got `null`"),
    "an interval of one end": (edit("metrics.json", nested={"primary": 1, "primary_interval": [1]}), "length >= 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", STRANGE)
def test_a_strangers_run_is_refused_in_one_line(place: Path, case: str) -> None:
    make, message = STRANGE[case]
    make(place)
    assert message in refusal(place)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"params": {"how": "stack", "numbers": [1.0, 2.0]}}, "2 numbers of 2 members"),
        ({"params": {"how": "weighted", "numbers": [1.0, float("inf")]}}, "2 numbers of 2 members"),
        ({"params": {"how": "median", "numbers": []}}, "joined by 'median'"),
        ({"members": []}, "0 members"),
        ({"members": [{"name": "..", "store": "s.h5", "run": "a"}]}, "lies elsewhere"),
        ({"members": [{"name": "0-none", "store": "s.h5", "run": "a"}]}, "is not one of its files"),
    ],
)
def test_a_strangers_ensemble_is_refused_in_one_line(place: Path, values: dict[str, Any], message: str) -> None:
    change(place / "both" / "metrics.json", **values)
    assert message in refusal(place, "both")


def test_an_ensemble_reads_no_member_elsewhere(place: Path) -> None:
    member = next((place / "both" / "members").iterdir())
    member.rename(place / "elsewhere")
    member.symlink_to(place / "elsewhere")
    assert "lies elsewhere" in refusal(place, "both")


def test_a_member_that_was_exchanged_is_noticed(place: Path) -> None:
    first, second = sorted((place / "both" / "members").iterdir())
    shutil.rmtree(second)
    shutil.copytree(first, second)
    assert "digests.json" in refusal(place, "both")


def test_a_run_without_its_digests_is_unfinished(place: Path) -> None:
    (place / "ridge" / DIGESTS).unlink()
    assert "no finished run in it; make it with `make head RUN=" in refusal(place)
    assert find_metrics(place / "ridge") is None


def test_what_is_added_to_a_finished_run_leaves_its_digests_as_they_are(place: Path) -> None:
    (place / "ridge" / SCORES).unlink()
    before = (place / "ridge" / DIGESTS).read_bytes()
    predict(place)
    with reported():
        make_ensemble([place / "ridge", place / "knn"], place / "new", "stack", decoder="global")
    assert (place / "ridge" / SCORES).exists()
    assert (place / "ridge" / DIGESTS).read_bytes() == before
    assert RunFiles.open(place / "ridge").is_whole()


def test_a_loaded_head_is_the_one_of_the_vocabulary(place: Path) -> None:
    run = Run.load(place / "ridge")
    assert run.head.n_concepts_ == len(run.vocabulary) == 5
