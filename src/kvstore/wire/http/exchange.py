"""A request of HTTP/1.1, complete, and its answer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote

if TYPE_CHECKING:
    from kvstore.wire.http.session import HttpSession

__all__ = ["JSON", "TEXT", "App", "Exchange"]

Fields = Iterable[tuple[str, str]]

JSON: Final = (("Content-Type", "application/json"),)
TEXT: Final = (("Content-Type", "text/plain; charset=utf-8"),)


class Exchange:
    """Its request can be read at any time; it is answered once, by :meth:`respond` or by
    :meth:`start` and then :meth:`write`. Used on the event loop's thread only.

    ``method`` is as it came, ``path`` without escapes, ``fields`` with names in lower case.
    """

    def __init__(
        self,
        session: HttpSession,
        method: str,
        target: str,
        fields: Sequence[tuple[str, str]],
        body: bytes,
    ) -> None:
        self._session = session
        self.method = method
        path, _, query = target.partition("?")
        self.path = unquote(path, errors="replace")
        self._query = query
        self.fields = fields
        self.body = body
        self.started = False
        """Its answer has begun."""

    @property
    def peer(self) -> str:
        """Who asks, as gRPC names it."""
        return self._session.peer

    @property
    def query(self) -> dict[str, list[str]]:
        """What follows the ``?``."""
        return parse_qs(self._query, keep_blank_values=True, errors="replace")

    def field(self, name: str) -> str | None:
        """The first value of a header field, whose ``name`` is in lower case."""
        return next((value for found, value in self.fields if found == name), None)

    def enter(self, *, streams: bool) -> bool:
        """Count it among the calls under way, or those that stream, from now until it is answered.
        False: there are too many."""
        return self._session.enter(streams)

    def hold(self, size: int) -> bool:
        """Count ``size`` bytes of answer that wait to be read, until it is answered. False: they
        would be too many."""
        return self._session.hold(size)

    def let_go(self, size: int) -> None:
        """So many of them were read."""
        self._session.let_go(size)

    def respond(self, status: int, body: bytes = b"", fields: Fields = JSON) -> None:
        """Answer with all of ``body``."""
        self.started = True
        self._session.begin_answer(status, fields, len(body))
        self._session.send_body(body)

    def start(self, status: int, fields: Fields = JSON, *, lasts: bool) -> None:
        """Begin to answer, with a body of unknown size; ``lasts``: for as long as it likes."""
        self.started = True
        self._session.begin_answer(status, fields, None, lasts)

    async def write(self, data: bytes) -> None:
        """Send a part of the body; returns when there is room for more."""
        self._session.send_body(data)
        await self._session.room()

    def write_last(self, data: bytes) -> None:
        """Send the last part of the body."""
        self._session.send_body(data)


App = Callable[[Exchange], Coroutine[Any, Any, None]]
"""Answers a request. It is cancelled when the client is gone; what it raises is a defect, and ends
the connection."""
