"""Types of the native wire. One thread at a time uses a session; nothing here waits or calls back.

Metadata are pairs of a name and a value: bytes for names that end with ``-bin``, which travel as
base64, else ASCII text. Status codes are gRPC's numbers, ``h2_code`` HTTP/2's error codes.
"""

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

Pairs: TypeAlias = Iterable[tuple[str, str | bytes]]
Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]
Event: TypeAlias = tuple[Any, ...]

# Kinds of events; what follows the kind in its tuple stands beside it.

CALL: Final[int]  # server: stream, path, timeout_s | None, metadata
MESSAGE: Final[int]  # both: stream, bytes
HALF_CLOSED: Final[int]  # server: stream; no message follows
CLOSED: Final[int]  # server: stream, h2_code; the call is gone, and not by finish, respond or reset
HEADERS: Final[int]  # client: stream, metadata; not for unary calls
FINISHED: Final[int]  # client: stream, status, details, trailer, unprocessed; the stream is gone
ANSWER: Final[int]  # client: stream, status, message | None, details, trailer, initial, unprocessed
GOAWAY: Final[int]  # both: last_stream, h2_code, debug data (at most 128 bytes)
PONG: Final[int]  # both: nothing

# Methods of hot calls.

PUT: Final[int]
GET: Final[int]
DELETE: Final[int]
WHOLE: Final[int]  # and on: of calls that are taken whole

class Budget:
    """Bytes that all sessions which share it may hold at one time.

    One session gets at most half of what is left, and 16 KiB if there are as many: so a few that
    don't read leave something to the others. Of a message on its way what came counts, up to twice;
    what it declares doesn't.
    """

    limit: int
    @property
    def used(self) -> int: ...
    def __init__(self, limit: int) -> None: ...
    def take(self, size: int, held: int, held_max: int) -> bool:
        """Take ``size`` bytes for somebody else than a session, who has ``held`` of them and may
        have ``held_max``. False: there is no room for them."""

    def give_back(self, size: int) -> None:
        """Of what was taken so. Raises ValueError for more than is taken."""

class Limits:
    """The bounds of one connection; each can be read under its name.

    ``message_bytes_max``: a received message, told from its length. ``header_bytes_max``: names and
    values of a call's metadata, with 32 bytes for each pair. ``streams_max``: calls at one time (at
    the client: together with those that wait for the server to allow more). ``unsent_bytes_max``,
    ``received_bytes_max``: what this connection may take of the budgets. ``resets_max``,
    ``pings_max``, ``settings_max``: a second, and at one time; ``idle_frames_max`` likewise for
    frames that ask for nothing (DATA without a byte, PRIORITY, WINDOW_UPDATE beyond what was sent,
    PING's answer to nobody, unknown types). Each frame of an answer allows two more pings.
    ``window_bytes``: of a stream, ``connection_window_bytes``: of all of them together.
    """

    message_bytes_max: Final[int]
    header_bytes_max: Final[int]
    streams_max: Final[int]
    unsent_bytes_max: Final[int]
    received_bytes_max: Final[int]
    resets_max: Final[int]
    pings_max: Final[int]
    settings_max: Final[int]
    idle_frames_max: Final[int]
    window_bytes: Final[int]
    connection_window_bytes: Final[int]
    def __init__(
        self,
        *,
        message_bytes_max: int = ...,
        header_bytes_max: int = ...,
        streams_max: int = ...,
        unsent_bytes_max: int = ...,
        received_bytes_max: int = ...,
        resets_max: int = ...,
        pings_max: int = ...,
        settings_max: int = ...,
        idle_frames_max: int = ...,
        window_bytes: int = ...,
        connection_window_bytes: int = ...,
    ) -> None: ...

class _Session:
    """What both sides have.

    After ``close``, and after a protocol error, all methods do nothing; a broken session still has
    a GOAWAY to send. Methods that name a stream do nothing when it is gone.
    """

    owner: Any
    @property
    def streams(self) -> int:
        """Calls under way."""

    @property
    def unsent_bytes(self) -> int:
        """Of messages that were taken and not given out by ``send`` yet."""

    @property
    def received_bytes(self) -> int:
        """Of received messages: whole ones not consumed yet, and room for those on their way."""

    @property
    def wants_write(self) -> bool:
        """Whether ``send`` would give something."""

    @property
    def established(self) -> bool:
        """Whether the peer's SETTINGS came."""

    @property
    def broken(self) -> str | None:
        """Why the peer is not talked to any more: it broke the protocol, or a bound."""

    @property
    def finished(self) -> bool:
        """Nothing more to send or to receive: close the connection."""

    def message(self, stream: int, data: bytes) -> bool:
        """Queue a message. False: over the budget, nothing was queued."""

    def writable(self, stream: int) -> bool:
        """Whether all messages of the stream were given out, so that a next one needn't wait."""

    def consumed(self, stream: int, message_bytes: int) -> None:
        """A received message of that length is done with: lets the peer send as many again."""

    def ping(self) -> None:
        """Ask for a PONG."""

    def send(self, bytes_max: int) -> bytes:
        """What is to be written now: ``bytes_max`` and one frame more at most; b"": nothing."""

class ServerSession(_Session):
    """The server's side of one connection.

    Calls of the paths ``hot`` (those of Put, Get and Delete, in this order; fewer or none) are
    appended to ``hot_calls``, one list for all sessions that share it, decoded; others are events.
    Those that come to an end before that are counted in ``hot_refused``, by method and status, but
    for those that the client gives up.

    Calls of the paths ``whole`` are appended to the same list with their ``message``, not decoded;
    so are those of ``once``, which stream, if all that they say came in one ``receive``: else they
    are events. Their methods have the numbers from ``WHOLE`` on, in this order.
    """

    def __init__(
        self,
        limits: Limits,
        received: Budget,
        unsent: Budget,
        hot: tuple[str, ...] = (),
        hot_calls: list[HotCall] | None = None,
        hot_refused: dict[tuple[int, int], int] | None = None,
        whole: tuple[str, ...] = (),
        once: tuple[str, ...] = (),
    ) -> None: ...
    def receive(self, data: bytes | bytearray | memoryview, now: float) -> list[Event]:
        """What came of the peer at a monotonic ``now`` in seconds, as events in order.

        CALL, MESSAGE, HALF_CLOSED, CLOSED, GOAWAY, PONG. A call that breaks gRPC's rules is
        answered here; if it was told of, CLOSED follows.
        """

    def start(self, stream: int, metadata: Pairs) -> None:
        """Send the initial metadata, once; without it the first message sends none."""

    def finish(self, stream: int, status: int, details: str, trailer: Pairs = ()) -> None:
        """End the call, after what was queued."""

    def respond(self, stream: int, data: bytes, trailer: Pairs = (), initial: Pairs = ()) -> bool:
        """Initial metadata, one message, and status OK. False: over the budget, nothing is done."""

    def reset(self, stream: int, h2_code: int) -> None: ...
    def allow_streams(self, streams_max: int) -> None:
        """Let the peer have so many calls at one time from now on, from when it was told."""

    def notify_shutdown(self) -> None:
        """The first half of a graceful end: the peer is asked for no new calls, but may still."""

    def goaway(self, h2_code: int = 0) -> None:
        """The second half: no new calls; those under way go on. ``finished`` after the last."""

    @property
    def in_headers(self) -> bool:
        """Whether a block of headers has begun and not ended."""

    def incomplete(self) -> list[int]:
        """Calls that aren't answered and whose request hasn't ended."""

    def undelivered(self) -> list[int]:
        """Calls that were answered and whose answer wasn't all given out by ``send`` yet."""

    def close(self) -> None:
        """The connection is gone: forget all calls, give back the budgets. No events."""

class HotCall:
    """A call of Put, Get or Delete, decoded, or one that is taken whole. Once answered, or gone,
    answers do nothing."""

    @property
    def session(self) -> ServerSession | None:
        """None: the call is gone (answered, cancelled, or its connection is)."""

    stream: Final[int]
    method: Final[int]
    key: Final[bytes]
    value: Final[bytes]
    request_id: Final[bytes]
    message: Final[bytes]  # of a method that is taken whole
    #: When it came and what time it had then, in seconds; inf: no deadline.
    received_at: Final[float]
    timeout_s: Final[float]
    #: ``kvstore-*``, ``grpc-previous-rpc-attempts``, ``token``, ``authorization`` and
    #: ``traceparent`` alone, () as a rule; all of it where the call is taken whole.
    metadata: Final[Metadata]
    #: The front's to set: when it is given up, of the same clock as ``received_at`` (preset to what
    #: time it has, 10 s without a timeout), and how long ago its first try was; None: this is it.
    deadline: float
    age_s: float | None
    @property
    def answered(self) -> bool: ...
    @property
    def status(self) -> int:
        """What it was answered with; -1: it wasn't."""

    def put_answer(self, overwritten: bool) -> None: ...
    def get_answer(self, value: bytes | None) -> None:
        """RESOURCE_EXHAUSTED goes out instead where the value is over the unsent budget."""

    def delete_answer(self, deleted: bool) -> None: ...
    def whole_answer(self, message: bytes) -> bool:
        """Of a method that is taken whole. False: over the unsent budget, nothing was done."""

    def reset(self) -> None:
        """End it with no answer: the client is to take its outcome for unknown."""

    def fail(self, status: int, details: str, trailer: Pairs = ()) -> None: ...

def living(calls: list[HotCall]) -> list[HotCall]:
    """Those that are neither answered nor gone."""

def answer_all(calls: list[HotCall], results: list[Any], owners: set[Any]) -> list[int]:
    """Answer each call whose result is one of its method: a bool, of Get bytes or None, bytes of
    those that are taken whole, if there is room for them.

    Adds the ``owner`` of each session that now has something to send to ``owners``. Returns the
    places of the calls that it didn't answer since their results are something else.
    """

class ClientSession(_Session):
    """The client's side of one connection. ``scheme``: http or https."""

    def __init__(
        self,
        limits: Limits,
        received: Budget,
        unsent: Budget,
        authority: str,
        scheme: str,
        user_agent: str = "grpc-python-kvstore",
    ) -> None: ...
    @property
    def accepting(self) -> bool:
        """Whether new calls may begin: no GOAWAY, not broken, numbers of streams left."""

    @property
    def peer_streams_max(self) -> int:
        """How many calls the server allows at one time; more wait here for their turn."""

    def call(
        self,
        path: str,
        metadata: Pairs,
        timeout_s: float | None,
        message: bytes | None,
        unary: bool,
    ) -> int:
        """Begin a call, with its only message if ``unary``; the stream, or 0: a bound was reached.

        A unary call ends with one ANSWER, others tell HEADERS, MESSAGE and FINISHED.
        Raises ValueError for metadata that HTTP/2 doesn't allow.
        """

    def receive(self, data: bytes | bytearray | memoryview, now: float) -> list[Event]:
        """What came of the server, as events in order.

        HEADERS, MESSAGE, FINISHED, ANSWER, GOAWAY, PONG. ``unprocessed`` is True where the server
        surely did nothing of the call.
        """

    def half_close(self, stream: int) -> None:
        """No message follows those that were queued."""

    def cancel(self, stream: int) -> None:
        """Reset the stream; no event of it follows."""

    def goaway(self, h2_code: int = 0) -> None: ...
    def close(self, details: str) -> list[Event]:
        """The connection is gone: every call under way ends with UNAVAILABLE and ``details``."""

def percent_encoded(text: str) -> bytes:
    """As grpc-message carries it."""

def percent_decoded(data: bytes) -> str: ...
