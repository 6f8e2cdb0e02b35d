"""Exported models: what a run has learnt, from image to scores, where this project is not."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import keras
import numpy as np
import PIL.Image
import pytest
import scipy.sparse
from conftest import EMBEDDING_HEADS, PROVENANCE, make_store, quick_params, reported, reseal, snapshot, warned
from pages import code_blocks

from cache.lock import locked
from cache.support.errors import UserError
from cache.support.files import digest_file
from featurize.decoding.image import decode
from featurize.pipeline import make_features
from heads.ensembles.builder import make_ensemble
from heads.estimators.base import Head
from heads.estimators.prior import PriorHead
from heads.registry import HEADS, make_head
from heads.runs.builder import fit_run
from heads.runs.keras_model import export_run
from heads.runs.predictor import StoredRun

SIZE = 32
SMALL = {"backbone": "mobilenet", "weights": "random:0", "size": SIZE, "layer": "conv_pw_1_relu,conv_pw_3_relu", "pooling": "avg,gem",
         "engine": "tensorflow", "precision": "float32"}  # fmt: skip
PARAMS: dict[str, dict[str, Any]] = {"dense": {"hidden": 8}}
PARTS = {"logistic": "conv_pw_1_relu.gem,conv_pw_3_relu.gem", "ridge": "conv_pw_3_relu.avg"}
"""Heads with other parameters than the defaults, and heads that get some of the parts: apart, or one."""

EXPORTED_HEADS = [name for name in EMBEDDING_HEADS if resolve_name(HEADS[name]).to_keras is not Head.to_keras]

BARE = """
import json, os, pathlib, sys
import keras, numpy as np
os.chdir(sys.argv[1])
pixels = np.load("pixels.npy")
for path in pathlib.Path("runs").glob("*/model.keras"):
    np.save(path.with_suffix(".npy"), keras.saving.load_model(path)(pixels, training=False))
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


@pytest.fixture(scope="module")
def template(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two layers and two poolings with a run of every head, each exported."""
    place = tmp_path_factory.mktemp("export")
    shutil.copytree(phantoms, place / "data")
    make_features(place / "data", place / "s.h5", **SMALL)
    for name in EXPORTED_HEADS:
        # Neighbours are all the training images: which is nearest is rounding, so alike does a random network see them.
        fit(place, name)
        export(place, name)
    return place


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    """A copy of the store, its network and the simplest run."""
    for name in ("s.h5.network", "runs/prior"):
        shutil.copytree(template / name, tmp_path / name)
    shutil.copyfile(template / "s.h5", tmp_path / "s.h5")
    return tmp_path


def fit(place: Path, name: str, data: Path | None = None, **given: Any) -> None:
    params = quick_params(name) | PARAMS.get(name, {})
    given = {"params": params, "pooling": PARTS.get(name), "decoder": "fixed:0.3"} | given
    with reported():
        fit_run(name, place / "s.h5", data or place / "data", place / "runs" / name, **given)


def export(place: Path, name: str = "prior", store: str = "s.h5", **options: Any) -> str:
    with reported() as lines:
        export_run(place / "runs" / name, place / store, **options)
    return lines[-1]


@pytest.fixture(scope="module")
def bare_output(template: Path) -> list[str]:
    """What is printed where nothing of this project can be found: every model scores the test images, then those of docs/export.md."""
    images = sorted((template / "data" / "test").iterdir())
    np.save(template / "pixels.npy", np.stack([decode(path.read_bytes(), SIZE) for path in images]))
    PIL.Image.open(images[0]).save(template / "image.png")  # a JPEG of this size is scaled while it is decoded
    (snippet,) = code_blocks("docs/export.md", "python")
    shutil.copytree(template / "runs" / "dense", template / "runs" / "my_images" / "dense")  # as the document has it
    words = [sys.executable, "-I", "-c", BARE + snippet, str(template)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=template, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", EXPORTED_HEADS)
def test_a_bare_process_gets_the_runs_scores_from_the_images(template: Path, bare_output: list[str], name: str) -> None:
    assert not {"heads", "featurize", "cache", "eval"} & set(json.loads(bare_output[0]))
    stored = StoredRun(template / "runs" / name, template / "s.h5")
    scores = np.load(template / "runs" / name / "model.npy")
    assert scores.dtype == np.float32
    assert stored.images("test")[0] == [path.stem for path in sorted((template / "data" / "test").iterdir())]
    np.testing.assert_allclose(scores, stored.scores("test"), atol=1e-4, rtol=0)


def test_the_documented_code_predicts_concepts_with_keras_alone(template: Path, bare_output: list[str]) -> None:
    pixels = decode((template / "image.png").read_bytes(), SIZE)
    scores = keras.saving.load_model(template / "runs" / "dense" / "model.keras")(pixels[None])[0]
    concepts = StoredRun(template / "runs" / "dense", template / "s.h5").run.vocabulary
    predicted = [concept for concept, score in zip(concepts, scores, strict=True) if score >= 0.3]
    assert predicted
    assert bare_output[1] == str(predicted)


def test_the_description_says_what_the_model_needs(template: Path) -> None:
    described = json.loads((template / "runs" / "ridge" / "model.keras.json").read_text())
    stored = StoredRun(template / "runs" / "ridge", template / "s.h5")
    assert described["size"] == SIZE
    assert described["concepts"] == stored.run.vocabulary
    assert described["decoder"] == {"name": "fixed:0.3", "state": {"threshold": 0.3}}
    assert described["provenance"] == json.loads(stored.store.provenance.to_json())
    assert described["sha256"] == digest_file(template / "runs" / "ridge" / "model.keras").hex()
    assert described["checked"] == 6
    assert described["difference"] < 1e-5


def draw(n_images: int) -> np.ndarray:
    return np.random.default_rng(n_images).normal(size=(n_images, 8)).astype(np.float32)


def compare(head: Head, X: np.ndarray, Z: np.ndarray) -> None:
    """Fit to concepts of which the fourth is in no image and the fifth in all, and compare scores of others."""
    Y = (draw(len(X))[:, :5] > 0.5).astype(int)
    Y[:, 3], Y[:, 4] = 0, 1
    head.fit(X, scipy.sparse.csr_matrix(Y))
    scores = np.asarray(head.to_keras()(Z))
    np.testing.assert_allclose(scores, head.predict_proba(Z), atol=5e-6, rtol=0)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", [name for name in EXPORTED_HEADS if name != "knn"])
def test_neither_tiny_nor_nearly_constant_features_are_lost_in_float32(name: str) -> None:
    scale, centre = np.float32([1, 1, 1e-24, 1e-2, 1, 0, 0.1, 1]), np.float32([0, 0, 0, 300, 0, 7, -3e5, 0])
    compare(
        make_head(name, quick_params(name) | PARAMS.get(name, {})),
        draw(120) * scale + centre,
        draw(60) * scale + centre,
    )


def test_neighbours_are_found_and_an_image_without_any_gets_the_training_frequencies() -> None:
    X, Z = draw(120), draw(60)
    X[:, 0] += 3
    Z[0], Z[1] = 0, [-9, *Z[1, 1:]]  # no direction, and one away from all
    compare(make_head("knn", {"k": 5}), X, Z)


def test_a_head_without_a_keras_form_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PriorHead, "to_keras", Head.to_keras)
    (place / "runs" / "prior" / "model.keras").write_bytes(b"of an earlier version")
    before = snapshot(place)
    with pytest.raises(UserError, match="PriorHead has no form as a Keras model; export a run of another head"):
        export(place)
    assert snapshot(place) == before


def test_scores_that_are_not_those_of_the_run_are_warned_about(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = PriorHead.to_keras

    def wrong(head: PriorHead) -> Any:
        head.frequency_ = head.frequency_ / 2
        made = real(head)
        head.frequency_ = head.frequency_ * 2
        return made

    monkeypatch.setattr(PriorHead, "to_keras", wrong)
    with warned() as lines:
        export_run(place / "runs" / "prior", place / "s.h5", place / "other.keras")
    assert "scores of 6 of 6 images differ by more than 0.0001 from the run's" in lines[0]


def test_a_second_export_does_nothing(place: Path) -> None:
    before = (place / "runs" / "prior" / "model.keras").stat().st_mtime_ns
    assert "prior/model.keras: up to date" in export(place)
    assert (place / "runs" / "prior" / "model.keras").stat().st_mtime_ns == before


def test_a_run_that_is_being_written_is_not_exported_into(place: Path) -> None:
    (place / "runs" / "prior" / "model.keras.json").unlink()
    before = snapshot(place / "runs" / "prior")
    with locked(place / "runs" / "prior"), pytest.raises(UserError, match="prior: is being written by process"):
        export(place)
    with locked(place / "m.keras"), pytest.raises(UserError, match=r"m\.keras: is being written by process"):
        export(place, out=place / "m.keras")
    assert snapshot(place / "runs" / "prior") == before


def test_what_a_killed_export_left_is_removed(place: Path) -> None:
    for name in ("runs/prior/.model.keras.99.0123abcd.tmp", ".m.keras.99.0123abcd.tmp"):
        (place / name).mkdir()
        (place / name / "model.keras").write_bytes(b"half")
    export(place)  # up to date
    export(place, out=place / "m.keras")
    assert not list(place.rglob("*.tmp"))
    assert not list(place.rglob("*.lock"))


def test_a_run_that_is_trained_anew_loses_the_model_of_the_old_one(place: Path, template: Path) -> None:
    fit(place, "prior", template / "data", decoder="global")
    assert not list((place / "runs" / "prior").glob("model.keras*"))


def test_a_run_knows_its_store(template: Path) -> None:
    with reported() as lines:
        export_run(template / "runs" / "prior")
    assert "up to date" in lines[0]


def test_rounding_of_the_store_alone_is_warned_about(place: Path) -> None:
    stored = StoredRun(place / "runs" / "prior", place / "s.h5").store
    rows = {name: dict(zip(split.ids, split.embeddings, strict=True)) for name, split in stored.splits.items()}
    facts = replace(stored.provenance, engine="openvino", precision="bfloat16")
    make_store(place / "b.h5", rows, provenance=facts)
    shutil.copytree(place / "s.h5.network", place / "b.h5.network")
    metrics = json.loads((place / "runs" / "prior" / "metrics.json").read_text())
    metrics["store"]["provenance"] = vars(facts)
    (place / "runs" / "prior" / "metrics.json").write_text(json.dumps(metrics))
    reseal(place)
    with warned() as lines:
        export_run(place / "runs" / "prior", place / "b.h5")
    assert len(lines) == 1
    assert lines[0].startswith("the store's features went through bfloat16, the model's do not")


def test_a_run_that_cannot_be_exported_says_why(place: Path) -> None:
    (place / "runs" / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no finished run in it; make it with `make head"):
        export(place, "empty")
    with pytest.raises(UserError, match=r"model\.h5: expected a name that ends in \.keras"):
        export(place, out=place / "model.h5")
    make_store(place / "o.h5", {"train": {"a": np.ones(2)}}, provenance=PROVENANCE)
    with pytest.raises(UserError, match=r"was trained on other features than .*backbone mobilenet, not densenet121"):
        export(place, store="o.h5")
    (place / "runs" / "prior" / "run.json").unlink()
    with pytest.raises(UserError, match="does not say which store it was trained on; name it with --store"):
        export_run(place / "runs" / "prior")


def test_a_head_of_another_length_is_refused(place: Path) -> None:
    saved = json.loads((place / "runs" / "prior" / "head.json").read_text())
    (place / "runs" / "prior" / "head.json").write_text(json.dumps(saved | {"n_features": 3}))
    reseal(place)
    with pytest.raises(UserError, match=r"prior: a damaged run \(its head takes \(3,\), the store gives \(384,\)\)"):
        export(place, out=place / "m.keras")


def test_an_ensemble_says_what_to_export_instead(place: Path) -> None:
    with reported():
        make_ensemble([place / "runs" / "prior", place / "runs" / "prior"], place / "runs" / "both")
    with pytest.raises(UserError, match=r"both: an ensemble, expected one run; export those in .*both/members"):
        export(place, "both")


def refusal(place: Path) -> str:
    (place / "m.keras").write_bytes(b"of an earlier version")
    (place / "m.keras.json").write_text("{}")
    before = snapshot(place)
    with pytest.raises(UserError) as refused:
        export(place, out=place / "m.keras")
    assert snapshot(place) == before
    assert str(refused.value).endswith("build it again with `make features REBUILD=1`")
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_network_that_is_missing_or_damaged_says_what_brings_it_back(place: Path) -> None:
    front = place / "s.h5.network" / "front.keras"
    front.write_bytes(front.read_bytes()[:-1])
    assert "a damaged network (front.keras is not what was written)" in refusal(place)
    (place / "s.h5.network" / "network.json").write_text("{}")
    assert "a damaged network (Object missing required field" in refusal(place)
    shutil.rmtree(place / "s.h5.network")
    assert "s.h5.network: no network beside the store" in refusal(place)


def test_the_network_of_other_features_is_refused(place: Path) -> None:
    change(place, lambda facts: facts["wanted"].update(size=64))
    assert "the network of other features (size 64, not 32)" in refusal(place)


def change(place: Path, alter: Any) -> None:
    """Change the facts of the network beside the store, and its digest to that of the file."""
    path = place / "s.h5.network" / "network.json"
    facts = json.loads(path.read_text())
    facts["files"]["front.keras"] = digest_file(path.with_name("front.keras")).hex()
    alter(facts)
    path.write_text(json.dumps(facts))


def put_front(place: Path, layer: Any) -> None:
    images = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    keras.Model(images, layer(images)).save(place / "s.h5.network" / "front.keras")
    change(place, lambda facts: None)


def test_a_strangers_network_executes_nothing(place: Path) -> None:
    put_front(place, keras.layers.Lambda(lambda images: keras.ops.ones((1, 384))))
    assert "not a Keras model of Keras' own layers" in refusal(place)
    (place / "s.h5.network" / "front.keras").write_bytes(b"PK\3\4 and no more")
    change(place, lambda facts: None)
    assert "not a Keras model of Keras' own layers" in refusal(place)


def test_a_network_that_gives_something_else_is_refused(place: Path) -> None:
    put_front(place, keras.layers.Flatten())
    assert "not the front of this store" in refusal(place)
