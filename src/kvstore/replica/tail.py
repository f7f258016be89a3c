"""The log's tail on disk: what followers may still need, and the state doesn't.

Memory holds a few megabytes of what was applied; the segments, which are written anyway, stay
until newer ones have ``log_tail_bytes``. A follower that was away for less than that gets plain
entries, read back beside the loop; only one that lacks more needs a snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from kvstore.errors import CorruptionError, Error, StorageError
from kvstore.raft import Entry, Fetch, Raft
from kvstore.replica.counters import ReplicaCounters
from kvstore.replica.options import ReplicaOptions
from kvstore.replica.pace import Pace
from kvstore.replica.storage import MemberLog
from kvstore.replica.work import Jobs

__all__ = ["TRANSFER_TAILS", "Tail"]

TRANSFER_TAILS = 4
"""While a snapshot is under way the log may grow to so many times its tail: the follower needs next
what follows the snapshot. Beyond that it gets another one."""


class Tail:
    """Decides which old segments stay, and reads entries back from them."""

    def __init__(
        self,
        raft: Raft,
        log: MemberLog,
        jobs: Jobs,
        options: ReplicaOptions,
        counters: ReplicaCounters,
        pace: Pace,
    ) -> None:
        self._raft = raft
        self._log = log
        self._jobs = jobs
        self._bytes = options.log_tail_bytes
        self._pace = pace
        self._counters = counters
        # What followers wait for, the newest of each.
        self._wanted: dict[int, Fetch] = {}
        # Entries before this index are no tail any more.
        self._given_up = 0
        self.segments_removed()

    # --- which segments stay -------------------------------------------------------------------

    def first_kept(self, index: int) -> int:
        """Where the log on disk begins, of all that is below ``index`` and the state has."""
        if not self._bytes:
            return index
        first = self._log.first_of_tail(self._bytes)
        needed = self._raft.kept_after(first) + 1
        if needed < first:
            first = max(needed, self._log.first_of_tail(TRANSFER_TAILS * self._bytes))
        return min(index, max(first, self._given_up))

    def segments_removed(self) -> None:
        """Some segments are gone, or the log was just opened."""
        if self._bytes:
            self._raft.keeps_from(self._log.first_readable)

    def give_up(self, index: int) -> None:
        """Keep nothing below ``index``."""
        self._given_up = max(self._given_up, index)

    # --- reading back --------------------------------------------------------------------------

    def fetch(self, fetches: Sequence[Fetch]) -> None:
        """Read back what the core asks for, beside the loop."""
        for fetch in fetches:
            self._wanted[fetch.member] = fetch
        self._start()

    def tick(self) -> None:
        """One tick has passed: more may be read, perhaps."""
        if self._wanted:
            self._start()

    def _start(self) -> None:
        for member, fetch in list(self._wanted.items()):
            if not self._pace.allows:
                return
            if self._jobs.start(
                f"read back for {member}",
                partial(self._log.read_back, fetch),
                partial(self._came, fetch),
            ):
                del self._wanted[member]

    def _came(self, fetch: Fetch, outcome: list[Entry] | Error) -> None:
        entries: Sequence[Entry] = ()
        if isinstance(outcome, StorageError) and outcome.retryable:
            # A descriptor was lacking, perhaps: at a later tick.
            self._wanted.setdefault(fetch.member, fetch)
            return
        if isinstance(outcome, (CorruptionError, StorageError)):
            self._lose()
        elif isinstance(outcome, Error):
            raise outcome
        else:
            entries = outcome
        size = sum(len(entry.data) for entry in entries)
        # The first is read for its term alone.
        self._pace.spend(size - len(entries[0].data) if entries else 0)
        self._counters.log_read_back_bytes += size
        try:
            self._raft.fetched(fetch.member, fetch.first, entries)
        except CorruptionError:
            self._lose()
            self._raft.fetched(fetch.member, fetch.first, ())

    def _lose(self) -> None:
        """The tail can't be read. Nothing of it is needed here: followers get snapshots.

        Its segments go: the next start would stop at what is damaged.
        """
        self._counters.log_tails_lost += 1
        first = self._raft.status().first_index
        self.give_up(first)
        self._raft.keeps_from(first)
