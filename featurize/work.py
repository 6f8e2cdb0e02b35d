"""Embedding what is pending: units go to workers, finished ones come back and are written here alone."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from cache.command import Interrupts
from cache.files import require_room
from cache.parts import Parts
from cache.progress import Progress
from cache.rows import stored_as
from featurize.backbone import Front
from featurize.engines import Choice, TensorFlowEngine, prepare
from featurize.request import Request
from featurize.units import UNIT_IMAGES, embed_unit


@dataclass(frozen=True)
class Work:
    """What embedding needs: the network, what executes it, what was asked for, and where finished units go."""

    front: Front
    choice: Choice
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
    parts, size, n_features = work.parts, work.request.backbone.size, work.front.n_features
    row_bytes = n_features * np.dtype(work.request.dtype).itemsize
    require_room(parts.folder, (len(pending) + n_images) * row_bytes)
    say(f"{len(pending):,} images to embed, {n_images - len(pending):,} need not be")
    engine = prepare(work.choice, work.front.model, parts.folder)
    units = [pending[start : start + UNIT_IMAGES] for start in range(0, len(pending), UNIT_IMAGES)]
    processes = 1 if isinstance(engine, TensorFlowEngine) else min(work.workers, len(units))
    pool = Parallel(n_jobs=processes, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
    task = delayed(embed_unit)
    progress = Progress(len(pending), "embedding")
    finished = pool(task(engine, unit, size, n_features) for unit in units)
    with Interrupts() as interrupts, _closed(finished):
        for rows in finished:
            interrupts.check()
            parts.add(stored_as(rows, work.request.dtype))
            progress.add(len(rows.digests))
        interrupts.check()
    seconds = progress.close()
    say(f"{len(pending):,} images embedded in {seconds:.0f} s ({len(pending) / seconds:.0f} images/s)")


@contextmanager
def _closed(finished: Any) -> Iterator[None]:
    """Close joblib's generator at the end, without its warning that work is lost: finished units are on the disk."""
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            finished.close()
