"""A proposal is known to be in the log, and of which term, before it is committed."""

from __future__ import annotations

from kvstore.errors import NotLeaderError
from kvstore.state import encode_commands
from tests.unit.replica.driven_group import DrivenGroup, into, put_of

DATA = encode_commands([put_of("one", b"k", b"v")])


def test_it_is_told_once_it_is_in_the_log() -> None:
    with DrivenGroup() as driven:
        leader = driven.leader()
        answers: list[object] = []
        terms: list[int] = []
        leader.propose(DATA, into(answers), terms.append)
        leader.turn()
        assert (terms, answers) == ([leader.term], [])
        driven.until(lambda: answers)
        assert (terms, answers) == ([leader.term], [[False]])


def test_it_is_not_told_of_one_that_is_refused() -> None:
    with DrivenGroup() as driven:
        follower = next(r for r in driven.group.replicas.values() if not r.is_leader)
        answers: list[object] = []
        follower.propose(DATA, into(answers), lambda term: answers.append("taken"))
        driven.until(lambda: answers)
        assert isinstance(answers[0], NotLeaderError)
        assert len(answers) == 1
