"""From what is committed to the state: entries, who waits for their results, confirmed reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from kvstore.errors import (
    CorruptionError,
    Error,
    InternalError,
    OutcomeUnknownError,
    StorageError,
    UnavailableError,
)
from kvstore.raft import Entry, EntryKind, Raft
from kvstore.replica.checkpoints import Removals
from kvstore.replica.directory import MemberDirectory
from kvstore.replica.durations import Durations, EntryTimes
from kvstore.replica.listener import Listener
from kvstore.replica.options import ReplicaOptions
from kvstore.replica.work import Jobs, Progress, raise_unless_passing
from kvstore.state import Applied, Found, Prepared, StateMachine

__all__ = ["Applying", "ProposalDone", "ReadDone"]

ProposalDone = Callable[[bytes | Error], None]
"""Gets the results of an entry's commands, a byte for each, or why it has none. Of an entry of
operations there are none: their answers go to the listeners."""
ReadDone = Callable[[Error | None], None]

SLICE_BYTES = 32 << 10
"""Of entries that are applied in one go; a larger one is one by itself."""

FLUSH_PATIENCE = 10
"""So much longer than a read a flush may take."""

_COMMAND = EntryKind.COMMAND


@dataclass(slots=True)
class _Waiting:
    """A proposal that waits for its entry to be applied.

    ``committed_s``: when the core said that it is; 0 before.
    """

    term: int
    done: ProposalDone
    proposed_s: float
    committed_s: float = 0.0


class Applying:
    """Applies what the core hands out, as far as the engine has room, and tells who waits for it.

    Owns the state machine and the directory that it lives in.
    """

    def __init__(
        self,
        raft: Raft,
        machine: StateMachine,
        *,
        path: str,
        directory: MemberDirectory,
        open_machine: Callable[[str], StateMachine],
        jobs: Jobs,
        removals: Removals,
        options: ReplicaOptions,
        apply: Callable[[Sequence[Entry], Prepared], Sequence[Applied]],
        mends: Callable[[StorageError], bool],
        wake: Callable[[], None],
        now: Callable[[], float],
        durations: Durations,
    ) -> None:
        """``machine`` was opened on ``path`` by ``open_machine``; ``apply`` applies to it.

        ``mends`` is told of damage: False where it can't be repaired.
        """
        self.machine = machine
        self.damage: StorageError | None = None
        """Why nothing is applied, nor read, until another state is installed; None when all is
        well. See :meth:`hold`."""
        self._mends = mends
        self._raft = raft
        self._path = path
        self._directory = directory
        self._open_machine = open_machine
        self._jobs = jobs
        self._removals = removals
        self._budget_s = options.apply_turn_s
        self._slice_entries = options.apply_slice_entries
        self._apply = apply
        self._wake = wake
        self._now = now
        self._durations = durations
        self.listeners: list[Listener] = []
        # A slice must end with this index, 0 for none, and who is told when it is behind us.
        self.pause_at = 0
        self.paused: Callable[[], None] = lambda: None
        self._proposed: dict[int, _Waiting] = {}
        self._reads_confirmed: list[tuple[int, list[ReadDone]]] = []
        # Committed and not applied yet; oldest first. The first of them may be prepared.
        self._held: deque[Entry] = deque()
        self._prepared: Prepared | None = None
        self._lack: StorageError | None = None
        self._turn_ends = 0.0
        self._flush = Progress(FLUSH_PATIENCE)
        self._flushes: object = 0
        # The disk couldn't be asked for want of descriptors or memory: not before the next tick.
        self._failed = False
        # An installation for which room, memory or descriptors were lacking.
        self._install_again: tuple[int, Callable[[], None]] | None = None

    @property
    def path(self) -> str:
        """The directory of the state."""
        return self._path

    # --- entries -------------------------------------------------------------------------------

    @property
    def lacks_room(self) -> bool:
        """The disk is too full for the engine to take a write; it goes on by itself."""
        return self._lack is not None

    def _has_room(self) -> bool:
        """The engine can take a write: if not it is asked again in a later turn.

        While a full disk keeps it from flushing that is at a tick, else when the flush is done.
        """
        machine = self.machine
        try:
            has_room = machine.has_room()
        except StorageError as error:
            self._note_lack(error)
            return False
        self._lack = None
        if not has_room:
            self._jobs.start("room", machine.make_room, partial(self._room_made, machine))
        return has_room

    def _room_made(self, machine: StateMachine, outcome: Error | None) -> None:
        if machine is not self.machine or outcome is None:
            return
        raise_unless_passing(outcome)
        # Unless room came meanwhile and all was applied: nobody would look again whether there is.
        if self._held:
            self._note_lack(outcome)

    def _watch_flush(self) -> None:
        """A flush is done soon where a disk works. Compactions, for which room may have to wait,
        take as long as they take; and one that lacks something is tried again."""
        statistics = self.machine.statistics()
        flushes = statistics["flushes"]
        waits = statistics["frozen_memtables"] and statistics["background_error"] is None
        if flushes != self._flushes or not waits:
            self._flushes = flushes
            self._flush.step()
        self._flush.tick()

    @property
    def flush_ticks(self) -> int:
        """For how long a flush has been under way, as :attr:`Jobs.oldest_ticks`; 0 for none."""
        return self._flush.ticks

    def _note_lack(self, error: Error) -> None:
        if not (isinstance(error, StorageError) and error.retryable):
            raise error
        self._lack = error

    def tick(self) -> None:
        """One tick has passed: what the system lacked may be there again."""
        self._failed = False
        self._watch_flush()
        if self._install_again is not None:
            (index, then), self._install_again = self._install_again, None
            self.install(index, then)

    def begin_turn(self) -> None:
        """A turn of the member begins: :meth:`apply` and the like take their share of it."""
        self._turn_ends = self._now() + self._budget_s

    def apply(self, entries: Sequence[Entry]) -> None:
        """Apply them, now or in later turns: when there is time, and room, and all is known.

        The core offers no more than it has room for beyond what was applied.
        """
        if self._proposed:
            self._note_committed(entries)
        self._held.extend(entries)
        self.apply_held()

    def _note_committed(self, entries: Sequence[Entry]) -> None:
        proposed, now = self._proposed, self._now()
        for entry in entries:
            waiting = proposed.get(entry.index)
            if waiting is not None:
                waiting.committed_s = now
                self._durations.commit.note(now - waiting.proposed_s)

    def apply_held(self) -> None:
        """Go on with what is held, a slice at a time, for as long as the turn's budget lasts."""
        while self._held and self.damage is None and self._apply_slice():
            if self._held and self._now() >= self._turn_ends:
                self._wake()
                break
        self.serve_reads()

    def _apply_slice(self) -> bool:
        """Apply the oldest entries that are held; False when that must wait."""
        try:
            return self._try_slice()
        except CorruptionError as error:
            if not self._mends(error):
                raise
            return False

    def _try_slice(self) -> bool:
        prepared = self._prepared
        if prepared is None:
            if not self._has_room():
                return False
            prepared = self._prepared = self.machine.prepare(self._take_slice())
        if prepared.cold:
            self._look_up(prepared)
            return False
        self._prepared = None
        began = self._now()
        answers = self._apply([*islice(self._held, len(prepared))], prepared)
        applied_s = self._now()
        self._durations.apply.note(applied_s - began)
        for _ in range(len(prepared)):
            self._held.popleft()
        self._raft.applied(self.machine.applied_index)
        self._answer(answers, applied_s)
        if self.listeners:
            self._tell(answers)
        if 0 < self.pause_at <= self.machine.applied_index:
            self.paused()
        return True

    def _take_slice(self) -> list[tuple[int, int, bytes]]:
        """The first entries that are held, as many as take about a millisecond."""
        taken = []
        room = SLICE_BYTES
        for term, index, kind, data in islice(self._held, self._slice_entries):
            taken.append((index, term, data if kind is _COMMAND else b""))
            room -= len(data)
            if room <= 0 or index == self.pause_at:
                break
        return taken

    def _look_up(self, prepared: Prepared) -> None:
        """Ask the disk what it alone knows. Nothing else is applied meanwhile, so it stays true."""
        if self._failed:
            return
        machine = self.machine
        progress = Progress()
        look_up = partial(machine.look_up, prepared, progress.step)
        self._jobs.start("keys", look_up, partial(self._looked_up, machine, prepared), progress)

    def _looked_up(self, machine: StateMachine, prepared: Prepared, outcome: Found | Error) -> None:
        if machine is not self.machine:
            return
        if isinstance(outcome, StorageError) and not outcome.retryable and self._mends(outcome):
            return
        if isinstance(outcome, Error):
            raise_unless_passing(outcome)
            self._failed = True
        else:
            prepared.learn(outcome)  # type: ignore[arg-type]  # it is its own

    def _answer(self, answers: Sequence[Applied], applied_s: float) -> None:
        proposed = self._proposed
        if not proposed:
            return
        for index, term, results, _ in answers:
            waiting = proposed.pop(index, None)
            if waiting is None:
                continue
            if waiting.term == term:
                # First: whoever is told may want to say where the time went.
                times = EntryTimes(waiting.proposed_s, waiting.committed_s, applied_s)
                self._durations.entries.append(times)
                waiting.done(results)
            else:
                waiting.done(OutcomeUnknownError("leadership was lost; retry with the same id"))

    def _tell(self, answers: Sequence[Applied]) -> None:
        """Tell the listeners of a slice."""
        outcomes = [outcome for applied in answers for outcome in applied.answers]
        revision = self.machine.revision
        for listener in tuple(self.listeners):
            listener.applied(outcomes, revision)

    # --- who waits for them --------------------------------------------------------------------

    def wait_for(self, index: int, term: int, done: ProposalDone) -> None:
        """Call ``done`` with the results of entry ``index``, if it is applied as one of ``term``.

        Whoever waited for another entry of that index learns that its outcome is unknown.
        """
        replaced = self._proposed.pop(index, None)
        self._proposed[index] = _Waiting(term, done, self._now())
        if replaced is not None:
            replaced.done(OutcomeUnknownError("leadership was lost; retry with the same id"))

    def forget_proposed(self, error: Error) -> None:
        """Tell all who wait for an entry that they wait in vain."""
        waiting, self._proposed = self._proposed, {}
        for proposal in waiting.values():
            proposal.done(error)

    def serve_at(self, index: int, reads: list[ReadDone]) -> None:
        """Call ``reads`` once ``index`` is applied, with :meth:`serve_reads`."""
        self._reads_confirmed.append((index, reads))

    def serve_reads(self) -> None:
        """Call the reads that are confirmed and whose index is applied."""
        if self._reads_confirmed:
            self._serve_reads()

    def _serve_reads(self) -> None:
        if self.damage is not None:
            for done in self.take_reads():
                done(self.refusal())
            return
        applied = self.machine.applied_index
        later = []
        for index, reads in self._reads_confirmed:
            if index <= applied:
                for done in reads:
                    done(None)
            else:
                later.append((index, reads))
        self._reads_confirmed = later

    def take_reads(self) -> list[ReadDone]:
        """Take away the reads that still wait."""
        confirmed, self._reads_confirmed = self._reads_confirmed, []
        return [done for _, reads in confirmed for done in reads]

    # --- another state -------------------------------------------------------------------------

    def hold(self, damage: StorageError) -> None:
        """The state is damaged: apply nothing, and let nobody read it, until another is here."""
        self.damage = damage
        self.serve_reads()

    def release(self) -> None:
        """The state is whole again, and is what it was: go on with it."""
        self.damage = None
        self.apply_held()
        self._wake()

    def refusal(self) -> UnavailableError:
        """What whoever asks is told meanwhile."""
        code = None if self.damage is None else self.damage.code
        return UnavailableError(
            "this member's state is damaged and being made anew from that of others; ask another "
            f"member: {self.damage}",
            code=code,
        )

    @property
    def part(self) -> str:
        """The state's directory, below the member's."""
        return self._directory.part_of(self._path)

    @property
    def is_installing(self) -> bool:
        """A snapshot is being made the state."""
        return self._jobs.is_busy("install") or self._install_again is not None

    def install(self, index: int, then: Callable[[], None]) -> None:
        """Go on with the snapshot of ``index``, which is ready, as the state; then call ``then``.

        Until it is open the state is the one before, which nobody needs any more. What is held of
        later entries is applied after it.
        """
        directory, open_machine = self._directory, self._open_machine

        def install() -> tuple[str, StateMachine, list[str]]:
            path = directory.install(index)
            return path, open_machine(path), directory.replaced_by(index)

        if not self._jobs.start("install", install, partial(self._installed, index, then)):
            raise InternalError(f"snapshot {index} is to be installed while another one is")

    def _installed(
        self,
        index: int,
        then: Callable[[], None],
        outcome: tuple[str, StateMachine, list[str]] | Error,
    ) -> None:
        if isinstance(outcome, Error):
            raise_unless_passing(outcome)
            self._install_again = index, then
            return
        self._removals.remove(self._path, self.machine.close)
        self._path, self.machine, replaced = outcome
        for path in replaced:
            self._removals.remove(path)
        if self.machine.applied_index != index:
            raise InternalError(
                f"the snapshot of index {index} holds index {self.machine.applied_index}"
            )
        while self._held and self._held[0].index <= index:
            self._held.popleft()
        self._prepared = None
        self._lack = None
        self.damage = None
        then()
        for listener in tuple(self.listeners):
            listener.installed()
