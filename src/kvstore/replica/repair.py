"""A member whose state is damaged gets what it lost from others, and serves on.

A manifest alone is written anew from memory; of the log see ``log_repair.py``.

The log and the hard state are files of their own, and whole: whatever this member voted for and
acknowledged, it still has. So it goes on voting, appending and acknowledging; docs/raft.md argues
why that is right. What it doesn't do until its state is another one: apply, read, propose, and lead
where somebody else can.

Where a table is damaged, what it lost is fetched and put in its place (``range_repair.py``). Where
that won't do, the leader is asked for its state (``packets.WANTED``), which comes as any snapshot
does: in checksummed parts, at the pace of all who are behind, verified as a whole before it is
touched. The log stays as it is, and goes on after the snapshot's index.
"""

from __future__ import annotations

import errno
import os
from functools import partial

from kvstore.errors import AlreadyOpenError, Error, IntegrityCode, StorageError
from kvstore.raft import Membership, Raft, Role, SnapshotMeta
from kvstore.replica.applying import Applying
from kvstore.replica.counters import ReplicaCounters
from kvstore.replica.directory import MemberDirectory
from kvstore.replica.log_note import NoteKeeper
from kvstore.replica.log_repair import LogRepair
from kvstore.replica.range_repair import RangeRepair
from kvstore.replica.ticks import ticks_of
from kvstore.replica.transfers import Transfers
from kvstore.replica.work import Jobs, raise_unless_passing
from kvstore.state import StateMachine

__all__ = ["ASK_S", "WITHHELD", "Repair", "can_be_repaired"]

# What a database knows in memory as well: its manifest, the name of that, and how far it is.
_OF_MANIFEST = ("MANIFEST-", "CURRENT", "END")

ASK_S = 1.0
"""Between two questions to the leader, who takes no notice of those that come too early."""
WITHHELD = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Of rights, which an operator took away and can give back."""

MORE_MAX = 16
"""Of other damaged tables, found meanwhile, that are remembered."""

CALM_S = 10.0
"""Damage that comes sooner after a repair waits for the next one, longer and longer."""
WAIT_MAX_S = 60.0


class Repair:
    """Of one member's state: at most one at a time."""

    def __init__(
        self,
        raft: Raft,
        applying: Applying,
        transfers: Transfers,
        ranges: RangeRepair,
        *,
        directory: MemberDirectory,
        counters: ReplicaCounters,
        log: LogRepair,
        note: NoteKeeper,
        jobs: Jobs,
        tick_s: float,
    ) -> None:
        self._raft = raft
        self._applying = applying
        self._transfers = transfers
        self._ranges = ranges
        self._directory = directory
        self._counters = counters
        self._log = log
        self._note = note
        self._jobs = jobs
        self._manifest: StorageError | None = None
        self._noted: StorageError | None = None
        self._pause_ticks = ticks_of(ASK_S, tick_s)
        self._calm_ticks = ticks_of(CALM_S, tick_s)
        self._wait_ticks_max = ticks_of(WAIT_MAX_S, tick_s)
        # What the last repair waited before it began, and ticks since it was done.
        self._wait_ticks = 0
        self._since_done = self._calm_ticks
        # Until the leader is asked, again.
        self._ticks = 0
        # The index that the state has to be of, at least, while one is under way.
        self._least: int | None = None
        # The tables to be made whole by ranges; empty where the whole state is.
        self._tables: list[int] = []
        # Of other tables, found meanwhile.
        self._more: list[StorageError] = []

    @property
    def state_is_damaged(self) -> bool:
        """It is read by nobody: somebody else is to lead, and to be asked."""
        return self._least is not None

    @property
    def under_way(self) -> str:
        """What is being repaired, and why; empty when all is well."""
        damage = self._applying.damage
        if damage is not None and self._tables:
            return f"rows of a table are being fetched from another member: {damage}"
        if damage is not None:
            return f"its state is being made anew from the leader's: {damage}"
        if self._manifest is not None:
            return f"its manifest is being written anew: {self._manifest}"
        if self._noted is not None:
            return f"the note of its log's end is being written anew: {self._noted}"
        return self._log.under_way

    @property
    def fallen_back(self) -> str:
        """Why rows alone won't do for the repair under way; empty where they do, or may do yet."""
        return "" if self._least is None or self._tables else self._ranges.fallen_back

    def mends(self, damage: StorageError) -> bool:
        """Something can't be read, or isn't what was written: whether it is being repaired, or of
        no consequence any more. Nothing that passes, and no write."""
        if damage.path is None:
            return False
        part = self._directory.part_of(damage.path)
        if part == "log":
            self._log.begin(damage)
            return True
        if damage.path == self._directory.log_note:
            if self._noted is None:
                self._counters.repairs_started += 1
            self._noted = damage
            self._note.renew(self._note_renewed)
            return True
        if part == self._applying.part and os.path.basename(damage.path).startswith(_OF_MANIFEST):
            self._rewrite_manifest(damage)
            return True
        if self._ranges.is_gone(damage):
            return True
        if part == self._applying.part or part.startswith("outgoing"):
            # A checkpoint has the state's own tables.
            return self.begin(damage)
        # One that was replaced is of no consequence.
        return part.startswith("state") and part < self._applying.part

    def _note_renewed(self) -> None:
        self._noted = None
        self._counters.repairs_done += 1

    def _rewrite_manifest(self, damage: StorageError) -> None:
        machine = self._applying.machine

        def rewrite() -> None:
            for _ in range(2):  # of the note how far it is there are two copies
                machine.rewrite_manifest()

        if self._jobs.start("manifest", rewrite, partial(self._manifest_rewritten, machine)):
            self._manifest = damage
            self._counters.repairs_started += 1

    def _manifest_rewritten(self, machine: StateMachine, outcome: Error | None) -> None:
        damage, self._manifest = self._manifest, None
        if machine is not self._applying.machine:
            return
        if outcome is None:
            self._counters.repairs_done += 1
            return
        self._counters.repairs_failed += 1
        raise_unless_passing(outcome)
        # The system lacked something. All that it takes is another state.
        if damage is not None and not self.begin(damage):
            raise damage

    def begin(self, damage: StorageError) -> bool:
        """The state is damaged; False, and nothing is done, where it can't be had from others."""
        if not can_be_repaired(damage):
            return False
        if self._least is not None:
            self._note_more(damage)
            return True
        if not others_vote(self._raft.membership, self._raft.id):
            return False
        self._ticks = self._wait_ticks = self._wait()
        self._begin(damage)
        return True

    def begin_opened(self, damage: StorageError) -> None:
        """The state couldn't be opened, and an empty one stands in its place until others' is here.

        That others have it was judged by who opened it, by all that is left of the log: the core's
        list of members may be one of a time when this one was alone.
        """
        self._begin(damage)

    def _begin(self, damage: StorageError) -> None:
        self._counters.repairs_started += 1
        # One of another name than what is there; nothing that was told to clients is undone.
        applied = self._applying.machine.applied_index
        self._least = max(applied, self._directory.state_number() + 1)
        table = self._ranges.table_of(damage)
        self._tables = [] if table is None else [table]
        self._ranges.fallen_back = ""
        self._applying.hold(damage)
        self._begin_range()

    def _begin_range(self) -> None:
        if self._tables and self._ticks <= 0 and not self._applying.is_installing:
            self._ranges.begin(self._tables)

    def _note_more(self, damage: StorageError) -> None:
        """Found while another one is repaired: if that is by range it has its turn afterwards."""
        if len(self._more) < MORE_MAX:
            self._more.append(damage)

    def _wait(self) -> int:
        """Ticks before the leader is asked: a disk that damages what it is given costs others
        less and less."""
        if self._since_done >= self._calm_ticks:
            return 0
        return min(max(2 * self._wait_ticks, self._pause_ticks), self._wait_ticks_max)

    def tick(self) -> None:
        """One tick has passed: have another member lead, or ask the one that does."""
        self._log.tick()
        self._ranges.tick()
        self._since_done += 1
        if self._least is None:
            self._look_at_compactions()
            return
        if self._raft.role is Role.LEADER:
            self._raft.hand_over()
        self._ticks -= 1
        if self._tables:
            self._tick_range()
        elif (
            self._ticks <= 0
            and self._raft.role is not Role.LEADER
            and self._raft.leader
            and not self._applying.is_installing
        ):
            self._ticks = self._pause_ticks
            self._transfers.want(self._least)

    def _tick_range(self) -> None:
        if self._ranges.is_under_way:
            return
        if self._ranges.fallen_back:
            self._tables = []
            self._ticks = 0
        else:
            self._begin_range()

    def _look_at_compactions(self) -> None:
        """They leave alone what they can't read, and nobody else may ask for it for long."""
        for damage in self._applying.machine.damaged_tables:
            if self.mends(damage):
                return

    def look(self) -> None:
        """In each turn, after all that the core gave out: install what has come."""
        if self._least is not None and self._applying.damage is None:
            # By this, or because the core needed a snapshot meanwhile.
            self._done()
        if self._least is not None and not self._applying.is_installing:
            mark = self._transfers.usable(self._least)
            if mark is not None:
                self._transfers.take_ready(mark)
                self._applying.install(mark.index, partial(self._replaced, mark))
        self._transfers.drop_unwanted(self._least)

    def _done(self) -> None:
        self._least = None
        self._since_done = 0
        self._counters.repairs_done += 1
        self._ranges.cancel()
        more, self._more = self._more, []
        for damage in more:
            if not self._is_left(damage):
                continue
            if self._least is None:
                self._ticks = 0
                self._begin(damage)
            else:
                self._more.append(damage)

    def _is_left(self, damage: StorageError) -> bool:
        """It didn't go with what was repaired."""
        own = self._directory.part_of(damage.path) == self._applying.part
        return (own and not self._ranges.is_gone(damage)) or (
            self._ranges.table_of(damage) is not None
        )

    def _replaced(self, mark: SnapshotMeta) -> None:
        # Where the core needed a snapshot meanwhile its log begins after that, which comes next.
        if self._raft.goes_on_after(mark):
            self._raft.state_replaced(mark)


def can_be_repaired(damage: StorageError) -> bool:
    """Whether another member's state would do.

    Not where this program is too old for its own, where another process has it, and where it is
    withheld and not gone.
    """
    if damage.code is IntegrityCode.UNSUPPORTED_VERSION or isinstance(damage, AlreadyOpenError):
        return False
    return not damage.retryable and damage.errno not in WITHHELD


def others_vote(membership: Membership, member: int) -> bool:
    """Somebody else may lead, and has all that was committed."""
    # Of a member that lost its log no list may be left; it was one of several (Group).
    return membership.voters | membership.outgoing != {member}
