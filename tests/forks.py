"""Processes that begin with the project's libraries imported.

Most of what a short command costs is its imports. Here one process per set of libraries imports them and does nothing
else; each `Fork` is a fork of it, which runs one piece of code. It is a process of its own like any other: it can be
killed, limited and left without room, and nothing that the tests have computed is in it.

Run as a program, it is the process that is forked.
"""

import atexit
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LIBRARIES = ("cheap", "eval.scored_file", "featurize.engines.jax", "featurize.engines.openvino",
             "featurize.engines.tensorflow", "heads.ensembles.builder", "heads.runs.builder", "heads.selection.sweep",
             "PIL.Image:init")  # fmt: skip
"""Modules, and functions that are called once."""

TENSORFLOW = ("cache.support.keras:import_keras", *LIBRARIES)


class Fork:
    """A process that runs a piece of code, with what `subprocess.Popen` has.

    Parameters
    ----------
    code : str
        It is run as a script would be: ``sys.argv[1:]`` are the words, and it may end with ``sys.exit``.
    *words : object
    cwd : Path, optional
    env : mapping, optional
        Variables of the environment that are set beside those of this process.
    largest_file : int, optional
        Bytes that a file may have; a full disk ends a write in the same way.
    libraries : tuple of str
        What is imported before: `LIBRARIES` or `TENSORFLOW`.
    """

    def __init__(
        self,
        code: str,
        *words: object,
        cwd: Path = ROOT,
        env: dict[str, str] | None = None,
        largest_file: int | None = None,
        libraries: tuple[str, ...] = LIBRARIES,
    ) -> None:
        self.returncode: int | None = None
        self._end, status = os.pipe()
        (self._out, out), (self._err, err) = (_make_pipe() for _ in range(2))
        request = {"code": code, "words": [*map(str, words)], "cwd": str(cwd), "env": dict(os.environ) | (env or {}),
                   "largest_file": largest_file}  # fmt: skip
        server = _serve(libraries)
        socket.send_fds(server, [json.dumps(request).encode()], [status, out, err])
        for end in (status, out, err):
            os.close(end)
        self.pid = int(server.recv(100))

    def poll(self) -> int | None:
        """The status, or None while it runs."""
        return self._find_end(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; gives the status, which is negative for a signal."""
        status = self._find_end(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return status

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; gives what was written to standard output and to standard error."""
        self.wait(timeout)
        return _read(self._out), _read(self._err)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Fork":
        return self

    def __exit__(self, *error: object) -> None:
        self.wait()
        for end in (self._out, self._err):
            os.close(end)

    def _find_end(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._end], [], [], timeout)[0]:
            self.returncode = int(os.read(self._end, 100))
            os.close(self._end)
        return self.returncode


def run_fork(code: str, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run code in a fork to its end; see `Fork`."""
    with Fork(code, *words, **options) as process:
        out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(words, process.wait(), out, err)


def run_command(package: str, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of the project in a fork, as ``python -m package`` would."""
    return run_fork(f"import sys; from {package}.__main__ import main; sys.exit(main())", *words, **options)


def _make_pipe() -> tuple[int, int]:
    """A pipe with room for all that a process of a test prints, which is read once it has ended."""
    ours, theirs = os.pipe()
    fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 2**20)
    os.set_blocking(ours, False)
    return ours, theirs


def _read(end: int) -> str:
    parts = []
    with suppress(BlockingIOError):  # a process that it has started may still have the other end
        while part := os.read(end, 2**16):
            parts.append(part)
    return b"".join(parts).decode()


@cache
def _serve(libraries: tuple[str, ...]) -> socket.socket:
    """Start the process that is forked. It ends when the other end of the socket is closed, at the latest with us."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    # A fork has none of the threads that a library for linear algebra would have started.
    env = os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, __file__, str(theirs.fileno()), *libraries]
    process = subprocess.Popen(words, cwd=ROOT, env=env, pass_fds=[theirs.fileno()])
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)  # before the wait
    return ours


def main() -> None:
    """Import libraries, then fork for each request."""
    server = socket.socket(fileno=int(sys.argv[1]))
    for library in sys.argv[2:]:
        module, _, function = library.partition(":")
        found = import_module(module)
        if function:
            getattr(found, function)()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(server, 2**20, 3)
        if message and not os.fork():
            _watch(json.loads(message), descriptors, server)
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG if message else 0)[0]:
                pass
        if not message:
            return


def _watch(request: dict[str, Any], descriptors: list[int], server: socket.socket) -> None:
    """Fork the process, answer with its number, and once it has ended write its status."""
    status, *outputs = descriptors
    pid = os.fork()
    if not pid:
        server.close()
        os.close(status)
        _become(request, outputs)
    server.send(str(pid).encode())
    _, ended = os.waitpid(pid, 0)
    os.write(status, str(os.waitstatus_to_exitcode(ended)).encode())
    os._exit(0)


def _become(request: dict[str, Any], outputs: list[int]) -> None:
    """Run the code of a request as a script."""
    for number, descriptor in enumerate(outputs, 1):
        os.dup2(descriptor, number)
    # New ones: those of the process that was forked may have been files, in which one could seek.
    sys.stdout, sys.stderr = (open(number, "w", 1, errors="backslashreplace", closefd=False) for number in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    if request["largest_file"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"],) * 2)
    sys.argv = ["-c", *request["words"]]
    exec(request["code"], {"__name__": "__main__"})
    sys.exit()


if __name__ == "__main__":
    main()
