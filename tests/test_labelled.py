"""A store joined with labels: what a notebook uses, without any run."""

import os
from mmap import mmap
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from conftest import make_store, reported, warned

from cache.support.errors import DataError, ParameterError
from eval import score_files
from heads import (
    KernelHead,
    LabelledStore,
    PriorHead,
    RidgeHead,
    fit_run,
    make_decoder,
    make_ensemble,
    nested_f1,
    out_of_fold_scores,
    predict_run,
)

NOTEBOOK = """
from heads import KernelHead, LabelledStore, make_decoder, out_of_fold_scores
data = LabelledStore.load("data/my_images.densenet121.h5", "my_images")
head = KernelHead().fit(data.train.X, data.train.Y)
decoder = make_decoder("platt+expected-f1").fit(out_of_fold_scores(head, data.train), data.train.Y)
print(data.valid.score(decoder.predict(head.predict_proba(data.valid.X))))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder and its store under the names of the notebook, with unreadable images and a rare concept."""
    random = np.random.default_rng(0)
    data = tmp_path / "my_images"
    data.mkdir()
    splits = {}
    for split, n_images in (("train", 90), ("valid", 40), ("test", 4)):
        X = random.normal(size=(n_images, 6))
        shown = X[:, :3] + 0.5 * random.normal(size=(n_images, 3)) > 0.3
        splits[split] = {f"{split}_{number:03d}": row for number, row in enumerate(X)}
        rows = [[f"C{n}" for n in np.flatnonzero(row)] or ["C0"] for row in shown]
        if split == "valid":
            rows = [[*row, "C77"] if number % 4 == 0 else row for number, row in enumerate(rows)]
        text = "".join(f"{id},{';'.join(row)}\n" for id, row in zip(splits[split], rows, strict=True))
        if split != "test":
            (data / f"{split}_concepts.csv").write_text("ID,CUIs\n" + text)
            (data / f"{split}_concepts_manual.csv").write_text("ID,CUIs\n" + text.replace("C0", "C0040405"))
    (tmp_path / "data").mkdir()
    unreadable = {"train_001": "damaged", "valid_003": "damaged"}
    make_store(tmp_path / "data" / "my_images.densenet121.h5", splits, unreadable)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load() -> LabelledStore:
    return LabelledStore.load("data/my_images.densenet121.h5", "my_images")


def test_the_notebook_gives_the_score_of_a_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(NOTEBOOK)
    line = capsys.readouterr().out
    with reported():
        metrics = fit_run("kernel", "data/my_images.densenet121.h5", "my_images", "run", decoder="platt+expected-f1")
    valid = metrics["valid"]
    assert valid is not None
    assert valid["secondary"] is not None
    low, high = valid["primary_interval"]
    assert line.startswith(f"primary F1 {valid['primary']:.4f} [{low:.4f}, {high:.4f}], ")
    assert f"secondary F1 {valid['secondary']:.4f} [" in line
    assert line.endswith(" on 40 images\n")
    assert line.count("\n") == 1


def test_a_score_is_that_of_the_file_with_these_predictions(place: Path) -> None:
    data = load()
    assert data.valid is not None
    head = RidgeHead().fit(data.train.X, data.train.Y)
    decoder = make_decoder("global").fit(out_of_fold_scores(head, data.train), data.train.Y)
    score = data.valid.score(decoder.predict(head.predict_proba(data.valid.X)))
    with reported():
        fit_run("ridge", "data/my_images.densenet121.h5", "my_images", "run", decoder="global")
    truth = place / "my_images" / "valid_concepts.csv"
    manual = place / "my_images" / "valid_concepts_manual.csv"
    official = score_files(place / "run", truth, manual)
    assert score.primary == pytest.approx(official.primary, abs=1e-12)
    assert score.secondary == pytest.approx(official.secondary, abs=1e-12)
    assert score.n_images == 40
    assert score.n_unreadable == 1


def test_concepts_without_a_column_and_unreadable_images_count(place: Path) -> None:
    data = load()
    valid = data.valid
    assert valid is not None
    assert "C77" not in data.vocabulary
    perfect = valid.score(valid.Y)
    # Ten images have C77, which nothing predicts, and one cannot be read.
    assert 0.9 < perfect.primary < 1
    assert valid.n_true.sum() == valid.Y.sum() + 10
    predicted = valid.Y.toarray()
    assert valid.score(predicted).primary == perfect.primary
    with_zeros = scipy.sparse.csr_matrix((predicted.ravel(), np.indices(predicted.shape).reshape(2, -1)))
    assert with_zeros.nnz == predicted.size  # a stored 0 predicts nothing
    assert valid.score(with_zeros).primary == perfect.primary
    with pytest.raises(
        ParameterError, match=r"Y_pred has shape \(40, 3\), expected \(39, 3\): one row per image of valid"
    ):
        valid.score(np.zeros((40, 3)))


def test_features_and_labels_are_of_the_readable_images_and_made_once(place: Path) -> None:
    train = load().train
    assert len(train.ids) == len(train.features) == len(train.readable) == len(train.concepts) == 90
    assert train.X.shape == (89, 6)
    assert train.Y.shape == (89, 3)
    assert "train_001" not in train.readable_ids
    np.testing.assert_array_equal(train.X, train.features[train.readable])
    assert train.X is train.X
    assert train.Y is train.Y


def test_nothing_is_copied_where_every_image_can_be_read(place: Path) -> None:
    path = place / "data" / "my_images.densenet121.h5"
    make_store(path, {name: {f"{name}_{n:03d}": np.arange(6) + n for n in range(40)} for name in ("train", "valid")})
    with warned():
        train = load().train
    assert train.X is train.features


def test_the_readable_rows_are_copied_once_and_when_they_are_needed(place: Path) -> None:
    path = place / "my_images" / "train_concepts.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))  # an image has no labels
    with warned():
        data = load()
    stored = data.store.split("train").embeddings
    assert np.shares_memory(data.train.features, stored)
    X = data.train.X
    np.testing.assert_array_equal(X, stored[[row for row in range(89) if row != 1]])
    assert data.train.X is X
    assert data.train.ids == [f"train_{number:03d}" for number in range(89)]


def test_embeddings_stay_on_the_disk_where_every_image_can_be_read(place: Path) -> None:
    path = place / "data" / "my_images.densenet121.h5"
    make_store(path, {name: {f"{name}_{n:03d}": np.arange(6) + n for n in range(40)} for name in ("train", "valid")})
    with warned():
        data = load()
    assert np.shares_memory(data.train.X, data.store.split("train").embeddings)


def test_a_run_copies_the_readable_rows_of_a_split_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    select = np.memmap.__getitem__

    def count(stored: np.memmap, rows: object) -> object:
        found = select(stored, rows)
        is_embeddings = isinstance(stored.base, mmap) and stored.shape[1:] == (6,)  # saved scores are mapped, too
        if is_embeddings and not np.shares_memory(found, stored):
            copied.append(len(found))
        return found

    monkeypatch.setattr(np.memmap, "__getitem__", count)
    with reported():
        for run in ("one", "two"):
            fit_run("ridge", "data/my_images.densenet121.h5", "my_images", run)
    assert copied == [89] * 2  # those of valid are copied some at a time
    copied.clear()
    with reported():
        fit_run("ridge", "data/my_images.densenet121.h5", "my_images", "three", tune="valid")
    assert copied == [89, 39]
    copied.clear()
    with reported():
        make_ensemble(["one", "two"], "both")
    assert copied == [39]


def test_groups_go_with_the_splits(place: Path) -> None:
    assert load().train.groups is None
    ids = [f"train_{number:03d}" for number in range(90)]
    (place / "my_images" / "groups.csv").write_text("ID,patient\n" + "".join(f"{id},p{id[-1]}\n" for id in ids))
    data = load()
    assert data.valid is not None
    assert data.valid.groups is None
    assert data.train.groups is not None
    assert len(data.train.groups) == 89
    assert data.train.groups.max() == 9


def test_a_table_in_which_groups_have_no_known_name_is_refused(place: Path) -> None:
    (place / "my_images" / "groups.csv").write_text("ID,patient,age\ntrain_000,p0,50\n")
    with pytest.raises(DataError, match="header 'ID,patient,age' names no column of groups"):
        load()


def test_out_of_fold_scores_and_nested_f1_keep_groups_together(place: Path) -> None:
    """Labels are constant in a group and embeddings tell which: only a head that knows the group can do well."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(15), 6)
    centres = 10 * random.normal(size=(15, 6))
    labels = random.random((15, 4)) < 0.5
    ids = [f"train_{number:03d}" for number in range(90)]
    rows = [[f"C{n}" for n in np.flatnonzero(labels[group])] or ["C0"] for group in groups]
    path, folder = place / "data" / "my_images.densenet121.h5", place / "my_images"
    make_store(path, {"train": dict(zip(ids, centres[groups] + random.normal(size=(90, 6)), strict=True))})
    (folder / "train_concepts.csv").write_text(
        "ID,CUIs\n" + "".join(f"{id},{';'.join(row)}\n" for id, row in zip(ids, rows, strict=True))
    )
    decoder = make_decoder("fixed:0.5")

    def estimate() -> tuple[float, float]:
        train = load().train
        scores = out_of_fold_scores(KernelHead(), train)
        hits = ((scores >= 0.5) == train.Y.toarray()).mean()
        return float(hits), float(nested_f1(KernelHead(), decoder, train).mean())

    leaked_hits, leaked_f1 = estimate()
    (folder / "groups.csv").write_text("ID,group\n" + "".join(f"{id},{g}\n" for id, g in zip(ids, groups, strict=True)))
    hits, f1 = estimate()
    assert leaked_hits > 0.95
    assert leaked_f1 > 0.95
    assert hits < 0.7
    assert f1 < 0.7


def test_paths_may_be_text_and_options_be_left_out(place: Path) -> None:
    store, data = "data/my_images.densenet121.h5", "my_images"
    with reported():
        fit_run("prior", store, data, "runs/prior", decoder="top-k:1")
        assert predict_run("runs/prior", store, data) == Path("runs/prior/submission.zip")
        assert (
            predict_run(os.fspath(place / "runs" / "prior"), store, edition=2024) == place / "runs/prior/submission.csv"
        )


def test_a_repr_is_short(place: Path) -> None:
    data = load()
    assert repr(data.train) == ("<LabelledSplit 'train': 90 images (1 unreadable), 3 concepts, features of shape (6,)>")
    assert len(repr(data)) < 400


def test_labels_may_be_all_left_out_by_the_evaluator(place: Path) -> None:
    path = place / "data" / "my_images.densenet121.h5"
    random = np.random.default_rng(0)
    make_store(
        path, {"train": {f"train_{n:03d}": random.normal(size=6) for n in range(90)}, "valid": {"ID1": np.ones(6)}}
    )
    (place / "my_images" / "valid_concepts.csv").write_text("ID1,C1\n")
    (place / "my_images" / "valid_concepts_manual.csv").unlink()
    data = load()
    assert data.valid is not None
    with pytest.raises(DataError, match="the official evaluator counts no image of valid"), warned() as lines:
        data.valid.score(data.valid.Y)
    assert "1 images of valid have the letters ID in their id" in lines[0]
    assert PriorHead().fit(data.train.X, data.train.Y).predict_proba(data.valid.X).shape == (1, 3)
