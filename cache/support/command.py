"""Run a command line of the project, and end it with a result or with one line that says what to do.

Everything that a command prints goes through `print_line` or `print_json`: texts of files, such as names, ids and
reasons, may hold characters that would break a line or command the terminal.
"""

import argparse
import io
import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from cache.support.errors import NotInstalledError, UserError
from cache.support.messages import describe_error, one_line
from cache.support.reporting import DataWarning, logger

TRACEBACK = "--traceback"

TENSORFLOW_PIP_LINE = "pip install tensorflow-cpu, or for GPUs: pip install 'tensorflow[and-cuda]'"
"""The command that installs TensorFlow and Keras."""

JAX_PIP_LINE = "pip install jax keras flatbuffers, or for GPUs: pip install 'jax[cuda12]' keras flatbuffers"
"""The command that installs JAX, Keras, and what JAX saves functions with."""

NOTHING_KEPT = "the same command begins again"
"""What is said of an interrupted command that keeps nothing of what it has done."""

_interrupted = threading.Event()


def run_command(name: str, parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse a command line, run its command, and end with a result or with one line that says what to do.

    Reports of the library are printed to standard output, its warnings to standard error, one line each.

    Parameters
    ----------
    name : str
        What warnings and errors begin with, such as ``featurize``.
    parser : ArgumentParser
        It sets the attribute ``command``, a callable that takes the parsed arguments. It may set ``kept``: what an
        interrupted command has kept and does next time, as the end of a message, or a callable that tells it from the
        parsed arguments.
    argv : sequence of str, optional
        The words of the command line; by default those of this process.

    Returns
    -------
    int
        Exit status: 0 for success, 1 for an error that the user can fix, 130 if interrupted.

    Raises
    ------
    Exception
        Any other error is a bug, and keeps its traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Its encoding may lack the letters of a file's name, and who follows a log sees each line when it is printed.
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    parser.add_argument(TRACEBACK, action="store_true", help="with an error, print its traceback")
    words = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args([word for word in words if word != TRACEBACK])  # also accepted after a subcommand
    try:
        with _noting_interrupts(), _reporting(name):
            args.command(args)
    except BrokenPipeError:
        return 0
    except BaseException as error:
        return _end_badly(name, error, TRACEBACK in words, args)
    finally:
        _flush_output()
    return 0


def print_line(text: str, file: TextIO | None = None) -> None:
    """Print one line, in which all that cannot be printed is escaped.

    Parameters
    ----------
    text : str
    file : text file, optional
        Where to; standard output by default.

    Examples
    --------
    >>> print_line("a folder\\nof mine: \\x1b[2J")
    a folder\\nof mine: \\x1b[2J
    """
    print(one_line(text), file=file)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object. JSON escapes by itself what cannot be printed."""
    print(json.dumps(value, indent=1))


def _flush_output() -> None:
    """Write out what was printed. If its reader has gone away (``| head``), the rest is dropped."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_badly(name: str, error: BaseException, with_traceback: bool, args: argparse.Namespace) -> int:
    """Print on one line why a command ended; a bug is raised again."""
    if with_traceback:
        raise error
    # Native code may turn an interrupt into any exception.
    if isinstance(error, KeyboardInterrupt) or _interrupted.is_set():
        kept = getattr(args, "kept", NOTHING_KEPT)
        print_line(f"{name}: interrupted; {kept(args) if callable(kept) else kept}", sys.stderr)
        return 130
    if isinstance(error, MemoryError):
        print_line(f"{name}: error: not enough memory; close other programs, or use fewer processes", sys.stderr)
        return 1
    if isinstance(error, UserError):
        print_line(f"{name}: error: {error}", sys.stderr)
        return 1
    # A full disk, a missing file, a folder without permission.
    if isinstance(error, OSError):
        print_line(f"{name}: error: {describe_error(error)}", sys.stderr)
        return 1
    raise error


class _Printer(logging.Handler):
    """Print each message. Unlike the handlers of `logging` it raises errors, such as that of a closed pipe."""

    def emit(self, record: logging.LogRecord) -> None:
        print_line(record.getMessage())
        sys.stdout.flush()


@contextmanager
def _reporting(name: str) -> Iterator[None]:
    """Print the library's reports, and its warnings, each warning once."""
    handler = _Printer()
    level, propagate = logger.level, logger.propagate
    printed: set[str] = set()

    def print_once(message: Warning | str, *args: object) -> None:
        line = f"{name}: warning: {message}"
        if line not in printed:
            printed.add(line)
            print_line(line, sys.stderr)

    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.showwarning = print_once  # type: ignore[assignment]
            warnings.simplefilter("always", DataWarning)
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def check_interrupted() -> None:
    """Raise `KeyboardInterrupt` if the user, or a scheduler, wants the command to end.

    Call it in long loops: native code that calls back into Python may have swallowed the first exception.

    Raises
    ------
    KeyboardInterrupt
    """
    if _interrupted.is_set():
        raise KeyboardInterrupt


@contextmanager
def _noting_interrupts() -> Iterator[None]:
    """Note Ctrl-C and SIGTERM, which schedulers send, besides raising `KeyboardInterrupt`."""

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
    """Silence what native code writes to standard error while a large library is imported.

    TensorFlow prints start-up messages before it reads its own log level (tensorflow/tensorflow#100442). Errors are
    not lost: they are raised.

    Raises
    ------
    NotInstalledError
        TensorFlow, Keras or JAX is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with muted():
            yield
    except ModuleNotFoundError as error:
        lines = {"keras": TENSORFLOW_PIP_LINE, "tensorflow": TENSORFLOW_PIP_LINE, "jax": JAX_PIP_LINE}
        if error.name not in lines:
            raise
        raise NotInstalledError(f"{error.name} is not installed: {lines[error.name]}") from error


@contextmanager
def muted() -> Iterator[None]:
    """Silence everything that this process writes to standard error, native code included."""
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
