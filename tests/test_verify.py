"""Every flipped bit of a store is found and located."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import make_store

from cache.__main__ import main
from cache.block_digests import DIGESTED_BYTES, append_digests, find_damage
from cache.support.errors import StoreError
from cache.verify import verify_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of several blocks."""
    random = np.random.default_rng(0)
    make_store(
        tmp_path / "s.h5",
        {split: {f"{split}{n}": random.random(300) for n in range(120)} for split in ("train", "test")},
    )
    return tmp_path / "s.h5"


def flip(path: Path, place: int, bit: int = 0) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        value = file.read(1)[0]
        file.seek(place)
        file.write(bytes([value ^ (1 << bit)]))


def test_an_undamaged_store_has_no_defects(store: Path) -> None:
    assert verify_store(store) == []


def locate(store: Path) -> list[tuple[int, int]]:
    """The damaged bytes; the footer, if it cannot be read."""
    try:
        return [(defect.start, defect.end) for defect in verify_store(store)]
    except StoreError as error:
        size = store.stat().st_size
        return [(size - 48, size)] if "its last 48 bytes" in str(error) else []


def test_a_flipped_bit_is_found_wherever_it_is(store: Path) -> None:
    size = store.stat().st_size
    places = sorted({*range(0, size, 4999), 0, 1, 8, size - 1, size - 20, size - 40, size - 48, size - 49, size - 60})
    for place in places:
        flip(store, place, place % 8)
        found = locate(store)
        assert any(start <= place < end for start, end in found), place
        # A damaged digest may mean that the digest is wrong, or its block: then both are reported.
        assert len(found) == (2 if size - 48 > place >= found[-1][0] > found[0][0] else 1), place
        assert all(end - start <= DIGESTED_BYTES for start, end in found)
        flip(store, place, place % 8)
    assert verify_store(store) == []


def test_damage_is_located_by_split_and_row(store: Path) -> None:
    with h5py.File(store, "r") as file:
        embeddings = file["splits/test/embeddings"]
        place = embeddings.id.get_offset() + 100 * 300 * 4
    flip(store, place)
    (defect,) = verify_store(store)
    rows = [text.split(" rows ")[1] for text in defect.where.split("; ") if text.startswith("splits/test/embeddings")]
    first, last = (int(number) for number in rows[0].split(" to "))
    assert first <= 100 <= last
    assert last - first <= DIGESTED_BYTES // 1200 + 1


def test_a_readable_row_that_is_not_finite_is_found(store: Path) -> None:
    data = bytearray(store.read_bytes())
    with h5py.File(store, "r") as file:
        place = file["splits/train/embeddings"].id.get_offset() + 7 * 300 * 4
    data[place : place + 4] = np.float32(np.nan).tobytes()
    # As a faulty writer would have written it: with digests that fit.
    length = int.from_bytes(data[-40:-32], "little")
    store.write_bytes(data[:length])
    append_digests(store)
    (defect,) = verify_store(store)
    assert defect.where == "splits/train/embeddings row 7 (train7) is not finite"


@pytest.mark.parametrize("n_bytes", [0, 1, 47, 48, 1000])
def test_a_file_that_was_cut_or_has_no_digests_is_refused(tmp_path: Path, n_bytes: int) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256))[: n_bytes % 256] + b"x" * (n_bytes - n_bytes % 256))
    with pytest.raises(StoreError, match="are not the footer of its"):
        find_damage(tmp_path / "file")


def test_a_file_that_was_written_to_is_found(store: Path) -> None:
    with h5py.File(store, "a") as file:
        file["mine"] = np.arange(100_000)
    assert locate(store)


def test_damage_is_printed_as_text_and_as_json(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(store)]) == 0
    assert "all as they were written" in capsys.readouterr().out
    flip(store, 70_000)
    assert main(["verify", str(store)]) == 1
    printed = capsys.readouterr()
    assert "bytes 65,536 to 131,072: splits/train/embeddings rows" in printed.out
    assert printed.err.count("\n") == 1
    assert "damaged in 1 place; move it away and run" in printed.err
    assert main(["verify", str(store), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["damage"][0]["start"] == 65_536
