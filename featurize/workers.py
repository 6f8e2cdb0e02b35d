"""Send work units to workers. Finished units come back, and only this process writes them."""

import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from joblib import Parallel, delayed

from cache.parts import Parts
from cache.remote_path import AnyPath
from cache.support.command import check_interrupted
from cache.support.progress import Progress
from cache.support.reporting import report
from featurize.parent_watch import closing_tasks, end_with
from featurize.prepared_network import Network
from featurize.request import Request
from featurize.units import STAGES, Unit, divide, embed_unit, unit_images

if TYPE_CHECKING:
    from featurize.cluster.coordinator import Cluster


def embed_images(
    paths: list[AnyPath],
    network: Network,
    request: Request,
    parts: Parts,
    workers: int | None,
    cluster: "Cluster | None" = None,
) -> None:
    """Embed images, and write each unit as it comes back.

    Parameters
    ----------
    paths : list of Path or RemotePath
        The image files.
    network : Network
    request : Request
    parts : Parts
        Where finished units are written.
    workers : int, optional
        Processes; the engine decides if not given.
    cluster : Cluster, optional
        Its workers embed, instead of processes of this machine.

    Raises
    ------
    UserError
        A process was ended from outside, or the disk is full.
    """
    progress = Progress(len(paths), "embedding")
    spent = dict.fromkeys(STAGES, 0.0)
    args = paths, network, request.backbone.size, request.dtype
    with closing(cluster.embed_units(*args) if cluster else embed_units(*args, workers)) as units:
        for unit in units:
            start = time.perf_counter()
            parts.add(unit.rows)
            took = unit.seconds | {"write": time.perf_counter() - start}
            spent = {stage: spent[stage] + took[stage] for stage in STAGES}
            progress.add(len(unit.rows.digests), _shares(spent))
    seconds = progress.close()
    rate = len(paths) / seconds
    report(f"{len(paths):,} images embedded in {seconds:.0f} s ({rate:.1f} images/s; {_shares(spent)})")


def embed_units(
    paths: Sequence[AnyPath], network: Network, size: int, dtype: str, workers: int | None = None
) -> Generator[Unit, None, None]:
    """Embed images in worker processes; in this process, if one is enough.

    Parameters
    ----------
    paths : sequence of Path or RemotePath
        The image files.
    network : Network
    size : int
        Side of the images that the network takes, in pixels.
    dtype : str
        Type of the embeddings.
    workers : int, optional
        Processes; the engine decides if not given.

    Yields
    ------
    Unit
        In the order in which they are finished.

    Raises
    ------
    UserError
        A process was ended from outside.
    """
    engine, shape = network.engine, network.cut.shape
    processes = min(engine.count_processes(workers), -(-len(paths) // engine.batch))
    # A worker that has served before is still in the folder where this process was then.
    absolute = [path.absolute() for path in paths]
    units = divide(absolute, processes, engine.batch, unit_images(engine.unit_images, engine.batch, shape))
    pool = Parallel(
        n_jobs=processes,
        return_as="generator_unordered",
        batch_size=1,
        pre_dispatch="2*n_jobs",
        initializer=end_with,  # joblib's workers outlive a parent that is killed
        initargs=(os.getpid(),),
    )
    task, loaders = delayed(embed_unit), (engine.threads, engine.decoders)
    finished = pool(task(network, unit, size, dtype, *loaders) for unit in units)
    with closing_tasks(finished, " with fewer processes (--workers, make WORKERS=1)"):
        for unit in finished:
            check_interrupted()
            yield unit
        check_interrupted()


def _shares(spent: Mapping[str, float]) -> str:
    """The share of each stage in the time, as in ``read 1%, decode 9%, infer 89%, write 1%``."""
    return ", ".join(f"{stage} {spent[stage] / sum(spent.values()):.0%}" for stage in STAGES)
