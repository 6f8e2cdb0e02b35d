"""Runs of several stores become one: images are matched by id, weights are fitted on held-out scores."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from conftest import PROVENANCE, make_store, reported, reseal

from cache.support.errors import UserError
from eval.comparison import compare_files
from eval.editions import find_edition
from eval.scored_file import score_files
from heads.data.split import LabelledSplit
from heads.data.store import LabelledStore
from heads.decoders.thresholds import GlobalThreshold
from heads.ensembles.blend import fit_stack, fit_weights, mix, stack
from heads.ensembles.builder import make_ensemble
from heads.ensembles.ensemble import METHODS, Ensemble
from heads.ensembles.prediction import predict_run
from heads.estimators.logistic import LogisticHead
from heads.evaluation.out_of_fold import out_of_fold_scores
from heads.runs.builder import fit_run
from heads.runs.files import SCORES

CONCEPTS = np.array(["C1", "C2", "C3", "C4"])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two stores that each see half of what decides four concepts, in another order, and a run on each."""
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    views: dict[str, dict[str, dict[str, np.ndarray]]] = {"a": {}, "b": {}}
    for split, n_images in (("train", 400), ("valid", 300), ("test", 12)):
        X = random.normal(size=(n_images, 8))
        ids = [f"{split}_{number:03d}" for number in range(n_images)]
        signal = X[:, :4] + X[:, 4:] + 0.3 * random.normal(size=(n_images, 4))
        rows = [f"{id},{';'.join(CONCEPTS[row]) or 'C1'}\n" for id, row in zip(ids, signal > 0.5, strict=True)]
        if split != "test":
            (tmp_path / "data" / f"{split}_concepts.csv").write_text("ID,CUIs\n" + "".join(rows))
        views["a"][split] = dict(zip(ids, X[:, :4], strict=True))
        views["b"][split] = dict(zip(ids[::-1], X[::-1, 4:], strict=True))
    make_store(tmp_path / "a.h5", views["a"], {"test_002": "damaged", "train_005": "damaged", "valid_003": "damaged"})
    make_store(tmp_path / "b.h5", views["b"], {"test_004": "damaged", "test_002": "empty"},
                provenance=replace(PROVENANCE, backbone="xception"))  # fmt: skip
    for name in "ab":
        fit(tmp_path, name)
    return tmp_path


def fit(place: Path, name: str, **given: Any) -> dict[str, Any]:
    given = {"params": {"C": 1.0}} | given
    with reported():
        return fit_run("logistic", place / f"{name}.h5", place / "data", place / name, **given)


def join(place: Path, method: str = "mean", **given: Any) -> tuple[dict[str, Any], list[str]]:
    out = place / "both"
    with reported() as lines:
        return make_ensemble([place / "a", place / "b"], out, method, **given), lines


def read_rows(path: Path) -> dict[str, set[str]]:
    return {id: set(cell.split(";")) for id, _, cell in (row.partition(",") for row in path.read_text().split())}


@pytest.mark.parametrize("method", METHODS)
def test_it_is_scored_officially_and_its_submission_is_checked(place: Path, method: str) -> None:
    metrics, _ = join(place, method)
    scored = score_files(place / "both" / "valid.csv", place / "data" / "valid_concepts.csv", None, find_edition(2026))
    assert metrics["valid"]["primary"] == pytest.approx(scored.primary, abs=1e-12)
    with reported() as lines:
        predict_run(place / "both")
    assert "12 images" in lines[-1]
    assert "passes the check of 2026" in lines[-1]
    with reported() as lines:
        predict_run(place / "both")
    assert "up to date" in lines[-1]


@pytest.mark.parametrize("method", ["mean", "weighted", "stack"])
def test_runs_that_see_different_things_are_better_together(place: Path, method: str) -> None:
    alone = max(fit(place, name, decoder="global")["valid"]["primary"] for name in "ab")
    assert join(place, method, decoder="global")[0]["valid"]["primary"] > alone + 0.03


def test_images_are_matched_by_id(place: Path) -> None:
    join(place)
    both = Ensemble.load(place / "both")
    a, b = both.members
    ids, readable = both.images("valid")
    assert readable.all()
    row = ids.index("valid_010")
    expected = (a.scores("valid")[a.images("valid")[0].index("valid_010") - 1]
                + b.scores("valid")[b.images("valid")[0].index("valid_010")]) / 2  # fmt: skip
    np.testing.assert_allclose(both.scores("valid")[row], expected, rtol=1e-5)


def test_an_image_that_one_store_cannot_read_is_scored_by_the_other(place: Path) -> None:
    join(place)
    both = Ensemble.load(place / "both")
    b = both.members[1]
    row, row_b = both.images("valid")[0].index("valid_003"), b.images("valid")[0].index("valid_003")
    np.testing.assert_allclose(both.scores("valid")[row], b.scores("valid")[row_b], rtol=1e-5)
    with reported():
        predict_run(place / "both", edition=2024)
    assert read_rows(place / "both" / "submission.csv")["test_002"] == set(both.fallback)


def test_sets_are_joined_as_their_names_say(place: Path) -> None:
    rows = {}
    for method in ("union", "intersection", "vote"):
        join(place, method)
        rows[method] = read_rows(place / "both" / "valid.csv")
    a, b = (read_rows(place / name / "valid.csv") for name in "ab")
    for id in a:
        if id in ("valid_003", "ID"):
            continue
        assert rows["union"][id] == a[id] | b[id]
        assert rows["intersection"][id] == (a[id] & b[id]) or not a[id] & b[id]
        assert rows["intersection"][id] == rows["vote"][id]  # of two, more than half is both
        assert rows["intersection"][id]


@pytest.mark.parametrize("saved", [True, False])
def test_a_tuned_decoder_is_fitted_on_held_out_scores(place: Path, saved: bool) -> None:
    for name in "ab":
        assert (place / name / SCORES).is_file()
        if not saved:
            (place / name / SCORES).unlink()
    metrics, lines = join(place, "mean", decoder="global")
    assert metrics["decoder"] == {"name": "global", "tuned_on": "folds", "report": {}}
    assert "tuned on folds of train" in lines[-1]
    assert metrics["valid"]["note"] is None
    splits = [LabelledStore.load(place / f"{name}.h5", place / "data").train for name in "ab"]
    ids, Y = splits[0].readable_ids, splits[0].Y
    unseen, seen = (
        GlobalThreshold().fit(mix([select(ids, split, score(split)) for split in splits], [0.5, 0.5]), Y).threshold_
        for score in (
            lambda split: out_of_fold_scores(LogisticHead(C=1.0), split),
            lambda split: LogisticHead(C=1.0).fit(split.X, split.Y).predict_proba(split.X),
        )
    )
    assert Ensemble.load(place / "both").decoder.threshold_ == unseen != seen


def select(ids: list[str], split: LabelledSplit, scores: np.ndarray) -> np.ndarray:
    """The scores of some images of a split."""
    return scores[[split.readable_ids.index(id) for id in ids]]


def test_a_decoder_that_is_tuned_on_valid_says_so(place: Path) -> None:
    metrics, _ = join(place, "mean", decoder="global", tune="valid")
    assert "optimistic" in metrics["valid"]["note"]
    both = Ensemble.load(place / "both")
    valid = LabelledStore.load(place / "b.h5", place / "data").valid
    assert valid is not None
    ids, readable = both.images("valid")
    members = [member.images("valid") for member in both.members]
    both_read = [id for id in ids if all(can_read[names.index(id)] for names, can_read in members)]
    scores = both.scores("valid")[
        [[id for id, can in zip(ids, readable, strict=True) if can].index(id) for id in both_read]
    ]
    Y = valid.Y[[valid.readable_ids.index(id) for id in both_read]]
    assert both.decoder.threshold_ == GlobalThreshold().fit(scores, Y).threshold_


def test_runs_with_other_concepts_are_joined(place: Path) -> None:
    path = place / "data" / "train_concepts.csv"
    path.write_text(path.read_text().replace("train_000,", "train_000,C9;"))
    fit(place, "b")
    assert join(place, "mean")[0]["valid"]["primary"] > 0.5
    both = Ensemble.load(place / "both")
    assert both.vocabulary == ["C1", "C2", "C3", "C4", "C9"]
    assert len(both.members[0].run.vocabulary) == 4


def test_an_ensemble_needs_none_of_the_runs_it_was_made_of(place: Path) -> None:
    join(place)
    before = Ensemble.load(place / "both").scores("test")
    for name in "ab":
        shutil.rmtree(place / name)
    np.testing.assert_array_equal(Ensemble.load(place / "both").scores("test"), before)


def test_a_run_that_learnt_from_valid_is_scored_as_it_was_before(place: Path) -> None:
    before = join(place, "mean", decoder="global")[0]["valid"]
    for name in "ab":
        fit(place, name, train="train+valid")
    after, lines = join(place, "mean", decoder="global")
    assert after["valid"] == before
    assert "before valid joined train" in lines[-1]
    assert join(place, "weighted", tune="valid")[0]["valid"]["note"]
    both, alone = Ensemble.load(place / "both"), Ensemble.load(place / "both").members[0]
    assert not np.array_equal(alone.scores("valid"), np.load(place / "a" / "valid_scores.npy"))
    assert both.members[0].metrics["train"]["splits"] == "train+valid"
    (place / "b" / "valid_scores.npy").unlink()
    with pytest.raises(UserError, match="b: has learnt from valid, and the scores that it gave before are gone"):
        join(place)


def test_it_is_compared_with_its_runs_like_any_other(place: Path) -> None:
    join(place, "mean", decoder="global")
    truth = place / "data" / "valid_concepts.csv"
    both, one = (score_files(place / name, truth) for name in ("both", "a"))
    (primary,) = compare_files(both, one)
    assert primary.scores[0] == pytest.approx(
        json.loads((place / "both" / "metrics.json").read_text())["valid"]["primary"]
    )
    assert primary.difference.is_significant


@pytest.mark.parametrize("tune", ["folds", "valid"])
def test_an_estimate_leaves_out_what_it_is_scored_on(place: Path, tune: str) -> None:
    metrics, lines = join(place, "stack", decoder="per-concept", tune=tune, nested=True)
    assert metrics["nested"]["on"] == {"folds": "train", "valid": "valid"}[tune]
    assert metrics["nested"]["n_images"] == {"folds": 399, "valid": 299}[tune]
    low, high = metrics["nested"]["primary_interval"]
    assert low < metrics["nested"]["primary"] < high
    assert metrics["nested"]["primary"] == pytest.approx(metrics["valid"]["primary"], abs=0.05)
    assert f"by folds of {metrics['nested']['on']}" in lines[-1]


def test_joined_sets_take_no_decoder(place: Path) -> None:
    with pytest.raises(UserError, match="how is 'union', which joins the sets that each run's own decoder predicts"):
        join(place, "union", decoder="global")
    with pytest.raises(UserError, match="how is 'vote', which fits nothing"):
        join(place, "vote", nested=True)


def test_the_same_request_does_nothing_again(place: Path) -> None:
    join(place)
    assert "up to date" in join(place)[1][-1]
    fit(place, "a", params={"C": 2.0})
    assert "up to date" not in join(place)[1][-1]


def test_what_cannot_be_joined_is_refused(place: Path) -> None:
    with pytest.raises(UserError, match="how is 'median', expected mean, weighted, stack, union, intersection or vote"):
        join(place, "median")
    with pytest.raises(UserError, match="1 runs given, expected at least two"):
        make_ensemble([place / "a"], place / "both")
    join(place)
    with pytest.raises(UserError, match="is an ensemble itself"):
        make_ensemble([place / "a", place / "both"], place / "c")
    with pytest.raises(UserError, match="no finished run in it"):
        make_ensemble([place / "a", place / "z"], place / "c")
    shutil.copytree(place / "data", place / "other")
    path = place / "other" / "train_concepts.csv"
    path.write_text(path.read_text().replace("C3", "C8"))
    with reported():
        fit_run("logistic", place / "b.h5", place / "other", place / "b")
    with pytest.raises(UserError, match=r"was trained on other labels than .*; expected runs on the same data"):
        join(place)


def test_a_damaged_ensemble_is_refused(place: Path) -> None:
    join(place)
    path = place / "both" / "metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"members": [{"name": "../a", "store": str(place / "a.h5"), "run": "a"}]}))
    reseal(place)
    with pytest.raises(UserError, match="a damaged ensemble"):
        Ensemble.load(place / "both")


def draw(n_images: int = 3000) -> tuple[list[np.ndarray], scipy.sparse.csr_matrix]:
    """Scores of a run that knows the truth with some noise, and of one that guesses."""
    random = np.random.default_rng(0)
    p = random.beta(0.4, 2.0, size=(n_images, 6)).astype(np.float32)
    Y = scipy.sparse.csr_matrix(random.random(p.shape) < p)
    return [p, random.beta(0.4, 2.0, size=p.shape).astype(np.float32)], Y


def test_weights_go_to_the_run_that_knows() -> None:
    scores, Y = draw()
    weights = fit_weights(scores, Y)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > 0.95
    np.testing.assert_allclose(mix(scores, weights), weights[0] * scores[0] + weights[1] * scores[1], atol=1e-6)


def test_a_stack_undoes_a_runs_overconfidence() -> None:
    scores, Y = draw()
    logit = np.log(scores[0].clip(1e-6, 1 - 1e-6) / (1 - scores[0].clip(1e-6, 1 - 1e-6)))
    coefficients = fit_stack([1 / (1 + np.exp(-2 * logit)), scores[1]], Y)
    np.testing.assert_allclose(coefficients, [0.5, 0, 0], atol=0.05)
    assert np.abs(stack([1 / (1 + np.exp(-2 * logit)), scores[1]], [0.5, 0, 0]) - scores[0]).max() < 0.01
