"""Predictions of any images: the numbers of the run, whatever cannot be read, and flat memory."""

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from conftest import ABDOMEN, FEATURES_OF_MASSES, MASS, NO_MASS, ROOT, draw_mass, reported, snapshot, warned

import show.__main__
from cache.images import find_files
from cache.join import join_stores
from cache.support.errors import DataError, RunError, StoreError, UserError
from featurize import Embedder, make_features
from featurize.decoding.dicom_file import is_dicom
from featurize.decoding.image import DECODING_BEFORE_DICOM, decode
from featurize.embedder import OTHER_DICOM
from heads import fit_run, make_ensemble
from heads.ensembles.ensemble import Ensemble
from heads.runs.keras_model import export_run
from heads.runs.predictor import StoredRun
from show import Explainer, ImagePredictor, predict

Show = Callable[..., tuple[int, str, str]]


@pytest.fixture
def show_command(capsys: pytest.CaptureFixture[str]) -> Show:
    """Call ``python -m show`` in this process; gives status, standard output and standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        status = show.__main__.main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def new_images(tmp_path: Path) -> Path:
    """A folder of five images that no store holds, in several formats, with one that cannot be read."""
    folder = tmp_path / "new"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(["a.png", "b.jpg", "c.bmp", "more/d.tif"]):
        PIL.Image.fromarray(draw_mass(1000 + number)[0]).save(folder / name)
    (folder / "more" / "e.png").write_bytes(b"no image")
    (folder / "more" / "notes.csv").write_text("no image")
    return folder


@pytest.fixture
def copied(masses: Path, tmp_path: Path) -> Path:
    """A run with a store of its own, which a test may damage."""
    shutil.copytree(masses / "s.h5.network", tmp_path / "s.h5.network")
    shutil.copy(masses / "s.h5", tmp_path)
    with reported():
        fit_run("prior", tmp_path / "s.h5", masses / "data", tmp_path / "run")
    return tmp_path


def embedding_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a test fail where the network is run."""

    def refuse(*args: Any) -> None:
        raise AssertionError("the network was run")

    monkeypatch.setattr("featurize.embedder.embed_units", refuse)


@pytest.mark.parametrize("name", ["kernel", "logistic", "knn", "prior"])
def test_images_of_the_store_get_its_predictions_and_run_no_network(
    masses: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding_nothing(monkeypatch)
    run = masses / "runs" / name
    stored = StoredRun(run, masses / "s.h5")
    predictions = predict(run, masses / "data" / "test")
    assert [Path(each.image).stem for each in predictions] == stored.images("test")[0]
    assert [each.concepts for each in predictions] == stored.predict("test")
    expected = stored.run.decoder.calibrate(stored.scores("test"))
    np.testing.assert_array_equal([each.probabilities for each in predictions], expected)


def test_new_images_get_the_embedding_that_the_store_would_hold(masses: Path, new_images: Path, tmp_path: Path) -> None:
    readable = [path for path in find_files([new_images]) if path.name != "e.png"]
    shutil.copytree(masses / "data", tmp_path / "data")
    for path in readable:
        shutil.copy(path, tmp_path / "data" / "test")
    with reported():
        store = make_features(tmp_path / "data", tmp_path / "s.h5", **FEATURES_OF_MASSES)
    wanted = dict(zip(store.split("test").ids, store.split("test").embeddings, strict=True))
    embedder = Embedder(masses / "s.h5")
    rows = embedder.embed_files(readable)
    np.testing.assert_array_equal(rows.embeddings, [wanted[path.stem] for path in readable])
    in_memory = embedder.embed([path.read_bytes() for path in readable])
    np.testing.assert_array_equal(in_memory.embeddings, rows.embeddings)
    np.testing.assert_array_equal(in_memory.rows.digests, rows.rows.digests)


def test_an_image_that_cannot_be_read_gets_the_fallback_set_and_its_reason(masses: Path, new_images: Path) -> None:
    *others, broken = predict(masses / "runs" / "logistic", new_images)
    assert [Path(each.image).name for each in others] == ["a.png", "b.jpg", "c.bmp", "d.tif"]
    assert all(each.is_readable and np.isfinite(each.probabilities).all() for each in others)
    assert broken.reason == "not an image of a known format"
    assert broken.concepts == StoredRun.reopen(masses / "runs" / "logistic").fallback
    assert np.isnan(broken.probabilities).all()
    assert [each.is_predicted for each in broken.rank()] == [True] * len(broken.concepts)


def test_predictions_are_right_for_images_that_the_head_has_not_seen(masses: Path) -> None:
    predictions = predict(masses / "runs" / "logistic", masses / "data" / "test")
    hits = [(MASS in each.concepts) == (int(Path(each.image).stem) % 2 == 1) for each in predictions]
    assert np.mean(hits) > 0.9
    assert all(ABDOMEN in each.concepts and each.names[ABDOMEN] == "Abdomen" for each in predictions)


def test_files_are_read_block_by_block_and_one_that_has_vanished_is_listed(
    masses: Path, new_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Embedder, "block_images", 2)
    paths = find_files([new_images])
    expected = predict(masses / "runs" / "kernel", new_images)
    predictions = ImagePredictor(masses / "runs" / "kernel").predict_files(paths)
    first = next(predictions)
    paths[2].unlink()
    rest = list(predictions)
    assert rest[1].reason == "cannot be read: No such file or directory"
    for each, wanted in zip([first, *rest], expected, strict=True):
        if each is not rest[1]:
            np.testing.assert_array_equal(each.probabilities, wanted.probabilities)


def test_an_image_that_changes_while_it_is_read_is_not_taken_for_another(
    masses: Path, new_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import featurize.embedder as module

    embed_units = module.embed_units

    def change(paths: list[Path], *args: Any) -> Any:
        shutil.copy(paths[1], paths[0])
        return embed_units(paths, *args)

    monkeypatch.setattr(module, "embed_units", change)
    rows = Embedder(masses / "s.h5").embed_files([new_images / "a.png", new_images / "b.jpg"])
    assert rows.rows.reasons == [module.CHANGED, ""]


def test_threads_get_what_one_gets(masses: Path, new_images: Path) -> None:
    predictor = ImagePredictor(masses / "runs" / "logistic")
    contents = [path.read_bytes() for path in find_files([new_images])]
    expected = predictor.predict_bytes(contents)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda data: predictor.predict_bytes([data])[0], contents * 3))
    for each, wanted in zip(found, expected * 3, strict=True):
        np.testing.assert_array_equal(each.probabilities, wanted.probabilities)
        assert each.concepts == wanted.concepts


@pytest.mark.parametrize("how", ["mean", "stack", "vote"])
def test_an_ensemble_of_two_stores_predicts_as_it_does_for_its_own_images(
    masses: Path, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reported():
        other = FEATURES_OF_MASSES | {"pooling": "avg,gem", "layer": "conv_pw_2_relu"}
        make_features(masses / "data", tmp_path / "gem.h5", **other)
        fit_run("ridge", tmp_path / "gem.h5", masses / "data", tmp_path / "ridge", pooling="gem")
        make_ensemble([masses / "runs" / "kernel", tmp_path / "ridge"], tmp_path / "both", how)
    images = masses / "data" / "test"
    ensemble = Ensemble.load(tmp_path / "both")
    assert len(ensemble.stores) == 2
    assert [each.concepts for each in predict(tmp_path / "both", images)] == ensemble.predict("test")
    monkeypatch.setattr(Embedder, "_known", {})  # as if none were in a store
    predictions = predict(tmp_path / "both", images)
    assert [each.concepts for each in predictions] == ensemble.predict("test")
    if how == "stack":
        expected = ensemble.decoder.calibrate(ensemble.scores("test"))
        np.testing.assert_allclose([each.probabilities for each in predictions], expected, atol=1e-5, rtol=0)


def test_a_joined_store_is_embedded_with_the_network_of_each(
    masses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reported():
        make_features(masses / "data", tmp_path / "gem.h5", **FEATURES_OF_MASSES | {"pooling": "gem"})
        store = join_stores([masses / "s.h5", tmp_path / "gem.h5"], tmp_path / "joined.h5")
        fit_run("logistic", store.path, masses / "data", tmp_path / "run")
    monkeypatch.setattr(Embedder, "_known", {})  # as if none were in a store
    stored = StoredRun.reopen(tmp_path / "run")
    predictions = predict(tmp_path / "run", masses / "data" / "test")
    expected = stored.run.decoder.calibrate(stored.scores("test"))
    np.testing.assert_array_equal([each.probabilities for each in predictions], expected)
    contents = [path.read_bytes() for path in find_files([masses / "data" / "test"])]
    np.testing.assert_array_equal(
        [each.probabilities for each in ImagePredictor(tmp_path / "run").predict_bytes([*contents, b""])][:-1], expected
    )
    with pytest.raises(StoreError, match="is joined of several stores, whose networks take images of their own sizes"):
        export_run(tmp_path / "run")
    (tmp_path / "gem.h5").unlink()
    with pytest.raises(StoreError, match=r"gem\.h5: no such store; make it with `make features`"):
        ImagePredictor(tmp_path / "run")


@pytest.mark.parametrize("pooling", ["", "gem"])
def test_a_map_of_a_joined_store_has_the_score_as_its_mean(masses: Path, tmp_path: Path, pooling: str) -> None:
    with reported():
        make_features(masses / "data", tmp_path / "gem.h5", **FEATURES_OF_MASSES | {"pooling": "gem", "size": 96})
        store = join_stores([masses / "s.h5", tmp_path / "gem.h5"], tmp_path / "joined.h5")
        fit_run("logistic", store.path, masses / "data", tmp_path / "run", pooling=pooling)
    explainer = Explainer(tmp_path / "run")
    heat = explainer.heat_map((masses / "data" / "test" / "0121.png").read_bytes(), "mass")
    side = 24 if pooling else 48  # 96 px have 24 places in a row, 64 px have 16
    assert heat.values.shape == (side, side)
    assert heat.values.mean() == pytest.approx(heat.score, abs=1e-3)


def test_dicom_of_a_store_of_the_earlier_decoder_is_not_embedded_in_another_way(
    masses: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Embedder(masses / "s.h5")
    embedder.store.provenance = replace(embedder.store.provenance, decoding=DECODING_BEFORE_DICOM)
    dicom = bytes(128) + b"DICM" + bytes(200)
    assert is_dicom(dicom)
    assert embedder.embed([dicom]).rows.reasons == [OTHER_DICOM]


def test_a_picture_for_people_keeps_its_shape_and_the_network_sees_the_same_pixels(new_images: Path) -> None:
    from featurize.decoding.image import decode_picture

    data = (new_images / "a.png").read_bytes()
    picture = decode_picture(data, 80)
    assert picture.shape == (60, 80, 3)
    assert decode_picture(data).shape == (120, 160, 3)
    square = PIL.Image.fromarray(decode_picture(data)).resize((64, 64), PIL.Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(np.asarray(square), decode(data, 64))


def test_the_table_marks_what_is_predicted_and_names_it(masses: Path, show_command: Show) -> None:
    image = masses / "data" / "test" / "0121.png"
    status, out, err = show_command("predict", masses / "runs" / "logistic", image, "--top", 1)
    assert (status, err) == (0, "")
    first, *lines, last = out.splitlines()
    assert first == str(image)
    assert [line[2] for line in lines] == ["+", "+", " "]
    assert [line.split(None, 3 if "+" in line else 2)[-1] for line in lines] == ["Abdomen", "Mass", "No mass here"]
    assert last == "+ marks what is predicted (1 image)"


def test_csv_and_json_have_every_concept_of_every_image(
    masses: Path, new_images: Path, tmp_path: Path, show_command: Show
) -> None:
    run, out = masses / "runs" / "logistic", tmp_path / "made" / "p.csv"
    status, printed, _ = show_command("predict", run, new_images, masses / "data" / "test", "--out", out)
    assert status == 0
    assert "19 more images; + marks what is predicted (29 images, 1 of them cannot be read)" in printed
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    predictions = predict(run, [new_images, masses / "data" / "test"])
    expected = [(each.image, score) for each in predictions for score in each.rank()]
    assert [(row["image"], row["concept"]) for row in rows] == [(image, score.concept) for image, score in expected]
    for row, (_, score) in zip(rows, expected, strict=True):
        assert row["predicted"] == str(int(score.is_predicted))
        assert row["probability"] == ("" if np.isnan(score.probability) else f"{score.probability:.6f}")
    status, printed, _ = show_command("predict", run, new_images, "--json")
    found = json.loads(printed)
    assert found["run"] == str(run)
    assert [each["concepts"] for each in found["images"]] == [each.concepts for each in predictions[:5]]
    assert found["images"][4]["unreadable"] == "not an image of a known format"
    assert [score["concept"] for score in found["images"][0]["scores"]] == [
        score.concept for score in predictions[0].rank()
    ]


def test_engine_and_head_that_need_no_tensorflow_load_none(masses: Path, new_images: Path) -> None:
    if StoredRun.reopen(masses / "runs" / "kernel").store.provenance.engine != "openvino":
        pytest.skip("openvino is not installed")
    code = (
        "import sys; from show.__main__ import main\n"
        f"status = main(['predict', {str(masses / 'runs' / 'kernel')!r}, {str(new_images)!r}])\n"
        "sys.exit(status or bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_missing_is_named_with_what_makes_it_again(copied: Path, new_images: Path) -> None:
    with pytest.raises(RunError, match="nowhere: no finished run in it; make it with `make head RUN="):
        predict(copied / "nowhere", new_images)
    shutil.move(copied / "s.h5.network", copied / "away")
    with pytest.raises(StoreError, match=r"no network beside the store; .* `make features REBUILD=1`"):
        predict(copied / "run", new_images)
    shutil.move(copied / "away", copied / "s.h5.network")
    next((copied / "s.h5.network").glob("front.*[!s]")).write_bytes(b"")
    with pytest.raises(StoreError, match="a damaged network"):
        predict(copied / "run", new_images)
    (copied / "s.h5").unlink()
    with pytest.raises(
        StoreError, match=r"its store .* is gone; make it again with `make features DATA=.* BACKBONE=mob"
    ):
        predict(copied / "run", new_images)


def test_the_command_that_makes_a_store_again_makes_it(copied: Path, new_images: Path) -> None:
    expected = (copied / "s.h5").stat().st_size
    (copied / "s.h5").unlink()
    with pytest.raises(StoreError) as refused:
        predict(copied / "run", new_images)
    words = str(refused.value).split("`")[1].split()[2:]
    options = dict(word.split("=", 1) for word in words)
    data, store = options.pop("DATA"), options.pop("STORE")
    with reported():
        make_features(data, store, **{name.lower(): int(value) if name == "SIZE" else value
                                      for name, value in options.items()})  # fmt: skip
    assert (copied / "s.h5").stat().st_size == expected
    assert predict(copied / "run", new_images)


def test_no_image_and_no_file_are_refused(masses: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no image found; expected files, or folders with files that end in"):
        predict(masses / "runs" / "prior", tmp_path / "empty")
    with pytest.raises(DataError, match=r"nothing\.png: no such file or folder"):
        predict(masses / "runs" / "prior", [tmp_path / "nothing.png"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "{folder}"], "{folder}: is a folder, expected a file to write"),
        (["--out", "{file}/p.csv"], "{file}: File exists"),
        (["--top", "-1"], "--top -1, expected 0 or more"),
        (["--workers", "0"], "--workers 0, expected 1 or more"),
    ],
)
def test_a_refused_command_is_one_line_and_changes_nothing(
    masses: Path, new_images: Path, tmp_path: Path, show_command: Show, words: list[str], message: str
) -> None:
    places = {"folder": new_images, "file": new_images / "a.png"}
    before = snapshot(tmp_path)
    status, out, err = show_command(
        "predict", masses / "runs" / "prior", new_images, *(w.format(**places) for w in words)
    )
    assert (status, out) == (1, "")
    assert err.startswith(f"show: error: {message.format(**places)}")
    assert err.count("\n") == 1
    assert snapshot(tmp_path) == before


def test_an_error_after_the_file_was_begun_leaves_the_earlier_one(
    masses: Path, new_images: Path, tmp_path: Path, show_command: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "p.csv"
    out.write_text("earlier")

    def fail(*args: Any) -> None:
        raise UserError("a worker process was ended")

    monkeypatch.setattr("featurize.embedder.embed_units", fail)
    status, _, err = show_command("predict", masses / "runs" / "prior", new_images, "--out", out)
    assert (status, err) == (1, "show: error: a worker process was ended\n")
    assert out.read_text() == "earlier"
    assert not list(tmp_path.glob(".*.tmp"))


def test_files_of_folders_are_found_once_and_what_is_no_image_is_left_out(new_images: Path) -> None:
    with warned() as lines:
        assert find_files([new_images / "b.jpg", new_images, new_images / "more" / "notes.csv"]) == [
            new_images / name for name in ("b.jpg", "a.png", "c.bmp", "more/d.tif", "more/e.png", "more/notes.csv")
        ]
    assert lines == []
    (new_images / "readme.txt").write_text("no image")
    with warned() as lines:
        find_files([new_images])
    assert lines == [f"{new_images}: left out 1 file without the ending of an image: readme.txt"]


def test_a_concept_without_a_name_has_its_code(masses: Path) -> None:
    (prediction,) = predict(masses / "runs" / "kernel", masses / "data" / "test" / "0120.png")
    assert {each.concept: each.name for each in prediction.rank()} == {
        ABDOMEN: "Abdomen",
        MASS: "Mass",
        NO_MASS: "No mass here",
    }
    assert [each.name for each in replace(prediction, names={}).rank()] == ["", "", ""]
