"""What a member says of the end of its log."""

from __future__ import annotations

from kvstore.raft import Message, MessageKind

from .raft_cluster import Cluster, voters


def test_the_last_entry_has_the_term_it_was_made_in_whatever_the_members_is() -> None:
    cluster = Cluster(voters(1, 2, 3))
    cluster.elect(1)
    term = cluster[2].term
    assert cluster[2].last_entry == (term, 2)
    cluster[2].step(Message(MessageKind.VOTE, 2, 3, term + 5, forced=True))
    assert cluster[2].term == term + 5
    assert cluster[2].last_entry == (term, 2)
