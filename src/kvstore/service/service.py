"""The rules of a request: limits, identity, idempotency, leadership, deadlines, errors.

Group commit: one entry of the log, and one read point, is for all that arrived while those before
it were under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from kvstore.errors import DeadlineExceededError, Error, StorageError, UnavailableError
from kvstore.service.calls import Call, Deadlines
from kvstore.service.limits import breach
from kvstore.service.member import Member, Route
from kvstore.service.operations import Done, Get, Operation, Put, Result
from kvstore.state import (
    Command,
    CommandResult,
    command_bytes,
    delete_command,
    encode_commands,
    put_command,
    request_digest,
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

Waiter = tuple[Call, int]


class _Write:
    """A command on its way, and all the calls that wait for its result."""

    __slots__ = ("command", "waiters")

    def __init__(self, command: Command, waiter: Waiter) -> None:
        self.command = command
        self.waiters = [waiter]


class KVService:
    """Takes operations from fronts to the member that leads. One thread; knows no event loop."""

    def __init__(
        self,
        route: Route,
        *,
        now: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        """``now`` is the monotonic clock in seconds. ``soon`` calls back once, after this turn, and
        ``later`` after so many seconds; without it nothing is gathered for longer than a turn.
        """
        self._route = route
        self._now = now
        self._soon = soon
        self._later = later
        self._deadlines = Deadlines()
        # Gathered, until there is room for them.
        self._writes: list[_Write] = []
        self._write_bytes = 0
        self._reads: list[tuple[bytes, Call, int]] = []
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
        # Gathered, or proposed in this reign, by the digest of the request id.
        self._under_way: dict[bytes, _Write] = {}

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
            else:
                self._gather(member, operation, (call, place))
        self._flush_soon()

    def expire(self) -> None:
        """Give up calls whose deadline has passed. To be called every 100 ms or so."""
        self._deadlines.expire(self._now())
        # What waits behind a leader that went silent is told so.
        self._flush_soon()

    def _refusal(self, deadline: float) -> Error | None:
        if deadline <= self._now():
            return DeadlineExceededError("the deadline had passed when the call arrived")
        if self._deadlines.waiting >= CALLS_MAX or self._write_bytes >= GATHERED_BYTES_MAX:
            return UnavailableError(f"{self._deadlines.waiting} calls wait already")
        return None

    def _gather(self, member: Member, operation: Operation, waiter: Waiter) -> None:
        """Answer a write that was done before, join one under way, or make it a new one."""
        assert not isinstance(operation, Get)
        digest = request_digest(operation.request_id)
        if isinstance(operation, Put):
            command = put_command(digest, operation.key, operation.value)
        else:
            command = delete_command(digest, operation.key)
        before = member.machine.first_result(digest, command.fingerprint)
        if before is not None:
            self._decide(*waiter, before)
            return
        twin = self._under_way.get(digest)
        if twin is not None and twin.command.fingerprint == command.fingerprint:
            twin.waiters.append(waiter)
            return
        # An id that is under way for something else is proposed as well: the log decides which of
        # the two came first, and refuses the other.
        write = _Write(command, waiter)
        if self._under_way:
            self._crowded = True
        self._under_way[digest] = write
        self._writes.append(write)
        self._write_bytes += command_bytes(command)

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
            self._under_way = {write.command.request: write for write in self._writes}
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
        self._write_pause = min(max(wanted, GATHER_S), GATHER_MAX_S)
        for batch in _batches(writes):
            self._entries += 1
            data = encode_commands([write.command for write in batch])
            member.propose(data, partial(self._proposed, self._reign, batch))

    def _refuse_gathered(self, reason: Error) -> None:
        writes, self._writes, self._write_bytes = self._writes, [], 0
        reads, self._reads = self._reads, []
        self._answer_writes(writes, [reason] * len(writes))
        for _, call, place in reads:
            self._decide(call, place, reason)

    def _proposed(
        self, reign: int, batch: Sequence[_Write], outcome: Sequence[CommandResult] | Error
    ) -> None:
        """The entry of ``batch`` was applied, or it never will be, or nobody knows."""
        if reign == self._reign:
            self._entries -= 1
            self._flush_soon()
        if isinstance(outcome, Error):
            self._answer_writes(batch, [outcome] * len(batch))
        else:
            self._answer_writes(batch, outcome)

    def _answer_writes(self, writes: Sequence[_Write], results: Sequence[Result]) -> None:
        for write, result in zip(writes, results, strict=True):
            digest = write.command.request
            if self._under_way.get(digest) is write:
                del self._under_way[digest]
            for call, place in write.waiters:
                self._decide(call, place, result)

    def _readable(
        self,
        reign: int,
        member: Member,
        reads: list[tuple[bytes, Call, int]],
        refusal: Error | None,
    ) -> None:
        """``member`` may be read now, unless there is a ``refusal``."""
        if reign == self._reign:
            self._read_points -= 1
            self._flush_soon()
        get = member.machine.get
        for key, call, place in reads:
            result: Result
            if refusal is not None:
                result = refusal
            else:
                try:
                    result = get(key)
                except StorageError as damage:
                    result = damage
            self._decide(call, place, result)

    def _decide(self, call: Call, place: int, result: Result) -> None:
        if call.decide(place, result):
            self._deadlines.discard(call)


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
