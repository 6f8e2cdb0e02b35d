"""DICOM: what a screen would show of the middle frame, or a reason."""

import contextlib
import io
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.support.errors import UserError
from featurize import pipeline as features
from featurize.decoding import dicom
from featurize.decoding.image import Unreadable, decode
from featurize.pipeline import make_features

if find_spec("pydicom") is None:
    pytest.skip("pydicom is not installed", allow_module_level=True)

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
EXPLICIT = "1.2.840.10008.1.2.1"


def shipped(name: str) -> np.ndarray:
    return decode((FILES / name).read_bytes(), 64)


def make(values: np.ndarray, frames: int = 1, **elements: Any) -> bytes:
    """A grey DICOM file of 16 bits."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = EXPLICIT
    made.file_meta.MediaStorageSOPClassUID = made.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    made.Rows, made.Columns = values.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 8 * values.dtype.itemsize
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(values.dtype.kind == "i")
    if frames > 1:
        made.NumberOfFrames = frames
    made.PixelData = values.tobytes()
    for name, value in elements.items():
        setattr(made, name, value)
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def ramp(kind: type = np.uint16, most: int = 4000) -> np.ndarray:
    """From 0 to `most`, left to right."""
    return np.tile(np.linspace(0, most, 64).astype(kind), (64, 1))


def item(**elements: Any) -> Sequence:
    made = Dataset()
    for name, value in elements.items():
        setattr(made, name, value)
    return Sequence([made])


@pytest.mark.parametrize(
    "name",
    ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"],
)
def test_one_image_is_the_same_in_every_transfer_syntax(name: str) -> None:
    np.testing.assert_array_equal(shipped(f"MR_small_{name}.dcm"), shipped("MR_small.dcm"))


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_rle.dcm",
        "SC_rgb_rle_16bit.dcm",
        "SC_rgb_rle_32bit.dcm",
        "SC_rgb_gdcm_KY.dcm",
        "SC_rgb_dcmtk_+eb+cr.dcm",
        "SC_rgb_dcmtk_+eb+cy+n1.dcm",
        "SC_rgb_jls_lossy_line.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
    ],
)
def test_colours_come_out_as_rgb_however_they_are_stored(name: str) -> None:
    bars = shipped(name)[[3, 15, 28], 32].astype(int)  # red, green, blue from above
    assert np.abs(bars - np.diag([255, 255, 255])[: len(bars)]).max() < 60


def test_a_palette_becomes_colours() -> None:
    assert len(np.unique(shipped("examples_palette.dcm").reshape(-1, 3), axis=0)) > 50


def test_a_deflated_file_is_read_and_a_bomb_is_not() -> None:
    data = (FILES / "image_dfl.dcm").read_bytes()
    assert decode(data, 32).std() > 10
    begin = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = data[:begin] + packer.compress(bytes(dicom.MOST_INFLATED + 1)) + packer.flush()
    with pytest.raises(Unreadable, match="unpacks to more than"):
        decode(bomb, 32)


def test_the_window_of_the_file_is_used() -> None:
    pixels = decode(make(ramp(), WindowCenter="2000", WindowWidth="1001"), 64)[0, :, 0]
    expected = np.clip((ramp()[0] - 1999.5) / 1000 + 0.5, 0, 1) * 255
    np.testing.assert_allclose(pixels, expected, atol=1)


def test_the_first_of_several_windows_is_used() -> None:
    several = make(ramp(), WindowCenter=["2000", "100"], WindowWidth=["1001", "10"])
    np.testing.assert_array_equal(
        decode(several, 64), decode(make(ramp(), WindowCenter="2000", WindowWidth="1001"), 64)
    )


def test_slope_and_intercept_come_before_the_window() -> None:
    values = make(ramp(), RescaleSlope="0.5", RescaleIntercept="-1000", WindowCenter="0", WindowWidth="501")
    doubled = make(ramp(), WindowCenter="2001", WindowWidth="1001")
    assert np.abs(decode(values, 64).astype(int) - decode(doubled, 64)).max() <= 1


def test_monochrome1_is_inverted() -> None:
    plain = decode(make(ramp(), WindowCenter="2000", WindowWidth="1001"), 64)
    other = make(ramp(), WindowCenter="2000", WindowWidth="1001", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(decode(other, 64), 255 - plain)


def test_a_lookup_table_comes_before_a_window() -> None:
    table = item(LUTDescriptor=[4, 1000, 8], LUTData=[0, 50, 100, 255])
    table[0]["LUTDescriptor"].VR = table[0]["LUTData"].VR = "US"
    values = np.tile(np.array([0, 1000, 1001, 1002, 1003, 4000], np.uint16), (6, 1))
    pixels = decode(make(values, VOILUTSequence=table, WindowCenter="2000", WindowWidth="1001"), 6)
    assert pixels[0, :, 0].tolist() == [0, 0, 50, 100, 255, 255]


def test_grey_without_a_window_is_stretched_and_padding_does_not_count() -> None:
    values = ramp(np.int16, 1000)
    values[:40] = -2000
    pixels = decode(make(values, PixelPaddingValue=-2000), 64)
    assert pixels[0].max() == 0
    assert abs(int(np.median(pixels[50, :, 0])) - 127) <= 3


def test_eight_bits_without_a_window_stay_as_they_are() -> None:
    values = ramp(np.uint8, 100)
    np.testing.assert_array_equal(decode(make(values), 64)[..., 0], values)


def test_the_middle_frame_is_shown() -> None:
    frames = np.stack([np.full((8, 8), shade, np.uint8) for shade in (10, 120, 240)])
    assert (decode(make(frames, frames=3), 8) == 120).all()


def test_an_enhanced_file_keeps_window_and_slope_in_its_groups() -> None:
    shared = item(
        PixelValueTransformationSequence=item(RescaleSlope="0.5", RescaleIntercept="-1000"),
        FrameVOILUTSequence=item(WindowCenter="0", WindowWidth="501"),
    )
    plain = make(ramp(), RescaleSlope="0.5", RescaleIntercept="-1000", WindowCenter="0", WindowWidth="501")
    enhanced = make(ramp(), SharedFunctionalGroupsSequence=shared)
    np.testing.assert_array_equal(decode(enhanced, 64), decode(plain, 64))


def test_windows_map_as_the_standard_says() -> None:
    values = np.array([-500.0, 0.0, 500.0])
    assert dicom.window(values, 0, 1000, "LINEAR_EXACT").tolist() == [0.0, 127.5, 255.0]
    np.testing.assert_allclose(dicom.window(values, 0, 1000, "SIGMOID"), 255 / (1 + np.exp([2, 0, -2])))
    assert dicom.window(values, 0, 1).tolist() == [0.0, 255.0, 255.0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("JPEG-lossy.dcm", r"compressed as JPEG Extended .*, which nothing installed reads"),
        ("SC_rgb_jpeg_gdcm.dcm", "compressed as JPEG Lossless"),
        ("MR_truncated.dcm", "damaged: The number of bytes of pixel data is less than expected"),
        ("badVR.dcm", "damaged: invalid literal"),
        ("test-SR.dcm", "a DICOM file without an image"),
        ("DICOMDIR-empty.dcm", "a DICOM file without an image"),
        ("rtplan_truncated.dcm", "a DICOM file without an image"),
    ],
)
def test_a_file_that_shows_nothing_says_why(name: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decode(next(FILES.rglob(name)).read_bytes(), 32)


@pytest.mark.parametrize("width", ["0", "-5"])
def test_a_window_without_width_is_damage(width: str) -> None:
    with pytest.raises(Unreadable):
        decode(make(ramp(), WindowCenter="2000", WindowWidth=width), 32)


def test_no_declared_size_is_believed() -> None:
    with pytest.raises(Unreadable, match="65535x65535 pixels, more than 89,478,485"):
        decode(make(ramp(), Rows=65535, Columns=65535), 32)
    dataset = pydicom.dcmread(FILES / "MR_small_jp2klossless.dcm")
    dataset.Columns = 32
    file = io.BytesIO()
    dataset.save_as(file)
    with pytest.raises(Unreadable, match="declares 32x64 pixels and holds 64x64"):
        decode(file.getvalue(), 32)


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_RLE.dcm", "SC_rgb_jpeg.dcm", "MR_small_jp2klossless.dcm"])
def test_damage_of_any_byte_is_a_picture_or_a_reason(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    data, random = (FILES / name).read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data[: random.integers(len(data) // 2, len(data) + 1)])
        for place in random.integers(0, min(len(damaged), 2500), 4):
            damaged[place] = random.integers(256)
        with contextlib.suppress(Unreadable):
            assert decode(bytes(damaged), 16).shape == (16, 16, 3)
    assert capfd.readouterr() == ("", "")


def test_dicom_files_that_nothing_can_read_are_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "a.dcm").write_bytes((FILES / "MR_small.dcm").read_bytes())
    monkeypatch.setattr(features, "is_installed", lambda: False)
    with pytest.raises(UserError, match=r"1 images are DICOM files .*: pip install pydicom"):
        make_features(tmp_path / "data", tmp_path / "s.h5")
    assert not list(tmp_path.glob("s.h5*"))
