"""Embed on a cluster: the coordinator's side. Dask moves the work; here it is decided who may have it, and how much.

Nothing large passes through the scheduler. The network goes to one worker, and from worker to worker; embeddings come
from the workers themselves.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

from cache.remote_path import AnyPath
from cache.support.cluster import ClusterError, connected, find_workers
from cache.support.messages import describe_error
from featurize.cluster.checked_workers import CheckedWorkers, ask_workers, name_faults
from featurize.cluster.dispatcher import AGAIN, Dispatcher
from featurize.cluster.worker import describe_worker
from featurize.engines.registry import Choice
from featurize.prepared_network import Network
from featurize.units import Unit, divide, unit_images


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
        described, faults = ask_workers(self._client, find_workers(self._client), describe_worker, engine, precision)
        faults |= {worker: each.fault for worker, each in described.items() if each.fault}
        choices: list[Choice] = [each.choice for each in described.values() if each.choice and not each.fault]
        if not choices:
            raise _nobody(name_faults(self._client, faults))
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
        workers = CheckedWorkers(self._client, network, paths[0])
        faults = workers.update()
        if not workers.fit:
            raise _nobody(faults)
        step = unit_images(network.engine.unit_images, network.engine.batch, network.cut.shape)
        units = divide(paths, workers.n_threads, network.engine.batch, step)
        yield from Dispatcher(self._client, workers, units, (network.files.version, size, dtype)).run()


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
