"""The workers of a cluster that may embed.

A worker gets units once it has been checked: it must compute what the others compute, and see the images. A worker that
joins late is checked, too; one that fails is named, and left out.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from cache.remote_path import AnyPath
from cache.support.cluster import describe_difference, find_workers, name_workers
from cache.support.command import check_interrupted
from cache.support.errors import UserError
from cache.support.messages import describe_error
from cache.support.reporting import warn
from cache.support.versions import installed_versions
from featurize.cluster.worker import Description, describe_worker, take_network
from featurize.engines.registry import Choice
from featurize.prepared_network import Network

LOOK_SECONDS = 1.0
"""How often a worker that is asked is looked for: it may have left."""

CHECK_SECONDS = 300
"""How long a worker may take to be checked: it loads its engine."""

RESULT_SECONDS = 60
"""How long an answer that is finished is waited for."""


class CheckedWorkers:
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
        named = name_faults(self._client, faults)
        for name, fault in named.items() if self.fit else ():
            warn(f"worker {name} {fault}; it gets no images")
        return named

    def forget(self, worker: str) -> None:
        """Have a worker checked again: another process has its address now."""
        self.fit.pop(worker, None)

    def _find_faults(self, workers: Mapping[str, int]) -> dict[str, str]:
        """Why workers, of which the threads are given, may not embed."""
        engine, versions = self._network.engine, self._client.get_versions()
        described, faults = ask_workers(self._client, workers, describe_worker, engine.name, engine.precision)
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
            refusals, faults = ask_workers(self._client, workers, take_network, *args)
            faults |= {worker: refusal for worker, refusal in refusals.items() if refusal}
            if self._sent.status == "finished":
                break
        return faults


def ask_workers(
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


def name_faults(client: Any, faults: Mapping[str, str]) -> dict[str, str]:
    """Faults by the names of workers."""
    names = name_workers(client) if faults else {}
    return {f"{names[worker]} ({worker})" if worker in names else worker: fault for worker, fault in faults.items()}
