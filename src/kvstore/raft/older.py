"""Entries for followers that memory holds no more, but the disk does.

The core knows from which index on the caller can read the log back. What a follower needs of it is
asked for in ``Bundle.fetches``, a stretch at a time, comes with ``Raft.fetched`` and leaves as
ordinary APPENDs. Entries that memory has let go were applied, so they are committed and nothing can
replace them: a stretch that comes late is as right as one in time, or isn't wanted any more.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.raft.log import Log
from kvstore.raft.messages import Entry, Fetch, Message, MessageKind
from kvstore.raft.progress import PeerState, Progress
from kvstore.raft.state import State

__all__ = ["Outcome", "can_be_had", "fetched", "keeps_from", "send", "term_before"]


class Outcome(enum.IntEnum):
    """What came of :func:`send`."""

    SENT = 0
    WAITS = 1
    """For the disk."""
    GONE = 2
    """The disk doesn't have it either."""


def can_be_had(log: Log, first: int) -> bool:
    """The entries from ``first`` on, and the term before them, are on the disk."""
    return 0 < log.oldest < first


def keeps_from(state: State, index: int) -> None:
    """Entries from ``index`` on can be read back, those before it not any more."""
    log = state.log
    log.oldest = max(log.oldest, index)


def send(state: State, member: int, progress: Progress) -> Outcome:
    """Send the follower the next entries from the disk, or ask for them (leader)."""
    log = state.log
    first = progress.next
    older = progress.older
    at = first - older[0].index if older else 0
    if not 0 < at < len(older):
        if not can_be_had(log, first):
            return Outcome.GONE
        if not progress.fetching:
            options = state.options
            progress.older = ()
            progress.fetching = first - 1
            last = min(log.offset, first - 1 + options.message_entries_max)
            state.fetches.append(Fetch(member, first - 1, last, options.inflight_bytes_max // 4))
        return Outcome.WAITS
    entries, size = _cut(state, older, at)
    upto = entries[-1].index
    state.messages.append(
        Message(
            MessageKind.APPEND,
            member,
            state.id,
            state.term,
            first - 1,
            older[at - 1].term,
            log.commit,
            entries=entries,
        )
    )
    progress.sent(upto, size)
    progress.older_sent = (upto, entries[-1].term)
    if progress.state is PeerState.REPLICATE:
        progress.commit_told = min(log.commit, upto)
        if upto == older[-1].index:
            progress.older = ()
    return Outcome.SENT


def _cut(state: State, older: Sequence[Entry], at: int) -> tuple[Sequence[Entry], int]:
    """What one message carries of ``older`` from place ``at`` on, and its payload bytes."""
    options = state.options
    size = 0
    end = at
    while end < len(older) and end - at < options.message_entries_max:
        more = len(older[end].data)
        if size + more > options.message_bytes_max and end > at:
            break
        size += more
        end += 1
    return older[at:end], size


def term_before(log: Log, progress: Progress) -> int:
    """The term of the entry before the next one to be sent, or -1 when it isn't known."""
    before = progress.next - 1
    if before >= log.offset:
        return log.term(before)
    index, term = progress.older_sent
    return term if index == before else -1


def fetched(state: State, member: int, first: int, entries: Sequence[Entry]) -> None:
    """What was asked for came, or nothing when it can't be had."""
    progress = state.progress.get(member)
    if progress is None or progress.fetching != first:
        return
    progress.fetching = 0
    if len(entries) < 2:
        # Not even one beside that whose term is needed: a snapshot has to do.
        keeps_from(state, first + 1)
        return
    _check(state.log, first, entries)
    progress.older = entries


def _check(log: Log, first: int, entries: Sequence[Entry]) -> None:
    """That these are the entries from ``first`` on; what a disk gives isn't taken on trust."""
    term = 0
    for index, entry in enumerate(entries, first):
        if entry.index != index or entry.term < term:
            raise CorruptionError(
                f"entry {entry.index} of term {entry.term} was read back where entry {index} "
                f"follows one of term {term}",
                code=IntegrityCode.INVALID_RECORD,
            )
        term = entry.term
    known = log.term(entries[-1].index)
    if known not in (-1, term) or term > log.last_term:
        raise CorruptionError(
            f"entry {entries[-1].index} was read back with term {term}, not {known}",
            code=IntegrityCode.INVALID_RECORD,
        )
