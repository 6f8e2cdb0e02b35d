"""What is the user's to mend, told apart from what is ours."""


class UserError(Exception):
    """A file or the request is at fault; one line: what was found, what was expected, what to do."""


def some(names: list[str], limit: int = 3) -> str:
    """Name the first few of a list, and say how many more there are.

    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest:,} more" if rest > 0 else "")


def shown(text: str, limit: int = 60) -> str:
    r"""Text from a file as it may stand in a message: quoted, on one line, not too long.

    >>> shown("a1"), shown("a\nb")
    ("'a1'", "'a\\nb'")
    """
    return repr(text if len(text) <= limit else text[:limit] + "…")


def one_line(text: str) -> str:
    r"""A message on one line, whatever names are in it.

    >>> one_line("a folder\nof mine/é.csv")
    'a folder\\nof mine/é.csv'
    """
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def count(number: int, noun: str) -> str:
    """A number of things.

    >>> count(1, "row"), count(1234, "row")
    ('1 row', '1,234 rows')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
