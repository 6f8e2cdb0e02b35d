"""No small file takes much time or memory, and what the machine lacks is never a reason recorded of an image."""

import errno
import io
import os
import signal
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cheap
import numpy as np
import PIL.Image
import pytest
from conftest import ROOT, wait_for_end

from cache.digest_memo import DigestMemo
from cache.images import find_images, identify
from cache.support.errors import DataError, UserError
from featurize import image_loader, limited_process
from featurize.decoding import guard, levels
from featurize.decoding import image as module
from featurize.decoding.attributes import find_values
from featurize.decoding.code_stream import count_scans
from featurize.decoding.image import Unreadable, decode
from featurize.decoding.webp import read_webp_size
from featurize.limited_process import LimitError, call_limited
from featurize.units import embed_unit


def encode(image: PIL.Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int) -> bytes:
    """A black PNG of one bit per pixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header, rows = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0), bytes(height * (1 + -(-width // 8)))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def webp(width: int, height: int) -> bytes:
    """The beginning of an animation, of which Pillow would take the memory at once."""
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + sides + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_of_scans(n_scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encode(PIL.Image.new("L", (64, 64)), "JPEG", progressive=True)
    scan, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[scan:end] * (n_scans - count_scans(data)) + data[end:]


def tiff_of_tiles(side: int) -> bytes:
    """A TIFF of 64 x 64 pixels in one tile."""
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: 99}
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4)


def gif(width: int, height: int) -> bytes:
    data = encode(PIL.Image.new("P", (8, 8)), "GIF")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (webp(16_383, 16_383), "16383x16383 pixels, more than 29,826,161"),
        (png(2, 70_000), "2x70000 pixels, more than 65,535 in a row or column"),
        (png(70_000, 2), "70000x2 pixels, more than 65,535 in a row or column"),
        (jpeg_of_scans(101), "more than 100 scans"),
        (tiff_of_tiles(40_000), "tiles of 40000x40000 pixels, more than 89,478,485"),
        (gif(65_535, 65_535), "more than 89,478,485 pixels"),
    ],
    ids=["WebP", "tall PNG", "wide PNG", "JPEG", "TIFF", "GIF"],
)
def test_what_would_take_much_is_refused_before_it_is_decoded(data: bytes, reason: str) -> None:
    assert len(data) < 100_000
    start = time.process_time()
    with pytest.raises(Unreadable, match=reason):
        decode(data)
    assert time.process_time() - start < 1


def test_scans_are_those_of_the_picture_itself() -> None:
    plain = encode(PIL.Image.effect_noise((64, 64), 50), "JPEG")
    assert count_scans(plain) == 1
    assert count_scans(jpeg_of_scans(100)) == 100
    small = b"\xff\xe1" + struct.pack(">H", 502) + b"\xff\xda" * 250  # in a segment, like the small picture of a camera
    data = plain[:2] + small + plain[2:] + b"\xff\xda" * 250
    assert count_scans(data) == 1
    np.testing.assert_array_equal(decode(data, 32), decode(plain, 32))


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 50}, {"exif": b"Exif\0\0"}])
def test_the_size_of_a_webp_is_read_from_every_kind_of_header(options: dict[str, object]) -> None:
    assert read_webp_size(encode(PIL.Image.new("RGB", (300, 7)), "WEBP", **options)) == (300, 7)
    assert read_webp_size(encode(PIL.Image.new("RGB", (300, 7)))) is None


def test_a_picture_that_is_slow_to_decode_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SECONDS", 0)
    monkeypatch.setattr(guard, "SECONDS_PER_MB", 1)
    sides, runs = struct.pack("<ll", 9000, 9000), bytes([1, 0, 0, 0]) * 9000
    header = struct.pack("<L", 40) + sides + struct.pack("<HHLLllLL", 1, 8, 1, len(runs), 0, 0, 0, 0)
    file = b"BM" + struct.pack("<LHHL", 1078 + len(runs), 0, 0, 1078) + header + bytes(1024) + runs
    with pytest.raises(Unreadable, match=r"damaged, or made to do harm: takes more than . seconds"):
        decode(file)


def test_runs_of_a_bmp_are_read() -> None:
    row = bytes([4, 0, 4, 255, 0, 0])
    header = struct.pack("<LllHHLLllLL", 40, 8, 8, 1, 8, 1, 8 * len(row), 0, 0, 0, 0)
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in range(256))
    data = b"BM" + struct.pack("<LHHL", 1078 + 8 * len(row), 0, 0, 1078) + header + palette + row * 8
    assert decode(data, 8)[:, :, 0].tolist() == [[0] * 4 + [255] * 4] * 8


# A large picture is worked on in blocks, or by its levels


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16, np.dtype(">u2")])
def test_percentiles_of_levels_are_those_of_pixels(kind: type) -> None:
    random = np.random.default_rng(0)
    for shape in ((1, 2), (3, 5), (64, 63)):
        pixels = np.round(random.normal(40, 30, shape)).astype(kind)
        found = levels.find_percentiles(*levels.find_levels(pixels), module.WINDOW_PERCENTILES)
        assert found.tolist() == np.percentile(pixels, module.WINDOW_PERCENTILES).tolist()
        slope = levels.find_levels(pixels)[0] * -0.37
        found = levels.find_percentiles(slope, levels.find_levels(pixels)[1], (1, 37.5, 99))
        assert found.tolist() == np.percentile(pixels * -0.37, (1, 37.5, 99)).tolist()


def test_each_pixel_is_shown_as_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "BLOCK", 100)
    pixels = np.random.default_rng(0).integers(-(2**15), 2**15, (64, 63), np.int16)
    found, counts = levels.find_levels(pixels)
    assert counts.sum() == pixels.size
    np.testing.assert_array_equal(levels.look_up(pixels, found, (found % 251).astype(np.uint8)), pixels % 251)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_transparent_picture_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    noise = PIL.Image.merge("RGBA", [PIL.Image.effect_noise((64, 64), 90)] * 4).convert(mode)
    data = encode(noise, transparency=3) if mode == "P" else encode(noise)
    whole = decode(data, 32)
    monkeypatch.setattr(levels, "BLOCK", 500)
    monkeypatch.setattr(module, "MANY_BLOCKS", 0)
    np.testing.assert_array_equal(decode(data, 32), whole)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_deep_grey_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    data = encode(PIL.Image.fromarray(np.random.default_rng(0).normal(0, 9000, (64, 63)).astype(kind)), "TIFF")
    whole = decode(data, 32)
    monkeypatch.setattr(levels, "BLOCK", 500)
    np.testing.assert_array_equal(decode(data, 32), whole)


# What the machine lacks


def test_a_failure_for_lack_of_memory_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = encode(PIL.Image.effect_noise((64, 64), 50))[:-500]
    monkeypatch.setattr(module, "has_memory", lambda n_bytes: False)
    with pytest.raises(Unreadable, match=r"^damaged: "):  # the limited process has memory, and can tell
        decode(broken, 16)

    def lack(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(module, "call_guarded", lack)
    with pytest.raises(MemoryError):
        decode(broken, 16)


LIMITED = """
import resource
from pathlib import Path
from featurize.decoding.image import Unreadable, decode
data = Path("deep.tif").read_bytes()
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 40_000_000,) * 2)
try:
    print(decode(data).mean())
except (MemoryError, OSError):
    print("lack")
except Unreadable as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit of memory")
def test_a_whole_image_is_not_called_damaged_where_memory_is_short(tmp_path: Path) -> None:
    (tmp_path / "deep.tif").write_bytes(encode(PIL.Image.new("F", (3000, 3000)), "TIFF", compression="tiff_deflate"))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    last = done.stdout.splitlines() or done.stderr.splitlines()[-1:]
    assert last[0] in ("0.0", "lack") or "was ended, most likely for lack of memory" in last[0]


def test_an_attribute_that_memory_does_not_suffice_for_is_not_absent() -> None:
    class Dataset:
        def get(self, name: str) -> None:
            raise MemoryError

    with pytest.raises(MemoryError):
        find_values(Dataset(), "WindowCenter")


def test_a_lack_of_open_files_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def lack() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(module, "muted", lack)
    with pytest.raises(OSError, match="Too many open files"):
        decode(encode(PIL.Image.new("L", (8, 8)), "TIFF"), 8)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_disk_that_fails_is_one_line_and_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    (tmp_path / "train").mkdir()
    path = tmp_path / "train" / "a.png"
    path.write_bytes(encode(PIL.Image.new("L", (8, 8))))
    images = find_images(tmp_path)

    def fail(*args: object) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(DigestMemo, "digest", fail)
    with pytest.raises(DataError, match=rf"a\.png: cannot be read \({os.strerror(number)}\).* run the same command"):
        identify(images, DigestMemo(tmp_path / "s.h5"))
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(DataError, match="which is no damage of the image"):
        image_loader._load(path, 8)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "Too many open files")])
def test_a_unit_with_an_image_that_the_machine_cannot_decode_is_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    (tmp_path / "a.png").write_bytes(encode(PIL.Image.new("L", (8, 8))))

    def lack(*args: object) -> None:
        raise error

    monkeypatch.setattr(image_loader, "decode", lack)
    network = cheap.Network(cheap.Cut("0", "relu", "densenet", (48,), 0), cheap.CheapEngine(), None)  # type: ignore[arg-type]
    with pytest.raises(type(error)):
        embed_unit(network, [tmp_path / "a.png"], 8, "float32")


def test_warnings_are_ignored_while_any_thread_decodes_and_not_after() -> None:
    data = encode(PIL.Image.effect_noise((300, 300), 50), "TIFF", compression="tiff_lzw")[:-200]  # Pillow warns of it
    before = list(warnings.filters)

    def read(_: int) -> str:
        try:
            return str(decode(data, 8).shape)
        except Unreadable as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(read, range(100)))) == 1
    assert warnings.filters == before


# The limited process

GIB = 2**30


def call(function: Callable[..., object], *args: object, seconds: int = 5, n_bytes: int = GIB) -> object:
    return call_limited(function, *args, seconds=seconds, n_bytes=n_bytes)


def test_a_limited_call_gives_the_result_or_raises_the_error_of_the_function() -> None:
    assert call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        call(divmod, 1, 0)


def test_the_process_stays_for_the_next_call() -> None:
    assert call(os.getpid) == call(os.getpid) != os.getpid()


def test_too_much_time_is_an_error_and_the_next_call_succeeds() -> None:
    with pytest.raises(LimitError, match="takes more than 1 seconds"):
        call(sum, range(10**12), seconds=1)
    assert call(abs, -1) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit of memory")
def test_too_much_memory_is_an_error_unless_the_machine_lacks_it() -> None:
    with pytest.raises(LimitError, match="takes more than 100,000,000 bytes of memory"):
        call(bytearray, 200_000_000, n_bytes=100_000_000)
    with pytest.raises(MemoryError):
        call(bytearray, 1, n_bytes=2**60)


def test_a_crash_is_an_error_and_a_kill_from_outside_is_not_the_functions_fault() -> None:
    with pytest.raises(LimitError, match=r"crashes what reads it \(SIGSEGV\)"):
        call(signal.raise_signal, signal.SIGSEGV)
    with pytest.raises(UserError, match="most likely for lack of memory; finished units are saved"):
        call(signal.raise_signal, signal.SIGKILL)


STAYING = """
import os, time
from featurize.limited_process import call_limited
print(call_limited(os.getpid, seconds=5, n_bytes=2**30), flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_the_process_ends_with_a_caller_that_is_killed() -> None:
    words, env = [sys.executable, "-c", STAYING], os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout
        pid = int(caller.stdout.readline())
        assert wait_for_end([pid], 0) == [pid]
        caller.kill()
    assert wait_for_end([pid]) == []


def test_a_process_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited_process, "PATIENCE", 0.3)
    with pytest.raises(UserError, match="does not answer"):
        call(time.sleep, 60, seconds=1)
