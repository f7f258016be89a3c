"""Exactly once over a pool: what is remembered, for how long, and what is refused after that."""

from __future__ import annotations

import random

import pytest

from kvstore.beyond.rados.deciding import REMEMBERED_MS
from kvstore.beyond.rados.layout import HEAD_KEY, PAGES_MAX, YOUNG_MAX, decode_head, request_key
from kvstore.beyond.rados.pool_clock import STEP_S
from kvstore.errors import CorruptionError, ForgottenError, Refusal
from kvstore.service import Delete, Get, Put, Result
from kvstore.service.limits import DELAY_S
from kvstore.state import request_digest
from tests.unit.beyond.gateways import World

REMEMBERED_S = REMEMBERED_MS / 1000


def is_forgotten(result: Result) -> bool:
    return isinstance(result, ForgottenError) and result.refusal is Refusal.REQUEST_FORGOTTEN


def head_of(world: World):
    ((name, thing),) = ((n, t) for n, t in world.pool.things.items() if n.startswith(b"b."))
    return decode_head(int(name[2:], 16), thing.pairs[HEAD_KEY]), thing


def test_a_request_is_remembered_at_every_gateway_for_its_time() -> None:
    world = World(gateways=2)
    first = Put(b"k", b"1", b"first")
    assert world.call(first) is False
    assert world.call(Put(b"k", b"2", b"second")) is True
    world.pass_time(REMEMBERED_S - 60)
    assert world.call(Put(b"k", b"3", b"third")) is True
    assert world.call(first._replace(age_s=REMEMBERED_S - 60), at=1) is False
    assert world.call(Get(b"k"), at=1) == b"3"


def test_what_may_be_forgotten_is_refused_and_not_taken_for_new() -> None:
    world = World(gateways=2)
    first = Put(b"k", b"1", b"first")
    assert world.call(first) is False
    world.pass_time(REMEMBERED_S + 60)
    assert world.call(Put(b"k", b"2", b"second")) is True  # forgets the first
    for age_s in (REMEMBERED_S + 60, 1e12):
        assert is_forgotten(world.call(first._replace(age_s=age_s), at=1))
        assert is_forgotten(world.call(Delete(b"k", b"another", age_s=age_s), at=1))
    # It is younger than all that was forgotten.
    assert world.call(Put(b"k", b"3", b"young", age_s=100.0), at=1) is True
    assert world.call(Get(b"k")) == b"3"


def test_in_a_hot_bucket_the_newest_requests_are_remembered_in_pages() -> None:
    world = World(gateways=2)
    count = 10 * YOUNG_MAX + 7
    for n in range(count):
        assert world.call(Put(b"k", b"%d" % n, b"r%d" % n), at=n % 2) is (n > 0)
    head, thing = head_of(world)
    assert len(head) <= YOUNG_MAX
    assert head.keys == 1
    remembered = sum(key.startswith(b"q") for key in thing.pairs)
    assert remembered + len(head) == count
    for n in (0, 1, 100, count - 1):
        assert world.call(Put(b"k", b"%d" % n, b"r%d" % n, age_s=5.0)) is (n > 0)
    assert world.call(Get(b"k")) == b"%d" % (count - 1)


def test_pages_go_when_they_are_old_and_nothing_of_them_stays() -> None:
    world = World()
    for n in range(4 * YOUNG_MAX):
        world.call(Put(b"k", b"%d" % n, b"r%d" % n))
    world.pass_time(REMEMBERED_S + 60)
    for n in range(4):
        world.call(Put(b"k", b"x", b"later-%d" % n))
    head, thing = head_of(world)
    assert head.first_page == head.next_page
    assert not any(key[:1] in (b"q", b"t") for key in thing.pairs)
    assert len(head) == 4
    assert is_forgotten(world.call(Put(b"k", b"1", b"r1", age_s=REMEMBERED_S + 70)))


def test_the_pages_of_a_bucket_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.beyond.rados.deciding.PAGES_MAX", 3)
    assert PAGES_MAX > 3
    world = World()
    for n in range(20):
        got = world.begin(*[Put(b"k", b"%d" % m, b"r%d-%d" % (n, m)) for m in range(64)])
        world.settle()
        assert len(got[0]) == 64
        world.pass_time(30)
    head, thing = head_of(world)
    assert head.next_page - head.first_page <= 5
    assert sum(key.startswith(b"q") for key in thing.pairs) <= 5 * 32
    # Forgotten by count: refused if it says that it is a retry from then.
    assert is_forgotten(world.call(Put(b"k", b"0", b"r0-0", age_s=600.0)))
    assert world.call(Put(b"k", b"0", b"fresh", age_s=1.0)) is True


@pytest.mark.parametrize("seed", range(30))
def test_no_retry_is_done_twice_whatever_gateways_and_clocks_do(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that add to one key in order: each value is written once, at its first time."""
    monkeypatch.setattr("kvstore.beyond.rados.deciding.YOUNG_MAX", 4)
    monkeypatch.setattr("kvstore.beyond.rados.deciding.PAGE_REQUESTS", 2)
    monkeypatch.setattr("kvstore.beyond.rados.deciding.PAGES_MAX", 2)
    rng = random.Random(seed)
    world = World(seed=seed, gateways=3)
    sent: list[tuple[Put, float]] = []
    done: set[bytes] = set()
    for n in range(150):
        if sent and rng.random() < 0.5:
            put, at = rng.choice(sent[-40:])
            # A client's message is under way for up to DELAY_S.
            age_s = max(0.0, world.now - at - rng.random() * DELAY_S)
            before = world.call(Get(b"k"))
            result = world.call(put._replace(age_s=age_s), at=rng.randrange(3))
            after = world.call(Get(b"k"))
            if put.request_id in done:
                assert after == before, f"{put.request_id!r} was done twice"
            elif not isinstance(result, ForgottenError):
                assert after == put.value
                done.add(put.request_id)
        else:
            put = Put(b"k", b"%d" % n, b"r%d" % n)
            sent.append((put, world.now))
            if rng.random() < 0.8:  # else it never came
                assert not isinstance(world.call(put, at=rng.randrange(3)), Exception)
                done.add(put.request_id)
        # Gateways hang, each by itself.
        world.now += rng.choice((0.0, 0.1, 1.0, 3 * STEP_S))
        for gateway in rng.sample(world.gateways, rng.randrange(4)):
            gateway.tick()
        world.settle()


def test_a_damaged_record_of_a_request_is_damage_for_that_request_alone() -> None:
    world = World()
    for n in range(2 * YOUNG_MAX):
        world.call(Put(b"k", b"%d" % n, b"r%d" % n))
    _, thing = head_of(world)
    record = request_key(request_digest(b"r0"))
    thing.pairs[record] = thing.pairs[record][:-1] + b"\xff"
    got = world.begin(
        Put(b"k", b"1", b"r1", age_s=5.0),
        Put(b"k", b"0", b"r0", age_s=5.0),
        Put(b"k", b"new", b"new"),
    )
    world.settle()
    known, damaged, new = got[0]
    assert (known, new) == (True, True)
    assert isinstance(damaged, CorruptionError)
    assert world.call(Get(b"k")) == b"new"
    assert isinstance(world.call(Put(b"k", bytes(5000), b"r0", age_s=5.0)), CorruptionError)
    assert not any(name.startswith(b"v.") for name in world.pool.things)
