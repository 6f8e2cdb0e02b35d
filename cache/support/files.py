"""Write files so that they are complete or absent: under a temporary name, synced, renamed."""

import contextlib
import errno
import hashlib
import io
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cache.support.errors import ParameterError, StoreError
from cache.support.messages import describe_error


@contextmanager
def making(folder: Path) -> Iterator[None]:
    """Make a folder, with those that it is in, and remove again what is empty if the block fails."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # something is in it
            for each in made:
                each.rmdir()
        raise


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
    _refuse_folder(path)
    with making(path.parent):
        temporary = name_temporary(path)
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_files(folder: Path, stale: Sequence[str] = (), first: str = "", last: str = "") -> Iterator[Path]:
    """Yield a new folder for files that belong together, and move them into `folder` at the end of the block.

    Until then nothing in `folder` changes. So an error while they are made, such as a full disk, costs nothing.

    Parameters
    ----------
    folder : Path
        It is made if it does not exist. It may be a link, so the new folder is within it: a rename across file systems
        is not atomic.
    stale : sequence of str
        Names of files that must not stay beside the new ones. They are removed in this order before the first new one
        comes.
    first, last : str
        Names of the files that are moved first and last.

    Yields
    ------
    Path
        Where to write. What is written there has been synced.

    Raises
    ------
    ParameterError
        There is a folder in the place of a file.
    """
    with making(folder):
        new = name_temporary(folder / "new")
        new.mkdir()
        try:
            yield new
            paths = sorted(new.iterdir(), key=lambda path: (path.name == last, path.name != first, path.name))
            for path in paths:
                if path.is_file():
                    _refuse_folder(folder / path.name)
            for name in stale:
                (folder / name).unlink(missing_ok=True)
            for path in paths:
                if path.is_dir():
                    shutil.rmtree(folder / path.name, ignore_errors=True)
                os.replace(path, folder / path.name)
                sync(folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise ParameterError(f"{path}: is a folder, expected a file to write; give another path")


def name_temporary(path: Path) -> Path:
    """A new name beside a path, for a file or a folder that takes its place; `cache.lock` removes what is left over."""
    # Two threads, or two hosts that share the folder, may write the same file at once.
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def replace_folder(new: Path, path: Path) -> Path | None:
    """Rename a folder to `path`. An earlier folder there is renamed first, because a rename replaces an empty one only.

    A kill between the two renames leaves no folder, never a mixed one.

    Parameters
    ----------
    new, path : Path
        Both in the same folder.

    Returns
    -------
    Path or None
        Where the earlier folder is now, for the caller to remove or to put back; None if there was none.
    """
    earlier = name_temporary(path) if path.exists() else None
    if earlier:
        os.rename(path, earlier)
    try:
        os.rename(new, path)
    except OSError:
        if earlier:
            os.rename(earlier, path)
        raise
    sync(path.parent)
    return earlier


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


def sync(path: Path) -> None:
    """Have the bytes of a file, or the names in a folder, written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
