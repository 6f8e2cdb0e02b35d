"""Runs of the tail: from images to a submission and an exported model, through a store of maps."""

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import reported, snapshot

from cache.store import FeatureStore
from cache.support.errors import UserError
from featurize.decoding.image import decode
from featurize.pipeline import make_features
from heads.data.rounding import unpack_scores
from heads.data.store import LabelledStore
from heads.ensembles.builder import make_ensemble
from heads.ensembles.prediction import predict_run
from heads.evaluation.out_of_fold import out_of_fold_scores
from heads.registry import make_head
from heads.runs.builder import fit_run, prepare_head
from heads.runs.files import SCORES
from heads.runs.keras_model import export_run
from heads.runs.predictor import StoredRun
from heads.runs.run import Run
from heads.selection.sweep import sweep_runs
from show.report.outcome import Outcome
from show.report.page import make_report

pytestmark = [
    pytest.mark.usefixtures("without_tracing"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config"),
]

SIZE = 32
FEATURES = {"backbone": "mobilenetv2", "weights": "random:0", "size": SIZE, "layer": "block_14_expand",
            "pooling": "none", "engine": "tensorflow", "precision": "float32", "dtype": "float32"}  # fmt: skip
QUICK = {"epochs": 1, "learning_rate": 1e-4}
UNREADABLE = 2
RATES = [1e-3, 1e-4]


@pytest.fixture(scope="module")
def template(phantoms: Path, without_tracing: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of maps, with images that cannot be read in train, and a run with its submission and model."""
    place = tmp_path_factory.mktemp("tail")
    shutil.copytree(phantoms, place / "data")
    for path in sorted((place / "data" / "train").iterdir())[:UNREADABLE]:
        path.write_bytes(b"")
    with reported():
        make_features(place / "data", place / "s.h5", **FEATURES)
    fit(place)
    with reported():
        predict_run(place / "run", place / "s.h5", place / "data")
    export_run(place / "run", place / "s.h5")
    return place


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    """A copy of it all."""
    shutil.copytree(template, tmp_path / "copy")
    return tmp_path / "copy"


def fit(place: Path, name: str = "tail", out: str = "run", **given: Any) -> dict[str, Any]:
    given = {"params": QUICK if name == "tail" else {}, "decoder": "fixed:0.3"} | given
    with reported():
        return fit_run(name, place / "s.h5", place / "data", place / out, **given)


def test_a_run_of_the_tail_is_a_run_like_any_other(template: Path) -> None:
    metrics = fit(template)
    n_train = len(FeatureStore(template / "s.h5").split("train").ids)
    assert metrics["train"]["n_images"] == n_train - UNREADABLE
    assert metrics["head"] == "tail"
    assert 0 < metrics["valid"]["primary"] < 1
    assert (template / "run" / "submission.csv").read_text().startswith("ID,CUIs\n")
    assert not (template / "run.training").exists()


def test_a_run_of_the_tail_has_a_report(place: Path) -> None:
    with reported() as lines:
        outcome = Outcome.open(place / "run", place / "s.h5", place / "data")
        make_report(place / "run", store=place / "s.h5", data=place / "data")
    expected = StoredRun(place / "run", place / "s.h5").scores("valid")
    assert np.allclose(np.concatenate([scores for _, scores in outcome.blocks()]), expected, atol=1e-5)
    assert lines[-1].startswith(str(place / "run" / "report.html"))


def test_the_second_time_nothing_is_trained(template: Path) -> None:
    given = {"params": QUICK, "decoder": "fixed:0.3"}
    with reported() as lines:
        fit_run("tail", template / "s.h5", template / "data", template / "run", **given)
    assert "up to date" in lines[0]


def test_the_exported_model_gives_the_runs_scores_from_images(template: Path) -> None:
    images = sorted((template / "data" / "test").iterdir())
    pixels = np.stack([decode(path.read_bytes(), SIZE) for path in images])
    scores = np.asarray(keras.saving.load_model(template / "run" / "model.keras")(pixels, training=False))
    stored = StoredRun(template / "run", template / "s.h5")
    assert stored.images("test")[0] == [path.stem for path in images]
    np.testing.assert_allclose(scores, stored.scores("test"), atol=1e-4, rtol=0)


def test_what_is_learnt_from_valid_too_goes_through_both_splits(place: Path) -> None:
    fit(place, out="both", train="train+valid")
    once, twice = (Run.load(place / name).head for name in ("run", "both"))
    assert not np.array_equal(once.tail_weights_[0], twice.tail_weights_[0]) or not np.array_equal(
        once.weights_[0], twice.weights_[0]
    )


def test_a_sweep_begins_each_trial_with_the_network_of_the_store(place: Path) -> None:
    data = LabelledStore.load(place / "s.h5", place / "data")
    # Without statistics of the batch, the gradients of a random network are too small to change its weights.
    head = make_head("tail", {"epochs": 1, "train_statistics": True})
    prepare_head(head, data.store)
    began = keras.saving.load_model(place / "s.h5.network" / "tail.keras").get_weights()
    X, Y = data.train.X, data.train.Y
    for trial, swept in head.fit_each(X, Y, [{"learning_rate": rate} for rate in RATES]):
        alone = head.with_params(trial).fit(X, Y)
        for found, expected in zip(swept.tail_weights_, alone.tail_weights_, strict=True):
            np.testing.assert_array_equal(found, expected)
        assert any(not np.array_equal(found, each) for found, each in zip(swept.tail_weights_, began, strict=True))


def test_a_sweep_saves_the_best_tail(place: Path) -> None:
    given = {"params": {"epochs": 1}, "decoder": "fixed:0.3"}
    with reported():
        rows = sweep_runs("tail", place / "s.h5", place / "data", place / "sweep", {"learning_rate": RATES}, **given)
    assert [row["valid"] for row in rows] == sorted((row["valid"] for row in rows), reverse=True)
    assert Run.load(place / "sweep").head.learning_rate == rows[0]["params"]["learning_rate"]


def test_a_sweep_checks_the_layer_of_each_trial_before_the_first(place: Path) -> None:
    before = snapshot(place)
    grid = {"train_from": ["", "block_99"]}
    with pytest.raises(UserError, match="train_from: no layer 'block_99' after the cut"), reported():
        sweep_runs("tail", place / "s.h5", place / "data", place / "run", grid, params=QUICK, decoder="fixed:0.3")
    assert snapshot(place) == before


def test_a_tail_needs_maps_and_says_how_they_are_made(place: Path) -> None:
    given = FEATURES | {"pooling": "avg"}
    with reported():
        make_features(place / "data", place / "avg.h5", **given)
    shutil.move(place / "avg.h5", place / "s.h5")
    with pytest.raises(
        UserError, match=r"holds embeddings \(avg pooling after block_14_expand\), expected maps.*POOLING"
    ):
        fit(place, out="other")
    with pytest.raises(
        UserError, match=r"was trained on other features than .*: layer block_13_project_BN, not block_14"
    ):
        StoredRun(place / "run", place / "s.h5")


def test_a_tail_that_is_missing_says_what_brings_it_back(place: Path) -> None:
    (place / "s.h5.network" / "tail.keras").unlink()
    with pytest.raises(
        UserError, match=r"no network beside the store \(tail\.keras is missing\); .*make features REBUILD=1"
    ):
        fit(place, out="other")


def test_the_requested_layer_decides_the_run(place: Path) -> None:
    """The store's maps are the same; what is frozen after the cut is not."""
    before = FeatureStore(place / "s.h5")
    given = FEATURES | {"layer": "block_13_project_BN"}
    with reported():
        make_features(place / "data", place / "s.h5", **given)
    assert FeatureStore(place / "s.h5").provenance == before.provenance
    given = {"params": QUICK, "decoder": "fixed:0.3"}
    with reported() as lines:
        fit_run("tail", place / "s.h5", place / "data", place / "run", **given)
    assert "replaces an earlier run" in lines[0]


@pytest.fixture
def ridge(place: Path) -> Path:
    """A run on embeddings, beside that of the tail."""
    with reported():
        make_features(place / "data", place / "avg.h5", **FEATURES | {"pooling": "avg"})
        fit_run("ridge", place / "avg.h5", place / "data", place / "ridge", decoder="fixed:0.3")
    return place / "ridge"


def test_an_ensemble_tunes_with_a_tail_trained_on_folds(place: Path, ridge: Path) -> None:
    with reported():
        metrics = make_ensemble([place / "run", ridge], place / "both", decoder="global", tune="folds")
    assert metrics["decoder"]["tuned_on"] == "folds"
    data = LabelledStore.load(place / "s.h5", place / "data")
    head = make_head("tail", QUICK)
    prepare_head(head, data.store)
    scores = unpack_scores(np.load(place / "run" / SCORES))
    np.testing.assert_allclose(scores, out_of_fold_scores(head, data.train), atol=1e-5)
    assert np.abs(scores - StoredRun(place / "run", place / "s.h5").scores("train")).max() > 0.01


def test_an_ensemble_whose_second_member_has_no_network_leaves_the_first_as_it_was(place: Path, ridge: Path) -> None:
    fit(place, out="tail")  # the copied run knows the store that it was copied from
    (place / "s.h5.network" / "tail.keras").unlink()
    before = snapshot(place)
    with pytest.raises(UserError, match=r"tail\.keras is missing"), reported():
        make_ensemble([ridge, place / "tail"], place / "both", decoder="global", tune="folds")
    assert snapshot(place) == before
