"""The seconds of each stage, and the progress of a fit."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cache.support.progress import Progress

if TYPE_CHECKING:
    from heads.estimators.base import Head, ProgressCallback


class Clock:
    """Measures the seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Measure a stage; its parts add up."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(self.seconds.get(stage, 0) + time.perf_counter() - start, 3)


@contextmanager
def watching(head: "Head") -> Iterator["ProgressCallback"]:
    """Show the progress of fits that call the yielded function, such as those of `head`."""
    bar: list[Progress] = []

    def show(n_done: int, n_all: int) -> None:
        if not bar:
            bar.append(Progress(n_all, "fitting", head.progress_unit))
        bar[0].reach(n_done)
        if n_done == n_all:
            bar.pop().close()

    try:
        yield show
    finally:
        for each in bar:
            each.close()
