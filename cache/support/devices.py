"""What the machine computes with: whether it has a GPU, and which arithmetic is fast on it.

Nothing here loads TensorFlow, which takes seconds. Callers ask it for details only where there is a device.
"""

from collections.abc import Iterable
from pathlib import Path

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
"""Precisions, and Keras' dtype policy for each: layers compute in the precision, their weights stay float32."""

MATRIX_UNITS = {"bfloat16": (8, 0), "float16": (7, 0)}
"""Compute capability from which a GPU has matrix units for a type, the better type first (NVIDIA's guide to mixed
precision)."""

_DEVICE_FOLDER = Path("/dev")


def has_nvidia_device() -> bool:
    """Whether the system has an NVIDIA GPU."""
    return any(_DEVICE_FOLDER.glob("nvidia[0-9]*"))


def find_fastest_precision(capabilities: Iterable[tuple[int, int]]) -> str:
    """The fastest arithmetic that every GPU has matrix units for.

    Parameters
    ----------
    capabilities : iterable of tuple of int
        The compute capability of each GPU; empty where there is none.

    Returns
    -------
    str
        One of `POLICIES`.

    Examples
    --------
    >>> find_fastest_precision([(9, 0), (8, 0)]), find_fastest_precision([(9, 0), (7, 5)]), find_fastest_precision([])
    ('bfloat16', 'float16', 'float32')
    """
    lowest = min(capabilities, default=(0, 0))
    return next((precision for precision, first in MATRIX_UNITS.items() if lowest >= first), "float32")
