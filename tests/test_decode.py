"""One decoder: any image becomes the same kind of pixels, or a reason."""

import contextlib
import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.TiffImagePlugin
import pytest

from featurize.decoding import image as module
from featurize.decoding.image import Unreadable, decode


def encode(image: PIL.Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gradient(width: int = 40, height: int = 30) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1)))


def test_grey_becomes_rgb_of_the_requested_size() -> None:
    pixels = decode(encode(gradient()), 16)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    pixels = decode(encode(PIL.Image.fromarray(stripes)), 16)
    # Without antialiasing, every sample would fall on a black or on a white stripe.
    assert abs(pixels.astype(int) - 127).max() < 20


def test_a_large_jpeg_is_decoded_at_a_fraction_and_stays_close() -> None:
    smooth = PIL.Image.effect_noise((700, 600), 60).resize((70, 60)).resize((700, 600), PIL.Image.Resampling.BICUBIC)
    scaled = decode(encode(smooth, "JPEG", quality=95), 224).astype(int)
    whole = decode(encode(smooth), 224).astype(int)
    assert np.abs(scaled - whole).mean() < 2
    assert np.abs(scaled - whole).max() < 25


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_kind_of_jpeg_is_read(mode: str) -> None:
    image = PIL.Image.fromarray(np.repeat(np.array([[10, 245]], np.uint8), 40, axis=1)).resize((160, 160), 0)
    pixels = decode(encode(image.convert(mode), "JPEG", quality=95), 32)
    assert pixels[:, :14].max() < 25
    assert pixels[:, 18:].min() > 230


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "WEBP"])
def test_every_format_is_read(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    expected = decode(encode(gradient()), 16).astype(int)
    assert np.abs(decode(encode(gradient(), kind, **options), 16).astype(int) - expected).max() <= 2


def test_the_first_frame_counts() -> None:
    frames = [PIL.Image.new("L", (8, 8), shade) for shade in (200, 10)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert decode(file.getvalue(), 8).min() > 190


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_gives_the_same_picture(mode: str) -> None:
    image = PIL.Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 8, axis=1)).resize((32, 32), 0)
    kind = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    pixels = decode(encode(image.convert(mode), kind), 32)
    assert pixels[:, :14].max() <= 2
    assert pixels[:, 18:].min() >= 253


def test_transparent_parts_are_black() -> None:
    image = PIL.Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    assert decode(encode(image), 8).max() == 0


def test_sixteen_bits_are_windowed_not_clipped() -> None:
    values = np.linspace(20_000, 40_000, 100 * 100).reshape(100, 100).astype(np.uint16)
    pixels = decode(encode(PIL.Image.fromarray(values)), 100)
    assert pixels.min() == 0
    assert pixels.max() == 255
    assert abs(int(np.median(pixels)) - 127) <= 2


def test_an_image_is_turned_as_its_camera_says() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise
    pixels = decode(encode(gradient(32, 32), "JPEG", exif=exif), 32)
    # The gradient ran from left to right; now it runs from top to bottom.
    assert pixels[0].max() < 40
    assert pixels[-1].min() > 215


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"this is a letter, not an image", "not an image"),
        (encode(gradient(), "JPEG")[:-200], "damaged: "),
        (encode(gradient())[:60], "damaged: "),
        (encode(gradient(1, 1)), "1x1 pixels, expected at least 2x2"),
        (encode(gradient(50, 1)), "50x1 pixels"),
    ],
)
def test_what_is_no_image_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decode(data, 16)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 100)
    with pytest.raises(Unreadable, match="40x30 pixels, more than 100"):
        decode(encode(gradient()), 16)


def adobe_ycck(rgb: np.ndarray) -> bytes:
    """A JPEG as Adobe's programs write it: inverted CMYK, of which CMY stands as YCbCr.

    Pillow writes CMYK only; its channels are given what YCCK would hold, and the marker says so.
    """
    cyan, magenta, yellow, black = PIL.Image.fromarray(rgb).convert("CMYK").split()
    luma = PIL.Image.merge("RGB", [cyan, magenta, yellow]).convert("YCbCr").split()
    inverted = [PIL.ImageOps.invert(channel) for channel in luma]
    data = encode(PIL.Image.merge("CMYK", [*inverted, black]), "JPEG", quality=100, subsampling=0)
    transform = data.index(b"Adobe") + 11
    return data[:transform] + b"\x02" + data[transform + 1 :]


def test_ycck_is_read_as_the_colours_it_shows() -> None:
    rgb = np.repeat(np.array([[[200, 30, 30], [30, 200, 30], [30, 30, 200]]], np.uint8), 32, axis=1).repeat(96, axis=0)
    data = adobe_ycck(rgb)
    assert data != encode(PIL.Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=100, subsampling=0)
    assert np.abs(decode(data, 96).astype(int) - rgb).max() < 12


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"optimize": True}, {"subsampling": 2}, {"restart_marker_rows": 1}]
)
def test_every_way_to_write_a_jpeg_gives_the_same_picture(options: dict[str, object]) -> None:
    plain = decode(encode(gradient(), "JPEG", quality=95), 16).astype(int)
    assert np.abs(decode(encode(gradient(), "JPEG", quality=95, **options), 16).astype(int) - plain).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone(orientation: int) -> None:
    turned = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}
    upright = gradient(32, 32)
    upright.paste(255, (0, 0, 16, 8))  # so that no two of the eight look alike
    stored = upright
    for step in turned.get(orientation, []):
        stored = stored.transpose(PIL.Image.Transpose(step))
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    shown = decode(encode(stored, "PNG", exif=exif), 32)
    np.testing.assert_array_equal(shown, decode(encode(upright), 32))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("TIFF", {"compression": "packbits"}),
        ("TIFF", {"big_tiff": True}),
        ("PNG", {"interlace": 1}),
        ("PNG", {"transparency": 0}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
    ],
)
def test_every_compression_gives_the_same_picture(kind: str, options: dict[str, object]) -> None:
    pixels = decode(encode(gradient(), kind, **options), 30)
    assert np.abs(pixels.astype(int) - decode(encode(gradient()), 30)).max() <= 1


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_deep_grey_is_windowed_whatever_its_type(kind: type) -> None:
    values = np.linspace(1000, 3000, 64 * 64).reshape(64, 64).astype(kind)
    pixels = decode(encode(PIL.Image.fromarray(values), "TIFF"), 64)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert abs(int(np.median(pixels)) - 127) <= 3


def test_deep_grey_whose_white_is_zero_is_shown_as_it_is_meant() -> None:
    values = np.linspace(0, 60_000, 64 * 64).reshape(64, 64).astype(np.uint16)
    white_is_zero = PIL.TiffImagePlugin.ImageFileDirectory_v2()
    white_is_zero[262] = 0
    inverted = decode(encode(PIL.Image.fromarray(values), "TIFF", tiffinfo=white_is_zero), 64)
    np.testing.assert_array_equal(inverted, 255 - decode(encode(PIL.Image.fromarray(values), "TIFF"), 64))


def test_what_is_no_number_does_not_count_in_the_window() -> None:
    values = np.linspace(0, 0.01, 64 * 64, dtype=np.float32).reshape(64, 64)
    expected = decode(encode(PIL.Image.fromarray(values), "TIFF"), 64).astype(int)
    assert (expected.min(), expected.max()) == (0, 255)
    values[0, :5], values[-1, 0] = np.nan, np.inf
    found = decode(encode(PIL.Image.fromarray(values), "TIFF"), 64).astype(int)
    assert np.abs(found - expected)[1:-1].max() <= 2
    with pytest.raises(Unreadable, match="no grey level in it is a number"):
        decode(encode(PIL.Image.fromarray(values * np.nan), "TIFF"), 64)


@pytest.mark.parametrize(("colours", "depth"), [(0, 2), (0, 4), (0, 16), (2, 16), (4, 16), (6, 16)])
def test_png_of_every_depth_that_pillow_does_not_write(colours: int, depth: int) -> None:
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colours]
    most = 2**depth - 1
    row = np.repeat([0, most], 16)[:, None].repeat(channels, 1)
    if colours in (4, 6):
        row[:, -1] = most  # opaque
    bits = np.unpackbits(row.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, 16 - depth :]
    raw = (b"\0" + np.packbits(bits.ravel()).tobytes()) * 32

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 32, 32, depth, colours, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    pixels = decode(b"\x89PNG\r\n\x1a\n" + chunks, 32)
    assert pixels[:, :14].max() == 0
    assert pixels[:, 18:].min() == 255


def test_the_first_page_of_a_tiff_counts() -> None:
    pages = [PIL.Image.new("L", (8, 8), shade) for shade in (200, 10)]
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    assert (decode(file.getvalue(), 8) == 200).all()


def test_the_ending_of_a_name_decides_nothing() -> None:
    # What decides is the content: only bytes are ever seen.
    assert decode(encode(gradient(), "WEBP", lossless=True), 8).shape == (8, 8, 3)
    for data in (b"%PDF-1.7 1 0 obj", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"PK\3\4archive", b"\x00" * 999):
        with pytest.raises(Unreadable, match="not an image of a known format"):
            decode(data, 8)


def test_a_damaged_tiff_says_so_once_and_nowhere_else(capfd: pytest.CaptureFixture[str]) -> None:
    data, random = encode(gradient(200, 200), "TIFF", compression="tiff_lzw"), np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(data)
        for place in random.integers(4, len(data), 6):
            damaged[place] = random.integers(256)
        with contextlib.suppress(Unreadable):
            decode(bytes(damaged), 8)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"])
def test_a_file_cut_anywhere_is_a_picture_or_a_reason(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    noise = PIL.Image.effect_noise((64, 64), 80)
    data = encode(noise, kind)
    for end in range(1, len(data), max(1, len(data) // 60)):
        with contextlib.suppress(Unreadable):
            decode(data[:end], 8)
    with pytest.raises(Unreadable):
        decode(data[: len(data) // 2], 8)
    assert capfd.readouterr() == ("", "")
