"""How every command line of the project ends: a result, or one line that says what to do."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cache.support.errors import UserError

_asked_to_end = threading.Event()


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
        with _noting_interrupts():
            command()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output went away (`| head`); what remains has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except BaseException as error:
        return _end_badly(name, error, faults)
    return 0


def _end_badly(name: str, error: BaseException, faults: tuple[type[Exception], ...]) -> int:
    """Say what ended a command in one line; what is a bug is raised again."""
    # Native code makes anything of an interrupt.
    if isinstance(error, KeyboardInterrupt) or _asked_to_end.is_set():
        print(f"{name}: interrupted; the same command goes on from what is finished", file=sys.stderr)
        return 130
    if isinstance(error, MemoryError):
        print(f"{name}: error: not enough memory; close other programs, or use fewer processes", file=sys.stderr)
        return 1
    if isinstance(error, (UserError, OSError, *faults)):
        print(f"{name}: error: {one_line(error)}", file=sys.stderr)
        return 1
    raise error


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


def check_interrupted() -> None:
    """Raise `KeyboardInterrupt` if the command was asked to end.

    Whoever works in a loop calls this: native code that calls back into Python may have swallowed the exception.
    """
    if _asked_to_end.is_set():
        raise KeyboardInterrupt


@contextmanager
def _noting_interrupts() -> Iterator[None]:
    """Note Ctrl-C, and a scheduler's request to end, besides raising `KeyboardInterrupt`."""

    def note(*args: object) -> None:
        _asked_to_end.set()
        raise KeyboardInterrupt

    _asked_to_end.clear()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def muted_imports() -> Iterator[None]:
    """Mute what native code writes to standard error while a large library is imported.

    TensorFlow greets before it reads its own log level (tensorflow/tensorflow#100442). What goes wrong still
    arrives: it is raised.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with muted():
        yield


@contextmanager
def muted() -> Iterator[None]:
    """Mute what this process writes to standard error, native code included."""
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
