"""Worker processes: they end when the one that started them is gone, whatever ended it, and it notices their end.

A process that is killed, as the system does when memory is short, cannot end its workers. They would keep their memory
and wait for work that never comes.
"""

import os
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from cache.support.errors import UserError

INTERVAL = 0.5
"""Seconds between two looks at the parent."""


def end_with(parent: int) -> None:
    """End this process soon after its parent.

    Where another process is the parent nothing is done: a worker of a cluster, or a thread of the parent itself.

    Parameters
    ----------
    parent : int
        Number of the process that started this one.
    """
    if parent != os.getpid():
        threading.Thread(target=_watch, args=[parent], name="parent watch", daemon=True).start()


def _watch(parent: int) -> None:
    # The system gives the children of a process that has ended to another one.
    while os.getppid() == parent:
        time.sleep(INTERVAL)
    os._exit(1)


@contextmanager
def closing_tasks(finished: Any, remedy: str = "") -> Iterator[None]:
    """Close joblib's generator at the end, without its warning that work is lost: finished units are on the disk.

    Parameters
    ----------
    finished : generator
        What ``Parallel(return_as=...)`` returned.
    remedy : str
        The end of the message where a worker was ended.

    Raises
    ------
    UserError
        A worker was ended from outside.
    """
    try:
        yield
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was ended, most likely for lack of memory; finished units are saved: run the same "
            f"command again{remedy}"
        ) from error
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            finished.close()
