"""Files in and out: read up to a limit, written whole or not at all."""

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from cache.support.errors import UserError
from cache.support.messages import some

MAX_BYTES = 32 * 2**20
"""Larger files are refused unread; a submission of the largest edition with 100 concepts an image has 19 MB."""

MAX_LINES = 1_000_000
"""Files of more lines are refused unparsed; the largest edition has 116,635 images."""

MEMBER = "submission.csv"
"""The one file that a zipped submission holds."""

_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
_MIB = 2**20


def read_file(path: Path) -> bytes:
    """A file's bytes.

    Raises
    ------
    UserError
        There is no such file, or it is larger than any file of the task.
    """
    with _opened(path) as file:
        return _read_limited(file, path)


def read_submission_bytes(path: Path) -> bytes:
    """A submission's bytes, out of the zip if it is one.

    Raises
    ------
    UserError
        As `read_file`; the zip is damaged, or holds something else than one ``submission.csv``.
    """
    with _opened(path) as file:
        if not _starts_as_zip(file):
            return _read_limited(file, path)
        try:
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                if names != [MEMBER]:
                    found = some([repr(name[:60]) for name in names]) or "nothing"
                    raise UserError(f"{path}: holds {found}, expected one file named {MEMBER}")
                if archive.getinfo(MEMBER).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise UserError(f"{path}: compressed in an unusual way; make the zip with deflate")
                with archive.open(MEMBER) as member:
                    return _read_limited(member, path)
        # What the modules raise on damaged bytes; a size that lies ends as one of these too.
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError, OSError) as error:
            raise UserError(f"{path}: a zip that cannot be read ({error}); make it again") from None


def is_zip(path: Path) -> bool:
    """Whether a file is taken for a zip, whatever its name.

    Raises
    ------
    UserError
        As `read_file`.
    """
    with _opened(path) as file:
        return _starts_as_zip(file)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    # A pipe or a device would be waited for, or never end.
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not path.is_file():
        raise UserError(f"{path}: not a file; expected a .csv")
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            _refuse_large(path, f"{MAX_BYTES // _MIB} MiB")
        yield file


def _starts_as_zip(file: IO[bytes]) -> bool:
    start = file.read(len(_ZIP_STARTS[0]))
    file.seek(0)
    return start in _ZIP_STARTS


def _read_limited(file: IO[bytes], path: Path) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        _refuse_large(path, f"{MAX_BYTES // _MIB} MiB")
    if data.count(b"\n") + data.count(b"\r") > MAX_LINES:
        _refuse_large(path, f"{MAX_LINES:,} lines")
    return data


def _refuse_large(path: Path, limit: str) -> NoReturn:
    raise UserError(f"{path}: over {limit}, more than any file of the task has; name the right file")
