"""Embed on a cluster: the coordinator's side. Dask moves the work; here it is decided who may have it, and how much.

A worker gets units once it has been checked: it must compute what the others compute, and see the images. A worker that
joins late is checked, too; one that fails is named, and left out. The unit of a worker that ends goes to another one.

Nothing large passes through the scheduler. The network goes to one worker, and from worker to worker; embeddings come
from the workers themselves. `AHEAD` units per thread are under way, so memory does not grow with the number of images.
"""

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any

from cache.remote_path import AnyPath
from cache.support.cluster import (
    WORKER_SECONDS,
    ClusterError,
    connected,
    describe_difference,
    find_workers,
    name_workers,
)
from cache.support.command import check_interrupted
from cache.support.errors import UserError
from cache.support.messages import count, describe_error, some
from cache.support.reporting import warn
from cache.support.versions import installed_versions
from featurize.cluster_worker import Description, NotTaken, describe_worker, embed_if_taken, take_network
from featurize.engines.registry import Choice
from featurize.prepared_network import Network
from featurize.units import Unit, divide, unit_images

AHEAD = 2
"""Units under way per thread of a worker: one that is embedded, and one that waits."""

LOOK_SECONDS = 1.0
"""How often workers that have joined or left are looked for."""

CHECK_SECONDS = 300
"""How long a worker may take to be checked: it loads its engine."""

RESULT_SECONDS = 60
"""How long the result of a unit is waited for. Its worker may have ended, and Dask computes it again."""

SUSPECT_ENDS, MOST_ENDS = 2, 4
"""A unit runs alone after its worker has ended so often, and is given up after its worker has ended so often in all."""

AGAIN = "finished units are saved: run the same command again"
"""What is said where a cluster fails."""


@contextmanager
def connected_cluster(scheduler: str, workers: int | None = None) -> Iterator["Cluster"]:
    """Connect to a cluster; see `cache.support.cluster.connected`."""
    with connected(scheduler, workers) as client, _noticing_end(client):
        yield Cluster(client)


class Cluster:
    """Workers that embed.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def choose_engine(self, engine: str, precision: str) -> Choice:
        """Choose engine and precision on the workers, as `featurize.engines.registry.choose_engine` does on a machine.

        Returns
        -------
        Choice
            What most workers choose.

        Raises
        ------
        ClusterError
            No worker has such an engine.
        """
        described, faults = _ask(self._client, find_workers(self._client), describe_worker, engine, precision)
        faults |= {worker: each.fault for worker, each in described.items() if each.fault}
        choices: list[Choice] = [each.choice for each in described.values() if each.choice and not each.fault]
        if not choices:
            raise _nobody(_by_name(self._client, faults))
        kinds = Counter((each.engine.name, each.engine.precision, each.engine.n_gpus) for each in choices)
        common, _ = kinds.most_common(1)[0]
        return next(each for each in choices if (each.engine.name, each.engine.precision, each.engine.n_gpus) == common)

    def embed_units(self, paths: list[AnyPath], network: Network, size: int, dtype: str) -> Generator[Unit, None, None]:
        """Embed images; see `featurize.workers.embed_units`.

        Raises
        ------
        ClusterError
            No worker can do the work, the scheduler has gone, or a unit ended one worker after another.
        """
        workers = _CheckedWorkers(self._client, network, paths[0])
        faults = workers.update()
        if not workers.fit:
            raise _nobody(faults)
        step = unit_images(network.engine.unit_images, network.engine.batch, network.cut.shape)
        units = divide(paths, workers.n_threads, network.engine.batch, step)
        yield from _Dispatcher(self._client, workers, units, (network.files.version, size, dtype)).run()


class _CheckedWorkers:
    """The workers that may embed: they have been checked, and have the network.

    Parameters
    ----------
    client : distributed.Client
    network : Network
    image : Path or RemotePath
        One of the images, which every worker must see.

    Attributes
    ----------
    fit : dict of str to int
        Threads of each worker that may embed, by its address.
    unfit : set of str
        Addresses of the others.
    """

    def __init__(self, client: Any, network: Network, image: AnyPath) -> None:
        self._client, self._network, self._image = client, network, image
        files = {name: (network.files.folder / name).read_bytes() for name in network.engine.files}
        self._files, self._digests = files, {name: hashlib.sha256(files[name]).hexdigest() for name in files}
        self._sent: Any = None
        self._standard: Description | None = None
        self._gpus: dict[str, str] = {}
        self.fit: dict[str, int] = {}
        self.unfit: set[str] = set()

    @property
    def n_threads(self) -> int:
        """How many units can be embedded at the same time."""
        return sum(self.fit.values())

    def update(self) -> dict[str, str]:
        """Check the workers that have joined, and forget those that have left.

        Returns
        -------
        dict of str to str
            The faults of those that may not embed, by their names.

        Warns
        -----
        DataWarning
            A worker may not embed, and others may.
        """
        present = find_workers(self._client)
        self.unfit &= present.keys()
        self.fit = {worker: n_threads for worker, n_threads in self.fit.items() if worker in present}
        self._gpus = {gpu: worker for gpu, worker in self._gpus.items() if worker in self.fit}
        joined = {worker: n for worker, n in present.items() if worker not in self.fit and worker not in self.unfit}
        if not joined:
            return {}
        faults = self._find_faults(joined)
        faults |= self._send([worker for worker in joined if worker not in faults])
        self.fit |= {worker: n_threads for worker, n_threads in joined.items() if worker not in faults}
        self.unfit |= faults.keys()
        named = _by_name(self._client, faults)
        for name, fault in named.items() if self.fit else ():
            warn(f"worker {name} {fault}; it gets no images")
        return named

    def forget(self, worker: str) -> None:
        """Have a worker checked again: another process has its address now."""
        self.fit.pop(worker, None)

    def _find_faults(self, workers: Mapping[str, int]) -> dict[str, str]:
        """Why workers, of which the threads are given, may not embed."""
        engine, versions = self._network.engine, self._client.get_versions()
        described, faults = _ask(self._client, workers, describe_worker, engine.name, engine.precision)
        for worker, description in described.items():
            ours, theirs = versions["client"], versions["workers"].get(worker, versions["client"])
            fault = describe_difference(theirs, ours) or self._compare(description)
            gpu = description.gpu
            if gpu and not fault and workers[worker] > 1:
                fault = f"has {workers[worker]} threads for one GPU; start it with --nthreads 1"
            elif gpu and not fault and self._gpus.setdefault(gpu, worker) != worker:
                fault = f"shares {gpu} with the worker at {self._gpus[gpu]}; start one worker per GPU"
            if fault:
                faults[worker] = fault
        return faults

    def _compare(self, description: Description) -> str:
        """How a worker differs from what all must have: the first one's facts, and the versions that are here."""
        if self._standard is None and not description.fault:
            here = installed_versions(*description.versions)
            versions = {name: here.get(name, version) for name, version in description.versions.items()}
            gpu = "a GPU" if self._network.engine.n_gpus else ""
            self._standard = Description(Choice(self._network.engine, ""), "", versions, gpu=gpu)
        return description.fault if self._standard is None else description.find_difference(self._standard)

    def _send(self, workers: list[str]) -> dict[str, str]:
        """Give workers the network; returns why some did not take it."""
        faults: dict[str, str] = {}
        for _ in range(2 if workers else 0):  # the workers that have the files may end before others have got them
            if self._sent is None or self._sent.status != "finished":
                (self._sent,) = self._client.scatter([self._files], workers=workers[:1], direct=True, hash=False)
            args = self._network, self._sent, self._digests, self._image
            refusals, faults = _ask(self._client, workers, take_network, *args)
            faults |= {worker: refusal for worker, refusal in refusals.items() if refusal}
            if self._sent.status == "finished":
                break
        return faults


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


class _Dispatcher:
    """Hands out units, each to one worker, and collects them.

    Parameters
    ----------
    client : distributed.Client
    workers : _CheckedWorkers
    units : list of list of Path or RemotePath
    args : tuple
        What `embed_if_taken` gets besides the images: the version of the network, size, dtype.
    """

    def __init__(
        self, client: Any, workers: _CheckedWorkers, units: list[list[AnyPath]], args: tuple[str, int, str]
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


def _ask(
    client: Any, workers: Iterable[str], function: Callable[..., Any], *args: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """Call a function on each of some workers.

    Returns
    -------
    results : dict
        By the workers' addresses.
    faults : dict of str to str
        Why there is no result.
    """
    from distributed import wait

    options = {"pure": False, "allow_other_workers": False, "priority": 1}
    asked = {worker: client.submit(function, *args, workers=[worker], **options) for worker in workers}
    deadline = time.monotonic() + CHECK_SECONDS
    while time.monotonic() < deadline:
        present = find_workers(client)
        pending = [future for worker, future in asked.items() if worker in present and not future.done()]
        if not pending:
            break
        check_interrupted()
        with suppress(TimeoutError):
            wait(pending, timeout=LOOK_SECONDS)
    results, faults = {}, {}
    for worker, future in asked.items():
        if future.status == "finished":
            results[worker] = future.result(timeout=RESULT_SECONDS)
        elif future.status == "error":
            error = future.exception(timeout=RESULT_SECONDS)
            if isinstance(error, UserError):
                raise error
            faults[worker] = f"cannot do the work ({describe_error(error)})"
        else:
            faults[worker] = "has ended, or does not answer"
    return results, faults


def _by_name(client: Any, faults: Mapping[str, str]) -> dict[str, str]:
    """Faults by the names of workers."""
    names = name_workers(client) if faults else {}
    return {f"{names[worker]} ({worker})" if worker in names else worker: fault for worker, fault in faults.items()}


def _nobody(faults: Mapping[str, str]) -> ClusterError:
    few = "; ".join(f"{name} {fault}" for name, fault in islice(faults.items(), 3))
    more = f"; and {len(faults) - 3:,} more" if len(faults) > 3 else ""
    return ClusterError(f"no worker of the cluster can embed: {few}{more}")


@contextmanager
def _noticing_end(client: Any) -> Iterator[None]:
    """Say on one line that the scheduler has gone."""
    from concurrent.futures import CancelledError

    try:
        yield
    except (OSError, CancelledError, TimeoutError, RuntimeError) as error:
        if client.status == "running":
            raise
        raise ClusterError(f"the scheduler has gone ({describe_error(error)}); {AGAIN}") from error
