"""How library code talks to its user: it logs what was done, and warns about what is odd. It never prints.

A notebook shows warnings always, and reports after ``logging.basicConfig(level="INFO")``. Commands print both, see
`cache.support.command`.
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
    """Warn about something odd. The warning points at the caller of the function that calls this."""
    warnings.warn(line, DataWarning, stacklevel=3)
