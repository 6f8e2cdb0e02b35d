"""Write files so that they are complete or absent: under a temporary name, synced, renamed."""

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

from cache.support.errors import ParameterError, StoreError
from cache.support.messages import describe_error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` once the block has ended without an error.

    The temporary file is in the same folder, because a rename across file systems is not atomic. File and folder are
    synced, because a rename may otherwise reach the disk before the bytes do.

    Parameters
    ----------
    path : Path
        The file to make or replace. Its folder is made if it does not exist.

    Yields
    ------
    Path
        Where to write.

    Raises
    ------
    ParameterError
        The path is a folder.
    """
    if path.is_dir():
        raise ParameterError(f"{path}: is a folder, expected a file to write; give another path")
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
    """Turn an error while a store, or a file beside it, is written into one line that says what to do.

    Raises
    ------
    StoreError
        The disk is full, the folder is read-only, a limit is reached: HDF5 reports these in many ways.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        code = error.errno if isinstance(error, OSError) and error.errno else _find_code(str(error))
        why = os.strerror(code) if code else describe_error(error)
        raise StoreError(
            f"{path}: cannot be written ({why}); finished work is saved: make room or choose another place for "
            "the store, then run the same command again"
        ) from error


class SteadyFile(io.RawIOBase):
    """A file object that hides write errors from HDF5, and raises the first one in `check`.

    HDF5 crashes the process if it cannot write its buffers while it closes a file. So it gets this object instead,
    through h5py's driver for Python's file objects, and whoever writes calls `check`.

    Parameters
    ----------
    file : io.FileIO
        Unbuffered, open for reading and writing.
    """

    def __init__(self, file: io.FileIO) -> None:
        super().__init__()
        self._file = file
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the first error, if there was one.

        Raises
        ------
        OSError
            A write or a change of the file's length has failed since it was opened.
        """
        if self._error:
            raise self._error

    def write(self, data: Any) -> int:
        """Write, or note the error."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                written = self._file.write(view[done:])
                if not written:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                done += written  # a disk that is nearly full may take only a part
        except OSError as error:
            self._error = self._error or error
            self._file.seek(len(view) - done, os.SEEK_CUR)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """Read; zeros where nothing could be written."""
        view = memoryview(buffer).cast("B")
        got = self._file.readinto(view) or 0
        view[got:] = bytes(len(view) - got)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        """Cut or extend the file, or note the error."""
        try:
            self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
        return self.tell() if size is None else size


def require_room(path: Path, n_bytes: int) -> None:
    """Check that the disk has room for a store before anything is written.

    Parameters
    ----------
    path : Path
        A file or folder to make; it need not exist.
    n_bytes : int
        Bytes that it will take while it is made.

    Raises
    ------
    StoreError
        There is less room; the message has both numbers.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise StoreError(
            f"{path}: needs {_gigabytes(n_bytes)} while it is made, its disk has {_gigabytes(free)} free; "
            "make room or choose another place for the store"
        )


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 10**8 else f"{n_bytes / 1e9:.3g} GB"


def _find_code(message: str) -> int:
    """The system's error number, which HDF5 writes into its message; 0 if there is none."""
    found = re.search(r"errno = (\d+)", message)
    return int(found.group(1)) if found else 0


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def digest_file(path: Path) -> bytes:
    """SHA-256 of a file (32 bytes). The file is read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
