"""Users, roles and rights, as their operations are applied."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc import auth_changes
from kvstore.state.mvcc.answers import AuthAnswer, LeaseGrantAnswer
from kvstore.state.mvcc.auth import ROOT
from kvstore.state.mvcc.auth_operations import NAME_BYTES_MAX
from kvstore.state.mvcc.evaluate import evaluate_slice
from kvstore.state.mvcc.metering import cost_of
from kvstore.state.mvcc.records import ATTACHMENTS
from kvstore.state.mvcc.requests import (
    LEVEL_NUMBERED,
    SERVER,
    Alarm,
    AlarmAction,
    AlarmKind,
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
    Operation,
    Permission,
    PermissionKind,
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
from tests.unit.state.mvcc.harness import EngineStore, Model, enabled

KEY = bytes(32)
READ, WRITE, READWRITE = PermissionKind


def refused(model: Model, operation: Operation) -> Reason | None:
    """Why it is; the state is as before then."""
    before = list(model.db), model.standing, model.auth
    try:
        model.do(operation)
    except EtcdError as error:
        assert (
            [each for each in model.db if each[0] != b"\0state"],
            model.standing,
            model.auth,
        ) == ([each for each in before[0] if each[0] != b"\0state"], *before[1:])
        return error.reason
    return None


def with_users(*operations: AuthOperation) -> Model:
    """A model with a root, and then as ``operations`` make it; users aren't asked for yet."""
    model = enabled()
    for operation in (UserAdd(ROOT, b"hash"), UserGrantRole(ROOT, ROOT), *operations):
        model.do(operation)
    return model


def guarded(*permissions: Permission) -> Model:
    """One in which users are asked for, with alice, who may do so much. Root asks."""
    model = with_users(UserAdd("alice", b"hash"), RoleAdd("r"), UserGrantRole("alice", "r"))
    for permission in permissions:
        model.do(RoleGrantPermission("r", permission))
    model.do(AuthEnable(KEY))
    ask_as(model, ROOT)
    return model


def ask_as(model: Model, user: str) -> None:
    model.who = Authenticated(user, model.auth.revision)


def test_there_are_no_users_before_all_members_know_of_them() -> None:
    model = Model()
    assert refused(model, UserAdd(ROOT, b"")) is Reason.NOT_CAPABLE
    model.do(EnableModel())
    assert refused(model, UserAdd(ROOT, b"")) is Reason.NOT_CAPABLE
    model.do(RaiseLevel(LEVEL_NUMBERED))
    model.do(UserAdd(ROOT, b""))


# --- users and roles -----------------------------------------------------------------------------


def test_users_and_roles_are_made_and_go() -> None:
    model = with_users(
        UserAdd("alice", b"hash"),
        UserAdd("certified", b""),
        RoleAdd("reader"),
        RoleAdd("writer"),
        RoleGrantPermission("reader", Permission(READ, b"b", b"c")),
        RoleGrantPermission("reader", Permission(READ, b"a")),
        RoleGrantPermission("reader", Permission(READWRITE, b"b", b"c")),
        UserGrantRole("alice", "writer"),
        UserGrantRole("alice", "reader"),
        UserChangePassword("alice", b"other"),
        UserChangePassword("certified", b"other"),
    )
    auth = model.auth
    assert auth.revision == 1 + 13
    assert auth.users["alice"] == (b"other", ("reader", "writer"))
    assert auth.users["certified"].password_hash == b"", "who has no password gets none"
    assert auth.roles == {
        "reader": (Permission(READ, b"a"), Permission(READWRITE, b"b", b"c")),
        "writer": (),
    }
    model.do(RoleRevokePermission("reader", b"b", b"c"))
    model.do(RoleDelete("writer"))
    model.do(UserDelete("certified"))
    assert model.auth.roles == {"reader": (Permission(READ, b"a"),)}
    assert model.auth.users["alice"].roles == ("reader",)
    assert set(model.auth.users) == {ROOT, "alice"}
    assert model.standing.revision == 1, "no revision of keys"
    assert not model.auth.enabled


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (UserAdd("", b""), Reason.USER_EMPTY),
        (UserAdd("alice", b""), Reason.USER_EXISTS),
        (UserAdd("u" * (NAME_BYTES_MAX + 1), b""), Reason.REQUEST_TOO_LARGE),
        (UserAdd("bob", b"x" * 2000), Reason.REQUEST_TOO_LARGE),
        (UserDelete("bob"), Reason.USER_NOT_FOUND),
        (UserDelete(""), Reason.USER_NOT_FOUND),
        (UserChangePassword("bob", b""), Reason.USER_NOT_FOUND),
        (UserGrantRole("bob", "r"), Reason.USER_NOT_FOUND),
        (UserGrantRole("alice", "s"), Reason.ROLE_NOT_FOUND),
        (UserGrantRole("alice", ""), Reason.ROLE_NOT_FOUND),
        (UserRevokeRole("bob", "r"), Reason.USER_NOT_FOUND),
        (UserRevokeRole("alice", "s"), Reason.ROLE_NOT_GRANTED),
        (RoleAdd(""), Reason.ROLE_EMPTY),
        (RoleAdd("r"), Reason.ROLE_EXISTS),
        (RoleAdd("r" * (NAME_BYTES_MAX + 1)), Reason.REQUEST_TOO_LARGE),
        (RoleDelete("s"), Reason.ROLE_NOT_FOUND),
        (RoleGrantPermission("s", Permission(READ, b"a")), Reason.ROLE_NOT_FOUND),
        (RoleGrantPermission("r", Permission(READ, b"")), Reason.INVALID_AUTH_MANAGEMENT),
        (RoleGrantPermission("r", Permission(READ, b"b", b"b")), Reason.INVALID_AUTH_MANAGEMENT),
        (RoleGrantPermission("r", Permission(READ, b"b", b"a")), Reason.INVALID_AUTH_MANAGEMENT),
        (RoleGrantPermission("r", Permission(3, b"b", b"c")), Reason.INVALID_AUTH_MANAGEMENT),
        (RoleGrantPermission("r", Permission(-1, b"b")), Reason.INVALID_AUTH_MANAGEMENT),
        (RoleRevokePermission("s", b"a"), Reason.ROLE_NOT_FOUND),
        (RoleRevokePermission("r", b"a"), Reason.PERMISSION_NOT_GRANTED),
        (RoleRevokePermission("r", b"k", b"\0"), Reason.PERMISSION_NOT_GRANTED),
        (AuthEnable(b""), Reason.INVALID_AUTH_MANAGEMENT),
    ],
)
def test_what_makes_no_sense_is_refused(operation: AuthOperation, reason: Reason) -> None:
    model = with_users(
        UserAdd("alice", b"hash"), RoleAdd("r"), RoleGrantPermission("r", Permission(READ, b"k"))
    )
    assert refused(model, operation) is reason


@pytest.mark.parametrize(
    ("operation", "taken"),
    [
        (RoleGrantPermission("r", Permission(READ, b"b", b"\0")), True),
        (RoleGrantPermission("r", Permission(READ, b"\0", b"\0")), True),
        (RoleGrantPermission("r", Permission(READ, b"b", b"b\0")), True),
        (UserGrantRole(ROOT, ROOT), False),  # has it
        (AuthDisable(), False),
    ],
)
def test_each_change_and_nothing_else_is_a_revision_of_the_users(
    operation: AuthOperation, taken: bool
) -> None:
    model = with_users(RoleAdd("r"))
    before = model.auth.revision
    assert model.do(operation) == AuthAnswer(1)
    assert model.auth.revision == before + taken


def test_users_are_asked_for_only_where_there_is_a_root() -> None:
    model = enabled()
    assert refused(model, AuthEnable(KEY)) is Reason.ROOT_USER_NOT_EXIST
    model.do(UserAdd(ROOT, b"hash"))
    assert refused(model, AuthEnable(KEY)) is Reason.ROOT_ROLE_NOT_EXIST
    model.do(UserGrantRole(ROOT, ROOT))  # without a record of that role
    revision = model.auth.revision
    model.do(AuthEnable(KEY))
    assert (model.auth.enabled, model.auth.guard, model.auth.token_key) == (True, revision, KEY)
    ask_as(model, ROOT)
    model.do(AuthEnable(b"x" * 32))
    assert model.auth.token_key == KEY, "what tokens are made of stays while they are good"
    model.do(AuthDisable())
    assert (model.auth.enabled, model.auth.guard) == (False, 0)
    assert model.auth.revision == revision + 1
    model.who = None
    model.do(AuthDisable())
    model.do(AuthEnable(b"x" * 32))
    assert model.auth.token_key == b"x" * 32
    assert model.auth.revision == revision + 1


@pytest.mark.parametrize(
    "operation", [UserDelete(ROOT), RoleDelete(ROOT), UserRevokeRole(ROOT, ROOT)]
)
def test_root_stays_while_users_are_asked_for(operation: AuthOperation) -> None:
    model = with_users(RoleAdd(ROOT))
    model.do(AuthEnable(KEY))
    ask_as(model, ROOT)
    assert refused(model, operation) is Reason.INVALID_AUTH_MANAGEMENT
    model.do(AuthDisable())
    model.do(operation)


def test_a_user_who_was_made_anew_has_nothing_of_the_former_one() -> None:
    model = guarded(Permission(READWRITE, b"k"))
    ask_as(model, "alice")
    was_alice = model.who
    model.do(Put(b"k"))
    ask_as(model, ROOT)
    model.do(UserDelete("alice"))
    ask_as(model, ROOT)
    model.do(UserAdd("alice", b"hash"))
    model.who = was_alice
    assert refused(model, Put(b"k")) is Reason.AUTH_OLD_REVISION
    ask_as(model, "alice")
    assert refused(model, Put(b"k")) is Reason.PERMISSION_DENIED


def test_users_and_roles_have_a_bound_each_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_users(RoleAdd("r"))
    monkeypatch.setattr(auth_changes, "AUTH_RECORD_BYTES_MAX", 100)
    model.do(RoleGrantPermission("r", Permission(READ, b"k" * 80)))
    assert (
        refused(model, RoleGrantPermission("r", Permission(READ, b"l" * 80)))
        is Reason.TOO_MANY_REQUESTS
    )
    model.do(RoleGrantPermission("r", Permission(READWRITE, b"k" * 80)))  # no larger than it was
    cost = model.auth.cost
    model.do(UserAdd("alice", b"hash"))
    per_user = model.auth.cost - cost
    monkeypatch.setattr(auth_changes, "AUTH_COST_MAX", model.auth.cost + per_user)
    model.do(UserAdd("carol", b"hash"))
    assert refused(model, UserAdd("david", b"hash")) is Reason.TOO_MANY_REQUESTS
    model.do(UserDelete("alice"))
    model.do(UserAdd("david", b"hash"))
    model.do(UserDelete("david"))
    model.do(UserDelete("carol"))
    model.do(RoleRevokePermission("r", b"k" * 80))
    model.do(RoleDelete("r"))
    model.do(UserDelete(ROOT))
    assert model.auth.cost == 0


def test_an_entry_that_would_look_at_too_many_users_is_refused_in_part() -> None:
    model = with_users(*[UserAdd(f"u{number}", b"") for number in range(30)])
    model.entry_read_max = 40_000
    answers = model.apply(*[RoleAdd(f"r{number}") for number in range(200)])
    reasons = [answer.reason for answer in answers if isinstance(answer, EtcdError)]
    assert reasons
    assert set(reasons) <= {Reason.TOO_MANY_REQUESTS, Reason.REQUEST_TOO_LARGE}
    assert len(model.auth.roles) == 200 - len(reasons) > 0


def test_users_survive_a_restart() -> None:
    model = guarded(Permission(READ, b"a", b"c"), Permission(WRITE, b"c", b"\0"))
    before = model.auth
    assert before.may_read("alice", b"a", b"c")
    model.restart()
    after = model.auth
    assert after is not before
    assert (after.record, after.users, after.roles, after.cost) == (
        before.record,
        before.users,
        before.roles,
        before.cost,
    )
    assert after.may_read("alice", b"a", b"c")  # etcd's #14571
    assert not after.may_write("alice", b"a", b"c")


# --- who asks ------------------------------------------------------------------------------------


def test_nobody_is_asked_who_it_is_while_that_is_off() -> None:
    model = with_users()
    for who in (None, Authenticated("nobody", 99), SERVER):
        model.who = who
        model.do(Put(b"k"))


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (None, Reason.USER_EMPTY),
        (Authenticated("", 5), Reason.USER_EMPTY),
        (Authenticated("nobody", 0), Reason.PERMISSION_DENIED),
        (Authenticated(ROOT, -1), Reason.AUTH_OLD_REVISION),
        (Authenticated(ROOT, 1), Reason.AUTH_OLD_REVISION),
        (Authenticated(ROOT, 0), None),
        (SERVER, None),
    ],
)
@pytest.mark.parametrize(
    "operation",
    [
        Put(b"k"),
        DeleteRange(b"k"),
        Txn(),
        Compact(1),
        LeaseGrant(7, 10),
        Alarm(AlarmAction.GET, 0, AlarmKind.NONE),
        UserAdd("bob", b""),
        AuthEnable(KEY),
        AuthDisable(),
    ],
)
def test_who_asks_is_known_as_of_now(
    operation: Operation, who: Authenticated | None, reason: Reason | None
) -> None:
    """The number is how far the revision that it was found at is from the present one."""
    model = guarded()
    if who is not None and who.user not in ("",):
        who = who._replace(auth_revision=model.auth.revision + who.auth_revision)
    model.who = who
    assert refused(model, operation) is reason


def test_what_servers_propose_needs_no_user() -> None:
    model = guarded()
    model.do(LeaseGrant(7, 10))
    (birth,) = [record.birth for record in model.leases.values()]
    model.do(Put(b"k", b"", 7))
    model.who = None  # as kvds did that knew no users
    model.do(EnableModel())
    model.do(RaiseLevel(LEVEL_NUMBERED))
    model.do(LeaseCheckpoint(model.term, ((7, birth, 5),)))
    model.do(LeaseRevoke(7, model.term, birth))
    model.who = SERVER
    model.do(LeaseGrant(8, 10))
    model.do(Compact(2))
    model.do(Alarm(AlarmAction.ACTIVATE, 1, AlarmKind.NOSPACE))


def test_users_are_managed_while_there_is_no_space_or_damage() -> None:
    model = guarded()
    for kind in (AlarmKind.NOSPACE, AlarmKind.CORRUPT):
        model.do(Alarm(AlarmAction.ACTIVATE, 1, kind))
        model.do(UserAdd(f"u{int(kind)}", b""))
        ask_as(model, ROOT)


# --- what may be done ----------------------------------------------------------------------------

MOD = int(CompareTarget.MOD)


@pytest.mark.parametrize(
    ("operation", "allowed"),
    [
        # Alice reads from "a" on and below "g", and writes from "d" on and below "m".
        (Put(b"e", b"v"), True),
        (Put(b"h", b"v"), True),
        (Put(b"a", b"v"), False),
        (Put(b"m", b"v"), False),
        (Put(b"e", b"v", prev_kv=True), True),
        (Put(b"h", b"v", prev_kv=True), False),
        (Put(b"h", ignore_value=True), True),
        (Put(b"h", b"v", ignore_lease=True), True),
        (DeleteRange(b"d", b"m"), True),
        (DeleteRange(b"d", b"m\0"), False),
        (DeleteRange(b"d", b"\0"), False),
        (DeleteRange(b"c", b"e"), False),
        (DeleteRange(b"d", b"g", prev_kv=True), True),
        (DeleteRange(b"d", b"m", prev_kv=True), False),
        (DeleteRange(b"e", prev_kv=True), True),
        (DeleteRange(b"h", prev_kv=True), False),
        (Txn(success=(Range(b"a", b"g"),)), True),
        (Txn(success=(Range(b"a", b"h"),)), False),
        (Txn(success=(Range(b"a", b"\0"),)), False),
        (Txn(failure=(Range(b"z"),)), False),
        (Txn((Compare(b"a", MOD, 0, 0),)), True),
        (Txn((Compare(b"h", MOD, 0, 0),)), False),
        (Txn((Compare(b"a", MOD, 0, 0, b"g"),)), True),
        (Txn((Compare(b"a", MOD, 0, 0, b"h"),)), False),
        (Txn((Compare(b"a", MOD, 0, 0, b"\0"),)), False),
        (Txn((Compare(b"a", MOD, 0, 99), Compare(b"z", MOD, 0, 0))), False),  # not come to
        (Txn(success=(Put(b"e"), DeleteRange(b"h"))), True),
        (Txn(failure=(Put(b"a"),)), False),
        (Txn(success=(Put(b"h", prev_kv=True),)), False),
        (Txn(success=(DeleteRange(b"h", prev_kv=True),)), False),
        # CVE-2026-33343
        (Txn(success=(Txn(success=(Put(b"e"),)),)), True),
        (Txn(success=(Txn(failure=(Put(b"z"),)),)), False),
        (Txn(success=(Txn((Compare(b"z", MOD, 0, 0),)),)), False),
        (Txn(failure=(Txn(success=(Txn(failure=(Range(b"z"),)),)),)), False),
        (LeaseGrant(99, 10), True),
        (Alarm(AlarmAction.GET, 0, AlarmKind.NONE), True),
        (Alarm(AlarmAction.ACTIVATE, 1, AlarmKind.NOSPACE), False),
        (Alarm(AlarmAction.DEACTIVATE, 1, AlarmKind.NOSPACE), False),
        (Alarm(7, 1, AlarmKind.NOSPACE), False),
        (Compact(1), False),
        (LeaseCheckpoint(1, ()), False),
        (AuthEnable(KEY), False),
        (AuthDisable(), False),
        (UserAdd("bob", b""), False),
        (UserDelete("alice"), False),
        (UserChangePassword("alice", b"other"), False),
        (UserGrantRole("alice", ROOT), False),
        (UserRevokeRole("alice", "r"), False),
        (RoleAdd("s"), False),
        (RoleDelete("r"), False),
        (RoleGrantPermission("r", Permission(READ, b"z")), False),
        (RoleRevokePermission("r", b"a", b"g"), False),
    ],
)
def test_users_do_what_their_roles_allow(operation: Operation, allowed: bool) -> None:
    model = guarded(Permission(READ, b"a", b"g"), Permission(WRITE, b"d", b"m"))
    model.do(Put(b"e", b"there"))
    model.do(Put(b"h", b"there"))
    ask_as(model, "alice")
    assert refused(model, operation) is (None if allowed else Reason.PERMISSION_DENIED)
    ask_as(model, ROOT)
    assert refused(model, operation) is not Reason.PERMISSION_DENIED


def test_rights_end_with_the_very_operation_that_takes_them() -> None:
    model = guarded(Permission(READWRITE, b"k"))
    ask_as(model, "alice")
    alice = model.who
    ask_as(model, ROOT)
    root = model.who
    assert root is not None
    later = root._replace(auth_revision=root.auth_revision + 1)
    proposals = [
        model.proposal(Put(b"k"))._replace(who=alice),
        model.proposal(RoleRevokePermission("r", b"k"))._replace(who=root),
        model.proposal(Put(b"k"))._replace(who=alice),
        model.proposal(Put(b"k"))._replace(who=later._replace(user="alice")),
        model.proposal(Put(b"k"))._replace(who=later),
    ]
    answers = model.apply_proposals(proposals)
    reasons = [answer.reason if isinstance(answer, EtcdError) else None for answer in answers]
    assert reasons == [
        None,
        None,
        Reason.AUTH_OLD_REVISION,
        Reason.PERMISSION_DENIED,
        None,
    ]


# --- leases --------------------------------------------------------------------------------------


def leased() -> Model:
    """Alice writes below "m". On lease 1 are "a" and "l", on 2 "a" and "z", on 3 nothing."""
    model = guarded(Permission(WRITE, b"a", b"m"))
    for lease in (1, 2, 3):
        assert isinstance(model.do(LeaseGrant(lease, 60)), LeaseGrantAnswer)
    for key, lease in ((b"a1", 1), (b"l1", 1), (b"a2", 2), (b"z2", 2)):
        model.do(Put(key, b"", lease))
    ask_as(model, "alice")
    return model


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (Put(b"b", b"", 1), None),
        (Put(b"b", b"", 3), None),
        (Put(b"b", b"", 2), Reason.PERMISSION_DENIED),
        (Put(b"b", b"", 9), Reason.LEASE_NOT_FOUND),
        (Put(b"a2", b"", 0), None),  # off its lease
        (Put(b"a2", ignore_lease=True), None),
        (Txn(success=(Put(b"b", b"", 2),)), Reason.PERMISSION_DENIED),
        (Txn(failure=(Txn(failure=(Put(b"b", b"", 2),)),)), Reason.PERMISSION_DENIED),
        (Txn(success=(Put(b"b", b"", 1), Put(b"c", b"", 3))), None),
        (LeaseRevoke(1), None),
        (LeaseRevoke(2), Reason.PERMISSION_DENIED),
        (LeaseRevoke(3), None),
        (LeaseRevoke(9), Reason.LEASE_NOT_FOUND),
        (LeaseRevoke(2, 1, 1), Reason.PERMISSION_DENIED),  # a user is no server
    ],
)
def test_a_lease_is_for_those_who_may_write_all_that_is_on_it(
    operation: Operation, reason: Reason | None
) -> None:
    model = leased()
    assert refused(model, operation) is reason


def test_a_lease_is_as_the_same_entry_left_it() -> None:
    model = leased()
    alice = model.who
    ask_as(model, ROOT)
    root = model.who
    asked: list[tuple[Authenticated | None, Operation]] = [
        (root, DeleteRange(b"z2")),
        (alice, Put(b"b", b"", 2)),  # now that all else on it is hers
        (root, Put(b"z3", b"", 1)),
        (alice, Put(b"c", b"", 1)),
        (root, Put(b"z3", b"", 3)),
        (alice, Put(b"c", b"", 1)),
        (alice, LeaseRevoke(3)),
        (root, DeleteRange(b"\0", b"\0")),
        (alice, LeaseRevoke(3)),
    ]
    answers = model.apply_proposals(
        [model.proposal(operation)._replace(who=who) for who, operation in asked]
    )
    reasons = [answer.reason if isinstance(answer, EtcdError) else None for answer in answers]
    denied = Reason.PERMISSION_DENIED
    assert reasons == [None, None, None, denied, None, None, denied, None, None]


def test_what_is_on_a_lease_costs_no_more_the_more_there_is() -> None:
    model = leased()
    ask_as(model, ROOT)
    for number in range(200):
        model.do(Put(b"c%03d" % number, b"", 1))
    ask_as(model, "alice")
    model.entry_read_max = 2_000
    model.do(Put(b"b", b"", 1))


def test_what_is_on_a_lease_costs_the_same_wherever_slices_are_cut() -> None:
    """Members that have more of it stored than others come to the same."""
    told = []
    for together in (True, False):
        model = leased()
        alice = model.who
        ask_as(model, ROOT)
        root = [model.proposal(Put(b"c%d" % number, b"", 1)) for number in range(3)]
        root.append(model.proposal(DeleteRange(b"z", b"\0")))
        puts = [Put(b"b%d" % number, b"", 1 + number % 2) for number in range(4)]
        asked = [model.proposal(each)._replace(who=alice) for each in puts]
        # Before "a", and from "m" on: alice's puts look at both.
        model.entry_read_max = 2 * cost_of(None) * 3
        entries = [(place, model.term, 1, batch) for place, batch in enumerate((root, asked))]
        if together:
            _, answers = evaluate_slice(entries, model.view)
        else:
            answers = [model.apply_proposals(batch) for _, _, _, batch in entries]
        told.append(repr(answers))
        reasons = [each.reason for each in answers[1] if isinstance(each, EtcdError)]
        assert reasons == [Reason.REQUEST_TOO_LARGE]
    assert told[0] == told[1]


class CountingStore(EngineStore):
    """Counts the attachments that it tells of."""

    count_of_attachments = 0

    def versions(
        self, start: bytes, stop: bytes, sequence: int | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes, int]]:
        for version in super().versions(start, stop, sequence, reverse=reverse):
            self.count_of_attachments += start.startswith(ATTACHMENTS)
            yield version


def test_what_has_left_a_lease_is_not_looked_at_again_and_again() -> None:
    model = leased()
    ask_as(model, ROOT)
    for number in range(300):
        model.do(Put(b"z%03d" % number, b"", 1))
    gone = model.proposal(DeleteRange(b"m", b"\0"))
    ask_as(model, "alice")
    puts = [model.proposal(Put(b"b%03d" % number, b"", 1)) for number in range(50)]
    model.store = store = CountingStore(model.db)
    answers = model.apply_proposals([gone, *puts])
    assert not [answer for answer in answers if isinstance(answer, EtcdError)]
    assert store.count_of_attachments < 400
    assert refused(model, LeaseRevoke(1)) is None
