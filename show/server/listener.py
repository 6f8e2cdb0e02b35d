"""Listen on an address, and answer with an application until the user ends it."""

import errno
import logging
import socket
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from cache.support.errors import ParameterError
from cache.support.reporting import report

MAX_CONNECTIONS = 512
"""Connections at once, those that send nothing included."""

GOODBYE_SECONDS = 5
"""How long requests in progress may take after the user has ended the server."""

SILENT = logging.ERROR
"""Only bugs are logged, with their traceback."""


def open_socket(host: str, port: int) -> socket.socket:
    """Listen on an address. What connects before `answer` waits.

    Parameters
    ----------
    host : str
        A name or an address of this machine.
    port : int
        0 for any that is free.

    Raises
    ------
    ParameterError
        The port is in use or forbidden, or the host is not of this machine.
    """
    if not 0 <= port <= 65535:
        raise ParameterError(f"port {port}, expected 0 to 65535; name another PORT (--port)")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except socket.gaierror:
        reason = "is not known, expected a name or an address of this machine; name another HOST (--host)"
        raise ParameterError(f"host {host!r} {reason}") from None
    except OSError as error:
        raise ParameterError(_explain(error, host, port)) from None
    except UnicodeError:
        raise ParameterError(f"host {host!r} is no name; name another HOST (--host)") from None


def find_url(listener: socket.socket, host: str) -> str:
    """The address of the server as a browser takes it.

    Parameters
    ----------
    listener : socket
    host : str
        What it was opened with.
    """
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}/"


class _Server(uvicorn.Server):
    """A server that reports its address when it answers, and heeds Ctrl-C."""

    def __init__(self, config: uvicorn.Config, line: str) -> None:
        super().__init__(config)
        self._line = line

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        report(self._line)


def answer(app: ASGIApp, listener: socket.socket, line: str) -> None:
    """Answer requests until the user presses Ctrl-C, or a scheduler ends the process.

    Parameters
    ----------
    app : ASGI application
    listener : socket
        That of `open_socket`.
    line : str
        What to report when it answers.
    """
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level=SILENT,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=GOODBYE_SECONDS,
    )
    with suppress(KeyboardInterrupt):  # which uvicorn raises again, when everything has ended
        _Server(config, line).run([listener])


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use; name another PORT (--port), or end what listens there"
    if error.errno == errno.EACCES:
        return f"port {port} is for administrators, expected 1024 or more; name another PORT (--port)"
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return f"host {host!r} is not an address of this machine; name another HOST (--host), such as 127.0.0.1"
    return f"port {port} of {host}: {error.strerror}; name another PORT (--port) or HOST (--host)"
