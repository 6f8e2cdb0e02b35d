"""Checks of what users pass to heads: indicator matrices and parameters."""

import math
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.support.errors import ParameterError


def check_indicator(Y: Any) -> scipy.sparse.csr_matrix:
    """Check that labels are an indicator matrix.

    Parameters
    ----------
    Y : array or sparse matrix of {0, 1}, shape (n_images, n_concepts)

    Returns
    -------
    sparse matrix of float32, shape (n_images, n_concepts)
        A new one, in canonical format and without stored zeros.

    Raises
    ------
    ParameterError
        Y is no such matrix.

    Examples
    --------
    >>> check_indicator([[0, 2]])
    Traceback (most recent call last):
    cache.support.errors.ParameterError: Unknown label type: Y has values other than 0 and 1. \
Only binary classification is supported.
    """
    # scikit-learn's checks of estimators look for the words of this message and of the next one.
    if Y is None:
        raise ParameterError("a head requires y to be passed, but the target y is None")
    values = Y if scipy.sparse.issparse(Y) else np.asarray(Y)
    stored = values.data if scipy.sparse.issparse(values) else values
    if not np.all((stored == 0) | (stored == 1)):
        raise ParameterError(
            "Unknown label type: Y has values other than 0 and 1. Only binary classification is supported."
        )
    if values.ndim != 2:
        raise ParameterError(f"Y has shape {values.shape}, expected one row per image and one column per concept")
    if values.shape[1] == 0:
        raise ParameterError("Y has no column, expected at least one concept")
    indicator = scipy.sparse.csr_matrix(values, dtype=np.float32)
    if (indicator.data == 1).all() and indicator.has_canonical_format:
        return indicator
    indicator = indicator.copy()
    indicator.sum_duplicates()
    indicator.eliminate_zeros()
    return indicator


def positive_rate(Y: scipy.sparse.csr_matrix) -> NDArray[np.float32]:
    """Share of positive images of each concept, shape (n_concepts,).

    >>> positive_rate(scipy.sparse.csr_matrix([[1, 0], [1, 1]]))
    array([1. , 0.5], dtype=float32)
    """
    # Not a mean in float32, which can miss 1 for a concept that is in every image.
    rate: NDArray[np.float64] = np.asarray(Y.sum(axis=0, dtype=np.float64)).ravel() / Y.shape[0]
    return rate.astype(np.float32)


def _is_finite(value: float, kind: type) -> bool:
    """Whether a number is finite; as a float, which a whole number may be too large for, where that is expected."""
    try:
        return kind is int or math.isfinite(value)
    except OverflowError:
        return False


def check_number(
    value: object, name: str, kind: type, minimum: float, maximum: float = np.inf, closed: str = "both"
) -> None:
    """Check that a parameter is a number in a range.

    Parameters
    ----------
    value : object
        Infinity and NaN are in no range.
    name : str
        The parameter's name, for the message.
    kind : {int, float}
        ``float`` allows whole numbers too. True and False are neither.
    minimum, maximum : float
    closed : {"both", "left", "right", "neither"}
        Which ends belong to the range, as in scikit-learn.

    Raises
    ------
    ParameterError
        It is not.

    Examples
    --------
    >>> check_number(1.0, "dropout", float, 0, 1, closed="left")
    Traceback (most recent call last):
    cache.support.errors.ParameterError: dropout is 1.0, expected a number of at least 0 and below 1
    """
    has_minimum, has_maximum = closed in ("both", "left"), closed in ("both", "right")
    kinds = int if kind is int else (int, float)
    if isinstance(value, kinds) and not isinstance(value, bool) and _is_finite(value, kind):
        above = value >= minimum if has_minimum else value > minimum
        below = value <= maximum if has_maximum else value < maximum
        if above and below:
            return
    expected = (
        f"a {'whole number' if kind is int else 'number'} {'of at least' if has_minimum else 'above'} {minimum:,}"
    )
    if np.isfinite(maximum):
        expected += f" and {'at most' if has_maximum else 'below'} {maximum:,}"
    raise ParameterError(f"{name} is {_cut(repr(value))}, expected {expected}")


def _cut(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
