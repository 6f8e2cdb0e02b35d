"""Images of which only trying tells what they cost: they are decoded in a process that may take only so much.

Nearly all images need no guard. It is for compressions whose decoders believe a damaged stream, and for whatever met a
lack of memory.
"""

from collections.abc import Callable
from typing import Any

from featurize.limited_process import call_limited

SECONDS, SECONDS_PER_MB = 3, 2
"""Most processor time, and more for each megabyte of the file: a tenth of the speed of the slowest decoder."""

MAX_BYTES = 1_250_000_000
"""Most memory. It is twice what a radiograph of 30 megapixels needs, and is reached only by damage or an attack."""

_is_guarded = False


class GuardRequiredError(Exception):
    """An image must be decoded in the guarded process; `decode` does so."""


def is_guarded() -> bool:
    """Whether this is the guarded process."""
    return _is_guarded


def require_guard() -> None:
    """Go on only in the guarded process.

    Raises
    ------
    GuardRequiredError
        This is another process.
    """
    if not _is_guarded:
        raise GuardRequiredError


def call_guarded(function: Callable[..., Any], data: bytes, *args: Any) -> Any:
    """Decode an image in the guarded process.

    Parameters
    ----------
    function : callable
        A function of a module.
    data : bytes
        The content of the file, its first argument.
    *args : object
        Its other arguments.

    Raises
    ------
    LimitError
        It takes too much time or memory, or it crashes.
    MemoryError
        The machine does not have the memory that an image may take.
    Exception
        Whatever the function raises.
    """
    seconds = SECONDS + SECONDS_PER_MB * -(-len(data) // 10**6)
    return call_limited(_call, function, data, *args, seconds=seconds, n_bytes=MAX_BYTES)


def _call(function: Callable[..., Any], *args: Any) -> Any:
    global _is_guarded
    _is_guarded = True
    return function(*args)
