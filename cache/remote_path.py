"""Paths on another machine, URLs such as ``s3://bucket/images``, read through fsspec, which is an optional package.

Which file systems there are, and where their credentials come from, is fsspec's and the user's affair: ``s3://`` needs
s3fs, ``gs://`` gcsfs.
"""

import errno
import io
import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NoReturn

from cache.support.errors import DataError, NotInstalledError
from cache.support.messages import describe_error

PIP_LINE = "pip install fsspec, and what its URL needs: s3fs for s3://, gcsfs for gs://"

HEADER_BYTES = 4096
"""How much of a file `RemotePath.open` reads."""

MARKS = ("ETag", "etag", "md5Hash", "mtime", "created")
"""What file systems call that which changes when a file does."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.+")


@dataclass(frozen=True)
class RemotePath:
    """A folder, or a file in one, with the methods of `pathlib.Path` that images are found and read with.

    Its errors are those of files: a file that has vanished is a FileNotFoundError, and any other fault is one of the
    connection, which says nothing of the file.

    Parameters
    ----------
    url : str
    size : int
        Bytes.
    mark : str
        What changes when the file does, such as its ETag; empty if the file system has nothing of the kind.
    """

    url: str
    size: int = field(default=0, compare=False)
    mark: str = field(default="", compare=False)

    def absolute(self) -> "RemotePath":
        """Itself: a URL does not depend on where one is."""
        return self

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return PurePosixPath(self.url).name

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return PurePosixPath(self.url).stem

    @property
    def suffix(self) -> str:
        """The ending of the name, with its point."""
        return PurePosixPath(self.url).suffix

    def read_bytes(self) -> bytes:
        """The content.

        Raises
        ------
        OSError
            It cannot be read.
        """
        return self._read(None)

    def open(self, mode: str = "rb", buffering: int = -1) -> BinaryIO:
        """The first bytes of the file, as many as the header of an image may have, as a file."""
        return io.BytesIO(self._read(HEADER_BYTES))

    def _read(self, end: int | None) -> bytes:
        file_system, place = connect(self.url)
        try:
            content: bytes = file_system.cat_file(place, end=end)
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.url) from error
        except Exception as error:  # each file system has errors of its own
            raise OSError(errno.EIO, describe_error(error), self.url) from error
        return content


AnyPath = Path | RemotePath
"""A path on this machine or another."""


def to_path(text: str | os.PathLike[str] | RemotePath) -> AnyPath:
    """A path, or the URL that a text is.

    >>> to_path("s3://bucket/images"), str(to_path("data/images"))
    (RemotePath(url='s3://bucket/images', size=0, mark=''), 'data/images')
    """
    if isinstance(text, RemotePath):
        return text
    name = os.fspath(text)
    return RemotePath(name.rstrip("/")) if _URL.fullmatch(name) else Path(name)


def list_files(folder: RemotePath) -> list[RemotePath]:
    """Every file in a folder, sorted.

    Raises
    ------
    NotInstalledError
        fsspec, or the package of this kind of URL, is not installed.
    DataError
        The folder cannot be listed: it is not there, the network fails, or credentials are missing.
    """
    file_system, place = connect(folder.url)
    try:
        found = file_system.find(place, detail=True)
    except Exception as error:  # each file system has errors of its own
        _refuse(folder.url, error)
    start = str(file_system.unstrip_protocol(place)).rstrip("/")
    files = []
    for path, facts in sorted(found.items()):
        mark = next((str(facts[key]) for key in MARKS if facts.get(key)), "")
        within = str(file_system.unstrip_protocol(path)).removeprefix(f"{start}/")
        files.append(RemotePath(f"{folder.url}/{within}", int(facts.get("size") or 0), mark))
    return files


def connect(url: str) -> tuple[Any, str]:
    """The file system of a URL, of which fsspec keeps one per process, and the place in it.

    Raises
    ------
    NotInstalledError
        fsspec, or the package of this kind of URL, is not installed.
    DataError
        There is no file system of this kind, or it cannot be reached.
    """
    try:
        import fsspec

        file_system, place = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise NotInstalledError(f"{url}: cannot be read ({describe_error(error)}): {PIP_LINE}") from error
    except Exception as error:  # each file system has errors of its own
        _refuse(url, error)
    return file_system, place


def _refuse(url: str, error: Exception) -> NoReturn:
    raise DataError(
        f"{url}: cannot be listed ({describe_error(error)}); check the URL, the network, and the credentials, which "
        "the package of the file system finds in the environment or its own files"
    ) from error
