"""Runs: what is learnt is scored officially, saved as a whole, and predicts with the same features alone."""

import json
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sparse
from conftest import PROVENANCE, make_store, reported, reseal

from cache.support.errors import UserError
from eval.editions import find_edition
from eval.scored_file import score_files
from heads.data.store import LabelledStore
from heads.data.vocabulary import fallback_set
from heads.decoders.thresholds import GlobalThreshold
from heads.ensembles.builder import make_ensemble
from heads.ensembles.prediction import predict_run
from heads.estimators.base import Head
from heads.estimators.logistic import LogisticHead
from heads.evaluation.out_of_fold import out_of_fold_scores
from heads.runs import builder
from heads.runs.builder import fit_run
from heads.runs.files import FORMAT
from heads.runs.request import DEFAULTS
from heads.runs.run import Run

CONCEPTS = ["C0040405", "C1306645", "C0817096", "C7"]


def write_labels(path: Path, rows: dict[str, tuple[str, ...]]) -> None:
    path.write_text("ID,CUIs\n" + "".join(f"{id},{';'.join(concepts)}\n" for id, concepts in rows.items()))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A data folder whose concepts can be read off the embeddings, and its store."""
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    splits: dict[str, dict[str, np.ndarray]] = {}
    for split, n_images in (("train", 80), ("valid", 20), ("test", 10)):
        X = random.normal(size=(n_images, 4))
        ids = [f"{split}_{number:03d}" for number in range(n_images)]
        positive = [tuple(np.array(CONCEPTS)[row]) or ("C0040405",) for row in X > 0.5]
        splits[split] = dict(zip(ids, X, strict=True))
        if split == "test":
            write_labels(tmp_path / "data" / "test_ids.csv", dict.fromkeys(reversed(ids), ()))
        else:
            write_labels(tmp_path / "data" / f"{split}_concepts.csv", dict(zip(ids, positive, strict=True)))
            manual = {id: tuple(c for c in each if c != "C7") for id, each in zip(ids, positive, strict=True)}
            write_labels(tmp_path / "data" / f"{split}_concepts_manual.csv", manual)
    make_store(
        tmp_path / "s.h5", splits, unreadable={"train_001": "empty file", "valid_002": "damaged", "test_003": "damaged"}
    )
    return tmp_path


def fit(
    place: Path, name: str = "logistic", decoder: str | None = "fixed:0.3", options: Any = None, **params: Any
) -> tuple[dict[str, Any], list[str]]:
    given = {"params": params if decoder else None, "decoder": decoder} | (options or {})
    paths = place / "s.h5", place / "data", place / "run"
    with reported() as lines:
        return fit_run(name, *paths, **given), lines


def predict(place: Path, split: str = "test", year: int = 2026) -> list[str]:
    with reported() as lines:
        predict_run(place / "run", place / "s.h5", place / "data", split=split, edition=year)
    return lines


def test_the_saved_scores_are_the_official_scores_of_the_saved_submission(place: Path) -> None:
    metrics, _ = fit(place)
    truth, manual = place / "data" / "valid_concepts.csv", place / "data" / "valid_concepts_manual.csv"
    scores = score_files(place / "run" / "valid.csv", truth, manual, find_edition(2026))
    assert metrics["valid"]["primary"] == pytest.approx(scores.primary, abs=1e-12)
    assert metrics["valid"]["secondary"] == pytest.approx(scores.secondary, abs=1e-12)
    assert scores.primary > 0.5
    assert json.loads((place / "run" / "metrics.json").read_text()) == metrics


def test_the_digests_of_a_request_stay_the_same(tmp_path: Path) -> None:
    """So a run that another release of this version has made is up to date."""
    (tmp_path / "data").mkdir()
    splits = {split: {f"{split}_{n}": np.arange(3) * n + 1 for n in range(6)} for split in ("train", "valid")}
    make_store(tmp_path / "s.h5", splits, {"train_2": "damaged"})
    for split, rows in splits.items():
        labels = {id: (("C1", "C2"), ("C1",))[n % 2] for n, id in enumerate(rows)}
        write_labels(tmp_path / "data" / f"{split}_concepts.csv", labels)
    write_labels(tmp_path / "data" / "groups.csv", {f"train_{n}": (f"p{n // 2}",) for n in range(6)})
    paths = tmp_path / "s.h5", tmp_path / "data"
    with reported():
        one = fit_run("ridge", *paths, tmp_path / "a", params={"alpha": 2.5}, decoder="global")
        two = fit_run("prior", *paths, tmp_path / "b", decoder="fixed:0.5", concepts=["C2"], tune="valid")
        both = make_ensemble([tmp_path / "a", tmp_path / "b"], tmp_path / "c", "weighted", decoder="top-k:1")
    assert one["requests"] == {
        "head": "6a474ca3273e93a4a116fe58827ce90882c26a7c9fa800d7c84d0da035ba09bc",
        "whole": "4c86fb4f4cc46683b3b917fcf20c315e16b3ac0081f5eec71c02e93364ff6f71",
    }
    assert two["requests"] == {
        "head": "4ecff346fe3b924b88fee700f1f397199cb77f633f0e340939bf994fdd67eeab",
        "whole": "3eaa87f4ebf8ab7bb424f31a4a536c8ebb87a49c13f9f60e67e2459ebc864b8c",
    }
    assert both["requests"] == {"head": "", "whole": "11bc1114ff2d7ff88d895a9f4a6fe1b4772ffd924d05b3f1d4e6e0946e18a364"}


def test_scores_of_valid_are_in_memory_by_blocks(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = fit(place, decoder="global")
    saved = (place / "run" / "valid.csv").read_bytes()
    scored: list[int] = []
    score = Run.score
    monkeypatch.setattr("heads.runs.run.BLOCK_IMAGES", 7)
    monkeypatch.setattr(Run, "score", lambda run, X: scored.append(len(X)) or score(run, X))
    (place / "run" / "metrics.json").unlink()
    assert fit(place, decoder="global")[0]["valid"] == whole["valid"]
    assert (place / "run" / "valid.csv").read_bytes() == saved
    assert scored == [6, 7, 6]  # one of the first block cannot be read


def test_a_real_head_beats_the_floor(place: Path) -> None:
    floor = fit(place, "prior")[0]["valid"]["primary"]
    assert fit(place)[0]["valid"]["primary"] > floor + 0.1


def test_everything_a_result_needs_is_saved(place: Path) -> None:
    metrics, _ = fit(place, C=0.5)
    assert metrics["params"] == {"C": 0.5, "class_weight": None, "n_jobs": None}
    assert metrics["store"]["fingerprint"] == PROVENANCE.fingerprint
    assert metrics["train"] == {
        "splits": "train", "n_images": 79, "n_unreadable": 1, "n_concepts": 4, "ever_present": 0,
        "valid_concepts_unseen": 0,
    }  # fmt: skip
    assert set(metrics["seconds"]) == {"load", "fit", "score", "decode"}
    assert metrics["versions"]["scikit-learn"]
    assert metrics["valid"]["n_unreadable"] == 1


def test_unreadable_training_images_are_left_out_with_a_warning(place: Path) -> None:
    assert "1 training images cannot be read and were left out" in fit(place)[1]


def test_a_score_on_the_images_that_tuned_it_says_so(place: Path) -> None:
    metrics, lines = fit(place, decoder="global", options={"tune": "valid"})
    assert metrics["valid"]["note"] == "the decoder was tuned on these images: optimistic"
    assert "tuned on valid, so its valid score is optimistic" in lines[-1]
    assert fit(place)[0]["valid"]["note"] is None


def test_a_decoder_is_tuned_on_scores_of_heads_that_did_not_see_the_image(place: Path) -> None:
    metrics, lines = fit(place, decoder="global")
    assert metrics["decoder"]["tuned_on"] == "folds"
    assert metrics["valid"]["note"] is None
    assert "tuned on folds of train" in lines[-1]
    train = LabelledStore.load(place / "s.h5", place / "data").train
    head = LogisticHead().fit(train.X, train.Y)
    unseen, seen = (
        GlobalThreshold().fit(scores, train.Y).threshold_
        for scores in (out_of_fold_scores(LogisticHead(), train), head.predict_proba(train.X))
    )
    assert Run.load(place / "run").decoder.threshold_ == unseen != seen


def test_labels_of_valid_tune_only_on_request(place: Path) -> None:
    fit(place, decoder="global")
    before = (place / "run" / "decoder.json").read_bytes()
    rows = (place / "data" / "valid_concepts.csv").read_text().split()[1:]
    write_labels(place / "data" / "valid_concepts.csv", {row.split(",")[0]: ("C7",) for row in rows})
    fit(place, decoder="global")
    assert (place / "run" / "decoder.json").read_bytes() == before
    fit(place, decoder="global", options={"tune": "valid"})
    assert (place / "run" / "decoder.json").read_bytes() != before


def test_groups_may_stand_in_a_table_of_sources(place: Path) -> None:
    ids = [f"{split}_{n:03d}" for split, n_images in (("train", 80), ("valid", 20)) for n in range(n_images)]
    rows = "".join(f'{id},{"p" * (n % 5)},"CC, BY"\n' for n, id in enumerate(ids))
    (place / "data" / "sources.csv").write_text("ID,group,licence\n" + rows)
    with reported():
        source = LabelledStore.load(place / "s.h5", place / "data")
    assert source.valid is not None
    assert source.train.groups is not None
    assert source.valid.groups is not None
    # 16 of the 80 and 4 of the 20 have no group, and are each one by itself; one each cannot be read.
    sizes = [sorted(np.bincount(each)) for each in (source.train.groups, source.valid.groups)]
    assert sizes == [[1] * 16 + [15, 16, 16, 16], [1] * 4 + [3, 4, 4, 4]]
    ungrouped = fit(place, decoder="global")[0]["requests"]
    (place / "data" / "sources.csv").write_text("ID,licence\ntrain_000,CC\n")
    with reported():
        assert LabelledStore.load(place / "s.h5", place / "data").train.groups is None
    assert fit(place, decoder="global")[0]["requests"] != ungrouped


def test_what_is_gained_on_held_out_folds_is_reported(place: Path) -> None:
    metrics, lines = fit(place, decoder="per-concept")
    report = metrics["decoder"]["report"]
    assert 0 < report["held_out_f1"] <= 1
    assert f"a gain of {report['gain']:.4f} on held-out folds over one threshold" in lines[-1]


def test_a_nested_estimate_sees_nothing_of_what_it_scores(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[set[bytes], set[bytes]]] = []
    fit_head, score = LogisticHead.fit, LogisticHead.predict_proba

    def rows(X: np.ndarray) -> set[bytes]:
        return {np.asarray(row).tobytes() for row in X}

    def watch_fit(self: LogisticHead, X: Any, Y: Any, **options: Any) -> LogisticHead:
        self.learnt_from = rows(X)  # type: ignore[attr-defined]
        return fit_head(self, X, Y, **options)

    def watch_score(self: LogisticHead, X: Any) -> np.ndarray:
        seen.append((self.learnt_from, rows(X)))  # type: ignore[attr-defined]
        return score(self, X)

    fit(place, decoder="global")
    monkeypatch.setattr(builder, "check_restores", lambda *args: None)  # a restored head has not been watched
    # Heads that share work between folds are compared with this in test_heads.py.
    monkeypatch.setattr(LogisticHead, "fit_folds", Head.fit_folds)
    monkeypatch.setattr(LogisticHead, "fit", watch_fit)
    monkeypatch.setattr(LogisticHead, "predict_proba", watch_score)
    metrics, lines = fit(place, decoder="global", options={"nested": True}, C=0.5)
    estimate = metrics["nested"]
    assert estimate["n_images"] == 79
    assert f"nested primary F1 {estimate['primary']:.4f} [" in lines[-1]
    assert f"{metrics['valid']['primary']:.4f}" in lines[-1]
    # Valid, five folds for the decoder; then for each fold five inner ones and the fold itself.
    assert len(seen) == 1 + 5 + 5 * (5 + 1)
    assert not any(learnt & scored for learnt, scored in seen)
    for number in range(5):
        *inner, (_, held) = seen[6 + 6 * number : 12 + 6 * number]
        assert not any(held & (learnt | scored) for learnt, scored in inner)


def test_a_decoder_tuned_on_valid_is_estimated_there_by_folds(place: Path) -> None:
    labels = place / "data" / "valid_concepts.csv"
    rows = [row.split(",")[0] for row in labels.read_text().split()[1:]]
    random = np.random.default_rng(0)
    drawn = {id: tuple(random.choice(CONCEPTS, 2, replace=False)) for id in rows}
    write_labels(labels, drawn)  # of noise, there is nothing to tune
    metrics, _ = fit(place, decoder="per-concept", options={"tune": "valid", "nested": True})
    assert metrics["nested"]["on"] == "valid"
    assert metrics["nested"]["n_images"] == 19
    assert metrics["valid"]["note"]
    assert metrics["nested"]["primary"] < metrics["valid"]["primary"]


def test_an_estimate_is_made_only_on_request_and_follows_the_run(place: Path) -> None:
    assert fit(place)[0]["nested"] is None
    metrics, _ = fit(place, options={"nested": True})
    assert metrics["nested"]["on"] == "train"
    assert "up to date" in fit(place, decoder=None)[1][-1]


def test_another_decoder_uses_the_saved_out_of_fold_scores(place: Path) -> None:
    first, _ = fit(place, decoder="global")
    assert "folds" in first["seconds"]
    fit(place, decoder="fixed:0.5")
    again, _ = fit(place, decoder="global")
    assert "folds" not in again["seconds"]
    assert again["valid"] == first["valid"]
    other, _ = fit(place, decoder="global", C=0.5)
    assert "folds" in other["seconds"]


def test_valid_joins_train_after_everything_else_is_chosen(place: Path) -> None:
    alone, _ = fit(place, decoder="global")
    before = (place / "run" / "decoder.json").read_bytes(), (place / "run" / "valid.csv").read_bytes()
    both, lines = fit(place, decoder="global", options={"train": "train+valid"})
    assert ((place / "run" / "decoder.json").read_bytes(), (place / "run" / "valid.csv").read_bytes()) == before
    assert both["valid"] == alone["valid"]
    assert "before valid joined train" in lines[-1]
    head = Run.load(place / "run").head
    with reported():
        source = LabelledStore.load(place / "s.h5", place / "data")
    splits = source.train, source.valid
    expected = LogisticHead().fit(
        np.concatenate([each.X for each in splits]), sparse.vstack([each.Y for each in splits])
    )
    np.testing.assert_array_equal(head.coef_, expected.coef_)


def test_images_of_one_group_are_held_out_together(place: Path) -> None:
    from heads.data.folds import split_folds

    ids = [f"train_{number:03d}" for number in range(80)]
    (place / "data" / "groups.csv").write_text("ID,group\n" + "".join(f"{id},p{n % 7}\n" for n, id in enumerate(ids)))
    with reported():
        source = LabelledStore.load(place / "s.h5", place / "data")
    groups = source.train.groups
    assert groups is not None
    for rest, held in split_folds(79, groups):
        assert not set(groups[rest]) & set(groups[held])
    assert fit(place, decoder="global")[0]["decoder"]["tuned_on"] == "folds"
    (place / "data" / "groups.csv").write_text("ID,group\ntrain_000,p1\n")
    with pytest.raises(UserError, match="78 training images have no group, such as 'train_002'"):
        fit(place)


def test_one_of_several_poolings_may_be_learnt_from(place: Path) -> None:
    both = replace(PROVENANCE, pooling="avg,gem")
    random = np.random.default_rng(0)
    splits = {split: {id: random.normal(size=4) for id in ids} for split, ids in ids_of(place)}
    make_store(place / "s.h5", splits, provenance=both)
    assert fit(place, options={"pooling": "gem"})[0]["pooling"] == "gem"
    assert Run.load(place / "run").head.n_features_in_ == 2
    assert "10 images" in predict(place)[-1]
    make_store(place / "s.h5", {name: {id: x[2:] for id, x in rows.items()} for name, rows in splits.items()},
                provenance=replace(PROVENANCE, pooling="gem"))  # fmt: skip
    assert "10 images" in predict(place)[-1]
    with pytest.raises(UserError, match="no features 'max'; there are gem"):
        fit(place, options={"pooling": "max"})


def test_a_store_of_maps_is_refused(place: Path) -> None:
    maps = {split: {id: np.ones((2, 2, 3)) for id in ids} for split, ids in ids_of(place)}
    make_store(place / "s.h5", maps, provenance=replace(PROVENANCE, pooling="none"))
    with pytest.raises(UserError, match=r"holds maps after relu \(POOLING=none\), expected embeddings.*HEAD=tail"):
        fit(place)


def test_the_same_request_does_nothing_again(place: Path) -> None:
    fit(place)
    before = {path.name: path.stat().st_mtime_ns for path in (place / "run").iterdir()}
    _, lines = fit(place)
    assert ["up to date" in line for line in lines] == [True]
    assert {path.name: path.stat().st_mtime_ns for path in (place / "run").iterdir()} == before


@pytest.mark.parametrize("change", ["params", "decoder", "labels", "store", "head"])
def test_any_other_request_trains_again_and_says_what_it_replaces(place: Path, change: str) -> None:
    fit(place)
    predict(place)
    if change == "labels":
        rows = (place / "data" / "train_concepts.csv").read_text().splitlines()
        (place / "data" / "train_concepts.csv").write_text("\n".join([*rows[:-1], rows[-1] + ";C9"]))
    if change == "store":
        make_store(
            place / "s.h5", {split: {id: np.arange(4) + n for n, id in enumerate(ids)} for split, ids in ids_of(place)}
        )
    name = "prior" if change == "head" else "logistic"
    _, lines = fit(
        place,
        name,
        decoder="global" if change == "decoder" else "fixed:0.3",
        **({"C": 2.0} if change == "params" else {}),
    )
    assert any(("decodes again" if change == "decoder" else "replaces") + " an earlier run" in line for line in lines)
    # The earlier head's submission must not be handed in as the new one's.
    assert not (place / "run" / "submission.csv").exists()
    assert not (place / "run" / "submission.zip").exists()


def ids_of(place: Path) -> list[tuple[str, list[str]]]:
    from cache.store import FeatureStore

    return [(name, split.ids) for name, split in FeatureStore(place / "s.h5").splits.items()]


def test_a_submission_has_the_official_ids_in_their_order(place: Path) -> None:
    fit(place)
    lines = predict(place)
    rows = (place / "run" / "submission.csv").read_text().splitlines()
    assert rows[0] == "ID,CUIs"
    assert [row.split(",")[0] for row in rows[1:]] == [f"test_{number:03d}" for number in reversed(range(10))]
    assert "passes the check of 2026; hand in" in lines[-1]
    assert predict(place) == [f"{place / 'run' / 'submission.zip'}: up to date (10 images, passed the check of 2026)"]
    assert "passes the check of 2024" in predict(place, year=2024)[-1]


def test_a_submission_that_was_changed_by_hand_is_written_again(place: Path) -> None:
    fit(place)
    predict(place)
    path = place / "run" / "submission.csv"
    right = path.read_text()
    path.write_text(right + "one more,C1\n")
    predict(place)
    assert path.read_text() == right


def test_an_unreadable_image_gets_the_set_that_scores_best_on_train(place: Path) -> None:
    fit(place)
    lines = predict(place)
    assert any(
        "test: 1 images cannot be read (test_003); they get the most frequent concepts of train" in line
        for line in lines
    )
    fallback = Run.load(place / "run").fallback
    assert f"test_003,{';'.join(fallback)}" in (place / "run" / "submission.csv").read_text().splitlines()


def test_the_fallback_set_is_the_best_of_all_sets_of_frequent_concepts() -> None:
    random = np.random.default_rng(0)
    Y = (random.random((60, 6)) < [0.9, 0.6, 0.5, 0.3, 0.1, 0.05]).astype(int)
    names = [f"C{n}" for n in range(6)]
    fallback = fallback_set(sparse.csr_matrix(Y), names, 100)

    def mean_f1(chosen: list[str]) -> float:
        given = np.isin(names, chosen).astype(int)
        return float(np.mean(2 * (Y * given).sum(1) / (given.sum() + Y.sum(1))))

    order = np.argsort(-Y.sum(0), kind="stable")
    assert mean_f1(fallback) == max(mean_f1([names[n] for n in order[: k + 1]]) for k in range(6))
    assert 1 < len(fallback) < 6
    assert len(fallback_set(sparse.csr_matrix(Y), names, 1)) == 1


def test_the_fallback_set_takes_little_memory_per_training_image() -> None:
    n_images, n_concepts = 20_000, 120
    Y = sparse.random_array((n_images, n_concepts), density=0.02, format="csr", rng=np.random.default_rng(0))
    Y.data[:] = 1
    tracemalloc.start()
    fallback_set(Y, [f"C{n:03d}" for n in range(n_concepts)], 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * n_images  # a table of the first 100 concepts alone takes 800 bytes per image


def test_ids_without_image_and_images_without_id_are_warned_about_and_every_id_has_a_row(place: Path) -> None:
    fit(place)
    write_labels(place / "data" / "test_ids.csv", {"test_000": (), "test_999": ()})
    lines = predict(place)
    assert any("1 ids have no image (test_999)" in line for line in lines)
    assert any("9 images are not in" in line for line in lines)
    assert len((place / "run" / "submission.csv").read_text().splitlines()) == 3


def test_without_a_list_of_ids_the_store_decides(place: Path) -> None:
    fit(place)
    (place / "data" / "test_ids.csv").unlink()
    predict(place)
    rows = (place / "run" / "submission.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [f"test_{number:03d}" for number in range(10)]


def test_other_features_than_those_trained_on_are_refused(place: Path) -> None:
    fit(place)
    make_store(place / "s.h5", {"test": {"test_000": np.ones(4)}}, provenance=replace(PROVENANCE, size=255))
    with pytest.raises(UserError, match=r"was trained on other features than .*size 224, not 255"):
        predict(place)


def test_labels_without_image_and_images_without_labels_are_warned_about(place: Path) -> None:
    rows = (place / "data" / "train_concepts.csv").read_text().splitlines()
    (place / "data" / "train_concepts.csv").write_text("\n".join([*rows[:-2], "nobody,C7"]))
    metrics, lines = fit(place)
    assert any("1 labels without an image are left out (nobody)" in line for line in lines)
    assert any("train: 2 images without labels are left out (train_078, train_079)" in line for line in lines)
    assert metrics["train"]["n_images"] == 77


def test_concepts_that_are_never_in_train_count_as_missed_with_a_warning(place: Path) -> None:
    before = fit(place)[0]["valid"]["primary"]
    text = (place / "data" / "valid_concepts.csv").read_text()
    (place / "data" / "valid_concepts.csv").write_text(text.replace("\n", ";C99\n").replace("CUIs;C99", "CUIs"))
    metrics, lines = fit(place)
    assert metrics["train"]["valid_concepts_unseen"] == 1
    assert any("1 concepts of valid are never in train; they count as missed" in line for line in lines)
    assert metrics["valid"]["primary"] < before


def test_labels_of_other_images_are_refused_with_an_example_of_both(place: Path) -> None:
    write_labels(place / "data" / "train_concepts.csv", {"x1": ("C1",)})
    with pytest.raises(
        UserError, match="none of its 1 ids is an image of split 'train'; it has 'x1', the images have 'train_000'"
    ):
        fit(place)


def test_missing_labels_are_refused(place: Path) -> None:
    (place / "data" / "train_concepts.csv").unlink()
    with pytest.raises(UserError, match=r"no labels for split 'train'; expected train_concepts\.csv"):
        fit(place)


def test_without_valid_a_fixed_decoder_works_and_a_tuned_one_is_refused(place: Path) -> None:
    make_store(place / "s.h5", {"train": {f"train_{n:03d}": np.arange(4) + n for n in range(80)}})
    metrics, lines = fit(place)
    assert metrics["valid"] is None
    assert "no image of valid to score on" in lines[-1]
    assert fit(place, decoder="global")[0]["decoder"]["tuned_on"] == "folds"
    with pytest.raises(UserError, match="tuned on valid, which has no image that can be read; tune by folds"):
        fit(place, decoder="global", options={"tune": "valid"})


def test_no_image_with_a_concept_is_refused(place: Path) -> None:
    write_labels(place / "data" / "train_concepts.csv", {f"train_{n:03d}": () for n in range(80)})
    with pytest.raises(UserError, match="no training image that can be read has a concept"):
        fit(place)


def test_a_folder_with_other_files_is_left_alone(place: Path) -> None:
    (place / "run").mkdir()
    (place / "run" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="has files in it and is not a run"):
        fit(place)
    assert (place / "run" / "thesis.tex").read_text() == "precious"


def test_files_of_the_user_in_a_runs_folder_stay(place: Path) -> None:
    fit(place)
    mine = [place / "run" / name for name in ("notes.txt", "submission_paper.docx", "head.txt")]
    for path in mine:
        path.write_text("precious")
    (place / "run" / "submissions").mkdir()
    fit(place, C=2.0)
    assert [path.read_text() for path in mine] == ["precious"] * 3
    assert (place / "run" / "submissions").is_dir()


def test_metrics_of_another_program_are_left_alone(place: Path) -> None:
    (place / "run").mkdir()
    (place / "run" / "metrics.json").write_text('{"acc": 1}')
    with pytest.raises(UserError, match="is not a run"):
        fit(place)
    assert (place / "run" / "metrics.json").read_text() == '{"acc": 1}'


def test_a_run_of_an_earlier_version_is_made_again(place: Path) -> None:
    before, _ = fit(place)
    for name in ("run.json", "metrics.json"):
        path = place / "run" / name
        path.write_text(path.read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT - 1}'))
    (place / "run" / "digests.json").unlink()  # earlier versions had none
    message = rf"run: a run of another version \({FORMAT - 1}\), expected {FORMAT}; make it again with `make head RUN="
    with pytest.raises(UserError, match=message):
        predict(place)
    assert fit(place)[0]["valid"] == before["valid"]


def test_a_killed_run_is_made_again(place: Path) -> None:
    fit(place)
    (place / "run" / "metrics.json").unlink()
    (place / "run" / ".head.h5.4711.tmp").write_text("half")
    metrics, lines = fit(place)
    assert metrics["valid"]["primary"] > 0.5
    assert not any("up to date" in line for line in lines)


def test_what_is_left_open_follows_the_run_that_is_there(place: Path) -> None:
    first, _ = fit(place, decoder="global", C=0.5)
    again, lines = fit(place, decoder=None)
    assert again == first
    assert "up to date" in lines[0]
    other, _ = fit(place, "prior", decoder=None)
    assert other["decoder"]["name"] == DEFAULTS["decoder"]


def test_another_decoder_does_not_train_the_head_again(place: Path) -> None:
    fit(place)
    metrics, lines = fit(place, decoder="global")
    assert "fit" not in metrics["seconds"]
    assert "decodes again" in lines[0]
    alone, _ = fit_run_elsewhere(place, "global")
    assert alone["valid"] == metrics["valid"]


def fit_run_elsewhere(place: Path, decoder: str) -> tuple[dict[str, Any], None]:
    paths = place / "s.h5", place / "data", place / "elsewhere"
    with reported():
        return fit_run("logistic", *paths, decoder=decoder), None


@pytest.mark.parametrize("name", ["metrics.json", "head.h5", "head.json", "decoder.json", "vocabulary.json"])
def test_an_unfinished_or_damaged_run_is_refused(place: Path, name: str) -> None:
    fit(place)
    (place / "run" / name).write_text("{}")
    with pytest.raises(UserError, match="make head"):
        predict(place)


def test_a_strangers_run_cannot_name_code_to_load(place: Path) -> None:
    fit(place)
    path = place / "run" / "head.json"
    path.write_text(path.read_text().replace('"logistic"', '"os:system"'))
    reseal(place)
    with pytest.raises(UserError, match="no head 'os:system'"):
        predict(place)


def test_ids_are_written_as_the_official_list_spells_them(place: Path) -> None:
    fit(place)
    ids = [f"test_{number:03d}.jpg" for number in range(10)]
    write_labels(place / "data" / "test_ids.csv", dict.fromkeys(ids, ()))
    assert not any("no image" in line for line in predict(place))
    rows = (place / "run" / "submission.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ids


def test_a_data_folder_that_is_not_there_is_refused(place: Path) -> None:
    fit(place)
    (place / "data").rename(place / "moved")
    with pytest.raises(UserError, match="no such folder"):
        predict(place)


def test_another_editions_zip_does_not_stay(place: Path) -> None:
    fit(place)
    predict(place)
    predict(place, year=2022)
    assert not (place / "run" / "submission.zip").exists()
    predict(place)
    (place / "run" / "submission.zip").unlink()
    predict(place)
    assert (place / "run" / "submission.zip").exists()


def test_predicting_valid_leaves_the_scored_file_alone(place: Path) -> None:
    fit(place)
    before = (place / "run" / "valid.csv").read_bytes()
    predict(place, "valid", 2022)
    assert (place / "run" / "valid.csv").read_bytes() == before
    assert (place / "run" / "submission_valid.csv").exists()


@pytest.mark.parametrize(
    ("manual", "message"),
    [
        ("ID,CUIs\n", "no secondary score: .*no image in it"),
        ("ID,CUIs\nvalid_000,C0040405\n", "no secondary score: image 'valid_001' is not in the manual truth"),
        ("".join(f"valid_{n:03d},\n" for n in range(20)), "no secondary score: no image of the manual truth has"),
    ],
)
def test_a_manual_file_that_cannot_be_scored_costs_the_secondary_score_alone(
    place: Path, manual: str, message: str
) -> None:
    (place / "data" / "valid_concepts_manual.csv").write_text(manual)
    (place / "data" / "train_concepts_manual.csv").write_text("not read")
    metrics, lines = fit(place)
    assert metrics["valid"]["secondary"] is None
    assert any(re.search(message, line) for line in lines)


def test_images_that_the_evaluator_skips_are_not_counted_with_a_warning(place: Path) -> None:
    ids = [f"PID_{number}" for number in range(4)] + ["valid_b"]
    random = np.random.default_rng(1)
    make_store(
        place / "s.h5",
        {
            "train": {f"train_{n:03d}": random.normal(size=4) for n in range(80)},
            "valid": {id: np.ones(4) for id in ids},
        },
    )
    rows = dict.fromkeys(ids, ("C0040405",))
    for kind in ("concepts", "concepts_manual"):
        write_labels(place / "data" / f"valid_{kind}.csv", rows)
    metrics, lines = fit(place)
    assert metrics["valid"]["n_images"] == 1
    assert any("4 images of valid have the letters ID in their id" in line for line in lines)
    truth = place / "data" / "valid_concepts.csv"
    scores = score_files(place / "run" / "valid.csv", truth, truth, find_edition(2026))
    assert metrics["valid"]["primary"] == scores.primary


def test_odd_concepts_are_warned_about_before_training(place: Path) -> None:
    rows = (place / "data" / "train_concepts.csv").read_text()
    (place / "data" / "train_concepts.csv").write_text(rows.replace("C7", "nodule"))
    assert any("1 concepts are not 'C' and digits (NODULE)" in line for line in fit(place)[1])


def test_a_row_that_is_not_finite_though_its_status_says_fine_is_refused(place: Path) -> None:
    import h5py

    with h5py.File(place / "s.h5", "a") as file:
        file["splits/train/embeddings"][5, 1] = np.nan
    with pytest.raises(UserError, match="embedding of image 'train_005' of train is not finite"):
        fit(place)


@pytest.mark.parametrize("method", ["_fit", "_scores"])
def test_a_bug_in_a_head_is_not_blamed_on_the_user(place: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogisticHead, method, lambda self, *args: np.ones(3) + np.ones(4))
    with pytest.raises(ValueError, match="could not be broadcast") as caught:
        fit(place)
    assert not isinstance(caught.value, UserError)


def test_a_parameter_that_does_not_fit_the_data_is_one_line(place: Path) -> None:
    with pytest.raises(UserError, match="C has 2 values, expected one, or one per concept"):
        fit(place, C=[1.0, 2.0])


def test_a_run_learns_the_given_concepts_and_warns_about_one_that_is_in_no_image(place: Path) -> None:
    with reported():
        concept = LabelledStore.load(place / "s.h5", place / "data").vocabulary[0]
    metrics, lines = fit(place, decoder="fixed:0.5,empty", options={"concepts": [concept, "C9999999"]})
    assert metrics["train"]["n_concepts"] == 2
    assert Run.load(place / "run").vocabulary == sorted([concept, "C9999999"])
    assert any("1 of the concepts to learn are in no training image (C9999999)" in line for line in lines)
    metrics, lines = fit(place, decoder="fixed:0.5,empty", options={"concepts": [concept]})
    assert metrics["train"]["n_concepts"] == 1
    assert not any("concepts to learn" in line for line in lines)
