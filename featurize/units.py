"""Work units: pure functions from paths to rows, so that any process can do any of them."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cache.remote_path import AnyPath
from cache.rows import DIGEST_BYTES, OK, UNREADABLE, Rows
from featurize.image_loader import LoadedImage, load_batches
from featurize.prepared_network import Network

_T = TypeVar("_T")

UNIT_BYTES = 32 * 2**20
"""Most bytes of the embeddings of a unit."""

STAGES = ("read", "decode", "infer", "write")
"""The stages of a unit, for timing. Workers do the first three, the coordinator the last."""


def unit_images(wanted: int, batch: int, shape: tuple[int, ...]) -> int:
    """Number of images in a unit: whole batches, fewer where an embedding is a large map.

    >>> unit_images(128, 2, (1024,)), unit_images(4096, 128, (1024,)), unit_images(128, 16, (16, 16, 864))
    (128, 4096, 32)
    """
    most = min(wanted, UNIT_BYTES // (4 * math.prod(shape)))
    return batch * max(1, most // batch)


def divide(paths: list[_T], processes: int, batch: int, step: int) -> list[list[_T]]:
    """Divide the work into units: first one batch per process, so that the first images come soon, then whole units.

    Towards the end the units become smaller, down to an eighth, so that all processes end at about the same time.

    >>> [len(unit) for unit in divide([0] * 200, processes=2, batch=4, step=32)]
    [4, 4, 32, 32, 32, 24, 20, 16, 12, 8, 4, 4, 4, 4]
    """
    units: list[list[_T]] = []
    start, smallest = 0, max(1, step // 8 // batch)
    while start < len(paths):
        share = max(smallest, -(-(len(paths) - start) // (2 * processes * batch)))
        size = batch if len(units) < processes else min(step, share * batch)
        units.append(paths[start : start + size])
        start += size
    return units


@dataclass(frozen=True)
class Unit:
    """A finished unit: its rows, and the seconds that each stage took."""

    rows: Rows
    seconds: dict[str, float]


def embed_unit(
    network: Network, paths: Sequence[AnyPath], size: int, dtype: str, threads: int = 1, processes: int = 0
) -> Unit:
    """Read, decode and embed some images.

    Parameters
    ----------
    network : Network
    paths : sequence of Path or RemotePath
        The image files.
    size : int
        Side of the images that the network takes, in pixels.
    dtype : str
        Type in which embeddings are stored.
    threads, processes : int
        Threads that read and decode, or processes that do it instead; see `featurize.image_loader.load_batches`.

    Returns
    -------
    Unit
        One row per path, in the same order, with the digest of the bytes that were read. An image that cannot be
        decoded has a row too, with the reason. A file that has vanished has none, because its bytes are unknown.

    Raises
    ------
    DataError
        A file cannot be read, which is the machine's fault: no reason is recorded.
    MemoryError
        The machine lacks memory.
    """
    start, loading = time.perf_counter(), 0.0
    images: list[LoadedImage] = []
    shape = network.cut.shape

    def load() -> Iterator[NDArray[np.uint8]]:
        nonlocal loading
        begun = time.perf_counter()
        for loaded, pixels in load_batches(paths, size, network.engine.batch, threads, processes):
            loading += time.perf_counter() - begun
            images.extend(loaded)
            if len(pixels):
                yield pixels
            begun = time.perf_counter()
        loading += time.perf_counter() - begun

    outputs = [np.empty((0, *shape), np.float32), *network.embed_batches(load())]
    readable = np.array([not image.reason for image in images], dtype=bool)
    embeddings = np.full((len(images), *shape), np.nan, np.float32)
    embeddings[readable] = np.concatenate(outputs)
    rows = Rows(
        digests=np.frombuffer(b"".join(image.digest for image in images), np.uint8).reshape(-1, DIGEST_BYTES),
        status=np.where(readable, OK, UNREADABLE).astype(np.uint8),
        reasons=[image.reason for image in images],
        embeddings=embeddings,
    )
    inferring = time.perf_counter() - start - loading
    return Unit(rows.astype(dtype), _share(loading, images) | {"infer": inferring})


def _share(seconds: float, images: list[LoadedImage]) -> dict[str, float]:
    """Divide the time outside the engine between reading and decoding: the sum over threads is more than the time."""
    read, decoded = sum(image.read for image in images), sum(image.decode for image in images)
    part = read / (read + decoded) if images else 0.0
    return {"read": part * seconds, "decode": (1 - part) * seconds}
