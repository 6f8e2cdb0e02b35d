"""Phantoms are the same on every machine, in the official layout."""

import filecmp
from pathlib import Path

import numpy as np
import pytest
from conftest import reported

from cache.images import find_images
from cache.lock import locked
from cache.support.errors import DataError
from eval.labels import find_label_file, read_concepts
from featurize.phantoms import units
from featurize.phantoms.canvas import Canvas, draw
from featurize.phantoms.concepts import BODY_PARTS, FINDINGS, MAX_PHANTOM_CONCEPTS, NAMES, make_phantom
from featurize.phantoms.dataset import make_phantoms


def test_the_same_seed_draws_the_same_files(phantoms: Path, tmp_path: Path) -> None:
    make_phantoms(tmp_path / "again", 40, 0)
    files = sorted(path.relative_to(phantoms) for path in phantoms.rglob("*") if path.is_file())
    assert len(files) > 40
    _, differ, missing = filecmp.cmpfiles(phantoms, tmp_path / "again", files, shallow=False)
    assert (differ, missing) == ([], [])


def test_another_seed_draws_other_pictures(phantoms: Path, tmp_path: Path) -> None:
    make_phantoms(tmp_path / "other", 40, 1)
    name = "train/phantom_train_000001.jpg"
    assert (tmp_path / "other" / name).read_bytes() != (phantoms / name).read_bytes()


def test_the_project_reads_the_layout(phantoms: Path) -> None:
    images = find_images(phantoms)
    assert {split: len(found) for split, found in images.items()} == {"train": 28, "valid": 6, "test": 6}
    for split, found in images.items():
        path = find_label_file(phantoms, split)
        assert path is not None
        concepts = read_concepts(path)
        assert concepts.index.tolist() == [image.id for image in found]
        assert set().union(*concepts) <= set(NAMES)
        assert concepts.map(len).between(1, MAX_PHANTOM_CONCEPTS).all()


def test_manual_concepts_are_a_part_of_all_concepts(phantoms: Path) -> None:
    everything = read_concepts(phantoms / "train_concepts.csv")
    manual = read_concepts(phantoms / "train_concepts_manual.csv")
    assert all(set(manual[id]) <= set(everything[id]) for id in everything.index)


def test_ids_of_the_test_set_come_without_concepts(phantoms: Path) -> None:
    assert not any(read_concepts(phantoms / "test_ids.csv"))


def test_every_finding_changes_the_picture() -> None:
    def plain_appearance(canvas: Canvas) -> None:
        """Draws no grain, so that only the finding can differ."""

    for finding in FINDINGS:
        for part in finding.parts.split():
            body = BODY_PARTS[part.replace("-", " ")][1]
            plain, _ = draw(body, "frontal", [], plain_appearance, [], np.random.default_rng(0))
            drawn, _ = draw(body, "frontal", [finding.drawing], plain_appearance, [], np.random.default_rng(0))
            assert (np.abs(drawn - plain) > 0.1).sum() > 50, (finding.cui, part)


def test_pictures_stay_in_range_and_labels_are_few() -> None:
    for seed in range(60):
        phantom = make_phantom(np.random.default_rng(seed))
        assert phantom.pixels.min() >= 0
        assert phantom.pixels.max() <= 1
        assert len(set(phantom.concepts)) == len(phantom.concepts) <= MAX_PHANTOM_CONCEPTS


def test_drawing_again_does_nothing(phantoms: Path) -> None:
    with reported() as lines:
        make_phantoms(phantoms, 40, 0)
    assert "up to date" in lines[0]


@pytest.mark.parametrize("trouble", ["nothing", "half a picture", "half a file of labels"])
def test_a_stopped_drawing_continues_and_ends_the_same(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(units, "UNIT_IMAGES", 4)
    draw, numbers = units._draw_picture, []

    def draw_some(folder: Path, split: str, number: int, seed: int) -> units.Drawn:
        numbers.append(number)
        if len(numbers) == 15:
            raise KeyboardInterrupt
        return draw(folder, split, number, seed)

    monkeypatch.setattr(units, "_draw_picture", draw_some)
    with pytest.raises(KeyboardInterrupt):
        make_phantoms(tmp_path / "drawn", 40, 0)
    unfinished = tmp_path / "drawn.unfinished"
    if trouble == "half a picture":
        (unfinished / "train" / "phantom_train_000013.jpg").write_bytes(b"\xff\xd8")
    if trouble == "half a file of labels":
        (unfinished / "labels" / "0000008.json").write_text('{"drawn": [')
    numbers.clear()
    numbers.extend([-1] * 20)
    with reported() as lines:
        make_phantoms(tmp_path / "drawn", 40, 0)
    n_kept = 8 if trouble == "half a file of labels" else 12
    assert lines[0] == f"{n_kept} of 40 phantoms are drawn already"
    assert len(numbers) == 20 + 40 - n_kept
    files = sorted(path.relative_to(phantoms) for path in phantoms.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "drawn") for path in (tmp_path / "drawn").rglob("*.*"))
    assert filecmp.cmpfiles(phantoms, tmp_path / "drawn", files, shallow=False)[1:] == ([], [])
    assert [path.name for path in tmp_path.iterdir()] == ["drawn"]


def test_what_was_drawn_for_another_seed_is_not_used(phantoms: Path, tmp_path: Path) -> None:
    labels = tmp_path / "drawn.unfinished" / "labels"
    labels.mkdir(parents=True)
    (labels / "phantoms.json").write_text('{"images": 40, "seed": 1, "drawing": "1"}')
    (labels / "0000000.json").write_text('{"drawn": []}')
    make_phantoms(tmp_path / "drawn", 40, 0)
    assert (tmp_path / "drawn/train_concepts.csv").read_bytes() == (phantoms / "train_concepts.csv").read_bytes()


def test_two_do_not_draw_the_same_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "drawn"), pytest.raises(DataError, match="is being drawn by process"):
        make_phantoms(tmp_path / "drawn", 40, 0)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="contains something else than 40 phantoms"):
        make_phantoms(tmp_path, 40, 0)
    assert (tmp_path / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize("stamp", ["", "[]", "5", "[" * 100_000, '{"images": 40}'])
def test_a_folder_whose_stamp_is_damaged_is_something_else(tmp_path: Path, stamp: str) -> None:
    (tmp_path / "phantoms.json").write_text(stamp)
    with pytest.raises(DataError, match="contains something else than 40 phantoms"):
        make_phantoms(tmp_path, 40, 0)
