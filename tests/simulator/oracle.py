"""What must hold after each step: the promises of Raft figure 3, and a model of the store.

The oracle sees every entry that any member puts into its log or applies. It keeps the one history
that all members must share, and applies it to plain dicts, with which each member is compared.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from operator import itemgetter
from zlib import crc32

from kvstore.raft import Entry, EntryKind, Message, MessageKind, Role
from kvstore.replica import Replica
from kvstore.state import (
    Command,
    CommandKind,
    MemoryBounds,
    StateMachine,
    decode_commands,
    decode_time,
)
from kvstore.state.mvcc.answers import Event, KeyValue
from kvstore.state.mvcc.operations import (
    decode_operations,
    decode_operations_time,
    is_operations,
)
from kvstore.state.mvcc.requests import Compact, EnableModel, Operation
from kvstore.state.stored import NOTHING_COMPACTED
from tests.simulator.trace import Violation

__all__ = ["Model", "Oracle"]

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
        self._model_from = 0
        # From which index on which revision is the bound of history; empty while the model is off.
        self._compacted: list[tuple[int, int]] = []
        # Under the model: what each revision after that one did, and what keys hold by it.
        self._events: list[Event] = []
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
                self._operate(proposal.operation)
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

    def _operate(self, operation: Operation) -> None:
        revision = self.revisions[-1]
        if isinstance(operation, EnableModel):
            if not self._model_from:
                self._model_from = self.revisions[-1] = max(revision, 1)
                self._compacted.append((self.index, revision or NOTHING_COMPACTED))
        elif self._model_from:
            assert isinstance(operation, Compact)
            if self._compacted[-1][1] < operation.revision <= revision:
                self._compacted.append((self.index, operation.revision))

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
        put = command.kind == CommandKind.PUT
        if put or existed or not self._model_from:
            self.revisions[-1] += 1
            self._note_event(command, self.revisions[-1])
        self._values.setdefault(command.key, []).append(
            (self.index, command.value if put else None)
        )
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

    def _note_event(self, command: Command, revision: int) -> None:
        """What changes a key at ``revision``."""
        key = command.key
        before = self._keys.pop(key, None)
        changed = before.mod_revision if before else 0
        if command.kind == CommandKind.PUT:
            created = before.create_revision if before else revision
            # The model knows no versions of the time before it.
            version = before.version + 1 if before and self._model_from else 1
            if not self._model_from:
                created = revision
            after = KeyValue(key, created, revision, version, command.value, 0)
            self._keys[key] = after
            event = Event(False, after, changed)
        else:
            event = Event(True, KeyValue(key, 0, revision, 0, b"", 0), changed)
        if self._model_from:
            self._events.append(event)

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
        for key in self._values:
            self.compare_key(member, machine, key)
        self._compare_events(member, machine)
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

    def _compare_events(self, member: str, machine: StateMachine) -> None:
        """All that ever changed under the model, one event after the other."""
        place = bisect_right(self._compacted, machine.applied_index, key=itemgetter(0))
        if machine.model_enabled != (place > 0):
            raise Violation(f"{member} has the model {'off' if place else 'on'}")
        if not place:
            return
        compacted = self._compacted[place - 1][1]
        if machine.compacted != compacted:
            raise Violation(f"{member} is compacted to {machine.compacted}, expected {compacted}")
        events: list[Event] = []
        oldest = max(self._model_from + 1, compacted)
        first, last, sub = oldest, machine.revision, 0
        while first <= last:
            page = machine.events(first, last, EVENT_PAGE_BYTES, sub=sub)
            events += [event for _, of_it in page.revisions for event in of_it]
            first, sub = page.next_revision, page.next_sub
        expected = self._events[oldest - self._model_from - 1 : last - self._model_from]
        for told, event in zip_longest(events, expected):
            if told != event:
                raise Violation(f"{member} tells of {told}, expected {event}")

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
                self.model.apply(entry)
            elif self.committed[applied - 1] != entry:
                raise Violation(
                    f"member {member} applies {_tell(entry)}, another one applied "
                    f"{_tell(self.committed[applied - 1])} (state machine safety, Raft §5.4.3)"
                )

    def saw_applied(self, member: int, machine: StateMachine, entries: Sequence[Entry]) -> None:
        """A member has applied ``entries``."""
        self._check_hash(member, machine)
        name = f"member {member}"
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
        if newest.term <= raft.term and log.term(committed) != newest.term:
            raise Violation(
                f"member {raft.id} leads in term {raft.term} without the committed "
                f"{_tell(newest)} (leader completeness, Raft §5.4)"
            )

    @property
    def terms(self) -> int:
        """Terms that had a leader."""
        return len(self._leaders)


def _tell(entry: Entry) -> str:
    return f"{entry.kind.name} entry {entry.index} of term {entry.term}"


def _short(value: bytes | None) -> str:
    if value is None or len(value) <= 24:
        return repr(value)
    return f"{value[:20]!r}... of {len(value)} bytes"
