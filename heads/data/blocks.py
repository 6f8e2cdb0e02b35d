"""Blocks of rows, so that temporary arrays stay small."""

from collections.abc import Iterator

from sklearn.utils import gen_batches


def split_rows(n_rows: int, size: int) -> Iterator[slice]:
    """Slices that cover all rows, at most `size` at a time.

    This is scikit-learn's `gen_batches`, except that there may be no rows.

    Examples
    --------
    >>> list(split_rows(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    >>> list(split_rows(0, 2))
    []
    """
    return gen_batches(n_rows, size) if n_rows else iter(())
