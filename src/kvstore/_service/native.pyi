"""Types of the native parts of the service."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from kvstore._engine.database.native import Iterator
from kvstore.errors import Error, StorageError

# desk.pyx

class _Limits(Protocol):
    """What ``kvstore.service.limits.Limits`` has."""

    @property
    def calls_max(self) -> int: ...

class Read:
    """A call that wants the value of ``key``."""

    key: bytes
    decided: bool

class Entry:
    """Writes that are proposed together: ``data`` is the entry's."""

    data: bytes
    def answer(self, outcome: bytes | Error) -> None:
        """The entry was applied, with a byte for each result, or why nobody knows."""

class Point:
    """Reads that share a read point."""

    def __len__(self) -> int:
        """How many are still to be read."""

    def refuse(self, reason: Error) -> None:
        """Answer all with ``reason``."""

    def read(self, machine: Any, failed: Callable[[StorageError], Error], most: int) -> list[Read]:
        """Answer the next ``most`` reads from memory, or fewer where their values are large.

        ``failed`` says what to answer for what can't be read. Returns those of which only the disk
        knows; they are for :meth:`Desk.decide`.
        """

class Desk:
    """The calls that wait in a service: gathered, proposed, or asked for a read point.

    ``kvstore.service.plain.PlainDesk`` does the same, readably. One thread. Each call goes back to
    the front that it came from, by its ``answered``, when it is decided: exactly once, and with all
    else that is decided at that moment. By then the desk is done with it: whoever gets calls back
    may bring others.
    """

    waiting: int
    """Calls that are undecided."""
    write_bytes: int
    """What the writes weigh that are gathered."""
    def __init__(self, limits: _Limits) -> None: ...
    @property
    def reads(self) -> int:
        """Reads that are gathered."""

    @property
    def writes(self) -> int:
        """Writes that are gathered."""

    @property
    def under_way(self) -> int:
        """Writes that are gathered, or were proposed in this reign and aren't answered."""

    @property
    def fills_entry(self) -> bool:
        """What is gathered is as much as an entry holds."""

    def take(
        self,
        calls: Sequence[Any],
        answered: Callable[[list[Any], list[Any]], object],
        now: float,
        refusal: Error | None,
        machine: Any,
    ) -> None:
        """Gather what ``calls`` ask for; answer at once what is wrong, known, late or too much.

        With a ``refusal`` all else gets that; otherwise ``machine`` knows what was done before.
        """

    def next_entry(self, now: float, time_ms: int, guard: int = 0) -> Entry | None:
        """The oldest writes that are gathered, as many as fit an entry of that time of the log.

        ``guard``: the revision of the users as of which they were let in, 0 if nobody asked.
        Gives up those that nobody waits for any more. None when there are no others.
        """

    def next_point(self, now: float) -> Point | None:
        """All reads that are gathered and that somebody waits for; None when there are none."""

    def refuse(self, reason: Error) -> None:
        """Answer all that is gathered with ``reason``."""

    def new_reign(self) -> None:
        """Another member leads: what was proposed before is no reason not to propose it anew."""

    def expire(self, now: float) -> None:
        """Give up calls whose deadline has passed, but for what :meth:`Point.read` returned."""

    def expire_reads(self, reads: Iterable[Read], now: float) -> None:
        """The same of those."""

    def decide(self, waiters: Iterable[Read], results: Iterable[Any]) -> None:
        """Answer reads that aren't decided yet."""

# messages.pyx

def proposal_of_put(message: bytes, id: bytes) -> bytes | None:
    """A PutRequest's bytes as those of a proposal of nobody's, as ``encode_proposal`` makes them.

    None for what says more than key, value and lease, isn't to be read at a glance, or may be
    refused by its looks.
    """

def proposal_of_txn(message: bytes, id: bytes) -> bytes | None:
    """The same of a TxnRequest whose compares, puts, ranges and deletions are of single keys.

    None also for one that changes nothing.
    """

def key_of_range(message: bytes) -> bytes | None:
    """The key of a RangeRequest that says nothing else, else None."""

class Encoder:
    """Encodes answers of the types that it is given, as protobuf has RangeResponse and so on."""

    def __init__(
        self, range: type[Any], put: type[Any], delete_range: type[Any], txn: type[Any]
    ) -> None: ...
    def response(
        self, answer: Any, cluster_id: int, member_id: int, raft_term: int
    ) -> bytes | None:
        """The response, its header with the answer's revision; None for other types."""

# key_values.pyx

class KeyValues:
    """The keys of a walk, each encoded as a RangeResponse's KeyValue as soon as it is found.

    ``kvstore.state.mvcc.ranges`` and :class:`Encoder` do the same by way of an object for each.
    """

    count: int
    """Keys that it holds."""
    more: bool
    """There was another one behind the ``limit``."""
    is_full: bool
    """There was another one and no room for it."""
    def __init__(self, model_from: int, limit: int, bytes_max: int, keys_only: bool) -> None:
        """``model_from`` as in the state's standing. ``limit``: keys, 0 for all. ``bytes_max``: of
        keys and values, each with 128 more."""

    def take(self, walk: Iterator, most: int) -> bool:
        """Take as many as ``most`` of what is ahead of ``walk``, an iterator of the engine over
        stored keys of users; False when there are no others, or none are wanted.

        Any thread; without the GIL where nothing writes to what is walked. Raises CorruptionError
        and what moving the iterator does.
        """

    def response(
        self, revision: int, count: int, cluster_id: int, member_id: int, raft_term: int
    ) -> bytes:
        """The RangeResponse; ``count``: of all keys in the range."""
