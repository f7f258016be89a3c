"""A member that lost entries which it had acknowledged (faults.md, decision 3; FAST'18).

Raft takes for granted that what was acknowledged stays. When a disk breaks that, the member's
votes and acknowledgements are worth nothing until it is whole again, and the rule for that is:

1. It goes to a term above every term in which it can have acknowledged anything, and makes that
   durable together with the mark ``damaged``. The leader of the old term, which may still count
   on the lost entries, learns of the new term from any answer and steps down.
2. It neither votes nor campaigns while the mark stands. So each leader of a later term was elected
   by a quorum without it. That quorum has a member in common with every quorum that committed
   anything, and that member is not this one: the new leader has all that was committed.
3. What it acknowledges to such a leader is true: those entries are here, equal and durable.
4. When it has, durably, all up to a committed entry of the present leader's own term, it has
   everything that was committed before; the mark goes.

With a majority damaged nobody is elected and nothing is served: nothing could be proved.

Loss is seen at restart (the storage says so, the commit hint or the state machine is past the
log's end) or later from the leader, whose heartbeats carry what it remembers as acknowledged. The
latter is believed in the term of the restart alone: of later ones a member remembers itself what it
acknowledged, and where a majority believed a liar nobody would be elected any more.
"""

from __future__ import annotations

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.raft import roles
from kvstore.raft.messages import NOBODY, Message
from kvstore.raft.state import State

__all__ = ["check_claim", "found", "heal"]


def check_claim(state: State, message: Message) -> None:
    """Raise CorruptionError unless what a heartbeat says was acknowledged can have been."""
    if message.term > state.first_term:
        raise CorruptionError(
            f"member {message.sender} says that entry {message.log_index} was acknowledged in term "
            f"{message.term}, of which this member remembers all that it did",
            code=IntegrityCode.INVALID_RECORD,
        )


def found(state: State) -> None:
    """Entries are missing here: rules 1 and 2 hold from now on."""
    state.damaged = True
    roles.become_follower(state, state.term + 1, NOBODY)


def heal(state: State) -> None:
    """Rule 4; cheap, to be called when marks moved on a damaged member."""
    log = state.log
    if (
        state.leader not in (NOBODY, state.id)
        and state.installing is None
        and log.commit <= log.stable
        and log.term(log.commit) == state.term
    ):
        state.damaged = False
