"""Labels, groups and lists of ids find their images, also where other programs have spelled the ids."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import make_store, reported, warned

from cache.support.errors import DataError
from cache.support.image_ids import IdIndex
from heads import LabelledStore, fit_run, predict_run

NFC, NFD = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")

SPELLINGS = {
    "an ending": ("{}.jpg", "{}"),
    "the ending of DICOM": ("{}.DCM", "{}"),
    "a long ending": ("{}.dicom", "{}"),
    "two endings": ("{}.dcm.png", "{}"),
    "one of two endings": ("{}.dcm", "{}.dcm.png"),
    "an ending in the store": ("{}", "{}.dcm"),
    "the folder of a split": ("train/{}.jpg", "{}"),
    "the folder of images": (r".\train_images\{}.png", "{}"),
    "the folder of a patient": (r"p1\{}.dcm", "p1/{}"),
    "no folder of a patient": ("{}", "p1/{}"),
    "decomposed letters": (f"{NFD} {{}}", f"{NFC} {{}}"),
    "composed letters": (f"{NFC} {{}}", f"{NFD} {{}}"),
    "a plain space": ("3.45 PM {}", "3.45\u202fPM {}"),
    "a no-break space": ("3.45\u00a0PM {}", "3.45 PM {}"),
    "an ideographic space": ("chest front {}", "chest\u3000front {}"),
    "no soft hyphen": ("thorax {}", "tho\u00adrax {}"),
    "a zero-width space": ("a\u200b{}", "a{}"),
}
"""How a list spells an id, and how the store does."""


def make_place(place: Path, spelled: str, stored: str) -> Path:
    """A store of 30 images and their labels; both spell the same names in their own way."""
    random = np.random.default_rng(0)
    place.mkdir(exist_ok=True)
    splits = {}
    for split, n_images in (("train", 20), ("valid", 6), ("test", 4)):
        names = [f"{split}_{number}" for number in range(n_images)]
        splits[split] = {stored.format(name): random.normal(size=3) for name in names}
        ids = [spelled.format(name).replace("train/", f"{split}/") for name in names]
        rows = "".join(f'"{id}",C{number % 3};C{number % 2 + 7}\n' for number, id in enumerate(ids))
        name = "test_ids.csv" if split == "test" else f"{split}_concepts.csv"
        (place / name).write_text("ID,CUIs\n" + rows)
    groups = [f'"{spelled.format(f"train_{number}")}",p{number // 2}\n' for number in range(20)]
    (place / "groups.csv").write_text("ID,group\n" + "".join(groups))
    make_store(place / "s.h5", splits)
    return place


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_labels_groups_and_ids_find_their_images(tmp_path: Path, spelling: str) -> None:
    place = make_place(tmp_path / "odd", *SPELLINGS[spelling])
    plain = make_place(tmp_path / "plain", "{}", "{}")
    with warned() as lines:
        found, expected = (LabelledStore.load(each / "s.h5", each) for each in (place, plain))
    assert lines == []
    assert found.train.concepts == expected.train.concepts
    assert found.train.ids == [SPELLINGS[spelling][1].format(id) for id in expected.train.ids]
    assert np.array_equal(found.train.groups, expected.train.groups)
    assert found.groups_digest == expected.groups_digest


@pytest.mark.parametrize("spelling", ["two endings", "an ending in the store", "composed letters", "a plain space"])
def test_a_submission_repeats_the_list_to_the_letter(tmp_path: Path, spelling: str) -> None:
    place = make_place(tmp_path / "odd", *SPELLINGS[spelling])
    with reported() as lines:
        fit_run("prior", place / "s.h5", place, place / "run", decoder="top-k:1")
        path = predict_run(place / "run", place / "s.h5", data=place, edition=2024)
    assert not [line for line in lines if "left out" in line or "no image" in line]
    ids = [line.partition(",")[0] for line in Path(path).read_text().splitlines()]
    assert ids == ["ID", *(SPELLINGS[spelling][0].format(f"test_{number}") for number in range(4))]


@pytest.mark.parametrize(
    ("stored", "id"),
    [
        (["a b", "a\u00a0b"], "a\u3000b"),
        ([NFC, NFD], f"{NFD}\u200b"),
        (["a.dcm", "a.png.dcm"], "a"),
        (["p1/a", "p2/a"], "a"),
        (["p1/a", "p2/a"], "a.dcm"),
    ],
)
def test_an_id_that_fits_two_images_is_refused_with_both(stored: Sequence[str], id: str) -> None:
    with pytest.raises(DataError, match=r"id '.*' fits 2 images, such as '.*' or '.*'; spell it as one of them"):
        IdIndex(stored).find_rows([id])


@pytest.mark.parametrize(
    ("stored", "id", "row"),
    [
        (["a b", "a\u00a0b"], "a\u00a0b", 1),
        ([NFC, NFD], NFD, 1),
        (["a", "a.dcm"], "a.dcm", 1),
        (["a", "a.dcm"], "a", 0),
        (["a", "a.dcm"], "a.dcm.png", 1),
        (["p1/a", "a"], "a", 1),
        (["p1/a"], "p2/a", -1),
        (["a"], "p1/a", -1),
        (["a"], "A", -1),
        (["1"], "01", -1),
        (["a"], "", -1),
    ],
)
def test_the_exact_spelling_comes_first_and_another_name_is_another_image(
    stored: Sequence[str], id: str, row: int
) -> None:
    assert IdIndex(stored).find_rows([id]) == [row]


def test_two_spellings_of_one_image_must_agree(tmp_path: Path) -> None:
    place = make_place(tmp_path, "{}", "{}")
    with open(place / "train_concepts.csv", "a") as file:
        file.write("train_0.jpg,C0;C7\n")
    LabelledStore.load(place / "s.h5", place)
    with open(place / "train_concepts.csv", "a") as file:
        file.write("train_0.png,C5;C6\n")
    with pytest.raises(DataError, match=r"'train_0\.png' is image 'train_0', which has an earlier row with other"):
        LabelledStore.load(place / "s.h5", place)


def test_two_ids_of_a_list_for_one_image_are_refused(tmp_path: Path) -> None:
    place = make_place(tmp_path, "{}", "{}")
    with open(place / "test_ids.csv", "a") as file:
        file.write("test_0.jpg,\n")
    with reported():
        fit_run("prior", place / "s.h5", place, place / "run", decoder="top-k:1")
        with pytest.raises(
            DataError, match=r"test_ids\.csv: 'test_0', 'test_0\.jpg' are both image 'test_0'; keep one"
        ):
            predict_run(place / "run", place / "s.h5", data=place)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("labels.csv", "it has labels.csv"),
        ("train_concepts.csv.gz", "train_concepts.csv.gz is not unpacked: unpack it there"),
        ("labels.xlsx", "labels.xlsx is not read: save it as CSV in UTF-8"),
        ("data/train.parquet", "data/train.parquet is not read"),
    ],
)
def test_where_labels_are_missing_what_may_hold_them_is_named(tmp_path: Path, name: str, hint: str) -> None:
    place = make_place(tmp_path, "{}", "{}")
    (place / "train_concepts.csv").unlink()
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_text("x")
    with pytest.raises(DataError, match=f"no labels for split 'train'; expected train_concepts.csv, .*{hint}"):
        LabelledStore.load(place / "s.h5", place)


def test_groups_for_none_of_the_images_are_an_error(tmp_path: Path) -> None:
    place = make_place(tmp_path, "{}", "{}")
    (place / "groups.csv").write_text("ID,group\nzz,p1\n")
    with pytest.raises(DataError, match=r"groups\.csv: 20 training images have no group, such as 'train_0'; add them"):
        LabelledStore.load(place / "s.h5", place)
