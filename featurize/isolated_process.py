"""Call a function in a process of its own, whose memory ends with it.

A process of multiprocessing runs the caller's script a second time. One of joblib's loky does not, but it lives on when
its caller is killed: a function that writes files would go on writing beside the next run. So the process is started as
a command here, and ends with its caller.
"""

import contextlib
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from cache.support.errors import UserError


def call_isolated(function: Callable[..., Any], *args: Any, task: str) -> Any:
    """Call a function in a new process, and return its result.

    The process ignores Ctrl-C: the caller handles it, and ends the process.

    Parameters
    ----------
    function : callable
        A function of a module; it is sent by its name, and its arguments and its result as pickles.
    *args : object
        Its arguments.
    task : str
        What the process does, for the message if it is ended: ``builds the network``.

    Raises
    ------
    UserError
        The process was ended from outside.
    Exception
        Whatever the function raises.
    """
    ours, theirs = multiprocessing.Pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", f"from featurize.isolated_process import _answer; _answer({theirs.fileno()})"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )
    theirs.close()
    try:
        ours.send((function, args))
        answer = ours.recv()
    except (EOFError, ConnectionError) as error:
        raise UserError(
            f"the process that {task} was ended, most likely for lack of memory; close other programs and run the "
            "same command again"
        ) from error
    finally:
        process.kill()
        process.wait()
        ours.close()
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _answer(descriptor: int) -> None:
    """Run in the new process: receive a function, call it, send its result."""
    caller = Connection(descriptor)
    function, args = caller.recv()
    threading.Thread(target=_end_with, args=[caller], daemon=True).start()
    try:
        caller.send(function(*args))
    except Exception as error:
        caller.send(error)


def _end_with(caller: Connection) -> None:
    """End this process when its caller ends: only the holder of a store's lock may write beside it."""
    with contextlib.suppress(OSError):
        caller.poll(None)
    os._exit(1)
