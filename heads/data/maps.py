"""Maps of a cut network, which are far too many for memory: rows of a store that are read when they are needed."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from mmap import mmap
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.rows import Embeddings
from cache.support.errors import UserError

WINDOW_BYTES = 256 * 2**20
"""How much is shuffled at a time; with the window that is read ahead, twice that is in memory."""

NEIGHBOURS = 16
"""Images that are read together, wherever in the epoch their turn comes: a disk seeks once for all of them."""

Batch = tuple[Embeddings, NDArray[np.uint8]]


@dataclass(frozen=True)
class Maps:
    """Maps of some images, in any order, of one split or several.

    Indexing gives other maps and reads nothing; `read` reads.

    Parameters
    ----------
    stored : tuple of ndarray of float16 or float32, each of shape (n_stored, height, width, n_features)
        Where they are: memory maps of a store, or arrays.
    source : ndarray of int, shape (n_images,)
        Which of `stored` each image is in.
    row : ndarray of int, shape (n_images,)
        And in which row of it.

    Examples
    --------
    >>> maps = Maps.of(np.arange(24, dtype=np.float32).reshape(3, 2, 2, 2))
    >>> maps[[2, 0]].read()[:, 0, 0, 0]
    array([16.,  0.], dtype=float32)
    """

    stored: tuple[Embeddings, ...]
    source: NDArray[np.int64]
    row: NDArray[np.int64]

    @classmethod
    def of(cls, stored: Embeddings) -> "Maps":
        """All rows of one array."""
        return cls((stored,), np.zeros(len(stored), np.int64), np.arange(len(stored)))

    @classmethod
    def join(cls, parts: Sequence["Maps"]) -> "Maps":
        """The images of several, one after another."""
        shift = np.cumsum([0, *(len(part.stored) for part in parts)])
        source = [part.source + start for part, start in zip(parts, shift, strict=False)]
        stored = tuple(each for part in parts for each in part.stored)
        return cls(stored, np.concatenate(source), np.concatenate([part.row for part in parts]))

    @property
    def shape(self) -> tuple[int, ...]:
        """As an array's: (n_images, height, width, n_features)."""
        return (len(self.row), *self.stored[0].shape[1:])

    @property
    def dtype(self) -> Any:
        """Type of the numbers."""
        return self.stored[0].dtype

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, rows: Any) -> "Maps":
        return Maps(self.stored, self.source[rows], self.row[rows])

    def read(self) -> Embeddings:
        """Read all of them, shape (n_images, height, width, n_features).

        Raises
        ------
        UserError
            One is not finite: the store is damaged.
        """
        read = np.empty(self.shape, self.dtype)
        order = np.lexsort((self.row, self.source))
        source, row = self.source[order], self.row[order]
        ends = np.flatnonzero((np.diff(row) != 1) | (np.diff(source) != 0)) + 1
        for run in np.split(order, ends) if len(order) else []:
            read[run] = _read_rows(self.stored[self.source[run[0]]], int(self.row[run[0]]), len(run))
        # A row that is said to be fine and is not would poison every weight.
        if not np.isfinite(read).all():
            where = getattr(self.stored[0], "filename", None) or "the maps"
            raise UserError(
                f"{where}: the maps of an image are not finite, though its status says fine; the store is damaged: "
                "move it away and run `make features` again"
            )
        return read


def _read_rows(stored: Embeddings, start: int, n_rows: int) -> Embeddings:
    """Rows that follow each other. Not through a memory map, whose pages would count as this process's memory."""
    # A part of a memory map keeps the offset of the whole.
    if not isinstance(stored, np.memmap) or not isinstance(stored.base, mmap):
        return stored[start : start + n_rows]
    numbers = int(np.prod(stored.shape[1:]))
    place = stored.offset + start * numbers * stored.itemsize
    read: Any = np.fromfile(stored.filename, stored.dtype, n_rows * numbers, offset=place)
    return read.reshape(n_rows, *stored.shape[1:])


def in_order(maps: Maps, batch_size: int) -> Iterator[Embeddings]:
    """Read batches one after another, the next while one is worked on."""
    starts = range(0, len(maps), batch_size)
    yield from _ahead([maps[start : start + batch_size] for start in starts])


def shuffled(maps: Maps, Y: scipy.sparse.csr_matrix, batch_size: int, seed: Sequence[int]) -> Iterator[Batch]:
    """Batches of an epoch in an order that a seed decides.

    Neighbours are read together, and a window of many neighbourhoods is shuffled: as good as shuffling all as long as
    the order of the rows means little, and no more is in memory than two windows.

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
    # Whole batches, so that only the last one of the epoch is smaller.
    n_rows = max(1, WINDOW_BYTES // row_bytes // batch_size) * batch_size
    windows = [random.permutation(order[start : start + n_rows]) for start in range(0, len(order), n_rows)]
    for rows, window in zip(windows, _ahead([maps[rows] for rows in windows]), strict=True):
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            yield window[part], Y[rows[part]].toarray().astype(np.uint8)


def _ahead(parts: Sequence[Maps]) -> Iterator[Embeddings]:
    """Read each, and the next one while it is worked on."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(parts[0].read) if parts else None
        for number in range(len(parts)):
            assert following is not None
            read = following.result()
            following = pool.submit(parts[number + 1].read) if number + 1 < len(parts) else None
            yield read
            del read
