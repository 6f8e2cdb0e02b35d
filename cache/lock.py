"""One writer a store: a lock that the system lets go of when its holder dies, however it dies."""

import errno
import fcntl
import glob
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.support.errors import UserError


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Hold the only right to write a store while the block runs.

    The right is a lock on a file beside the store that names its holder. The lock, not the file, is what counts: a
    file that a killed process left behind is taken over.

    Raises
    ------
    UserError
        Another process holds it; the message has its process id and host.
    """
    store.parent.mkdir(parents=True, exist_ok=True)
    path = store.with_name(f".{store.name}.lock")
    descriptor = _lock(path, store)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        _remove_leftovers(store)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def find_holder(store: Path) -> str | None:
    """Who is writing a store now, as ``process PID on HOST``; None if nobody is."""
    try:
        descriptor = os.open(store.with_name(f".{store.name}.lock"), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.read(descriptor, 1000).decode(errors="replace") or "another process"
    finally:
        os.close(descriptor)
    return None


def _lock(path: Path, store: Path) -> int:
    """Open and lock the file; a file that its holder removed in between is opened anew."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same(descriptor, path):
                return descriptor
            os.close(descriptor)
        except OSError as error:
            by = os.read(descriptor, 1000).decode(errors="replace") or "another process"
            os.close(descriptor)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise UserError(f"{store}: is being written by {by}; wait until it has ended, or end it") from None


def _is_same(descriptor: int, path: Path) -> bool:
    opened = os.fstat(descriptor)
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    return (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)


def _remove_leftovers(store: Path) -> None:
    """Remove what a killed writer had under way; nobody else can have anything under way now."""
    name = glob.escape(store.name)
    for pattern in (f".{name}.*.tmp", f"..{name}.seen.json.*.tmp", f"{name}.parts/*/.*.tmp"):
        for path in store.parent.glob(pattern):
            path.unlink(missing_ok=True)
