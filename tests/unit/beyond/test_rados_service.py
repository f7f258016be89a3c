"""The service over a pool: races of gateways, and every trouble that a pool makes."""

from __future__ import annotations

import errno
import weakref
from itertools import islice
from typing import Any

import pytest

from kvstore.beyond.rados.abandoned import ABANDONED_S
from kvstore.beyond.rados.layout import (
    SIZE_END,
    bucket_name,
    bucket_of,
    decode_head,
    encode_head,
    entry_key,
)
from kvstore.beyond.rados.under_way import SLOW_S
from kvstore.beyond.rados.writing import TURN_S_MAX
from kvstore.errors import (
    CorruptionError,
    DeadlineExceededError,
    Error,
    InvalidArgumentError,
    NoSpaceError,
    Outcome,
    OutcomeUnknownError,
    OverloadedError,
    StorageError,
    UnavailableError,
)
from kvstore.service import Delete, Get, Limits, Put
from kvstore.service.operations import Method
from tests.contract.service_contract import Call
from tests.simulator import linearizability
from tests.simulator.linearizability import Kind, Verdict
from tests.unit.beyond.gateways import SALT, World
from tests.unit.beyond.memory_pool import MemoryOperation

LARGE = b"v" * 5000
DONE_BUT = -1000
"""Added to an errno: the operation is done, and answered with that."""


def is_bucket(operation: MemoryOperation) -> bool:
    return operation.name.startswith(b"b.")


def values_in(world: World) -> list[bytes]:
    return [name for name in world.pool.things if name.startswith(b"v.")]


@pytest.mark.parametrize("seed", range(40))
def test_histories_of_several_gateways_are_linearizable(seed: int) -> None:
    """Some operations are lost, some are done and not answered, some hang; clients try again."""
    world = World(seed=seed, gateways=3)
    rng = world.rng

    def trouble(operation: MemoryOperation) -> int | None:
        if not operation.name.startswith((b"b.", b"v.")):
            return None
        chance = rng.random()
        if chance < 0.03:
            return -errno.ETIMEDOUT
        if chance < 0.06 and operation.kind == "write":
            return -errno.ETIMEDOUT + DONE_BUT
        return None

    world.pool.trouble = trouble
    history: list[linearizability.Operation] = []
    keys = [b"a", b"b"]
    moment = 0
    for turn in range(25):
        begun: list[tuple[int, Any, int, list[Any]]] = []
        for client in range(4):
            key, value = rng.choice(keys), b"%d-%d" % (turn, client)
            if rng.random() < 0.3:
                value += LARGE
            request = b"%d.%d" % (turn, client)
            operation = rng.choice([Put(key, value, request), Get(key), Delete(key, request)])
            moment += 1
            begun.append((client, operation, moment, world.begin(operation, at=rng.randrange(3))))
        world.settle(shuffled=True)
        for client, operation, called, got in begun:
            ((result,),) = got
            for _ in range(20):
                if not isinstance(result, UnavailableError):
                    break
                # Again, at any gateway, under the same id.
                again = operation if isinstance(operation, Get) else operation._replace(age_s=1.0)
                result = world.call(again, at=rng.randrange(3))
            assert not isinstance(result, Error), result
            moment += 1
            kind = {Put: Kind.PUT, Get: Kind.GET, Delete: Kind.DELETE}[type(operation)]
            value = operation.value if isinstance(operation, Put) else None
            history.append(
                linearizability.Operation(
                    client, kind, operation.key, value, called, moment, result
                )
            )
    report = linearizability.check(history)
    assert report.verdict is Verdict.LINEARIZABLE, report.story


def test_a_value_apart_is_cleared_away_when_it_is_replaced_or_deleted() -> None:
    world = World()
    world.call(Put(b"k", LARGE, b"1"))
    assert len(values_in(world)) == 1
    world.call(Put(b"k", LARGE + b"2", b"2"))
    assert len(values_in(world)) == 1
    assert world.call(Get(b"k")) == LARGE + b"2"
    # The retry brought a value that nobody needs.
    assert world.call(Put(b"k", LARGE, b"1")) is False
    assert len(values_in(world)) == 1
    world.call(Put(b"k", b"small", b"3"))
    assert not values_in(world)
    world.call(Put(b"k", LARGE, b"4"))
    world.call(Delete(b"k", b"5"))
    assert not values_in(world)


def test_a_value_whose_write_was_answered_late_is_still_there() -> None:
    """Done, answered with a timeout, and tried again: the second try finds the first."""
    world = World()
    answers = iter([-errno.ETIMEDOUT + DONE_BUT])
    world.pool.trouble = lambda operation: (
        next(answers, None) if is_bucket(operation) and operation.kind == "write" else None
    )
    lost = world.call(Put(b"k", LARGE, b"1"))
    assert isinstance(lost, OutcomeUnknownError)
    assert world.call(Get(b"k")) == LARGE
    assert world.call(Put(b"k", LARGE, b"1", age_s=1.0)) is False
    assert world.call(Get(b"k")) == LARGE
    assert len(values_in(world)) == 1


@pytest.mark.parametrize("others", [(), (Put(b"k", b"small", b"2"),)])
def test_a_value_whose_write_lost_no_race_but_was_told_so_is_still_there(others: Any) -> None:
    """As where an OSD forgot that it did the operation, and does it again: the guard fails."""
    world = World()
    world.call(Put(b"k", b"before", b"0"))
    answers = iter([-errno.ERANGE + DONE_BUT])
    world.pool.trouble = lambda operation: (
        next(answers, None) if is_bucket(operation) and operation.kind == "write" else None
    )
    first = Put(b"k", LARGE, b"1")
    got = world.begin(first)
    world.settle()
    assert got[0][0] is True
    assert world.call(Get(b"k")) == LARGE
    for other in others:
        assert world.call(other) is True
        assert world.call(first) is True
        assert world.call(Get(b"k")) == other.value
        assert not values_in(world)


def test_what_was_told_that_it_lost_a_race_and_was_not_looked_at_since_is_in_doubt() -> None:
    world = World()
    world.call(Put(b"k", b"before", b"0"))
    told = False

    def trouble(operation: MemoryOperation) -> int | None:
        nonlocal told
        if not is_bucket(operation):
            return None
        if told:
            return -errno.EPERM
        told = operation.kind == "write"
        return -errno.ERANGE + DONE_BUT if told else None

    world.pool.trouble = trouble
    assert isinstance(world.call(Put(b"k", LARGE, b"1")), OutcomeUnknownError)
    world.pool.trouble = lambda operation: None
    assert world.call(Get(b"k")) == LARGE


def test_a_reader_that_comes_between_finds_the_value_that_took_its_place() -> None:
    world = World(gateways=2)
    world.call(Put(b"k", LARGE, b"1"))
    held: list[MemoryOperation] = []

    def hold(operation: MemoryOperation) -> int | None:
        if operation.kind == "read_data":
            held.append(operation)
            return 0
        return None

    world.pool.trouble = hold
    got = world.begin(Get(b"k"))
    world.settle()
    assert held
    assert not got
    world.call(Put(b"k", LARGE + b"2", b"2"), at=1)
    world.pool.trouble = lambda operation: None
    world.settle()
    assert got[0][0] == LARGE + b"2"


def test_a_value_that_is_gone_or_damaged_is_damage_and_never_another_value() -> None:
    world = World()
    world.call(Put(b"k", LARGE, b"1"))
    (name,) = values_in(world)
    thing = world.pool.things[name]
    for damaged in (b"w" + thing.data[1:], thing.data[:-1], thing.data + b"v", b""):
        world.pool.things[name].data = damaged
        assert isinstance(world.call(Get(b"k")), CorruptionError), damaged[:3]
    del world.pool.things[name]
    assert isinstance(world.call(Get(b"k")), CorruptionError)
    # To write it anew mends it.
    assert world.call(Put(b"k", LARGE, b"2")) is True
    assert world.call(Get(b"k")) == LARGE


def test_a_damaged_entry_is_damage_until_it_is_written_anew() -> None:
    world = World()
    world.call(Put(b"k", b"value", b"1"))
    pairs = world.pool.things[bucket_name(bucket_of(b"k", SALT))].pairs
    entry = pairs[entry_key(b"k")]
    pairs[entry_key(b"k")] = entry[:-1] + bytes([entry[-1] ^ 1])
    assert isinstance(world.call(Get(b"k")), CorruptionError)
    assert world.call(Put(b"k", b"new", b"2")) is True
    assert world.call(Get(b"k")) == b"new"


def test_a_bucket_with_a_damaged_head_takes_no_writes_and_says_why() -> None:
    world = World()
    world.call(Put(b"k", b"value", b"1"))
    thing = world.pool.things[bucket_name(bucket_of(b"k", SALT))]
    thing.pairs[b"h"] = thing.pairs[b"h"][:-1] + b"\xff"
    refused = world.call(Put(b"k", b"new", b"2"))
    assert isinstance(refused, CorruptionError)
    assert refused.outcome is Outcome.NOT_APPLIED
    assert world.call(Get(b"k")) == b"value"


@pytest.mark.parametrize("operation", [Get(b"k"), Put(b"k", b"v", b"1"), Put(b"k", LARGE, b"1")])
def test_what_the_pool_does_not_answer_ends_at_its_deadline_and_holds_nothing(
    operation: Any,
) -> None:
    world = World()
    world.pool.trouble = lambda operation: 0
    got = world.begin(operation, timeout=5.0)
    world.pass_time(4.5)
    assert not got
    world.pass_time(1.0)
    assert isinstance(got[0][0], DeadlineExceededError)
    figures = world.gateway.figures()
    assert (figures.waiting, figures.reads, figures.turns, figures.write_bytes) == (0, 0, 0, 0)


def test_what_is_done_after_its_deadline_is_remembered_and_answered_to_a_retry() -> None:
    world = World(gateways=2)
    world.pool.trouble = lambda operation: (
        0 if is_bucket(operation) and operation.kind == "write" else None
    )
    got = world.begin(Put(b"k", b"1", b"late"), timeout=2.0)
    world.pass_time(3.0)
    assert isinstance(got[0][0], DeadlineExceededError)
    world.pool.trouble = lambda operation: None
    world.settle()
    assert world.call(Get(b"k"), at=1) == b"1"
    assert world.call(Put(b"k", b"2", b"next"), at=1) is True
    assert world.call(Put(b"k", b"1", b"late", age_s=3.0), at=1) is False
    assert world.call(Get(b"k"), at=1) == b"2"


def test_while_the_pool_is_away_memory_is_bounded_and_one_more_is_refused() -> None:
    world = World(limits=Limits(calls_max=100, gathered_bytes_max=20_000))
    world.pool.trouble = lambda operation: 0
    writes = [world.begin(Put(b"k%d" % n, LARGE, b"%d" % n), timeout=3.0) for n in range(50)]
    assert sum(bool(got) for got in writes) == 46
    assert world.gateway.figures().write_bytes < 20_000 + len(LARGE)
    reads = [world.begin(Get(b"k%d" % n), timeout=3.0) for n in range(150)]
    assert all(isinstance(got[0][0], OverloadedError) for got in reads)
    world.pass_time(4.0)
    assert all(writes)
    world.pool.trouble = lambda operation: None
    world.settle()
    assert world.call(Put(b"k", b"v", b"back")) is False
    assert world.gateway.figures().write_bytes == 0


@pytest.mark.parametrize("begin", [Get, lambda key: Put(key, LARGE, key)])
def test_what_was_given_up_counts_until_the_pool_answers_or_for_a_minute(begin: Any) -> None:
    """librados keeps its messages for an OSD that stands still: calls that end free no memory."""
    world = World(limits=Limits(calls_max=100, gathered_bytes_max=100_000))

    def taken() -> int:
        calls = [world.begin(begin(b"k%d" % n), timeout=2.0) for n in range(150)]
        return sum(not got for got in calls)

    world.pool.trouble = lambda operation: 0
    first = taken()
    assert 0 < first <= 100
    world.pass_time(ABANDONED_S - 5)
    figures = world.gateway.figures()
    assert (figures.waiting, figures.reads, figures.turns, figures.write_bytes) == (0, 0, 0, 0)
    assert figures.abandoned >= first
    assert taken() <= 100 - first
    world.pass_time(10)
    assert taken() > 0
    world.pass_time(5)
    world.pool.trouble = lambda operation: None
    world.settle()
    figures = world.gateway.figures()
    assert (figures.abandoned, figures.abandoned_bytes) == (0, 0)
    assert taken() == first


def hangs(key: bytes) -> bool:
    """One bucket in 16 is of the placement group that is inactive."""
    return bucket_of(key, SALT) % 16 == 0


def hang(operation: MemoryOperation) -> int | None:
    name = operation.name
    return 0 if name.startswith(b"b.") and int(name[2:7], 16) % 16 == 0 else None


def keys_that(hang: bool, count: int) -> list[bytes]:
    found = (b"k%d" % n for n in range(1_000_000))
    return list(islice((key for key in found if hangs(key) is hang), count))


@pytest.mark.parametrize("begin", [Get, lambda key: Put(key, b"v", key)])
def test_a_part_of_the_pool_that_hangs_takes_no_turns_from_the_rest(begin: Any) -> None:
    """As many calls as are asked for at one time wait for it, and more in the queue."""
    world = World()
    world.pool.trouble = hang
    stuck = [world.begin(begin(key), timeout=60.0) for key in keys_that(True, 1100)]
    others = keys_that(False, 20)
    behind = [world.begin(begin(key), timeout=60.0) for key in others[:10]]
    world.pass_time(SLOW_S)
    world.pass_time(SLOW_S)
    assert all(not isinstance(got[0][0], Error) for got in behind)
    for key in others[10:]:
        assert not isinstance(world.call(begin(key)), Error)
    assert not any(stuck)
    figures = world.gateway.figures()
    assert max(figures.reads, figures.turns) > 1024
    world.pool.trouble = lambda operation: None
    world.settle()
    assert all(not isinstance(got[0][0], Error) for got in stuck)


def test_large_values_that_hang_leave_room_for_others_and_are_bounded() -> None:
    world = World()
    keys = [b"large-%d" % n for n in range(300)]
    for key in keys:
        world.call(Put(key, bytes(1 << 20), key))
    world.pool.trouble = lambda operation: 0 if operation.kind == "read_data" else None
    stuck = [world.begin(Get(key), timeout=60.0) for key in keys]
    for _ in range(4):
        world.pass_time(SLOW_S)
    asked = sum(operation.kind == "read_data" for operation in world.pool.queue)
    assert asked == 256
    world.pool.trouble = lambda operation: None
    world.settle()
    assert all(len(got[0][0]) == 1 << 20 for got in stuck)


def test_what_was_given_up_in_a_part_that_hangs_refuses_no_calls_for_the_rest() -> None:
    """A quarter of it counts while the rest answers."""
    world = World(limits=Limits(calls_max=200, gathered_bytes_max=100_000))
    stuck, others = keys_that(True, 40), keys_that(False, 40)
    world.pool.trouble = hang
    for n in range(40):
        got = world.begin(Put(stuck[n], LARGE, b"stuck-%d" % n), timeout=1.0)
        world.pass_time(1.0)
        assert isinstance(got[0][0], DeadlineExceededError)
        assert world.call(Put(others[n], LARGE, b"other-%d" % n)) is False
        assert world.gateway.silent_s() < 3.0
    assert world.gateway.figures().abandoned_bytes > 100_000


def test_a_pool_answers_as_long_as_any_of_it_does() -> None:
    world = World()
    world.pool.trouble = lambda operation: 0 if operation.name == b"clock" else hang(operation)
    world.pass_time(60.0)
    assert world.gateway.silent_s() < 5.0
    assert world.call(Put(keys_that(False, 1)[0], b"v", b"1")) is False
    world.pool.trouble = lambda operation: 0
    world.pass_time(10.0)
    assert world.gateway.silent_s() > 9.0
    assert len([each for each in world.pool.queue if not each.cancelled]) < 10
    world.pool.trouble = lambda operation: None
    world.pass_time(2.0)
    assert world.gateway.silent_s() < 2.0
    world.gateway.close()


def test_calls_that_are_answered_are_held_by_nothing() -> None:
    """Though others, with longer deadlines, wait on."""
    world = World()
    world.pool.trouble = hang
    stuck = [world.begin(Get(key), timeout=60.0) for key in keys_that(True, 100)]
    calls = []
    for n, key in enumerate(keys_that(False, 100)):
        call = Call(Method.PUT, key, bytes(4000), b"%d" % n, deadline=world.now + 60.0)
        calls.append(weakref.ref(call))
        world.gateway.take([call], lambda calls, results: None)
        del call
        world.settle()
    assert not any(call() for call in calls)
    assert not any(stuck)


def test_a_write_that_is_done_after_its_call_was_given_up_clears_away_what_it_replaced() -> None:
    world = World()
    assert world.call(Put(b"k", LARGE, b"1")) is False
    world.pool.trouble = lambda operation: (
        0 if is_bucket(operation) and operation.kind == "write" else None
    )
    got = world.begin(Put(b"k", b"small", b"2"), timeout=2.0)
    world.pass_time(3.0)
    assert isinstance(got[0][0], DeadlineExceededError)
    assert len(values_in(world)) == 1
    world.pool.trouble = lambda operation: None
    world.settle()
    assert world.call(Get(b"k")) == b"small"
    assert not values_in(world)


@pytest.mark.parametrize("stands_still", [b"b.", b"v."])
def test_a_value_that_was_written_for_a_call_that_was_given_up_is_cleared_away(
    stands_still: bytes,
) -> None:
    world = World()
    world.pool.trouble = lambda operation: 0 if operation.name.startswith(stands_still) else None
    got = world.begin(Put(b"k", LARGE, b"1"), timeout=2.0)
    world.pass_time(3.0)
    assert isinstance(got[0][0], DeadlineExceededError)
    world.pool.trouble = lambda operation: None
    world.settle()
    assert world.call(Get(b"k")) is None
    assert not values_in(world)


def test_a_pool_that_is_gone_holds_no_key_that_was_not_found() -> None:
    world = World()
    world.call(Put(b"k", b"v", b"1"))
    world.pool.exists = False
    for operation in (Get(b"k"), Put(b"k", b"w", b"2"), Put(b"k", LARGE, b"3")):
        result = world.call(operation)
        assert isinstance(result, UnavailableError), operation
        assert "gone" in str(result)


def test_a_full_pool_takes_deletes_and_says_of_puts_why_not() -> None:
    world = World()
    for n in range(3):
        world.call(Put(b"k%d" % n, LARGE if n == 2 else b"v", b"%d" % n))
    world.pool.full = True
    got = world.begin(
        Delete(b"k0", b"3"),
        Put(b"k0", b"w", b"4"),
        Put(b"k1", b"", b"5"),
        Put(b"x", LARGE, b"6"),
        Delete(b"k2", b"8"),
    )
    world.settle()
    results = got[0]
    assert [results[0], results[4]] == [True, True]
    for refused in results[1:4]:
        assert isinstance(refused, NoSpaceError)
        assert refused.outcome is Outcome.NOT_APPLIED
    assert world.call(Get(b"k1")) == b"v"
    world.pool.full = False
    assert world.call(Put(b"k0", b"w", b"4", age_s=1.0)) is False
    assert world.call(Put(b"k1", b"w", b"5", age_s=1.0)) is True
    assert not values_in(world)


def test_no_put_goes_into_a_full_pool_however_often_its_bucket_was_written() -> None:
    world = World()
    name = bucket_name(bucket_of(b"k", SALT))
    assert world.call(Put(b"k", b"v", b"0")) is False
    pairs = world.pool.things[name].pairs
    head = decode_head(bucket_of(b"k", SALT), pairs[b"h"])
    head.size = SIZE_END - 2
    pairs[b"h"] = encode_head(bucket_of(b"k", SALT), head)
    world.pool.things[name].data = bytes(head.size)
    for n in range(4):
        world.pool.full = True
        # Once in 65,536 turns there is no byte more.
        taken = world.call(Put(b"k", b"v", b"full-%d" % n))
        assert isinstance(taken, NoSpaceError) is (n != 1)
        world.pool.full = False
        assert world.call(Put(b"k", b"v", b"room-%d" % n)) is True
        assert len(world.pool.things[name].data) < SIZE_END


@pytest.mark.parametrize(
    ("code", "read", "written"),
    [
        (-errno.EIO, StorageError, StorageError),
        (-errno.EPERM, UnavailableError, UnavailableError),
        (-errno.EINVAL, UnavailableError, UnavailableError),
    ],
)
def test_what_reading_the_pool_ends_with_has_words(
    code: int, read: type[Error], written: type[Error]
) -> None:
    world = World()
    world.pool.trouble = lambda operation: (
        code if is_bucket(operation) and operation.kind == "read_pairs" else None
    )
    for operation, expected in ((Get(b"k"), read), (Put(b"k", b"v", b"1"), written)):
        result = world.call(operation)
        assert isinstance(result, expected)
        assert not isinstance(result, OutcomeUnknownError)
    assert world.gateway.figures().failures == {-code: 2}


def test_a_write_that_was_denied_may_have_been_done_by_a_try_before() -> None:
    """librados sends it again when an OSD is lost; by then the gateway's rights may be others."""
    world = World()
    world.pool.trouble = lambda operation: (
        -errno.EPERM + DONE_BUT if is_bucket(operation) and operation.kind == "write" else None
    )
    assert isinstance(world.call(Put(b"k", LARGE, b"1")), OutcomeUnknownError)
    assert world.call(Get(b"k")) == LARGE
    world.pool.trouble = lambda operation: -errno.EPERM if operation.kind == "write" else None
    denied = world.call(Put(b"x", LARGE, b"2"))
    assert isinstance(denied, UnavailableError)
    assert not isinstance(denied, OutcomeUnknownError)


def test_a_gateway_that_was_fenced_off_says_so_to_whoever_runs_it() -> None:
    world = World()
    world.pool.trouble = lambda operation: -errno.ESHUTDOWN if is_bucket(operation) else None
    assert isinstance(world.call(Put(b"k", b"v", b"1")), UnavailableError)
    assert world.fenced


def test_until_the_clock_is_known_nothing_is_written() -> None:
    world = World(gateways=1)
    gateway = world.gateway
    gateway.clock.is_set = False
    assert isinstance(world.call(Put(b"k", b"v", b"1")), UnavailableError)


def test_one_turn_of_a_bucket_serves_all_that_waits_for_it() -> None:
    world = World()
    world.pool.log.clear()
    got = world.begin(*[Put(b"k", b"%d" % n, b"%d" % n) for n in range(60)])
    world.settle()
    assert sum(result is True for result in got[0]) == 59
    name = bucket_name(bucket_of(b"k", SALT)).decode()
    assert world.pool.log.count(f"write {name}") <= 2


def test_gateways_that_meet_in_one_bucket_all_get_through() -> None:
    world = World(gateways=4)
    begun = [
        world.begin(Put(b"k", b"%d" % n, b"%d" % n), at=n % 4, timeout=60.0) for n in range(200)
    ]
    world.settle(shuffled=True)
    results = [got[0][0] for got in begun]
    assert results.count(False) == 1
    assert results.count(True) == 199
    assert sum(gateway.figures().conflicts for gateway in world.gateways) > 0


def test_a_turn_that_takes_too_long_is_given_up() -> None:
    """Clearing away values that nobody knows relies on it."""
    world = World(gateways=2)
    world.pool.trouble = lambda operation: (
        0 if is_bucket(operation) and operation.kind == "read_pairs" else None
    )
    got = world.begin(Put(b"k", LARGE, b"1"), timeout=1000.0)
    world.pass_time(TURN_S_MAX + 5)
    world.pool.trouble = lambda operation: None
    world.settle()
    assert isinstance(got[0][0], UnavailableError)
    assert not values_in(world)


def test_a_service_that_is_closed_answers_all_and_takes_nothing() -> None:
    world = World()
    world.pool.trouble = lambda operation: 0
    got = [world.begin(Get(b"k")), world.begin(Put(b"k", b"v", b"1"))]
    world.gateway.close()
    assert all(isinstance(each[0][0], UnavailableError) for each in got)
    refused = world.begin(Get(b"k"))
    assert isinstance(refused[0][0], UnavailableError)
    assert isinstance(world.begin(Get(b""))[0][0], InvalidArgumentError)
    world.settle()
    assert world.gateway.figures().turns == 0
