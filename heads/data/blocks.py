"""Blocks of rows, so that temporary arrays stay small."""

from collections.abc import Iterator


def split_rows(n_rows: int, size: int) -> Iterator[slice]:
    """Slices that cover all rows, at most `size` at a time.

    Examples
    --------
    >>> list(split_rows(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    >>> list(split_rows(0, 2))
    []
    """
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))
