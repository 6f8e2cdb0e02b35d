"""Work units: pure functions from paths to rows, so that any process can do any of them."""

import hashlib
import itertools
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.rows import DIGEST_BYTES, OK, UNREADABLE, Rows
from cache.support.errors import DataError
from cache.support.machine_faults import describe_fault, is_fault_of_machine
from featurize.decoding.image import Unreadable, decode
from featurize.prepared_network import Network

UNIT_IMAGES, UNIT_BATCHES, UNIT_BYTES = 128, 8, 32 * 2**20
"""Size of a unit: this many images, or this many batches if they are more, and at most this many bytes. That is a few
seconds of work, so that a kill loses little and part files cost little time."""

STAGES = ("read", "decode", "infer", "write")
"""The stages of a unit, for timing. Workers do the first three, the coordinator the last."""


def unit_images(batch: int, shape: tuple[int, ...]) -> int:
    """Number of images in a unit: whole batches, fewer where an embedding is a large map.

    >>> unit_images(2, (1024,)), unit_images(128, (1024,)), unit_images(16, (16, 16, 864))
    (128, 1024, 32)
    """
    most = min(max(UNIT_IMAGES, UNIT_BATCHES * batch), UNIT_BYTES // (4 * math.prod(shape)))
    return batch * max(1, most // batch)


def divide(paths: list[Path], processes: int, batch: int, step: int) -> list[list[Path]]:
    """Divide the work into units: first one batch per process, so that the first images come soon, then whole units.

    Towards the end the units become smaller, down to an eighth, so that all processes end at about the same time.

    >>> [len(unit) for unit in divide([Path()] * 200, processes=2, batch=4, step=32)]
    [4, 4, 32, 32, 32, 24, 20, 16, 12, 8, 4, 4, 4, 4]
    """
    units: list[list[Path]] = []
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


def embed_unit(network: Network, paths: list[Path], size: int, dtype: str, threads: int = 1) -> Unit:
    """Read, decode and embed some images.

    Parameters
    ----------
    network : Network
    paths : list of Path
        The image files.
    size : int
        Side of the images that the network takes, in pixels.
    dtype : str
        Type in which embeddings are stored.
    threads : int
        Threads that read and decode.

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
    start = time.perf_counter()
    images: list[_Image] = []
    shape, inferring = network.cut.shape, 0.0
    outputs = [np.empty((0, *shape), np.float32)]
    for batch in _in_batches(_load_all(paths, size, threads), network.engine.batch):
        pictures = [image.pixels for image in batch if image.pixels is not None]
        inferring -= time.perf_counter()
        if pictures:
            outputs.append(network.embed(np.stack(pictures)))
        inferring += time.perf_counter()
        images.extend(replace(image, pixels=None) for image in batch)
    readable = np.array([not image.reason for image in images], dtype=bool)
    embeddings = np.full((len(images), *shape), np.nan, np.float32)
    embeddings[readable] = np.concatenate(outputs)
    rows = Rows(
        digests=np.frombuffer(b"".join(image.digest for image in images), np.uint8).reshape(-1, DIGEST_BYTES),
        status=np.where(readable, OK, UNREADABLE).astype(np.uint8),
        reasons=[image.reason for image in images],
        embeddings=embeddings,
    )
    return Unit(rows.astype(dtype), _share(time.perf_counter() - start - inferring, images) | {"infer": inferring})


@dataclass(frozen=True)
class _Image:
    """One file that was read: pixels, or the reason why there are none, and the seconds it took."""

    digest: bytes
    pixels: NDArray[np.uint8] | None
    reason: str
    read: float
    decode: float


def _load_all(paths: list[Path], size: int, threads: int) -> Iterator[_Image]:
    """Read and decode; with several threads, ahead of the network. A file that has vanished is left out."""
    load = partial(_load, size=size)
    if threads == 1:
        yield from filter(None, map(load, paths))
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from filter(None, pool.map(load, paths))


def _load(path: Path, size: int) -> _Image | None:
    start = time.perf_counter()
    try:
        data = path.read_bytes()
    except OSError as error:
        if is_fault_of_machine(error):
            raise DataError(describe_fault(path, error)) from error
        return None
    digest, middle = hashlib.sha256(data).digest(), time.perf_counter()
    try:
        pixels, reason = decode(data, size), ""
    except Unreadable as error:
        pixels, reason = None, str(error)
    return _Image(digest, pixels, reason, middle - start, time.perf_counter() - middle)


def _in_batches(images: Iterator[_Image], batch_size: int) -> Iterator[list[_Image]]:
    while batch := list(itertools.islice(images, batch_size)):
        yield batch


def _share(seconds: float, images: list[_Image]) -> dict[str, float]:
    """Divide the time outside the engine between reading and decoding: the sum over threads is more than the time."""
    read, decoded = sum(image.read for image in images), sum(image.decode for image in images)
    part = read / (read + decoded) if images else 0.0
    return {"read": part * seconds, "decode": (1 - part) * seconds}
