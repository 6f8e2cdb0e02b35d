"""One GPU per process: a lock that the system releases when its holder ends."""

import os
from pathlib import Path

from cache.lock import lock_until_exit


def lock_gpu(folder: Path, n_gpus: int) -> int:
    """Take a GPU that no other process has taken, until this process ends.

    Parameters
    ----------
    folder : Path
        Where the lock files are: processes that share it share the GPUs.
    n_gpus : int

    Returns
    -------
    int
        Number of the GPU. If all are taken, processes share them.
    """
    free = (number for number in range(n_gpus) if lock_until_exit(folder / f".gpu{number}.lock"))
    return next(free, os.getpid() % n_gpus)
