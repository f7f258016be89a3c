"""The calls that wait in a service, one object after another: the readable form.

:class:`kvstore._service.native.Desk` does the same in one call for a batch; tests and the simulator
hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kvstore.errors import Error, StorageError
from kvstore.service.limits import Limits
from kvstore.service.member import Machine
from kvstore.service.operations import Answered, Asked, Method, Result
from kvstore.service.request_ids import understand
from kvstore.state import (
    COLD,
    Command,
    command_bytes,
    delete_command,
    encode_commands,
    open_command,
    put_command,
)

__all__ = ["PlainDesk", "PlainEntry", "PlainPoint", "PlainRead"]

# What two tries of one write have in common: the request's digest, or its session, and a sequence.
Identity = tuple[bytes, int]


class _Waiter:
    """A call, and who gets it back."""

    __slots__ = ("answered", "call", "deadline", "decided")

    def __init__(self, call: Asked, answered: Answered) -> None:
        self.call = call
        self.answered = answered
        self.deadline = call.deadline
        self.decided = False


class PlainRead(_Waiter):
    """A call that wants the value of ``key``."""

    __slots__ = ("key",)

    def __init__(self, call: Asked, answered: Answered) -> None:
        super().__init__(call, answered)
        self.key = call.key


class _Write(_Waiter):
    """A call with its command; ``twins`` are other calls that wait for the same result.

    ``sent_at``: a retry, of what was first sent then or later, by the service's clock.
    """

    __slots__ = ("command", "sent_at", "twins")

    def __init__(
        self, call: Asked, answered: Answered, command: Command, sent_at: float | None
    ) -> None:
        super().__init__(call, answered)
        self.command = command
        self.sent_at = sent_at
        self.twins: list[_Waiter] = []

    @property
    def identity(self) -> Identity:
        return self.command.request, self.command.sequence

    @property
    def waiters(self) -> list[_Waiter]:
        return [self, *self.twins]

    def at(self, now: float, time_ms: int) -> Command:
        """The command as it is proposed at ``time_ms`` of the log's clock."""
        if self.sent_at is None:
            return self.command
        # The log's clock runs no faster than ours: it was not earlier there.
        since = time_ms - int((now - self.sent_at) * 1000) - 1
        return self.command._replace(since=max(since, 0))


class PlainEntry:
    """Writes that are proposed together: ``data`` is the entry's."""

    def __init__(self, desk: PlainDesk, writes: Sequence[_Write], data: bytes) -> None:
        self._desk = desk
        self.writes = writes
        self.data = data

    def answer(self, outcome: bytes | Error) -> None:
        """The entry was applied, with a byte for each result, or why nobody knows."""
        self._desk.answer_entry(self, outcome)

    def waiters(self) -> Iterable[_Waiter]:
        return (waiter for write in self.writes for waiter in write.waiters)


class PlainPoint:
    """Reads that share a read point."""

    def __init__(self, desk: PlainDesk, reads: Sequence[PlainRead]) -> None:
        self._desk = desk
        self.reads = reads
        self._next = 0

    def __len__(self) -> int:
        """How many are still to be read."""
        return len(self.reads) - self._next

    def refuse(self, reason: Error) -> None:
        """Answer all with ``reason``."""
        self._desk.answer_point(self)
        self._desk.decide(self.reads, [reason] * len(self.reads))

    def read(
        self, machine: Machine, failed: Callable[[StorageError], Error], most: int
    ) -> list[PlainRead]:
        """Answer the next ``most`` reads from memory, or fewer where their values are large.

        ``failed`` says what to answer for what can't be read. Returns those of which only the disk
        knows; they are for :meth:`PlainDesk.decide`.
        """
        self._desk.answer_point(self)
        answered: list[_Waiter] = []
        results: list[Result] = []
        cold: list[PlainRead] = []
        room = self._desk.limits.answer_bytes_max
        for read in self.reads[self._next : self._next + most]:
            self._next += 1
            if read.decided:
                continue
            result: Result
            try:
                found = machine.get_cached(read.key)
            except StorageError as damage:
                result = failed(damage)
            else:
                if found is COLD:
                    cold.append(read)
                    continue
                result = found
            answered.append(read)
            results.append(result)
            room -= len(result) if isinstance(result, bytes) else 0
            if room <= 0:
                break
        self._desk.decide(answered, results)
        return cold

    def waiters(self) -> Iterable[_Waiter]:
        return self.reads


class PlainDesk:
    """See the stub of :class:`kvstore._service.native.Desk`."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting = 0
        self.write_bytes = 0
        self._writes: list[_Write] = []
        self._reads: list[PlainRead] = []
        # Gathered, or proposed in this reign.
        self._under_way: dict[Identity, _Write] = {}
        # Proposed, asked for a read point, and not answered.
        self._open: dict[PlainEntry | PlainPoint, None] = {}

    @property
    def reads(self) -> int:
        return len(self._reads)

    @property
    def writes(self) -> int:
        return len(self._writes)

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    @property
    def fills_entry(self) -> bool:
        limits = self.limits
        return (
            self.writes >= limits.entry_commands_max or self.write_bytes >= limits.entry_bytes_max
        )

    def take(
        self,
        calls: Sequence[Asked],
        answered: Answered,
        now: float,
        refusal: Error | None,
        machine: Machine | None,
    ) -> None:
        decided: list[Asked] = []
        results: list[Result] = []
        for call in calls:
            result = self._take_one(call, answered, now, refusal, machine)
            if result is not None:
                decided.append(call)
                results.append(result)
        if decided:
            answered(decided, results)

    def _take_one(
        self,
        call: Asked,
        answered: Answered,
        now: float,
        refusal: Error | None,
        machine: Machine | None,
    ) -> Result:
        """Its result if that is known at once, which is never None."""
        limits = self.limits
        method = call.method
        wrong = limits.breach(method, len(call.key), len(call.value), len(call.request_id))
        if wrong is not None:
            return wrong
        if call.deadline <= now:
            return limits.came_late()
        if self.waiting >= limits.calls_max or self.write_bytes >= limits.gathered_bytes_max:
            return limits.overloaded(self.waiting)
        if refusal is not None or machine is None:
            return refusal
        if method == Method.GET:
            self._reads.append(PlainRead(call, answered))
            self.waiting += 1
            return None
        if method == Method.OPEN_SESSION:
            self._gather(_Write(call, answered, open_command(call.request_id), None))
            return None
        return self._take_write(call, answered, now, machine)

    def _take_write(self, call: Asked, answered: Answered, now: float, machine: Machine) -> Result:
        """Answer a write that was done before, join one under way, or make it a new one."""
        named = understand(call.request_id, self.limits)
        if isinstance(named, Error):
            return named
        request, sequence, floor = named
        if call.method == Method.PUT:
            command = put_command(request, call.key, call.value, sequence, floor)
        else:
            command = delete_command(request, call.key, sequence, floor)
        before = machine.first_result(request, command.fingerprint, sequence)
        if before is not None:
            return before
        twin = self._under_way.get((request, sequence))
        if twin is not None and twin.command.fingerprint == command.fingerprint:
            twin.twins.append(_Waiter(call, answered))
            self.waiting += 1
            return None
        # An id that is under way for something else is proposed as well: the log decides which of
        # the two came first, and refuses the other.
        sent_at = None
        if call.age_s is not None and not sequence:
            sent_at = now - call.age_s - self.limits.delay_s
        self._gather(_Write(call, answered, command, sent_at))
        return None

    def _gather(self, write: _Write) -> None:
        self._under_way[write.identity] = write
        self._writes.append(write)
        self.write_bytes += command_bytes(write.command)
        self.waiting += 1

    def next_entry(self, now: float, time_ms: int, guard: int = 0) -> PlainEntry | None:
        limits = self.limits
        chosen: list[_Write] = []
        expired: list[_Write] = []
        room = limits.entry_bytes_max
        taken = 0
        for write in self._writes:
            if all(waiter.decided or waiter.deadline <= now for waiter in write.waiters):
                expired.append(write)
                taken += 1
                continue
            size = command_bytes(write.command)
            if chosen and (size > room or len(chosen) >= limits.entry_commands_max):
                break
            chosen.append(write)
            room -= size
            taken += 1
        del self._writes[:taken]
        self._forget(expired)
        self.write_bytes -= sum(command_bytes(write.command) for write in chosen)
        entry = None
        if chosen:
            data = encode_commands([write.at(now, time_ms) for write in chosen], time_ms, guard)
            entry = PlainEntry(self, chosen, data)
            self._open[entry] = None
        self._give_up(waiter for write in expired for waiter in write.waiters)
        return entry

    def next_point(self, now: float) -> PlainPoint | None:
        reads = [read for read in self._reads if read.deadline > now]
        expired = [read for read in self._reads if read.deadline <= now]
        self._reads = []
        point = None
        if reads:
            point = PlainPoint(self, reads)
            self._open[point] = None
        self._give_up(expired)
        return point

    def refuse(self, reason: Error) -> None:
        writes, reads = self._writes, self._reads
        self._writes, self._reads = [], []
        self._forget(writes)
        waiters = [waiter for write in writes for waiter in write.waiters] + reads
        self.decide(waiters, [reason] * len(waiters))

    def new_reign(self) -> None:
        self._under_way = {write.identity: write for write in self._writes}

    def expire(self, now: float) -> None:
        late: list[_Waiter] = []
        for open_one in list(self._open):
            waiters = list(open_one.waiters())
            late += [waiter for waiter in waiters if waiter.deadline <= now]
            is_over = all(waiter.decided or waiter.deadline <= now for waiter in waiters)
            if is_over and not self._may_be_joined(open_one):
                # Whoever leads no more may never answer.
                del self._open[open_one]
        late += [read for read in self._reads if read.deadline <= now]
        self._reads = [read for read in self._reads if read.deadline > now]
        kept: list[_Write] = []
        gone: list[_Write] = []
        for write in self._writes:
            late += [waiter for waiter in write.waiters if waiter.deadline <= now]
            is_late = all(waiter.decided or waiter.deadline <= now for waiter in write.waiters)
            (gone if is_late else kept).append(write)
        self._writes = kept
        self._forget(gone)
        self._give_up(late)

    def expire_reads(self, reads: Iterable[PlainRead], now: float) -> None:
        self._give_up(read for read in reads if read.deadline <= now)

    def decide(self, waiters: Sequence[_Waiter], results: Sequence[Result]) -> None:
        batches: list[tuple[Answered, list[Asked], list[Result]]] = []
        for waiter, result in zip(waiters, results, strict=True):
            if waiter.decided:
                continue
            waiter.decided = True
            self.waiting -= 1
            if not batches or batches[-1][0] is not waiter.answered:
                batches.append((waiter.answered, [], []))
            batches[-1][1].append(waiter.call)
            batches[-1][2].append(result)
        for answered, calls, answers in batches:
            answered(calls, answers)

    def answer_entry(self, entry: PlainEntry, outcome: bytes | Error) -> None:
        self._open.pop(entry, None)
        results: Sequence[Result]
        if isinstance(outcome, Error):
            results = [outcome] * len(entry.writes)
        else:
            results = [self.limits.result_of(code) for code in outcome]
        waiters: list[_Waiter] = []
        answers: list[Result] = []
        for write, result in zip(entry.writes, results, strict=True):
            if self._under_way.get(write.identity) is write:
                del self._under_way[write.identity]
            waiters += write.waiters
            answers += [result] * len(write.waiters)
        self.decide(waiters, answers)

    def answer_point(self, point: PlainPoint) -> None:
        self._open.pop(point, None)

    def _may_be_joined(self, open_one: PlainEntry | PlainPoint) -> bool:
        """A retry of one of its writes would wait for it."""
        return isinstance(open_one, PlainEntry) and any(
            self._under_way.get(write.identity) is write for write in open_one.writes
        )

    def _forget(self, writes: Iterable[_Write]) -> None:
        """They won't be proposed."""
        for write in writes:
            self.write_bytes -= command_bytes(write.command)
            if self._under_way.get(write.identity) is write:
                del self._under_way[write.identity]

    def _give_up(self, waiters: Iterable[_Waiter]) -> None:
        late = list(waiters)
        self.decide(late, [self.limits.expired()] * len(late))
