"""What the metrics listener shows: figures, and whether this process lives and can serve.

On its own threads. What only the event loop knows it is asked for, for a while.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final, TypeVar

from kvstore.errors import Error, UnavailableError
from kvstore.server.http.probes import STARTING, ProbePages

__all__ = ["LOOP_WAIT_S", "MetricsPages", "asked_of"]

LOOP_WAIT_S: Final = 3.0
"""How long a scrape, or a probe, waits for the event loop before it is answered with 503."""

TEXT: Final = "text/plain; charset=utf-8"

Answer = TypeVar("Answer")


def asked_of(
    loop: asyncio.AbstractEventLoop, ask: Callable[[], Coroutine[Any, Any, Answer]]
) -> Answer:
    """What ``ask`` returns on the event loop; on any thread but its own.

    Raises UnavailableError where it has no time, or what ``ask`` raises of ours.
    """
    answer: concurrent.futures.Future[Answer] = concurrent.futures.Future()

    async def asking() -> None:
        try:
            answer.set_result(await ask())
        except BaseException as error:  # noqa: BLE001 - result() raises it on the other thread
            answer.set_exception(error)

    tasks: list[asyncio.Task[None]] = []

    def begin() -> None:
        if answer.set_running_or_notify_cancel():
            tasks.append(loop.create_task(asking()))

    try:
        loop.call_soon_threadsafe(begin)
        return answer.result(LOOP_WAIT_S)
    except TimeoutError as error:
        answer.cancel()
        raise UnavailableError("the event loop is busy") from error
    except (RuntimeError, concurrent.futures.CancelledError, Error) as error:
        raise UnavailableError(f"no figures: {error}") from error


class MetricsPages:
    """The pages, by path. ``render`` makes the figures of one scrape, given the Accept header."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        render: Callable[[str], tuple[str, bytes]],
    ) -> None:
        self._loop = loop
        self._render = render
        self.probes: ProbePages | None = None
        """None until clients are served. Then the process lives, for all that one can tell, and
        isn't ready: it may wait for other founders, or read its log, with the loop at a stand."""

    def __call__(
        self, path: str, query: dict[str, list[str]], accept: str
    ) -> tuple[int, str, bytes] | None:
        """A :data:`kvstore.server.metrics.endpoint.Page`."""
        if path == "/metrics":
            kind, body = self._render(accept)
            return HTTPStatus.OK, kind, body
        probes = self.probes
        if probes is None:
            return self._starting(path)
        if not probes.has(path):
            return None
        status, said = asked_of(self._loop, lambda: probes.answer(path, query))
        return status, TEXT, said.encode()

    def _starting(self, path: str) -> tuple[int, str, bytes] | None:
        match path.split("/")[1]:
            case "livez":
                return HTTPStatus.OK, TEXT, b"ok\n"
            case "readyz":
                return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, f"{STARTING}\n".encode()
        return None
