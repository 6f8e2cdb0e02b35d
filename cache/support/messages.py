"""Parts of messages: lists, counts, shapes and quoted text, always on one line."""

import os
from collections.abc import Sequence


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first few items of a list, and how many more there are.

    >>> some(["a", "b"])
    'a, b'
    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest:,} more" if rest > 0 else "")


def count(number: int, noun: str) -> str:
    """A number with its noun, in the plural where needed.

    >>> count(1, "row"), count(1234, "row")
    ('1 row', '1,234 rows')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def describe_shape(shape: Sequence[int]) -> str:
    """The sides of an array.

    >>> describe_shape((28, 1024))
    '28 x 1,024'
    """
    return " x ".join(f"{side:,}" for side in shape)


def quote(text: str, limit: int = 60) -> str:
    r"""Quote text from a file for a message: on one line, cut after `limit` characters.

    >>> quote("a1"), quote("a\nb")
    ("'a1'", "'a\\nb'")
    """
    return repr(text if len(text) <= limit else text[:limit] + "…")


def one_line(text: str) -> str:
    r"""Escape what would break a line or command a terminal: line ends, control characters, changes of direction.

    >>> one_line("a folder\nof mine/é.csv")
    'a folder\\nof mine/é.csv'
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def describe_error(error: BaseException) -> str:
    """The message of an exception on one line, or the name of its type if it has no message.

    >>> describe_error(ValueError("two\\n  lines"))
    'two lines'
    >>> describe_error(OSError(28, "No space left on device", "data/store.h5"))
    'data/store.h5: No space left on device'
    """
    if isinstance(error, OSError) and error.strerror and error.filename:
        return one_line(f"{os.fsdecode(error.filename)}: {error.strerror}")
    # The messages of libraries may have several lines.
    return one_line(" ".join(str(error).split())) or type(error).__name__
