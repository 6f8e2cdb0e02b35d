"""One GPU per process: a lock that the system releases when its holder ends."""

import fcntl
import os
from pathlib import Path


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
        Number of the GPU; any, where all are taken.
    """
    for number in range(n_gpus):
        lock = os.open(folder / f".gpu{number}.lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
        else:
            return number  # the descriptor stays open on purpose: the lock ends with it
    return os.getpid() % n_gpus
