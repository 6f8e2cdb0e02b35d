"""Rows: what is known of some images, keyed by the digest of their bytes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = 32
"""Length of an image's SHA-256."""

OK, UNREADABLE = 0, 1
"""Status of a row: it holds an embedding, or there is a reason why not."""

REASON_BYTES = 200
"""How much is kept of why an image cannot be read."""


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
    embeddings : ndarray of float32, shape (n_images, n_features)
        NaN where the image is unreadable, so that nothing can take such a row for an embedding.
    """

    digests: NDArray[np.uint8]
    status: NDArray[np.uint8]
    reasons: list[str]
    embeddings: NDArray[np.float32]


def pack_reasons(reasons: list[str]) -> tuple[NDArray[np.int64], NDArray[np.bytes_]]:
    """Keep only the rows that have a reason: their numbers and their texts as fixed-width bytes."""
    rows = np.array([row for row, reason in enumerate(reasons) if reason], dtype=np.int64)
    texts = [reasons[row].encode()[:REASON_BYTES] for row in rows]
    return rows, np.array(texts, dtype=f"S{REASON_BYTES}")


def unpack_reasons(n_rows: int, rows: NDArray[np.int64], texts: NDArray[np.bytes_]) -> list[str]:
    """Undo `pack_reasons`."""
    reasons = [""] * n_rows
    for row, text in zip(rows, texts, strict=True):
        reasons[row] = bytes(text).decode(errors="replace")
    return reasons
