"""Operations evaluated natively beside their plain form: not a byte may differ, and what the native
form leaves to the plain one it leaves whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._state.native import names_single_keys
from kvstore.errors import CorruptionError
from kvstore.etcd_errors import EtcdError
from kvstore.state import (
    Cold,
    MemoryBounds,
    StateMachine,
    check_entry,
    encode_commands,
    put_command,
)
from kvstore.state.mvcc.answers import KeyValue, PutAnswer, RangeAnswer, TxnAnswer
from kvstore.state.mvcc.operations import decode_operations, encode_operations
from kvstore.state.mvcc.requests import (
    LEVEL_ACCUSES,
    Alarm,
    AlarmAction,
    AlarmKind,
    Authenticated,
    Compare,
    CompareTarget,
    DeleteRange,
    EnableModel,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Proposal,
    Put,
    RaiseLevel,
    Range,
    Txn,
)
from tests.unit.state.mvcc.strategies import operations as any_operations
from tests.unit.state.test_forms import everything, opened

LEASES = [1, -7, 1 << 62]
KEYS = [b"a", b"b", b"key", b"k" * 2000]

keys = st.sampled_from(KEYS)
values = st.sampled_from([b"", b"1", b"2", b"v" * 300])
numbers = st.integers(-1, 12)
results = st.integers(0, 3)
operands = numbers | st.sampled_from(LEASES)
# All fields of a tuple are said, since builds draws what isn't.
compares = st.builds(
    lambda key, target, result, operand: Compare(key, target, result, operand),
    keys,
    st.sampled_from([0, 1, 2, 4]),
    results,
    operands,
) | st.builds(
    lambda key, result, operand: Compare(key, CompareTarget.VALUE, result, operand),
    keys,
    results,
    values,
)
puts = st.builds(
    lambda key, value, lease: Put(key, value, lease),
    keys,
    values,
    st.just(0) | st.sampled_from(LEASES),
)
ranges = st.builds(lambda key, limit: Range(key, limit=limit), keys, numbers)
deletes = keys.map(DeleteRange)


def changes_none_twice(branch: Sequence[Any]) -> bool:
    changed = [each.key for each in branch if not isinstance(each, Range)]
    return len(changed) == len(set(changed))


branches = st.lists(ranges | puts | deletes, max_size=4).filter(changes_none_twice).map(tuple)
txns = st.builds(Txn, st.lists(compares, max_size=3).map(tuple), branches, branches)
single: st.SearchStrategy[Operation] = puts | txns
"""What is to be evaluated natively, as long as memory knows the keys."""

others: st.SearchStrategy[Operation] = (
    any_operations
    | st.sampled_from(LEASES).map(LeaseRevoke)
    | st.sampled_from(LEASES).map(lambda lease: LeaseGrant(lease, 60))
    | st.builds(Put, keys, values, st.just(0), st.booleans(), st.booleans(), st.booleans())
)
entries = st.tuples(st.sampled_from([0, 1, 50]), st.lists(single, min_size=1, max_size=8))
mixed = st.tuples(st.sampled_from([0, 1, 50]), st.lists(single | others, min_size=1, max_size=4))
# Runs of entries; after each of them all may be flushed, so that the next asks the disk.
stories = st.lists(
    st.tuples(st.lists(entries | entries | mixed, min_size=1, max_size=4), st.booleans()),
    max_size=12,
)

BEGINNING: Sequence[Operation] = (EnableModel(), *(LeaseGrant(lease, 60) for lease in LEASES))


def entry(batch: Sequence[Operation], index: int, now: int = 0) -> bytes:
    """Its data; ids of proposals are made up of where they stand."""
    return encode_operations(
        [Proposal(b"%08d%08d" % (index, place), each) for place, each in enumerate(batch)], now
    )


def machine(plain: bool = False) -> StateMachine:
    """With something of v1's in it, the model on, and leases."""
    made = opened(MemoryBounds(), plain, MemoryFileSystem())
    made.apply([(1, 1, encode_commands([put_command(b"n" * 16, KEYS[0], b"v1")]))])
    made.apply([(2, 1, entry(BEGINNING, 2))])
    return made


def is_native(of: StateMachine, data: Sequence[tuple[int, int, bytes]]) -> bool:
    return of._operations._prepare_natively(data) is not None


@settings(max_examples=150, deadline=None)
@given(stories)
def test_both_come_to_the_same_to_the_last_byte_of_the_engine(
    story: list[tuple[list[tuple[int, list[Operation]]], bool]],
) -> None:
    native, plain = machine(), machine(plain=True)
    index, now = 2, 0
    for run, flushes in story:
        data = []
        for step, batch in run:
            index += 1
            now += step
            data.append((index, 1 + index // 7, entry(batch, index, now)))
        data.append((index + 1, 1 + index // 7, b""))
        index += 1
        applied = native.apply(data), plain.apply(data)
        assert repr(applied[0]) == repr(applied[1])
        assert [[*map(type, one.answers)] for one in applied[0]] == [
            [*map(type, one.answers)] for one in applied[1]
        ]
        assert everything(native) == everything(plain)
        assert native.leases() == plain.leases()
        # One after the other: what is read is in the cache then.
        known = [plain.read_range_cached(Range(key)) for key in [*KEYS, b"absent"]]
        expected = [None if isinstance(one, Cold) else one for one in known]
        assert repr(native.read_keys_cached([*KEYS, b"absent"])) == repr(expected)
        if flushes:
            native.flush()
            plain.flush()
    native.close()
    plain.close()


def test_keys_that_are_read_together_have_a_bound_on_their_values() -> None:
    made = machine()
    made.apply([(3, 1, entry([Put(b"large", b"v" * (400 << 10)), Put(b"small", b"v")], 3))])
    large, small, absent = made.read_keys_cached([b"large", b"small", b"absent"])
    assert large == made.read_range(Range(b"large"))
    # The third goes beyond a MiB; what comes then is to be read alone.
    keys = [b"large", b"small", b"large", b"absent", b"large", b"large", b"small", b"absent"]
    assert made.read_keys_cached(keys) == [large, small, large, absent, large, None, None, None]
    assert made.read_keys_cached([b"small"]) == [small]
    made.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(entries, min_size=1, max_size=4))
def test_puts_and_txns_of_single_keys_need_no_plain_form(
    run: list[tuple[int, list[Operation]]],
) -> None:
    one = machine()
    for index, (_, batch) in enumerate(run, start=3):
        data = [(index, 1, entry(batch, index))]
        assert names_single_keys(data[0][2])
        assert is_native(one, data)
        one.apply(data)
    one.close()


def test_what_it_comes_to_is_of_the_types_of_the_plain_form() -> None:
    one = machine()
    operation = Txn(
        (Compare(b"new", CompareTarget.VERSION, 0, 0),),
        (Put(b"new", b"v", 1), Range(b"new"), Range(b"absent")),
        (),
    )
    (applied,) = one.apply([(3, 1, entry([operation, Put(b"a", b"")], 3))])
    (_, answer), (_, put) = applied.answers
    assert isinstance(answer, TxnAnswer)
    assert answer.succeeded is True
    assert isinstance(put, PutAnswer)
    wrote, read, absent = answer.answers
    revision = answer.revision
    assert wrote == PutAnswer(revision)
    assert isinstance(wrote, PutAnswer)
    assert read == RangeAnswer(
        revision, (KeyValue(b"new", revision, revision, 1, b"v", 1),), False, 1
    )
    assert isinstance(read, RangeAnswer)
    assert isinstance(read.kvs[0], KeyValue)
    assert absent == RangeAnswer(revision, (), False, 0)


LEFT: list[tuple[str, Operation]] = [
    ("no key", Put(b"")),
    ("too long a key", Put(b"k" * ((1 << 20) - 15))),
    ("a lease that isn't there", Put(b"a", b"", 5)),
    ("the pair before", Put(b"a", prev_kv=True)),
    ("its own value", Put(b"a", ignore_value=True)),
    ("its own lease", Put(b"a", ignore_lease=True)),
    ("a range", DeleteRange(b"a", b"b")),
    ("a deletion of its own", DeleteRange(b"a")),
    ("a range in a Txn", Txn((), (Range(b"a", b"b"),), ())),
    ("an old revision", Txn((), (Range(b"a", revision=1), Put(b"b")), ())),
    ("keys only", Txn((), (Range(b"a", keys_only=True), Put(b"b")), ())),
    ("a bound", Txn((), (Range(b"a", max_mod_revision=1), Put(b"b")), ())),
    ("a compare with a range", Txn((Compare(b"a", 0, 0, 0, b"b"),), (), ())),
    ("an unknown target", Txn((Compare(b"a", 7, 0, 0),), (), ())),
    ("an unknown result", Txn((Compare(b"a", 0, 4, 0),), (), ())),
    ("a Txn in a Txn", Txn((), (Txn(),), ())),
    ("a key put twice", Txn((), (Put(b"a"), Put(b"a")), ())),
    ("a key put and deleted", Txn((), (), (DeleteRange(b"a"), Put(b"a")))),
    ("too many operations", Txn((), (Range(b"a"),) * 129, ())),
    ("more than a slice", Txn((Compare(b"a", 0, 0, 0),) * 128, (Range(b"a"),) * 128, ())),
    ("a lease", LeaseGrant(9, 60)),
]


@pytest.mark.parametrize(("operation"), [left for _, left in LEFT], ids=[name for name, _ in LEFT])
def test_what_is_out_of_the_ordinary_is_left_to_the_plain_form(operation: Operation) -> None:
    one = machine()
    # Behind one that isn't: nothing of an entry, or of a slice, is done by one form alone.
    batch = [Put(b"before"), *[operation] * 5]
    before = everything(one)
    assert is_native(one, [(3, 1, entry(batch[:1], 3))])
    assert not is_native(one, [(3, 1, entry(batch, 3))])
    assert not is_native(one, [(3, 1, entry(batch[:1], 3)), (4, 1, entry(batch[1:], 4))])
    assert everything(one) == before
    one.close()


def test_who_asks_is_looked_at_by_the_plain_form() -> None:
    one = machine()
    data = encode_operations([Proposal(b"i" * 16, Put(b"a"), Authenticated("root", 1))])
    assert not is_native(one, [(3, 1, data)])


def test_while_an_alarm_stands_all_is_left_to_the_plain_form() -> None:
    one = machine()
    put = entry([Put(b"a")], 3)
    raised = Alarm(AlarmAction.ACTIVATE, 1, AlarmKind.NOSPACE)
    ended = Alarm(AlarmAction.DEACTIVATE, 1, AlarmKind.NOSPACE)
    one.apply([(3, 1, entry([raised], 3))])
    assert not is_native(one, [(4, 1, put)])
    ((_, answer),) = one.apply([(4, 1, put)])[0].answers
    assert isinstance(answer, EtcdError)
    one.apply([(5, 1, entry([ended], 5))])
    assert is_native(one, [(6, 1, put)])


def test_a_member_that_differs_costs_nobody_the_native_form() -> None:
    one = machine()
    one.apply([(3, 1, entry([RaiseLevel(LEVEL_ACCUSES)], 3))])
    one.apply([(4, 1, entry([Alarm(AlarmAction.ACTIVATE, 1, AlarmKind.DIFFERS)], 4))])
    assert one.alarms == {(1, AlarmKind.DIFFERS)}
    assert is_native(one, [(5, 1, entry([Put(b"a")], 5))])


def test_before_the_model_is_on_all_is_left_to_the_plain_form() -> None:
    one = opened(MemoryBounds(), False, MemoryFileSystem())
    assert not is_native(one, [(1, 1, entry([Put(b"a")], 1))])


def test_what_only_the_disk_knows_is_left_to_the_plain_form() -> None:
    one = machine()
    one.apply([(3, 1, entry([Put(b"cold", b"v")], 3))])
    one.flush()
    data = [(4, 1, entry([Txn((), (Range(b"cold"), Put(b"cold")), ())], 4))]
    assert not is_native(one, data)
    ((_, answer),) = one.apply(data)[0].answers
    assert isinstance(answer, TxnAnswer)
    read = answer.answers[0]
    assert isinstance(read, RangeAnswer)
    assert read.kvs[0].value == b"v"


VALID = entry(
    [
        Put(b"key", b"value", 1 << 62),
        Txn(
            (Compare(b"a", 2, 1, 300), Compare(b"b", 3, 0, b"v")),
            (Put(b"k"), Range(b"a", limit=1), DeleteRange(b"b")),
            (Range(b"c"),),
        ),
    ],
    3,
    5_000,
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_bytes_that_the_plain_form_refuses_are_left_to_it(data: st.DataObject) -> None:
    changed = bytearray(VALID)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(changed), 12, 13, 29, 50, len(changed) - 1]))
    given_bytes = bytes(changed[:cut])
    native, plain = machine(), machine(plain=True)
    try:
        decode_operations(given_bytes)
    except CorruptionError:
        assert not names_single_keys(given_bytes)
        with pytest.raises(CorruptionError):
            check_entry(given_bytes)
        if given_bytes[:1] == VALID[:1]:
            assert not is_native(native, [(3, 1, given_bytes)])
    else:
        check_entry(given_bytes)
        run = [(3, 1, given_bytes)]
        assert repr(native.apply(run)) == repr(plain.apply(run))
        assert everything(native) == everything(plain)
    native.close()
    plain.close()
