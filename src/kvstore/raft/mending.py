"""A member whose log has hollow entries: index and term are known, what they say is damaged.

What Raft rests on is which entries a member has, by index and term (log matching, Raft §5.3), and
that is whole. So the member votes as before, for logs that are as up to date as its own, and is
brought up to date. What it lacks is bytes that are the same wherever an entry of this index and
term is, committed or not (FAST'18 asks the same of its "faulty" entries). Hence:

1. It doesn't campaign: a leader must be able to send what it has.
2. It takes nothing for committed, and acknowledges nothing, from its first hollow entry on.
3. It asks all others for the bytes, whatever anybody's term is. The one who drives the core
   compares them with the checksum that its own record has of them and makes them durable in their
   place (``Bundle.mends``, ``Raft.mended``).
4. What nobody can give it comes from a leader: it refuses APPENDs that begin behind its first
   hollow entry, so that it is sent them again, or a snapshot where they are gone there. A
   conflicting entry replaces a hollow one as any other. A leader never goes back behind what was
   acknowledged to it, though: where that is more than is whole, of a leader that leads on from
   before the member's restart, and nobody gives it, the member goes to a new term. Who leads that
   one remembers no acknowledgements.
5. Where the list of members is hollow it knows nobody, or an older list: it asks those as well that
   it heard.

With every entry whole at one member at least, and all of them there, all logs become whole and an
election is as ever. Where a committed entry is hollow wherever it is, nobody who lacks it wins (the
hollow ones have it, and vote for nobody who hasn't), and nobody who has it stands: no leader,
nothing lost in silence; ``lost`` says which one.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.raft.codec import decode_membership
from kvstore.raft.membership import MEMBERS_MAX, History
from kvstore.raft.messages import Entry, EntryKind, Message, MessageKind
from kvstore.raft.state import State

__all__ = [
    "AT_ONCE",
    "answer",
    "ask",
    "expects",
    "is_passed",
    "lost",
    "mended",
    "note",
    "offered",
    "take",
]

AT_ONCE = 16
"""Entries that are asked for at one time."""


def ask(state: State) -> None:
    """Ask the others for the first hollow entries; on ticks."""
    if state.now < state.next_asking:
        return
    state.next_asking = state.now + max(1, state.options.heartbeat_ticks)
    log = state.log
    for index in sorted(log.hollow)[:AT_ONCE]:
        if index not in state.offers:
            for member in sorted(_others(state)):
                state.send(MessageKind.MEND, member, log_index=index, log_term=log.term(index))


def note(state: State, sender: int) -> None:
    """Something came from ``sender`` that counts."""
    if len(state.heard_of) < MEMBERS_MAX:
        state.heard_of.add(sender)


def expects(state: State, message: Message) -> bool:
    """An answer of one that was asked without being known as a member."""
    return message.kind is MessageKind.MEND_RESPONSE and message.sender in state.heard_of


def _others(state: State) -> frozenset[int]:
    return (state.configurations.current.members | state.heard_of) - {state.id}


def answer(state: State, message: Message) -> None:
    """Give another member an entry of which it knows index and term."""
    log = state.log
    index = message.log_index
    known = index > log.offset and log.term(index) == message.log_term
    whole = known and index not in log.hollow
    # Who lost the end of its log has lost this, if it ever had it.
    lost = state.damaged and index > log.last
    state.send(
        MessageKind.MEND_RESPONSE,
        message.sender,
        log_index=index,
        log_term=message.log_term,
        entries=(log.entries[index - log.offset - 1],) if whole else (),
        reject=not whole,
        damaged=lost or (known and not whole),
    )


def take(state: State, message: Message) -> None:
    """Another member gave an entry, or said why it can't."""
    index = message.log_index
    if index not in state.log.hollow or state.log.term(index) != message.log_term:
        return
    if message.reject:
        answers = state.without.setdefault(index, {})
        answers[message.sender] = message.damaged
    else:
        offered(state, message.entries)


def offered(state: State, entries: Sequence[Entry]) -> None:
    """Entries have come, from whomever: of those that are hollow here the bytes are wanted."""
    log = state.log
    for entry in entries:
        index = entry.index
        if index in log.hollow and log.term(index) == entry.term and index not in state.offers:
            state.offers[index] = entry
            state.mends.append(entry)


def is_passed(state: State, message: Message) -> bool:
    """Whether the leader of this heartbeat counts on more than is whole here, and nobody gives it.

    It can only be one of the term that this member was started with: of later ones it has
    acknowledged nothing from its first hollow entry on.
    """
    return (
        message.term == state.first_term
        and message.log_index > state.log.whole
        and state.now - state.mended_at >= state.options.election_ticks
    )


def mended(state: State, entry: Entry, *, right: bool) -> None:
    """The bytes of a hollow entry are durable in their place, or were not the right ones."""
    log = state.log
    index = entry.index
    if state.offers.get(index) == entry:
        del state.offers[index]
    if not right or index not in log.hollow or log.term(index) != entry.term:
        return
    log.mend(entry)
    state.mended_at = state.now
    # What was known to be committed is so again.
    log.commit = max(log.commit, min(state.saved.commit, log.whole))
    state.without.pop(index, None)
    if entry.kind is EntryKind.MEMBERSHIP:
        _read_configurations(state)


def _read_configurations(state: State) -> None:
    """A configuration that wasn't known is: each holds from its place in the log on."""
    log = state.log
    base = state.configurations
    history = History(base.indexes[0], base.configurations[0])
    for entry in log.entries:
        if (
            entry.kind is EntryKind.MEMBERSHIP
            and entry.index > history.index
            and entry.index not in log.hollow
        ):
            history.append(entry.index, decode_membership(entry.data))
    state.configurations = history


def lost(state: State) -> int:
    """The first hollow entry that every other member says is damaged there as well; 0: none."""
    others = _others(state)
    if not state.configurations.current.members:
        return 0  # there may be more of them
    for index in sorted(state.log.hollow):
        answers = state.without.get(index, {})
        if all(answers.get(member, False) for member in others):
            return index
    return 0
