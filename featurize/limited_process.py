"""Call a function in a process that may take only so much time and memory, and that may crash.

What reads some kinds of images and of weights believes what a damaged file says, and no check in Python can stop it.
The process stays for the next call, so that a call costs little more than the function itself.
"""

import atexit
import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cache.support.errors import UserError
from cache.support.machine_faults import has_memory
from featurize.parent_watch import end_with

PATIENCE = 60
"""Times the allowed seconds after which a process that does not answer is given up. It counts time that passes, and the
machine may be busy; the allowed seconds are those of the processor."""

SHARE = 0.8
"""Part of the allowed memory that the machine must be able to give, or else nothing is called."""


class LimitError(Exception):
    """A function needs more than it is allowed, or ended its process; the message says how."""


def call_limited(function: Callable[..., Any], *args: Any, seconds: int, n_bytes: int) -> Any:
    """Call a function in a limited process, and return its result.

    Parameters
    ----------
    function : callable
        A function of a module; it is sent by its name, and its arguments and its result as pickles.
    *args : object
        Its arguments.
    seconds : int
        Most processor time.
    n_bytes : int
        Most memory beyond that of the process itself; only Linux enforces it.

    Raises
    ------
    LimitError
        The function needs more time or memory, or it crashes.
    MemoryError
        The machine does not have the memory that is allowed.
    UserError
        The process was ended from outside, or does not answer.
    Exception
        Whatever the function raises.
    """
    process = _take()
    try:
        answer = process.call((function, args, seconds, n_bytes), seconds)
    except BaseException:
        process.end()
        raise
    _idle.append(process)
    if isinstance(answer, BaseException):
        raise answer
    return answer


class _Process:
    """A limited process that waits for calls."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._connection, theirs = Pipe()
        code = f"from featurize.limited_process import _serve; _serve({theirs.fileno()}, {self.owner})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # what a library writes before it crashes
            start_new_session=True,
        )
        theirs.close()

    def call(self, request: object, seconds: int) -> Any:
        """Send a request and wait for its answer."""
        try:
            self._connection.send(request)
            if self._connection.poll(PATIENCE * seconds):
                return self._connection.recv()
        except (EOFError, ConnectionError):
            raise self._explain(seconds) from None
        raise UserError("a process that reads an image or weights does not answer; run the same command again")

    def _explain(self, seconds: int) -> Exception:
        """Why the process has ended."""
        status = self._process.wait()
        if status == -signal.SIGXCPU:
            return LimitError(f"takes more than {seconds} seconds")
        if status in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL):
            return LimitError(f"crashes what reads it ({signal.Signals(-status).name})")
        return UserError(
            "a process that reads an image or weights was ended, most likely for lack of memory; finished units are "
            "saved: run the same command again with fewer processes (--workers, make WORKERS=1)"
        )

    def end(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()
        self._process.wait()


_idle: list[_Process] = []


def _take() -> _Process:
    """A process that waits for a call: an earlier one, or a new one. After a fork those of the parent are not used."""
    while _idle:
        with contextlib.suppress(IndexError):  # another thread took it
            process = _idle.pop()
            if process.owner == os.getpid():
                return process
    return _Process()


@atexit.register
def _end_all() -> None:
    while _idle:
        process = _idle.pop()
        if process.owner == os.getpid():
            process.end()


def _serve(descriptor: int, parent: int) -> None:
    """Run in the new process: answer calls until the caller ends."""
    end_with(parent)
    caller = Connection(descriptor)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            function, args, seconds, n_bytes = caller.recv()
            _limit(seconds, n_bytes)
            if not has_memory(int(SHARE * n_bytes)):
                caller.send(MemoryError())
                continue
            try:
                caller.send(function(*args))
            except MemoryError:
                caller.send(LimitError(f"takes more than {n_bytes:,} bytes of memory"))
            except Exception as error:
                caller.send(error)


def _limit(seconds: int, n_bytes: int) -> None:
    """Allow this process so much more processor time and memory than it has taken."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _set_limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + seconds)
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        pages = int(statistics.read_text().split()[5])
        _set_limit(resource.RLIMIT_DATA, pages * resource.getpagesize() + n_bytes)


def _set_limit(kind: int, value: int) -> None:
    most = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if most == resource.RLIM_INFINITY else min(value, most), most))
