"""Listeners: told of each slice in order, with the answers of operations, on every member."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.replica import Replica
from kvstore.state import OperationResult, encode_commands
from kvstore.state.mvcc.answers import EnableAnswer, PutAnswer
from kvstore.state.mvcc.operations import encode_operations
from kvstore.state.mvcc.requests import EnableModel, Operation, Proposal, Put
from tests.unit.replica.driven_group import DrivenGroup, into, put_of


class Heard:
    """Notes what it is told, and what the member's state was then."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.answers: list[tuple[bytes, OperationResult]] = []
        self.revisions: list[int] = []
        self.installations: list[int] = []
        replica.listen(self)

    def applied(self, answers: Sequence[tuple[bytes, OperationResult]], revision: int) -> None:
        assert self.replica.machine.revision == revision
        self.answers += answers
        self.revisions.append(revision)

    def installed(self) -> None:
        self.installations.append(self.replica.machine.revision)


def propose(replica: Replica, number: int, operation: Operation) -> list[object]:
    outcomes: list[object] = []
    data = encode_operations([Proposal(b"%016d" % number, operation)], replica.log_time_ms())
    replica.propose(data, into(outcomes))
    return outcomes


def test_all_members_listeners_hear_the_same_in_order() -> None:
    with DrivenGroup() as driven:
        leader = driven.leader()
        driven.settle()
        heard = [Heard(replica) for replica in driven.group.replicas.values()]
        proposals = [
            propose(leader, number, operation)
            for number, operation in enumerate((EnableModel(), Put(b"k", b"1"), Put(b"k", b"2")))
        ]
        written: list[object] = []
        leader.propose(encode_commands([put_of("r", b"k", b"3")]), into(written))
        driven.until(lambda: written)
        driven.settle()
        assert written == [[True]]
        # The answers are the listeners' alone.
        assert proposals == [[[]]] * 3
        for one in heard:
            assert one.answers == [
                (b"%016d" % 0, EnableAnswer(1)),
                (b"%016d" % 1, PutAnswer(2)),
                (b"%016d" % 2, PutAnswer(3)),
            ]
            assert one.revisions == sorted(one.revisions)
            assert one.revisions[-1] == 4
        status = leader.status()
        assert (status.model_enabled, status.compacted) == (True, -1)
        assert len(driven.hashes()) == 1
        heard[0].replica.unlisten(heard[0])
        driven.put(b"k", b"4")
        assert heard[0].revisions[-1] == 4
        assert not driven.failed


def test_who_gets_a_snapshot_hears_of_it_and_has_what_the_model_stored() -> None:
    with DrivenGroup() as driven:
        leader = driven.leader()
        driven.settle()
        away = next(member for member in driven.group.replicas if member != leader.member)
        others = [member for member in driven.group.replicas if member != away]
        propose(leader, 0, EnableModel())
        driven.settle()
        heard = Heard(driven.group.replicas[away])
        driven.group.network.isolate(away, others)
        for number in range(60):
            propose(leader, 1 + number, Put(b"k%d" % (number % 7), b"v" * 200))
            driven.step()
            leader.machine.flush()
        driven.group.network.heal()
        driven.settle()
        assert heard.installations
        machine = driven.group.replicas[away].machine
        assert machine.model_enabled
        assert machine.revision == driven.leader().machine.revision == 61
        assert [*machine._db] == [*driven.leader().machine._db]
        assert machine._db.retained_sequence == 0
        assert len(driven.hashes()) == 1
        assert not driven.failed
