"""One contract for every head."""

import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse
from conftest import EMBEDDING_HEADS, quick_params
from forks import run_fork
from pages import code_blocks
from sklearn.base import clone

from cache.support import keras as keras_support
from cache.support.errors import NotInstalledError, ParameterError, UserError
from heads.estimators.base import Head
from heads.estimators.storage import load_head, save_head
from heads.networks import backend
from heads.registry import HEADS, make_head


@pytest.fixture
def data() -> tuple[np.ndarray, scipy.sparse.csr_matrix]:
    """Embeddings, and five concepts that depend on them; the fourth is in no image, the fifth in all."""
    random = np.random.default_rng(0)
    X = random.normal(size=(120, 8)).astype(np.float32)
    Y = (X @ random.normal(size=(8, 5)) > 0.5).astype(int)
    Y[:, 3], Y[:, 4] = 0, 1
    return X, scipy.sparse.csr_matrix(Y)


@pytest.fixture(params=EMBEDDING_HEADS)
def head(request: pytest.FixtureRequest) -> Head:
    """Each head in turn, fast to train."""
    return make_head(request.param, quick_params(request.param))


def test_scores_are_probabilities_one_per_concept(head: Head, data: tuple) -> None:
    scores = head.fit(*data).predict_proba(data[0])
    assert scores.shape == (120, 5)
    assert scores.dtype == np.float32
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_a_concept_in_no_image_or_in_all_gets_such_scores(head: Head, data: tuple) -> None:
    scores = head.fit(*data).predict_proba(data[0])
    assert scores[:, 3].max() < 0.05
    assert scores[:, 4].min() > 0.95


def test_fitting_changes_neither_data_nor_parameters(head: Head, data: tuple) -> None:
    X, Y = data[0].copy(), data[1].copy()
    params = head.get_params()
    head.fit(X, Y)
    np.testing.assert_array_equal(X, data[0])
    assert (data[1] != Y).nnz == 0
    assert head.get_params() == params


def test_fitting_again_gives_the_same_scores(head: Head, data: tuple) -> None:
    first = clone(head).fit(*data).predict_proba(data[0])
    np.testing.assert_array_equal(head.fit(*data).predict_proba(data[0]), first)
    np.testing.assert_array_equal(head.fit(*data).predict_proba(data[0]), first)


def test_a_dense_indicator_is_as_good_as_a_sparse_one(head: Head, data: tuple) -> None:
    sparse = clone(head).fit(*data).predict_proba(data[0])
    np.testing.assert_array_equal(head.fit(data[0], data[1].toarray()).predict_proba(data[0]), sparse)


def test_a_score_depends_on_its_image_alone(head: Head, data: tuple) -> None:
    head.fit(*data)
    np.testing.assert_allclose(head.predict_proba(data[0][7:9]), head.predict_proba(data[0])[7:9], rtol=1e-5)


def test_a_saved_head_gives_bit_equal_scores_in_a_new_process(head: Head, data: tuple, tmp_path: Path) -> None:
    name = next(name for name, place in HEADS.items() if place.endswith(type(head).__name__))
    save_head(head.fit(*data), name, tmp_path / "run")
    np.save(tmp_path / "X.npy", data[0])
    code = (
        "import sys, pathlib, numpy as np; from heads.estimators.storage import load_head; place = pathlib.Path(sys.argv[1])\n"
        "np.save(place / 'scores.npy', load_head(place / 'run').predict_proba(np.load(place / 'X.npy')))"
    )
    run_fork(code, tmp_path).check_returncode()
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), head.predict_proba(data[0]))


def test_one_image_and_one_concept_are_enough(head: Head) -> None:
    scores = head.fit(np.ones((1, 3), np.float32), [[1]]).predict_proba(np.ones((2, 3), np.float32))
    assert scores.shape == (2, 1)
    assert np.isfinite(scores).all()


def test_embeddings_of_zeros_give_finite_scores(head: Head) -> None:
    scores = head.fit(np.zeros((12, 3), np.float32), np.eye(12, 2)).predict_proba(np.zeros((2, 3), np.float32))
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("X", "Y", "message"),
    [
        (np.ones((3, 2)), np.ones((2, 2)), "X has 3 rows and Y 2, expected as many rows in both"),
        (np.full((3, 2), np.nan), np.ones((3, 2)), "NaN"),
        (np.ones((3, 2)), np.ones((3, 0)), "expected at least one concept"),
        (np.ones((3, 2)), np.full((3, 2), 2), "values other than 0 and 1"),
    ],
)
def test_bad_data_is_refused(head: Head, X: np.ndarray, Y: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head.fit(X, Y)


def test_embeddings_of_another_length_are_refused(head: Head, data: tuple) -> None:
    with pytest.raises(ValueError, match=r"X has 3 features, but .*Head is expecting 8 features as input"):
        head.fit(*data).predict_proba(np.ones((2, 3)))


def test_an_unknown_head_or_parameter_lists_the_right_ones() -> None:
    with pytest.raises(UserError, match=f"no head 'forest'; there are {', '.join(HEADS)}"):
        make_head("forest")
    with pytest.raises(UserError, match=r"head 'dense': Invalid parameter 'hiden'.*'hidden'"):
        make_head("dense", {"hiden": 3})
    with pytest.raises(UserError, match=r"head 'dense': Invalid parameter 'hidden__x'.*'hidden'"):
        make_head("dense", {"hidden__x": 3})


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("dense", {"epochs": 0}),
        ("dense", {"hidden": "many"}),
        ("dense", {"learning_rate": 10**400}),
        ("dense", {"held_out": 1.0}),
        ("dense", {"decay": 1.5}),
        ("dense", {"random_state": -1}),
        ("dense", {"hidden": True}),
        ("dense", {"learning_rate": float("inf")}),
        ("logistic", {"C": 0}),
        ("logistic", {"C": True}),
        ("logistic", {"C": float("nan")}),
        ("logistic", {"n_jobs": 0}),
        ("logistic", {"n_jobs": "two"}),
        ("logistic", {"C": "small"}),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_its_name(name: str, params: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"head '{name}': {next(iter(params))}"):
        make_head(name, params)


def test_a_damaged_head_is_refused(data: tuple, tmp_path: Path) -> None:
    save_head(make_head("prior").fit(*data), "prior", tmp_path)
    (tmp_path / "head.h5").write_bytes(b"damaged")
    with pytest.raises(UserError, match="no finished head in it"):
        load_head(tmp_path)


def test_a_head_that_could_not_be_loaded_again_is_not_saved(data: tuple, tmp_path: Path) -> None:
    head = make_head("ridge").fit(*data)
    head.coef_[0, 0] = np.nan  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"ridge: training has diverged .*; choose a lower learning rate"):
        save_head(head, "ridge", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", EMBEDDING_HEADS)
def test_arrays_of_another_shape_or_type_are_refused(name: str, data: tuple, tmp_path: Path) -> None:
    save_head(make_head(name, quick_params(name)).fit(*data), name, tmp_path)
    with h5py.File(tmp_path / "head.h5") as file:
        saved = {key: array[()] for key, array in file.items()}
    for key, array in saved.items():
        wrong = [array[..., None], np.complex64(array)]
        wrong += [array[:-1]] if array.shape[0] > 1 and key not in ("alphas", "gcv", "held_out_f1") else []
        for each in wrong:
            with h5py.File(tmp_path / "head.h5", "w") as file:
                for other, kept in saved.items():
                    file[other] = each if other == key else kept
            with pytest.raises(UserError, match="no finished head in it"):
                load_head(tmp_path)


def test_scores_that_are_not_finite_are_refused(data: tuple) -> None:
    head = make_head("prior").fit(*data)
    head.frequency_[:] = np.nan  # type: ignore[attr-defined]
    with pytest.raises(ParameterError, match="PriorHead: scores are not finite: training has diverged"):
        head.predict_proba(data[0])


def test_the_guides_head_is_one_file_and_one_line(data: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = code_blocks("docs/your-own-head.md", "python")[0]
    (tmp_path / "centroid.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(HEADS, "centroid", "centroid:CentroidHead")
    head = make_head("centroid", {"sharpness": 2.0}).fit(*data)
    scores = head.predict_proba(data[0])
    assert scores[:, 3].max() < 0.05
    assert scores[:, 4].min() > 0.95
    assert ((scores[:, :3] >= 0.5) == data[1].toarray()[:, :3]).mean() > 0.8
    save_head(head, "centroid", tmp_path / "run")
    np.testing.assert_array_equal(load_head(tmp_path / "run").predict_proba(data[0]), scores)
    with pytest.raises(ParameterError, match="head 'centroid': sharpness is 0, expected a number above 0"):
        make_head("centroid", {"sharpness": 0})


def test_a_bug_in_a_head_stays_a_bug(data: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    head = make_head("prior")
    monkeypatch.setattr(type(head), "_fit", lambda self, X, Y: np.ones(3) + np.ones(4))
    with pytest.raises(ValueError, match="could not be broadcast") as caught:
        head.fit(*data)
    assert not isinstance(caught.value, UserError)


def test_a_fitted_head_keeps_no_callback(head: Head, data: tuple, tmp_path: Path) -> None:
    head.fit(*data, progress=lambda n_done, n_all: None, checkpoint=tmp_path / "checkpoint.h5")
    pickle.dumps(head)
    assert not {"_progress", "_checkpoint"} & set(vars(head))


def test_without_keras_the_line_that_installs_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    keras_support._import.cache_clear()
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(NotInstalledError, match="keras is not installed: pip install tensorflow-cpu, or for GPUs"):
        backend.import_keras()


def test_heads_without_a_fold_are_those_that_are_fitted_to_the_other_folds(head: Head, data: tuple) -> None:
    X, Y = data[0].copy(), data[1].toarray()
    X[:30] = X[:30] * 5 + 100  # the fold has another mean and scale
    X = np.column_stack([X, np.r_[1e6 * np.arange(30), np.full(90, 7.1)]]).astype(np.float32)  # constant elsewhere
    Y[:30, 0], Y[30:, 1] = 1, 0  # a concept that is frequent in the fold, and one that is in no other
    Y = scipy.sparse.csr_matrix(Y)
    rows = np.random.default_rng(0).permutation(120)  # also the order of rows does not matter
    X, Y, fold = X[rows], Y[rows], np.flatnonzero(rows < 30)
    held_out = [np.empty(0, np.int64), fold, np.setdiff1d(np.arange(120), fold)[::2]]
    for without, found in zip(held_out, head.fit_folds(X, Y, held_out), strict=True):
        rest = np.setdiff1d(np.arange(120), without)
        expected = head.with_params({}).fit(X[rest], Y[rest])
        np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=1e-5)
        assert found.get_params() == head.get_params()
    assert not hasattr(head, "n_concepts_")


def test_folds_need_not_have_all_images(head: Head, data: tuple) -> None:
    X, Y = data
    (found,) = head.fit_folds(X, Y, [np.arange(30)])
    np.testing.assert_allclose(
        found.predict_proba(X), head.with_params({}).fit(X[30:], Y[30:]).predict_proba(X), atol=1e-5
    )
