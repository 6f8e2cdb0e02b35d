"""The dense head reproduces published recipes, gives one result per seed, and stops by the official score."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse
from conftest import make_store, reported
from forks import run_fork

from cache.support.errors import UserError
from heads.estimators import dense
from heads.estimators.dense import DenseHead
from heads.estimators.storage import load_head, save_head
from heads.networks.losses import LOSSES
from heads.registry import make_head
from heads.runs.builder import fit_run
from heads.settings import parse_settings


@pytest.fixture
def data() -> tuple[np.ndarray, scipy.sparse.csr_matrix]:
    """Embeddings, and five concepts that depend on them."""
    random = np.random.default_rng(0)
    X = random.normal(size=(120, 8)).astype(np.float32)
    return X, scipy.sparse.csr_matrix((X @ random.normal(size=(8, 5)) > 0.5).astype(int))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[DenseHead, Any]]:
    """Fits a dense head; returns it with its Keras model."""
    models, compile_ = [], DenseHead._compile

    def spy(self: DenseHead, model: Any, n_steps: int) -> None:
        models.append(model)
        compile_(self, model, n_steps)

    monkeypatch.setattr(DenseHead, "_compile", spy)
    return lambda X, Y, **params: (DenseHead(**params).fit(X, Y), models[-1])


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_finds_nearly_every_concept_through_hidden_layers(data: tuple, loss: str) -> None:
    X, Y = data
    settings = {"hidden": [32, 16], "dropout": 0.1, "epochs": 20, "decay": 1.0, "learning_rate": 0.02}
    head = DenseHead(loss=loss, label_smoothing=0.02, held_out=0.2, patience=20, **settings).fit(X, Y)
    assert head.held_out_f1_.shape == (20,)
    assert head.held_out_f1_.max() > 0.85
    assert head.held_out_f1_.max() > head.held_out_f1_[0] + 0.1


def test_the_defaults_are_the_papers(trained: Callable[..., tuple[DenseHead, Any]], data: tuple) -> None:
    head, model = trained(*data, epochs=1)
    assert [layer.__class__.__name__ for layer in model.layers] == ["Dropout", "Dense"]
    assert (model.layers[0].rate, head.loss, head.label_smoothing) == (0.0, "cross-entropy", 0.0)
    rate = model.optimizer._learning_rate
    assert (head.batch_size, float(rate(0)), float(rate(99))) == (32, pytest.approx(1e-3), pytest.approx(1e-3))
    assert float(rate(100)) == pytest.approx(0.9e-3)
    assert float(rate(250)) == pytest.approx(0.81e-3)


def test_auebs_recipe_is_one_layer_at_a_constant_rate(trained: Callable[..., Any], data: tuple) -> None:
    _, model = trained(*data, epochs=1, learning_rate=1e-4, decay=1.0)
    rates = [float(model.optimizer._learning_rate(step)) for step in (0, 100, 10**6)]
    assert rates == pytest.approx([1e-4] * 3)
    assert [layer.__class__.__name__ for layer in model.layers] == ["Dropout", "Dense"]


def test_ds_biomeds_recipe_is_two_hidden_layers_each_with_dropout(trained: Callable[..., Any], data: tuple) -> None:
    _, model = trained(*data, epochs=1, hidden=[1024, 512], dropout=0.4)
    layers = [(type(layer).__name__, getattr(layer, "units", getattr(layer, "rate", None))) for layer in model.layers]
    assert layers == [("Dense", 1024), ("Dropout", 0.4), ("Dense", 512), ("Dropout", 0.4), ("Dense", 5)]
    assert model.layers[0].activation.__name__ == model.layers[2].activation.__name__ == "relu"


def test_scores_without_keras_are_those_of_its_model(trained: Callable[..., Any], data: tuple) -> None:
    head, model = trained(*data, epochs=3, hidden=(6, 4), held_out=0.0)
    logits = np.asarray(model((data[0] - head.mean_) / head.scale_, training=False))
    np.testing.assert_allclose(head.predict_proba(data[0]), 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_untrained_outputs_are_the_training_frequencies(
    trained: Callable[..., Any], data: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DenseHead, "_train", lambda self, *args: None)
    head, _ = trained(*data, hidden=4)
    np.testing.assert_allclose(head.predict_proba(data[0][:1])[0], np.asarray(data[1].mean(axis=0))[0], rtol=1e-5)


def test_training_stops_after_patience_with_the_weights_of_the_best_epoch(data: tuple) -> None:
    random = np.random.default_rng(0)
    X, Y = random.normal(size=(200, 30)), random.integers(0, 2, (200, 3))  # nothing to learn but noise
    settings = {"decay": 1.0, "learning_rate": 0.01, "held_out": 0.3, "random_state": 4}
    head = DenseHead(epochs=60, patience=2, **settings).fit(X, Y)
    best = int(head.held_out_f1_.argmax())
    assert head.n_epochs_ == len(head.held_out_f1_) == best + 3 < 60
    until = DenseHead(epochs=best + 1, patience=60, **settings).fit(X, Y)
    np.testing.assert_array_equal(head.predict_proba(X), until.predict_proba(X))


def test_one_seed_gives_one_head_whatever_the_global_generators_did(data: tuple) -> None:
    settings = {"hidden": 8, "dropout": 0.3, "epochs": 3}
    first = DenseHead(**settings).fit(*data).predict_proba(data[0])
    state = random.getstate(), np.random.get_state()[1].copy()
    np.testing.assert_array_equal(DenseHead(**settings).fit(*data).predict_proba(data[0]), first)
    assert random.getstate() == state[0]
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])
    assert not np.array_equal(DenseHead(**settings, random_state=1).fit(*data).predict_proba(data[0]), first)


def test_one_seed_gives_one_metrics_file_except_for_its_seconds(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    splits, draw = {}, np.random.default_rng(0)
    for split in ("train", "valid"):
        splits[split] = {f"{split}_{n}": draw.normal(size=6) for n in range(50)}
        rows = [
            f"{id},{';'.join(f'C{n}' for n in np.flatnonzero(x[:4] > 0)) or 'C9'}" for id, x in splits[split].items()
        ]
        (tmp_path / "data" / f"{split}_concepts.csv").write_text("\n".join(["ID,CUIs", *rows]))
    make_store(tmp_path / "s.h5", splits)
    given = {"params": {"hidden": [8], "dropout": 0.2, "epochs": 4}, "decoder": "global", "tune": "valid"}
    for name in ("one", "two"):
        np.random.random()
        with reported():
            fit_run("dense", tmp_path / "s.h5", tmp_path / "data", tmp_path / name, **given)
    kept = [json.loads((tmp_path / name / "metrics.json").read_text()) | {"seconds": None} for name in ("one", "two")]
    assert kept[0] == kept[1]
    assert kept[0]["valid"]["primary"] > 0
    assert (tmp_path / "one" / "valid.csv").read_bytes() == (tmp_path / "two" / "valid.csv").read_bytes()


def test_long_trainings_are_compiled_and_give_the_same_result(
    trained: Callable[..., Any], data: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, model = trained(*data, epochs=3)
    assert not model.jit_compile
    monkeypatch.setattr(dense, "MIN_COMPILED", 0)
    _, model = trained(*data, epochs=1, dropout=0.1)
    assert not model.jit_compile
    compiled, model = trained(*data, epochs=3)
    assert model.jit_compile
    np.testing.assert_allclose(compiled.predict_proba(data[0]), plain.predict_proba(data[0]), atol=1e-5)


def test_dense_learns_from_embeddings_too_small_to_square_in_float32(data: tuple) -> None:
    X, Y = data
    settings = {"epochs": 5, "held_out": 0.0}
    plain = DenseHead(**settings).fit(X, Y).predict_proba(X)
    np.testing.assert_allclose(DenseHead(**settings).fit(X * 1e-24, Y).predict_proba(X * 1e-24), plain, atol=1e-3)


def test_training_that_diverges_is_reported(data: tuple) -> None:
    head = DenseHead(epochs=3, learning_rate=1e38, hidden=8).fit(*data)
    assert set(head.held_out_f1_) == {-1.0}
    with pytest.raises(ValueError, match="training has diverged; choose a lower learning rate"):
        head.predict_proba(data[0])


def test_progress_counts_epochs_and_ends_with_training(data: tuple) -> None:
    reports: list[tuple[int, int]] = []
    DenseHead(epochs=4).fit(*data, progress=lambda n_done, n_all: reports.append((n_done, n_all)))
    assert reports == [(1, 4), (2, 4), (3, 4), (4, 4), (4, 4)]


def test_weights_of_another_shape_are_refused(data: tuple, tmp_path: Path) -> None:
    save_head(DenseHead(hidden=3, epochs=1).fit(*data), "dense", tmp_path)
    with h5py.File(tmp_path / "head.h5", "r+") as file:
        del file["weights_1"]
        file["weights_1"] = np.zeros(4, np.float32)
    with pytest.raises(UserError, match="no finished head in it"):
        load_head(tmp_path)


def test_a_saved_head_scores_without_tensorflow(data: tuple, tmp_path: Path) -> None:
    save_head(DenseHead(hidden=3, epochs=1).fit(*data), "dense", tmp_path)
    code = (
        "import sys, pathlib, numpy as np; from heads.estimators.storage import load_head\n"
        "load_head(pathlib.Path(sys.argv[1])).predict_proba(np.ones((2, 8)))\n"
        "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    run_fork(code, tmp_path).check_returncode()


@pytest.mark.parametrize(
    "params",
    [
        {"hidden": [512, 0]}, {"hidden": [512, "many"]}, {"hidden": -1}, {"dropout": 1.0}, {"loss": "hinge"},
        {"gamma": -1}, {"gamma_pos": "much"}, {"gamma_neg": True}, {"clip": 1.0}, {"label_smoothing": 1.0},
    ],
)  # fmt: skip
def test_a_parameter_out_of_range_is_refused_by_its_name(params: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"head 'dense': {next(iter(params))}"):
        make_head("dense", params)


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", "[1,1e999]", "1,1e999"])
def test_a_number_that_is_not_finite_is_refused_on_the_command_line(value: str) -> None:
    with pytest.raises(UserError, match="is not a value; expected a finite number"):
        parse_settings([f"alpha={value}"])


def test_what_is_nested_too_deeply_is_text_on_the_command_line() -> None:
    text = "[" * 100_000
    assert parse_settings([f"hidden={text}"]) == {"hidden": text}


def test_the_command_line_takes_several_layers() -> None:
    settings = parse_settings(["hidden=1024,512", "loss=focal", "dropout=0.4", "C=[1,2]", "note=a,b"])
    assert settings == {"hidden": [1024, 512], "loss": "focal", "dropout": 0.4, "C": [1, 2], "note": "a,b"}
    head = make_head("dense", {key: settings[key] for key in ("hidden", "loss", "dropout")})
    assert head.get_params()["hidden"] == [1024, 512]
