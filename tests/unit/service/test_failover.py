"""The service over a whole group on memory disks, while leaders come and go."""

from __future__ import annotations

from kvstore.errors import Error, InvalidArgumentError, OutcomeUnknownError, UnavailableError
from kvstore.replica import Replica
from kvstore.service import Delete, Get, KVService, Operation, Put, Result
from tests.unit.replica.driven_group import TICK_S, DrivenGroup

DEADLINE_S = 1000.0


class ServedGroup(DrivenGroup):
    """A group with the service that kvd puts before it, on the clock of its steps."""

    def __enter__(self) -> ServedGroup:
        self.service = KVService(
            self._route, now=lambda: self.steps * TICK_S, soon=lambda call: call()
        )
        return self

    def _route(self) -> Replica | Error:
        leader = self.group.leader_replica()
        return UnavailableError("no leader yet") if leader is None else leader

    def step(self) -> None:
        super().step()
        self.service.expire()

    def submit(self, operation: Operation) -> list[Result]:
        """Return a list that fills with the operation's result."""
        self.leader()
        results: list[Result] = []
        self.service.submit([operation], self.steps * TICK_S + DEADLINE_S, results.extend)
        return results

    def call(self, operation: Operation) -> Result:
        results = self.submit(operation)
        self.until(lambda: results)
        return results[0]

    def depose(self) -> int:
        """Cut the leader off until another one leads; return the old one."""
        old = self.leader().member
        self.group.network.isolate(old, [m for m in self.group.replicas if m != old])

        def another_leads() -> bool:
            leader = self.group.leader_replica()
            return leader is not None and leader.member != old

        self.until(another_leads)
        return old


def test_a_request_is_remembered_by_the_next_leader_and_after_a_restart() -> None:
    with ServedGroup() as group:
        assert group.call(Put(b"k", b"1", b"first")) is False
        assert group.call(Put(b"k", b"2", b"second")) is True
        assert group.call(Delete(b"none", b"third")) is False
        group.depose()
        assert group.call(Put(b"k", b"1", b"first")) is False
        assert isinstance(group.call(Put(b"k", b"3", b"first")), InvalidArgumentError)
        assert isinstance(group.call(Delete(b"k", b"first")), InvalidArgumentError)
        assert group.call(Get(b"k")) == b"2"
        group.group.network.heal()
        group.settle()
        disk = group.power_off()
    with ServedGroup(disk, seed=2) as group:
        assert group.call(Put(b"k", b"1", b"first")) is False
        assert group.call(Delete(b"none", b"third")) is False
        assert isinstance(group.call(Put(b"k", b"3", b"first")), InvalidArgumentError)
        assert group.call(Get(b"k")) == b"2"


def test_a_write_that_was_under_way_when_its_leader_was_cut_off_is_done_once() -> None:
    with ServedGroup() as group:
        assert group.call(Put(b"k", b"0", b"zero")) is False
        first = group.submit(Put(b"k", b"1", b"one"))
        group.depose()
        assert group.call(Put(b"k", b"1", b"one")) is True
        assert group.call(Get(b"k")) == b"1"
        group.group.network.heal()
        group.until(lambda: first)
        assert first[0] is True or isinstance(first[0], OutcomeUnknownError)
        group.settle()
        assert len(group.hashes()) == 1
        assert group.leader().machine.revision == 2


def test_without_a_majority_calls_are_refused_in_words() -> None:
    with ServedGroup() as group:
        assert group.call(Put(b"k", b"1", b"one")) is False
        for member in (1, 2, 3):
            group.group.network.isolate(member, [m for m in (1, 2, 3) if m != member])
        write = group.submit(Put(b"k", b"2", b"two"))
        read = group.submit(Get(b"k"))
        group.until(lambda: write and read)
        assert isinstance(write[0], OutcomeUnknownError)
        assert isinstance(read[0], UnavailableError)
        group.until(lambda: group.group.leader_replica() is None)
        refused: list[Result] = []
        group.service.submit([Get(b"k")], group.steps * TICK_S + DEADLINE_S, refused.extend)
        assert isinstance(refused[0], UnavailableError)
        group.group.network.heal()
        assert group.call(Put(b"k", b"3", b"three")) is True
        assert group.call(Get(b"k")) == b"3"
