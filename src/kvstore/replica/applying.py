"""From what is committed to the state: entries, who waits for their results, confirmed reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from kvstore.errors import Error, InternalError, OutcomeUnknownError, StorageError
from kvstore.raft import Entry, EntryKind, Raft
from kvstore.replica.checkpoints import Removals
from kvstore.replica.directory import MemberDirectory
from kvstore.replica.work import Jobs
from kvstore.state import StateMachine
from kvstore.state.machine import CommandResult

__all__ = ["Applying", "ProposalDone", "ReadDone"]

ProposalDone = Callable[[Sequence[CommandResult] | Error], None]
ReadDone = Callable[[Error | None], None]

_COMMAND = EntryKind.COMMAND


@dataclass(slots=True)
class _Waiting:
    """A proposal that waits for its entry to be applied."""

    term: int
    done: ProposalDone


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
    ) -> None:
        """``machine`` was opened on ``path`` by ``open_machine``."""
        self.machine = machine
        self._raft = raft
        self._path = path
        self._directory = directory
        self._open_machine = open_machine
        self._jobs = jobs
        self._removals = removals
        self._proposed: dict[int, _Waiting] = {}
        self._reads_confirmed: list[tuple[int, list[ReadDone]]] = []
        # Committed, but the engine has no room for them yet; oldest first.
        self._held: deque[Sequence[Entry]] = deque()
        self._lack: StorageError | None = None

    # --- entries -------------------------------------------------------------------------------

    @property
    def lacks_room(self) -> bool:
        """The disk is too full for the engine to take a write; it goes on by itself."""
        return self._lack is not None

    def _has_room(self) -> bool:
        """The engine can take a write. While a full disk keeps it from flushing it may not."""
        try:
            self.machine.make_room()
        except StorageError as error:
            if not error.retryable:
                raise
            self._lack = error
            return False
        self._lack = None
        return True

    def apply(self, entries: Sequence[Entry]) -> None:
        """Apply them, or hold them until there is room."""
        if self._held or not self._has_room():
            # The core offers no more than it has room for beyond what was applied.
            self._held.append(entries)
        else:
            self._apply_now(entries)

    def apply_held(self) -> None:
        """Go on with what is held, if there is room by now."""
        if not self._held:
            return
        while self._held and self._has_room():
            self._apply_now(self._held.popleft())
        if self._reads_confirmed:
            self._serve_reads()

    def _apply_now(self, entries: Sequence[Entry]) -> None:
        answers = self.machine.apply(
            [
                (index, term, data if kind is _COMMAND else b"")
                for term, index, kind, data in entries
            ]
        )
        self._raft.applied(entries[-1].index)
        proposed = self._proposed
        if not proposed:
            return
        for index, term, results in answers:
            waiting = proposed.pop(index, None)
            if waiting is None:
                continue
            if waiting.term == term:
                waiting.done(results)
            else:
                waiting.done(OutcomeUnknownError("leadership was lost; retry with the same id"))

    # --- who waits for them --------------------------------------------------------------------

    def wait_for(self, index: int, term: int, done: ProposalDone) -> None:
        """Call ``done`` with the results of entry ``index``, if it is applied as one of ``term``.

        Whoever waited for another entry of that index learns that its outcome is unknown.
        """
        replaced = self._proposed.pop(index, None)
        self._proposed[index] = _Waiting(term, done)
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

    @property
    def is_installing(self) -> bool:
        """A snapshot is being made the state."""
        return self._jobs.is_busy("install")

    def install(self, index: int, then: Callable[[], None]) -> None:
        """Go on with the snapshot of ``index``, which is ready, as the state; then call ``then``.

        Until it is open the state is the one before, which nobody needs any more.
        """
        directory, open_machine = self._directory, self._open_machine

        def install() -> tuple[str, StateMachine]:
            path = directory.install(index)
            return path, open_machine(path)

        if not self._jobs.start("install", install, partial(self._installed, index, then)):
            raise InternalError(f"snapshot {index} is to be installed while another one is")

    def _installed(
        self, index: int, then: Callable[[], None], outcome: tuple[str, StateMachine] | Error
    ) -> None:
        if isinstance(outcome, Error):
            raise outcome
        self._removals.remove(self._path, self.machine.close)
        self._path, self.machine = outcome
        if self.machine.applied_index != index:
            raise InternalError(
                f"the snapshot of index {index} holds index {self.machine.applied_index}"
            )
        self._held.clear()  # all of it is before the snapshot
        self._lack = None
        then()
