"""Whatever can be asked of the model, also what its checks refuse."""

from __future__ import annotations

from hypothesis import strategies as st

from kvstore.state.mvcc.requests import (
    Alarm,
    AuthDisable,
    AuthEnable,
    Authenticated,
    AuthOperation,
    Compact,
    Compare,
    CompareTarget,
    DeleteRange,
    EnableModel,
    LeaseCheckpoint,
    LeaseGrant,
    LeaseRevoke,
    Numbered,
    Operation,
    Permission,
    Proposal,
    Put,
    RaiseLevel,
    Range,
    RoleAdd,
    RoleDelete,
    RoleGrantPermission,
    RoleRevokePermission,
    Txn,
    UserAdd,
    UserChangePassword,
    UserDelete,
    UserGrantRole,
    UserRevokeRole,
)

I64 = st.one_of(st.integers(-3, 12), st.integers(-(2**63), 2**63 - 1))
U64 = st.one_of(st.integers(0, 12), st.integers(0, 2**64 - 1))
ENUM = st.one_of(st.integers(0, 5), st.integers(-(2**31), 2**31 - 1))
KEYS = st.one_of(st.sampled_from([b"a", b"b", b"c", b"ab", b"\0", b"", b"\xff"]), st.binary())
ENDS = st.one_of(st.sampled_from([b"", b"\0", b"b", b"c"]), st.binary(max_size=3))
VALUES = st.binary(max_size=20)


def compares(keys: st.SearchStrategy[bytes] = KEYS) -> st.SearchStrategy[Compare]:
    """Any condition."""
    number = ENUM.filter(lambda target: target != CompareTarget.VALUE)
    return st.one_of(
        st.builds(Compare, keys, number, ENUM, I64, ENDS),
        st.builds(Compare, keys, st.just(int(CompareTarget.VALUE)), ENUM, VALUES, ENDS),
    )


ranges = st.builds(
    Range, KEYS, ENDS, I64, I64, ENUM, ENUM, st.booleans(), st.booleans(), I64, I64, I64, I64
)
puts = st.builds(Put, KEYS, VALUES, I64, st.booleans(), st.booleans(), st.booleans())
deletes = st.builds(DeleteRange, KEYS, ENDS, st.booleans())


def _txns(nested: st.SearchStrategy[object]) -> st.SearchStrategy[Txn]:
    branch = st.lists(st.one_of(ranges, puts, deletes, nested), max_size=4).map(tuple)
    return st.builds(Txn, st.lists(compares(), max_size=3).map(tuple), branch, branch)


txns = st.recursive(st.just(Txn()), _txns, max_leaves=4)

NAMES = st.one_of(st.sampled_from(["root", "alice", "bob", ""]), st.text())

auth_operations: st.SearchStrategy[AuthOperation] = st.one_of(
    st.builds(AuthEnable, st.binary(max_size=40)),
    st.just(AuthDisable()),
    st.builds(UserAdd, NAMES, VALUES),
    st.builds(UserDelete, NAMES),
    st.builds(UserChangePassword, NAMES, VALUES),
    st.builds(UserGrantRole, NAMES, NAMES),
    st.builds(UserRevokeRole, NAMES, NAMES),
    st.builds(RoleAdd, NAMES),
    st.builds(RoleDelete, NAMES),
    st.builds(RoleGrantPermission, NAMES, st.builds(Permission, ENUM, KEYS, ENDS)),
    st.builds(RoleRevokePermission, NAMES, KEYS, ENDS),
)

operations: st.SearchStrategy[Operation] = st.one_of(
    puts,
    deletes,
    txns,
    st.builds(Compact, I64),
    st.builds(LeaseGrant, I64, I64),
    st.builds(LeaseRevoke, I64, U64, U64),
    st.builds(LeaseCheckpoint, U64, st.lists(st.tuples(I64, U64, I64), max_size=4).map(tuple)),
    st.builds(Alarm, ENUM, U64, ENUM),
    st.just(EnableModel()),
    auth_operations,
    st.builds(RaiseLevel, st.integers(1, 2)),
)

numbers = st.builds(
    lambda session, floor, above: Numbered(session, floor + above, floor),
    st.binary(min_size=16, max_size=16),
    st.integers(1, 300) | st.integers(1, 2**63 - 256),
    st.integers(0, 255),
)

proposals = st.builds(
    Proposal,
    st.binary(min_size=16, max_size=16),
    operations,
    st.one_of(st.none(), st.builds(Authenticated, st.text(), U64)),
    st.one_of(st.none(), numbers),
)
