"""How library code speaks: what was done goes to a logger, what is odd is a warning. Nothing here prints.

A notebook sees both with ``logging.basicConfig(level="INFO")``; commands print them, see `cache.support.command`.
"""

import logging
import warnings

logger = logging.getLogger("radconcepts")
"""What was done, one line each, at level INFO."""


class DataWarning(UserWarning):
    """Something about the data or the result that the user should know."""


def report(line: str) -> None:
    """Log what was done."""
    logger.info("%s", line)


def warn(line: str) -> None:
    """Warn about something odd, at the line of whoever called the function that found it."""
    warnings.warn(line, DataWarning, stacklevel=3)
