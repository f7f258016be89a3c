"""The rules of a request: limits, identity, idempotency, leadership, deadlines, errors.

Group commit: one entry of the log, and one read point, is for all that arrived while those before
it were under way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from kvstore.errors import (
    DeadlineExceededError,
    Error,
    InternalError,
    OverloadedError,
)
from kvstore.replica.work import AtOnce, Work
from kvstore.service.calls import Call, Deadlines
from kvstore.service.limits import breach
from kvstore.service.member import Member, Route
from kvstore.service.operations import Delete, Done, Get, OpenSession, Operation, Put, Result
from kvstore.service.reading import Read, Reading
from kvstore.service.request_ids import understand
from kvstore.state import (
    SESSION_BYTES,
    Command,
    CommandKind,
    command_bytes,
    delete_command,
    encode_commands,
    open_command,
    put_command,
    result_of,
)

__all__ = ["KVService"]

# One entry of the log: up to this many commands, or this many bytes (one may be larger).
ENTRY_COMMANDS_MAX = 1024
ENTRY_BYTES_MAX = 1 << 20

# Entries, and read points, under way at one time: one that is being committed and one behind it, so
# that the disk never waits. With more, entries get smaller and each costs as much as a large one.
ENTRIES_MAX = 2
READ_POINTS_MAX = 2

# Between two entries of a service that has several writes at one time, and between two read points
# of one that has several reads. A loop takes calls in one by one; while it only drives the members
# it takes none, and each call becomes an entry, or a round of heartbeats, of its own.
GATHER_S = 0.002

# With many writes under way entries are further apart, so long for each of those writes, up to a
# bound: an entry costs a cluster its frames and syncs, a millisecond of processor time, whatever
# it holds.
GATHER_A_WRITE_S = 0.0005
GATHER_MAX_S = 0.005

# Calls that wait at one time, and what their writes may weigh before they are proposed; one more
# is refused with UnavailableError.
CALLS_MAX = 16_384
GATHERED_BYTES_MAX = 64 << 20

# Between the moment in which a client writes its request's age down and the one in which it is read
# here, at most: connections that stand still longer than that are given up by keepalives.
DELAY_S = 15.0

Waiter = tuple[Call, int]
# What two tries of one write have in common: the request's digest, or its session, and a sequence.
Identity = tuple[bytes, int]


class _Write:
    """A command on its way, and all the calls that wait for its result.

    ``sent_at``: a retry, of what was first sent then or later, by the service's clock.
    """

    __slots__ = ("command", "sent_at", "waiters")

    def __init__(self, command: Command, waiter: Waiter, sent_at: float | None) -> None:
        self.command = command
        self.waiters = [waiter]
        self.sent_at = sent_at

    @property
    def identity(self) -> Identity:
        return self.command.request, self.command.sequence

    def at(self, now: float, time_ms: int) -> Command:
        """The command as it is proposed at ``time_ms`` of the log's clock."""
        if self.sent_at is None:
            return self.command
        # The log's clock runs no faster than ours: it was not earlier there.
        since = time_ms - int((now - self.sent_at) * 1000) - 1
        return self.command._replace(since=max(since, 0))


class KVService:
    """Takes operations from fronts to the member that leads. One thread; knows no event loop."""

    def __init__(
        self,
        route: Route,
        *,
        now: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], object] | None = None,
        draw: Callable[[int], bytes] = os.urandom,
        delay_s: float = DELAY_S,
        work: Work | None = None,
    ) -> None:
        """``now`` is the monotonic clock in seconds. ``soon`` calls back once, after this turn, and
        ``later`` after so many seconds; without it nothing is gathered for longer than a turn.
        ``draw`` gives random bytes, for the ids of sessions; ``delay_s`` see :data:`DELAY_S`.
        ``work`` reads what lies on the disk, at once if it isn't given.
        """
        self._route = route
        self._now = now
        self._soon = soon
        self._later = later
        self._draw = draw
        self._delay_s = delay_s
        self._deadlines = Deadlines()
        self._reading = Reading(
            self._decide, now=now, soon=soon, work=AtOnce() if work is None else work
        )
        # Gathered, until there is room for them.
        self._writes: list[_Write] = []
        self._write_bytes = 0
        self._reads: list[Read] = []
        self._reads_are_due = False
        self._writes_are_due = False
        # When an entry was made last, and whether a write has met another one since.
        self._proposed_at = now()
        self._crowded = False
        self._write_pause = GATHER_S
        # The same of read points.
        self._asked_at = now()
        self._reads_crowded = False
        # Who was asked last, how much it has under way, and how often that one has changed.
        self._member: Member | None = None
        self._reign = 0
        self._entries = 0
        self._read_points = 0
        # Gathered, or proposed in this reign.
        self._under_way: dict[Identity, _Write] = {}

    def submit(self, operations: Sequence[Operation], deadline: float, done: Done) -> None:
        """See :class:`kvstore.service.operations.Service`."""
        if not operations:
            done(())
            return
        call = Call(len(operations), done)
        refusal = self._refusal(deadline)
        member = refusal if refusal is not None else self._ask_route()
        self._deadlines.add(call, deadline)
        for place, operation in enumerate(operations):
            wrong = breach(operation)
            if wrong is not None:
                self._decide(call, place, wrong)
            elif isinstance(member, Error):
                self._decide(call, place, member)
            elif isinstance(operation, Get):
                self._reads.append((operation.key, call, place))
                if self._read_points:
                    self._reads_crowded = True
            elif isinstance(operation, OpenSession):
                self._take(_Write(open_command(self._draw(SESSION_BYTES)), (call, place), None))
            else:
                self._gather(member, operation, (call, place))
        self._flush_soon()

    def expire(self) -> None:
        """Give up calls whose deadline has passed. To be called every 100 ms or so."""
        self._deadlines.expire(self._now())
        self._reading.expire()
        # What waits behind a leader that went silent is told so.
        self._flush_soon()

    def _refusal(self, deadline: float) -> Error | None:
        if deadline <= self._now():
            return DeadlineExceededError("the deadline had passed when the call arrived")
        if self._deadlines.waiting >= CALLS_MAX or self._write_bytes >= GATHERED_BYTES_MAX:
            return OverloadedError(f"{self._deadlines.waiting} calls wait already")
        return None

    def _gather(self, member: Member, operation: Put | Delete, waiter: Waiter) -> None:
        """Answer a write that was done before, join one under way, or make it a new one."""
        named = understand(operation.request_id)
        if isinstance(named, Error):
            self._decide(*waiter, named)
            return
        request, sequence, floor = named
        if isinstance(operation, Put):
            command = put_command(request, operation.key, operation.value, sequence, floor)
        else:
            command = delete_command(request, operation.key, sequence, floor)
        before = member.machine.first_result(request, command.fingerprint, sequence)
        if before is not None:
            self._decide(*waiter, before)
            return
        twin = self._under_way.get((request, sequence))
        if twin is not None and twin.command.fingerprint == command.fingerprint:
            twin.waiters.append(waiter)
            return
        # An id that is under way for something else is proposed as well: the log decides which of
        # the two came first, and refuses the other.
        sent_at = None
        if operation.age_s is not None and not sequence:
            sent_at = self._now() - operation.age_s - self._delay_s
        self._take(_Write(command, waiter, sent_at))

    def _take(self, write: _Write) -> None:
        """Have ``write`` proposed."""
        if self._under_way:
            self._crowded = True
        self._under_way[write.identity] = write
        self._writes.append(write)
        self._write_bytes += command_bytes(write.command)

    def _flush_soon(self) -> None:
        if self._reads and not self._reads_are_due:
            self._reads_are_due = True
            crowded = self._reads_crowded or len(self._reads) > 1
            earliest = self._asked_at + GATHER_S if crowded else 0.0
            self._flush_at(earliest, self._flush_reads)
        if self._writes and not self._writes_are_due:
            self._writes_are_due = True
            earliest = self._proposed_at + self._write_pause if self._crowded else 0.0
            self._flush_at(earliest, self._flush_writes)

    def _flush_at(self, earliest: float, flush: Callable[[], None]) -> None:
        """Call ``flush`` soon, but not before ``earliest`` where something can call later."""
        if self._later is not None:
            pause = earliest - self._now()
            if pause > 0:
                self._later(pause, flush)
                return
        self._soon(flush)

    def _ask_route(self) -> Member | Error:
        """The member to ask now, or why there is none; notes when that is another one."""
        member = self._route()
        if member is not self._member and not isinstance(member, Error):
            self._member = member
            self._reign += 1
            self._entries = self._read_points = 0
            # The one before may never answer: a retry is proposed anew, and the log sees to it that
            # it is done once.
            self._under_way = {write.identity: write for write in self._writes}
        return member

    def _leading(self) -> Member | None:
        """The member to ask now; None when there is none, and all that was gathered is refused."""
        member = self._ask_route()
        if isinstance(member, Error):
            self._refuse_gathered(member)
            return None
        return member

    def _flush_reads(self) -> None:
        """Ask for a read point for what was gathered, if there is room for one more."""
        self._reads_are_due = False
        member = self._leading()
        if member is None or not self._reads or self._read_points >= READ_POINTS_MAX:
            return
        reads, self._reads = self._reads, []
        self._asked_at = self._now()
        self._reads_crowded = len(reads) > 1
        self._read_points += 1
        member.read(partial(self._readable, self._reign, member, reads))

    def _flush_writes(self) -> None:
        """Propose what was gathered, if there is room for one more entry."""
        self._writes_are_due = False
        member = self._leading()
        if member is None or not self._writes or self._entries >= ENTRIES_MAX:
            return
        writes, self._writes, self._write_bytes = self._writes, [], 0
        self._proposed_at = self._now()
        self._crowded = len(writes) > 1
        wanted = GATHER_A_WRITE_S * len(self._under_way)
        self._write_pause = min(max(wanted, GATHER_S), GATHER_MAX_S) + member.machine.write_delay_s
        time_ms = member.log_time_ms()
        for batch in _batches(writes):
            self._entries += 1
            commands = [write.at(self._proposed_at, time_ms) for write in batch]
            data = encode_commands(commands, time_ms)
            member.propose(data, partial(self._proposed, self._reign, batch))

    def _refuse_gathered(self, reason: Error) -> None:
        writes, self._writes, self._write_bytes = self._writes, [], 0
        reads, self._reads = self._reads, []
        self._answer_writes(writes, [reason] * len(writes))
        for _, call, place in reads:
            self._decide(call, place, reason)

    def _proposed(self, reign: int, batch: Sequence[_Write], outcome: bytes | Error) -> None:
        """The entry of ``batch`` was applied, or it never will be, or nobody knows."""
        if reign == self._reign:
            self._entries -= 1
            self._flush_soon()
        if isinstance(outcome, Error):
            self._answer_writes(batch, [outcome] * len(batch))
        else:
            self._answer_writes(batch, [result_of(code) for code in outcome])

    def _answer_writes(self, writes: Sequence[_Write], results: Sequence[Result]) -> None:
        for write, result in zip(writes, results, strict=True):
            if self._under_way.get(write.identity) is write:
                del self._under_way[write.identity]
            if write.command.kind == CommandKind.OPEN_SESSION and not isinstance(result, Error):
                result = _opened(write.command, result)
            for call, place in write.waiters:
                self._decide(call, place, result)

    def _readable(
        self,
        reign: int,
        member: Member,
        reads: list[Read],
        refusal: Error | None,
    ) -> None:
        """``member`` may be read now, unless there is a ``refusal``."""
        if reign == self._reign:
            self._read_points -= 1
            self._flush_soon()
        if refusal is None:
            self._reading.answer(member, reads)
            return
        for _, call, place in reads:
            self._decide(call, place, refusal)

    def _decide(self, call: Call, place: int, result: Result) -> None:
        if call.decide(place, result):
            self._deadlines.discard(call)


def _opened(command: Command, result: Result) -> Result:
    if result is not True:
        return InternalError("a session's id was drawn twice")
    return command.request.hex().encode()


def _batches(writes: list[_Write]) -> list[list[_Write]]:
    """Cut what was gathered into what fits an entry."""
    batches: list[list[_Write]] = []
    room = 0
    for write in writes:
        size = command_bytes(write.command)
        if size > room or len(batches[-1]) >= ENTRY_COMMANDS_MAX:
            batches.append([])
            room = ENTRY_BYTES_MAX
        batches[-1].append(write)
        room -= size
    return batches
