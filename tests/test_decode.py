"""One decoder: any image becomes the same kind of pixels, or a reason."""

import io

import numpy as np
import PIL.Image
import pytest

from featurize import decode as module
from featurize.decode import Unreadable, decode


def encode(image: PIL.Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gradient(width: int = 40, height: int = 30) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1)))


def test_grey_becomes_rgb_of_the_asked_size() -> None:
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
