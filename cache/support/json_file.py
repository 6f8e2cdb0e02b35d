"""Read JSON that may be damaged or a stranger's: no size is believed, and every value has the expected type.

A text that only this project reads is sealed: it has the digest of its content, and is parsed only if that is right.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

MAX_JSON_BYTES = 1 << 26
"""Longest file that is read, in bytes (64 MiB). JSON takes about ten times as much in memory."""

_SEALED = re.compile(rb'\{"sha256": "([0-9a-f]{64})", "content": (.*)\}\n')

_T = TypeVar("_T")


class DamagedFileError(ValueError):
    """A file is not what it should be; the message says how."""


def read_json(path: Path, kind: type[_T], max_bytes: int = MAX_JSON_BYTES) -> _T:
    """Read a JSON file.

    Parameters
    ----------
    path : Path
    kind : type
        What the file must hold, such as ``dict[str, str]`` or a TypedDict. A TypedDict may have more keys in the file
        than it declares.
    max_bytes : int
        A longer file is not read.

    Returns
    -------
    object
        Of the type `kind`.

    Raises
    ------
    DamagedFileError
        The file is too long, is not JSON, or holds something else.
    OSError
        It cannot be read.
    """
    content = read_bytes(path, max_bytes)
    try:
        return parse_json(content, kind)
    except DamagedFileError as error:
        raise DamagedFileError(f"{path.name}: {error}") from None


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read a file that has at most `max_bytes`.

    Raises
    ------
    DamagedFileError
        It is longer, or not a regular file.
    OSError
        It cannot be read.
    """
    if path.exists() and not path.is_file():
        raise DamagedFileError(f"{path.name} is not a file")  # opening a pipe would never end
    with open(path, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise DamagedFileError(f"{path.name} is longer than {max_bytes:,} bytes")
    return content


def parse_json(content: str | bytes, kind: type[_T]) -> _T:
    """Parse a text that is JSON, as `read_json` does a file.

    Raises
    ------
    DamagedFileError
        The text is not JSON, or holds something else.

    Examples
    --------
    >>> parse_json('{"a": 1}', dict[str, int])
    {'a': 1}
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        return check_type(json.loads(text), kind)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(str(error)) from None


def seal_json(value: object) -> bytes:
    """JSON in one line, with the digest of its content in front.

    >>> seal_json([1])
    b'{"sha256": "080a9ed428559ef602668b4c00f114f1a11c3f6b02a435f0bdc154578e4d7f22", "content": [1]}\\n'
    """
    content = json.dumps(value)
    return f'{{"sha256": "{hashlib.sha256(content.encode()).hexdigest()}", "content": {content}}}\n'.encode()


def parse_sealed_json(line: bytes, kind: type[_T]) -> _T:
    """Parse what `seal_json` made; its digest is checked first.

    Raises
    ------
    DamagedFileError
        A byte is another, or the content is of another type.
    """
    found = _SEALED.fullmatch(line)
    if not found or hashlib.sha256(found[2]).hexdigest().encode() != found[1]:
        raise DamagedFileError("its content is not what its digest says")
    return parse_json(found[2], kind)


def check_type(value: Any, kind: type[_T]) -> _T:
    """Check that a value, which came from JSON, is of a type.

    Raises
    ------
    DamagedFileError
        It is not; the message says where.

    Examples
    --------
    >>> check_type({"a": [1]}, dict[str, list[str]])
    Traceback (most recent call last):
    cache.support.json_file.DamagedFileError: Expected `str`, got `int` - at `$[...][0]`
    """
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise DamagedFileError(str(error)) from None
