"""Rows: what is known of some images, keyed by the digest of their bytes."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.support.errors import ParameterError

DIGEST_BYTES = 32
"""Length of an image's SHA-256."""

OK, UNREADABLE = 0, 1
"""Status of a row: it holds an embedding, or there is a reason why not."""

REASON_BYTES = 200
"""How much is kept of why an image cannot be read."""


BLOCK_BYTES = 16 * 2**20
"""How much is handled at a time where a whole split need not be in memory."""

Embeddings = NDArray[np.float32] | NDArray[np.float16]


@dataclass(frozen=True)
class Rows:
    """Some images and their embeddings.

    Parameters
    ----------
    digests : ndarray of uint8, shape (n_images, 32)
        SHA-256 of each image's bytes; zeros where the bytes could not be had.
    status : ndarray of uint8, shape (n_images,)
        `OK` or `UNREADABLE`.
    reasons : list of str, length n_images
        Why an image is unreadable; empty where it is not.
    embeddings : ndarray of float32 or float16, shape (n_images, n_features) or (n_images, height, width, n_features)
        Vectors, or the maps of a network that was cut before its end.
        NaN where the image is unreadable, so that nothing can take such a row for an embedding.
    """

    digests: NDArray[np.uint8]
    status: NDArray[np.uint8]
    reasons: list[str]
    embeddings: Embeddings

    def astype(self, dtype: str) -> "Rows":
        """These rows with the embeddings in the type that a store keeps: ``float32`` or ``float16``.

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


def pack_reasons(reasons: list[str]) -> tuple[NDArray[np.int64], NDArray[np.bytes_]]:
    """Keep only the rows that have a reason: their numbers and their texts as fixed-width bytes."""
    rows = np.array([row for row, reason in enumerate(reasons) if reason], dtype=np.int64)
    texts = [reasons[row].encode()[:REASON_BYTES] for row in rows]
    return rows, np.array(texts, dtype=f"S{REASON_BYTES}")


def unpack_reasons(n_rows: int, rows: NDArray[np.int64], texts: NDArray[np.bytes_]) -> list[str]:
    """Undo `pack_reasons`."""
    reasons = [""] * n_rows
    if len(rows) and not 0 <= rows.min() <= rows.max() < n_rows:
        raise ValueError("a reason is for a row that there is not")
    for row, text in zip(rows, texts, strict=True):
        reasons[row] = bytes(text).decode(errors="replace")
    return reasons


def block_rows(array: Any) -> int:
    """How many rows of an array, or of an HDF5 data set, are `BLOCK_BYTES`; at least one."""
    return max(1, BLOCK_BYTES // max(1, math.prod(array.shape[1:]) * array.dtype.itemsize))
