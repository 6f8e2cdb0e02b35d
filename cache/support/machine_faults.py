"""What is the machine's fault and says nothing of the file that is read: it is never recorded as damage of the file."""

import errno
import mmap

_NUMBERS = frozenset(
    {
        *(errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.ENOBUFS),
        *(errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH),
        *(errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNRESET, errno.ENETDOWN, errno.ENETUNREACH, errno.EINTR),
    }
)
"""Errors for lack of memory, open files or room, and of disks and of file systems on a network."""


def is_fault_of_machine(error: BaseException) -> bool:
    """Whether an error shows a lack of memory or of open files, or a disk or network that fails.

    Examples
    --------
    >>> is_fault_of_machine(OSError(errno.EIO, "Input/output error")), is_fault_of_machine(FileNotFoundError(2, "none"))
    (True, False)
    """
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _NUMBERS)


def describe_fault(path: object, error: OSError) -> str:
    """Describe on one line why an image could not be read, and what to do."""
    return (
        f"{path}: cannot be read ({error.strerror}), which is no damage of the image; run the same command "
        "again, and if it fails again, copy the image anew or move it out of the folder"
    )


def has_memory(n_bytes: int) -> bool:
    """Whether this process may have so much more memory. It is asked for and not touched, which costs nothing."""
    try:
        with mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
            return True
    except (OSError, MemoryError):
        return False
