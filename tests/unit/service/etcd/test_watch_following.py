"""The hub reads the state of whichever member takes the calls."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, cast

import pytest

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.etcd_errors import EtcdError
from kvstore.replica.work import AtOnce
from kvstore.service.etcd.member import Listener
from kvstore.service.etcd.watch_following import Following, Service
from kvstore.service.etcd.watch_words import WatchRequest
from tests.unit.service.etcd.fake_source import FakeSource
from tests.unit.service.etcd.hub_stage import encode


class Machine(FakeSource):
    model_enabled = True


class Member:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.state_is_damaged = False
        self.failed: list[Exception] = []
        self.ticks: list[int] = []

    def read_failed(self, error: Exception) -> Exception:
        self.failed.append(error)
        return error

    def reads_take(self, ticks: int, reader: str) -> None:
        assert reader == "watches"
        self.ticks.append(ticks)


class Calls:
    """An EtcdService, as far as this asks it."""

    def __init__(self) -> None:
        self.member: Member | None = None
        self.listeners: list[Listener] = []
        self.ticks: list[Callable[[], None]] = []
        self.soon: list[Callable[[], None]] = []
        self.hub = Following(
            cast("Service", self),
            now=lambda: 0.0,
            soon=self.soon.append,
            work=AtOnce(),
            rng=random.Random(1),
        ).hub

    def listen(self, listener: Listener) -> None:
        self.listeners.append(listener)

    def at_tick(self, call: Callable[[], None]) -> None:
        self.ticks.append(call)

    def applied(self) -> None:
        for listener in self.listeners:
            listener.applied((), 0)

    def installed(self) -> None:
        for listener in self.listeners:
            listener.installed()


def watch(calls: Calls) -> Any:
    stream = calls.hub.open(encode, lambda: None, lambda error: None)
    stream.create(WatchRequest(b"a"))
    stream.take()
    return stream


def test_there_is_nothing_to_watch_before_keys_have_revisions() -> None:
    calls = Calls()
    with pytest.raises(EtcdError, match="no leader"):
        watch(calls)
    machine = Machine()
    machine.model_enabled = False
    calls.member = Member(machine)
    calls.applied()
    with pytest.raises(EtcdError, match="no leader"):
        watch(calls)
    machine.model_enabled = True
    calls.applied()
    watch(calls)


def test_watches_go_on_from_the_member_that_takes_the_calls_next() -> None:
    calls = Calls()
    machine = Machine()
    calls.member = Member(machine)
    calls.installed()
    stream = watch(calls)
    machine.put((b"a", b"1"))
    calls.applied()
    other = Machine(machine.history)
    machine.put((b"a", b"2"))
    other.revision = 3
    calls.member = Member(other)
    calls.installed()
    (message,) = stream.take()
    assert [piece.kv.value for chunk in message.chunks for piece in chunk.pieces] == [b"1", b"2"]


def test_the_member_hears_of_damage_and_of_reads_that_hang() -> None:
    calls = Calls()
    machine = Machine()
    member = calls.member = Member(machine)
    calls.installed()
    stream = watch(calls)
    damage = CorruptionError("bad", code=IntegrityCode.INVALID_RECORD)
    machine.trouble = damage
    machine.put((b"a", b"1"))
    calls.applied()
    assert member.failed == [damage]
    for tick in calls.ticks:
        tick()
    assert member.ticks == [0]
    assert stream.take() == []


def test_nobody_is_told_of_a_state_that_is_known_to_be_damaged() -> None:
    calls = Calls()
    machine = Machine()
    member = calls.member = Member(machine)
    calls.installed()
    stream = watch(calls)
    member.state_is_damaged = True
    for tick in calls.ticks:
        tick()
    machine.put((b"a", b"wrong"))
    calls.applied()
    assert stream.take() == []
    member.machine = Machine()
    member.machine.put((b"a", b"right"))
    member.state_is_damaged = False
    calls.installed()
    (message,) = stream.take()
    assert [piece.kv.value for chunk in message.chunks for piece in chunk.pieces] == [b"right"]
