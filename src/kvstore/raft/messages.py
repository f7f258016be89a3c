"""What consensus talks about: entries, hard state, membership, messages and bundles.

All of it is plain data. Treat every value as immutable once it was handed over: the core and its
caller share the objects (and, in one process, the members share them too).

Member ids are positive 63-bit integers; 0 means nobody. Indexes and terms start at 1; index 0 and
term 0 are the place before the first entry (Raft §5.3).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = [
    "NOBODY",
    "Bundle",
    "Entry",
    "EntryKind",
    "Fetch",
    "HardState",
    "Membership",
    "Message",
    "MessageKind",
    "Proposed",
    "ReadState",
    "Role",
    "SnapshotMeta",
]

NOBODY = 0
"""The member id that stands for no member: no vote given, no leader known."""


class Role(enum.IntEnum):
    """What a member is in its current term (Raft §5.1; pre-candidate: dissertation §9.6)."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3


class EntryKind(enum.IntEnum):
    """What an entry's data is. COMMAND is 0 so that a batch is scanned for others cheaply."""

    COMMAND = 0
    """Bytes for the state machine."""
    MEMBERSHIP = 1
    """A :class:`Membership`, encoded by ``kvstore.raft.codec``."""
    EMPTY = 2
    """What a new leader appends so that it can commit in its own term (Raft §8)."""


class Entry(NamedTuple):
    """One place of the log (Raft §5.3). A tuple, because the core makes one for each command.

    ``index`` hides ``tuple.index``, which nobody needs of an entry.
    """

    term: int
    index: int  # type: ignore[assignment]
    kind: EntryKind
    data: bytes


class HardState(NamedTuple):
    """What must be durable before a member answers (Raft figure 2).

    ``commit`` is a hint that saves work at restart and need not be synced; it never names an
    entry that was not durable before. ``damaged``: entries that this member acknowledged may be
    missing here, so it doesn't vote (see ``Raft.damaged``).
    """

    term: int = 0
    vote: int = NOBODY
    commit: int = 0
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class Membership:
    """Who votes and who listens (dissertation §4).

    In a joint configuration (§4.3) ``outgoing`` holds the voters of the old one and both sets
    must agree; otherwise it is empty. ``learners`` get the log and don't vote (§4.2.1). A voter
    that becomes a learner stands in ``outgoing`` and in ``learners`` while the change lasts.
    ``contexts`` maps a member to bytes that the core carries and never reads (its addresses), so
    that the log is the one place which knows the members. ``removed``: ids that were members and
    are none any more, so that whoever comes later knows them as well; they say nothing of who the
    members are, and don't count when memberships are compared.
    """

    voters: frozenset[int] = frozenset()
    outgoing: frozenset[int] = frozenset()
    learners: frozenset[int] = frozenset()
    contexts: tuple[tuple[int, bytes], ...] = ()
    removed: frozenset[int] = field(default=frozenset(), compare=False)

    @property
    def joint(self) -> bool:
        """True while two configurations must both agree (dissertation §4.3)."""
        return bool(self.outgoing)

    @property
    def members(self) -> frozenset[int]:
        """Everybody who gets the log: voters, old and new, and learners."""
        return self.voters | self.outgoing | self.learners

    def is_voter(self, member: int) -> bool:
        """True when the member's vote counts in either half of the configuration."""
        return member in self.voters or member in self.outgoing

    def context(self, member: int) -> bytes:
        """The bytes kept for a member; empty when there are none."""
        for known, context in self.contexts:
            if known == member:
                return context
        return b""


NO_MEMBERS = Membership()
"""Before a member knows its cluster."""


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """The place in the log that a snapshot of the state machine stands for (Raft §7)."""

    index: int = 0
    term: int = 0
    membership: Membership = NO_MEMBERS


NO_HARD_STATE = HardState()
NO_SNAPSHOT = SnapshotMeta()


class MessageKind(enum.IntEnum):
    """The messages between members. Numbers are part of the wire format."""

    PRE_VOTE = 1
    PRE_VOTE_RESPONSE = 2
    VOTE = 3
    VOTE_RESPONSE = 4
    APPEND = 5
    APPEND_RESPONSE = 6
    HEARTBEAT = 7
    HEARTBEAT_RESPONSE = 8
    SNAPSHOT = 9
    TIMEOUT_NOW = 10
    READ = 11
    READ_RESPONSE = 12
    MEND = 13
    MEND_RESPONSE = 14


@dataclass(slots=True)
class Message:
    """One message from a member to a member.

    What the common fields mean for each kind (those not named are 0):

    ================== ==============================================================
    PRE_VOTE, VOTE     ``log_index``, ``log_term``: the candidate's last entry;
                       ``forced``: sent on the leader's own wish (dissertation §3.10).
                       A PRE_VOTE's ``term`` is the one that would be campaigned for
    \\*VOTE_RESPONSE    ``reject``
    APPEND             ``log_index``, ``log_term``: the entry before ``entries``;
                       ``commit``
    APPEND_RESPONSE    ``log_index``: the last entry known equal, or with ``reject`` the
                       APPEND's ``log_index``; then ``hint_index``, ``log_term``: where the
                       logs may be equal at best and the term there (Raft §5.3)
    HEARTBEAT          ``commit``; ``log_index``: the last entry this follower acknowledged
                       in this term; ``context``: the round, or 0 for a mere notice of
                       ``commit`` that wants no answer
    HEARTBEAT_RESPONSE ``context``: the round
    SNAPSHOT           ``snapshot``. On the way out: at least this much is needed (the sender
                       may put a newer one, see ``Raft.snapshot_meta``). On the way in: this
                       snapshot has arrived whole and was verified
    TIMEOUT_NOW        campaign at once (dissertation §3.10)
    READ               ``context``: the asker's id of this try
    READ_RESPONSE      ``context``; ``log_index``: the read index; or ``reject``
    MEND               ``log_index``, ``log_term``: an entry whose data is damaged at the asker
    MEND_RESPONSE      the same; ``entries``: that one, or ``reject``: it isn't here, or with
                       ``damaged`` it is, and its data is damaged here too
    ================== ==============================================================

    ``damaged`` on an answer: the sender lost entries that it had acknowledged and doesn't vote.
    ``ailing`` on a HEARTBEAT_RESPONSE: the sender's storage takes nothing for now.
    """

    kind: MessageKind
    to: int
    sender: int
    term: int
    log_index: int = 0
    log_term: int = 0
    commit: int = 0
    hint_index: int = 0
    context: int = 0
    entries: Sequence[Entry] = ()
    snapshot: SnapshotMeta | None = None
    reject: bool = False
    forced: bool = False
    damaged: bool = False
    ailing: bool = False


@dataclass(frozen=True, slots=True)
class ReadState:
    """A read that may be served once ``applied >= index`` (dissertation §6.4)."""

    context: int
    index: int


class Proposed(NamedTuple):
    """Where proposals were put: entries ``first`` to ``last`` in ``term``.

    They are committed when an entry of this term is offered at that index; an entry of another
    term there, or a snapshot past it, means that the outcome isn't known from here.
    """

    term: int
    first: int
    last: int


class Fetch(NamedTuple):
    """Entries ``first`` to ``last`` to be read back from the disk for a follower.

    At least two, after that as many as have ``bytes_max`` payload bytes. The answer is
    ``Raft.fetched``, always.
    """

    member: int
    first: int
    last: int
    bytes_max: int


@dataclass(slots=True)
class Bundle:
    """What the caller must do now; see ``docs/raft.md`` for the order.

    ``number`` grows by one with each bundle. ``hard_state``, ``snapshot`` and ``entries`` are to
    be written in this order; ``must_sync`` says whether they must also reach the disk. When they
    have (for all bundles up to this one) call ``Raft.stored(number)``; where ``must_sync`` is
    false that call isn't needed.

    ``messages`` go out at once, before or after the write. ``committed`` entries are applied in
    order, then ``Raft.applied(index)``. ``snapshot`` asks for the snapshot received with these
    very values to be installed as the state machine, but where that holds as much already (of a
    member that lost its log); ``stored`` confirms that too, and entries after it are offered only
    then. ``read_states`` are reads that may go on, ``reads_failed``
    contexts of reads that were given up: nobody could prove leadership in time, a retry is safe.
    ``fetches`` are to be read from the disk, beside everything else, for ``Raft.fetched``.
    ``mends`` are entries that are hollow here: their data is to be compared with what is known of
    it and written in its place, for ``Raft.mended``.
    """

    number: int
    hard_state: HardState | None = None
    snapshot: SnapshotMeta | None = None
    entries: Sequence[Entry] = ()
    must_sync: bool = False
    messages: list[Message] = field(default_factory=list)
    committed: Sequence[Entry] = ()
    read_states: Sequence[ReadState] = ()
    reads_failed: Sequence[int] = ()
    fetches: Sequence[Fetch] = ()
    mends: Sequence[Entry] = ()
