"""An overview of a data folder before it is embedded."""

import io
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from cache.support.errors import UserError
from show.__main__ import main
from show.data_overview import look_at_data


def draw(path: Path, seed: int, width: int = 30, height: int = 20, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two splits with labels, one without, and names of two concepts."""
    for number in range(6):
        draw(tmp_path / "train" / f"t{number}.png", number, width=30 + number)
    for number in range(2):
        draw(tmp_path / "valid" / f"v{number}.png", 10 + number)
    draw(tmp_path / "test" / "x0.png", 20)
    (tmp_path / "train_concepts.csv").write_text("".join(f"t{n},C1{';C2' * (n == 0)}\n" for n in range(6)))
    (tmp_path / "valid_concepts.csv").write_text("v0,C1\nv1,C3\n")
    (tmp_path / "test_ids.csv").write_text("ID\nx0\nx9\n")
    (tmp_path / "cui_mapping.csv").write_text("CUI,Canonical name\nC1,Chest\nC3,Mass\n")
    return tmp_path


def test_images_labels_and_concepts_are_counted(data: Path) -> None:
    overview = look_at_data(data)
    assert (overview.splits["train"].n_images, overview.splits["train"].n_labelled) == (6, 6)
    assert overview.splits["train"].per_image == [1.0, pytest.approx(7 / 6), 2.0]
    assert (overview.splits["test"].n_labelled, overview.splits["test"].n_listed) == (0, 2)
    assert [(each.concept, each.name, each.n_train, each.n_valid) for each in overview.concepts] == [
        ("C1", "Chest", 6, 1), ("C2", "", 1, 0), ("C3", "Mass", 0, 1),
    ]  # fmt: skip
    assert (overview.widths, overview.heights) == ([30, 31, 35], [20, 20, 20])
    assert overview.endings == {".png": 9}
    assert [overview.faults, overview.unreadable, overview.identical, overview.has_groups] == [[], {}, [], False]
    text = "\n".join(overview.describe())
    assert "2 concepts in train, 1 of them in fewer than 5 images" in text
    assert "1 concept in valid but not in train: Mass (C3)" in text
    assert "height 20 to 20 (median 20)" in text


def test_the_same_bytes_in_two_splits_are_a_leak(data: Path) -> None:
    (data / "valid" / "v0.png").write_bytes((data / "train" / "t0.png").read_bytes())
    overview = look_at_data(data)
    assert [(each.leak, each.images) for each in overview.identical] == [(True, ["train/t0", "valid/v0"])]
    assert any("LEAK train/t0, valid/v0" in line for line in overview.describe())


def test_an_unreadable_image_is_listed_with_its_reason(data: Path) -> None:
    (data / "train" / "t1.png").write_bytes(b"not an image")
    (data / "train" / "t2.png").write_bytes(b"")
    overview = look_at_data(data)
    assert overview.unreadable == {"train/t1": "not an image of a known format", "train/t2": "empty file"}


def test_what_is_odd_is_noted_and_what_would_be_refused_is_a_fault(data: Path) -> None:
    (data / "valid_concepts.csv").write_text("v0,C1\nv7,C3\n")
    (data / "train_concepts.csv").write_text("t0,C1\nt0,C2;C3\n")
    (data / "my_notes.csv").write_text("a,b\n")
    overview = look_at_data(data)
    assert [line for line in overview.remarks if "1 labels without an image are left out (v7)" in line]
    assert [line for line in overview.remarks if "1 images without labels are left out (v1)" in line]
    assert len(overview.faults) == 1
    assert "has an earlier row with other concepts" in overview.faults[0]
    assert overview.unused == ["my_notes.csv"]


def test_a_folder_with_a_fault_is_described_and_then_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["look", str(data)]) == 0
    (data / "train_concepts.csv").unlink()
    assert main(["look", str(data)]) == 1
    printed, error = capsys.readouterr()
    assert "FAULT  " in printed
    assert error.startswith(f"show: error: {data}: 1 fault to mend first: {data}: no labels for split 'train'")


def test_json_has_everything(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["look", str(data), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["splits"]["valid"]["n_concepts"] == 2
    assert len(found["concepts"]) == 3


def test_nothing_is_written(data: Path) -> None:
    before = sorted(data.rglob("*"))
    look_at_data(data)
    assert sorted(data.rglob("*")) == before


def test_a_turned_image_has_the_size_that_a_person_sees(data: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    draw(data / "train" / "t0.png", 0, width=50, height=20, exif=exif)
    assert look_at_data(data).heights[2] == 50


def test_a_dicom_file_has_a_size(data: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 70, 90, 8, 8, 7
    dataset.SamplesPerPixel, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    dataset.PixelData = bytes(70 * 90)
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, "1.2.3"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    (data / "train" / "t0.png").unlink()
    (data / "train" / "t0.dcm").write_bytes(buffer.getvalue())
    overview = look_at_data(data)
    assert (overview.widths[2], overview.heights[2]) == (90, 70)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image found"):
        look_at_data(tmp_path)
