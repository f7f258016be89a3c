"""From the durable records to a running member (Raft figure 2, §7)."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.raft import damage, roles
from kvstore.raft.log import Log
from kvstore.raft.membership import History
from kvstore.raft.messages import NOBODY, Entry, EntryKind, HardState, SnapshotMeta
from kvstore.raft.options import Options
from kvstore.raft.state import State

__all__ = ["load"]


def load(
    member: int,
    options: Options,
    rng: random.Random,
    *,
    hard_state: HardState,
    snapshot: SnapshotMeta,
    entries: Sequence[Entry],
    applied: int,
    damaged: bool,
    hollow: Collection[int] = (),
) -> State:
    """The state of a member that starts; see ``Raft.__init__``."""
    kept = [entry for entry in entries if entry.index > snapshot.index]
    _check(hard_state, snapshot, kept, applied)
    lost = _lost_list(kept, hollow, applied)
    if lost:
        # Nobody may have it but in a snapshot: as if the log had ended before it.
        kept = [entry for entry in kept if entry.index < lost]
        damaged = True
    has_lost = damaged or hard_state.damaged
    held = [entry.index for entry in kept if entry.index in hollow and entry.index <= applied]
    if has_lost and held:
        kept = [entry for entry in kept if entry.index < held[0]]
    log = Log(snapshot.index, snapshot.term)
    state = State(
        member, options, rng, hard_state, log, History(snapshot.index, snapshot.membership)
    )
    if kept:
        state.append(kept, hollow)
    log.stable = log.handed = log.last
    # Applied entries were committed; the hint may be older, as it isn't synced by itself.
    commit = max(hard_state.commit, applied, snapshot.index)
    if has_lost or commit > log.last:
        # What is left is the log as it once was: later entries, which are lost, may have replaced
        # those of which it knew nothing yet, and it is they that were applied.
        log.commit = min(max(hard_state.commit, snapshot.index), log.last)
    else:
        log.commit = commit
    log.applied = log.offered = applied
    if log.hollow:
        _pass_hollow(state, log.commit)
    roles.become_follower(state, state.term, NOBODY)
    if damaged or commit > log.last:
        damage.found(state)
    return state


def _pass_hollow(state: State, commit: int) -> None:
    """What the state machine holds needs no data; of the rest nothing counts as committed."""
    log = state.log
    held = {index for index in log.hollow if index <= log.applied}
    if held:
        log.compact(max(held))
        state.configurations.compact(max(held))
    log.commit = min(commit, log.whole)


def _lost_list(entries: Sequence[Entry], hollow: Collection[int], applied: int) -> int:
    """The first hollow list of members of which the state machine has what follows; 0 for none."""
    if hollow:
        for entry in entries:
            if (
                entry.kind is EntryKind.MEMBERSHIP
                and entry.index in hollow
                and entry.index <= applied
            ):
                return entry.index
    return 0


def _check(
    hard_state: HardState, snapshot: SnapshotMeta, entries: Sequence[Entry], applied: int
) -> None:
    if applied < snapshot.index:
        raise _contradiction(
            f"the state machine holds entries up to {applied}, the log starts after "
            f"{snapshot.index}"
        )
    index, term = snapshot.index, snapshot.term
    for entry in entries:
        if entry.index != index + 1 or entry.term < term:
            raise _contradiction(
                f"entry {entry.index} of term {entry.term} follows entry {index} of term {term}"
            )
        index, term = entry.index, entry.term
    if term > hard_state.term:
        raise _contradiction(f"the log reaches term {term}, the hard state {hard_state.term}")


def _contradiction(what: str) -> CorruptionError:
    return CorruptionError(what, code=IntegrityCode.INVALID_RECORD)
