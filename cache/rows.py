"""Rows: what a store knows about some images, keyed by the digest of their bytes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.support.errors import ParameterError
from cache.support.messages import count, describe_shape

DIGEST_BYTES = 32
"""Length of an image's SHA-256."""

OK, UNREADABLE = 0, 1
"""Status of a row: it has an embedding, or a reason why it has none."""

REASON_BYTES = 200
"""Longest stored reason; the rest is cut off."""

BLOCK_BYTES = 16 * 2**20
"""How much is read at a time where a whole split need not be in memory."""

Embeddings = NDArray[np.float32] | NDArray[np.float16]


@dataclass(frozen=True, repr=False)
class Rows:
    """Some images and their embeddings.

    Parameters
    ----------
    digests : ndarray of uint8, shape (n_images, 32)
        SHA-256 of each image's bytes; zeros where the bytes could not be read.
    status : ndarray of uint8, shape (n_images,)
        `OK` or `UNREADABLE`.
    reasons : list of str, length n_images
        Why an image is unreadable; empty where it is readable.
    embeddings : ndarray of float32 or float16, shape (n_images, n_features) or (n_images, height, width, n_features)
        Vectors, or the maps of a network that was cut before its end.
        NaN where the image is unreadable, so that such a row is never mistaken for an embedding.
    """

    digests: NDArray[np.uint8]
    status: NDArray[np.uint8]
    reasons: list[str]
    embeddings: Embeddings

    def __repr__(self) -> str:
        n_unreadable = int((self.status != OK).sum())
        return (
            f"Rows({count(len(self.status), 'image')}, {n_unreadable:,} unreadable, "
            f"embeddings {describe_shape(self.embeddings.shape)} {self.embeddings.dtype})"
        )

    def take(self, rows: NDArray[np.int64]) -> "Rows":
        """Some of the images, in the given order."""
        reasons = [self.reasons[row] for row in rows]
        return Rows(self.digests[rows], self.status[rows], reasons, self.embeddings[rows])

    def astype(self, dtype: str) -> "Rows":
        """Convert the embeddings to the type in which they are stored.

        Parameters
        ----------
        dtype : str
            ``float32`` or ``float16``.

        Returns
        -------
        Rows

        Raises
        ------
        ParameterError
            The type cannot represent them: some become infinite, or a whole embedding becomes zero.
        """
        with np.errstate(over="ignore"):
            converted = self.embeddings.astype(dtype)
        readable = self.status == OK
        flat = (int(readable.sum()), math.prod(converted.shape[1:]))
        exact, rounded = (each[readable].reshape(flat) for each in (self.embeddings, converted))
        lost = ~np.isfinite(rounded).all(axis=1) | ((rounded == 0).all(axis=1) & (exact != 0).any(axis=1))
        if lost.any():
            largest = float(np.abs(exact).max())
            raise ParameterError(f"embeddings of up to {largest:.3g} do not fit into {dtype}; store them as float32")
        return replace(self, embeddings=converted)


def join_rows(rows: Sequence[Rows], dtype: str) -> Rows:
    """Put the embeddings of the same images from several stores side by side.

    Parameters
    ----------
    rows : sequence of Rows
        All of the same images, in the same order.
    dtype : str
        Type of the joined embeddings.

    Returns
    -------
    Rows
        An image that is unreadable in one of them is unreadable, with the first reason.
    """
    status = np.max([each.status for each in rows], axis=0)
    embeddings: Embeddings = np.concatenate([each.embeddings for each in rows], axis=1, dtype=dtype)
    embeddings[status != OK] = np.nan
    reasons = [next(filter(None, each), "") for each in zip(*(each.reasons for each in rows), strict=True)]
    return Rows(rows[0].digests, status, reasons, embeddings)


def pack_reasons(reasons: list[str]) -> tuple[NDArray[np.int64], NDArray[np.bytes_]]:
    """Select the rows that have a reason: their numbers, and their texts as bytes of fixed width."""
    rows = np.array([row for row, reason in enumerate(reasons) if reason], dtype=np.int64)
    texts = [reasons[row].encode(errors="replace")[:REASON_BYTES] for row in rows]
    return rows, np.array(texts, dtype=f"S{REASON_BYTES}")


def unpack_reasons(n_rows: int, rows: NDArray[np.int64], texts: NDArray[np.bytes_]) -> list[str]:
    """Undo `pack_reasons`.

    Raises
    ------
    ValueError
        A reason belongs to a row that does not exist.
    """
    reasons = [""] * n_rows
    if len(rows) and not 0 <= rows.min() <= rows.max() < n_rows:
        raise ValueError("a reason belongs to a row that does not exist")
    for row, text in zip(rows, texts, strict=True):
        reasons[row] = bytes(text).decode(errors="replace")
    return reasons


def row_slices(n_rows: int, size: int) -> Iterator[slice]:
    """Slices of `size` rows each that cover all rows in order; the last one may be shorter.

    >>> [(part.start, part.stop) for part in row_slices(5, 2)]
    [(0, 2), (2, 4), (4, 5)]
    """
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


def row_blocks(array: Any, n_rows: int | None = None) -> Iterator[slice]:
    """Slices of about `BLOCK_BYTES` each that cover the rows of an array.

    Parameters
    ----------
    array : ndarray or h5py.Dataset
        Its shape and type decide how many rows make a block; at least one does.
    n_rows : int, optional
        How many rows to cover, where only some of the array's rows are wanted. All by default.

    Yields
    ------
    slice
    """
    row_bytes = math.prod(array.shape[1:]) * array.dtype.itemsize
    return row_slices(len(array) if n_rows is None else n_rows, max(1, BLOCK_BYTES // max(1, row_bytes)))
