"""Attributes of a DICOM data set, any of which may be absent, empty or of another type than the standard says.

An attribute that may be absent is treated as absent if it is empty, of another type, or not a number.
"""

import math
from typing import Any


def find_values(dataset: Any, name: str) -> list[Any]:
    """Find the values of an attribute; none if it is absent, empty or cannot be converted."""
    try:
        value = dataset.get(name)
    except MemoryError:  # it says nothing of the attribute
        raise
    except Exception:  # damaged elements make pydicom fail in many ways
        return []
    if value is None or isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return [] if value in (None, "", b"") else [value]
    return list(value)


def find_numbers(dataset: Any, name: str) -> list[float]:
    """Find the numbers of an attribute, with NaN in place of any value that is not a finite number."""
    return [_to_number(value) for value in find_values(dataset, name)]


def find_number(dataset: Any, name: str) -> float | None:
    """Find the first number of an attribute."""
    first = find_numbers(dataset, name)[:1]
    return first[0] if first and not math.isnan(first[0]) else None


def find_integer(dataset: Any, name: str) -> int | None:
    """Find the first number of an attribute, if it is whole."""
    number = find_number(dataset, name)
    return int(number) if number is not None and number.is_integer() else None


def find_code(dataset: Any, name: str) -> str:
    """Find the first text of an attribute, in capitals and without padding; empty if there is none."""
    for value in find_values(dataset, name):
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        return " ".join(text.replace("\0", " ").split()).upper()
    return ""


def find_items(dataset: Any, name: str) -> list[Any]:
    """Find the items of a sequence that are data sets; none if the attribute is no sequence."""
    return [value for value in find_values(dataset, name) if hasattr(value, "get_item")]


def _to_number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan
