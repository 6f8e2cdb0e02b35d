"""The seconds of each stage, and the progress of a fit."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from cache.support.errors import UserError
from cache.support.progress import Progress
from heads.estimators.base import Head


class Clock:
    """Measures the seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Measure a stage."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 3)


@contextmanager
def watching(head: Head) -> Iterator[None]:
    """Show the progress of a head that reports it, and turn what it refuses into one line.

    Raises
    ------
    UserError
        The head refuses what it is given: a parameter does not fit the data.
    """
    bar: list[Progress] = []

    def show(n_done: int, n_all: int) -> None:
        if not bar:
            bar.append(Progress(n_all, "fitting", head.counts))
        bar[0].reach(n_done)
        if n_done == n_all:
            bar.pop().close()

    head.watch = show
    try:
        yield
    except ValueError as error:
        raise UserError(f"{type(head).__name__}: {error}") from error
    finally:
        head.watch = None
        for each in bar:
            each.close()
