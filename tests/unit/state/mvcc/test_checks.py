"""What is refused by its looks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.checks import (
    KEY_BYTES_MAX,
    REQUEST_BYTES_MAX,
    TTL_MAX_S,
    TXN_LIST_MAX,
    TXN_TOTAL_MAX,
    check,
    check_size,
    reads_only,
)
from kvstore.state.mvcc.requests import (
    Alarm,
    Compact,
    Compare,
    CompareTarget,
    DeleteRange,
    LeaseGrant,
    Operation,
    Put,
    Range,
    Txn,
    TxnOperation,
)
from tests.unit.state.mvcc import oracle
from tests.unit.state.mvcc.strategies import operations, ranges


def refusal(operation: Operation | Range) -> Reason | None:
    try:
        check(operation)
    except EtcdError as error:
        return error.reason
    return None


def expected(operation: Operation | Range) -> Reason | None:
    try:
        oracle.check(operation)
    except EtcdError as error:
        return error.reason
    return None


def then(*branch: TxnOperation) -> Txn:
    return Txn(success=branch)


def either(success: TxnOperation, failure: TxnOperation) -> Txn:
    return Txn(success=(success,), failure=(failure,))


@given(st.one_of(operations, ranges))
def test_whatever_is_asked_is_refused_as_by_the_oracle(operation: Operation | Range) -> None:
    assert refusal(operation) == expected(operation)


few = st.sampled_from([b"a", b"b", b"c"])
ends = st.sampled_from([b"", b"\0", b"a", b"b", b"b\0", b"c"])
changes = st.one_of(st.builds(Put, few), st.builds(DeleteRange, few, ends))
branches = st.recursive(
    st.lists(changes, max_size=3).map(tuple),
    lambda inner: st.lists(
        st.one_of(changes, st.builds(Txn, st.just(()), inner, inner)), max_size=3
    ).map(tuple),
    max_leaves=6,
)


@given(branches, branches)
def test_keys_that_would_change_twice_are_found(
    success: tuple[TxnOperation, ...], failure: tuple[TxnOperation, ...]
) -> None:
    txn = Txn((), success, failure)
    assert refusal(txn) == expected(txn)


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (Put(b"k"), None),
        (Put(b""), Reason.EMPTY_KEY),
        (Put(b"k", b"v", ignore_value=True), Reason.VALUE_PROVIDED),
        (Put(b"k", lease=1, ignore_lease=True), Reason.LEASE_PROVIDED),
        (Put(b"k" * KEY_BYTES_MAX), None),
        (Put(b"k" * (KEY_BYTES_MAX + 1)), Reason.REQUEST_TOO_LARGE),
        (DeleteRange(b"", b"\0"), Reason.EMPTY_KEY),
        (Range(b""), Reason.EMPTY_KEY),
        (Range(b"k", sort_order=3), Reason.INVALID_SORT_OPTION),
        (Range(b"k", sort_target=5), Reason.INVALID_SORT_OPTION),
        (Range(b"k", sort_target=-1), Reason.INVALID_SORT_OPTION),
        (Range(b"k", b"a", -5, -5), None),
        (Txn((Compare(b"", CompareTarget.MOD, 0, 0),)), Reason.EMPTY_KEY),
        (then(Range(b"k", sort_order=3)), Reason.INVALID_SORT_OPTION),
        (then(then(Put(b""))), Reason.EMPTY_KEY),
        (LeaseGrant(1, TTL_MAX_S), None),
        (LeaseGrant(1, TTL_MAX_S + 1), Reason.TTL_TOO_LARGE),
        (LeaseGrant(0, -5), None),
        (Compact(-3), None),
        (Alarm(9, 2**64 - 1, 9), None),
        # Keys that would change twice.
        (then(Put(b"a"), Put(b"b")), None),
        (then(Put(b"a"), Put(b"a")), Reason.DUPLICATE_KEY),
        (Txn((), (), (Put(b"a"), Put(b"a"))), Reason.DUPLICATE_KEY),
        (either(Put(b"a"), Put(b"a")), None),
        (then(DeleteRange(b"a"), DeleteRange(b"a", b"\0")), None),
        (then(DeleteRange(b"a"), Put(b"a")), Reason.DUPLICATE_KEY),
        (then(Put(b"b"), DeleteRange(b"a", b"c")), Reason.DUPLICATE_KEY),
        (then(Put(b"c"), DeleteRange(b"a", b"c")), None),
        (then(Put(b"b"), DeleteRange(b"c", b"a")), None),
        (then(Range(b"a"), Put(b"a")), None),
        (then(either(Put(b"a"), Put(b"a"))), None),
        (then(either(Put(b"a"), DeleteRange(b"a"))), None),
        (then(either(Put(b"a"), Put(b"b")), Put(b"b")), Reason.DUPLICATE_KEY),
        (then(then(Put(b"a")), then(Put(b"a"))), Reason.DUPLICATE_KEY),
        (then(then(DeleteRange(b"a")), then(Put(b"a"))), Reason.DUPLICATE_KEY),
        # What etcd lets pass: `\0` as an end, and a delete in a later sibling.
        (then(Put(b"b"), DeleteRange(b"a", b"\0")), Reason.DUPLICATE_KEY),
        (then(then(Put(b"a")), then(DeleteRange(b"a"))), Reason.DUPLICATE_KEY),
    ],
)
def test_requests_and_what_refuses_them(
    operation: Operation | Range, reason: Reason | None
) -> None:
    assert refusal(operation) == reason


def keys(count: int) -> tuple[Put, ...]:
    return tuple(Put(b"%d" % number) for number in range(count))


def test_a_list_has_so_many_operations_at_most() -> None:
    compares = (Compare(b"k", CompareTarget.MOD, 0, 0),) * (TXN_LIST_MAX + 1)
    assert refusal(Txn(compares[1:], keys(TXN_LIST_MAX), keys(TXN_LIST_MAX))) is None
    assert refusal(Txn(compares)) is Reason.TOO_MANY_OPERATIONS
    assert refusal(then(*keys(TXN_LIST_MAX + 1))) is Reason.TOO_MANY_OPERATIONS
    assert refusal(Txn(failure=keys(TXN_LIST_MAX + 1))) is Reason.TOO_MANY_OPERATIONS
    # Before anything is said of what is in the list.
    assert refusal(then(*(Put(b""),) * (TXN_LIST_MAX + 1))) is Reason.TOO_MANY_OPERATIONS


def test_a_nested_txn_has_what_those_around_it_leave() -> None:
    assert refusal(then(then(*keys(TXN_LIST_MAX - 1)))) is None
    assert refusal(then(then(*keys(TXN_LIST_MAX)))) is Reason.TOO_MANY_OPERATIONS
    nested = Txn(success=keys(100))
    assert refusal(Txn((), (Range(b"a"),) * 27 + (nested,))) is None
    assert refusal(Txn((), (Range(b"a"),) * 28 + (nested,))) is Reason.TOO_MANY_OPERATIONS
    txn = Txn()
    for _ in range(TXN_LIST_MAX):
        txn = then(txn)
    assert refusal(txn) is None
    assert refusal(then(txn)) is Reason.TOO_MANY_OPERATIONS


def test_a_txn_has_so_many_operations_in_all() -> None:
    reads = Txn((), (Range(b"a"),) * 64, (Range(b"a"),) * 64)
    whole = Txn((), (reads,) * 64, (reads,) * 62)
    assert TXN_TOTAL_MAX - 200 < 126 * 129 < TXN_TOTAL_MAX
    assert refusal(whole) is None
    assert refusal(whole._replace(failure=(reads,) * 64)) is Reason.TOO_MANY_OPERATIONS


def test_a_txn_reads_only_if_all_that_it_may_do_is_to_read() -> None:
    assert reads_only(Txn((), (Range(b"a"),), (Range(b"b"),)))
    assert reads_only(Txn())
    assert not reads_only(either(Range(b"a"), Put(b"a")))
    assert not reads_only(either(DeleteRange(b"a"), Range(b"a")))
    assert not reads_only(then(then(Range(b"a"))))


def test_a_proposal_has_so_many_bytes_at_most() -> None:
    check_size(bytes(REQUEST_BYTES_MAX))
    with pytest.raises(EtcdError) as caught:
        check_size(bytes(REQUEST_BYTES_MAX + 1))
    assert caught.value.reason is Reason.REQUEST_TOO_LARGE
