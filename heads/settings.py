"""Settings of the command line: ``KEY=VALUE`` and ``KEY=VALUE,VALUE``.

A value is JSON where it can be, such as ``0.1``, ``true`` or ``[64,32]``, and text otherwise.
"""

import json
from collections.abc import Sequence
from math import isfinite
from typing import Any, NoReturn

from cache.support.errors import ParameterError


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Read the settings of ``--set``. Numbers with commas between them are a list.

    Raises
    ------
    ParameterError
        A setting is not ``KEY=VALUE``, or a number is not finite.

    Examples
    --------
    >>> parse_settings(["hidden=512,64", "loss=asymmetric", "C=0.1"])
    {'hidden': [512, 64], 'loss': 'asymmetric', 'C': 0.1}
    """
    return {key: _parse_setting(text) for key, text in _split_pairs(pairs, "--set", "hidden=512")}


def parse_grid(pairs: Sequence[str]) -> dict[str, list[Any]]:
    """Read the settings of ``--grid``, each with the values of a parameter.

    Raises
    ------
    ParameterError
        A setting is not ``KEY=VALUE,VALUE``, or a number is not finite.

    Examples
    --------
    >>> parse_grid(["C=0.01,0.1", "hidden=[64],[64,32]"])
    {'C': [0.01, 0.1], 'hidden': [[64], [64, 32]]}
    """
    return {key: _parse_values(text) for key, text in _split_pairs(pairs, "--grid", "C=0.001,0.01,0.1")}


def _split_pairs(pairs: Sequence[str], option: str, example: str) -> list[tuple[str, str]]:
    split = [pair.partition("=") for pair in pairs]
    odd = ["".join(parts) for parts in split if not parts[0] or not parts[1]]
    if odd:
        raise ParameterError(f"{option} '{odd[0]}': expected KEY=VALUE, such as {example}")
    return [(key, value) for key, _, value in split]


def _parse_setting(text: str) -> Any:
    values = _parse_values(text)
    are_numbers = all(isinstance(value, int | float) for value in values)
    return values if len(values) > 1 and are_numbers else _parse_value(text)


def _parse_values(text: str) -> list[Any]:
    """Values with commas between them. Commas within brackets belong to a list, which is one value."""
    values = _parse_value(f"[{text}]")
    return values if isinstance(values, list) else [_parse_value(each) for each in text.split(",")]


def _parse_value(text: str) -> Any:
    """Read JSON; what is not JSON is text."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_finite)
    except ParameterError:
        raise
    except (ValueError, RecursionError):
        return text


def _parse_finite(text: str) -> float:
    return float(text) if isfinite(float(text)) else _refuse_constant(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ParameterError(f"--set: {name} is not a value; expected a finite number, true, false, null or text")
