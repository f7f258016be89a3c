"""Which messages of other members are heard at all, and how far they may leap.

A certificate, or the cluster's secret, says who sends; it is no membership. Whoever isn't in the
configuration is still to be heard where the protocol needs it, and only there (dissertation §4.1):

* by one that has no configuration yet: it joins, and knows nobody;
* by one that hears no leader: the cluster may have moved on to members that it never heard of, one
  of which stands for election or leads by now. Only what a candidate or a leader says first counts.

While a leader is heard nobody needs a stranger, so none is heard: a certificate by itself deposes
nobody and puts nothing into a log. A stranger that was followed for want of another leader is
heard until a member of the configuration leads.
"""

from __future__ import annotations

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.raft.messages import NOBODY, Message, MessageKind
from kvstore.raft.state import State

__all__ = ["TERM_LEAP_MAX", "check_leader", "check_term", "hears"]

TERM_LEAP_MAX = 1 << 32
"""Elections that a member can have missed: at ten a second more than thirteen years of them."""

_FIRST_WORDS = frozenset(
    (
        MessageKind.PRE_VOTE,
        MessageKind.VOTE,
        MessageKind.APPEND,
        MessageKind.HEARTBEAT,
        MessageKind.SNAPSHOT,
    )
)
_LAST_WORDS = frozenset((MessageKind.APPEND_RESPONSE, MessageKind.HEARTBEAT_RESPONSE))


def check_term(state: State, term: int) -> None:
    """Raise CorruptionError for a term that no cluster reaches: after it there would be none."""
    if term > state.term + TERM_LEAP_MAX:
        raise CorruptionError(
            f"term {term} is more than {TERM_LEAP_MAX} above this member's {state.term}",
            code=IntegrityCode.INVALID_RECORD,
        )


def hears(state: State, message: Message) -> bool:
    """True when a message counts, by who sends it; see the module's words."""
    sender = message.sender
    configurations = state.configurations
    if sender in configurations.members or sender == state.leader or not configurations.members:
        return True
    if (
        configurations.index > state.log.commit
        and sender in configurations.before_current().members
    ):
        return True
    if sender in state.progress:
        # Removed, and being told so: it acknowledges, and nothing that it knows matters.
        return message.kind in _LAST_WORDS and message.term <= state.term
    return message.kind in _FIRST_WORDS and not state.has_quorum_contact()


def check_leader(state: State, message: Message) -> None:
    """Raise CorruptionError when another leads the term of a leader's ``message``.

    Elections give a term one leader at most (Raft §5.2): one of the two lies, and this came second.
    """
    if message.term == state.term and state.leader not in (NOBODY, message.sender):
        raise CorruptionError(
            f"members {state.leader} and {message.sender} lead term {state.term}",
            code=IntegrityCode.INVALID_RECORD,
        )
