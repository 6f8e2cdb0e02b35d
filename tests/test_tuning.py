"""Of many training images some have out-of-fold scores, on which decoders are tuned."""

from pathlib import Path

import numpy as np
import pytest
from conftest import make_store, reported

from heads.data import split as split_module
from heads.data.store import LabelledStore
from heads.ensembles.builder import make_ensemble
from heads.evaluation.cross_validation import nested_f1
from heads.evaluation.out_of_fold import CrossFit, out_of_fold_scores, tuning_scores
from heads.registry import make_decoder, make_head
from heads.runs.builder import fit_run
from heads.runs.files import SCORES
from heads.runs.run import Run
from heads.selection import leaderboard
from heads.selection.sweep import sweep_runs
from show.report.outcome import Outcome

N_IMAGES, N_TUNING = 400, 120
CONCEPTS = np.array(["C1", "C2", "C3"])


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_module, "TUNING_IMAGES", N_TUNING)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Patients with two images each; two stores of the images in different orders, where other ones are unreadable."""
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    X = random.normal(size=(N_IMAGES, 6))
    signal = X[:, :3] + 0.7 * random.normal(size=(N_IMAGES, 3))
    ids = [f"train_{number:03d}" for number in range(N_IMAGES)]
    rows = [f"{id},{';'.join(CONCEPTS[row]) or 'C1'}\n" for id, row in zip(ids, signal > 0.4, strict=True)]
    (tmp_path / "data" / "train_concepts.csv").write_text("ID,CUIs\n" + "".join(rows))
    groups = "".join(f"{id},{number // 2}\n" for number, id in enumerate(ids))
    (tmp_path / "data" / "groups.csv").write_text("ID,group\n" + groups)
    damaged = dict.fromkeys(ids[::7], "damaged")
    make_store(tmp_path / "a.h5", {"train": dict(zip(ids, X, strict=True))}, damaged)
    make_store(tmp_path / "b.h5", {"train": dict(zip(ids[::-1], X[::-1], strict=True))}, {ids[3]: "damaged"})
    return tmp_path


def load(place: Path, store: str = "a") -> LabelledStore:
    return LabelledStore.load(place / f"{store}.h5", place / "data")


def fit(place: Path, store: str = "a", **given: object) -> list[str]:
    with reported() as lines:
        fit_run("ridge", place / f"{store}.h5", place / "data", place / store, **{"decoder": "global"} | given)  # type: ignore[arg-type]
    return lines


def test_the_images_are_chosen_by_their_ids_alone(place: Path) -> None:
    one, other = (load(place, name).train.tuning for name in "ab")
    assert set(one.ids) == set(other.ids)
    assert one.ids != other.ids
    assert abs(len(one.ids) - N_TUNING) < 4 * N_TUNING**0.5


def test_fewer_images_are_all_taken(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_module, "TUNING_IMAGES", N_IMAGES)
    train = load(place).train
    assert train.tuning is train
    assert train.tuning_rows.tolist() == list(range(len(train.X)))


def test_labels_groups_and_features_are_those_of_the_chosen_images(place: Path) -> None:
    train = load(place).train
    tuning, rows = train.tuning, train.tuning_rows
    assert not tuning.readable.all()
    assert [train.readable_ids[row] for row in rows] == tuning.readable_ids
    np.testing.assert_array_equal(train.X[rows], tuning.X)
    np.testing.assert_array_equal(train.Y[rows].toarray(), tuning.Y.toarray())
    assert train.groups is not None
    np.testing.assert_array_equal(train.groups[rows], tuning.groups)
    assert tuning.fallback == train.fallback


@pytest.mark.parametrize("name", ["ridge", "kernel", "knn"])
def test_their_scores_are_those_of_heads_that_learnt_from_all_other_folds(place: Path, name: str) -> None:
    head, train = make_head(name), load(place).train
    expected = out_of_fold_scores(head, train)
    assert len(expected) == len(train.X)
    np.testing.assert_allclose(tuning_scores(head, train), expected[train.tuning_rows], atol=1e-5)
    crossed = CrossFit(head, train.X, train.Y, train.groups)
    np.testing.assert_allclose(crossed.score_folds(train.tuning_rows), expected[train.tuning_rows], atol=1e-5)


def test_a_run_is_tuned_on_them_and_decodes_again_without_a_fit(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(place)
    train = load(place).train
    scores = tuning_scores(make_head("ridge"), train)
    decoder = make_decoder("global").fit(scores, train.tuning.Y)
    assert Run.load(place / "a").decoder.get_state() == decoder.get_state()
    size = (place / "a" / SCORES).stat().st_size
    assert 2 * scores.size < size < 2 * scores.size + 500
    monkeypatch.setattr("heads.estimators.ridge.RidgeHead._fit", lambda *_: pytest.fail("fitted again"))
    assert any("decodes again" in line for line in fit(place, decoder="per-concept"))


def test_the_nested_estimate_is_of_them(place: Path) -> None:
    train = load(place).train
    f1 = nested_f1(make_head("ridge"), make_decoder("global"), train)
    assert len(f1) == len(train.tuning_rows)
    assert 0.5 < f1.mean() < 1


def test_runs_on_other_stores_of_the_images_are_combined(place: Path) -> None:
    for name in "ab":
        fit(place, name)
    with reported():
        metrics = make_ensemble([place / "a", place / "b"], place / "both", "weighted", decoder="global")
    both = [set(load(place, name).train.tuning.readable_ids) for name in "ab"]
    assert metrics["folds"] is not None
    assert metrics["folds"]["n_images"] == len(both[0] & both[1])


def test_a_sweep_and_its_report_use_them(place: Path) -> None:
    with reported():
        grid = {"alpha": [1.0, 10.0]}
        sweep_runs("ridge", place / "a.h5", place / "data", place / "swept", grid, by="folds", decoder="global")
    outcome, tuning = Outcome.open(place / "swept"), load(place).train.tuning
    assert outcome.split is not None
    assert outcome.split.ids == tuning.ids
    assert len(outcome.predicted) == len(tuning.ids)
    assert sum(len(scores) for _, scores in outcome.blocks()) == len(tuning.readable_ids)


def test_a_choice_uses_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: list[int] = []
    real = leaderboard.decoder_f1
    monkeypatch.setattr(leaderboard, "decoder_f1", lambda *args: numbers.append(len(args[1])) or real(*args))
    with reported():
        leaderboard.choose(place / "a.h5", place / "data", heads=["ridge"], decoders=["global"])
    assert numbers == [len(load(place).train.tuning_rows)]
