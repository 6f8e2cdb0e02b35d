"""One writer per path: a lock that the system releases when its holder dies, however it dies.

The package ``filelock`` locks files in the same way, but does not say who holds a lock, which is what a user who is
refused needs to know. So these few lines are our own.

Some network file systems have no locks. There, two things together replace one: a lock in the temporary folder of this
machine excludes its other processes, and a file that only one process can create excludes other machines. Such a file
may be left behind by a process that was killed. If that ran here, the next writer knows that it has ended, because it
holds the lock in the temporary folder. If it ran elsewhere, only the user can know.
"""

import errno
import fcntl
import glob
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cache.support.errors import StoreError, UserError
from cache.support.files import making
from cache.support.reporting import warn


@contextmanager
def locked(path: Path, error: type[UserError] = StoreError, action: str = "written") -> Iterator[None]:
    """Be the only one who writes a file or a folder while the block runs.

    The lock is on the file ``.NAME.lock`` beside it, which says who holds it. The lock counts, not the file: a file
    that a killed process left behind stops nobody. Temporary files that such a process left are removed, so everybody
    who writes to the path must hold the lock.

    On a file system without locks it is ``.NAME.writer`` instead, together with a lock in the temporary folder.

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
        Or there are no locks, neither at the path nor in the temporary folder.

    Warns
    -----
    DataWarning
        The file system of the path has no locks.
    """
    named = _give_name(path)
    with ExitStack() as held:
        held.enter_context(making(path.parent))
        try:
            try:
                held.enter_context(_holding(_lock_file(named)))
            except _NoLocksError as why:
                held.enter_context(_holding_without_locks(named, why))
                warn(f"{path}: its file system has no locks ({why}); {_writer_file(named).name} beside it keeps other "
                     "machines from writing to it")  # fmt: skip
        except _BusyError as busy:
            raise error(f"{path}: is being {action} by {busy}; wait until it has ended, or end it{busy.hint}") from None
        except _NoLocksError as why:
            raise error(
                f"{path}: cannot be locked ({why}), and two that write to it at once would spoil it; choose a place on "
                "a local disk, or have it mounted with locks"
            ) from None
        _remove_leftovers(named)
        yield


def find_holder(path: Path) -> str | None:
    """Who is writing to a path now, as ``process PID on HOST``; None if nobody is."""
    named = _give_name(path)
    holder = _find_holder(_lock_file(named))
    if holder or not _writer_file(named).exists():
        return holder
    try:
        who, place = _read_writer(_writer_file(named))
        return _find_holder(_local_file(named)) if place == _describe_place(named) else who
    except OSError:
        return None  # it has just ended


def lock_until_exit(file: Path) -> bool:
    """Lock a file until this process ends; for what belongs to this machine, such as a GPU.

    Where the file cannot be locked, one in the temporary folder stands for it.

    Returns
    -------
    bool
        False if another process has locked it, or there are no locks.
    """
    for each in (file, _local_file(file)):
        try:
            _lock(each)  # the descriptor stays open on purpose: the lock ends with it
            return True
        except _BusyError:
            return False
        except (_NoLocksError, OSError):
            continue
    return False


class _BusyError(Exception):
    """Somebody else holds the lock; the message says who, the hint what to do besides waiting."""

    def __init__(self, holder: str, hint: str = "") -> None:
        super().__init__(holder)
        self.hint = hint


class _NoLocksError(Exception):
    """A file cannot be locked; the message says why."""


def _give_name(path: Path) -> Path:
    """The path by a name of its own, which ``.`` and ``..`` are not."""
    return path.resolve() if path.name in ("", "..") else path


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _writer_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.writer")


def _local_file(path: Path) -> Path:
    """The file in the temporary folder of this machine that stands for a path."""
    place = os.fsencode(path.parent.resolve() / path.name)
    return Path(tempfile.gettempdir(), f".radconcepts.{os.getuid()}.{hashlib.sha256(place).hexdigest()[:32]}.lock")


@contextmanager
def _holding(file: Path) -> Iterator[None]:
    """Hold the lock on a file, which says who does."""
    descriptor = _lock(file)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, _name_holder().encode())
        yield
    finally:
        # Removed while it is still locked; `_lock` notices if it has locked a removed file.
        file.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def _holding_without_locks(path: Path, why: _NoLocksError) -> Iterator[None]:
    """Hold a local lock, which excludes this machine, and create a file beside the path, which excludes others."""
    file = _writer_file(path)
    with ExitStack() as held:
        try:
            held.enter_context(_holding(_local_file(path)))
            here = _describe_place(path)
        except OSError:
            raise why from None
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            who, place = _read_writer(file)
            if place != here:
                raise _BusyError(who, f"; if it was killed, remove {file}") from None
            descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC)  # whoever wrote it ran here, and has ended
        try:
            try:
                os.write(descriptor, f"{_name_holder()}\n{here}".encode())
            finally:
                os.close(descriptor)
            yield
        finally:
            file.unlink(missing_ok=True)


def _name_holder() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _describe_place(path: Path) -> str:
    """A text that two writers have in common only if the local lock excludes one of them.

    They run on one machine, since its last start, with one temporary folder and one name of the path.
    """
    local = _local_file(path)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    folder = local.parent.stat()
    return f"{socket.gethostname()} {boot} {folder.st_dev}:{folder.st_ino} {local.name}"


def _read_writer(file: Path) -> tuple[str, str]:
    """Who writes, and where that process runs."""
    who, _, place = file.read_text(encoding="utf-8", errors="replace").partition("\n")
    return who or "another process", place


def _lock(file: Path) -> int:
    """Open and lock a file; returns its descriptor.

    The last holder may remove the file after we have opened it and before we lock it. Then it is opened anew, because
    a lock on a removed file excludes nobody.
    """
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same(descriptor, file):
                return descriptor
            os.close(descriptor)
        except OSError as error:
            holder = _read_holder(descriptor)
            is_empty = os.fstat(descriptor).st_size == 0
            os.close(descriptor)
            if _is_busy(error):
                raise _BusyError(holder) from None
            if is_empty:
                file.unlink(missing_ok=True)  # nobody can lock it
            raise _NoLocksError(error.strerror) from None


def _find_holder(file: Path) -> str | None:
    """Who holds the lock on a file; None if nobody does, or it cannot be locked."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return _read_holder(descriptor) if _is_busy(error) else None
    finally:
        os.close(descriptor)
    return None


def _is_busy(error: OSError) -> bool:
    """Whether a lock is held by somebody else; any other error means that there are no locks."""
    return error.errno in (errno.EAGAIN, errno.EACCES)


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
    """Remove the temporary files and folders of a killed writer; nobody else can be writing now."""
    name = glob.escape(path.name)
    of_store = (f".{name}.*.tmp", f"..{name}.seen.json.*.tmp", f"{name}.parts/*/.*.tmp")
    in_folder = f"{name}/.*.[0-9]*.????????.tmp"  # named by `name_temporary`; other hidden files are not ours
    for pattern in (*of_store, in_folder):
        for each in path.parent.glob(pattern):
            if not each.is_dir() or each.is_symlink():
                each.unlink(missing_ok=True)
    for pattern in (f".{name}.network.*.tmp", in_folder):
        for each in path.parent.glob(pattern):
            shutil.rmtree(each, ignore_errors=True)
