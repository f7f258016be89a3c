"""A damaged table of a member's state is made whole by what another member has of its keys.

What the table may have lost is found by reading it, as a range of keys (the engine's
table_damage.pyx). The state stands still at what it has applied meanwhile, and the rows of that
very moment are asked of another member (range_lending.py), the leader first, a part at a time. They
are put in the place of all that this state has in the range, by one edit of the engine's manifest:
a crash leaves the damage, or none.

Any doubt, and the whole state is made anew from the leader's (repair.py): where much of it is
damaged, or what lies outside of the rows that can be lent; where nobody can lend them; where it
doesn't come to an end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial

from kvstore._engine.database.native import RangeReplacement
from kvstore.errors import CorruptionError, Error, StorageError
from kvstore.raft import Raft
from kvstore.replica.applying import Applying
from kvstore.replica.counters import ReplicaCounters
from kvstore.replica.directory import MemberDirectory
from kvstore.replica.options import ReplicaOptions
from kvstore.replica.packets import RangeLoan, RangeWish, Transport
from kvstore.replica.ticks import ticks_of
from kvstore.replica.work import Jobs
from kvstore.state import StateMachine, can_be_lent

__all__ = ["RangeRepair"]

SHARE = 4
"""Where more than one part in so many of all that is stored would have to come, all of it does."""
TABLES_MAX = 4
"""Damaged tables whose keys are fetched in one go."""
RESEND_S = 0.5
"""A question without an answer for so long is asked again, ..."""
SILENT_S = 5.0
"""... and after so long of another member."""
LACKS_S = 30.0
"""For so long the disk may lack room, or other jobs be in the way."""

_Extent = tuple[bytes, bytes, int, int]


class RangeRepair:
    """Of one member's state: at most one at a time. On the replica's thread.

    :attr:`fallen_back` says why the last one came to nothing.
    """

    def __init__(
        self,
        member: int,
        raft: Raft,
        applying: Applying,
        *,
        directory: MemberDirectory,
        transport: Transport,
        options: ReplicaOptions,
        counters: ReplicaCounters,
        jobs: Jobs,
        understands: Callable[[int], bool],
    ) -> None:
        """``understands``: whether a member is known to lend rows."""
        self._member = member
        self._raft = raft
        self._applying = applying
        self._directory = directory
        self._transport = transport
        self._counters = counters
        self._jobs = jobs
        self._understands = understands
        self._resend_ticks = ticks_of(RESEND_S, options.tick_s)
        self._silent_ticks = ticks_of(SILENT_S, options.tick_s)
        self._lack_ticks_max = ticks_of(LACKS_S, options.tick_s)
        self._round = 0
        self.fallen_back = ""
        self._forget()

    def _forget(self) -> None:
        # The state that is repaired, None while none is.
        self._machine: StateMachine | None = None
        self._numbers: list[int] = []
        self._extents: list[_Extent] = []
        self._replacement: RangeReplacement | None = None
        # Up to where rows are asked for, and who is asked, the first of these.
        self._stop = b""
        self._lenders: list[int] = []
        self._silent = 0
        # A job is at it, whose outcome says what is next.
        self._busy = False
        # What is to be tried again at a tick, and for how long that has been so.
        self._again: Callable[[], None] | None = None
        self._lacks = 0

    # --- beginning and ending ------------------------------------------------------------------

    @property
    def is_under_way(self) -> bool:
        """A range is being made whole."""
        return self._machine is not None

    def table_of(self, damage: StorageError) -> int | None:
        """The number of the state's table that ``damage`` is of; None where it is of no table, or
        nobody could lend what it holds."""
        number = _number_of(damage)
        part, own = self._directory.part_of(damage.path), self._applying.part
        if number is None or not self._find_lenders():
            return None
        # A checkpoint has the state's own tables.
        if part != own and not (part.startswith("outgoing") and own.startswith("state")):
            return None
        return number if self._is_live(number) else None

    def is_gone(self, damage: StorageError) -> bool:
        """It is of a table that the state had, and has no more: somebody had still read it."""
        number = _number_of(damage)
        own = self._directory.part_of(damage.path) == self._applying.part
        return number is not None and own and not self._is_live(number)

    def _is_live(self, number: int) -> bool:
        return number in dict(self._applying.machine.live_tables())

    def begin(self, numbers: Iterable[int]) -> None:
        """Make these tables whole of the state, which nobody reads nor changes meanwhile."""
        self._forget()
        self._machine = self._applying.machine
        self._numbers = [*numbers]
        self._lenders = self._find_lenders()
        self._round += 1
        self.fallen_back = ""
        self._survey()

    def cancel(self, why: str = "") -> None:
        """Be over; with ``why``: the whole state is needed after all."""
        if self._machine is None:
            return
        self.fallen_back = why
        replacement = self._replacement
        self._forget()
        if replacement is not None:
            self._jobs.start("forget range", replacement.close, lambda outcome: None)

    def _find_lenders(self) -> list[int]:
        """Whom to ask: the leader first."""
        others = self._raft.membership.members - {self._member}
        return sorted(filter(self._understands, others), key=lambda m: (m != self._raft.leader, m))

    def _is_mine(self, machine: StateMachine) -> bool:
        """The outcome of a job is of the repair that is under way."""
        return machine is self._machine and machine is self._applying.machine

    # --- what is lost --------------------------------------------------------------------------

    def _survey(self) -> None:
        """Find out which keys the next table may have lost."""
        machine, number = self._machine, self._numbers[len(self._extents)]
        assert machine is not None, "under way"
        survey = partial(machine.damage_of_table, number)
        self._busy = self._jobs.start(
            "survey", survey, partial(self._surveyed, machine, self._round)
        )
        if not self._busy:
            self._try_again(self._survey)

    def _surveyed(
        self, machine: StateMachine, number: int, outcome: _Extent | Error | None
    ) -> None:
        if not self._is_mine(machine) or number != self._round:
            return
        self._busy = False
        if isinstance(outcome, Error):
            self._lack_or_cancel(outcome, self._survey)
            return
        if outcome is None:
            self.cancel("a damaged table isn't its state's any more")
            return
        self._extents.append(outcome)
        if len(self._extents) < len(self._numbers):
            self._survey()
        else:
            self._judge()

    def _judge(self) -> None:
        """Is a range of it all that is needed?"""
        low = min(extent[0] for extent in self._extents)
        high = max(extent[1] for extent in self._extents)
        lost = sum(extent[2] for extent in self._extents)
        total = max(extent[3] for extent in self._extents)
        free = self._directory.free_bytes()
        if not can_be_lent(low, high):
            self.cancel("its rows aren't ones that another member can lend")
        elif SHARE * lost > total:
            self.cancel(f"about {lost} of {total} bytes are damaged")
        elif 0 < free < 2 * lost:
            self.cancel(f"its disk has {free} bytes left")
        else:
            self._stop = high
            self._flush(low)

    def _flush(self, low: bytes) -> None:
        """Into tables with what memory holds: of the range as well."""
        machine = self._machine
        assert machine is not None, "under way"
        done = partial(self._flushed, machine, self._round, low)
        self._busy = self._jobs.start("flush to repair", machine.flush, done)
        if not self._busy:
            self._try_again(partial(self._flush, low))

    def _flushed(
        self, machine: StateMachine, number: int, low: bytes, outcome: Error | None
    ) -> None:
        if not self._is_mine(machine) or number != self._round:
            return
        self._busy = False
        # What a compaction met that came with it is no matter of the flush.
        if outcome is not None and not isinstance(outcome, CorruptionError):
            self._lack_or_cancel(outcome, partial(self._flush, low))
            return
        try:
            self._replacement = machine.replace_rows(low, self._stop)
        except Error as error:
            self.cancel(str(error))
        else:
            self._ask()

    # --- fetching ------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Ask for what comes next."""
        machine, replacement = self._machine, self._replacement
        if machine is None or replacement is None:
            return
        while self._lenders and not self._may_lend(self._lenders[0]):
            del self._lenders[0]
        if not self._lenders:
            self.cancel("no other member could lend its rows")
            return
        wish = RangeWish(
            self._member, self._lenders[0], machine.moment, replacement.reached, self._stop
        )
        self._transport.send((wish,))

    def _may_lend(self, member: int) -> bool:
        return member in self._raft.membership.members and self._understands(member)

    def _ask_another(self) -> None:
        """Not the one who was asked last."""
        self._counters.repairs_failed += 1
        del self._lenders[0]
        self._silent = 0
        self._ask()

    def take(self, loan: RangeLoan) -> None:
        """Another member answers."""
        replacement, machine = self._replacement, self._machine
        if (
            replacement is None
            or machine is None
            or self._busy
            or self._again is not None
            or not self._lenders
            or loan.sender != self._lenders[0]
            or loan.moment != machine.moment
            or loan.start != replacement.reached
            or loan.stop > self._stop
        ):
            return
        self._silent = 0
        if not loan.given:
            self._ask_another()
        else:
            self._keep(loan)

    def _keep(self, loan: RangeLoan) -> None:
        replacement, machine = self._replacement, self._machine
        assert replacement is not None, "it was asked for"
        assert machine is not None, "under way"
        keep = partial(replacement.add, loan.start, loan.stop, loan.part)
        done = partial(self._kept, machine, self._round, loan)
        self._busy = self._jobs.start("keep range", keep, done)

    def _kept(
        self, machine: StateMachine, number: int, loan: RangeLoan, outcome: Error | None
    ) -> None:
        if not self._is_mine(machine) or number != self._round:
            return
        self._busy = False
        replacement = self._replacement
        assert replacement is not None, "it was kept in it"
        if isinstance(outcome, CorruptionError):
            self._ask_another()  # that one gives what makes no sense
        elif outcome is not None:
            self._lack_or_cancel(outcome, self._ask)
        else:
            self._lacks = 0
            self._counters.repair_received_bytes += len(loan.part)
            if replacement.reached == self._stop:
                self._install()
            else:
                self._ask()

    # --- putting it in its place ---------------------------------------------------------------

    def _install(self) -> None:
        replacement, machine = self._replacement, self._machine
        assert replacement is not None, "all has come"
        assert machine is not None, "under way"
        done = partial(self._installed, machine, self._round)
        self._busy = self._jobs.start("replace range", replacement.install, done)
        if not self._busy:
            self._try_again(self._install)

    def _installed(self, machine: StateMachine, number: int, outcome: bool | Error) -> None:
        if not self._is_mine(machine) or number != self._round:
            return
        self._busy = False
        if isinstance(outcome, CorruptionError):
            self._widen(outcome)
        elif isinstance(outcome, Error):
            self._lack_or_cancel(outcome, self._install)
        elif not outcome:
            self._try_again(self._install)
        else:
            self._forget()
            self._counters.repairs_by_range += 1
            self._applying.release()

    def _widen(self, damage: CorruptionError) -> None:
        """Another table that reaches into the range can't be read either."""
        number = self.table_of(damage)
        numbers = [*self._numbers]
        self.cancel(str(damage))
        if number is not None and number not in numbers and len(numbers) < TABLES_MAX:
            self._counters.repairs_failed += 1
            self.begin([*numbers, number])

    # --- time ----------------------------------------------------------------------------------

    def _try_again(self, what: Callable[[], None]) -> None:
        self._again = what

    def _lack_or_cancel(self, error: Error, what: Callable[[], None]) -> None:
        """The system lacked something, which may come; anything else needs the whole state."""
        if isinstance(error, StorageError) and error.retryable:
            self._try_again(what)
        else:
            self.cancel(str(error))

    def tick(self) -> None:
        """One tick has passed."""
        if self._machine is None:
            return
        if self._machine is not self._applying.machine:
            self.cancel()
            return
        if self._again is not None:
            self._lacks += 1
            if self._lacks > self._lack_ticks_max:
                self.cancel("the disk lacked room, or other jobs were in the way, for too long")
                return
            again, self._again = self._again, None
            again()
        elif self._replacement is not None and not self._busy:
            self._silent += 1
            if self._silent >= self._silent_ticks:
                self._ask_another()
            elif self._silent % self._resend_ticks == 0:
                self._ask()

    def close(self) -> None:
        """Nothing more. What was fetched the next start removes."""
        self._forget()


def _number_of(damage: StorageError) -> int | None:
    """Of the table that it is of; None where it is of none."""
    name, kind = os.path.splitext(os.path.basename(damage.path or ""))
    return int(name) if kind == ".sst" and name.isdecimal() else None
