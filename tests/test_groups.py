"""Images of one group, such as a patient's, never stand on both sides: of a fold, of a tuning, of an estimate.

Here an embedding identifies its group, and the concepts are those of the group. Who has seen another image of the
group knows the concepts; who has not, knows nothing. So held-out F1 is near 1 where groups leak, and near that of the
concepts' frequencies where they do not.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from conftest import make_store, reported
from sklearn.base import clone
from sklearn.model_selection import GroupKFold

from cache.support.errors import DataError
from eval.f1 import image_f1
from eval.files import Limit
from heads.data.groups import find_groups
from heads.data.rounding import unpack_scores
from heads.data.store import LabelledStore
from heads.decoders.thresholds import GlobalThreshold
from heads.ensembles.builder import make_ensemble
from heads.ensembles.ensemble import Ensemble
from heads.estimators.knn import KNeighborsHead
from heads.evaluation.cross_validation import nested_f1
from heads.registry import DECODERS
from heads.runs.builder import fit_run
from heads.runs.folder import SCORES
from heads.selection.leaderboard import choose
from heads.selection.sweep import sweep_runs

N_GROUPS, GROUP_IMAGES, N_CONCEPTS = 30, 5, 12
LEAK, CHANCE = 0.7, 0.05
"""F1 that only a leak reaches, and how far chance may lift a head above the frequencies."""

K = 4
"""Neighbours: the other images of the group, if they may be seen."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A store whose embeddings identify their groups, labels that are constant within a group, and the groups."""
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    splits: dict[str, dict[str, np.ndarray]] = {}
    groups = []
    for split, n_groups in (("train", N_GROUPS), ("valid", 8)):
        directions = random.normal(size=(n_groups, 16))
        concepts = random.random((n_groups, N_CONCEPTS)) < 0.3
        concepts[np.arange(n_groups), random.integers(0, N_CONCEPTS, n_groups)] = True
        ids = [f"{split}_{number:03d}" for number in range(n_groups * GROUP_IMAGES)]
        group_of = random.permutation(np.repeat(np.arange(n_groups), GROUP_IMAGES))
        X = directions[group_of] + 0.01 * random.normal(size=(len(ids), 16))
        splits[split] = dict(zip(ids, X, strict=True))
        names = np.array([f"C{number}" for number in range(N_CONCEPTS)])
        rows = [f"{id},{';'.join(names[concepts[group]])}" for id, group in zip(ids, group_of, strict=True)]
        (tmp_path / "data" / f"{split}_concepts.csv").write_text("\n".join(["ID,CUIs", *rows, ""]))
        groups += [f"{id},{split}{group}" for id, group in zip(ids, group_of, strict=True)]
    (tmp_path / "data" / "groups.csv").write_text("\n".join(["ID,group", *groups, ""]))
    make_store(tmp_path / "s.h5", splits)
    return tmp_path


def forget_groups(place: Path) -> None:
    (place / "data" / "groups.csv").unlink()


def fit(place: Path, head: str, run: str = "run", **options: Any) -> dict[str, Any]:
    options = {"params": {"k": K} if head == "knn" else {}, "decoder": "global"} | options
    with reported():
        return fit_run(head, place / "s.h5", place / "data", place / run, **options)


def join(place: Path, runs: tuple[str, ...], method: str = "mean", **options: Any) -> dict[str, Any]:
    shutil.rmtree(place / "both", ignore_errors=True)
    with reported():
        return make_ensemble([place / run for run in runs], place / "both", method, **options)


def out_of_fold_f1(place: Path, head: str) -> float:
    """F1 of the out-of-fold scores that a run saves, at the best threshold for them."""
    fit(place, head)
    Y = LabelledStore.load(place / "s.h5", place / "data").train.Y
    scores = unpack_scores(np.load(place / "run" / SCORES))
    return float(image_f1(Y, GlobalThreshold().fit(scores, Y).predict(scores)).mean())


def chosen_f1(place: Path, head: str) -> float:
    with reported():
        (row,) = choose(place / "s.h5", place / "data", heads=[head], decoders=["global"])
    return float(row["folds"])


def swept_f1(place: Path, head: str) -> float:
    grid = {"k": [K]} if head == "knn" else {}
    with reported():
        if not grid:  # there is nothing to sweep
            return chosen_f1(place, head)
        (row,) = sweep_runs(head, place / "s.h5", place / "data", place / "sweep", grid, by="folds", decoder="global")
    return float(row["folds"])


def joined_f1(place: Path, head: str) -> float:
    """F1 that an ensemble of a head with itself estimates on folds of train."""
    fit(place, head, "a", decoder="fixed:0.5")
    fit(place, head, "b", decoder="fixed:0.5")
    return float(join(place, ("a", "b"), decoder="global", nested=True)["nested"]["primary"])


def nested_estimate(place: Path, head: str) -> float:
    return float(fit(place, head, nested=True)["nested"]["primary"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "ID,group,note\na,p1,x\nb,p2," + "x" * 131_073,
            r"line 3: field larger than field limit \(131072\); expected a",
        ),
        ("ID,group," + "x" * 131_073 + "\na,p1,x\n", r"line 1: field larger than field limit"),
        ('ID,group\na,p1\nb,"' + "\n" * 131_073, r"line 3: field larger than field limit"),
        ("ID,group\na,p1\nb,Müller\n".encode("cp1252"), "not a text file in UTF-8; mend the file"),
        ("ID,group\na,p1\nb,p2\n".encode("utf-16"), "not a text file in UTF-8; mend the file"),
        ("ID,group\na,p1\nb,p2\n".encode("utf-16-le"), "has zero bytes, as UTF-16 has, expected UTF-8; mend"),
        ("ID,group\na\0,p1\nb,p2\n", "1 training images have no group, such as 'a'"),
        ('ID,group\na,"p1\nb,p2', "1 training images have no group, such as 'b'"),
    ],
)
def test_a_table_of_sources_that_cannot_be_read_is_one_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "sources.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        find_groups(tmp_path, ["a", "b"], [])
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["groups.csv", "sources.csv"])
def test_groups_may_be_of_more_images_than_any_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("eval.files.TASK", Limit(100, 10, "any file of the task"))
    ids = [f"img_{row}" for row in range(1000)]
    (tmp_path / name).write_text("ID,group\n" + "".join(f"{id},p{row // 2}\n" for row, id in enumerate(ids)))
    groups, _ = find_groups(tmp_path, ids, [])
    assert groups is not None
    assert len(set(groups)) == 500


def test_a_table_of_sources_without_groups_gives_none(tmp_path: Path) -> None:
    for content in ("", "\n", "ID,licence\na,CC\n", "ID;group\na;p1\n", "\ufeff"):
        (tmp_path / "sources.csv").write_text(content, encoding="utf-8")
        assert find_groups(tmp_path, ["a", "b"], []) == (None, None)


@pytest.mark.parametrize("estimate", [out_of_fold_f1, chosen_f1, swept_f1, joined_f1, nested_estimate])
def test_a_held_out_score_knows_nothing_of_a_group_that_is_held_out(
    place: Path, estimate: Callable[[Path, str], float]
) -> None:
    floor, grouped = estimate(place, "prior"), estimate(place, "knn")
    assert grouped <= floor + CHANCE
    forget_groups(place)
    for run in ("run", "sweep", "a", "b"):
        shutil.rmtree(place / run, ignore_errors=True)
    assert estimate(place, "knn") >= LEAK > floor + CHANCE


def test_the_nested_estimate_is_that_of_two_grouped_cross_validations(place: Path) -> None:
    train = LabelledStore.load(place / "s.h5", place / "data").train
    expected = np.empty(len(train.X))
    for rest, held in GroupKFold(5).split(train.X, groups=train.groups):
        X, Y, groups = train.X[rest], train.Y[rest], train.groups[rest]
        inner = np.empty(Y.shape, np.float32)
        for seen, unseen in GroupKFold(5).split(X, groups=groups):
            inner[unseen] = KNeighborsHead(K).fit(X[seen], Y[seen]).predict_proba(X[unseen])
        decoder = GlobalThreshold().fit(inner, Y)
        scores = KNeighborsHead(K).fit(X, Y).predict_proba(train.X[held])
        expected[held] = image_f1(train.Y[held], decoder.predict(scores))
    np.testing.assert_array_equal(nested_f1(KNeighborsHead(K), GlobalThreshold(), train), expected)


class Witness(GlobalThreshold):
    """Keeps what every fit was given, its clones' fits too."""

    seen: list[tuple[np.ndarray, scipy.sparse.csr_matrix, Any, Any]] = []  # noqa: RUF012

    def fit(self, scores: np.ndarray, Y: scipy.sparse.csr_matrix, n_true: Any = None, groups: Any = None) -> "Witness":
        self.seen.append((scores, Y, n_true, groups))
        super().fit(scores, Y, n_true, groups)
        return self


@pytest.fixture
def witness(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, scipy.sparse.csr_matrix, Any, Any]]:
    """What every decoder called `witness` is fitted to."""
    monkeypatch.setitem(DECODERS, "witness", f"{__name__}:Witness")
    monkeypatch.setattr(Witness, "seen", [])
    return Witness.seen


def test_a_decoder_is_told_the_groups_of_what_it_is_fitted_to(place: Path, witness: list[Any]) -> None:
    data = LabelledStore.load(place / "s.h5", place / "data")
    fit(place, "knn", decoder="witness")
    fit(place, "knn", decoder="witness", tune="valid")
    with reported():
        choose(place / "s.h5", place / "data", heads=["knn"], decoders=["witness"])
        sweep_runs("knn", place / "s.h5", place / "data", place / "sweep", {"k": [K]}, by="folds", decoder="witness")
    fit(place, "knn", "a", decoder="fixed:0.5")
    fit(place, "prior", "b", decoder="fixed:0.5")
    join(place, ("a", "b"), decoder="witness")
    join(place, ("a", "b"), decoder="witness", tune="valid")
    whole = {len(data.train.X): data.train.groups, len(data.valid.X): data.valid.groups}
    n_whole = 0
    for scores, _, _, groups in witness:
        assert groups is not None
        assert len(groups) == len(scores)
        if len(scores) in whole:  # and not some folds of it
            np.testing.assert_array_equal(groups, whole[len(scores)])
            n_whole += 1
    assert n_whole == 6


def test_a_decoder_is_fitted_to_whole_groups_when_it_is_cross_validated(place: Path, witness: list[Any]) -> None:
    data = LabelledStore.load(place / "s.h5", place / "data")
    fit(place, "knn", decoder="witness", nested=True)
    fit(place, "knn", "a", decoder="fixed:0.5")
    join(place, ("a", "a"), decoder="witness", nested=True)
    with reported():
        choose(place / "s.h5", place / "data", heads=["knn"], decoders=["witness"])
    part_fits = [groups for scores, _, _, groups in witness if len(scores) < len(data.train.X)]
    assert len(part_fits) >= 15
    for groups in part_fits:
        _, counts = np.unique(groups, return_counts=True)
        assert set(counts) == {GROUP_IMAGES}


def test_a_decoder_never_sees_scores_of_a_head_that_knows_the_image(place: Path, witness: list[Any]) -> None:
    data = LabelledStore.load(place / "s.h5", place / "data")
    head = KNeighborsHead(1)
    in_sample = head.fit(data.train.X, data.train.Y).predict_proba(data.train.X)
    fit(place, "knn", decoder="witness", params={"k": 1})
    fit(place, "knn", "a", decoder="fixed:0.5", params={"k": 1})
    join(place, ("a", "a"), decoder="witness")
    assert len([scores for scores, _, _, _ in witness if scores.shape == in_sample.shape]) == 2
    for scores, Y, _, _ in witness:
        assert not np.array_equal(scores, in_sample)
        # The image nearest to one that was learnt from is this image itself, and its scores are its labels.
        assert not np.array_equal(scores, Y.toarray())


@pytest.mark.parametrize("method", ["weighted", "stack"])
def test_an_ensemble_learns_its_weights_from_held_out_scores(place: Path, method: str) -> None:
    """In sample the nearest image knows everything; held out it knows nothing, and weighs next to nothing."""
    fit(place, "knn", "a", decoder="fixed:0.5", params={"k": 1})
    fit(place, "prior", "b", decoder="fixed:0.5")
    assert abs(join(place, ("a", "b"), method, decoder="fixed:0.5")["params"]["numbers"][0]) < 0.1


def test_scores_of_folds_without_groups_are_not_used_once_there_are_groups(place: Path) -> None:
    groups = (place / "data" / "groups.csv").read_text()
    forget_groups(place)
    for run in ("a", "b"):
        fit(place, "knn", run)  # saves out-of-fold scores
    saved = (place / "a" / SCORES).read_bytes()
    leaking = join(place, ("a", "b"), decoder="global", nested=True)
    (place / "data" / "groups.csv").write_text(groups)
    grouped = join(place, ("a", "b"), decoder="global", nested=True)
    assert grouped["requests"] != leaking["requests"]
    assert grouped["nested"]["primary"] < LEAK < leaking["nested"]["primary"]
    # The member's own scores stay those of its request, in case the groups go again.
    assert (place / "a" / SCORES).read_bytes() == saved


def test_a_vote_of_three_is_the_majority_of_their_sets(place: Path) -> None:
    for name, decoder in (("a", "top-k:1"), ("b", "top-k:3"), ("c", "top-k:5")):
        fit(place, "knn", name, decoder=decoder)
    predicted = {}
    for method in ("vote", "union", "intersection"):
        join(place, ("a", "b", "c"), method)
        predicted[method] = Ensemble.load(place / "both").predict("valid")
    sizes = {method: {len(concepts) for concepts in sets} for method, sets in predicted.items()}
    assert sizes == {"vote": {3}, "union": {5}, "intersection": {1}}


def test_tuning_on_valid_counts_concepts_without_a_column(place: Path, witness: list[Any]) -> None:
    path = place / "data" / "valid_concepts.csv"
    header, *rows = path.read_text().split()
    path.write_text("\n".join([header, *(f"{row};C999" for row in rows), ""]))
    valid = LabelledStore.load(place / "s.h5", place / "data").valid
    fit(place, "knn", decoder="witness", tune="valid")
    fit(place, "knn", "a", decoder="fixed:0.5")
    join(place, ("a", "a"), decoder="witness", tune="valid")
    assert len(witness) == 2
    for _, Y, n_true, _ in witness:
        np.testing.assert_array_equal(n_true, [len(concepts) for concepts in valid.concepts])
        assert (n_true == np.diff(Y.indptr) + 1).all()


def test_the_same_request_without_groups_is_another_one(place: Path) -> None:
    with_groups = fit(place, "knn")["requests"]
    forget_groups(place)
    assert json.dumps(fit(place, "knn")["requests"]) != json.dumps(with_groups)


def test_a_clone_of_the_witness_keeps_what_it_was_given(witness: list[Any]) -> None:
    """The tests above rest on it."""
    clone(Witness()).fit(np.zeros((1, 1), np.float32), scipy.sparse.csr_matrix((1, 1)))
    assert len(witness) == 1
