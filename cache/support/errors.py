"""What is the user's to mend, told apart from what is ours."""


class UserError(Exception):
    """The data or the request is at fault.

    The message is one line: what was found, what was expected, what to do. Commands print it to standard
    error and end with status 1; anything else that escapes is a bug and keeps its traceback.
    """


def some(names: list[str], limit: int = 3) -> str:
    """Name the first few of a list, and say how many more there are.

    >>> some(["a", "b"])
    'a, b'
    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest:,} more" if rest > 0 else "")
