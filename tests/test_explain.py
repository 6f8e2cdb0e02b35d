"""Explanations: the maps are what the score is made of, and they point at what was drawn."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from conftest import (
    ABDOMEN,
    EMBEDDING_HEADS,
    FEATURES_OF_MASSES,
    MASS,
    MASS_SPLITS,
    draw_mass,
    quick_params,
    reported,
    snapshot,
)
from scipy.special import expit, logit

import show.__main__
from cache.support.errors import DataError, ParameterError, RunError, UserError
from featurize import Backbone, make_features
from featurize.engines.registry import ENGINES, find_engine
from featurize.phantoms.concepts import make_phantom
from featurize.pooling import POOLINGS, spread_pooling
from featurize.prepared_network import prepare_network
from featurize.request import Request
from heads import Head, fit_run, make_ensemble, make_head
from heads.runs.predictor import StoredRun
from show import Explainer, HeatMap, explain
from show.concepts import find_concepts
from show.overlay import save_overlays

Show = Callable[..., tuple[int, str, str]]


@pytest.fixture
def show_command(capsys: pytest.CaptureFixture[str]) -> Show:
    """Call ``python -m show`` in this process; gives status, standard output and standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        status = show.__main__.main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def draw_map(values: Any, score: float = 0.0) -> HeatMap:
    """A heat map of these values."""
    return HeatMap("a.png", MASS, "Mass", 0.5, np.array(values, np.float32), score, "logit", True)


# --- the maps and what is made of them ---------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("pooling", "layers"),
    [*((pooling, "conv_pw_3_relu") for pooling in POOLINGS), ("avg,max,gem", "conv_pw_1_relu,conv_pw_3_relu")],
)
def test_an_engine_gives_the_maps_whose_pooling_is_the_embedding(
    engine: str, pooling: str, layers: str, tmp_path: Path
) -> None:
    kind = find_engine(engine)
    if not kind.is_installed():
        pytest.skip(f"{engine} is not installed")
    request = Request(Backbone("mobilenet", "random:0", 32, layers, pooling), engine, "float32", "float32", "random:0")
    network = prepare_network(request, kind("float32"), tmp_path / "s.h5")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    maps, embeddings = network.find_maps(images), network.embed(images)
    assert [each.shape for each in maps] == [(3, 16, 16, 64), (3, 8, 8, 128)][-len(maps) :]
    spreads = [spread_pooling(each, name) for each in maps for name in pooling.split(",")]
    pooled = np.concatenate([each.mean(axis=(1, 2)) for each in spreads], axis=1)
    np.testing.assert_allclose(pooled, embeddings, atol=1e-4 * np.abs(embeddings).max(), rtol=0)


@pytest.mark.parametrize("name", ["logistic", "ridge"])
def test_the_mean_of_a_map_is_the_logit_where_the_head_is_linear(masses: Path, name: str, tmp_path: Path) -> None:
    run = masses / "runs" / name
    if name == "ridge":
        run = tmp_path / name
        with reported():
            fit_run(name, masses / "s.h5", masses / "data", run)
    explainer, stored = Explainer(run), StoredRun.reopen(run)
    head, column = stored.run.head, stored.run.vocabulary.index(MASS)
    weights = head.coef_[column] / head.scale_  # type: ignore[attr-defined]
    bias = head.intercept_[column] - weights @ head.mean_  # type: ignore[attr-defined]
    for path in sorted((masses / "data" / "test").iterdir())[:4]:
        heat = explainer.heat_map(path.read_bytes(), "mass")
        maps = explainer.predictor.embedders[stored.store.path].find_maps([path.read_bytes()])[0][0]
        assert heat.is_exact
        np.testing.assert_allclose(heat.values, maps @ weights + bias, atol=1e-3, rtol=0)
        (score,) = stored.run.score(maps.mean(axis=(0, 1))[None])[:, column]
        expected = logit(score.astype(np.float64)) if heat.unit == "logit" else score
        if 1e-3 < score < 1 - 1e-3:
            assert heat.values.mean() == pytest.approx(expected, abs=1e-3)


def test_a_map_of_several_poolings_has_the_score_as_its_mean(masses: Path, tmp_path: Path) -> None:
    with reported():
        make_features(masses / "data", tmp_path / "s.h5", **FEATURES_OF_MASSES | {"pooling": "avg,max,gem"})
    for pooling in ("max", "gem", None):
        with reported():
            fit_run("logistic", tmp_path / "s.h5", masses / "data", tmp_path / "run", pooling=pooling)
        (explained,) = explain(tmp_path / "run", masses / "data" / "test" / "0121.png", MASS)
        (heat,) = explained.maps
        assert heat.values.mean() == pytest.approx(heat.score, abs=1e-3)


def test_a_map_of_several_layers_is_as_fine_as_the_first_of_them(masses: Path, tmp_path: Path) -> None:
    features = FEATURES_OF_MASSES | {"layer": "conv_pw_3_relu,conv_pw_1_relu"}
    image = tmp_path / "new.png"
    PIL.Image.fromarray(draw_mass(1001)[0]).save(image)
    with reported():
        make_features(masses / "data", tmp_path / "s.h5", **features)
    for parts, side in ((None, 32), ("conv_pw_3_relu", 16)):
        with reported():
            fit_run("logistic", tmp_path / "s.h5", masses / "data", tmp_path / "run", pooling=parts)
        (heat,) = explain(tmp_path / "run", image, MASS)[0].maps
        assert heat.is_exact
        assert heat.values.shape == (side, side)
        assert heat.values.mean() == pytest.approx(heat.score, abs=1e-3)


@pytest.mark.parametrize(
    "head",
    [make_head("kernel"), make_head("logistic"), make_head("ridge"), make_head("dense", {"epochs": 2}),
     make_head("dense", {"epochs": 2, "hidden": [8, 6]})],
    ids=lambda head: f"{head}"[:30],
)  # fmt: skip
def test_values_are_the_scores_and_gradients_are_their_slopes(head: Head) -> None:
    random = np.random.default_rng(0)
    X = (random.normal(size=(60, 5)) * [1, 10, 0.1, 1, 1] + 3).astype(np.float32)
    Y = (X[:, :3] + random.normal(size=(60, 3)) > X[:, :3].mean(axis=0)).astype(int)
    head.fit(X, Y)
    columns = [2, 0]
    values, gradients, unit, is_exact = head.linearize(X[:7], columns)
    scores = expit(values) if unit == "logit" else np.clip(values, 0, 1)
    np.testing.assert_allclose(scores, head.predict_proba(X[:7])[:, columns], atol=1e-5, rtol=0)
    step = 1e-2 * X.std(axis=0)
    for feature in range(5):
        shift = (np.arange(5) == feature) * step
        slopes = (head.linearize(X[:7] + shift, columns).values - head.linearize(X[:7] - shift, columns).values) / 2
        np.testing.assert_allclose(slopes, gradients[:, :, feature] * step[feature], atol=2e-4, rtol=1e-2)
    moved = head.linearize(X[7:14], columns).gradients
    assert np.allclose(moved, gradients) == is_exact


@pytest.mark.parametrize("name", EMBEDDING_HEADS)
def test_every_head_has_maps_or_neighbours_or_a_reason(name: str) -> None:
    X, Y = np.random.default_rng(0).normal(size=(30, 4)), np.tile([[1, 0], [0, 1], [1, 1]], (10, 1))
    head = make_head(name, quick_params(name)).fit(X, Y)
    if head.find_neighbours(X) is None:
        try:
            assert head.linearize(X, [0, 1]).gradients.shape == (30, 2, 4)
        except UserError as error:
            assert name == "prior"
            assert "nothing to explain" in str(error)  # noqa: PT017


def test_the_tail_is_explained_by_the_maps_after_it(masses: Path, tmp_path: Path) -> None:
    features = FEATURES_OF_MASSES | {"size": 32, "layer": "conv_pw_11_relu", "pooling": "none", "dtype": "float32"}
    params = {"epochs": 1, "learning_rate": 1e-4}
    with reported():
        make_features(masses / "data", tmp_path / "s.h5", **features)
        fit_run("tail", tmp_path / "s.h5", masses / "data", tmp_path / "run", params=params)
    explainer = Explainer(tmp_path / "run")
    image = tmp_path / "new.png"
    PIL.Image.fromarray(draw_mass(1001)[0]).save(image)
    heat = explainer.heat_map(image.read_bytes(), MASS)
    assert heat.is_exact
    assert heat.values.mean() == pytest.approx(heat.score, abs=1e-3)
    stored = StoredRun.reopen(tmp_path / "run")
    rows = explainer.predictor.embedders[stored.store.path].embed([image.read_bytes()])
    score = stored.score_rows(rows)[0, stored.run.vocabulary.index(MASS)]
    assert expit(heat.score) == pytest.approx(score, abs=1e-4)


# --- what they show ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "times_chance"), [("logistic", 4), ("kernel", 2)])
def test_a_map_points_at_the_mass_that_was_drawn(masses: Path, name: str, times_chance: float) -> None:
    explainer = Explainer(masses / "runs" / name)
    shares, areas = [], []
    first = MASS_SPLITS["train"] + MASS_SPLITS["valid"]
    for number in range(first + 1, first + 2 * 8, 2):
        box = draw_mass(number)[1]
        assert box is not None
        content = (masses / "data" / "test" / f"{number:04d}.png").read_bytes()
        shares.append(explainer.heat_map(content, MASS).share_within(box))
        areas.append((box[2] - box[0]) * (box[3] - box[1]))
    assert np.mean(shares) > times_chance * np.mean(areas)


def test_a_phantom_tells_where_its_findings_are() -> None:
    for number in range(40):
        phantom = make_phantom(np.random.default_rng([0, number]))
        assert set(phantom.boxes) <= set(phantom.concepts)
        for left, top, right, bottom in phantom.boxes.values():
            assert 0 <= left < right <= 1
            assert 0 <= top < bottom <= 1
    pixels, box = draw_mass(1)
    assert box is not None
    left, top, right, bottom = (np.array(box) * [160, 120, 160, 120]).astype(int)
    assert pixels[top:bottom, left:right].mean() > pixels.mean() + 40


def test_the_share_within_a_box_counts_what_is_above_the_score() -> None:
    heat = draw_map([[-5.0, -5.0], [-5.0, 9.0]], score=-1.5)
    assert heat.share_within((0, 0, 1, 1)) == pytest.approx(1)
    assert heat.share_within((0.5, 0.5, 1, 1)) > 0.8
    assert heat.share_within((0, 0, 0.3, 0.3)) == 0
    assert draw_map([[0.0, 0.0]]).share_within((0, 0, 1, 1)) == 0


def test_votes_are_explained_by_the_nearest_training_images(masses: Path) -> None:
    image = masses / "data" / "train" / "0001.png"
    (explained,) = explain(masses / "runs" / "knn", image)
    assert explained.maps == []
    assert (explained.neighbours[0].id, explained.neighbours[0].concepts) == ("0001", sorted([ABDOMEN, MASS]))
    assert explained.neighbours[0].distance == pytest.approx(0, abs=1e-5)
    distances = [each.distance for each in explained.neighbours]
    assert distances == sorted(distances)
    assert len(distances) == 33


def test_what_is_predicted_is_drawn_and_a_concept_of_every_image_is_left_out(masses: Path) -> None:
    image = masses / "data" / "test" / "0121.png"
    (explained,) = explain(masses / "runs" / "logistic", image)
    assert explained.prediction.concepts == sorted([ABDOMEN, MASS])
    assert [each.concept for each in explained.maps] == [MASS]
    with pytest.raises(UserError, match=r"Abdomen \(C0000726\): in every training image or in none"):
        explain(masses / "runs" / "logistic", image, "abdomen")


# --- the pictures ------------------------------------------------------------------------------------------------


def test_a_map_takes_the_shape_of_the_picture_and_keeps_its_places() -> None:
    resized = draw_map([[0.0, 0.0], [0.0, 1.0]]).resize(30, 80)
    assert resized.shape == (30, 80)
    assert np.unravel_index(resized.argmax(), resized.shape) >= (15, 40)
    assert resized[:10, :30].max() < 0.1


def test_the_picture_has_colour_where_the_map_has_values(tmp_path: Path) -> None:
    picture = np.full((60, 160, 3), 128, np.uint8)
    save_overlays(tmp_path / "a.png", picture, [draw_map([[0.0, 0.0, 0.0, 4.0]], 1.0)])
    drawn = np.asarray(PIL.Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    coloured, grey = np.ptp(drawn, axis=2) > 60, (drawn == 128).all(axis=2)
    half = drawn.shape[1] // 2
    rows, columns = np.nonzero(grey[:, : half - 30])
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    # Two panels of the picture's own shape: grey alone on the left; on the right grey, then colour, then the bar.
    assert width / height == pytest.approx(160 / 60, rel=0.05)
    assert not coloured[:, :half].any()
    assert 0.1 < coloured.sum() / (height * width) < 0.5
    assert np.nonzero(coloured)[1].min() > half + 0.5 * width
    assert not list(tmp_path.glob(".*"))


def test_the_command_draws_a_picture_per_image_and_says_how(masses: Path, tmp_path: Path, show_command: Show) -> None:
    images = [masses / "data" / "test" / "0121.png", masses / "data" / "train" / "0001.png"]
    (tmp_path / "0121.png").write_bytes(images[0].read_bytes())
    words = ("--concepts", "Mass", "--out", tmp_path / "maps")
    status, out, err = show_command("explain", masses / "runs" / "logistic", *images, tmp_path / "0121.png", *words)
    assert (status, err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["0001.png", "0121.png", "0121_2.png"]
    assert "Mass (C0577559) 1.00" in out.splitlines()[0]
    assert out.endswith(f"exact: the mean of each map is the logit of the concept; 3 pictures in {tmp_path / 'maps'}\n")
    status, out, _ = show_command("explain", masses / "runs" / "kernel", images[0], "--out", tmp_path / "maps")
    assert "first order: the score is linearised at the image" in out
    status, out, _ = show_command("explain", masses / "runs" / "knn", images[1], "--out", tmp_path / "none")
    assert out.splitlines()[1] == "  0.0000  0001: Abdomen (C0000726), Mass (C0577559)"
    assert "the head votes: these training images decide" in out
    assert not (tmp_path / "none").exists()


def test_an_image_that_cannot_be_read_is_left_out_and_none_is_an_error(
    masses: Path, tmp_path: Path, show_command: Show
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    good = masses / "data" / "test" / "0121.png"
    run, out = masses / "runs" / "logistic", tmp_path / "maps"
    status, _, err = show_command("explain", run, broken, good, "--out", out)
    assert (status, err) == (0, f"show: warning: {broken}: cannot be read: empty file; it is left out\n")
    status, _, err = show_command("explain", run, broken, "--out", tmp_path / "none")
    assert status == 1
    assert err.endswith("show: error: no image could be read\n")
    assert not (tmp_path / "none").exists()
    with pytest.raises(DataError, match="cannot be read: empty file"):
        explain(run, broken)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "words", "message"),
    [
        ("prior", [], "prior gives every image the same scores, whatever it shows: there is nothing to explain"),
        ("logistic", ["--concepts", "mas"], "concept 'mas': the run does not know it; did you mean Mass (C0577559)?"),
        ("logistic", ["--concepts", "xyz"], "concept 'xyz': the run does not know it; give a code, or a name of"),
        ("logistic", ["--out", "{image}"], "{image}: is a file, expected a folder for the pictures"),
        ("nowhere", [], "{masses}/runs/nowhere: no finished run in it; make it with `make head RUN="),
    ],
)
def test_a_request_is_refused_on_one_line_before_anything_is_written(
    masses: Path, tmp_path: Path, show_command: Show, run: str, words: list[str], message: str
) -> None:
    image = tmp_path / "a.png"
    image.write_bytes((masses / "data" / "test" / "0121.png").read_bytes())
    before = snapshot(tmp_path)
    places = {"image": image, "masses": masses}
    out = [] if "--out" in words else ["--out", str(tmp_path / "maps")]
    given = [word.format(**places) for word in words]
    status, printed, err = show_command("explain", masses / "runs" / run, image, *given, *out)
    assert (status, printed) == (1, "")
    assert err.startswith(f"show: error: {message.format(**places)}")
    assert err.count("\n") == 1
    assert snapshot(tmp_path) == before


def test_an_ensemble_is_refused_and_its_members_are_explained(masses: Path, tmp_path: Path) -> None:
    runs = masses / "runs"
    with reported():
        make_ensemble([runs / "logistic", runs / "kernel"], tmp_path / "both")
    with pytest.raises(RunError, match=r"both: an ensemble, .* explain one of those in .*both/members"):
        Explainer(tmp_path / "both")
    member = sorted((tmp_path / "both" / "members").iterdir())[0]
    (heat,) = explain(member, masses / "data" / "test" / "0121.png", "mass")[0].maps
    assert heat.concept == MASS


def test_a_head_that_does_not_say_how_it_scores_is_refused_with_a_line() -> None:
    class Mute(Head):
        arrays = ()

        def _fit(self, X: Any, Y: Any) -> None:
            """Learn nothing."""

        def _scores(self, X: Any) -> Any:
            return np.zeros((len(X), self.n_concepts_), np.float32)

    with pytest.raises(UserError, match="Mute does not say how its scores change with the features"):
        Mute().fit([[1.0], [2.0]], [[1], [0]]).linearize([[1.0]], [0])


def test_concepts_are_found_by_code_and_by_name() -> None:
    names = {"C1": "Pleural effusion", "C2": "Effusion", "C3": "Tomography, X-Ray Computed"}
    vocabulary = ["C1", "C2", "C3", "C4"]
    for text, expected in {
        "c4": ["C4"],
        "pleural effusion": ["C1"],
        "Effusion, PLEURAL EFFUSION C1": ["C2", "C1"],
        "Tomography, X-Ray Computed,C4": ["C3", "C4"],
    }.items():
        assert find_concepts(text, vocabulary, names) == expected
    with pytest.raises(ParameterError, match=r"concept 'pleural efusion': .* did you mean Pleural effusion \(C1\)"):
        find_concepts("C4 pleural efusion, C2", vocabulary, names)
    assert replace(draw_map([[1.0]]), name="").name == ""
