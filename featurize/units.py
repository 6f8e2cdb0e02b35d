"""Work units: pure functions from paths to rows, so that any process can do any of them."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.rows import DIGEST_BYTES, OK, UNREADABLE, Rows
from featurize.decode import Unreadable, decode

UNIT_IMAGES = 128
"""Images a unit: a few seconds of work, so little is lost to a kill and little time goes into part files."""

Engine = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


STAGES = ("read", "decode", "infer", "write")
"""Where the time of a unit goes; workers do the first three, the coordinator the last."""


@dataclass(frozen=True)
class Unit:
    """A finished unit: its rows, and the seconds of each stage that led to them."""

    rows: Rows
    seconds: dict[str, float]


def embed_unit(engine: Engine, paths: list[Path], size: int, n_features: int) -> Unit:
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
    Unit
        One row a path, in their order, keyed by the bytes that were read. An image that cannot be decoded
        has a row too, with the reason; a file that has vanished has none, because nothing is known of its bytes.
    """
    seconds = dict.fromkeys(STAGES, 0.0)
    digests, reasons, pictures = [], [], []
    for path in paths:
        begun = time.perf_counter()
        try:
            data = path.read_bytes()
        except OSError:
            continue
        digests.append(hashlib.sha256(data).digest())
        had = time.perf_counter()
        try:
            pictures.append(decode(data, size))
            reasons.append("")
        except Unreadable as error:
            reasons.append(str(error))
        seconds["read"] += had - begun
        seconds["decode"] += time.perf_counter() - had
    readable = np.array([not reason for reason in reasons], dtype=bool)
    embeddings = np.full((len(digests), n_features), np.nan, np.float32)
    begun = time.perf_counter()
    if pictures:
        embeddings[readable] = engine(np.stack(pictures))
    seconds["infer"] = time.perf_counter() - begun
    rows = Rows(
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES),
        status=np.where(readable, OK, UNREADABLE).astype(np.uint8),
        reasons=reasons,
        embeddings=embeddings,
    )
    return Unit(rows, seconds)
