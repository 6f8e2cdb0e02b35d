"""Embedding what is pending: units go to workers, finished ones come back and are written here alone."""

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from cache.parts import Parts
from cache.support.command import check_interrupted
from cache.support.errors import UserError
from cache.support.files import require_room
from cache.support.progress import Progress
from cache.support.reporting import report
from featurize.prepared_network import Network
from featurize.request import Request
from featurize.units import STAGES, divide, embed_unit, unit_images

TOLD_BYTES = 10**9
"""A store of more than this is told before it is made."""


@dataclass(frozen=True)
class Work:
    """What embedding needs: the network, what executes it, what was asked for, and where finished units go."""

    network: Network
    request: Request
    parts: Parts
    workers: int | None


def embed_pending(pending: list[Path], work: Work, n_images: int) -> None:
    """Embed the pending images and write each unit as it comes back.

    Parameters
    ----------
    pending : list of Path
        One file for each digest that is not embedded yet.
    work : Work
    n_images : int
        Rows of the store that will be made.
    """
    parts, request, shape = work.parts, work.request, work.network.cut.shape
    row_bytes = math.prod(shape) * np.dtype(request.dtype).itemsize
    require_room(parts.folder, (len(pending) + n_images) * row_bytes)
    size = f"; the store will be {n_images * row_bytes / 1e9:.1f} GB" if n_images * row_bytes > TOLD_BYTES else ""
    report(f"{len(pending):,} images to embed, {n_images - len(pending):,} need not be{size}")
    engine = work.network.engine
    processes = min(work.network.choice.processes(work.workers), -(-len(pending) // engine.batch))
    units = divide(pending, processes, engine.batch, unit_images(engine.batch, shape))
    pool = Parallel(n_jobs=processes, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
    task = delayed(embed_unit)
    progress = Progress(len(pending), "embedding")
    spent = dict.fromkeys(STAGES, 0.0)
    finished = pool(task(engine, unit, request.backbone.size, shape, request.dtype) for unit in units)
    with _closed(finished):
        for unit in finished:
            check_interrupted()
            begun = time.perf_counter()
            parts.add(unit.rows)
            took = unit.seconds | {"write": time.perf_counter() - begun}
            spent = {stage: spent[stage] + took[stage] for stage in STAGES}
            progress.add(len(unit.rows.digests), _shares(spent))
        check_interrupted()
    seconds = progress.close()
    rate = len(pending) / seconds
    report(f"{len(pending):,} images embedded in {seconds:.0f} s ({rate:.1f} images/s; {_shares(spent)})")


def _shares(spent: Mapping[str, float]) -> str:
    """Where the time went, as in ``read 1%, decode 9%, infer 89%, write 1%``."""
    return ", ".join(f"{stage} {spent[stage] / sum(spent.values()):.0%}" for stage in STAGES)


@contextmanager
def _closed(finished: Any) -> Iterator[None]:
    """Close joblib's generator at the end, without its warning that work is lost: finished units are on the disk."""
    try:
        yield
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was ended, most likely for lack of memory; finished units are kept: run the same "
            "command again with fewer processes (--workers, make WORKERS=1)"
        ) from error
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            finished.close()
