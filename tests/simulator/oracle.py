"""What must hold after each step: the promises of Raft figure 3, and a model of the store.

The oracle sees every entry that any member puts into its log or applies. It keeps the one history
that all members must share, and applies it to plain dicts (under etcd's model to the oracle of its
unit tests), with which each member is compared.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from operator import itemgetter
from zlib import crc32

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.raft import Entry, EntryKind, Message, MessageKind, Role
from kvstore.replica import Replica
from kvstore.state import (
    Applied,
    Command,
    CommandKind,
    MemoryBounds,
    StateMachine,
    decode_commands,
    decode_time,
)
from kvstore.state.mvcc.answers import Answer, Event, KeyValue
from kvstore.state.mvcc.operations import (
    decode_operations,
    decode_operations_time,
    is_operations,
)
from kvstore.state.mvcc.requests import (
    DeleteRange,
    EnableModel,
    Proposal,
    Put,
    RaiseLevel,
    Range,
)
from kvstore.state.stored import NOTHING_COMPACTED
from tests.simulator.trace import Violation
from tests.unit.state.mvcc.oracle import Oracle as Keyspace

__all__ = ["Model", "Operated", "Oracle", "plain"]

EVENT_PAGE_BYTES = 2000
"""Of events that are read in one go."""


@dataclass(slots=True)
class _Past:
    """What a request got, and from which index until which it is remembered."""

    request: bytes
    sequence: int
    fingerprint: bytes
    result: bool
    since: int
    time_ms: int
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Operated:
    """What an operation of the log came to: the same on every member. ``place``: among all."""

    place: int
    proposal: Proposal
    answer: Answer | EtcdError


@dataclass(slots=True)
class _Session:
    used_ms: int
    floor: int = 1
    results: dict[int, _Past] = field(default_factory=dict)


class Model:
    """The store as it must be after each index. Written to be obviously right.

    It refuses what a member must refuse, and raises Violation where a write is applied twice: by
    whatever rule, that may never be.
    """

    def __init__(self, memory: MemoryBounds | None = None) -> None:
        self.index = 0
        self.revisions = [0]
        """The revision after each index."""
        self._memory = memory or MemoryBounds()
        self._clock_ms = 1
        self._forgotten_ms = 0
        self._values: dict[bytes, list[tuple[int, bytes | None]]] = {}
        self._past: list[_Past] = []
        # Those of `_past` that are remembered now. Without a session: oldest first.
        self._requests: dict[bytes, _Past] = {}
        # In the order of their last use.
        self._sessions: dict[bytes, _Session] = {}
        self._applied: set[tuple[bytes, int]] = set()
        self.model_from = 0
        """The revision at which etcd's model was enabled, 0 before."""
        self.keyspace = Keyspace()
        """All of that model, of no use before."""
        self.operated: dict[bytes, Operated] = {}
        """What became of the operations of the log, by the ids of their proposals."""
        self.on_operated: Callable[[Operated], None] = lambda operated: None
        # From which index on which revision is the bound of history; empty while the model is off.
        self._compacted: list[tuple[int, int]] = []
        # From which index on which leases there are: their TTLs, rests, births.
        self._leases: list[tuple[int, dict[int, tuple[int, int, int]]]] = [(0, {})]
        # What keys hold, of the time before the model.
        self._keys: dict[bytes, KeyValue] = {}

    def apply(self, entry: Entry) -> None:
        """Take the next entry of the history."""
        assert entry.index == self.index + 1
        self.index = entry.index
        self.revisions.append(self.revisions[-1])
        if entry.kind is not EntryKind.COMMAND:
            return
        if is_operations(entry.data):
            self._go_on(decode_operations_time(entry.data))
            for proposal in decode_operations(entry.data):
                self._operate(proposal, entry.term)
            return
        self._go_on(decode_time(entry.data))
        for command in decode_commands(entry.data):
            if command.kind == CommandKind.OPEN_SESSION:
                self._open(command.request)
            elif self._is_new(command):
                self._write(command)

    def _go_on(self, time_ms: int) -> None:
        """The log's clock is at least there."""
        self._clock_ms = max(self._clock_ms, time_ms)
        idle_ms = self._memory.sessions.idle_ms
        for name, session in list(self._sessions.items()):
            if session.used_ms + idle_ms <= self._clock_ms:
                self._forget_session(name)

    def _operate(self, proposal: Proposal, term: int) -> None:
        if proposal.id in self.operated:
            raise Violation(f"{proposal} is applied twice, the second time at {self.index}")
        if isinstance(proposal.operation, EnableModel | RaiseLevel) and not self.model_from:
            self._enable()
        before = self.keyspace.revision
        answer: Answer | EtcdError = EtcdError(Reason.NOT_CAPABLE)
        if self.model_from:
            answer = self.keyspace.apply(proposal, term)
        if isinstance(answer, EtcdError):
            answer = answer.with_traceback(None)  # it keeps no frames alive
        operated = Operated(len(self.operated) + 1, proposal, answer)
        self.operated[proposal.id] = operated
        self._changed(before)
        self.on_operated(operated)

    @property
    def compactions(self) -> set[int]:
        """Revisions that history was ever compacted to."""
        return {compacted for _, compacted in self._compacted}

    def _enable(self) -> None:
        """What is there by now is of the oldest revision that can be told of."""
        revision = self.revisions[-1]
        self.model_from = self.revisions[-1] = max(revision, 1)
        keyspace = self.keyspace
        keyspace.revision = self.model_from
        keyspace.states = {self.model_from: dict(self._keys)}
        keyspace.compacted = revision or NOTHING_COMPACTED
        self._compacted.append((self.index, keyspace.compacted))

    def _changed(self, before: int) -> None:
        """The keyspace was at revision ``before``: note what changed by index."""
        keyspace = self.keyspace
        if not self.model_from:
            return
        if keyspace.revision != before:
            self.revisions[-1] = keyspace.revision
            for event in keyspace.events.get(keyspace.revision, ()):
                value = None if event.is_delete else event.kv.value
                self._values.setdefault(event.kv.key, []).append((self.index, value))
        if keyspace.compacted != self._compacted[-1][1]:
            self._compacted.append((self.index, keyspace.compacted))
        if keyspace.leases != self._leases[-1][1]:
            self._leases.append((self.index, dict(keyspace.leases)))

    def _open(self, name: bytes) -> None:
        bounds = self._memory.sessions
        if len(self._sessions) >= bounds.sessions_max:
            oldest = next(iter(self._sessions))
            if self._sessions[oldest].used_ms + bounds.spared_ms > self._clock_ms:
                return
            self._forget_session(oldest)
        self._sessions[name] = _Session(self._clock_ms)

    def _is_new(self, command: Command) -> bool:
        if not command.sequence:
            known = command.request in self._requests
            lost = command.since is not None and 0 < self._forgotten_ms >= command.since
            return not known and not lost
        session = self._sessions.pop(command.request, None)
        if session is None:
            return False
        self._sessions[command.request] = session
        session.used_ms = self._clock_ms
        session.floor = max(session.floor, command.floor)
        for sequence in [sequence for sequence in session.results if sequence < session.floor]:
            session.results.pop(sequence).until = self.index
        return command.sequence >= session.floor and command.sequence not in session.results

    def _write(self, command: Command) -> None:
        identity = (command.request, command.sequence)
        if identity in self._applied:
            raise Violation(f"{command.key!r} is written twice by one request, at {self.index}")
        self._applied.add(identity)
        existed = self.value(command.key, self.index) is not None
        self._change(command, existed)
        past = _Past(*identity, command.fingerprint, existed, self.index, self._clock_ms)
        self._past.append(past)
        if command.sequence:
            self._sessions[command.request].results[command.sequence] = past
            return
        self._requests[command.request] = past
        if len(self._requests) > self._memory.requests:
            oldest = self._requests.pop(next(iter(self._requests)))
            oldest.until = self.index
            self._forgotten_ms = oldest.time_ms

    def _change(self, command: Command, existed: bool) -> None:
        """Write a key, as one revision."""
        key, value = command.key, command.value
        is_put = command.kind == CommandKind.PUT
        if self.model_from:
            before = self.keyspace.revision
            operation = Put(key, value) if is_put else DeleteRange(key)
            self.keyspace.apply(Proposal(b"", operation), 0)
            self._changed(before)
            return
        revision = self.revisions[-1] = self.revisions[-1] + 1
        self._values.setdefault(key, []).append((self.index, value if is_put else None))
        if is_put:
            # The model knows no versions of the time before it.
            self._keys[key] = KeyValue(key, revision, revision, 1, value, 0)
        elif existed:
            del self._keys[key]

    def _forget_session(self, name: bytes) -> None:
        for past in self._sessions.pop(name).results.values():
            past.until = self.index

    def value(self, key: bytes, index: int) -> bytes | None:
        """What ``key`` holds after ``index``."""
        history = self._values.get(key, [])
        place = bisect_right(history, index, key=lambda change: change[0])
        return history[place - 1][1] if place else None

    def compare(self, member: str, machine: StateMachine) -> None:
        """Every key, every request and the revision of a member, as of what it applied.

        Raises Violation.
        """
        index = machine.applied_index
        if index > self.index:
            raise Violation(f"{member} applied {index}, but only {self.index} is committed")
        if machine.revision != self.revisions[index]:
            raise Violation(
                f"{member} is at revision {machine.revision} after index {index}, "
                f"expected {self.revisions[index]}: something was applied twice or never"
            )
        for key in tuple(self._values):  # a job stands still at a read, others go on
            self.compare_key(member, machine, key)
        self._compare_model(member, machine)
        for past in self._past:
            if past.since > index:
                break
            remembered = machine.first_result(past.request, past.fingerprint, past.sequence)
            expected = past.result if past.until is None or past.until > index else None
            if remembered is not expected:
                raise Violation(
                    f"{member} remembers {remembered} at {index} of a request that got "
                    f"{past.result} at {past.since}, forgotten at {past.until}"
                )

    def _compare_model(self, member: str, machine: StateMachine) -> None:
        """All that can be asked of the model: keys, leases, and every event."""
        index = machine.applied_index
        place = bisect_right(self._compacted, index, key=itemgetter(0))
        if machine.model_enabled != (place > 0):
            raise Violation(f"{member} has the model {'off' if place else 'on'}")
        if not place:
            return
        compacted = self._compacted[place - 1][1]
        if machine.compacted != compacted:
            raise Violation(f"{member} is compacted to {machine.compacted}, expected {compacted}")
        leases = self._leases[bisect_right(self._leases, index, key=itemgetter(0)) - 1][1]
        if machine.leases() != leases:
            raise Violation(f"{member} has leases {machine.leases()} at {index}, expected {leases}")
        for revision in {machine.revision, max(compacted, self.model_from)}:
            self._compare_keys(member, machine, revision)
        self._compare_events(member, machine, max(self.model_from + 1, compacted))

    def _compare_keys(self, member: str, machine: StateMachine, revision: int) -> None:
        keys = self.keyspace.states[revision]
        told = machine.read_range(Range(b"\0", b"\0", revision=revision)).kvs
        for kv, expected in zip_longest(told, [keys[key] for key in sorted(keys)]):
            if kv != expected:
                raise Violation(f"{member} holds {kv} at revision {revision}, expected {expected}")

    def _compare_events(self, member: str, machine: StateMachine, oldest: int) -> None:
        """All that ever changed under the model, one event after the other."""
        events: list[Event] = []
        first, last, sub = oldest, machine.revision, 0
        while first <= last:
            page = machine.events(first, last, EVENT_PAGE_BYTES, sub=sub)
            events += [event for _, of_it in page.revisions for event in of_it]
            first, sub = page.next_revision, page.next_sub
        expected = [
            event._replace(previous=None)
            for revision in range(oldest, last + 1)
            for event in self.keyspace.events.get(revision, ())
        ]
        for told, event in zip_longest(events, expected):
            if told != event:
                raise Violation(f"{member} tells of {told}, expected {event}")

    def compare_answers(self, member: str, applied: Sequence[Applied]) -> None:
        """What a member found that operations came to."""
        for entry in applied:
            for proposal_id, answer in entry.answers:
                expected = self.operated[proposal_id]
                if plain(answer) != plain(expected.answer):
                    raise Violation(
                        f"{member} answers {answer!r} to {expected.proposal.operation}, "
                        f"expected {expected.answer!r}"
                    )

    def compare_key(self, member: str, machine: StateMachine, key: bytes) -> None:
        """One key of a member."""
        expected = self.value(key, machine.applied_index)
        actual = machine.get(key)
        if actual != expected:
            raise Violation(
                f"{member} holds {_short(actual)} under {key!r} after index "
                f"{machine.applied_index}, expected {_short(expected)}"
            )


class Oracle:
    """The one history, and who did what in it. Every method raises Violation."""

    def __init__(self, memory: MemoryBounds | None = None) -> None:
        self.model = Model(memory)
        self.committed: list[Entry] = []
        """Index 1 first."""
        self._hashes: dict[int, int] = {}
        # (index, term) -> (term of the entry before it, checksum): equal in every log.
        self._logs: dict[tuple[int, int], tuple[int, int]] = {}
        self._leaders: dict[int, int] = {}
        # The highest term that had a leader when the newest of them was first applied: it was
        # committed in that one or in an earlier one, whatever its own term is (Raft, figure 8).
        self._committed_in = 0
        # (term, voter) -> for whom.
        self._votes: dict[tuple[int, int], int] = {}

    def saw_message(self, message: Message) -> None:
        """A member sent this: one vote a term, also across restarts (Raft §5.2).

        Whoever asks for votes has voted for itself.
        """
        if message.kind is MessageKind.VOTE:
            candidate = message.sender
        elif message.kind is MessageKind.VOTE_RESPONSE and not message.reject:
            candidate = message.to
        else:
            return
        given = self._votes.setdefault((message.term, message.sender), candidate)
        if given != candidate:
            raise Violation(
                f"member {message.sender} voted for {given} and for {candidate} "
                f"in term {message.term}"
            )

    def saw_entries(self, member: int, before_term: int, entries: Sequence[Entry]) -> None:
        """A member puts ``entries`` into its log after one of ``before_term`` (log matching)."""
        for entry in entries:
            description = (before_term, crc32(entry.data, int(entry.kind)))
            known = self._logs.setdefault((entry.index, entry.term), description)
            if known != description:
                raise Violation(
                    f"member {member}'s log differs from another at index {entry.index}, "
                    f"term {entry.term} (log matching, Raft §5.3)"
                )
            before_term = entry.term

    def saw_committed(self, member: int, applied: int, entries: Sequence[Entry]) -> None:
        """A member is about to apply ``entries`` to a state of index ``applied``."""
        for entry in entries:
            if entry.index != applied + 1:
                raise Violation(
                    f"member {member} applies {entry.index} after {applied}: not in order, once"
                )
            applied += 1
            if applied > len(self.committed):
                self.committed.append(entry)
                self._committed_in = max(self._leaders, default=0)
                self.model.apply(entry)
            elif self.committed[applied - 1] != entry:
                raise Violation(
                    f"member {member} applies {_tell(entry)}, another one applied "
                    f"{_tell(self.committed[applied - 1])} (state machine safety, Raft §5.4.3)"
                )

    def saw_applied(
        self,
        member: int,
        machine: StateMachine,
        entries: Sequence[Entry],
        applied: Sequence[Applied],
    ) -> None:
        """A member has applied ``entries``, which came to ``applied``."""
        name = f"member {member}"
        self.model.compare_answers(name, applied)
        self._check_hash(member, machine)
        if machine.revision != self.model.revisions[machine.applied_index]:
            self.model.compare(name, machine)
        keys = {
            command.key: None
            for entry in entries
            if entry.kind is EntryKind.COMMAND and not is_operations(entry.data)
            for command in decode_commands(entry.data)
        }
        for key in keys:
            self.model.compare_key(name, machine, key)

    def saw_state(self, member: int, machine: StateMachine) -> None:
        """A member has opened a state: after a restart, or from a snapshot."""
        self._check_hash(member, machine)
        self.model.compare(f"member {member}", machine)

    def _check_hash(self, member: int, machine: StateMachine) -> None:
        known = self._hashes.setdefault(machine.applied_index, machine.state_hash)
        if known != machine.state_hash:
            raise Violation(
                f"member {member}'s state differs from another's at {machine.applied_index}"
            )

    def check_leader(self, replica: Replica) -> None:
        """One leader a term (Raft §5.2), and it has all that is committed (Raft §5.4)."""
        raft = replica._raft
        if raft.role is not Role.LEADER:
            return
        if self._leaders.setdefault(raft.term, raft.id) != raft.id:
            raise Violation(
                f"members {self._leaders[raft.term]} and {raft.id} lead in term {raft.term}"
            )
        committed = len(self.committed)
        log = raft._state.log
        if log.offset >= committed or committed == 0:
            return
        newest = self.committed[-1]
        if self._committed_in <= raft.term and log.term(committed) != newest.term:
            raise Violation(
                f"member {raft.id} leads in term {raft.term} without the committed "
                f"{_tell(newest)} (leader completeness, Raft §5.4)"
            )

    @property
    def terms(self) -> int:
        """Terms that had a leader."""
        return len(self._leaders)


def plain(answer: object) -> object:
    """An answer of the model, to be compared: an error stands for its reason."""
    return answer.reason if isinstance(answer, EtcdError) else answer


def _tell(entry: Entry) -> str:
    return f"{entry.kind.name} entry {entry.index} of term {entry.term}"


def _short(value: bytes | None) -> str:
    if value is None or len(value) <= 24:
        return repr(value)
    return f"{value[:20]!r}... of {len(value)} bytes"
