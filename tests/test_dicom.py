"""DICOM: what a screen would show of the middle frame, or a reason."""

import contextlib
import hashlib
import io
import shutil
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cheap
import numpy as np
import PIL.Image
import pytest
from conftest import PROVENANCE, RECORD

from cache.images import Listing
from cache.rows import UNREADABLE, Rows
from cache.store import FeatureStore
from cache.support.errors import NotInstalledError, StoreError
from cache.writer import write_store
from featurize import pipeline as features
from featurize.decoding import dicom, dicom_file, packages
from featurize.decoding.image import DECODING, DECODING_BEFORE_DICOM, Unreadable, decode
from featurize.pipeline import make_features

if find_spec("pydicom") is None:
    pytest.skip("pydicom is not installed", allow_module_level=True)

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
JPEG_2000, JPEG_LS, RLE = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"
ABSENT = object()


def shipped(name: str) -> np.ndarray:
    return decode((FILES / name).read_bytes(), 64)


def change(dataset: Dataset, **elements: Any) -> None:
    """Set elements, remove those that are `ABSENT`, and give those that are a pair another type than the standard's."""
    for name, value in elements.items():
        if value is ABSENT:
            dataset.pop(name, None)
        elif isinstance(value, tuple):
            dataset.add_new(name, *value)
        else:
            setattr(dataset, name, value)


def make(
    values: np.ndarray,
    frames: int = 1,
    syntax: str = EXPLICIT,
    last: Callable[[Dataset], None] = lambda dataset: None,
    **elements: Any,
) -> bytes:
    """A DICOM file of grey, or of RGB where a pixel is three numbers; `last` changes it at the end."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    made.SOPClassUID, made.Modality = "1.2.3", "OT"
    is_grey = values.shape[-1] != 3
    made.Rows, made.Columns = values.shape[-2:] if is_grey else values.shape[:2]
    made.SamplesPerPixel, made.PhotometricInterpretation = (1, "MONOCHROME2") if is_grey else (3, "RGB")
    if not is_grey:
        made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = 8 * values.dtype.itemsize
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(values.dtype.kind == "i")
    if frames > 1:
        made.NumberOfFrames = frames
    ordered = values.astype(values.dtype.newbyteorder(">" if syntax == BIG_ENDIAN else "<"))
    made.add_new("PixelData", "OW" if values.dtype.itemsize > 1 else "OB", ordered.tobytes())
    file = io.BytesIO()
    with pydicom.config.disable_value_validation():
        change(made, **elements)
        last(made)
        made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def compress(syntax: str, **elements: Any) -> Callable[[Dataset], None]:
    """Compress a file, and change elements after it."""

    def last(dataset: Dataset) -> None:
        dataset.compress(syntax, generate_instance_uid=False)
        change(dataset, **elements)

    return last


def ramp(kind: type = np.uint16, most: int = 4000) -> np.ndarray:
    """From 0 to `most`, left to right."""
    return np.tile(np.linspace(0, most, 64).astype(kind), (64, 1))


def item(**elements: Any) -> Sequence:
    made = Dataset()
    change(made, **elements)
    return Sequence([made])


def levels() -> np.ndarray:
    """Every number of 12 bits, once."""
    return np.arange(4096, dtype=np.uint16).reshape(64, 64)


def grey(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values between two levels as 0 to 255."""
    return np.clip(np.round((values.astype(float) - low) / (high - low) * 255), 0, 255)


STORED: dict[str, Any] = {"BitsStored": 12, "HighBit": 11}
WINDOW: dict[str, Any] = {"WindowCenter": "2048", "WindowWidth": "4096"}
DARK: dict[str, Any] = {"WindowCenter": "1048", "WindowWidth": "4096"}
SHOWN = grey(levels(), 0, 4095)
RGB = np.stack([levels() % 256, 255 - levels() % 256, levels() * 7 % 256], axis=-1).astype(np.uint8)


def check(data: bytes, wanted: np.ndarray, within: int = 1) -> None:
    pixels = decode(data, 64).astype(int)
    np.testing.assert_allclose(pixels, np.broadcast_to(wanted if wanted.ndim == 3 else wanted[..., None], pixels.shape),
                               rtol=0, atol=within)  # fmt: skip


def table(
    entries: np.ndarray, first: int, bits: int, kind: str = "US", count: int | None = None, order: str = "<"
) -> Dataset:
    """An item of a sequence of lookup tables."""
    made = Dataset()
    made.add_new("LUTDescriptor", "US", [(len(entries) if count is None else count) % 2**16, first % 2**16, bits])
    made.add_new("LUTData", kind, entries.astype(f"{order}u2").tobytes() if kind == "OW" else entries.tolist())
    return made


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
    bomb = data[:begin] + packer.compress(bytes(dicom_file.MAX_INFLATED + 1)) + packer.flush()
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
        ("JPEG-lossy.dcm", r"compressed as JPEG Extended .*, which no installed package unpacks; to read it: pip"),
        ("SC_rgb_jpeg_gdcm.dcm", "compressed as JPEG Lossless, which no installed package .* pylibjpeg-libjpeg"),
        ("MR_truncated.dcm", "damaged DICOM file: The number of bytes of pixel data is less than expected"),
        ("test-SR.dcm", "a DICOM file without an image"),
        ("DICOMDIR-empty.dcm", "a DICOM file without an image"),
        ("rtplan_truncated.dcm", "a DICOM file without an image"),
    ],
)
def test_a_file_that_shows_nothing_says_why(name: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decode(next(FILES.rglob(name)).read_bytes(), 32)


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
    with pytest.raises(NotInstalledError, match=r"1 DICOM image .*, which pydicom reads: pip install pydicom"):
        make_features(tmp_path / "data", tmp_path / "s.h5")
    assert not list(tmp_path.glob("s.h5*"))


# What may be absent may be empty or odd


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize(
    ("center", "width"),
    [("", ""), ("2048", ""), ("", "4096"), ("2048", "0"), ("2048", "-5"), ("2048", "0.5"), ("nan", "4096"),
     ("2048", "inf"), ("1e400", "4096")],
)  # fmt: skip
def test_a_window_that_cannot_be_used_is_as_none(syntax: str, center: str, width: str) -> None:
    without = decode(make(levels(), syntax=syntax, **STORED), 64)
    odd = make(levels(), syntax=syntax, WindowCenter=("DS", center), WindowWidth=("DS", width), **STORED)
    np.testing.assert_array_equal(decode(odd, 64), without)


@pytest.mark.parametrize(
    "odd",
    [
        ("OB", b"\0\1"),
        ("LO", "wide"),
        ("SQ", []),
        ("SQ", [Dataset()]),
        ("FD", float("nan")),
        ("PN", "a^b"),
        ("US", None),
    ],
)
def test_an_attribute_of_another_type_that_is_no_number_is_as_none(odd: tuple[str, Any]) -> None:
    without = decode(make(levels(), **STORED), 64)
    elements = {"WindowCenter": odd, "WindowWidth": odd, "RescaleSlope": odd, "RescaleIntercept": odd,
                "PixelPaddingValue": odd, "NumberOfFrames": odd, "VOILUTSequence": odd, "ModalityLUTSequence": odd,
                "SharedFunctionalGroupsSequence": odd, "PerFrameFunctionalGroupsSequence": odd}  # fmt: skip
    np.testing.assert_array_equal(decode(make(levels(), **elements, **STORED), 64), without)


def test_a_number_of_another_type_is_a_number() -> None:
    for kind, center, width in (
        ("LO", "2048 ", "4096"),
        ("FD", 2048.0, 4096.0),
        ("US", 2048, 4096),
        ("OB", b"2048", b"4096"),
    ):
        check(make(levels(), WindowCenter=(kind, center), WindowWidth=(kind, width), **STORED), SHOWN)


def test_the_first_window_that_can_be_used_is_used() -> None:
    check(make(levels(), WindowCenter=["", "5", "2048"], WindowWidth=["", "0", "4096"], **STORED), SHOWN)


@pytest.mark.parametrize("function", ["", " linear ", "OTHER", "Linear_Exact"])
def test_the_function_of_a_window_is_found_in_any_spelling(function: str) -> None:
    check(make(levels(), VOILUTFunction=("CS", function), **WINDOW, **STORED), SHOWN)
    sigmoid = 255 / (1 + np.exp(-4 * (levels() - 2048.0) / 1000))
    narrow = make(levels(), VOILUTFunction=("CS", " sigmoid"), WindowCenter="2048", WindowWidth="1000", **STORED)
    check(narrow, sigmoid)


@pytest.mark.parametrize(
    "frame",
    [
        Sequence([]),
        Sequence([Dataset()]),
        item(FrameVOILUTSequence=Sequence([]), PixelValueTransformationSequence=Sequence([])),
        item(FrameVOILUTSequence=item(WindowCenter="", WindowWidth="")),
        item(PixelValueTransformationSequence=item(RescaleSlope=None, RescaleIntercept=None)),
    ],
)
def test_empty_groups_of_a_frame_leave_room_for_those_of_all_frames(frame: Sequence) -> None:
    shared = item(
        FrameVOILUTSequence=item(**DARK),
        PixelValueTransformationSequence=item(RescaleSlope="1", RescaleIntercept="-1000"),
    )
    groups = {"PerFrameFunctionalGroupsSequence": frame, "SharedFunctionalGroupsSequence": shared}
    check(make(levels(), WindowCenter="", WindowWidth="", **groups, **STORED), SHOWN)


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [(None, None), ("", "0"), ("1", ""), ("0", "0"), ("nan", "0"), ("1", "inf"), ("1", "0"), (["1", "2"], ["0", "5"])],
)
def test_a_rescale_that_changes_nothing_or_cannot_be_used_leaves_grey_as_it_is(slope: Any, intercept: Any) -> None:
    elements = {"RescaleSlope": ("DS", slope), "RescaleIntercept": ("DS", intercept)}
    check(make(levels(), **elements, **WINDOW, **STORED), SHOWN)
    narrow = (levels() % 100 + 20).astype(np.uint8)
    check(make(narrow, **elements), narrow, within=0)


def test_slope_and_intercept_each_have_their_default() -> None:
    check(make(levels(), RescaleSlope="", RescaleIntercept="-1000", **DARK, **STORED), SHOWN)
    check(
        make(levels(), RescaleSlope="2", RescaleIntercept="", WindowCenter="4096", WindowWidth="8192", **STORED), SHOWN
    )


# Lookup tables


@pytest.mark.parametrize(
    "unusable",
    [
        {},
        {"LUTDescriptor": ("US", None), "LUTData": ("OW", None)},
        {"LUTDescriptor": ("US", [256, 0]), "LUTData": ("US", [1, 2, 3])},
        {"LUTDescriptor": ("US", [256, 0, 8])},
        {"LUTDescriptor": ("LO", "abc"), "LUTData": ("US", [1, 2, 3])},
        {"LUTDescriptor": ("US", [256, 0, 8]), "LUTData": ("LO", "abc")},
    ],
)
def test_a_lookup_table_that_cannot_be_used_leaves_room_for_what_comes_next(unusable: dict[str, Any]) -> None:
    falling = table(np.arange(4096)[::-1], 0, 12)
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        check(make(levels(), **{name: []}, **WINDOW, **STORED), SHOWN)
        check(make(levels(), **{name: item(**unusable)}, **WINDOW, **STORED), SHOWN)
        check(make(levels(), **{name: [*item(**unusable), falling]}, **WINDOW, **STORED), 255 - SHOWN)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize("kind", ["US", "OW"])
def test_white_is_what_the_entries_of_a_table_need(syntax: str, kind: str) -> None:
    order, entries = ">" if syntax == BIG_ENDIAN else "<", np.arange(4096)
    eight = np.round(entries * 255 / 4095).astype(int)
    for made in (
        table(entries, 0, 12, kind, order=order),
        table(entries, 0, 16, kind, order=order),  # the bits of the container
        table(entries, 0, 8, kind, order=order),  # too few
        table(entries, 0, 0, kind, order=order),
        table(entries * 16 + 15, 0, 16, kind, order=order),
        table(eight, 0, 8, kind, order=order),
        table(eight, 0, 16, kind, order=order),
        table(entries, 0, 12, kind, count=8192, order=order),  # more than there are
    ):
        check(make(levels(), syntax=syntax, VOILUTSequence=[made], **STORED), SHOWN)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_entries_of_8_bits_may_be_packed_two_per_word(syntax: str) -> None:
    order, entries = ">" if syntax == BIG_ENDIAN else "<", np.round(np.arange(4096) * 255 / 4095).astype(np.uint8)
    for count in (4096, 4095):
        made = table(entries.view("<u2"), 0, 8, "OW", count=count, order=order)
        check(make(levels(), syntax=syntax, VOILUTSequence=[made], **STORED), SHOWN)


def test_no_entries_are_65536() -> None:
    values = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    check(make(values, VOILUTSequence=[table(np.arange(2**16), 0, 16, "OW")]), grey(values, 0, 65535))


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize("kind", ["US", "SS"])
def test_the_first_value_of_a_table_has_the_sign_of_what_is_looked_up(syntax: str, kind: str) -> None:
    def starting(first: int, **elements: Any) -> dict[str, Any]:
        made = table(np.arange(4096), first, 12, "OW", order=">" if syntax == BIG_ENDIAN else "<")
        if kind == "SS":
            made.add_new("LUTDescriptor", "SS", [4096, first - 2**16 if first >= 2**15 else first, 12])
        return {"syntax": syntax, "VOILUTSequence": [made], **elements}

    signed = levels().astype(np.int16) - 2048
    check(make(signed, **starting(-2048)), SHOWN)
    check(make(levels(), **starting(-1024, RescaleSlope="1", RescaleIntercept="-1024"), **STORED), SHOWN)
    check(make(signed, **starting(40000, RescaleSlope="1", RescaleIntercept="42048")), SHOWN)
    check(make(levels() + 40000, **starting(40000)), SHOWN)


def test_the_table_of_the_modality_comes_before_the_window() -> None:
    falling, signed = table(np.arange(4096)[::-1], 0, 16), levels().astype(np.int16) - 2048
    check(make(levels(), ModalityLUTSequence=[falling], **WINDOW, **STORED), 255 - SHOWN)
    check(make(signed, ModalityLUTSequence=[table(np.arange(4096), -2048, 16)], **WINDOW), SHOWN)
    high = {"ModalityLUTSequence": [table(np.arange(4096) + 40000, -2048, 16)],
            "VOILUTSequence": [table(np.arange(4096), 40000, 12)]}  # fmt: skip
    check(make(signed, **high), SHOWN)


def palette(
    colours: np.ndarray, bits: int, data: bytes | None = None, order: str = "<", first: int = 0
) -> dict[str, Any]:
    """Elements of a palette; its entries are words, or bytes packed in words if `data` is empty."""
    made: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, column in zip(("Red", "Green", "Blue"), colours.T, strict=True):
        words = column.astype(np.uint8).view("<u2") if data == b"" else column
        made[f"{colour}PaletteColorLookupTableDescriptor"] = ("US", [len(column), first % 2**16, bits])
        made[f"{colour}PaletteColorLookupTableData"] = ("OW", words.astype(f"{order}u2").tobytes())
    return made


COLOURS = np.stack([np.arange(256), 255 - np.arange(256), np.arange(256) * 7 % 256], axis=-1)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_entries_of_a_palette_are_of_the_bits_that_they_need(syntax: str) -> None:
    order, places = ">" if syntax == BIG_ENDIAN else "<", (levels() % 256).astype(np.uint8)
    for elements in (
        palette(COLOURS, 8, b"", order),
        palette(COLOURS, 16, b"", order),  # the bits of the container
        palette(COLOURS, 8, None, order),
        palette(COLOURS, 16, None, order),
        palette(COLOURS * 257, 16, None, order),
        palette(COLOURS * 257, 8, None, order),
        palette(COLOURS, 8, b"", order) | {"SamplesPerPixel": ABSENT, "PixelRepresentation": ABSENT},
        palette(COLOURS, 8, b"", order) | {"PhotometricInterpretation": ("CS", " palette color")},
    ):
        check(make(places, syntax=syntax, **elements), COLOURS[places], within=0)
    signed = places.astype(np.int16).astype(np.int8)
    check(make(signed, syntax=syntax, **palette(COLOURS, 8, b"", order, first=-128)),
          COLOURS[signed.astype(int) + 128], within=0)  # fmt: skip


def test_a_segmented_palette_is_expanded() -> None:
    places = (levels() % 256).astype(np.uint8)
    elements = palette(COLOURS * 257, 16)
    for colour, column in zip(("Red", "Green", "Blue"), COLOURS.T * 257, strict=True):
        segment = np.array([0, 256, *column], "<u2").tobytes()  # discrete
        elements[f"Segmented{colour}PaletteColorLookupTableData"] = ("OW", segment)
        elements[f"{colour}PaletteColorLookupTableData"] = ("OW", None)
    check(make(places, **elements), COLOURS[places], within=0)


def test_boxes_around_a_stream_are_left_out_even_if_they_are_damaged() -> None:
    data = (FILES / "GDCMJ2K_TextGBR.dcm").read_bytes()
    expected, box = decode(data, 64), data.index(b"jP  ") + 8
    damaged = data[:box] + bytes(4) + data[box + 4 :]  # a length of 0
    np.testing.assert_array_equal(decode(damaged, 64), expected)
    with pytest.raises(Unreadable, match="the compressed pixels do not begin with their size"):
        decode(damaged.replace(b"\xff\x4f\xff\x51", b"\xff\x4f\xff\x00"), 64)


def test_palette_colours_without_a_palette_have_a_reason() -> None:
    with pytest.raises(Unreadable, match="palette colours without its palette"):
        decode(make((levels() % 256).astype(np.uint8), PhotometricInterpretation="PALETTE COLOR"), 64)


# Pixels


@pytest.mark.parametrize("odd", [ABSENT, ("US", None), ("US", 0), ("US", 99), ("LO", "x")])
@pytest.mark.parametrize("compressed", ["", JPEG_2000, JPEG_LS, RLE])
def test_attributes_of_the_pixels_are_derived_from_the_others(odd: Any, compressed: str) -> None:
    def removing(*names: str) -> Callable[[Dataset], None]:
        elements = dict.fromkeys(names, odd)
        return compress(compressed, **elements) if compressed else lambda dataset: change(dataset, **elements)

    grey_names = ["BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation"]
    if odd != ("US", 99):  # a number of frames or samples is believed
        grey_names += ["NumberOfFrames", "SamplesPerPixel"]
    for names in (*([name] for name in grey_names), grey_names):
        check(make(levels(), last=removing(*names), **WINDOW, **STORED), SHOWN)
    check(make(RGB, last=removing(*grey_names, "PlanarConfiguration")), RGB, within=0)


@pytest.mark.parametrize("spelling", ["monochrome2", " MONOCHROME2 ", "", "GREY", "RGB"])
def test_the_photometric_interpretation_is_found_in_any_spelling(spelling: str) -> None:
    check(make(levels(), PhotometricInterpretation=("CS", spelling), **WINDOW, **STORED), SHOWN)
    check(make(levels(), PhotometricInterpretation=("CS", " monochrome1"), **WINDOW, **STORED), 255 - SHOWN)
    check(make(RGB, PhotometricInterpretation=("CS", spelling)), RGB, within=0)


@pytest.mark.parametrize("kind", ["LO", "OB"])
def test_a_code_of_another_type_is_a_code(kind: str) -> None:
    white, sigmoid = ("MONOCHROME1 ", "SIGMOID ") if kind == "LO" else (b"MONOCHROME1 ", b"SIGMOID ")
    check(make(levels(), PhotometricInterpretation=(kind, white), **WINDOW, **STORED), 255 - SHOWN)
    curve = make(levels(), VOILUTFunction=(kind, sigmoid), WindowCenter="2048", WindowWidth="1000", **STORED)
    check(curve, 255 / (1 + np.exp(-4 * (levels() - 2048.0) / 1000)))


def test_samples_above_or_between_other_bits_are_found() -> None:
    signed = levels().astype(np.int16) - 2048
    centered = {"WindowCenter": "0", "WindowWidth": "4096"}
    check(make(levels() << 4 | 5, BitsStored=12, HighBit=15, **WINDOW), SHOWN)
    check(make(levels() << 2 | 0xC001, BitsStored=12, HighBit=13, **WINDOW), SHOWN)
    check(make(signed << 4 | 5, BitsStored=12, HighBit=15, **centered), SHOWN)
    check(make(levels() << 4 | 5, last=compress(JPEG_2000, BitsStored=12, HighBit=15), **WINDOW), SHOWN)


@pytest.mark.parametrize("syntax", [JPEG_2000, JPEG_LS, RLE])
def test_bits_above_the_sample_are_left_out_of_compressed_pixels(syntax: str) -> None:
    overlay = np.random.default_rng(0).integers(0, 16, (64, 64)).astype(np.uint16) << 12
    check(make(levels() | overlay, last=compress(syntax, **STORED), **WINDOW), SHOWN)
    signed = (levels().astype(np.int16) - 2048).view(np.uint16) & 0xFFF | overlay
    check(make(signed.view(np.int16), last=compress(syntax, **STORED), WindowCenter="0", WindowWidth="4096"), SHOWN)


def test_colours_are_scaled_by_the_bits_that_are_stored() -> None:
    wide = RGB.astype(np.uint16)
    check(make(wide, BitsStored=8, HighBit=7), RGB)
    check(make(wide * 16 + 15, **STORED), RGB)
    check(make(wide * 257), RGB)
    check(make(wide * 4, last=compress(JPEG_2000), BitsStored=10, HighBit=9), RGB)
    check(make(RGB >> 3, BitsStored=5, HighBit=4), (RGB >> 3) * 255.0 / 31)


def test_full_ybr_that_says_it_is_subsampled_is_read() -> None:
    full = pydicom.pixels.convert_color_space(RGB, "RGB", "YBR_FULL")
    check(make(full, PhotometricInterpretation="YBR_FULL_422"), RGB, within=3)


def test_a_jpeg_that_adobe_marked_is_converted_to_rgb_once() -> None:
    file = io.BytesIO()
    PIL.Image.new("RGB", (64, 64), (255, 0, 0)).save(file, "JPEG", quality=95)
    jpeg = file.getvalue()
    marked = jpeg[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01" + jpeg[20:]
    for photometric in ("YBR_FULL_422", "RGB", ABSENT):
        for stream in (jpeg, marked):

            def last(dataset: Dataset, stream: bytes = stream, photometric: Any = photometric) -> None:
                dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
                dataset.PixelData = pydicom.encaps.encapsulate([stream])
                change(dataset, PhotometricInterpretation=photometric)

            check(make(RGB, last=last), np.broadcast_to([254, 0, 0], (64, 64, 3)))


@pytest.mark.parametrize(
    ("keyword", "kind", "number"), [("FloatPixelData", "OF", "<f4"), ("DoubleFloatPixelData", "OD", "<f8")]
)
def test_real_numbers_are_shown(keyword: str, kind: str, number: str) -> None:
    def last(dataset: Dataset) -> None:
        values = (levels() / 4095).astype(number)
        values[0, 0] = np.nan
        change(dataset, PixelData=ABSENT, BitsStored=ABSENT, HighBit=ABSENT, PixelRepresentation=ABSENT)
        change(dataset, BitsAllocated=8 * values.itemsize, **{keyword: (kind, values.tobytes())})

    check(make(levels(), last=last), grey(levels(), *np.percentile(levels(), (0.5, 99.5))))
    check(make(levels(), last=last, WindowCenter="0.5", WindowWidth="1"), SHOWN)


# Padding


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        ("SS", -2000, np.int16),
        ("US", 63536, np.int16),
        ("SS", -2000, np.uint16),
        ("US", 63536, np.uint16),
        ("US", 0, np.uint16),
    ],
)
def test_padding_is_black_whatever_comes_after(syntax: str, kind: str, value: int, stored: type) -> None:
    values = (levels() // 2 + 1000).astype(stored)
    values[:, :4] = np.int64(value).astype(stored)
    padding = {"syntax": syntax, "PixelPaddingValue": (kind, value)}
    rest = values[:, 4:]
    for window, low, high in (({"WindowCenter": "2000", "WindowWidth": "2000"}, 1000, 2999),
                              ({}, *np.percentile(rest, (0.5, 99.5)))):  # fmt: skip
        wanted = grey(values, low, high)
        wanted[:, :4] = 0
        check(make(values, **window, **padding), wanted)
        wanted[:, 4:] = 255 - wanted[:, 4:]
        check(make(values, PhotometricInterpretation="MONOCHROME1", **window, **padding), wanted)


def test_padding_may_be_a_range() -> None:
    values = levels() // 2 + 1000
    values[:, :4] = [0, 5, 10, 20]
    elements = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": "2000", "WindowWidth": "2000"}
    wanted = 255 - grey(values, 1000, 2999)
    check(make(values, PixelPaddingValue=("US", 0), PixelPaddingRangeLimit=("US", 65535), **elements), wanted)
    wanted[:, 0] = 0
    check(make(values, PixelPaddingValue=("US", 0), PixelPaddingRangeLimit=("US", None), **elements), wanted)
    wanted[:, :4] = 0
    for ends in ((0, 20), (20, 0)):
        padding = {"PixelPaddingValue": ("US", ends[0]), "PixelPaddingRangeLimit": ("US", ends[1])}
        check(make(values, **padding, **elements), wanted)


# Files


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN, JPEG_2000, JPEG_LS, RLE])
def test_a_file_is_read_without_its_preamble_its_meta_group_or_its_transfer_syntax(syntax: str) -> None:
    native = syntax in (EXPLICIT, IMPLICIT, BIG_ENDIAN)
    last: Callable[[Dataset], None] = (lambda dataset: None) if native else compress(syntax)
    data = make(levels(), syntax=syntax if native else EXPLICIT, last=last, **WINDOW, **STORED)
    begin = data.index(b"\0\x08\0\x16" if syntax == BIG_ENDIAN else b"\x08\0\x16\0")
    length = len(syntax) + len(syntax) % 2
    named = data.index(b"\2\0\x10\0UI")
    assert data[named + 8 :].startswith(syntax.encode())
    without_syntax = data[:named] + data[named + 8 + length :]
    for part in (
        data,
        data[132:],
        data[begin:],
        data[128:],
        without_syntax,
        without_syntax[132:],
        data[: named + 8] + b"9" * length + data[named + 8 + length :],
        data[:132] + data[begin:],
        data[:132] + bytes(begin - 132) + data[begin:],
        data[:132] + np.random.default_rng(0).bytes(begin - 132) + data[begin:],
    ):
        check(part, SHOWN)


def test_any_damaged_byte_before_the_data_set_is_overcome() -> None:
    data = make(levels(), syntax=IMPLICIT, **WINDOW, **STORED)
    expected = decode(data, 16)
    for place in range(132, data.index(b"\x08\0\x16\0")):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        np.testing.assert_array_equal(decode(bytes(damaged), 16), expected)


def test_pixels_that_are_compressed_though_the_file_says_otherwise_are_read() -> None:
    def last(dataset: Dataset) -> None:
        compress(JPEG_2000)(dataset)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"

    data = make(levels(), last=last, **WINDOW, **STORED)
    check(data.replace(b"1.2.840.10008.1.2.4.201\0", EXPLICIT.encode().ljust(24, b"\0"), 1), SHOWN)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP"])
def test_other_images_are_not_taken_for_dicom(kind: str) -> None:
    for width in (1, 2, 3, 4, 8, 12, 64):
        for mode in ("RGB", "L"):
            file = io.BytesIO()
            PIL.Image.new(mode, (width, 64), 8).save(file, kind)
            assert not dicom_file.is_dicom(file.getvalue())


@pytest.mark.parametrize("syntax", ["1.008.1.2.2", "1.2.840.0008.1.2.4.81", "9" * 70])
def test_a_transfer_syntax_that_is_no_valid_number_is_only_unknown(syntax: str) -> None:
    assert packages.find_remedy(syntax) == ""
    assert packages.name_syntax(syntax) == syntax


def test_whatever_a_decoder_raises_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise pydicom.errors.BytesLengthException("odd length\nof " + "bytes " * 100)

    monkeypatch.setattr("featurize.decoding.image.read_dicom", fail)
    with pytest.raises(Unreadable, match=r"^damaged DICOM file: odd length of bytes") as caught:
        decode(make(levels()), 64)
    assert len(str(caught.value)) < 350


# Packages that unpack


@pytest.fixture
def lossless(tmp_path: Path) -> Path:
    """A folder with a picture in a kind of JPEG that no package of the extra unpacks."""
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "a.dcm").write_bytes((FILES / "SC_rgb_jpeg_gdcm.dcm").read_bytes())
    return tmp_path / "data"


def test_a_missing_package_is_reported_before_anything_is_built(
    lossless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(*args: object) -> None:
        pytest.fail("a network was built")

    monkeypatch.setattr(features, "choose_engine", prepare)
    line = r"^1 DICOM image that no installed package unpacks, such as \S+a\.dcm \(JPEG Lossless\): pip install .*"
    with pytest.raises(
        NotInstalledError, match=line + r"pylibjpeg-libjpeg.*python-gdcm; or move the files out of \S+data$"
    ):
        make_features(lossless, lossless.parent / "s.h5")
    assert not (lossless.parent / "s.h5").exists()
    assert not (lossless.parent / "s.h5.parts").exists()


def test_files_without_ending_or_preamble_are_looked_at_too(lossless: Path) -> None:
    path = lossless / "train" / "a"
    path.write_bytes((lossless / "train" / "a.dcm").read_bytes()[132:])
    with pytest.raises(NotInstalledError, match="1 DICOM image that no installed package unpacks"):
        features._require_codecs([path], lossless)


def test_files_whose_rows_are_in_the_store_are_not_refused(lossless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Built(Exception):
        pass

    def prepare(*args: object) -> None:
        raise Built

    monkeypatch.setattr(features, "choose_engine", prepare)
    digests = np.frombuffer(hashlib.sha256((lossless / "train" / "a.dcm").read_bytes()).digest(), np.uint8)
    rows = Rows(digests[None], np.array([UNREADABLE], np.uint8), ["compressed"], np.full((1, 4), np.nan, np.float32))
    listings = {"train": Listing(["a"], [digests.tobytes()], [""])}
    write_store(lossless.parent / "s.h5", PROVENANCE, RECORD, listings, [rows], (4,))
    with pytest.raises(Built):
        make_features(lossless, lossless.parent / "s.h5")
    with pytest.raises(NotInstalledError):
        make_features(lossless, lossless.parent / "s.h5", rebuild=True)
    (lossless / "train" / "b.dcm").write_bytes((lossless / "train" / "a.dcm").read_bytes() + bytes(2))
    with pytest.raises(NotInstalledError, match=r"1 DICOM image .* such as \S+b\.dcm"):
        make_features(lossless, lossless.parent / "s.h5")


def test_only_what_a_package_would_unpack_is_refused(lossless: Path) -> None:
    data = (FILES / "SC_rgb_jpeg_gdcm.dcm").read_bytes()
    for syntax in ("1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.99"):  # MPEG, JPEG, none
        path = lossless / "train" / "a.dcm"
        old = b"1.2.840.10008.1.2.4.70"
        path.write_bytes(data.replace(old + bytes(len(old) % 2), syntax.encode()[: len(old)].ljust(len(old), b"\0"), 1))
        features._require_codecs([path], lossless)
    (lossless / "train" / "a.jpg").write_bytes(data)  # not called DICOM: found when it is read
    features._require_codecs([lossless / "train" / "a.jpg", lossless / "train" / "gone.dcm"], lossless)


def test_a_store_of_the_earlier_decoder_is_brought_up_to_date_until_a_dicom_file_is_new(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap.install(monkeypatch.setattr, cheap.CheapEngine())
    data, path = tmp_path / "data", tmp_path / "s.h5"
    shutil.copytree(phantoms, data)
    with monkeypatch.context() as earlier:
        earlier.setattr("featurize.request.DECODING", DECODING_BEFORE_DICOM)
        before = make_features(data, path, **cheap.GIVEN)
    assert before.provenance.decoding == DECODING_BEFORE_DICOM
    image = sorted((data / "train").iterdir())[0]
    (data / "train" / "new.jpg").write_bytes(image.read_bytes() + b"another image")
    after = make_features(data, path)
    assert after.fingerprint == before.fingerprint
    assert "new" in after.split("train").ids
    (data / "train" / "scan.jpg").write_bytes(make(ramp()))  # whatever its name says
    with pytest.raises(StoreError, match=r"decoding 3: .*, not 4: "):
        make_features(data, path)
    assert FeatureStore(path).content == after.content
    rebuilt = make_features(data, path, rebuild=True)
    assert rebuilt.provenance.decoding == DECODING
    assert len(rebuilt.split("train").ids) == len(after.split("train").ids) + 1
