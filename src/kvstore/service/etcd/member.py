"""What the service needs of the member that takes its calls, and of the way to another one."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from kvstore.errors import Error, StorageError
from kvstore.etcd_errors import EtcdError
from kvstore.raft import Membership
from kvstore.replica.options import ReplicaStatus
from kvstore.service.etcd.watch_source import Source
from kvstore.state import Cold
from kvstore.state.mvcc.answers import Answer, GatheredAnswer, HashAnswer, RangeAnswer, TxnAnswer
from kvstore.state.mvcc.auth import Auth
from kvstore.state.mvcc.ranges import MakeGathered
from kvstore.state.mvcc.records import LeaseRecord
from kvstore.state.mvcc.requests import Range, Txn

__all__ = ["Answers", "Listener", "LocalMember", "Model", "PassOn", "Passed"]

Answers = Sequence[tuple[bytes, Answer | EtcdError]]
"""What proposals came to that were applied, by their ids."""


class Model(Source, Protocol):
    """A state machine. What reads raises EtcdError, StorageError and ClosedError."""

    @property
    def model_enabled(self) -> bool:
        """Its keys have revisions."""

    @property
    def level(self) -> int:
        """What entries may have: see :class:`kvstore.state.mvcc.requests.RaiseLevel`."""

    @property
    def applied_term(self) -> int: ...

    @property
    def clock_ms(self) -> int:
        """The log's clock, as of what it has applied."""

    @property
    def alarms(self) -> Collection[tuple[int, int]]:
        """``(member, kind)`` of those that stand."""

    @property
    def auth(self) -> Auth:
        """Who may do what; another object whenever that has changed. Any thread."""

    @property
    def write_delay_s(self) -> float: ...

    @property
    def stored_bytes(self) -> int:
        """What it takes in tables and in memory."""

    def read_range(self, operation: Range, step: Callable[[], None] = ...) -> RangeAnswer:
        """Any thread; may ask the disk, as the others do. ``step`` is called now and then, however
        little is found; what it raises ends the reading."""

    def gather_range(
        self, operation: Range, make: MakeGathered, step: Callable[[], None] = ..., /
    ) -> GatheredAnswer | RangeAnswer:
        """The same, its keys in what ``make`` makes where that is possible."""

    def read_range_cached(self, operation: Range) -> RangeAnswer | Cold:
        """A single key, from memory alone."""

    def read_keys_cached(self, keys: list[bytes]) -> list[RangeAnswer | None]:
        """Of each key the same, None where that isn't enough."""

    def read_txn(self, operation: Txn, step: Callable[[], None] = ...) -> TxnAnswer: ...

    def hash_kv(self, revision: int) -> HashAnswer:
        """Of all that it remembers up to ``revision``, 0 for the current one."""

    def leases(self) -> Mapping[int, LeaseRecord]:
        """All leases by their ids; always the present ones, from memory."""

    def lease_keys(self, lease: int, step: Callable[[], None] = ...) -> Iterable[bytes]:
        """The keys on a lease; any thread, may ask the disk. ``step`` as of :meth:`read_range`."""

    def reclaim(self) -> None:
        """Give back the room of what is compacted; any thread."""


class LocalMember(Protocol):
    """A replica of this process. Callbacks come later, on the thread that drives it, each once."""

    @property
    def member(self) -> int: ...

    @property
    def machine(self) -> Model: ...

    @property
    def failure(self) -> Error | None:
        """Why it does nothing any more."""

    @property
    def leader(self) -> int:
        """The leader it knows, 0 for none."""

    @property
    def is_leader(self) -> bool: ...

    @property
    def has_quorum_contact(self) -> bool: ...

    @property
    def term(self) -> int: ...

    @property
    def membership(self) -> Membership: ...

    @property
    def log_bytes(self) -> int:
        """What was ever written to its log, since it was opened."""

    @property
    def lacks_room(self) -> bool:
        """Its disk is full: it takes no writes until there is room."""

    @property
    def state_is_damaged(self) -> bool:
        """Nobody is to be answered from its state until another one is in its place."""

    def free_bytes(self) -> int:
        """What its disk has left. Asks the disk; any thread."""

    def log_time_ms(self) -> int: ...

    def propose(
        self,
        data: bytes,
        done: Callable[[bytes | Error], None],
        taken: Callable[[int], None] | None = None,
    ) -> None:
        """See :meth:`kvstore.replica.Replica.propose`."""

    def read(self, done: Callable[[Error | None], None]) -> None:
        """See :meth:`kvstore.replica.Replica.read`; followers ask their leader."""

    def status(self) -> ReplicaStatus: ...

    def reads_take(self, ticks: int, reader: str) -> None: ...

    def read_failed(self, error: StorageError) -> Error: ...


class Listener(Protocol):
    """Is told what the local member applies, on the thread that drives it. Raises nothing."""

    def applied(self, answers: Answers, revision: int) -> None:
        """A slice of entries was applied, whether or not there was a proposal in it."""

    def installed(self) -> None:
        """The state is another one: of a snapshot, or of another member of this process."""


class Passed(enum.Enum):
    """What became of proposals on their way to the leader."""

    TAKEN = enum.auto()
    """They are in its log, of the term that was said."""
    REFUSED = enum.auto()
    """They aren't, and won't be."""
    NO_ROOM = enum.auto()
    """Nor, and the leader's disk is full: it isn't worth trying again at once."""
    LOST = enum.auto()
    """Nobody knows."""


PassOn = Callable[[int, int, Sequence[bytes], float, Callable[[Passed], None]], None]
"""(leader, term, encoded proposals, seconds, done): have the leader propose them in ``term``."""
