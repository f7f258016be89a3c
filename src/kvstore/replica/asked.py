"""What a member is asked for between two turns: entries to propose, reads to confirm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from kvstore.errors import Error, InvalidArgumentError, UnavailableError
from kvstore.raft import Bundle, Raft
from kvstore.replica.applying import Applying, ProposalDone, ReadDone

__all__ = ["Asked", "ProposalTaken"]

ProposalTaken = Callable[[int], None]
"""Gets the term of an entry that is in the log of the leader that was asked."""

Answer = TypeVar("Answer")


class AskCore(Protocol):
    """Lets the core do something; its refusals are the caller's, a defect is the member's end."""

    def __call__(self, call: Callable[[], Answer], /) -> Answer: ...


class Asked:
    """Gathers it, asks the core for all of it at once, and ends what isn't answered any more.

    Bounded by those who ask (``service``), and the core's own bounds. Whoever is told something may
    ask for more from within.
    """

    def __init__(self, raft: Raft, applying: Applying, ask_core: AskCore) -> None:
        self._raft = raft
        self._applying = applying
        self._ask_core = ask_core
        # What calls are answered with once the member has failed or was closed.
        self._refusal: Error | None = None
        self._proposals: list[tuple[bytes, ProposalDone, ProposalTaken | None]] = []
        self._reads: list[ReadDone] = []
        self._round = 0
        # Of those that the core was asked for, by the context of their round.
        self._unconfirmed: dict[int, list[ReadDone]] = {}

    def propose(self, data: bytes, done: ProposalDone, taken: ProposalTaken | None = None) -> bool:
        """Propose one entry with the next turn; False, and ``done`` is told, where none comes."""
        if self._refusal is not None:
            done(self._refusal)
            return False
        self._proposals.append((data, done, taken))
        return True

    def read(self, done: ReadDone) -> bool:
        """Have a read confirmed from the next turn on; False, and ``done`` is told, where none
        comes."""
        if self._refusal is not None:
            done(self._refusal)
            return False
        self._reads.append(done)
        return True

    def ask(self) -> None:
        """Put to the core what was gathered."""
        if self._proposals:
            self._propose()
        if self._reads:
            self._read()

    def _propose(self) -> None:
        gathered, self._proposals = self._proposals, []
        try:
            data = [data for data, _, _ in gathered]
            proposed = self._ask_core(partial(self._raft.propose, data))
        except (Error, InvalidArgumentError) as error:
            for _, done, _ in gathered:
                done(error)
            return
        for index, (_, done, taken) in enumerate(gathered, proposed.first):
            self._applying.wait_for(index, proposed.term, done)
            if taken is not None:
                taken(proposed.term)

    def _read(self) -> None:
        reads, self._reads = self._reads, []
        self._round += 1
        try:
            self._ask_core(partial(self._raft.read_index, self._round))
        except Error as error:
            for done in reads:
                done(error)
            return
        self._unconfirmed[self._round] = reads

    def confirmed(self, bundle: Bundle) -> None:
        """Serve the reads that the core has confirmed, once what they see is applied."""
        for state in bundle.read_states:
            self._applying.serve_at(state.index, self._unconfirmed.pop(state.context))
        for context in bundle.reads_failed:
            for done in self._unconfirmed.pop(context):
                done(UnavailableError("no majority confirmed the leader in time"))

    def refuse_all(self, unknown: Error, refusal: Error) -> None:
        """End with ``unknown`` what may be applied yet, and all else, from now on, with
        ``refusal``."""
        self._refusal = refusal
        self._applying.forget_proposed(unknown)
        proposals, self._proposals = self._proposals, []
        for _, done, _ in proposals:
            done(refusal)
        reads = [
            *self._reads,
            *(done for reads in self._unconfirmed.values() for done in reads),
            *self._applying.take_reads(),
        ]
        self._reads = []
        self._unconfirmed = {}
        for read_done in reads:
            read_done(refusal)
