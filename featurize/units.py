"""Work units: pure functions from paths to rows, so that any process can do any of them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.rows import DIGEST_BYTES, OK, UNREADABLE, Rows
from featurize.decode import Unreadable, decode

UNIT_IMAGES = 128
"""Images a unit: a few seconds of work, so little is lost to a kill and little time goes into part files."""

Engine = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def embed_unit(engine: Engine, paths: list[Path], size: int, n_features: int) -> Rows:
    """Read, decode and embed some images.

    Parameters
    ----------
    engine : callable
        From uint8 images ``(n, size, size, 3)`` to float32 embeddings ``(n, n_features)``.
    paths : list of Path
        The image files.
    size : int
        Side of the images that the engine takes, in pixels.
    n_features : int
        Length of an embedding.

    Returns
    -------
    Rows
        One row a path, in their order, keyed by the bytes that were read. An image that cannot be decoded
        has a row too, with the reason; a file that has vanished has none, because nothing is known of its bytes.
    """
    digests, reasons, pictures = [], [], []
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError:
            continue
        digests.append(hashlib.sha256(data).digest())
        try:
            pictures.append(decode(data, size))
            reasons.append("")
        except Unreadable as error:
            reasons.append(str(error))
    readable = np.array([not reason for reason in reasons], dtype=bool)
    embeddings = np.full((len(digests), n_features), np.nan, np.float32)
    if pictures:
        embeddings[readable] = engine(np.stack(pictures))
    return Rows(
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES),
        status=np.where(readable, OK, UNREADABLE).astype(np.uint8),
        reasons=reasons,
        embeddings=embeddings,
    )
