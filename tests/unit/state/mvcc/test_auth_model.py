"""Stories of users beside the oracle: who may do what, decided where it is applied."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.etcd_errors import EtcdError
from kvstore.state.mvcc.answers import Answer
from kvstore.state.mvcc.requests import (
    SERVER,
    Alarm,
    AuthDisable,
    AuthEnable,
    Authenticated,
    AuthOperation,
    Compact,
    Compare,
    DeleteRange,
    EnableModel,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Permission,
    Proposal,
    Put,
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
from tests.unit.state.mvcc.harness import Model, enabled
from tests.unit.state.mvcc.oracle import Oracle

KEYS = st.sampled_from([b"a", b"b", b"bb", b"c", b"d", b"\0", b"\xff"])
ENDS = st.sampled_from([b"", b"", b"b", b"c", b"d", b"e", b"\0"])
LEASES = st.sampled_from([1, 2])
USERS = st.sampled_from(["alice", "bob"])
ROLES = st.sampled_from(["r", "s", "t", "root"])
PASSWORDS = st.sampled_from([b"", b"hash", b"other"])

puts = st.builds(
    Put, KEYS, st.just(b"v"), st.sampled_from([0, 0, 1, 2]), st.booleans(), st.just(False)
)
reads = st.builds(Range, KEYS, ENDS)
deletes = st.builds(DeleteRange, KEYS, ENDS, st.booleans())
compares = st.builds(Compare, KEYS, st.just(0), st.sampled_from([0, 1]), st.just(0), ENDS)


def txns(nested: st.SearchStrategy[Txn] | None) -> st.SearchStrategy[Txn]:
    operation = puts | reads | deletes if nested is None else puts | reads | deletes | nested
    branch = st.lists(operation, max_size=2).map(tuple)
    return st.builds(Txn, st.lists(compares, max_size=1).map(tuple), branch, branch)


on_keys: st.SearchStrategy[Operation] = st.one_of(
    puts,
    deletes,
    txns(txns(None)),
    st.builds(LeaseGrant, LEASES, st.just(60)),
    st.builds(LeaseRevoke, LEASES),
    st.just(Alarm(0, 0, 0)),
    st.just(Compact(1)),
)
on_users: st.SearchStrategy[AuthOperation] = st.one_of(
    st.just(AuthEnable(bytes(32))),
    st.just(AuthEnable(bytes(32))),
    st.just(AuthDisable()),
    st.builds(UserAdd, USERS, PASSWORDS),
    st.builds(UserDelete, st.sampled_from(["alice", "bob", "root"])),
    st.builds(UserChangePassword, USERS, PASSWORDS),
    st.builds(UserGrantRole, USERS, ROLES),
    st.builds(UserRevokeRole, st.sampled_from(["alice", "bob", "root"]), ROLES),
    st.builds(RoleAdd, ROLES),
    st.builds(RoleDelete, ROLES),
    st.builds(RoleGrantPermission, ROLES, st.builds(Permission, st.integers(0, 2), KEYS, ENDS)),
    st.builds(RoleRevokePermission, ROLES, KEYS, ENDS),
)
# Who asks: and how far from the present revision of the users it was found out.
whos = st.one_of(
    st.tuples(st.sampled_from(["alice", "bob"]), st.just(0)),
    st.tuples(st.sampled_from(["root", "alice", "bob", "nobody"]), st.sampled_from([0, 0, 0, -1])),
    st.sampled_from([None, ("", 0)]),
)
BEGINNING: list[Operation] = [
    LeaseGrant(1, 60),
    UserAdd("root", b"hash"),
    UserGrantRole("root", "root"),
    UserAdd("alice", b"hash"),
    UserAdd("bob", b""),
    RoleAdd("r"),
    RoleAdd("s"),
    RoleGrantPermission("r", Permission(2, b"a", b"c")),
    RoleGrantPermission("s", Permission(0, b"c", b"\0")),
    UserGrantRole("alice", "r"),
    UserGrantRole("alice", "s"),
    UserGrantRole("bob", "s"),
    AuthEnable(bytes(32)),
]


class Both:
    """The model and its oracle, told the same."""

    def __init__(self) -> None:
        self.model: Model = enabled()
        self.oracle = Oracle()
        for operation in BEGINNING:
            self.ask([(operation, SERVER)])

    def ask(self, asked: list[tuple[Operation, Authenticated | tuple[str, int] | None]]) -> None:
        """One slice."""
        batch: list[Proposal] = []
        told: list[Answer | EtcdError] = []
        for operation, who in asked:
            if who is not None and who[0]:
                who = Authenticated(who[0], self.oracle.auth.revision + who[1])
            elif who is not None:
                who = SERVER
            proposal = self.model.proposal(operation)._replace(who=who)
            batch.append(proposal)
            told.append(self.oracle.apply(proposal, self.model.term))
        assert list(map(repr, self.model.apply_proposals(batch))) == list(map(repr, told))
        self.compare()

    def compare(self) -> None:
        auth, other = self.model.auth, self.oracle.auth
        assert auth.revision == other.revision
        assert (auth.enabled, dict(auth.users), dict(auth.roles)) == other.everything()


@given(
    st.lists(
        st.one_of(
            st.lists(st.tuples(on_keys | on_users, whos), min_size=1, max_size=5),
            st.lists(
                st.tuples(on_users, st.sampled_from([("root", 0), ("", 0)])), min_size=1, max_size=4
            ),
            st.none(),
        ),
        max_size=12,
    )
)
@settings(max_examples=300, deadline=None)
def test_users_do_what_the_oracle_lets_them(
    story: list[list[tuple[Operation, Authenticated | tuple[str, int] | None]] | None],
) -> None:
    both = Both()
    for asked in story:
        if asked is None:
            both.model.restart()
            both.compare()
        else:
            both.ask(asked)
    assert isinstance(both.model.do(EnableModel()), tuple)
