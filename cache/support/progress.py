"""Progress on standard error: a bar with rate and time left on a terminal, a line now and then elsewhere.

It is shown where reports are shown: in commands, and in a notebook that has set the logger to level INFO.
"""

import datetime
import logging
import sys
import time

from tqdm import tqdm

from cache.support.command import print_line
from cache.support.reporting import logger

LINE_SECONDS = 30.0
"""Seconds between two lines in a log file."""


class Progress:
    """The number of images, or other units, that are done, out of a total.

    Parameters
    ----------
    total : int
        How many there are to do.
    label : str
        What is being done, such as ``comparing``.
    unit : str
        What is counted, in the plural.
    """

    def __init__(self, total: int, label: str, unit: str = "images") -> None:
        self._is_shown = logger.isEnabledFor(logging.INFO)
        self._bar = tqdm(
            total=total,
            desc=label,
            unit=f" {unit}",
            smoothing=0.1,
            disable=not (self._is_shown and sys.stderr.isatty()),
        )
        self._total, self._label, self._unit, self._done = total, label, unit, 0
        self._started = self._last_line = time.monotonic()

    def add(self, n_done: int, note: str = "") -> None:
        """Count some more.

        Parameters
        ----------
        n_done : int
            How many have been done since the last call.
        note : str
            Printed at the end, such as where the time goes.
        """
        self._done += n_done
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(n_done)
        now = time.monotonic()
        if self._is_shown and self._bar.disable and self._done and now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            rate = self._done / (now - self._started)
            left = datetime.timedelta(seconds=round((self._total - self._done) / rate))
            print_line(
                f"{self._label}: {self._done:,} of {self._total:,}, {rate:,.1f} {self._unit}/s, {left} left"
                f"{f'; {note}' if note else ''}",
                sys.stderr,
            )

    def reach(self, n_done: int) -> None:
        """Set how many are done in all."""
        self.add(n_done - self._done)

    def close(self) -> float:
        """End the display; returns the seconds since the start."""
        self._bar.close()
        return time.monotonic() - self._started
