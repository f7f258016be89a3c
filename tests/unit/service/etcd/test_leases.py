"""What binds a lessor to an EtcdService: which member it is asked for, and what it hears."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from kvstore.service.etcd import EtcdService
from kvstore.service.etcd.leases import LeaseFigures, Leases
from kvstore.state.mvcc.answers import LeaseGrantAnswer
from kvstore.state.mvcc.records import LeaseRecord
from kvstore.state.mvcc.requests import LeaseRevoke, Operation


class Service:
    """One whose member leads from the start, and confirms reads at once."""

    election_timeout_s = 1.0
    patience_s = 7.0
    has_leader = is_leader = True
    leader_id = term = 1
    alarms: frozenset[tuple[int, int]] = frozenset()

    def __init__(self) -> None:
        self.member: Any = self
        self.machine = self
        self.records: dict[int, LeaseRecord] = {}
        self.listeners: list[Any] = []
        self.ticks: list[Callable[[], None]] = []
        self.proposed: list[Operation] = []
        self.now = 0.0
        self.leases_of_process = Leases(
            cast(EtcdService, self), now=lambda: self.now, soon=lambda call: call()
        )

    def leases(self) -> dict[int, LeaseRecord]:
        return self.records

    def read(self, done: Callable[[None], None]) -> None:
        done(None)

    def propose_here(self, operation: Operation, done: Callable[[Any], None]) -> None:
        self.proposed.append(operation)

    def listen(self, listener: Any) -> None:
        self.listeners.append(listener)

    def at_tick(self, call: Callable[[], None]) -> None:
        self.ticks.append(call)

    def grant(self, id: int) -> None:
        self.records[id] = LeaseRecord(10, -1, 1)
        self.listeners[0].applied([(b"", LeaseGrantAnswer(1, id, 10))], 1)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            for tick in self.ticks:
                tick()


def test_lease_is_renewed_and_runs_out_where_the_local_member_leads() -> None:
    service = Service()
    service.run(0.1)
    service.grant(5)
    told: list[object] = []
    service.run(6)
    service.leases_of_process.calls.renew(5, None, told.append)
    assert told == [10]
    service.run(9)
    assert service.proposed == []
    assert service.leases_of_process.calls.listing()() == [5]
    service.run(1.2)
    assert service.proposed == [LeaseRevoke(5, 1, 1)]
    figures = service.leases_of_process.figures()
    assert figures == LeaseFigures(
        leases=1, waiting=0, ending=1, expired=0, renewed=1, rounds=2, stalls=0
    )


def test_member_that_follows_ends_no_lease() -> None:
    service = Service()
    service.run(0.1)
    service.grant(5)
    service.is_leader = False
    service.listeners[0].applied([(b"", LeaseGrantAnswer(1, 6, 10))], 1)
    service.run(60)
    assert service.proposed == []


def test_least_ttl_is_told_and_all_that_waits_ends_with_it() -> None:
    service = Service()
    assert service.leases_of_process.ttl_min_s == 2
    service.is_leader = service.has_leader = False
    told: list[object] = []
    service.leases_of_process.calls.renew(5, None, told.append)
    service.leases_of_process.close()
    assert [str(error) for error in told] == ["etcdserver: server stopped"]
