"""A bounded queue: some requests are worked on, some wait, and any more are refused at once."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from starlette.exceptions import HTTPException

from show.server.limits import Limits

T = TypeVar("T")

BUSY = "The server is busy. Please try again in {} seconds."
TOO_SLOW = "This took more than {:g} seconds. Please try again, with fewer or smaller images."


class WorkQueue:
    """Runs functions in a few threads, for a bounded number of requests.

    Parameters
    ----------
    limits : Limits
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.executor = ThreadPoolExecutor(limits.threads, thread_name_prefix="request")
        self._lock = threading.Lock()
        self._n_requests = self._n_bytes = 0

    def enter(self, n_bytes: int) -> "Place":
        """Take a place in the queue, before the body of the request is read.

        Parameters
        ----------
        n_bytes : int
            Length of the body.

        Raises
        ------
        HTTPException
            503: there is none.
        """
        with self._lock:
            if self._n_requests >= self.limits.requests or self._n_bytes + n_bytes > self.limits.waiting_bytes:
                raise unavailable(BUSY.format(self.limits.retry_seconds), self.limits)
            self._n_requests += 1
            self._n_bytes += n_bytes
        return Place(self, n_bytes)

    def leave(self, n_bytes: int) -> None:
        """Give a place back. Any thread may call it."""
        with self._lock:
            self._n_requests -= 1
            self._n_bytes -= n_bytes


class Place:
    """The place of a request in the queue, a context manager.

    A function that runs cannot be stopped. A request that took too long is answered, and its place is free as soon as
    the function has ended.

    Parameters
    ----------
    queue : WorkQueue
    n_bytes : int
    """

    def __init__(self, queue: WorkQueue, n_bytes: int) -> None:
        self._queue, self._n_bytes = queue, n_bytes
        self._timeout = asyncio.timeout(queue.limits.seconds)
        self._work: Future[Any] | None = None

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._work:
            self._work.add_done_callback(lambda _: self._queue.leave(self._n_bytes))
        else:
            self._queue.leave(self._n_bytes)
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            limits = self._queue.limits
            raise unavailable(TOO_SLOW.format(limits.seconds), limits) from None

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in a thread, when one is free."""
        work = self._queue.executor.submit(function, *args)
        self._work = work
        return await asyncio.wrap_future(work)


def unavailable(sentence: str, limits: Limits) -> HTTPException:
    """The answer of a server that cannot work on a request now, but may later."""
    return HTTPException(503, sentence, {"Retry-After": str(limits.retry_seconds)})
