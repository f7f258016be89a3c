"""Retries over a whole group with memories of 8: at full speed, failover, snapshots, restarts."""

from __future__ import annotations

import dataclasses

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import Error, ForgottenError, Refusal, ResourceExhaustedError
from kvstore.service import Get, OpenSession, Put, Result
from kvstore.state import MemoryBounds, SessionBounds
from tests.unit.replica.driven_group import SMALL, TICK_S
from tests.unit.service.test_failover import ServedGroup

TINY = dataclasses.replace(
    SMALL,
    memory=MemoryBounds(
        requests=8, sessions=SessionBounds(sessions_max=2, idle_ms=60_000, spared_ms=30_000)
    ),
)


class TinyGroup(ServedGroup):
    """It remembers 8 requests and 2 sessions, for a minute."""

    def __init__(self, disk: MemoryFileSystem | None = None, *, seed: int = 1) -> None:
        super().__init__(disk, seed=seed, options=TINY)

    def open(self) -> str:
        name = self.call(OpenSession())
        assert isinstance(name, bytes)
        return name.decode()

    def others_write(self, count: int = 40) -> None:
        """Many other writes, so that whatever can be forgotten is."""
        writes = [self.submit(Put(b"other", b"%d" % n, b"other-%d" % n)) for n in range(count)]
        self.until(lambda: all(writes))
        assert not any(isinstance(result, Error) for (result,) in writes)

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds / TICK_S)):
            self.step()


def in_session(name: str, sequence: int, floor: int, value: bytes) -> Put:
    return Put(b"k", value, f"kvs1/{name}/{sequence}/{floor}".encode())


def refusal(result: Result) -> Refusal | None:
    return result.refusal if isinstance(result, ForgottenError) else None


def test_a_late_retry_does_not_overwrite_what_was_acknowledged_after_it() -> None:
    """As the review showed it: v1 applied, v2 acknowledged, others write, v1 comes again."""
    with TinyGroup() as group:
        session = group.open()
        for number, first in enumerate(
            (in_session(session, 1, 1, b"v1"), Put(b"k", b"v1", b"plain"))
        ):
            age_s = group.steps * TICK_S
            before = group.call(first)
            group.call(Put(b"k", b"v2", b"second-%d" % number))
            group.others_write()
            age_s = group.steps * TICK_S - age_s + 1
            again = group.call(first._replace(age_s=age_s))
            if number == 0:
                assert again is before
            else:
                assert refusal(again) is Refusal.REQUEST_FORGOTTEN
            assert group.call(Get(b"k")) == b"v2"


def test_a_retry_of_what_never_arrived_is_done_where_nothing_of_its_age_was_forgotten() -> None:
    with TinyGroup() as group:
        group.others_write()
        group.wait(20)
        assert group.call(Put(b"k", b"v", b"lost", age_s=2.0)) is False
        group.others_write(8)
        # The same again, but what was forgotten is younger than that.
        late = group.call(Put(b"k", b"w", b"lost too", age_s=2.0))
        assert refusal(late) is Refusal.REQUEST_FORGOTTEN
        assert group.call(Get(b"k")) == b"v"


def test_a_session_survives_failover_restart_and_time_without_a_leader() -> None:
    with TinyGroup() as group:
        session = group.open()
        assert group.call(in_session(session, 1, 1, b"v1")) is False
        group.others_write()
        group.depose()
        assert group.call(in_session(session, 1, 1, b"v1")) is False
        assert group.call(in_session(session, 2, 2, b"v2")) is True
        late = group.call(in_session(session, 1, 1, b"v1"))
        assert refusal(late) is Refusal.SEQUENCE_PASSED
        group.group.network.heal()
        group.settle()
        disk = group.power_off()
    with TinyGroup(disk, seed=2) as group:
        group.steps = 10**9  # as much as the clocks of other machines may say
        assert group.call(in_session(session, 2, 2, b"v2")) is True
        late = group.call(in_session(session, 1, 1, b"v1"))
        assert refusal(late) is Refusal.SEQUENCE_PASSED
        assert group.call(Get(b"k")) == b"v2"


def test_an_idle_session_expires_and_never_comes_back() -> None:
    with TinyGroup() as group:
        session = group.open()
        assert group.call(in_session(session, 1, 1, b"v1")) is False
        group.wait(50)
        assert group.call(in_session(session, 2, 2, b"v2")) is True
        group.wait(61)
        # Whatever is applied next ends it, by the log's clock, at every member.
        for number in (3, 2, 4):
            late = group.call(in_session(session, number, 2, b"v2"))
            assert refusal(late) is Refusal.SESSION_EXPIRED
            group.depose()
            group.group.network.heal()
        assert group.call(Get(b"k")) == b"v2"
        group.settle()
        assert len(group.hashes()) == 1


def test_sessions_are_bounded_and_refused_ones_leave_the_others_alone() -> None:
    with TinyGroup() as group:
        first, second = group.open(), group.open()
        assert isinstance(group.call(OpenSession()), ResourceExhaustedError)
        assert group.call(in_session(first, 1, 1, b"v")) is False
        group.wait(29)
        assert group.call(in_session(second, 1, 1, b"w")) is True
        group.wait(2)
        third = group.open()
        assert refusal(group.call(in_session(first, 2, 2, b"x"))) is Refusal.SESSION_EXPIRED
        assert group.call(in_session(second, 2, 2, b"x")) is True
        assert group.call(in_session(third, 1, 1, b"y")) is True


def test_a_member_that_installed_a_snapshot_refuses_the_same() -> None:
    with TinyGroup() as group:
        session = group.open()
        sent_at = group.steps * TICK_S
        group.call(in_session(session, 1, 1, b"v1"))
        plain = Put(b"k", b"v2", b"plain")
        group.call(plain)
        leader = group.leader().member
        behind = next(member for member in group.group.replicas if member != leader)
        group.group.network.isolate(behind, [m for m in group.group.replicas if m != behind])
        group.call(in_session(session, 2, 2, b"v3"))
        for _ in range(15):
            group.others_write()
            group.leader().machine.flush()
        group.group.network.heal()
        replica = group.group.replicas[behind]
        group.settle()
        assert replica.counters.snapshots_received > 0
        group.until(lambda: group.group.leader_replica() is not None)
        group.leader().transfer_leadership(behind)
        group.until(lambda: replica.is_leader and replica.has_quorum_contact)
        assert group.call(in_session(session, 2, 2, b"v3")) is True
        late = group.call(in_session(session, 1, 1, b"v1"))
        assert refusal(late) is Refusal.SEQUENCE_PASSED
        age_s = group.steps * TICK_S - sent_at
        late = group.call(plain._replace(age_s=age_s))
        assert refusal(late) is Refusal.REQUEST_FORGOTTEN
        assert group.call(Get(b"k")) == b"v3"
        group.settle()
        assert len(group.hashes()) == 1


@pytest.mark.parametrize("fault", ["none", "failover"])
def test_a_thousand_writes_each_sent_three_times_are_done_once(fault: str) -> None:
    with TinyGroup() as group:
        session = group.open()
        done: list[list[Result]] = []
        for number in range(1, 1001):
            floor = max(1, number - 200)
            value = b"%d" % number
            for _ in range(3):
                done.append(group.submit(in_session(session, number, floor, value)))
            if number % 50 == 0:
                group.step()
            if fault == "failover" and number == 500:
                group.depose()
                group.group.network.heal()
        group.until(lambda: all(done))
        group.settle()
        unknown = sum(isinstance(result, Error) for (result,) in done)
        assert unknown == 0 or fault == "failover"
        revision = group.leader().machine.revision
        assert revision == 1000 or (fault == "failover" and 500 <= revision <= 1000)
        # Whatever became of them, those in the window are done once when they are sent again.
        for number in range(801, 1001):
            again = group.call(in_session(session, number, 801, b"%d" % number))
            assert isinstance(again, bool)
        assert group.leader().machine.revision <= 1000
