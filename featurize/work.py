"""Embedding what is pending: units go to workers, finished ones come back and are written here alone."""

import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from cache.command import check_interrupted
from cache.errors import UserError
from cache.files import require_room
from cache.parts import Parts
from cache.progress import Progress
from cache.rows import stored_as
from featurize.network import Network
from featurize.request import Request
from featurize.units import STAGES, UNIT_BATCHES, embed_unit


@dataclass(frozen=True)
class Work:
    """What embedding needs: the network, what executes it, what was asked for, and where finished units go."""

    network: Network
    request: Request
    parts: Parts
    workers: int


def embed_pending(pending: list[Path], work: Work, n_images: int, say: Callable[[str], None]) -> None:
    """Embed the pending images and write each unit as it comes back.

    Parameters
    ----------
    pending : list of Path
        One file for each digest that is not embedded yet.
    work : Work
    n_images : int
        Rows of the store that will be made.
    say : callable
        Told what is done, a line each.
    """
    parts, size, n_features = work.parts, work.request.backbone.size, work.network.cut.n_features
    row_bytes = n_features * np.dtype(work.request.dtype).itemsize
    require_room(parts.folder, (len(pending) + n_images) * row_bytes)
    say(f"{len(pending):,} images to embed, {n_images - len(pending):,} need not be")
    engine = work.network.engine
    unit_images = UNIT_BATCHES * engine.batch
    units = [pending[start : start + unit_images] for start in range(0, len(pending), unit_images)]
    processes = min(work.workers, work.network.choice.processes, len(units))
    pool = Parallel(n_jobs=processes, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
    task = delayed(embed_unit)
    progress = Progress(len(pending), "embedding")
    spent = dict.fromkeys(STAGES, 0.0)
    finished = pool(task(engine, unit, size, n_features) for unit in units)
    with _closed(finished):
        for unit in finished:
            check_interrupted()
            begun = time.perf_counter()
            parts.add(stored_as(unit.rows, work.request.dtype))
            took = unit.seconds | {"write": time.perf_counter() - begun}
            spent = {stage: spent[stage] + took[stage] for stage in STAGES}
            progress.add(len(unit.rows.digests))
        check_interrupted()
    seconds = progress.close()
    shares = ", ".join(f"{stage} {spent[stage] / sum(spent.values()):.0%}" for stage in STAGES)
    say(f"{len(pending):,} images embedded in {seconds:.0f} s ({len(pending) / seconds:.0f} images/s; {shares})")


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
