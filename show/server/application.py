"""The web application: the page, and the requests that it and programs send."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from cache.support.errors import DataError, ParameterError, RunError, UserError
from cache.support.messages import count, describe_error
from cache.support.reporting import report
from show.predictor import ImagePredictor
from show.server.answers import ErrorAnswer
from show.server.gate import Gate
from show.server.limits import Limits
from show.server.openapi import make_openapi
from show.server.queue import WorkQueue, unavailable
from show.server.service import RunService
from show.server.uploads import Form, read_form, read_length

PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
"""The files of the page, by their address."""

NO_MEMORY = "The server has not enough memory for this now. Please try again later, with fewer or smaller images."
AT_FAULT = "The server cannot work on this now; the terminal in which it runs says why."
BUG = "The server made a mistake; the terminal in which it runs says which."

Handler = Callable[[Form], Any]


def make_application(predictor: ImagePredictor, host: str = "127.0.0.1", limits: Limits | None = None) -> ASGIApp:
    """Make the application that `python -m show serve` runs, and open the network of the run.

    Parameters
    ----------
    predictor : ImagePredictor
    host : str
        What the server listens on: requests to other names are refused.
    limits : Limits, optional

    Returns
    -------
    ASGI application
    """
    api = _Api(predictor, limits or Limits())
    api.service.warm_up()
    openapi = msgspec.json.encode(make_openapi())
    routes = [
        *(Route(place, _serve_file(*file)) for place, file in PAGE.items()),
        Route("/openapi.json", _serve(openapi, "application/json")),
        Route("/api/run", _serve(msgspec.json.encode(api.service.run), "application/json")),
        Route("/api/predict", api.predict, methods=["POST"]),
        Route("/api/explain", api.explain, methods=["POST"]),
    ]
    handlers = {HTTPException: _refuse, ClientDisconnect: _end, Exception: _fail}
    app = Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]
    app.router.redirect_slashes = False
    return Gate(app, host)


class _Api:
    """The requests that need the run."""

    def __init__(self, predictor: ImagePredictor, limits: Limits) -> None:
        self.service, self._limits, self._queue = RunService(predictor, limits), limits, WorkQueue(limits)

    async def predict(self, request: Request) -> Response:
        """Predict the images of a form."""
        return await self._answer(request, lambda form: self.service.predict(form.images, "preview" in form.fields))

    async def explain(self, request: Request) -> Response:
        """Explain one concept of one image."""

        def explain(form: Form) -> Any:
            if len(form.images) != 1:
                raise HTTPException(400, f"{count(len(form.images), 'image')} in the form; one is expected.")
            if not form.fields.get("concept", "").strip():
                raise HTTPException(400, "The form has no field 'concept', the code or name of a concept.")
            return self.service.explain(form.images[0], form.fields["concept"])

        return await self._answer(request, explain)

    async def _answer(self, request: Request, handle: Handler) -> Response:
        async with self._queue.enter(read_length(request, self._limits)) as place:
            form = await read_form(request, self._limits)
            answer = await place.call(self._handle, handle, form)
        return _json(answer)

    def _handle(self, handle: Handler, form: Form) -> Any:
        """Call a handler in a thread; what is no fault of the application becomes a refusal."""
        try:
            return handle(form)
        except MemoryError:
            report("not enough memory for a request")
            raise unavailable(NO_MEMORY, self._limits) from None
        except (DataError, ParameterError, RunError) as error:
            raise HTTPException(422, self.service.hide_folders(str(error))) from None
        except (UserError, OSError) as error:
            report(f"a request was refused: {describe_error(error)}")
            raise unavailable(AT_FAULT, self._limits) from None


def _serve_file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    return _serve(Path(__file__).with_name(name).read_bytes(), kind)


def _serve(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that always answers the same."""

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


def _json(answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(answer), status, headers, "application/json")


async def _refuse(request: Request, error: HTTPException) -> Response:
    sentence = {404: "There is no such page.", 405: "This address does not take such requests."}
    text = sentence.get(error.status_code, error.detail)
    return _json(ErrorAnswer(text), error.status_code, dict(error.headers or {}))


async def _end(request: Request, error: ClientDisconnect) -> Response:
    """The client has gone away, and reads no answer."""
    return _json(ErrorAnswer("The request was not complete."), 400)


async def _fail(request: Request, error: Exception) -> Response:
    """A bug. Its traceback is printed by the server, and is not for the client."""
    return _json(ErrorAnswer(BUG), 500)
