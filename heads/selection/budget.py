"""The time that a search may take, and how long its trials are expected to take."""

import math
import re
import time
from typing import TYPE_CHECKING

from cache.support.errors import ParameterError

if TYPE_CHECKING:
    from heads.selection.choice import Candidate, Trial

_SHORT = 1e-9
"""Seconds per image of a trial that took no time at all."""

_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}


class Budget:
    """The time that a search may take.

    Parameters
    ----------
    seconds : float
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self._start = seconds, read_clock()

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read a time such as ``30m``, ``2h`` or ``90s``.

        Raises
        ------
        ParameterError
            It is none.

        Examples
        --------
        >>> Budget.parse("1.5h").seconds
        5400.0
        """
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
        if not found or found[2] not in _UNITS or float(found[1]) == 0:
            raise ParameterError(f"budget '{text}', expected a time such as 90s, 30m or 2h")
        return cls(float(found[1]) * _UNITS[found[2]])

    @property
    def used(self) -> float:
        """Seconds since the start."""
        return read_clock() - self._start

    def allows(self, seconds: float, share: float) -> bool:
        """Whether work of so many seconds would end within a share of the budget."""
        return self.used + seconds <= share * self.seconds

    def __str__(self) -> str:
        return f"{format_clock(max(0.0, self.seconds - self.used))} of {format_clock(self.seconds)} left"


class Pace:
    """How long each head takes, learnt from its trials: in proportion to images, and to a power of the features."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[int, float]] = {}

    def add(self, trial: "Trial", n_images: int) -> None:
        """Learn from a trial on so many images."""
        self._seen.setdefault(trial.candidate.head, {})[trial.candidate.n_features] = trial.seconds / n_images

    def expect(self, candidate: "Candidate", n_images: int) -> float:
        """The seconds that a trial will take; 0 for a head that was not tried.

        The power is what trials on fewer features show, at least 1 and at most 3, as of a decomposition.
        """
        seen = self._seen.get(candidate.head)
        if not seen:
            return 0.0
        widest = max(seen)
        powers = [
            math.log(max(seen[widest], _SHORT) / max(seconds, _SHORT)) / math.log(widest / width)
            for width, seconds in seen.items()
            if width < widest
        ]
        power = min(max(1.0, *powers), 3.0) if powers else 1.0
        seconds: float = n_images * seen[widest] * (candidate.n_features / widest) ** power
        return seconds


def read_clock() -> float:
    """Seconds of a clock that is never set back."""
    return time.monotonic()


def format_clock(seconds: float) -> str:
    """Minutes and seconds.

    >>> format_clock(90.4)
    '1:30'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
