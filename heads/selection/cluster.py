"""Fits on a cluster of Dask, through joblib: each task opens the store by its path, and only scores come back.

What is distributed takes minutes: the trials of a sweep, the heads of a leaderboard. The folds of one fit are not. They
share their work, and a store would be opened again for seconds of computing.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from joblib import Parallel, delayed, parallel_config

from cache.support.cluster import ClusterError, connected, describe_difference, name_workers
from cache.support.command import check_interrupted
from cache.support.errors import UserError
from cache.support.messages import describe_error


def call_on_cluster(scheduler: str, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """Call a function with several tuples of arguments on the workers of a cluster.

    Parameters
    ----------
    scheduler : str
        As `cache.support.cluster.connected` takes it.
    function : callable
        A function of a module.
    calls : sequence of tuple
        Small arguments: they pass through the scheduler.

    Yields
    ------
    object
        What it returns, in the order in which it is finished.

    Raises
    ------
    ClusterError
        The cluster cannot be reached, a worker has other versions, or workers end one after another.
    """
    from distributed import KilledWorker

    with connected(scheduler) as client:
        versions, names = client.get_versions(), name_workers(client)
        for worker, theirs in versions["workers"].items():
            fault = describe_difference(theirs, versions["client"])
            if fault:
                raise ClusterError(f"worker {names.get(worker, worker)} {fault}; install the same versions everywhere")
        with parallel_config("dask", client=client, n_jobs=-1):
            pool = Parallel(return_as="generator_unordered", batch_size=1)
            finished = pool(delayed(_call)(function, args) for args in calls)
        try:
            for result in finished:
                check_interrupted()
                yield result
        except UserError:
            raise
        except (OSError, RuntimeError, KilledWorker) as error:
            raise ClusterError(
                f"the cluster at {scheduler} has failed ({describe_error(error)}); run the same command again"
            ) from error


def _call(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """On a worker: call the function, whose heads use its threads and no other worker's."""
    from distributed import get_worker

    with parallel_config("threading", n_jobs=get_worker().state.nthreads):
        return function(*args)
