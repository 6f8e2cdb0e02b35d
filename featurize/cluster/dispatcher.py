"""Units of images are handed out to workers, a few at a time. The unit of a worker that ends goes to another one.

`AHEAD` units per thread are under way, so memory does not grow with the number of images.
"""

import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from cache.remote_path import AnyPath
from cache.support.cluster import WORKER_SECONDS, ClusterError
from cache.support.command import check_interrupted
from cache.support.messages import count, describe_error, some
from featurize.cluster.checked_workers import CheckedWorkers
from featurize.cluster.worker import NotTaken, embed_if_taken
from featurize.units import Unit

AHEAD = 2
"""Units under way per thread of a worker: one that is embedded, and one that waits."""

LOOK_SECONDS = 1.0
"""How often workers that have joined or left are looked for."""

RESULT_SECONDS = 60
"""How long the result of a unit is waited for. Its worker may have ended, and Dask computes it again."""

SUSPECT_ENDS, MOST_ENDS = 2, 4
"""A unit runs alone after its worker has ended so often, and is given up after its worker has ended so often in all."""

AGAIN = "finished units are saved: run the same command again"
"""What is said where a cluster fails."""


@dataclass
class _Unit:
    """Images that are embedded together, and how often the worker has ended that had them."""

    images: list[AnyPath]
    n_ends: int = 0


@dataclass(frozen=True)
class _Task:
    """A unit under way."""

    unit: _Unit
    worker: str
    future: Any


class Dispatcher:
    """Hands out units, each to one worker, and collects them.

    Parameters
    ----------
    client : distributed.Client
    workers : CheckedWorkers
    units : list of list of Path or RemotePath
    args : tuple
        What `embed_if_taken` gets besides the images: the version of the network, size, dtype.
    """

    def __init__(
        self, client: Any, workers: CheckedWorkers, units: list[list[AnyPath]], args: tuple[str, int, str]
    ) -> None:
        self._client, self._workers, self._args = client, workers, args
        self._under_way: dict[str, _Task] = {}
        self._load: Counter[str] = Counter()
        self._done: SimpleQueue[Any] = SimpleQueue()
        self._waiting = deque(map(_Unit, units))
        self._suspects: deque[_Unit] = deque()
        self._next_look = self._last_seen = time.monotonic()

    def run(self) -> Iterator[Unit]:
        """Have units embedded, and yield them as they are finished.

        A unit with which workers have ended is put aside until the others are finished. Then it runs alone, so that it
        is known which one is at fault.
        """
        while self._under_way or self._waiting or self._suspects:
            check_interrupted()
            if self._client.status != "running":
                raise ConnectionError("the connection was lost")
            if time.monotonic() >= self._next_look:
                self._look()
            self._hand_out()
            with suppress(Empty):
                finished = self._collect(self._done.get(timeout=LOOK_SECONDS))
                if finished is not None:
                    yield finished

    def _hand_out(self) -> None:
        """Send units, as many as may be under way."""
        while worker := self._find_free():
            if self._waiting:
                self._submit(self._waiting.popleft(), worker)
            elif self._suspects and not self._under_way:
                self._submit(self._suspects.popleft(), worker)
            else:
                return

    def _find_free(self) -> str | None:
        """The worker with the least to do, if it may have more."""
        if any(task.unit.n_ends >= SUSPECT_ENDS for task in self._under_way.values()):
            return None  # which runs alone
        least = min(self._workers.fit, key=lambda worker: self._load[worker] / self._workers.fit[worker], default=None)
        return least if least and self._load[least] < AHEAD * self._workers.fit[least] else None

    def _submit(self, unit: _Unit, worker: str) -> None:
        version, *rest = self._args
        future = self._client.submit(
            embed_if_taken, version, unit.images, *rest, pure=False, workers=[worker], allow_other_workers=False
        )
        self._under_way[future.key] = _Task(unit, worker, future)
        self._load[worker] += 1
        future.add_done_callback(self._done.put)

    def _remove(self, task: _Task) -> None:
        del self._under_way[task.future.key]
        self._load[task.worker] -= 1

    def _collect(self, future: Any) -> Unit | None:
        """The unit that a future has; None if it has none, and the unit is sent again."""
        from distributed import KilledWorker

        task = self._under_way.get(future.key)
        if task is None:
            return None
        error = future.exception(timeout=RESULT_SECONDS) if future.status == "error" else None
        result = None
        if future.status == "finished":
            try:
                result = future.result(timeout=RESULT_SECONDS)
            except TimeoutError:  # the worker has ended since, which the next look will find, or the network is slow
                future.add_done_callback(self._done.put)
                return None
        self._remove(task)
        if isinstance(result, Unit):
            return result
        if isinstance(error, KilledWorker):
            self._count_end(task)
        elif isinstance(error, OSError):
            raise ClusterError(f"a worker failed ({describe_error(error)}); {AGAIN}") from error
        elif error is not None:
            raise error
        else:
            self._waiting.appendleft(task.unit)
        if isinstance(result, NotTaken):
            self._workers.forget(result.worker)
            self._next_look = 0.0
        return None

    def _look(self) -> None:
        """See which workers there are, and take back the units of those that have ended."""
        self._workers.update()
        now = time.monotonic()
        self._next_look = now + LOOK_SECONDS
        for task in list(self._under_way.values()):
            if task.worker not in self._workers.fit:
                self._remove(task)
                task.future.cancel()
                self._count_end(task)
        if self._workers.fit:
            self._last_seen = now
        elif now - self._last_seen > WORKER_SECONDS:
            units = [unit for unit in (*self._waiting, *self._suspects) if unit.n_ends]
            images = [str(image) for unit in units for image in unit.images]
            under_way = f" ({some(images)} were under way)" if images else ""
            raise ClusterError(f"for {WORKER_SECONDS} s there has been no worker that may embed{under_way}; {AGAIN}")

    def _count_end(self, task: _Task) -> None:
        """Note that the worker of a unit has ended.

        Raises
        ------
        ClusterError
            It is not the first one, and the unit ran alone.
        """
        unit = task.unit
        unit.n_ends += 1
        if unit.n_ends >= MOST_ENDS:
            names = f"{count(len(unit.images), 'image')} ({some([str(image) for image in unit.images])})"
            raise ClusterError(
                f"{unit.n_ends} workers ended, one after another, while they embedded {names}; {AGAIN} without them, "
                "or with more memory per worker"
            )
        if unit.n_ends >= SUSPECT_ENDS:
            self._suspects.append(unit)
        else:
            self._waiting.appendleft(unit)
