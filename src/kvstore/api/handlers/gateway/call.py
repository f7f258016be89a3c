"""One call of the gateway: the context that its handler gets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic
from typing import Any, Final, NoReturn

import grpc
import grpc.aio

from kvstore.api.etcd.methods import MethodShape
from kvstore.api.handlers.gateway.answers import error_of, http_status_of, stream_error_of
from kvstore.api.handlers.gateway.transcoding import pieces_of
from kvstore.api.handlers.gateway.watching import JsonText, JsonWording
from kvstore.wire.http import Exchange

__all__ = ["Call", "Refused"]

Pairs = Iterable[tuple[str, str | bytes]]

ANSWER_BYTES_MAX: Final = 16 << 20
"""Of one message, before it is JSON."""

PIECE_BYTES: Final = 16 * 1024
"""JSON goes out in parts of about this size; others have their turn in between."""

HELD_TIMES: Final = 2
"""What a message takes while its JSON is taken, in its own sizes: its fields lie apart."""

# How often a response of a stream that found no room is tried again.
ROOM_LOOK_S: Final = 0.05

TOO_LARGE: Final = (
    f"the answer has more than {ANSWER_BYTES_MAX >> 20} MiB: use a limit, or gRPC in place of JSON"
)
UNREAD: Final = "answers that nobody has read yet fill their budget; read them, then try again"

# Who asks is told by a token alone: a certificate is of the program that asks, and that may be one
# that passes on what others want (etcd has it so, too).
_NOBODY: Final[dict[str, Iterable[bytes]]] = {}


class Refused(Exception):
    """A call is to end with ``code``."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class Call:
    """The part of ``grpc.aio.ServicerContext`` that handlers of etcd's API use."""

    wording = JsonWording

    def __init__(
        self,
        exchange: Exchange,
        shape: MethodShape,
        metadata: Sequence[tuple[str, str]],
        timeout_s: float | None,
    ) -> None:
        self._exchange = exchange
        self._shape = shape
        self._metadata = tuple(metadata)
        self._deadline = None if timeout_s is None else monotonic() + timeout_s
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self.written: Any = None
        """What the handler of a call with one answer wrote."""
        self._ended = self._cancelled = False
        self._callbacks: list[Callable[[Any], object]] = []

    # What handlers use.

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def auth_context(self) -> dict[str, Iterable[bytes]]:
        return _NOBODY

    def peer(self) -> str:
        return self._exchange.peer

    def time_remaining(self) -> float | None:
        """In seconds, 0 when it is over; None for a call without a deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - monotonic())

    def code(self) -> grpc.StatusCode | None:
        return self._code

    def details(self) -> str:
        return self._details

    def cancelled(self) -> bool:
        return self._cancelled

    def done(self) -> bool:
        return self._ended

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """``callback`` is called with this context once the call has ended; at once if it has."""
        if self._ended:
            callback(self)
        else:
            self._callbacks.append(callback)

    def set_trailing_metadata(self, trailing_metadata: Pairs) -> None:
        """JSON has no place for them."""

    async def send_initial_metadata(self, initial_metadata: Pairs) -> None:
        """Nor for these."""

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Pairs = ()
    ) -> NoReturn:
        """End the call with ``code``. Raises AbortError, which is nobody's to catch."""
        self._code, self._details = code, details
        raise grpc.aio.AbortError("Locally aborted.")

    async def write(self, message: Any) -> None:
        """Send a response; returns once its bytes were taken from memory."""
        if not self._shape.streams_out:
            self.written = message
            return
        exchange, data = self._exchange, _serialized(message)
        held = len(data) if isinstance(data, JsonText) else HELD_TIMES * len(data)
        # One that finds no room waits for others' to be taken.
        while not exchange.hold(held):
            await asyncio.sleep(ROOM_LOOK_S)
        if not exchange.started:
            exchange.start(200, lasts=True)
        if isinstance(data, JsonText):
            for part in _parts_of_text(data):
                await exchange.write(part)
        else:
            await self._write(self._parsed(data), '{"result":', "}\n")
        exchange.let_go(held)

    async def write_all(self, messages: Sequence[Any]) -> None:
        """Send responses one after the other."""
        for message in messages:
            await self.write(message)

    # What the gateway uses.

    async def answer(self, message: Any) -> None:
        """Send the one response. Raises Refused for one that is too large."""
        data = _serialized(message)
        if len(data) <= PIECE_BYTES:
            self._exchange.respond(200, "".join(pieces_of(self._parsed(data))).encode())
            return
        if len(data) > ANSWER_BYTES_MAX:
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_LARGE)
        if not self._exchange.hold(HELD_TIMES * len(data)):
            raise Refused(grpc.StatusCode.UNAVAILABLE, UNREAD)
        parsed = self._parsed(data)
        del message, data  # not for as long as the client takes
        self._exchange.start(200, lasts=False)
        await self._write(parsed, "", "")

    def end_stream(self) -> None:
        """Nothing more is to come; it may be that nothing came."""
        if not self._exchange.started:
            self._exchange.respond(200)

    def refuse(self, code: grpc.StatusCode, details: str) -> None:
        """End it with an error, of which the client is told as far as that can be."""
        body = stream_error_of if self._shape.streams_out else error_of
        if not self._exchange.started:
            self._exchange.respond(http_status_of(code), body(code, details))
        elif self._shape.streams_out:
            self._exchange.write_last(body(code, details))

    def end(self, cancelled: bool) -> None:
        """It is over."""
        self._ended, self._cancelled = True, cancelled
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    async def _write(self, message: Any, before: str, after: str) -> None:
        for part in _parts(pieces_of(message), before, after):
            await self._exchange.write(part)

    def _parsed(self, data: bytes) -> Any:
        return self._shape.response.FromString(data)


def _serialized(message: Any) -> bytes:
    """What handlers write many times over is encoded already."""
    data: bytes = message if isinstance(message, bytes) else message.SerializeToString()
    return data


def _parts_of_text(text: JsonText) -> Iterator[bytes]:
    if len(text) <= PIECE_BYTES:
        yield b"".join((b'{"result":', text, b"}\n"))
        return
    yield b'{"result":'
    for first in range(0, len(text), PIECE_BYTES):
        yield text[first : first + PIECE_BYTES]
    yield b"}\n"


def _parts(pieces: Iterator[str], before: str, after: str) -> Iterator[bytes]:
    gathered, size = [before], 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            yield "".join(gathered).encode()
            gathered, size = [], 0
    yield "".join([*gathered, after]).encode()
