"""Files that are whole or absent: written under a temporary name, synced, renamed."""

import errno
import hashlib
import io
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cache.support.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place once the block has ended well.

    The temporary file stands in the same folder, because a rename across file systems is not atomic, and
    file and folder are synced, because a rename may otherwise reach the disk before the bytes do.

    Parameters
    ----------
    path : Path
        What is made or replaced. Its folder is made if need be.

    Yields
    ------
    Path
        Where to write.

    Raises
    ------
    UserError
        There is a folder in its place.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder; name a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two threads, or two hosts that share the folder, may write the same file at once.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while `path` is written into one line that says what to do.

    Raises
    ------
    UserError
        The disk is full, the folder is read-only, a limit is reached: HDF5 tells of these in many ways.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        code = error.errno if isinstance(error, OSError) and error.errno else _find_code(str(error))
        why = os.strerror(code) if code else " ".join(str(error).split())
        raise UserError(
            f"{path}: cannot be written ({why}); what is finished is kept: make room or choose another place for "
            "the store, then run the same command again"
        ) from error


class SteadyFile(io.RawIOBase):
    """A file that never tells HDF5 of an error, and tells us of the first.

    HDF5 crashes the process when it cannot write what it has in mind while it closes a file. It is given this
    instead, through h5py's driver for Python's file objects, and whoever writes asks `check`.

    Parameters
    ----------
    file : unbuffered binary file, open for reading and writing
    """

    def __init__(self, file: io.FileIO) -> None:
        super().__init__()
        self._file = file
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the first error, if there was one."""
        if self._error:
            raise self._error

    def write(self, data: Any) -> int:
        """Write, or remember why not."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                written = self._file.write(view[done:])
                if not written:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                done += written  # a disk that is nearly full takes a part
        except OSError as error:
            self._error = self._error or error
            self._file.seek(len(view) - done, os.SEEK_CUR)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """Read; what could not be written is zeros."""
        view = memoryview(buffer).cast("B")
        got = self._file.readinto(view) or 0
        view[got:] = bytes(len(view) - got)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place."""
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        """Cut or extend, or remember why not."""
        try:
            self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
        return self.tell() if size is None else size


def require_room(path: Path, n_bytes: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises
    ------
    UserError
        With the numbers.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise UserError(
            f"{path}: needs {_gigabytes(n_bytes)} while it is made, its disk has {_gigabytes(free)} free; "
            "make room or choose another place for the store"
        )


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 10**8 else f"{n_bytes / 1e9:.3g} GB"


def _find_code(message: str) -> int:
    """HDF5 puts the system's error number into its text."""
    found = re.search(r"errno = (\d+)", message)
    return int(found.group(1)) if found else 0


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def digest_file(path: Path) -> bytes:
    """SHA-256 of a file's bytes, read in pieces (32 bytes)."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
