"""Campaigns, votes and when they are withheld (Raft §5.2, §5.4.1; dissertation §4.2.3, §9.6)."""

from __future__ import annotations

from kvstore.raft import quorum, roles
from kvstore.raft.messages import NOBODY, Message, MessageKind, Role
from kvstore.raft.quorum import Votes
from kvstore.raft.state import State

__all__ = [
    "AILING_PATIENCE",
    "campaign",
    "handle_pre_vote",
    "handle_pre_vote_response",
    "handle_timeout_now",
    "handle_vote",
    "handle_vote_response",
    "hears_leader",
    "tick",
]

AILING_PATIENCE = 4
"""Timeouts without a leader after which a member campaigns although its storage takes nothing.

Until then it leaves that to those who are well. If none of them leads by then, either nobody is
well, or it alone has what was committed; its votes leave only once they are durable in any case.
"""


def tick(state: State) -> None:
    """Campaign when no leader gave a sign of life for the whole timeout (Raft §5.2)."""
    waited = state.now - state.leader_contact()
    if waited < state.timeout:
        return
    if not state.promotable() or (state.ailing and state.leader != NOBODY):
        # Whoever may not campaign forgets a silent leader all the same, so that reads and
        # votes don't count on it.
        roles.become_follower(state, state.term, NOBODY)
    elif not state.ailing or waited >= AILING_PATIENCE * state.timeout:
        campaign(state)


def hears_leader(state: State) -> bool:
    """True while a vote would disturb a leader that is doing well (dissertation §4.2.3)."""
    if state.role is Role.LEADER:
        return True
    ticks = state.options.election_ticks
    return state.leader != NOBODY and state.now - state.leader_contact() < ticks


def campaign(state: State) -> None:
    """Ask for pre-votes; the term rises only when a quorum would follow (dissertation §9.6)."""
    roles.become_pre_candidate(state)
    state.votes[state.id] = True
    _ask(state, MessageKind.PRE_VOTE, state.term + 1, forced=False)
    _conclude_pre_vote(state)


def _run(state: State, *, forced: bool) -> None:
    """Ask for votes in a new term (Raft §5.2).

    Requests and the own vote wait until term and vote are durable: whoever answers then votes
    for a candidate that can't forget that it stood in this term.
    """
    roles.become_candidate(state)
    _ask(state, MessageKind.VOTE, state.term, forced=forced)
    state.hold(Message(MessageKind.VOTE_RESPONSE, state.id, state.id, state.term))


def _ask(state: State, kind: MessageKind, term: int, *, forced: bool) -> None:
    membership = state.configurations.current
    log = state.log
    for voter in sorted((membership.voters | membership.outgoing) - {state.id}):
        message = Message(
            kind,
            voter,
            state.id,
            term,
            log_index=log.last,
            log_term=log.last_term,
            forced=forced,
        )
        if kind is MessageKind.VOTE:
            state.hold(message)
        else:
            state.messages.append(message)


def handle_pre_vote(state: State, message: Message) -> None:
    """Say whether a campaign could get this vote; nothing changes here (dissertation §9.6)."""
    grant = (
        message.term > state.term
        and not state.damaged
        and state.log.covers(message.log_index, message.log_term)
    )
    state.messages.append(
        Message(
            MessageKind.PRE_VOTE_RESPONSE,
            message.sender,
            state.id,
            message.term if grant else state.term,
            reject=not grant,
        )
    )


def handle_vote(state: State, message: Message) -> None:
    """Vote once a term, for a log at least as up to date (Raft §5.2, §5.4.1).

    A granted vote leaves when it is durable. A damaged member never votes: the entries that it
    lost would not be found missing in the candidate's log (faults.md, decision 3).
    """
    grant = (
        (state.vote == message.sender or (state.vote == NOBODY and state.leader == NOBODY))
        and not state.damaged
        and state.log.covers(message.log_index, message.log_term)
    )
    if grant:
        state.vote = message.sender
        roles.reset_timer(state)
        state.hold(Message(MessageKind.VOTE_RESPONSE, message.sender, state.id, state.term))
    else:
        state.send(MessageKind.VOTE_RESPONSE, message.sender, reject=True)


def handle_pre_vote_response(state: State, message: Message) -> None:
    """Count an answer to the pre-vote."""
    if state.role is not Role.PRE_CANDIDATE:
        return
    if not message.reject and message.term != state.term + 1:
        return
    state.votes.setdefault(message.sender, not message.reject)
    _conclude_pre_vote(state)


def _conclude_pre_vote(state: State) -> None:
    outcome = quorum.tally(state.configurations.current, state.votes)
    if outcome is Votes.WON:
        _run(state, forced=False)
    elif outcome is Votes.LOST:
        roles.become_follower(state, state.term, NOBODY)


def handle_vote_response(state: State, message: Message) -> None:
    """Count a vote, the own one included; lead with a quorum of them (Raft §5.2)."""
    if state.role is not Role.CANDIDATE:
        return
    state.votes.setdefault(message.sender, not message.reject)
    outcome = quorum.tally(state.configurations.current, state.votes)
    if outcome is Votes.WON:
        roles.become_leader(state)
    elif outcome is Votes.LOST:
        roles.become_follower(state, state.term, NOBODY)


def handle_timeout_now(state: State, message: Message) -> None:
    """Campaign at the leader's wish, past pre-vote and whoever hears it (dissertation §3.10)."""
    if state.promotable() and not state.ailing and message.sender == state.leader:
        _run(state, forced=True)
