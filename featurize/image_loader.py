"""From files to batches of pixels, ahead of the network that needs them.

By default this process does it, in one thread or several. For a GPU processes do it: threads share Python's lock, also
with the thread that feeds the GPU, and two of them decode less than twice as much as one. Processes decode into memory
that is shared with this one; between processes travel only digests and reasons.
"""

import hashlib
import itertools
import math
import mmap
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from joblib.externals.loky import ProcessPoolExecutor
from numpy.typing import NDArray

from cache.remote_path import AnyPath
from cache.support.errors import DataError
from cache.support.machine_faults import describe_fault, is_fault_of_machine
from featurize.decoding.image import Unreadable, decode
from featurize.engines.base import AHEAD
from featurize.parent_watch import end_with

DECODED_AHEAD = 4
"""Batches that processes decode before they are needed."""

TASK_IMAGES = 16
"""Images that a process decodes at a time."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class LoadedImage:
    """One file that was read.

    Parameters
    ----------
    digest : bytes
        SHA-256 of its bytes.
    reason : str
        Why there are no pixels; empty if there are.
    read, decode : float
        Seconds.
    """

    digest: bytes
    reason: str
    read: float
    decode: float


Batch = tuple[list[LoadedImage], Pixels]
"""The images of a batch, and the pixels of those that have some, shape (n_readable, size, size, 3)."""


def load_batches(
    paths: Sequence[AnyPath], size: int, batch: int, threads: int = 1, processes: int = 0
) -> Iterator[Batch]:
    """Read and decode images.

    Parameters
    ----------
    paths : sequence of Path or RemotePath
    size : int
        Side of the images, in pixels.
    batch : int
        Most images per batch.
    threads : int
        Threads of this process that do it; with more than one they run ahead.
    processes : int
        Processes that do it instead, if there are any. The pixels of a batch are then valid until `AHEAD` more batches
        have been taken and another one is waited for.

    Yields
    ------
    images : list of LoadedImage
        In the order of the paths. A file that has vanished is left out.
    pixels : ndarray of uint8, shape (n_readable, size, size, 3)

    Raises
    ------
    DataError
        A file cannot be read, which is the machine's fault: no reason is recorded.
    MemoryError
        The machine lacks memory.
    """
    if processes:
        yield from _open_processes(processes, size, batch).load(paths)
        return
    loaded = _load_in_threads(paths, size, threads)
    while part := list(itertools.islice(loaded, batch)):
        pictures = [pixels for _, pixels in part if pixels is not None]
        yield [image for image, _ in part], np.stack(pictures) if pictures else _no_pixels(size)


def _no_pixels(size: int) -> Pixels:
    return np.empty((0, size, size, 3), np.uint8)


def _load_in_threads(paths: Sequence[AnyPath], size: int, threads: int) -> Iterator[tuple[LoadedImage, Pixels | None]]:
    load = partial(_load, size=size)
    if threads == 1:
        yield from filter(None, map(load, paths))
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from filter(None, pool.map(load, paths))


def _load(path: AnyPath, size: int) -> tuple[LoadedImage, Pixels | None] | None:
    """Read and decode a file; None if it has vanished, because its bytes are unknown."""
    start = time.perf_counter()
    try:
        data = path.read_bytes()
    except OSError as error:
        if is_fault_of_machine(error):
            raise DataError(describe_fault(path, error)) from error
        return None
    digest, middle = hashlib.sha256(data).digest(), time.perf_counter()
    pixels, reason = None, ""
    try:
        pixels = decode(data, size)
    except Unreadable as error:
        reason = str(error)
    return LoadedImage(digest, reason, middle - start, time.perf_counter() - middle), pixels


class _Processes:
    """Processes that decode into buffers, which they share with this one.

    The memory has no name and no file, so it goes with the last process that has it. Of `AHEAD` batches the network may
    still read the pixels, one was given last, and `DECODED_AHEAD` are being filled.
    """

    def __init__(self, n_processes: int, size: int, batch: int) -> None:
        self._size, self._batch = size, batch
        shape = (AHEAD + 1 + DECODED_AHEAD, batch, size, size, 3)
        self._descriptor = os.memfd_create("images")
        os.ftruncate(self._descriptor, math.prod(shape))
        place = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        self._buffers = _map(place, shape)
        self._pool = ProcessPoolExecutor(n_processes, initializer=_attach, initargs=(place, shape, os.getpid()))

    def load(self, paths: Sequence[AnyPath]) -> Iterator[Batch]:
        pending: deque[tuple[int, list[Future[Any]]]] = deque()
        try:
            for number, start in enumerate(range(0, len(paths), self._batch)):
                buffer = number % len(self._buffers)
                part = paths[start : start + self._batch]
                tasks = [
                    self._pool.submit(_load_into, buffer, row, part[row : row + TASK_IMAGES], self._size)
                    for row in range(0, len(part), TASK_IMAGES)
                ]
                pending.append((buffer, tasks))
                if len(pending) > DECODED_AHEAD:
                    yield self._collect(*pending.popleft())
            while pending:
                yield self._collect(*pending.popleft())
        finally:
            wait([task for _, tasks in pending for task in tasks])  # nothing is written to a buffer that is used again

    def _collect(self, buffer: int, tasks: list["Future[Any]"]) -> Batch:
        loaded: list[LoadedImage | None] = [image for task in tasks for image in task.result()]
        readable = np.array([image is not None and not image.reason for image in loaded], dtype=bool)
        pixels = self._buffers[buffer, : len(loaded)]
        return [image for image in loaded if image], pixels if readable.all() else pixels[readable]

    def close(self) -> None:
        self._pool.shutdown(kill_workers=True)
        os.close(self._descriptor)


_opened: dict[tuple[int, int, int], _Processes] = {}
"""The processes of this process, which serve one unit after another."""


def _open_processes(n_processes: int, size: int, batch: int) -> _Processes:
    key = (n_processes, size, batch)
    if key not in _opened:
        close_processes()
        _opened[key] = _Processes(*key)
    return _opened[key]


def close_processes() -> None:
    """End the processes that decode, if there are any."""
    while _opened:
        _opened.popitem()[1].close()


_shared: Pixels
"""In a process that decodes: the buffers."""


def _attach(place: str, shape: tuple[int, ...], parent: int) -> None:
    global _shared
    end_with(parent)
    _shared = _map(place, shape)


def _map(place: str, shape: tuple[int, ...]) -> Pixels:
    with open(place, "r+b") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), math.prod(shape)), np.uint8).reshape(shape)


def _load_into(buffer: int, row: int, paths: Sequence[AnyPath], size: int) -> list[LoadedImage | None]:
    """In a process that decodes: fill rows of a buffer."""
    images: list[LoadedImage | None] = []
    for number, path in enumerate(paths, row):
        loaded = _load(path, size)
        images.append(loaded[0] if loaded else None)
        if loaded and loaded[1] is not None:
            _shared[buffer, number] = loaded[1]
    return images
