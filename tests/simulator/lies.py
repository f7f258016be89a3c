"""What a member tells that sends anything, with a valid certificate: it may cost its own vote.

Raft doesn't survive every lie. A vote that is given twice, an acknowledgement of what isn't there,
a confirmed round of heartbeats: each is the liar's own vote, and with one more member that fails it
can be the one that was missing. Nor does it survive a leader that commits what it likes. Those lies
are left out here. All others must be refused or come to nothing: nobody ends, counts itself
damaged, or is kept from its work for longer than the lies last.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from kvstore.raft import Entry, EntryKind, Membership, Message, MessageKind, Raft, SnapshotMeta
from kvstore.raft.admission import TERM_LEAP_MAX
from kvstore.replica.packets import NO_ROOM, REFUSED, Packet, SnapshotPart, SnapshotProgress

__all__ = ["forge"]

K = MessageKind
_BEYOND = 1 << 62


def forge(rng: random.Random, liar: Raft, victim: Raft) -> Packet:
    """A lie of ``liar`` for ``victim``, as both are at this moment."""
    return rng.choice(_LIES)(rng, liar, victim)


def _anything(rng: random.Random, liar: Raft, victim: Raft, term: int, kind: K) -> Message:
    around = victim._state.log.last
    place = rng.choice((0, 1, around, around + 1, around + 1000, _BEYOND))
    return Message(
        kind,
        victim._state.id,
        liar._state.id,
        term,
        log_index=place,
        log_term=rng.choice((0, 1, victim.term, _BEYOND)),
        commit=rng.choice((0, around, _BEYOND)),
        hint_index=rng.choice((0, around, _BEYOND)),
        context=rng.choice((0, 1, rng.getrandbits(62))),
        entries=_garbage(rng, place, victim.term) if kind is K.APPEND else (),
        snapshot=_mark(rng, victim) if kind is K.SNAPSHOT else None,
        reject=rng.random() < 0.5,
        forced=rng.random() < 0.5,
        damaged=rng.random() < 0.5,
        ailing=rng.random() < 0.5,
    )


def _garbage(rng: random.Random, place: int, term: int) -> tuple[Entry, ...]:
    """Entries that can't be applied, or stand where they can't."""
    kind = rng.choice((EntryKind.COMMAND, EntryKind.MEMBERSHIP, EntryKind.EMPTY))
    return (Entry(term, place + 1, kind, rng.randbytes(rng.randint(1, 60))),)


def _mark(rng: random.Random, victim: Raft) -> SnapshotMeta:
    voters = frozenset(rng.sample(range(1, 12), rng.randint(0, 5)))
    index = rng.choice((0, 1, victim.commit, victim.commit + 5, _BEYOND))
    return SnapshotMeta(index, rng.choice((0, victim.term, _BEYOND)), Membership(voters))


def _leap(rng: random.Random, liar: Raft, victim: Raft) -> Packet:
    term = victim.term + TERM_LEAP_MAX + rng.randint(1, 1 << 61)
    return _anything(rng, liar, victim, term, rng.choice(list(K)))


def _stale(rng: random.Random, liar: Raft, victim: Raft) -> Packet:
    term = rng.randrange(max(victim.term, 1))
    return _anything(rng, liar, victim, term, rng.choice(list(K)))


def _garbage_append(rng: random.Random, liar: Raft, victim: Raft) -> Packet:
    """What can't be kept, after an entry that both have."""
    log = victim._state.log
    entries = _garbage(rng, log.commit, victim.term)
    return _append(liar, victim, victim.term + rng.randint(0, 2), log.commit, entries)


def _append(liar: Raft, victim: Raft, term: int, place: int, entries: tuple[Entry, ...]) -> Message:
    log_term = max(victim._state.log.term(place), 0)
    return Message(
        K.APPEND, victim._state.id, liar._state.id, term, place, log_term, 0, entries=entries
    )


def _other_history(rng: random.Random, liar: Raft, victim: Raft) -> Packet:
    """The leader of a new term would have committed entries replaced by others."""
    log = victim._state.log
    first = rng.randint(log.offset, log.commit) + 1
    term = victim.term + 1
    entries = tuple(
        Entry(term, index, EntryKind.EMPTY, b"")
        for index in range(first, min(log.commit, first + 3) + 1)
    )
    return _append(liar, victim, term, first - 1, entries)


def _loss(rng: random.Random, liar: Raft, victim: Raft) -> Packet:
    """The leader of a new term remembers acknowledgements that were never given."""
    place = victim._state.log.last + rng.choice((1, 2, 1000))
    term = victim.term + rng.randint(1, 3)
    return Message(K.HEARTBEAT, victim._state.id, liar._state.id, term, place)


def _impossible_answer(rng: random.Random, liar: Raft, victim: Raft) -> Packet:
    """It has more than there is, or would have anything again."""
    message = _anything(rng, liar, victim, victim.term, K.APPEND_RESPONSE)
    if not message.reject:
        message.log_index = victim._state.log.last + rng.choice((1, 1000, _BEYOND))
    message.damaged = False
    return message


def _election(rng: random.Random, liar: Raft, victim: Raft) -> Packet:
    """A poll with any log; a candidacy with the true one, as it may come to stand in that term."""
    kind = rng.choice((K.PRE_VOTE, K.VOTE, K.VOTE_RESPONSE, K.PRE_VOTE_RESPONSE, K.TIMEOUT_NOW))
    message = _anything(rng, liar, victim, victim.term + rng.randint(0, 3), kind)
    if kind is K.VOTE:
        message.log_term, message.log_index = liar.last_entry
        message.term = max(message.term, liar.term + 1)
    elif kind is not K.PRE_VOTE:
        message.reject = True
    return message


def _read(rng: random.Random, liar: Raft, victim: Raft) -> Packet:
    kind = rng.choice((K.READ, K.READ_RESPONSE))
    message = _anything(rng, liar, victim, victim.term, kind)
    message.context = rng.getrandbits(62)
    return message


def _part(rng: random.Random, liar: Raft, victim: Raft) -> Packet:
    """A part of a snapshot that nobody made, of any size."""
    data = rng.randbytes(rng.randint(0, 50))
    total = rng.choice((len(data), len(data) + 1, 1 << 40, _BEYOND))
    offset = rng.choice((0, 0, total - len(data)))
    term = victim.term + rng.choice((0, 0, 1, 3))
    return SnapshotPart(
        liar._state.id, victim._state.id, term, _mark(rng, victim), total, offset, data
    )


def _progress(rng: random.Random, liar: Raft, victim: Raft) -> Packet:
    index = rng.choice((0, victim.commit, victim._state.log.offset, _BEYOND))
    upto = rng.choice((0, 1, 300, _BEYOND, REFUSED, NO_ROOM))
    return SnapshotProgress(liar._state.id, victim._state.id, victim.term, index, upto)


_LIES: tuple[Callable[[random.Random, Raft, Raft], Packet], ...] = (
    _leap,
    _stale,
    _garbage_append,
    _other_history,
    _loss,
    _impossible_answer,
    _election,
    _read,
    _part,
    _progress,
)
