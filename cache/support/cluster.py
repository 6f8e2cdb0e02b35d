"""A cluster of Dask: connect to its scheduler, or start one on this machine. Dask is an optional package.

Whoever connects gets one line for whatever is wrong with the cluster, and Dask's own log stays silent: it would print
the same again, as tracebacks.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from cache.support.errors import NotInstalledError, UserError
from cache.support.messages import count, describe_error
from cache.support.reporting import report

LOCAL = "local"
"""In place of an address: a scheduler and its workers are started on this machine, and end with the command."""

PIP_LINE = "pip install dask distributed"

CONNECT_SECONDS, WORKER_SECONDS = 10, 60
"""How long a scheduler, and then the first of its workers, is waited for."""

SAME_PACKAGES = ("dask", "distributed")
"""The packages whose versions must be the same everywhere, besides Python."""


class ClusterError(UserError):
    """A cluster cannot be reached, or its workers cannot do the work."""


@contextmanager
def connected(scheduler: str, workers: int | None = None) -> Iterator[Any]:
    """Connect to a scheduler that has workers, for the length of a block.

    Parameters
    ----------
    scheduler : str
        Its address, such as ``tcp://host:8786``, or `LOCAL`.
    workers : int, optional
        Processes of a `LOCAL` cluster; one per core by default.

    Yields
    ------
    distributed.Client
        It fetches results from the workers themselves, not through the scheduler.

    Raises
    ------
    NotInstalledError
        Dask is not installed.
    ClusterError
        No scheduler answers at the address, it has no workers, or it has other versions.
    """
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise NotInstalledError(f"{error.name} is not installed: {PIP_LINE}") from error
    with ExitStack() as stack:
        stack.enter_context(_silent_log())
        try:
            if scheduler == LOCAL:
                scheduler = stack.enter_context(_start(distributed, workers)).scheduler_address
            client = distributed.Client(
                scheduler, timeout=CONNECT_SECONDS, set_as_default=False, direct_to_workers=True
            )
        except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:  # TimeoutError is an OSError
            raise ClusterError(
                f"no scheduler answers at {scheduler} within {CONNECT_SECONDS} s ({describe_error(error)}); start one "
                f"with `dask scheduler`, and give the address that it prints, as in tcp://host:8786, or {LOCAL}"
            ) from error
        stack.callback(_close, client)
        wait_for_workers(client, scheduler)
        versions = client.get_versions()
        fault = describe_difference(versions["scheduler"], versions["client"])
        if fault:
            raise ClusterError(f"the scheduler at {scheduler} {fault}; install the same versions everywhere")
        report(f"connected to {scheduler}: {count(len(find_workers(client)), 'worker')}")
        with client.as_current():
            yield client


def find_workers(client: Any) -> dict[str, int]:
    """The number of threads of each worker, by its address."""
    workers: dict[str, int] = client.nthreads()
    return workers


def name_workers(client: Any) -> dict[str, str]:
    """The name of each worker, by its address."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return {address: str(facts["name"]) for address, facts in workers.items()}


def wait_for_workers(client: Any, scheduler: str) -> None:
    """Wait until there is a worker.

    Raises
    ------
    ClusterError
        There is none within `WORKER_SECONDS`.
    """
    deadline = time.monotonic() + WORKER_SECONDS
    while not find_workers(client):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"the scheduler at {scheduler} has had no worker for {WORKER_SECONDS} s; start some with `dask worker "
                f"{scheduler}`"
            )
        time.sleep(0.1)


def describe_difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """How the versions of a scheduler or a worker differ from those of this process; empty if they do not.

    Parameters
    ----------
    theirs, ours : mapping
        What `distributed.Client.get_versions` reports of each.
    """
    packages = [each["packages"] for each in (theirs, ours)]
    pythons = [".".join(each["python"].split(".")[:2]) for each in packages]
    found = [("Python", *pythons), *((name, *(each[name] for each in packages)) for name in SAME_PACKAGES)]
    differing = [f"{name} {their}, not {our}" for name, their, our in found if their != our]
    return f"has {', '.join(differing)}" if differing else ""


def _start(distributed: Any, workers: int | None) -> Any:
    """Start a cluster on this machine: single-threaded workers, in processes that are started again when they end."""
    from joblib import cpu_count

    return distributed.LocalCluster(
        n_workers=workers or cpu_count(),
        threads_per_worker=1,
        dashboard_address=None,
        # Also without a dashboard, a scheduler listens for HTTP, and warns if the usual port is another scheduler's.
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        silence_logs=logging.CRITICAL,
    )


def _close(client: Any) -> None:
    """Disconnect, which must not hide why the block ended."""
    try:
        client.close(timeout=2)
    except (OSError, TimeoutError):
        return


@contextmanager
def _silent_log() -> Iterator[None]:
    """Keep what Dask logs off standard error while the block runs."""
    names = ["distributed", *(name for name in logging.root.manager.loggerDict if name.startswith("distributed."))]
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
