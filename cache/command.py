"""How every command line of the project ends: a result, or one line that says what to do."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cache.errors import UserError


def run_command(name: str, command: Callable[[], None], *faults: type[Exception]) -> int:
    """Run a command and turn what is the user's to mend into one line.

    Parameters
    ----------
    name : str
        What stands in front of the line, such as ``featurize``.
    command : callable
        Does the work; takes nothing and returns nothing.
    *faults : exception types
        What counts as the user's fault besides `UserError` and `OSError` (a full disk, a missing file, a
        folder without permission).

    Returns
    -------
    int
        The exit status: 0 done, 1 the user's data or request is at fault, 130 interrupted.
    """
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output went away (`| head`); what remains has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UserError, OSError, *faults) as error:  # type: ignore[misc]
        print(f"{name}: error: {one_line(error)}", file=sys.stderr)
        return 1
    except MemoryError:
        print(f"{name}: error: not enough memory; close other programs, or use fewer processes", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on from what is finished", file=sys.stderr)
        return 130
    return 0


def one_line(error: BaseException) -> str:
    """Say an exception in one line.

    >>> one_line(ValueError("two\\n  lines"))
    'two lines'
    >>> one_line(OSError(28, "No space left on device", "data/store.h5"))
    'data/store.h5: No space left on device'
    """
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{os.fspath(error.filename)}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


class Interrupts:
    """Ctrl-C, and a scheduler's request to end, as a `KeyboardInterrupt` that cannot get lost.

    Native code that calls back into Python may swallow an exception. Whoever works in a loop calls `check`, which
    raises it again.
    """

    def __init__(self) -> None:
        self._seen = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if one has been asked for."""
        if self._seen:
            raise KeyboardInterrupt

    def _note(self, *args: object) -> None:
        self._seen = True
        raise KeyboardInterrupt


@contextmanager
def muted_imports() -> Iterator[None]:
    """Mute what native code writes to standard error while a large library is imported.

    TensorFlow greets before it reads its own log level (tensorflow/tensorflow#100442). What goes wrong still
    arrives: it is raised.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
