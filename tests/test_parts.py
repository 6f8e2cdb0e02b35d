"""Parts: finished units are read back exactly, and of a damaged or a stranger's part nothing is believed."""

import hashlib
import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PROVENANCE, RECORD, digest, make_rows, warned

from cache.images import Listing
from cache.parts import PROVENANCE_FILE, Parts, find_unfinished
from cache.rows import Rows
from cache.support.errors import StoreError
from cache.support.json_file import parse_sealed_json, seal_json
from cache.writer import write_store

ROWS = make_rows([1, 2, 3], np.random.default_rng(0).standard_normal((3, 4)), {2: "empty file"})


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """One part of three images, beside it what it is for."""
    parts = Parts(tmp_path / "s.h5", PROVENANCE)
    parts.start(RECORD)
    parts.add(ROWS)
    return parts


def only(parts: Parts) -> Path:
    (path,) = parts.folder.glob("*.part")
    return path


def read(parts: Parts) -> tuple[list[np.ndarray], list[Rows], list[str]]:
    with warned() as lines:
        return list(parts.digests()), list(parts), lines


def assert_passed_over(parts: Parts) -> None:
    digests, rows, lines = read(parts)
    assert (digests, rows) == ([], [])
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(f"{parts.folder}: 1 damaged part passed over ({only(parts).name}: ")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(4,), (2, 3, 4)])
def test_rows_are_read_back_exactly(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    parts = Parts(tmp_path / "s.h5", replace(PROVENANCE, dtype=dtype))
    values = np.random.default_rng(0).standard_normal((3, *shape)).astype(dtype)
    parts.add(replace(ROWS, embeddings=values))
    ((digests,), (rows,), lines) = read(parts)
    np.testing.assert_array_equal(digests, ROWS.digests)
    np.testing.assert_array_equal(rows.digests, ROWS.digests)
    np.testing.assert_array_equal(rows.status, ROWS.status)
    np.testing.assert_array_equal(rows.embeddings, values)
    assert (rows.reasons, rows.embeddings.dtype, lines) == (ROWS.reasons, dtype, [])


def test_a_unit_whose_images_have_all_vanished_is_a_part_without_rows(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "s.h5", PROVENANCE)
    parts.add(make_rows([], np.empty((0, 4))))
    ((digests,), (rows,), lines) = read(parts)
    assert (digests.shape, rows.embeddings.shape, lines) == ((0, 32), (0, 4), [])


def test_no_flipped_bit_and_no_other_damage_is_believed(parts: Parts) -> None:
    path, randomly = only(parts), random.Random(0)
    whole = path.read_bytes()
    head = whole.index(b"\n") + 1
    for _ in range(300):
        data, at, size = bytearray(whole), randomly.randrange(len(whole)), randomly.randrange(1, 40)
        kind = randomly.choice(["bit", "cut", "removed", "repeated", "moved"])
        if kind == "bit":
            data[at] ^= 1 << randomly.randrange(8)
        elif kind == "moved":
            data[at : at + size] = data[: len(data[at : at + size])]
        else:
            data[at : len(data) if kind == "cut" else at + size] = (
                data[at : at + size] * 2 if kind == "repeated" else b""
            )
        if data == whole:
            continue
        path.write_bytes(data)
        digests, rows, lines = read(parts)
        assert rows == []
        assert len(lines) == 2 - len(digests)
        # Digests are those of whole images even if an embedding is damaged; iteration finds that.
        assert not digests or data[:head] == whole[:head]
        np.testing.assert_array_equal(digests, [ROWS.digests] * len(digests))


def test_damaged_parts_are_removed_and_others_stay(parts: Parts) -> None:
    path = only(parts)
    parts.add(make_rows([7], np.ones((1, 4))))
    path.write_bytes(path.read_bytes()[:-1])
    assert parts.remove_damaged() == 1
    assert not path.exists()
    assert [rows.digests.tolist() for rows in parts] == [make_rows([7], np.ones((1, 4))).digests.tolist()]


def forge(parts: Parts, embeddings: bytes | None = None, **changes: Any) -> None:
    """Make the part another one whose digests are right."""
    path = only(parts)
    line, _, content = path.read_bytes().partition(b"\n")
    content = content if embeddings is None else embeddings
    head = parse_sealed_json(line + b"\n", dict[str, Any]) | {"embeddings": hashlib.sha256(content).hexdigest()}
    path.write_bytes(seal_json(head | changes) + content)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [2**40, 4]}, {"shape": [3, 2**70]}, {"shape": [3, -4]}, {"shape": [-3, 4]}, {"shape": [3]}, {"shape": []},
        {"shape": [3, 0], "embeddings": b""}, {"shape": [3, 4.0]}, {"shape": [3, *[1] * 99, 4]}, {"shape": "34"},
        {"dtype": "float16"}, {"dtype": "float64"}, {"dtype": "|O"}, {"dtype": ["f", "g"]}, {"status": [0, 0, 2]}, {"status": [0, 0]},
        {"status": None}, {"reasons": ["", ""]}, {"reasons": ["", 5, ""]}, {"digests": "00" * 64}, {"digests": "zz" * 96},
        {"digests": " " * 192}, {"digests": 7}, {"fingerprint": "0" * 64}, {"embeddings": b"\0" * 44},
        {"embeddings": b"\0" * 49},
    ],
)  # fmt: skip
def test_a_strangers_part_is_passed_over_like_a_damaged_one(parts: Parts, changes: dict[str, Any]) -> None:
    forge(parts, **changes)
    assert_passed_over(parts)


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"[]\n", b"[" * 50_000, b"\x89HDF\r\n\x1a\n", seal_json([]), seal_json({})]
)
def test_what_is_no_part_is_passed_over(parts: Parts, line: bytes) -> None:
    only(parts).write_bytes(line)
    assert_passed_over(parts)


def test_a_part_of_an_earlier_version_and_what_is_no_file_are_ignored(parts: Parts) -> None:
    (parts.folder / "0123.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (parts.folder / "folder.part").mkdir()
    os.mkfifo(parts.folder / "pipe.part")
    digests, rows, lines = read(parts)
    assert (len(digests), len(rows), lines) == (1, 1, [])
    assert parts.remove_damaged() == 0


def test_a_part_with_embeddings_of_another_shape_stops_the_store_with_one_line(parts: Parts, tmp_path: Path) -> None:
    listing = Listing(["a"], [digest(1)], [""])
    with pytest.raises(StoreError, match=r"finished units have 4 features, expected 5; remove .*s\.h5\.parts and run"):
        write_store(tmp_path / "s.h5", PROVENANCE, RECORD, {"train": listing}, parts, (5,))
    assert not (tmp_path / "s.h5").exists()


def other_facts(text: str) -> str:
    return text.replace('"size": 224', '"size": 225')


def no_facts(text: str) -> str:
    return text.replace("provenance", "provenanze")


def facts_of_another_type(text: str) -> str:
    return json.dumps({"provenance": ["densenet121"]})


def nesting(text: str) -> str:
    return '{"provenance": ' + "[" * 100_000


@pytest.mark.parametrize("damage", [other_facts, no_facts, facts_of_another_type, nesting, lambda text: text[:-9]])
def test_a_folder_whose_facts_are_damaged_is_no_unfinished_run(parts: Parts, damage: Callable[[str], str]) -> None:
    store, path = parts.root.with_name("s.h5"), parts.folder / PROVENANCE_FILE
    assert [found.fingerprint for found in find_unfinished(store)] == [parts.fingerprint]
    path.write_text(damage(path.read_text()))
    assert find_unfinished(store) == []


def test_a_run_with_impossible_facts_is_unfinished_and_has_no_images(tmp_path: Path) -> None:
    other = Parts(tmp_path / "s.h5", replace(PROVENANCE, dtype="a type", size=-(10**30)))
    other.start(RECORD)
    other.add(ROWS)
    (found,) = find_unfinished(tmp_path / "s.h5")
    assert read(found)[:2] == ([], [])
