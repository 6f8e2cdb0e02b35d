"""Read files up to a limit, so that a wrong file is refused at once and in little memory.

Submissions come from strangers and have a narrow limit. Label files are one's own, of any number of images; their limit
only keeps a wrong file, such as an archive, from filling the memory.
"""

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from cache.support.errors import DataError
from cache.support.messages import some

MAX_BYTES = 32 * 2**20
"""Larger submissions are refused unread. One of the largest edition, with 100 concepts per image, has 19 MB."""

MAX_LINES = 1_000_000
"""Submissions with more lines are refused before they are parsed. The largest edition has 116,635 images."""

MAX_LABEL_BYTES = 2**30
"""Larger label files are refused unread. Labels of 1,000,000 images, with 4 concepts each, have 62 MB."""

MAX_LABEL_LINES = 10_000_000
"""Label files with more lines are refused before they are parsed."""

MEMBER = "submission.csv"
"""The one file in a zipped submission."""

_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
_MIB = 2**20


def read_file(path: Path) -> bytes:
    """Read a file of one's own: labels, ids, groups, names of concepts.

    Raises
    ------
    DataError
        The file does not exist, or is larger than labels are.
    """
    with _opened(path, MAX_LABEL_BYTES) as file:
        data = file.read()
    _check_lines(data, path, MAX_LABEL_LINES)
    return data


def read_submission_bytes(path: Path) -> bytes:
    """Read a submission, which may be in a zip.

    Raises
    ------
    DataError
        The file does not exist, or is larger than any submission; or the zip is damaged, or contains something else
        than one ``submission.csv``.
    """
    with _opened(path, MAX_BYTES) as file:
        if not _starts_as_zip(file):
            return _read_limited(file, path)
        try:
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                if names != [MEMBER]:
                    found = some([repr(name[:60]) for name in names]) or "nothing"
                    raise DataError(f"{path}: contains {found}, expected one file named {MEMBER}; make the zip again")
                if archive.getinfo(MEMBER).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise DataError(f"{path}: an unusual compression, expected deflate; make the zip again")
                with archive.open(MEMBER) as member:
                    return _read_limited(member, path)
        # What the modules raise for damaged bytes. A wrong size in the directory ends in one of these too.
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError, OSError) as error:
            raise DataError(f"{path}: a damaged zip ({error}); make it again") from None


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip does, whatever its name.

    Raises
    ------
    DataError
        The file does not exist, or is larger than any submission.
    """
    with _opened(path, MAX_BYTES) as file:
        return _starts_as_zip(file)


@contextmanager
def _opened(path: Path, max_bytes: int) -> Iterator[IO[bytes]]:
    # Reading a pipe or a device could block, or never end.
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if not path.is_file():
        raise DataError(f"{path}: not a file; expected a .csv")
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            _refuse_large(path, f"{max_bytes // _MIB:,} MiB")
        yield file


def _starts_as_zip(file: IO[bytes]) -> bool:
    start = file.read(len(_ZIP_STARTS[0]))
    file.seek(0)
    return start in _ZIP_STARTS


def _read_limited(file: IO[bytes], path: Path) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        _refuse_large(path, f"{MAX_BYTES // _MIB} MiB")
    _check_lines(data, path, MAX_LINES)
    return data


def _check_lines(data: bytes, path: Path, max_lines: int) -> None:
    if data.count(b"\n") + data.count(b"\r") > max_lines:
        _refuse_large(path, f"{max_lines:,} lines")


def _refuse_large(path: Path, limit: str) -> NoReturn:
    raise DataError(f"{path}: over {limit}, more than any file of the task has; give the right file")
