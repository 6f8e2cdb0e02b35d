"""How every command line of the project runs and ends: with a result, or with one line that says what to do."""

import argparse
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cache.support.errors import UserError
from cache.support.messages import describe_error, one_line
from cache.support.reporting import DataWarning, logger

TRACEBACK = "--traceback"

_interrupted = threading.Event()


def run_command(name: str, parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse a command line, run its command, and end with a result or one line that says what to do.

    What the library reports goes to standard output, its warnings go to standard error, one line each.

    Parameters
    ----------
    name : str
        What stands before warnings and errors, such as ``featurize``.
    parser : ArgumentParser
        Its arguments hold a ``command``, a callable that takes them.
    argv : sequence of str, optional
        The words of the command line; those of the process if not given.

    Returns
    -------
    int
        The exit status: 0 done, 1 the user's data or request is at fault, 130 interrupted.

    Raises
    ------
    Exception
        A bug; it keeps its traceback.
    """
    parser.add_argument(TRACEBACK, action="store_true", help="with an error, show where it comes from")
    words = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args([word for word in words if word != TRACEBACK])  # it may stand behind a subcommand, too
    try:
        with _noting_interrupts(), _reporting(name):
            args.command(args)
    except BrokenPipeError:
        return 0
    except BaseException as error:
        return _end_badly(name, error, TRACEBACK in words)
    finally:
        _flush_output()
    return 0


def _flush_output() -> None:
    """Write out what was printed; where its reader went away (``| head``), the rest has nowhere to go."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_badly(name: str, error: BaseException, with_traceback: bool) -> int:
    """Print why a command ended, on one line; a bug is raised again."""
    if with_traceback:
        raise error
    # Native code may turn an interrupt into any exception.
    if isinstance(error, KeyboardInterrupt) or _interrupted.is_set():
        print(f"{name}: interrupted; the same command goes on from what is finished", file=sys.stderr)
        return 130
    if isinstance(error, MemoryError):
        print(f"{name}: error: not enough memory; close other programs, or use fewer processes", file=sys.stderr)
        return 1
    if isinstance(error, UserError):
        print(f"{name}: error: {one_line(str(error))}", file=sys.stderr)
        return 1
    # A full disk, a missing file, a folder without permission.
    if isinstance(error, OSError):
        print(f"{name}: error: {describe_error(error)}", file=sys.stderr)
        return 1
    raise error


class _Printer(logging.Handler):
    """Prints each message. Unlike logging's own handlers it raises what goes wrong, such as a closed pipe."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), flush=True)


@contextmanager
def _reporting(name: str) -> Iterator[None]:
    """Print what the library reports, and its warnings, each of them once."""
    handler = _Printer()
    level, propagate = logger.level, logger.propagate
    printed: set[str] = set()

    def show(message: Warning | str, *args: object) -> None:
        line = one_line(str(message))
        if line not in printed:
            printed.add(line)
            print(f"{name}: warning: {line}", file=sys.stderr)

    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show  # type: ignore[assignment]
            warnings.simplefilter("always", DataWarning)
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def check_interrupted() -> None:
    """Raise `KeyboardInterrupt` if the command was asked to end.

    Whoever works in a loop calls this: native code that calls back into Python may have swallowed the exception.
    """
    if _interrupted.is_set():
        raise KeyboardInterrupt


@contextmanager
def _noting_interrupts() -> Iterator[None]:
    """Note Ctrl-C, and a scheduler's request to end, besides raising `KeyboardInterrupt`."""

    def note(*args: object) -> None:
        _interrupted.set()
        raise KeyboardInterrupt

    _interrupted.clear()
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
