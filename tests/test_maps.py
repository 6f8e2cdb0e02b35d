"""Maps are read from the disk as they are, and an epoch goes through every image once."""

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from cache.support.errors import StoreError, UserError
from heads.data import maps as module
from heads.data.maps import Maps, in_order, shuffled

N_IMAGES = 50


@pytest.fixture
def stored(tmp_path: Path) -> np.memmap:
    """Maps in a file behind some other bytes; the first number of each is the number of its row."""
    values = np.random.default_rng(0).normal(size=(N_IMAGES, 2, 3, 4)).astype(np.float16)
    values[:, 0, 0, 0] = np.arange(N_IMAGES)
    (tmp_path / "maps").write_bytes(b"x" * 10 + values.tobytes())
    return np.memmap(tmp_path / "maps", np.float16, "r", 10, values.shape)


@pytest.mark.parametrize(
    "rows",
    [slice(None), slice(5, 9), [3], [7, 3, 4, 5, 49], [2, 2, 0], [], np.arange(N_IMAGES) % 3 == 0],
    ids=["all", "slice", "one", "mixed", "twice", "none", "mask"],
)
def test_rows_are_those_of_the_file_in_the_requested_order(stored: np.memmap, rows: object) -> None:
    if isinstance(rows, list):
        rows = np.array(rows, np.int64)
    read = Maps.from_array(stored)[rows].read()
    assert not isinstance(read, np.memmap)
    np.testing.assert_array_equal(read, np.asarray(stored)[rows])


def test_a_part_of_a_memory_map_has_its_own_rows(stored: np.memmap) -> None:
    np.testing.assert_array_equal(Maps.from_array(stored[20:30])[3:5].read(), np.asarray(stored)[23:25])


def test_rows_of_rows_and_of_several_files(stored: np.memmap) -> None:
    other = -np.asarray(stored)
    both = Maps.join([Maps.from_array(stored)[10:20], Maps.from_array(other)])
    assert both.shape == (60, 2, 3, 4)
    expected = np.concatenate([stored[10:20], other])[::-1][3:50:7]
    np.testing.assert_array_equal(both[::-1][3:50:7].read(), expected)


def test_batches_in_order_are_all_rows(stored: np.memmap) -> None:
    batches = list(in_order(Maps.from_array(stored), 8))
    assert [len(batch) for batch in batches] == [8] * 6 + [2]
    np.testing.assert_array_equal(np.concatenate(batches), stored)
    assert not list(in_order(Maps.from_array(stored)[:0], 8))


@pytest.mark.parametrize("window", [1, 3000, 2**28], ids=["a batch", "some batches", "all"])
def test_an_epoch_is_every_image_once_with_its_own_labels(
    stored: np.memmap, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WINDOW_BYTES", window)
    Y = scipy.sparse.csr_matrix(np.eye(N_IMAGES, dtype=np.int8))
    batches = list(shuffled(Maps.from_array(stored), Y, 8, [0, 1]))
    assert [len(maps) for maps, _ in batches] == [8] * 6 + [2]
    seen = np.concatenate([maps[:, 0, 0, 0] for maps, _ in batches]).astype(int)
    labels = np.concatenate([labels for _, labels in batches])
    assert sorted(seen) == list(range(N_IMAGES))
    assert seen.tolist() != list(range(N_IMAGES))
    np.testing.assert_array_equal(labels.argmax(axis=1), seen)
    assert labels.dtype == np.uint8


def test_the_order_of_an_epoch_is_its_seeds(stored: np.memmap) -> None:
    Y = scipy.sparse.csr_matrix((N_IMAGES, 1), dtype=np.int8)

    def order(*seed: int) -> list[int]:
        return [int(each) for maps, _ in shuffled(Maps.from_array(stored), Y, 8, seed) for each in maps[:, 0, 0, 0]]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(*seed)) for seed in ((0, 0), (0, 1), (1, 0))}) == 3


def test_a_map_that_is_not_finite_is_refused_when_it_is_read(stored: np.memmap) -> None:
    values = np.array(stored)
    values[7, 1, 1, 1] = np.nan
    Maps.from_array(values)[:7].read()
    with pytest.raises(UserError, match="not finite, though its status says fine; the store is damaged: move it away"):
        Maps.from_array(values)[5:9].read()


def test_a_file_that_was_cut_while_it_is_in_use_is_one_line(stored: np.memmap) -> None:
    os.truncate(stored.filename, 10 + stored.nbytes // 2)
    maps = Maps.from_array(stored)
    assert len(maps[:5].read()) == 5
    for rows in (slice(20, 40), slice(40, 45)):
        with pytest.raises(StoreError, match="was cut or replaced while it was in use; check it with"):
            maps[rows].read()
