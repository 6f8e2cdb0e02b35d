"""Digests of files that have not changed since they were last read, so that they need not be read again.

A file counts as unchanged if its size, times and inode are; git's index decides in the same way. The time of the last
change (ctime) cannot be set by ordinary means. A file that changed within two seconds of being read is read again next
time, because the clock may be too coarse to show a second change. A file on another machine counts as unchanged if its
size and its ETag are, or what its file system has of the kind; where there is none, it is read each time.

The memo may be lost at any time: it only saves reading. So it is sealed, and one with a wrong byte counts as none.
"""

import contextlib
import hashlib
import re
import time
from pathlib import Path

from cache.remote_path import AnyPath, RemotePath
from cache.support.errors import UserError
from cache.support.files import digest_file, replacing
from cache.support.json_file import parse_sealed_json, read_bytes, seal_json

QUIET_NS = 2_000_000_000
"""How long a file must have been unchanged for its digest to be remembered, in nanoseconds."""

MAX_MEMO_BYTES = 1 << 28
"""Longest memo that is read, in bytes (256 MiB): that of a million images."""

_Known = tuple[str, int, int, int, int, int]
"""A digest, and the marks by which an unchanged file is recognised."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


def digest_any(path: AnyPath) -> bytes:
    """SHA-256 of a file here or on another machine (32 bytes).

    Raises
    ------
    OSError
        The file cannot be read.
    """
    return hashlib.sha256(path.read_bytes()).digest() if isinstance(path, RemotePath) else digest_file(path)


class DigestMemo:
    """Digests of files by path, saved beside a store.

    Parameters
    ----------
    store : Path
        The store; the memo is ``.STORE.seen.json`` beside it.
    """

    def __init__(self, store: Path) -> None:
        self._path = store.with_name(f".{store.name}.seen.json")
        self._known: dict[str, _Known] = {}
        self._used: set[str] = set()
        self._changed = False
        with contextlib.suppress(OSError, ValueError):
            self._known = parse_sealed_json(read_bytes(self._path, MAX_MEMO_BYTES), dict[str, _Known])

    def digest(self, path: AnyPath) -> bytes:
        """SHA-256 of a file's bytes (32 bytes), remembered or computed.

        Raises
        ------
        OSError
            The file cannot be read.
        """
        marks, is_steady = _find_marks(path)
        key = str(path.absolute())
        self._used.add(key)
        known = self._known.get(key)
        if known and known[1:] == marks and _DIGEST.fullmatch(known[0]):
            return bytes.fromhex(known[0])
        digest = digest_any(path)
        if is_steady:
            self._known[key] = (digest.hex(), *marks)
            self._changed = True
        return digest

    def save(self) -> None:
        """Save new digests, if the folder can be written to."""
        if not self._changed:
            return
        try:
            with replacing(self._path) as temporary:
                # Files whose digest was not used are gone, or belong to another folder.
                temporary.write_bytes(seal_json({key: self._known[key] for key in self._used if key in self._known}))
        except (OSError, UserError):
            return  # a store on a read-only file system can still be used
        self._changed = False


def _find_marks(path: AnyPath) -> tuple[tuple[int, int, int, int, int], bool]:
    """The marks of a file, and whether they would be others if it had changed since."""
    if isinstance(path, RemotePath):
        mark = int.from_bytes(hashlib.sha256(path.mark.encode()).digest()[:7])
        return (path.size, mark, 0, 0, 0), bool(path.mark)
    state = path.stat()
    is_quiet = time.time_ns() - max(state.st_ctime_ns, state.st_mtime_ns) > QUIET_NS
    return (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_dev, state.st_ino), is_quiet
