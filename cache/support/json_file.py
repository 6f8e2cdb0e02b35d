"""Read a JSON file that may be damaged or a stranger's: no size is believed, and every value has the expected type."""

import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec

MAX_JSON_BYTES = 1 << 26
"""Longest file that is read, in bytes (64 MiB). JSON takes about ten times as much in memory."""

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
    with open(path, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise DamagedFileError(f"{path.name} is longer than {max_bytes:,} bytes")
    try:
        return check_type(json.loads(content.decode("utf-8")), kind)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path.name}: {error}") from None


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
