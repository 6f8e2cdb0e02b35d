"""The files of a run on disk: their digests, which are written last, and how a file is checked before it is read.

``digests.json`` has the size and the SHA-256 of every file that the run consists of. It comes last, so a folder without
it is an unfinished run, and it is never changed. What is added to a finished run carries a digest of its own: the
submission and the exported model in a file beside them, scores behind the end of their array.

A run may be damaged, and it may come from a stranger. Right digests show that a file is what was written, not that it
is harmless. So whoever reads one still believes no type, length or size in it.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypedDict, TypeVar

from cache.support.errors import RunError
from cache.support.files import write_text
from cache.support.json_file import DamagedFileError, check_type, read_json
from cache.support.messages import describe_error

FORMAT = 6
"""Version of a run's files and of what a head computes from its parameters. Raise it when results change."""

REQUEST, DIGESTS = "run.json", "digests.json"
"""The first file of a run and the last one."""

SCORES, VALID_SCORES = "out_of_fold.npy", "valid_scores.npy"
"""Out-of-fold scores of train, and scores of valid by a head that had not yet learnt from it."""

MEMBERS = "members"
"""Folder of an ensemble with copies of its runs, so that it needs nothing else but the stores."""

SEAL = "seal"
"""Key of the digest that a JSON file has of itself."""

_T = TypeVar("_T")


class FileDigest(TypedDict):
    """What a file of a run must be."""

    bytes: int
    sha256: str


class Digests(TypedDict):
    """What ``digests.json`` holds."""

    format: int
    files: dict[str, FileDigest]
    """By name. Of a member of an ensemble there is the file of its own digests."""


@dataclass(frozen=True)
class RunFiles:
    """The files of a finished run.

    Parameters
    ----------
    folder : Path
    digests : mapping of str to FileDigest
        By name.
    """

    folder: Path
    digests: Mapping[str, FileDigest]

    @classmethod
    def open(cls, folder: Path) -> "RunFiles":
        """Read the digests of a run.

        Raises
        ------
        RunError
            There is no run, or it is unfinished, damaged or of another version.
        """
        digests: Digests | None = None
        try:
            digests = read_sealed(folder / DIGESTS, Digests)
        except DamagedFileError as error:
            raise damaged(folder, error) from error
        except OSError:  # it is missing, or the folder cannot be read
            pass
        version = digests["format"] if digests else find_version(folder)
        if version not in (None, FORMAT):
            found = f"a run of another version ({version}), expected {FORMAT}; make it again"
            raise RunError(f"{folder}: {found} with `make head RUN={folder}`")
        if digests is None:
            raise RunError(f"{folder}: no finished run in it; make it with `make head RUN={folder}`")
        return cls(folder, digests["files"])

    def check(self, name: str) -> Path:
        """The path of a file, once its bytes have been checked.

        Raises
        ------
        DamagedFileError
            It is not one of the run's, or not what was written.
        OSError
            It cannot be read.
        """
        if name not in self.digests:
            raise DamagedFileError(f"{name} is not one of its files")
        path = self.folder / name
        if digest_plain(path, self.digests[name]["bytes"]) != self.digests[name]["sha256"]:
            raise DamagedFileError(f"{name} is not what was written")
        return path

    def read_json(self, name: str, kind: type[_T]) -> _T:
        """Check and read a JSON file; see `cache.support.json_file.read_json`.

        Raises
        ------
        RunError
            It is missing, damaged, or holds something else.
        """
        try:
            return read_json(self.check(name), kind)
        except (DamagedFileError, OSError) as error:
            raise damaged(self.folder, describe_error(error)) from error

    def open_member(self, name: str) -> Path:
        """The folder of a member of an ensemble, once it is known to be the one that was copied.

        Raises
        ------
        DamagedFileError
            It is another one, or lies elsewhere.
        OSError
            It is missing.
        """
        folder = self.folder / MEMBERS / name
        if name in ("", "..") or Path(name).name != name or folder.is_symlink() or folder.parent.is_symlink():
            raise DamagedFileError(f"member {name!r} lies elsewhere")
        self.check(f"{MEMBERS}/{name}/{DIGESTS}")
        return folder

    def is_whole(self) -> bool:
        """Whether every file is there, byte for byte, those of members included."""
        try:
            for name in self.digests:
                self.check(name)
            members = [Path(name).parent.name for name in self.digests if name.startswith(f"{MEMBERS}/")]
            return all(RunFiles.open(self.open_member(name)).is_whole() for name in members)
        except (DamagedFileError, OSError, RunError):
            return False


def write_digests(folder: Path) -> None:
    """Write the digests of all files of a run, which shows that it is finished."""
    paths = [path for path in folder.iterdir() if path.is_file() and path.name not in (DIGESTS, SCORES, VALID_SCORES)]
    paths += (folder / MEMBERS).glob(f"*/{DIGESTS}")
    files: dict[str, FileDigest] = {}
    for path in sorted(paths):
        n_bytes = path.stat().st_size
        files[path.relative_to(folder).as_posix()] = {"bytes": n_bytes, "sha256": digest_plain(path, n_bytes)}
    write_sealed(folder / DIGESTS, {"format": FORMAT, "files": files})


def find_version(folder: Path) -> int | None:
    """The version of the run in a folder, finished or not; None if there is no run.

    Any of its two marks is enough: a folder must not be taken for a stranger's because one file of it is damaged.
    """
    for name in (REQUEST, DIGESTS):
        try:
            found = read_json(folder / name, dict[str, Any]).get("format")
        except (DamagedFileError, OSError):
            continue
        if isinstance(found, int):
            return found
    return None


def damaged(folder: Path, why: object) -> RunError:
    """The error of a run that is there and cannot be used."""
    return RunError(f"{folder}: a damaged run ({why}); train it again with `make head`")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an error while a file of a run is written into one line that says what to do.

    Raises
    ------
    RunError
        The disk is full, the folder is read-only, a limit is reached.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or describe_error(error)
        raise RunError(
            f"{folder}: cannot be written ({why}); what was finished before is as it was: make room or name another "
            "RUN, then run the same command again"
        ) from error


def digest_plain(path: Path, n_bytes: int | None = None) -> str:
    """SHA-256 of a file, as hexadecimal digits.

    A link is not followed, because a run holds its own files. A pipe or a device, which may never end, is not read.

    Parameters
    ----------
    path : Path
    n_bytes : int, optional
        Its size. A file of another size is not read.

    Raises
    ------
    DamagedFileError
        It is not a plain file of that size.
    OSError
        It cannot be read.
    """
    if "\0" in str(path):
        raise DamagedFileError("a name that no file can have")
    if path.is_symlink():
        raise DamagedFileError(f"{path.name} is a link, expected a file")
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
        require_plain(file, path, n_bytes)
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_plain(file: BinaryIO, path: Path, n_bytes: int | None) -> None:
    """Raise a DamagedFileError if an open file is not a plain one of that size."""
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        raise DamagedFileError(f"{path.name} is not a file")
    if n_bytes not in (None, found.st_size):
        raise DamagedFileError(f"{path.name} has {found.st_size:,} bytes, expected {n_bytes:,}")


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file with a digest of itself."""
    write_text(path, json.dumps(dict(content) | {SEAL: _seal(content)}, indent=1))


def read_sealed(path: Path, kind: type[_T]) -> _T:
    """Read what `write_sealed` wrote.

    Raises
    ------
    DamagedFileError
        It is not what was written, or holds something else.
    OSError
        It cannot be read.
    """
    if path.is_symlink() or not path.is_file():
        raise FileNotFoundError(path)
    found = read_json(path, dict[str, Any])
    seal = found.pop(SEAL, None)
    if seal != _seal(found):
        raise DamagedFileError(f"{path.name} is not what was written")
    return check_type(found, kind)


def _seal(content: Mapping[str, Any]) -> str:
    try:
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    except RecursionError:
        raise DamagedFileError("brackets within brackets without end") from None
