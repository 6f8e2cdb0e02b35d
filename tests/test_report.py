"""The report of a run: its numbers are right, its page is safe, whole and small, and a browser shows it."""

import base64
import hashlib
import io
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import PIL.Image
import pytest
import scipy.sparse as sparse
from conftest import PROVENANCE, RECORD, make_store, reported
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from cache.images import Listing
from cache.rows import OK, UNREADABLE, Rows
from cache.support.errors import ParameterError, RunError, StoreError, UserError
from cache.writer import write_store
from eval.comparison import compare_files
from eval.f1 import image_f1
from eval.scored_file import score_files
from heads import LabelledStore, fit_run, make_ensemble
from heads.data.vocabulary import indicator
from heads.registry import make_decoder
from heads.runs.predictor import StoredRun
from show.report.content import Content, collect
from show.report.gallery import N_PICTURES, choose_images, make_gallery
from show.report.measures import N_BINS, THRESHOLDS, count_sizes, find_confusion, measure_scores
from show.report.outcome import Outcome
from show.report.page import make_report, render

pytestmark = pytest.mark.filterwarnings("ignore::cache.support.reporting.DataWarning")  # of what cannot be read

CONCEPTS = ("C0040405", "C1306645", "C0817096", "C0000726", "C7")
HOSTILE = "<script>document.title = 'pwned'</script><img src=x onerror=alert(1)>"
ODD_ID = "valid_<img src=x onerror=alert(1)>"
NAMES = {"C0040405": "Computed tomography", "C1306645": "Plain X-ray", "C0817096": "Chest", "C7": HOSTILE}


def write_labels(path: Path, rows: dict[str, tuple[str, ...]]) -> None:
    path.write_text("ID,CUIs\n" + "".join(f'"{id}",{";".join(concepts)}\n' for id, concepts in rows.items()))


def make_place(place: Path, splits: dict[str, int], seed: int = 0) -> Path:
    """A data folder of small images whose concepts can nearly be read off the embeddings, and its store."""
    random = np.random.default_rng(seed)
    data = place / "data"
    listings, digests, values = {}, [], []
    for split, n_images in splits.items():
        (data / split).mkdir(parents=True)
        ids = [f"{split}_{number:03d}" for number in range(n_images)]
        if split == "valid":
            ids[0] = ODD_ID
        X = random.normal(size=(n_images, len(CONCEPTS)))
        noisy = X + random.normal(size=X.shape) / 2
        labels = {id: tuple(np.array(CONCEPTS)[row]) or CONCEPTS[:1] for id, row in zip(ids, noisy > 0.6, strict=True)}
        for id in ids:
            pixels = random.integers(0, 255, (20, 30), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(data / split / f"{id}.png")
        if split == "test":
            write_labels(data / "test_ids.csv", dict.fromkeys(ids, ()))
        else:
            write_labels(data / f"{split}_concepts.csv", labels)
            write_labels(data / f"{split}_concepts_manual.csv", labels)
        found = [hashlib.sha256((data / split / f"{id}.png").read_bytes()).digest() for id in ids]
        listings[split] = Listing(ids, list(found), [""] * n_images)
        digests += found
        values.append(X)
    embeddings = np.concatenate(values).astype(np.float32)
    reasons = [""] * len(digests)
    reasons[1] = reasons[splits["train"] + 2 if "valid" in splits else 2] = "damaged: <b>bad</b>"
    status = np.array([UNREADABLE if reason else OK for reason in reasons], np.uint8)
    embeddings[status != OK] = np.nan
    rows = Rows(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32), status, reasons, embeddings)
    write_store(place / "s.h5", PROVENANCE, RECORD, listings, [rows], embeddings.shape[1:])
    rows_of_names = "".join(f'{concept},"{name}"\n' for concept, name in NAMES.items())
    (data / "cui_mapping.csv").write_text("CUI,Canonical name\n" + rows_of_names)
    return place


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs with their reports; a test that changes them copies them first."""
    place = make_place(tmp_path_factory.mktemp("report"), {"train": 90, "valid": 40, "test": 5})
    for name in ("kernel", "knn"):
        fit_run(name, place / "s.h5", place / "data", place / name)
    make_report(place / "kernel", [place / "knn"])
    return place


@pytest.fixture(scope="module")
def content(made: Path) -> Content:
    """What the report of a run beside another shows."""
    return collect(Outcome.open(made / "kernel"), [made / "knn"])


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of the runs, their store and their data. The runs remember the first place of both."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join(" ".join(self.texts).split())


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------------------------ the numbers
def test_scores_and_verdicts_are_those_of_the_evaluator(made: Path, content: Content) -> None:
    truth, manual = (made / "data" / f"valid_concepts{end}.csv" for end in ("", "_manual"))
    mine, other = (score_files(made / name, truth, manual) for name in ("kernel", "knn"))
    ours, prior, theirs = content.scores
    for run, scored in ((ours, mine), (theirs, other)):
        assert run.primary
        assert run.secondary
        assert (run.primary.value, run.secondary.value) == (scored.primary, scored.secondary)
        assert run.primary.low < run.primary.value < run.primary.high
    assert theirs.comparisons == compare_files(mine, other)
    assert prior.name == "prior"
    fallback = LabelledStore.load(made / "s.h5", made / "data").train.fallback
    labels = [line.split(",")[-1].split(";") for line in truth.read_text().splitlines()[1:]]
    expected = np.mean([2 * len({*fallback} & {*each}) / (len(fallback) + len(each)) for each in labels])
    assert prior.primary
    assert prior.primary.value == pytest.approx(expected)


def test_the_verdict_follows_from_the_difference(content: Content) -> None:
    for run in content.scores[1:]:
        for each in run.comparisons:
            assert ("this run is" in run.verdict(each)) == each.difference.is_significant
    same = content.scores[1].comparisons[0]
    assert content.scores[1].verdict(same) == "this run is better"
    worse = replace(same, difference=replace(same.difference, mean=-0.5))
    assert content.scores[1].verdict(worse) == "this run is worse"


@pytest.mark.parametrize("size", [7, 1000])
def test_curves_are_those_of_the_decoders_of_each_threshold_and_size(size: int) -> None:
    random = np.random.default_rng(0)
    scores = random.random((60, 9), np.float32)
    Y = sparse.csr_matrix(random.random((60, 9)) < scores)
    n_true = np.asarray(Y.sum(axis=1)).ravel() + random.integers(0, 2, 60)
    blocks = [(slice(start, start + size), scores[start : start + size]) for start in range(0, 60, size)]
    curves = measure_scores(blocks, lambda each: each, Y, n_true)
    for place in (0, 29, 98):
        decoder = make_decoder(f"fixed:{THRESHOLDS[place]}").fit(scores, Y)
        assert curves.f1_at_threshold[place] == pytest.approx(image_f1(Y, decoder.predict(scores), n_true).mean())
    for n_predicted in (1, 4, 9):
        decoder = make_decoder(f"top-k:{n_predicted}").fit(scores, Y)
        assert curves.f1_at_size[n_predicted - 1] == pytest.approx(image_f1(Y, decoder.predict(scores), n_true).mean())


def test_reliability_is_scikit_learns() -> None:
    random = np.random.default_rng(1)
    scores = random.random((50, 8), np.float32)
    scores[0, :2] = 0, 1
    Y = sparse.csr_matrix(random.random((50, 8)) < scores**2)
    n_true = np.asarray(Y.sum(axis=1)).ravel()
    curves = measure_scores([(slice(0, 50), scores)], np.sqrt, Y, n_true)
    for found, values in ((curves.raw, scores), (curves.calibrated, np.sqrt(scores))):
        true, mean = calibration_curve(Y.toarray().ravel(), values.ravel(), n_bins=N_BINS)
        assert found.points[:, 0] == pytest.approx(mean)
        assert found.points[:, 1] == pytest.approx(true)
        assert found.n_pairs.sum() == 400
    assert curves.raw.error == pytest.approx(
        sum(abs(curves.raw.summed[each] - curves.raw.n_true[each]) for each in range(N_BINS)) / 400
    )


def test_confusion_of_single_concepts_is_scikit_learns() -> None:
    random = np.random.default_rng(2)
    names = ["CT", "MR", "US"]
    truth, given = (random.choice(names, 80) for _ in range(2))
    found = find_confusion([[each, "other"] for each in truth], [[each] for each in given], frozenset(names))
    assert found.concepts[-1] == ""
    order = found.concepts[:-1]
    expected = confusion_matrix(truth, given, labels=order)
    assert np.array(found.counts)[:-1, :-1].tolist() == expected.tolist()
    assert sum(found.counts[-1]) == 0


def test_confusion_counts_what_is_missed_or_wrong_with_nothing_in_its_place() -> None:
    found = find_confusion([["CT"], [], ["CT", "MR"]], [[], ["MR"], ["CT"]], frozenset({"CT", "MR"}))
    assert found.concepts == ["CT", "MR", ""]
    assert found.counts == [[1, 0, 1], [0, 0, 1], [0, 1, 0]]


def test_numbers_of_concepts_are_counted_image_by_image() -> None:
    counts = count_sizes([["a"] * 3, ["a", "b"], ["a"]], [["a"], ["a", "b", "c", "d"], []], most=3)
    assert {(true, given): int(counts[true, given]) for true, given in np.argwhere(counts)} == {
        (1, 1): 1,
        (2, 3): 1,
        (1, 0): 1,
    }


def test_the_table_of_concepts_is_scikit_learns(made: Path, content: Content) -> None:
    outcome = Outcome.open(made / "kernel")
    rows = {row.tally.name: row for row in content.concepts}
    assert outcome.split
    truth, given = (indicator([tuple(each) for each in concepts], list(CONCEPTS)).toarray()
                    for concepts in (outcome.split.concepts, outcome.predicted))  # fmt: skip
    precision, recall, f1, _ = precision_recall_fscore_support(truth, given, zero_division=0)
    train = LabelledStore.load(made / "s.h5", made / "data").train
    for place, concept in enumerate(CONCEPTS):
        row = rows[concept]
        assert (row.tally.precision, row.tally.recall) == (
            pytest.approx(precision[place]),
            pytest.approx(recall[place]),
        )
        assert row.tally.f1 == pytest.approx(f1[place])
        assert row.n_train == sum(concept in each for each in train.readable_concepts)
        assert row.name == NAMES.get(concept, "")


def test_the_bands_of_concepts_are_those_of_the_run(made: Path, content: Content) -> None:
    metrics = Outcome.open(made / "kernel").metrics
    assert content.bands
    assert content.bands == metrics["bands"]
    page = render(content)
    assert all(f'<tr><th scope="row">{band["name"]}' in page for band in content.bands)


def test_scores_come_from_the_store_block_by_block(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("show.report.outcome.BLOCK_ROWS", 7)
    blocks = list(Outcome.open(made / "kernel").blocks())
    assert max(len(scores) for _, scores in blocks) == 7
    expected = StoredRun(made / "kernel", made / "s.h5").scores("valid")
    assert np.allclose(np.concatenate([scores for _, scores in blocks]), expected, atol=1e-5)


# --------------------------------------------------------------------------------------------------------- the page
def test_everything_of_the_data_is_escaped(made: Path) -> None:
    html = (made / "kernel" / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert HOSTILE in "".join(page.texts)
    assert ODD_ID in "".join(page.texts)
    assert "damaged: <b>bad</b>" in page.text
    assert not [attributes for _, attributes in page.elements if any(name.startswith("on") for name in attributes)]


def test_the_page_refers_to_nothing_outside_itself(made: Path) -> None:
    html = (made / "kernel" / "report.html").read_text(encoding="utf-8")
    loads = ("src", "href", "srcset", "poster", "data", "action", "background", "xlink:href")
    for tag, attributes in Page(html).elements:
        for name in loads:
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
    assert set(re.findall(r"url\(.", html)) <= {"url(#"}
    assert "@import" not in html
    assert "http" not in re.sub(r"http-equiv", "", html)
    assert "eval(" not in html


def test_the_policy_forbids_every_network_and_every_other_script(made: Path) -> None:
    html = (made / "kernel" / "report.html").read_text(encoding="utf-8")
    policy = next(
        attributes["content"] for tag, attributes in Page(html).elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )  # fmt: skip
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)[-1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["img-src"] == "data:"


def test_every_figure_has_a_caption_and_every_id_is_used_once(made: Path) -> None:
    elements = read(made / "kernel" / "report.html").elements
    tags = [tag for tag, _ in elements]
    assert tags.count("figure") == tags.count("figcaption") >= 10
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    known = set(ids)
    for _, attributes in elements:
        href = attributes.get("href") or ""
        assert not href.startswith("#") or href[1:] in known


def test_text_of_figures_is_text_and_colours_are_those_of_the_page(made: Path) -> None:
    html = (made / "kernel" / "report.html").read_text(encoding="utf-8")
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        assert "<text" in svg
        assert not re.findall(r"(?:fill|stroke): #", svg)
        assert "<style" not in svg


def test_the_same_run_gives_the_same_page(made: Path, content: Content) -> None:
    assert render(content) == (made / "kernel" / "report.html").read_text(encoding="utf-8")


def test_the_page_has_the_commands_that_repeat_the_run(made: Path) -> None:
    text = read(made / "kernel" / "report.html").text
    assert f"python -m heads fit kernel --store {made / 's.h5'} --data {made / 'data'} --out {made / 'kernel'}" in text
    assert f"python -m featurize {made / 'data'} --store {made / 's.h5'} --weights random:0" in text


def test_a_page_of_many_images_and_concepts_is_small(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    vocabulary = np.array([f"C{number:07d}" for number in range(1500)])
    (tmp_path / "data").mkdir()
    splits = {}
    for split, n_images in (("train", 1500), ("valid", 3000)):
        ids = [f"{split}_{number:06d}" for number in range(n_images)]
        splits[split] = dict(zip(ids, random.normal(size=(n_images, 2)), strict=True))
        drawn = np.minimum(random.zipf(1.3, (n_images, 4)) - 1, len(vocabulary) - 1)
        drawn[: len(vocabulary), 0] = np.arange(len(vocabulary))
        labels = {id: tuple(sorted({*vocabulary[row].tolist()})) for id, row in zip(ids, drawn, strict=True)}
        write_labels(tmp_path / "data" / f"{split}_concepts.csv", labels)
    make_store(tmp_path / "s.h5", splits)
    fit_run("prior", tmp_path / "s.h5", tmp_path / "data", tmp_path / "run", decoder="top-k:3")
    path = make_report(tmp_path / "run")
    assert path.stat().st_size < 3e6
    page = read(path)
    assert f"{N_PICTURES} of 3,000 images of valid" in page.text
    assert sum(attributes.get("class") == "card" for _, attributes in page.elements) == N_PICTURES


def test_thumbnails_stay_small_whatever_the_images(tmp_path: Path) -> None:
    (tmp_path / "valid").mkdir()
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8))
    noise.save(tmp_path / "valid" / "a.png")
    digest = hashlib.sha256((tmp_path / "valid" / "a.png").read_bytes()).digest()
    gallery = make_gallery(["a"], {"a": digest}, [["C1"]], [["C1"]], np.ones(1), tmp_path, "valid", {})
    assert len(gallery.pictures[0].thumbnail) * N_PICTURES < 12e6


# ------------------------------------------------------------------------------------------------------ the gallery
def test_a_gallery_has_the_worst_the_best_and_others() -> None:
    f1 = np.random.default_rng(3).permutation(1000) / 1000
    chosen = choose_images(f1, 30)
    values = f1[chosen]
    assert len(set(chosen)) == 30
    assert (np.diff(values) > 0).all()
    assert values[:10] == pytest.approx(np.arange(10) / 1000)
    assert values[-10:] == pytest.approx(np.arange(990, 1000) / 1000)
    assert choose_images(f1[:5], 30) == np.argsort(f1[:5]).tolist()


def test_outcomes_of_a_picture_are_what_is_hit_missed_and_wrong(made: Path, content: Content) -> None:
    outcome, gallery = Outcome.open(made / "kernel"), content.gallery
    assert gallery
    assert outcome.split
    sets = {id: ({*true}, {*given}) for id, true, given in
            zip(outcome.split.ids, outcome.split.concepts, outcome.predicted, strict=True)}  # fmt: skip
    assert len(gallery.pictures) == 39  # one cannot be read
    for picture in gallery.pictures:
        true, given = sets[picture.id]
        found = {
            kind: {chip.code for chip in picture.chips if chip.outcome == kind} for kind in ("hit", "missed", "wrong")
        }
        assert found == {"hit": true & given, "missed": true - given, "wrong": given - true}
        assert picture.f1 == pytest.approx(2 * len(true & given) / (len(true) + len(given)))
        assert picture.size == (30, 20)


def draw_all(content: bytes, concepts: Sequence[str]) -> dict[str, np.ndarray]:
    return {concept: np.arange(12.0).reshape(3, 4) for concept in concepts}


def test_the_first_images_of_each_order_have_heat_maps(made: Path) -> None:
    contents: list[bytes] = []

    def explain(content: bytes, concepts: Sequence[str]) -> dict[str, np.ndarray]:
        contents.append(content)
        return {concept: np.eye(3) for concept in concepts if concept != "C7"}

    gallery = collect(Outcome.open(made / "kernel"), explain=explain, n_explained=9).gallery
    assert gallery
    with_maps = {picture.id for picture in gallery.pictures if any(chip.heat for chip in picture.chips)}
    by_chance = sorted(gallery.pictures, key=lambda picture: picture.place)
    first = {picture.id for order in (gallery.pictures, gallery.pictures[::-1], by_chance) for picture in order[:3]}
    assert with_maps == first
    assert sorted(contents) == sorted((made / "data" / "valid" / f"{id}.png").read_bytes() for id in first)
    assert not any(chip.heat for picture in gallery.pictures for chip in picture.chips if chip.code == "C7")


def test_a_heat_map_is_strongest_where_its_values_are_greatest(made: Path) -> None:
    gallery = collect(Outcome.open(made / "kernel"), explain=draw_all, n_explained=99).gallery
    assert gallery
    heat = gallery.pictures[0].chips[0].heat
    alpha = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(heat.partition(",")[2]))))[..., 3]
    assert alpha[-1, -1] == alpha.max() > 180
    assert alpha[0].max() == 0


def test_without_heat_maps_the_page_says_how_to_get_them(place: Path) -> None:
    assert "--heat-maps 30" in read(place / "kernel" / "report.html").text
    with reported() as lines:
        make_report(place / "kernel", store=place / "s.h5", data=place / "data", heat_maps=3)
    assert any(line.startswith("no heat maps: ") for line in lines)
    with pytest.raises(ParameterError, match="heat_maps = -1"):
        make_report(place / "kernel", heat_maps=-1)


def test_images_that_are_gone_or_changed_have_a_line_in_their_place(place: Path) -> None:
    images = sorted((place / "data" / "valid").iterdir())
    images[3].unlink()
    shutil.copy(images[5], images[4])
    text = read(make_report(place / "kernel", store=place / "s.h5", data=place / "data")).text
    assert "2 of these images are not found any more, or have changed" in text
    assert "no picture: the image is not found any more" in text
    assert "no picture: the file is another one than the run has seen" in text


def test_without_any_image_the_report_is_still_made(place: Path) -> None:
    for split in ("train", "valid", "test"):
        shutil.rmtree(place / "data" / split)
    page = read(make_report(place / "kernel", store=place / "s.h5", data=place / "data"))
    assert f"The pictures cannot be shown: {place / 'data'}: no image found" in page.text
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert "Sizes of images" not in page.text


# ------------------------------------------------------------------------------------------------------ kinds of runs
def test_without_valid_folds_of_train_are_measured(tmp_path: Path) -> None:
    place = make_place(tmp_path, {"train": 90})
    metrics = fit_run("ridge", place / "s.h5", place / "data", place / "run")
    content = collect(Outcome.open(place / "run"))
    assert content.split == "train"
    assert content.scores[0].primary
    folds = metrics["folds"]
    assert folds
    outcome = Outcome.open(place / "run")
    assert outcome.split
    given = [each for each, readable in zip(outcome.predicted, outcome.split.readable, strict=True) if readable]
    f1 = image_f1(outcome.split.Y, indicator([tuple(each) for each in given], outcome.split.vocabulary))
    assert f1.mean() == pytest.approx(folds["primary"])
    assert any("no split valid" in note for note in content.notes)
    assert content.gallery
    assert len(content.gallery.pictures) == 88


def test_without_valid_and_folds_the_page_says_why(tmp_path: Path) -> None:
    place = make_place(tmp_path, {"train": 30})
    fit_run("ridge", place / "s.h5", place / "data", place / "run", decoder="top-k:2")
    page = read(make_report(place / "run"))
    assert "The data have no split valid, and the run saved no out-of-fold scores of train" in page.text
    assert "The long tail" in page.text
    assert not [attributes for _, attributes in page.elements if attributes.get("href") == "#gallery"]


def test_where_no_image_can_be_read_the_page_says_so(made: Path) -> None:
    outcome = Outcome.open(made / "kernel")
    assert outcome.split
    unread = replace(outcome, split=replace(outcome.split, readable=np.zeros(40, bool)))
    assert "No image of valid can be read" in Page(render(collect(unread))).text


def test_where_the_evaluator_counts_no_image_the_rest_is_shown(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heads.data.official_score.is_skipped", lambda *args: True)
    content = collect(Outcome.open(made / "kernel"))
    assert content.scores == []
    page = Page(render(content))
    assert "The official evaluator counts no image of valid" in page.text
    assert "F1 against the threshold" in page.text
    assert "Plain X-ray" in page.text


@pytest.mark.parametrize("method", ["mean", "union"])
def test_an_ensemble_has_a_report(place: Path, made: Path, method: str) -> None:
    metrics = make_ensemble([made / "kernel", made / "knn"], place / "both", method)
    make_report(place / "both", [made / "kernel"])
    content = collect(Outcome.open(place / "both"))
    assert metrics["valid"]
    assert content.scores[0].primary
    assert content.scores[0].primary.value == metrics["valid"]["primary"]
    assert "(kernel, knn)" in content.description
    assert content.commands[0].startswith(f"python -m heads ensemble {made / 'kernel'} {made / 'knn'} --how {method}")


def test_what_has_learnt_from_valid_is_measured_before_it_had(tmp_path: Path) -> None:
    place = make_place(tmp_path, {"train": 90, "valid": 40})
    fit_run("ridge", place / "s.h5", place / "data", place / "train")
    fit_run("ridge", place / "s.h5", place / "data", place / "both", train="train+valid")
    before, after = (np.concatenate([s for _, s in Outcome.open(place / name).blocks()]) for name in ("train", "both"))
    assert np.allclose(before, after, atol=1e-5)
    assert any("before it learnt from valid" in note for note in collect(Outcome.open(place / "both")).notes)


def test_a_split_without_labels_is_shown_as_unused(content: Content) -> None:
    splits = {each.name: each for each in content.data.splits}
    assert list(splits) == ["train", "valid", "test"]
    assert splits["test"].n_labelled is None
    assert splits["train"].unreadable == ["train_001: damaged: <b>bad</b>"]


def test_identical_images_are_shown_and_leaks_first(tmp_path: Path) -> None:
    place = make_place(tmp_path, {"train": 40, "valid": 10})
    # The store is made again with two images of one digest, one of them in each split.
    splits = {"train": {f"train_{n:03d}": np.arange(5) + n for n in range(40)}, "valid": {}}
    splits["valid"] = {id: np.arange(5) for id in [ODD_ID, *(f"valid_{n:03d}" for n in range(1, 10))]}
    ids = [[*splits[name]] for name in splits]
    digests = [number.to_bytes(32, "big") for number in (*range(1, 41), 1, *range(50, 59))]
    listings = {"train": Listing(ids[0], digests[:40], [""] * 40), "valid": Listing(ids[1], digests[40:], [""] * 10)}
    values = np.array([each for rows in splits.values() for each in rows.values()], np.float32)
    rows = Rows(
        np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32), np.full(50, OK, np.uint8), [""] * 50, values
    )
    write_store(place / "leaky.h5", PROVENANCE, RECORD, listings, [rows], (5,))
    fit_run("ridge", place / "leaky.h5", place / "data", place / "run", decoder="top-k:2")
    data = collect(Outcome.open(place / "run")).data
    assert data.n_leaks == 1
    assert data.identical[0].images == ["train/train_000", f"valid/{ODD_ID}"]
    assert "in several splits, and so a leak: 1" in read(make_report(place / "run")).text


# --------------------------------------------------------------------------------------------------------- refusals
def refused(kind: type[UserError], *args: Any, **options: Any) -> str:
    with pytest.raises(kind) as error:
        make_report(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_no_finished_run_is_refused(place: Path) -> None:
    assert "no finished run in it" in refused(RunError, place / "nothing")
    (place / "kernel" / "digests.json").unlink()
    (place / "kernel" / "report.html").unlink()
    assert "no finished run in it" in refused(RunError, place / "kernel")
    assert not (place / "kernel" / "report.html").exists()


def test_a_store_that_is_gone_is_refused_with_the_command_that_makes_it_again(place: Path) -> None:
    message = refused(StoreError, place / "kernel", store=place / "gone.h5")
    assert message.startswith(f"{place / 'gone.h5'}: no such store")
    assert "python -m featurize " in message
    assert "--backbone densenet121 --layer relu --pooling avg --size 224" in message


def test_a_run_of_other_data_is_refused(place: Path, tmp_path: Path) -> None:
    other = make_place(tmp_path / "other", {"train": 90, "valid": 40}, seed=1)  # the same ids, other labels
    fit_run("knn", other / "s.h5", other / "data", other / "run")
    options = {"store": place / "s.h5", "data": place / "data"}
    before = (place / "kernel" / "report.html").read_bytes()
    assert "is of other data than" in refused(RunError, place / "kernel", [other / "run"], **options)
    fewer = make_place(tmp_path / "fewer", {"train": 90, "valid": 30})
    fit_run("knn", fewer / "s.h5", fewer / "data", fewer / "run")
    assert "is of other data than" in refused(RunError, place / "kernel", [fewer / "run"], **options)
    assert "is the run itself" in refused(ParameterError, place / "kernel", [place / "kernel"], **options)
    assert "no finished run" in refused(RunError, place / "kernel", [place / "nothing"], **options)
    assert (place / "kernel" / "report.html").read_bytes() == before


def test_a_report_does_not_outlive_its_run(place: Path) -> None:
    assert (place / "kernel" / "report.html").exists()
    fit_run("kernel", place / "s.h5", place / "data", place / "kernel", decoder="top-k:1")
    assert not (place / "kernel" / "report.html").exists()


def test_labels_that_have_changed_are_warned_about(place: Path) -> None:
    labels = place / "data" / "valid_concepts.csv"
    labels.write_text(labels.read_text().replace("C7", "C0817096", 1))
    with reported() as lines:
        make_report(place / "kernel", store=place / "s.h5", data=place / "data")
    assert any("have changed since it was made" in line for line in lines)


def test_the_command_line_reports_in_one_line(place: Path, command: Callable[..., "CompletedProcess[str]"]) -> None:
    options = ("--store", place / "s.h5", "--data", place / "data")
    done = command("show", "report", place / "kernel", "--against", place / "knn", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        rf"{place}/kernel/report.html: 5 concepts, 39 images, 0\.\d MB; open it in a browser\n", done.stdout
    )
    done = command("show", "report", place / "nothing")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


# -------------------------------------------------------------------------------------------------------- a browser
@pytest.fixture(scope="module")
def with_maps(made: Path) -> str:
    """The page with heat maps."""
    return render(collect(Outcome.open(made / "kernel"), [made / "knn"], draw_all, 99))


@pytest.fixture
def page(browser: Any, with_maps: str, tmp_path: Path) -> Iterator[Any]:
    """The report with heat maps in a browser, on a phone; it must say nothing and load nothing."""
    (tmp_path / "report.html").write_text(with_maps, encoding="utf-8")
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page, said, loaded = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: loaded.append(request.url))
    page.goto(f"file://{tmp_path / 'report.html'}")
    yield page
    assert said == []
    assert [url for url in loaded if not url.startswith("data:")] == [f"file://{tmp_path / 'report.html'}"]
    context.close()


def test_a_browser_runs_nothing_of_the_data_and_a_phone_shows_all(page: Any) -> None:
    assert page.title() == "kernel on data · report"
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert page.pdf()[:4] == b"%PDF"


def test_the_table_is_sorted_by_key_and_searched(page: Any) -> None:
    def column(number: int) -> list[str]:
        rows = page.locator("#concept-table tbody tr:visible")
        return [each.strip() for each in rows.locator(f":scope > :nth-child({number})").all_text_contents()]

    true = page.get_by_role("button", name="True")
    true.focus()
    page.keyboard.press("Enter")
    numbers = [int(each) for each in column(4)]
    assert numbers == sorted(numbers, reverse=True)
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.keyboard.press("Space")
    assert [int(each) for each in column(4)] == sorted(numbers)
    page.get_by_role("button", name="F1").click()
    values = [float(each) for each in column(8) if each != "–"]
    assert values == sorted(values, reverse=True)
    page.get_by_label("Search").fill("chest")
    assert [each.startswith("Chest") for each in column(2)] == [True]
    assert page.locator("#found").text_content() == "1 of 5 concepts"


def test_the_gallery_is_filtered_and_ordered(page: Any) -> None:
    def shown() -> list[float]:
        return [float(each.get_attribute("data-f1")) for each in page.locator(".card").all()]

    worst = shown()
    assert worst == sorted(worst)
    assert page.locator("#shown").text_content() == "24 of 39 images"
    page.get_by_role("button", name="Show more").click()
    assert len(shown()) == 39
    page.locator("#order").select_option("best first")
    assert shown() == sorted(shown(), reverse=True)
    page.locator("#by-concept").select_option("Chest")
    page.locator("#by-outcome").select_option("missed")
    chips = page.locator(".card .missed[data-code=C0817096]")
    assert 0 < len(shown()) == chips.count() < 24


def test_a_heat_map_is_shown_by_pointing_at_it_by_tap_and_by_key(page: Any) -> None:
    button = page.locator("button[data-heat]").first
    card = page.locator(".card", has=button).first
    heat = card.locator("img.heat")
    button.hover()
    assert heat.count() == 1
    page.mouse.move(0, 0)
    assert heat.count() == 0
    button.focus()
    assert heat.count() == 1
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Tab")
    assert heat.count() == 1  # it was pressed, so it stays
    button.focus()
    page.keyboard.press("Escape")
    assert heat.count() == 0
