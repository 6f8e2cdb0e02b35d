"""Read files up to a limit, so that a wrong file is refused at once and in little memory."""

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from cache.support.errors import DataError
from cache.support.messages import some


@dataclass(frozen=True)
class Limit:
    """What a file may have.

    Parameters
    ----------
    n_bytes : int
        Larger files are refused unread.
    n_lines : int
        Files with more lines are refused before they are parsed.
    of : str
        What has never more, for the message.
    """

    n_bytes: int
    n_lines: int
    of: str


TASK = Limit(32 * 2**20, 1_000_000, "any file of the task")
"""For submissions and official files. The largest edition has 116,635 images: with 100 concepts each, 19 MB."""

TABLE = Limit(2**30, 20_000_000, "a table of images")
"""For one's own label files and groups: a million images with 10 concepts each have 100 MB."""

MEMBER = "submission.csv"
"""The one file in a zipped submission."""

_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
_MIB = 2**20


def read_file(path: Path, limit: Limit | None = None) -> bytes:
    """Read a file.

    Parameters
    ----------
    path : Path
    limit : Limit, optional
        That of the task if not given.

    Raises
    ------
    DataError
        The file does not exist, or is over the limit.
    """
    limit = limit or TASK
    with _opened(path, limit) as file:
        return _read_limited(file, path, limit)


def read_submission_bytes(path: Path) -> bytes:
    """Read a submission, which may be in a zip.

    Raises
    ------
    DataError
        As `read_file`; or the zip is damaged, or contains something else than one ``submission.csv``.
    """
    with _opened(path, TASK) as file:
        if not _starts_as_zip(file):
            return _read_limited(file, path, TASK)
        try:
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                if names != [MEMBER]:
                    found = some([repr(name[:60]) for name in names]) or "nothing"
                    raise DataError(f"{path}: contains {found}, expected one file named {MEMBER}; make the zip again")
                if archive.getinfo(MEMBER).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise DataError(f"{path}: an unusual compression, expected deflate; make the zip again")
                with archive.open(MEMBER) as member:
                    return _read_limited(member, path, TASK)
        # What the modules raise for damaged bytes. A wrong size in the directory ends in one of these too.
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError, OSError) as error:
            raise DataError(f"{path}: a damaged zip ({error}); make it again") from None


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip does, whatever its name.

    Raises
    ------
    DataError
        As `read_file`.
    """
    with _opened(path, TASK) as file:
        return _starts_as_zip(file)


@contextmanager
def _opened(path: Path, limit: Limit) -> Iterator[IO[bytes]]:
    # Reading a pipe or a device could block, or never end.
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if not path.is_file():
        raise DataError(f"{path}: not a file; expected a .csv")
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size > limit.n_bytes:
            _refuse_bytes(path, limit)
        yield file


def _starts_as_zip(file: IO[bytes]) -> bool:
    start = file.read(len(_ZIP_STARTS[0]))
    file.seek(0)
    return start in _ZIP_STARTS


def _read_limited(file: IO[bytes], path: Path, limit: Limit) -> bytes:
    data = file.read(limit.n_bytes + 1)
    if len(data) > limit.n_bytes:
        _refuse_bytes(path, limit)
    if data.count(b"\n") + data.count(b"\r") > limit.n_lines:
        _refuse(path, limit, f"{limit.n_lines:,} lines")
    return data


def _refuse_bytes(path: Path, limit: Limit) -> NoReturn:
    _refuse(path, limit, f"{limit.n_bytes // _MIB:,} MiB")


def _refuse(path: Path, limit: Limit, most: str) -> NoReturn:
    raise DataError(f"{path}: over {most}, more than {limit.of} has; give the right file")
