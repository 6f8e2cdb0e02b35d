"""Maps of a cut network: rows of a store that are read when they are needed, because memory cannot hold them all."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from mmap import mmap
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.rows import Embeddings
from cache.support.errors import StoreError

WINDOW_BYTES = 256 * 2**20
"""Size of a window of maps that is shuffled. The next window is read ahead, so two are in memory."""

NEIGHBOURS = 16
"""Images that are next to each other in the file and are read together: the disk seeks once for all of them."""

Batch = tuple[Embeddings, NDArray[np.uint8]]
"""Maps and labels of some images."""


@dataclass(frozen=True)
class Maps:
    """Maps of some images, in any order, of one split or several.

    Indexing gives other maps and reads nothing; `read` reads.

    Parameters
    ----------
    stored : tuple of ndarray of float16 or float32, each of shape (n_stored, height, width, n_features)
        Memory maps of a store, or arrays.
    source : ndarray of int, shape (n_images,)
        The index in `stored` of each image.
    row : ndarray of int, shape (n_images,)
        The row of each image there.

    Examples
    --------
    >>> maps = Maps.from_array(np.arange(24, dtype=np.float32).reshape(3, 2, 2, 2))
    >>> maps[[2, 0]].read()[:, 0, 0, 0]
    array([16.,  0.], dtype=float32)
    """

    stored: tuple[Embeddings, ...]
    source: NDArray[np.int64]
    row: NDArray[np.int64]

    @classmethod
    def from_array(cls, stored: Embeddings) -> "Maps":
        """All rows of one array."""
        return cls((stored,), np.zeros(len(stored), np.int64), np.arange(len(stored)))

    @classmethod
    def join(cls, parts: Sequence["Maps"]) -> "Maps":
        """The images of several maps, one after another."""
        shift = np.cumsum([0, *(len(part.stored) for part in parts)])
        source = [part.source + start for part, start in zip(parts, shift, strict=False)]
        stored = tuple(each for part in parts for each in part.stored)
        return cls(stored, np.concatenate(source), np.concatenate([part.row for part in parts]))

    @property
    def shape(self) -> tuple[int, ...]:
        """Like the shape of an array: (n_images, height, width, n_features)."""
        return (len(self.row), *self.stored[0].shape[1:])

    @property
    def dtype(self) -> Any:
        """The type of the numbers, float16 or float32."""
        return self.stored[0].dtype

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, rows: Any) -> "Maps":
        return Maps(self.stored, self.source[rows], self.row[rows])

    def read(self) -> Embeddings:
        """Read all of them, shape (n_images, height, width, n_features).

        Raises
        ------
        StoreError
            A number is not finite: the store is damaged.
        """
        read = np.empty(self.shape, self.dtype)
        order = np.lexsort((self.row, self.source))
        source, row = self.source[order], self.row[order]
        ends = np.flatnonzero((np.diff(row) != 1) | (np.diff(source) != 0)) + 1
        for run in np.split(order, ends) if len(order) else []:
            read[run] = _read_rows(self.stored[self.source[run[0]]], int(self.row[run[0]]), len(run))
        # NaN in a row whose status is fine would spoil every weight.
        if not np.isfinite(read).all():
            where = getattr(self.stored[0], "filename", None) or "the maps"
            raise StoreError(
                f"{where}: the maps of an image are not finite, though its status says fine; the store is damaged: "
                "move it away and run `make features` again"
            )
        return read


def _read_rows(stored: Embeddings, start: int, n_rows: int) -> Embeddings:
    """Consecutive rows. They are not read through a memory map: its pages would count as memory of this process."""
    # A part of a memory map has the offset of the whole.
    if not isinstance(stored, np.memmap) or not isinstance(stored.base, mmap):
        return stored[start : start + n_rows]
    numbers = int(np.prod(stored.shape[1:]))
    place = stored.offset + start * numbers * stored.itemsize
    read: Any = np.fromfile(stored.filename, stored.dtype, n_rows * numbers, offset=place)
    if len(read) < n_rows * numbers:
        raise StoreError(
            f"{stored.filename}: was cut or replaced while it was in use; check it with `python -m cache verify`, then "
            "run the same command again"
        )
    return read.reshape(n_rows, *stored.shape[1:])


def in_order(maps: Maps, batch_size: int) -> Iterator[Embeddings]:
    """Read batches in the order of the rows. The next one is read while the caller works on one.

    Parameters
    ----------
    maps : Maps
    batch_size : int

    Yields
    ------
    ndarray, shape (batch_size, height, width, n_features)
        The last batch may be smaller.
    """
    starts = range(0, len(maps), batch_size)
    yield from _ahead([maps[start : start + batch_size] for start in starts])


def shuffled(maps: Maps, Y: scipy.sparse.csr_matrix, batch_size: int, seed: Sequence[int]) -> Iterator[Batch]:
    """Batches of an epoch in random order.

    Neighbours in the file are read together, and a window of many such groups is shuffled. That is as good as a
    shuffle of all images if the order of the rows means little, and only two windows are in memory.

    Parameters
    ----------
    maps : Maps
    Y : sparse matrix of {0, 1}, shape (n_images, n_concepts)
    batch_size : int
    seed : sequence of int

    Yields
    ------
    maps : ndarray, shape (batch_size, height, width, n_features)
        The last batch may be smaller.
    labels : ndarray of uint8, shape (batch_size, n_concepts)
    """
    random = np.random.default_rng(seed)
    neighbours = np.split(np.arange(len(maps)), range(NEIGHBOURS, len(maps), NEIGHBOURS))
    order = np.concatenate([neighbours[place] for place in random.permutation(len(neighbours))])
    row_bytes = max(1, int(np.prod(maps.shape[1:])) * maps.dtype.itemsize)
    # A window is a whole number of batches, so that only the last batch of the epoch is smaller.
    n_rows = max(1, WINDOW_BYTES // row_bytes // batch_size) * batch_size
    windows = [random.permutation(order[start : start + n_rows]) for start in range(0, len(order), n_rows)]
    for rows, window in zip(windows, _ahead([maps[rows] for rows in windows]), strict=True):
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            yield window[part], Y[rows[part]].toarray().astype(np.uint8)


def _ahead(parts: Sequence[Maps]) -> Iterator[Embeddings]:
    """Read each part. The next one is read while the caller works on one."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(parts[0].read) if parts else None
        for number in range(len(parts)):
            assert following is not None
            read = following.result()
            following = pool.submit(parts[number + 1].read) if number + 1 < len(parts) else None
            yield read
            del read
