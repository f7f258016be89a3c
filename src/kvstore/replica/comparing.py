"""Members compare their states while they serve: who differs from the others is found, and named.

The leader asks all members, itself included, for what their state is after an entry that none of
them has applied yet, or that all stand at: the hash of all that was applied to it (which tells of a
member that came to another outcome), and the hash of a range of the rows that it holds (which tells
of bytes that changed since, under checksums that are right). A round takes as long as the entry
takes to be applied. Every second one goes on where the range ended, so that in time all rows are
seen; the others begin at the key that changed last, so that a member which stores something else
than it should is found while it does.

Nobody is accused by one round: who differs is asked again at once, for the same rows. One that
goes on to differ doesn't keep the others from being compared: it is asked for these now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from kvstore.errors import ClosedError, CorruptionError, Error, IntegrityCode, StorageError
from kvstore.raft import Raft, Role
from kvstore.replica.applying import Applying
from kvstore.replica.differing import Difference, odd_ones
from kvstore.replica.failing import as_damage
from kvstore.replica.options import ReplicaOptions
from kvstore.replica.packets import Packet, StateProbe, StateReport, Transport, Verdict
from kvstore.replica.scrub_rate import bytes_per_s
from kvstore.replica.ticks import ticks_of
from kvstore.replica.work import Jobs
from kvstore.state import Captured, RowsHash

__all__ = ["Accusation", "Comparing", "ComparisonFigures"]

NEWEST_BYTES: Final = 16 << 10
"""Of rows from the one on that changed last."""

SILENT_S: Final = 10.0
"""A member whose state wasn't compared for so long is told of."""


SAME_ROWS_MAX: Final = 3
"""So often in a row a member that differs in rows is asked for them again; then every third time,
so that others are compared as well, however long it differs, or doesn't say."""

Span = tuple[bytes, int]
"""First key and bytes of the rows that a round is about; no bytes where there is none."""


class Accusation(NamedTuple):
    """A member's state differs: ``why``, in words, as was confirmed ``times`` times by now.

    ``is_attributed``: a majority of the voters agrees on another one. ``is_unattributed``: nobody
    knows whose is right. Neither: those who would decide didn't tell.
    """

    why: str
    times: int
    is_attributed: bool = True
    is_unattributed: bool = False


class ComparisonFigures(NamedTuple):
    """``compared_s``: since this member's state was last found to be the others' (or, before that
    ever was, since it was opened); None where there are no others, or nobody compares. ``accused``:
    members whose states differ, and how; ``uncompared``: other members whose states couldn't be
    compared for too long, and why. A leader alone knows these two. ``rounds``: that it began as
    leader; ``differences``: found in them."""

    compared_s: float | None
    accused: Mapping[int, Accusation]
    uncompared: Mapping[int, str]
    rounds: int
    differences: int


@dataclass(slots=True)
class _Round:
    """A question to all members, for some rows, and what they said. ``states``: hash and
    revision."""

    number: int
    index: int
    asked: frozenset[int]
    span: Span
    states: dict[int, tuple[int, int] | None] = field(default_factory=dict)
    rows: dict[int, RowsHash] = field(default_factory=dict)


@dataclass(slots=True)
class _Suspicion:
    """A member differed, in outcomes, None, or in these rows; how often it was asked for them."""

    rows: Span | None
    asked: int = 0

    @property
    def is_fresh(self) -> bool:
        return self.asked < SAME_ROWS_MAX


class Comparing:
    """Of one member, which asks while it leads and answers who leads. On the replica's thread."""

    def __init__(
        self,
        member: int,
        raft: Raft,
        applying: Applying,
        jobs: Jobs,
        transport: Transport,
        options: ReplicaOptions,
        *,
        understands: Callable[[int], bool],
        damaged: Callable[[StorageError], None],
    ) -> None:
        """``understands``: whether a member is known to take probes. ``damaged`` is told of what
        is wrong with this member: rows that can't be read, or a state that differs from that of a
        majority."""
        self._member = member
        self._raft = raft
        self._applying = applying
        self._jobs = jobs
        self._transport = transport
        self._understands = understands
        self._damaged = damaged
        self._tick_s = options.tick_s
        self._round_s = options.scrub_round_s
        self._pause_ticks = (
            0 if not options.compare_s else ticks_of(options.compare_s, self._tick_s)
        )
        self._silent_ticks = ticks_of(SILENT_S, self._tick_s)
        applying.paused = self._reached
        self._now = 0
        # What this member was asked, until its state is there.
        self._wanted: StateProbe | None = None
        self._agreed_at = 0
        # As leader of this term.
        self._term = 0
        self._due = 0
        self._round: _Round | None = None
        # Where the range of those rows goes on that in time are all.
        self._cursor = b""
        self._compared_at: dict[int, int] = {}
        # They differed when they were asked last.
        self._suspects: dict[int, _Suspicion] = {}
        self._accused: dict[int, Accusation] = {}
        self._verdicts: dict[int, Verdict] = {}
        self._rounds = 0
        self.differences = 0
        """Rounds that found any."""

    def figures(self) -> ComparisonFigures:
        """This moment."""
        others = self._raft.membership.members - {self._member}
        compared = None
        if others and self._pause_ticks:
            compared = (self._now - self._agreed_at) * self._tick_s
        leads = self._raft.role is Role.LEADER
        return ComparisonFigures(
            compared,
            dict(self._accused) if leads else {},
            {member: why for member in sorted(others) if (why := self._why_not(member))},
            self._rounds,
            self.differences,
        )

    def _why_not(self, member: int) -> str:
        """Why the state of another member isn't compared for too long; empty where it is."""
        if self._raft.role is not Role.LEADER or not self._pause_ticks:
            return ""
        silent = self._now - self._compared_at.get(member, self._now)
        if silent <= self._silent_ticks:
            return ""
        why = "it doesn't tell it"
        if not self._understands(member):
            why = "it isn't known to understand the question: away, or of an older version"
        return f"not compared for {silent * self._tick_s:.0f} s: {why}"

    def take(self, packet: StateProbe | StateReport) -> None:
        """Another member asks, or answers."""
        if isinstance(packet, StateProbe):
            self._take_probe(packet)
        else:
            self._take_report(packet)

    # --- asking, while it leads ----------------------------------------------------------------

    def tick(self) -> None:
        """One tick has passed."""
        self._now += 1
        if self._wanted is not None and self._wanted.index <= self._applying.machine.applied_index:
            self._reached()
        raft = self._raft
        if raft.role is not Role.LEADER or not self._pause_ticks:
            self._round = None
            return
        if raft.term != self._term:
            self._begin_term()
        if self._now >= self._due:
            self._end_round()
            self._begin_round()

    def _begin_term(self) -> None:
        self._term = self._raft.term
        self._round = None
        self._due = self._now
        self._compared_at.clear()
        self._suspects.clear()
        self._accused.clear()
        self._verdicts.clear()

    def _begin_round(self) -> None:
        raft = self._raft
        members = raft.membership.members
        for known in (self._compared_at, self._accused, self._verdicts):
            for gone in known.keys() - members:
                del known[gone]
        for member in members:
            self._compared_at.setdefault(member, self._now)
        # One that went away holds nobody up.
        since = self._now - self._silent_ticks
        for member in list(self._suspects):
            if member not in members or self._compared_at[member] < since:
                del self._suspects[member]
        asked = frozenset(
            member for member in members if member == self._member or self._understands(member)
        )
        self._due = self._now + self._pause_ticks
        if len(asked) < 2 or self._member not in asked:
            return
        # Nobody has applied it yet, or it is the last one and all will stand at it.
        index = raft.last_entry[1]
        self._rounds += 1
        span = start, bytes_max = self._suspects_span(asked) or self._next_span()
        self._round = _Round(self._rounds, index, asked, span)
        probes = [
            StateProbe(
                self._member,
                member,
                raft.term,
                self._rounds,
                index,
                bytes_max,
                self._verdicts.get(member, Verdict.UNKNOWN),
                start,
            )
            for member in sorted(asked)
        ]
        for member in asked:
            # Told once: what it has when it hears that again may be another state.
            if self._verdicts.get(member) is Verdict.DIFFERS:
                del self._verdicts[member]
        self._transport.send([probe for probe in probes if probe.to != self._member])
        self._want(next(probe for probe in probes if probe.to == self._member))

    def _suspects_span(self, asked: frozenset[int]) -> Span | None:
        """The rows that somebody differed in, where it is time to ask for them again."""
        of_rows = [it for member, it in self._suspects.items() if member in asked and it.rows]
        chosen = next((suspicion for suspicion in of_rows if suspicion.is_fresh), None)
        if chosen is None and of_rows and self._rounds % 3 == 0:
            chosen = of_rows[self._rounds // 3 % len(of_rows)]
        if chosen is None:
            return None
        chosen.asked += 1
        return chosen.rows

    def _next_span(self) -> Span:
        """The rows that are next where nobody is suspected."""
        if not self._round_s:
            return b"", 0
        machine = self._applying.machine
        newest = machine.newest_key() if self._rounds % 2 else None
        if newest is not None:
            return newest, NEWEST_BYTES
        pause_s = (2 if machine.model_enabled else 1) * self._pause_ticks * self._tick_s
        rate = bytes_per_s(machine.stored_bytes, self._round_s)
        return self._cursor, int(rate * pause_s) or 1

    def _take_report(self, report: StateReport) -> None:
        """What a member says of its state."""
        asked = self._round
        if (
            asked is None
            or report.term != self._raft.term
            or report.round != asked.number
            or report.index != asked.index
            or report.sender not in asked.asked
        ):
            return
        asked.states[report.sender] = report.state
        if report.rows is not None:
            asked.rows[report.sender] = report.rows
        if asked.states.keys() == asked.asked:
            self._end_round()

    def _end_round(self) -> None:
        """All have answered, or it is time for the next question: what was said?"""
        asked, self._round = self._round, None
        if asked is None:
            return
        states = {member: state for member, state in asked.states.items() if state is not None}
        if len(states) < 2:
            return
        odd = self._odd_ones(Difference(True, asked.index), asked.rows)
        odd |= self._odd_ones(Difference(False, asked.index), states)
        if odd.keys() - self._suspects.keys():
            # The same rows once more, and soon.
            self._due = min(self._due, self._now + 1)
        for member in states:
            self._compared_at[member] = self._now
            # Whose rows differed isn't cleared by other rows, nor where it didn't tell any.
            suspicion = self._suspects.get(member)
            is_cleared = (
                suspicion is None
                or suspicion.rows is None
                or (member in asked.rows and suspicion.rows == asked.span)
            )
            if member in odd or is_cleared:
                self._judge(member, odd.get(member), asked.span)
        self.differences += bool(odd)
        start, _ = asked.span
        # Where this member's rows go on: no other one's word holds the rest up.
        mine = asked.rows.get(self._member)
        is_settled = not any(it.is_fresh for it in self._suspects.values() if it.rows)
        if mine is not None and start == self._cursor and len(asked.rows) > 1 and is_settled:
            self._cursor = mine.next_key or b""

    def _odd_ones(
        self, difference: Difference, told: Mapping[int, object]
    ) -> dict[int, Difference]:
        """Whose word, of those that were told, isn't a majority's."""
        if len(set(told.values())) < 2:
            return {}
        peers = self._raft.status().peers
        here = {peer.member for peer in peers if peer.silent_ticks <= self._silent_ticks}
        silent = (here | {self._member}) - told.keys()
        return odd_ones(difference, told, self._raft.membership, silent)

    def _judge(self, member: int, difference: Difference | None, span: Span) -> None:
        """A member's state was compared with that of others, and some rows."""
        if difference is None:
            self._suspects.pop(member, None)
            self._accused.pop(member, None)
            self._verdicts[member] = Verdict.AGREES
            if member == self._member:
                self._agreed_at = self._now
        elif member not in self._suspects:
            self._suspects[member] = _Suspicion(span if difference.is_of_rows else None)
            self._verdicts.pop(member, None)
        else:
            before = self._accused.get(member)
            times = 1 if before is None else before.times + 1
            attributed = bool(difference.majority), difference.is_unattributed
            self._accused[member] = Accusation(str(difference), times, *attributed)
            self._verdicts[member] = Verdict.DIFFERS if difference.majority else Verdict.UNKNOWN
            if difference.majority and member == self._member:
                self._differs()

    def _differs(self) -> None:
        """A majority agreed on another state than this member's."""
        if self._applying.damage is not None:
            return  # it is being made anew
        self._damaged(
            CorruptionError(
                "its state differs from that of a majority",
                code=IntegrityCode.INVALID_RECORD,
                path=self._applying.path,
            )
        )

    # --- answering -----------------------------------------------------------------------------

    def _take_probe(self, probe: StateProbe) -> None:
        """Another member asks: it is answered if it leads."""
        raft = self._raft
        if probe.term != raft.term or probe.sender != raft.leader:
            return
        if probe.verdict is Verdict.AGREES:
            self._agreed_at = self._now
        elif probe.verdict is Verdict.DIFFERS:
            self._differs()
            self._tell(probe, None, None)
            return
        self._want(probe)

    def _want(self, probe: StateProbe) -> None:
        self._wanted = probe
        self._applying.pause_at = probe.index
        if self._applying.machine.applied_index >= probe.index:
            self._reached()

    def _reached(self) -> None:
        """A slice of entries ended at the index that was asked for, or has gone beyond it."""
        probe, self._wanted = self._wanted, None
        self._applying.pause_at = 0
        if probe is None or probe.term != self._raft.term:
            return
        machine = self._applying.machine
        if (
            machine.applied_index != probe.index
            or self._applying.is_installing
            or self._applying.damage is not None
        ):
            self._tell(probe, None, None)
            return
        state = (machine.state_hash, machine.revision)
        if not probe.bytes_max:
            self._tell(probe, state, None)
            return
        captured = machine.capture()
        read = partial(_read_rows, captured, probe)
        if not self._jobs.start("compare", read, partial(self._read, probe, state, captured)):
            captured.close()
            self._tell(probe, state, None)

    def _read(
        self,
        probe: StateProbe,
        state: tuple[int, int],
        captured: Captured,
        outcome: RowsHash | Error,
    ) -> None:
        captured.close()
        if not isinstance(outcome, Error):
            self._tell(probe, state, outcome)
            return
        self._tell(probe, state, None)
        if isinstance(outcome, StorageError):
            if not outcome.retryable:
                self._damaged(as_damage(outcome))
        elif not isinstance(outcome, ClosedError):  # its state was replaced
            raise outcome

    def _tell(
        self, probe: StateProbe, state: tuple[int, int] | None, rows: RowsHash | None
    ) -> None:
        places = (self._member, probe.sender, probe.term, probe.round, probe.index)
        report = StateReport(*places, state, rows)
        if probe.sender == self._member:
            self._take_report(report)
        else:
            packets: list[Packet] = [report]
            self._transport.send(packets)


def _read_rows(captured: Captured, probe: StateProbe) -> RowsHash:
    return captured.hash_rows(probe.start, probe.bytes_max)
