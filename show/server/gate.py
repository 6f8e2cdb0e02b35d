"""The gate before the application: who may ask, and what every answer says to the browser.

A page of a stranger in the same browser can send requests to this machine. It can give its own name this machine's
address (DNS rebinding), which the header ``Host`` shows, and it can post forms, which ``Origin`` shows.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names of this machine that no other machine can use."""

ANY = ("0.0.0.0", "::")
"""Hosts that stand for every address of this machine."""

FORBIDDEN_HOST = "This name is not one of the server's. Please use the address that it printed when it started."
FORBIDDEN_ORIGIN = "Another site may not send requests to this server."

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer."""


class Gate:
    """Lets requests through to an application that are for this server and from its own page, or from no page.

    Parameters
    ----------
    app : ASGI application
    host : str
        What the server was told to listen on.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self._is_open = host in ANY
        self._names = {*LOOPBACK, host.lower(), *([socket.gethostname().lower()] if self._is_open else [])}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        app = self.app
        if scope["type"] == "http":
            refusal = self.refuse(Headers(scope=scope), scope["method"])
            app = JSONResponse({"error": refusal}, 403) if refusal else app
        await app(scope, receive, send_with_headers)

    def refuse(self, headers: Headers, method: str) -> str:
        """Why a request is refused; empty if it is not.

        Parameters
        ----------
        headers : Headers
        method : str
            Such as ``POST``.
        """
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._knows(host):
            return FORBIDDEN_HOST
        if method in ("GET", "HEAD"):
            return ""
        origin = headers.get("origin")
        if origin is None:
            is_own = headers.get("sec-fetch-site", "none") in ("same-origin", "none")
        else:
            is_own = origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
        return "" if is_own else FORBIDDEN_ORIGIN

    def _knows(self, host: str) -> bool:
        """Whether a name with its port is one of the server's.

        Where it listens on every address, any address is right: only names can be given to another machine.
        """
        try:
            split = urlsplit(f"//{host}")
            name, _ = split.hostname, split.port
        except ValueError:
            return False
        if not name or split.netloc != host or "@" in host or split.path or split.query or split.fragment:
            return False
        return name in self._names or (self._is_open and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
