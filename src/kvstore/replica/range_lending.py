"""What a member does for another one that asks for a range of rows (range_repair.py).

It holds the moment that the other one stands at, and reads a part of the range for each question,
on a worker and at the pace of all who are behind. What it has applied since is of no consequence;
what its engine has merged since is: then it says no, and the other one asks elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kvstore._engine.database.native import RangeExport
from kvstore.errors import ClosedError, Error, StorageError
from kvstore.raft import Raft
from kvstore.replica.applying import Applying
from kvstore.replica.options import ReplicaOptions
from kvstore.replica.pace import Pace
from kvstore.replica.packets import RangeLoan, RangeWish, Transport
from kvstore.replica.ticks import ticks_of
from kvstore.replica.work import Jobs, Progress, raise_unless_passing
from kvstore.state import Moment, StateMachine

__all__ = ["PART_BYTES", "RangeLending"]

PART_BYTES = 1 << 20
"""Of one part, unless the versions of a single key take more."""
IDLE_S = 10.0
"""Whoever asks nothing for so long gets nothing more."""
PATIENCE = 10
"""So much longer than a read may a part take: it may be a megabyte."""


@dataclass(slots=True)
class _Loan:
    """To one member: ``wish`` is its last question, while that isn't answered."""

    wish: RangeWish | None
    moment: Moment
    machine: StateMachine
    export: RangeExport
    flushed: bool = False
    busy: bool = False
    idle_ticks: int = 0


class RangeLending:
    """Of one member, to all others: one range each. On the replica's thread."""

    def __init__(
        self,
        member: int,
        raft: Raft,
        applying: Applying,
        *,
        transport: Transport,
        options: ReplicaOptions,
        jobs: Jobs,
        pace: Pace,
        damaged: Callable[[StorageError], None],
    ) -> None:
        """``damaged`` is told of what of this member's own can't be read."""
        self._member = member
        self._raft = raft
        self._applying = applying
        self._transport = transport
        self._jobs = jobs
        self._pace = pace
        self._damaged = damaged
        self._part_bytes = min(PART_BYTES, options.snapshot_part_bytes)
        self._idle_ticks = ticks_of(IDLE_S, options.tick_s)
        self._loans: dict[int, _Loan] = {}

    def tick(self) -> None:
        """One tick has passed."""
        for member, loan in list(self._loans.items()):
            loan.idle_ticks += 1
            if (
                loan.machine is not self._applying.machine
                or self._applying.damage is not None  # what it holds is in the way of a repair
                or (loan.idle_ticks >= self._idle_ticks and not loan.busy)
            ):
                self._end(member)
            else:
                self._go_on(loan)

    def take(self, wish: RangeWish) -> None:
        """Another member asks. What can't be answered now it asks again."""
        applying, sender = self._applying, wish.sender
        if sender not in self._raft.membership.members or sender == self._member:
            return
        if applying.machine.applied_index < wish.moment.applied:
            return
        loan = self._loans.get(sender)
        if loan is None or loan.moment != wish.moment or loan.machine is not applying.machine:
            self._end(sender)
            export = None
            if applying.damage is None and not applying.is_installing:
                export = applying.machine.lend(wish.moment)
            if export is None:
                self._refuse(wish)
                return
            loan = self._loans[sender] = _Loan(wish, wish.moment, applying.machine, export)
        loan.wish = wish
        loan.idle_ticks = 0
        self._go_on(loan)

    def _go_on(self, loan: _Loan) -> None:
        wish = loan.wish
        if wish is None or loan.busy or not self._pace.allows:
            return
        if not loan.flushed:
            # What it asks for may still be in memory. Several may ask at once.
            flushed = partial(self._flushed, loan)
            loan.busy = self._jobs.start("flush to lend", loan.machine.flush, flushed)
            return
        read = partial(loan.export.part, wish.start, wish.stop, self._part_bytes)
        loan.busy = self._jobs.start(
            f"range for {wish.sender}",
            read,
            partial(self._read, loan, wish),
            Progress(PATIENCE),
        )

    def _flushed(self, loan: _Loan, outcome: Error | None) -> None:
        loan.busy = False
        if outcome is None:
            loan.flushed = True
            self._go_on(loan)
        elif loan.machine is self._applying.machine:
            raise_unless_passing(outcome)

    def _read(
        self, loan: _Loan, wish: RangeWish, outcome: tuple[bytes, bytes | None] | Error
    ) -> None:
        loan.busy = False
        if self._loans.get(wish.sender) is not loan:
            return
        if isinstance(outcome, Error):
            if not (isinstance(outcome, StorageError) and outcome.retryable):
                self._failed(loan, wish, outcome)
            return
        if loan.wish is wish:
            loan.wish = None
        if loan.machine.compacted != wish.moment.compacted:
            self._end(wish.sender)
            self._refuse(wish)
            return
        part, following = outcome
        self._pace.spend(len(part))
        self._answer(wish, following or wish.stop, part, given=True)

    def _failed(self, loan: _Loan, wish: RangeWish, error: Error) -> None:
        """Its own state is damaged, or it can't be had any more, or not in parts."""
        self._end(wish.sender)
        self._refuse(wish)
        if isinstance(error, ClosedError) or loan.machine is not self._applying.machine:
            return
        if isinstance(error, StorageError):
            if error.path is not None:
                self._damaged(error)
            return
        raise error

    def _refuse(self, wish: RangeWish) -> None:
        self._answer(wish, wish.stop, b"", given=False)

    def _answer(self, wish: RangeWish, stop: bytes, part: bytes, *, given: bool) -> None:
        told = RangeLoan(self._member, wish.sender, wish.moment, given, wish.start, stop, part)
        self._transport.send((told,))

    def _end(self, member: int) -> None:
        loan = self._loans.pop(member, None)
        if loan is not None:
            loan.export.close()

    def close(self) -> None:
        """Lend nothing more."""
        for member in list(self._loans):
            self._end(member)
