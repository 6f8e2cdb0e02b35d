"""One writer per path: a lock that the system releases when its holder dies, however it dies.

The package ``filelock`` locks files in the same way, but does not say who holds a lock, which is what a user who is
refused needs to know. So these few lines are our own.
"""

import errno
import fcntl
import glob
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.support.errors import StoreError, UserError


@contextmanager
def locked(path: Path, error: type[UserError] = StoreError, action: str = "written") -> Iterator[None]:
    """Be the only one who writes a file or a folder while the block runs.

    The lock is on the file ``.NAME.lock`` beside it, which says who holds it. The lock counts, not the file: a file
    that a killed process left behind stops nobody. Temporary files that such a process left are removed, so everybody
    who writes to the path must hold the lock.

    Parameters
    ----------
    path : Path
        A store, or the folder of a run. It need not exist.
    error : type of UserError
        What to raise if somebody else holds the lock.
    action : str
        What the holder is doing, for the message: "is being written by process 4711 on HOST".

    Raises
    ------
    UserError
        Another process, or another thread, holds the lock. The kind is `error`; the message has process id and host.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    named = _give_name(path)
    file = _lock_file(named)
    try:
        descriptor = _lock(file)
    except _BusyError as busy:
        raise error(f"{path}: is being {action} by {busy}; wait until it has ended, or end it") from None
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        _remove_leftovers(named)
        yield
    finally:
        # Removed while it is still locked; `_lock` notices if it has locked a removed file.
        file.unlink(missing_ok=True)
        os.close(descriptor)


def find_holder(path: Path) -> str | None:
    """Who is writing to a path now, as ``process PID on HOST``; None if nobody is."""
    try:
        descriptor = os.open(_lock_file(_give_name(path)), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _read_holder(descriptor)
    finally:
        os.close(descriptor)
    return None


class _BusyError(Exception):
    """Somebody else holds the lock; the message says who."""


def _give_name(path: Path) -> Path:
    """The path by a name of its own, which ``.`` and ``..`` are not."""
    return path.resolve() if path.name in ("", "..") else path


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _lock(file: Path) -> int:
    """Open and lock a file; returns its descriptor.

    The last holder may remove the file after we have opened it and before we lock it. Then it is opened anew, because
    a lock on a removed file excludes nobody.
    """
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same(descriptor, file):
                return descriptor
            os.close(descriptor)
        except OSError as error:
            holder = _read_holder(descriptor)
            os.close(descriptor)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise _BusyError(holder) from None


def _read_holder(descriptor: int) -> str:
    """The text of an open lock file; it is empty for the moment until its holder has written it."""
    return os.read(descriptor, 1000).decode(errors="replace") or "another process"


def _is_same(descriptor: int, file: Path) -> bool:
    opened = os.fstat(descriptor)
    try:
        named = file.stat()
    except FileNotFoundError:
        return False
    return (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of a killed writer; nobody else can be writing now."""
    name = glob.escape(path.name)
    of_store = (f".{name}.*.tmp", f"..{name}.seen.json.*.tmp", f"{name}.parts/*/.*.tmp")
    in_folder = f"{name}/.*.[0-9]*.????????.tmp"  # named by `replacing`; other hidden files are not ours
    for pattern in (*of_store, in_folder):
        for each in path.parent.glob(pattern):
            each.unlink(missing_ok=True)
