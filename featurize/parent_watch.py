"""Processes that end when the one that started them is gone, whatever ended it.

A process that is killed, as the system does when memory is short, cannot end its workers. They would keep their memory
and wait for work that never comes.
"""

import os
import threading
import time

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
