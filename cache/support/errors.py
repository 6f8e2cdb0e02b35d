"""Errors that the user can fix, as opposed to bugs.

    UserError
    ├── DataError           an image, a label file, a submission or the data folder is at fault
    ├── ParameterError      an option or a parameter has a value that it cannot have (a ValueError, too)
    ├── StoreError          a feature store, or a file beside it, is missing, damaged or of another kind
    ├── RunError            a run's folder is missing, unfinished, damaged or of another kind
    └── NotInstalledError   an optional package is missing

Commands print the message of a `UserError` on one line and end with status 1. Any other exception is a bug and keeps
its traceback.
"""


class UserError(Exception):
    """Something that the user can fix.

    The message is one line: what was found, what was expected, what to do.
    """


class DataError(UserError):
    """An image, a label file, a submission or the data folder is at fault."""


class ParameterError(UserError, ValueError):
    """An option or a parameter has a value that it cannot have.

    It is a ValueError too, because that is what scikit-learn's tools expect of an estimator.
    """


class StoreError(UserError):
    """A feature store, or a file beside it, is missing, damaged or of another kind."""


class RunError(UserError):
    """A run's folder is missing, unfinished, damaged or of another kind."""


class NotInstalledError(UserError):
    """An optional package is missing; the message holds the line that installs it."""
