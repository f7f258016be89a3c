"""``etcdserverpb.Auth``: what handlers propose, whom they tell what, and logins."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
import structlog.testing

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd import auth_passwords
from kvstore.api.handlers.etcd.asking import Asking
from kvstore.api.handlers.etcd.auth import AuthHandlers
from kvstore.api.handlers.etcd.auth_passwords import Passwords
from kvstore.errors import Error, InvalidArgumentError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd import EtcdService
from kvstore.service.etcd.header import Header
from kvstore.state.mvcc.answers import AuthAnswer
from kvstore.state.mvcc.auth import Auth, User
from kvstore.state.mvcc.auth_passwords import SALT_BYTES, hash_password, is_password
from kvstore.state.mvcc.requests import (
    AuthDisable,
    AuthEnable,
    Permission,
    PermissionKind,
    RoleAdd,
    RoleDelete,
    RoleGrantPermission,
    RoleRevokePermission,
    UserAdd,
    UserChangePassword,
    UserDelete,
    UserGrantRole,
    UserRevokeRole,
)
from tests.unit.api.auth_gates import Caller, Users, users_of

KEPT = hash_password(b"secret", bytes(SALT_BYTES))


def people(**kept: bytes) -> Auth:
    """Root, ann with a password, and nop without; ``kept``: other passwords."""
    users = {"root": User(KEPT, ("root",)), "ann": User(KEPT, ("jobs",)), "nop": User(b"", ())}
    users |= {name: users[name]._replace(password_hash=one) for name, one in kept.items()}
    return Auth(
        enabled=True,
        revision=7,
        token_key=b"k" * 32,
        users=users,
        roles={"root": (), "jobs": (Permission(PermissionKind.WRITE, b"j", b"k"),), "empty": ()},
    )


class Stage:
    """Handlers over a service that notes what is proposed."""

    patience_s = 7.0

    def __init__(self) -> None:
        self.users = Users(people())
        self.proposed: list[Any] = []
        self.passwords = Passwords()
        # As soon as a read point is asked for it is reached.
        cast(Any, self.users).read_point = self.read_point
        self.at_points: list[Callable[[], None]] = []
        self.handlers = AuthHandlers(
            Asking(cast(EtcdService, self), self.users.gate), self.passwords
        )

    # An EtcdService.

    def header(self) -> Header:
        return Header(1, 2, 3, 4)

    def propose(
        self, operation: Any, who: Any, deadline: Any, done: Any, request: Any = None
    ) -> None:
        self.proposed.append(operation)
        done(AuthAnswer(3))

    def read_state(
        self, read: Any, serializable: bool, deadline: Any, done: Any, permit: Any, gone: Any
    ) -> None:
        assert not serializable
        try:
            permit(self.users.auth)
        except Error as error:
            done(error)
        else:
            done(read(self.users.machine, lambda: None))

    def read_point(self, deadline: Any, done: Any) -> None:
        if self.at_points:
            self.at_points.pop(0)()
        done(None)

    # What tests do.

    def caller(self, name: str) -> Any:
        return Caller(("token", self.users.token(name)))

    async def call(self, method: str, request: Any, name: str = "root") -> Any:
        return await getattr(self.handlers, method)(request, self.caller(name))

    async def login(self, name: str, password: str, peer: str = "ipv4:10.0.0.1:5") -> str:
        request = pb.AuthenticateRequest(name=name, password=password)
        answer = await self.handlers.Authenticate(request, cast(Any, Caller(peer=peer)))
        return answer.token


def staged(test: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        stage = Stage()
        try:
            async with asyncio.timeout(60):
                await test(stage)
        finally:
            stage.passwords.close()

    asyncio.run(main())


# --- what is proposed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "request_", "operation"),
    [
        ("AuthDisable", pb.AuthDisableRequest(), AuthDisable()),
        ("UserDelete", pb.AuthUserDeleteRequest(name="u"), UserDelete("u")),
        (
            "UserAdd",
            pb.AuthUserAddRequest(
                name="u", password="x", options=pb.UserAddOptions(no_password=True)
            ),
            UserAdd("u", b""),
        ),
        ("UserGrantRole", pb.AuthUserGrantRoleRequest(user="u", role="r"), UserGrantRole("u", "r")),
        (
            "UserRevokeRole",
            pb.AuthUserRevokeRoleRequest(name="u", role="r"),
            UserRevokeRole("u", "r"),
        ),
        ("RoleAdd", pb.AuthRoleAddRequest(name="r"), RoleAdd("r")),
        ("RoleDelete", pb.AuthRoleDeleteRequest(role="r"), RoleDelete("r")),
        (
            "RoleGrantPermission",
            pb.AuthRoleGrantPermissionRequest(
                name="r", perm=pb.Permission(permType="READWRITE", key=b"a", range_end=b"b")
            ),
            RoleGrantPermission("r", Permission(PermissionKind.READWRITE, b"a", b"b")),
        ),
        (
            "RoleRevokePermission",
            pb.AuthRoleRevokePermissionRequest(role="r", key=b"a", range_end=b"b"),
            RoleRevokePermission("r", b"a", b"b"),
        ),
    ],
)
def test_changes_are_proposed(method: str, request_: Any, operation: Any) -> None:
    async def test(stage: Stage) -> None:
        assert (await stage.call(method, request_)).header.revision == 3
        assert stage.proposed == [operation]

    staged(test)


def test_each_enabling_draws_another_key() -> None:
    async def test(stage: Stage) -> None:
        for _ in range(2):
            await stage.call("AuthEnable", pb.AuthEnableRequest())
        first, second = stage.proposed
        assert isinstance(first, AuthEnable)
        assert first != second

    staged(test)


def test_passwords_are_proposed_hashed_and_salted() -> None:
    async def test(stage: Stage) -> None:
        add = pb.AuthUserAddRequest(name="u", password="pässword", hashedPassword="client's")
        await stage.call("UserAdd", add)
        await stage.call("UserAdd", add)
        change = pb.AuthUserChangePasswordRequest(name="u", password="other")
        await stage.call("UserChangePassword", change)
        first, second, changed = stage.proposed
        assert first.password_hash != second.password_hash
        assert all(is_password("pässword".encode(), one.password_hash) for one in (first, second))
        assert isinstance(changed, UserChangePassword)
        assert is_password(b"other", changed.password_hash)

    staged(test)


@pytest.mark.parametrize(
    ("method", "request_", "error"),
    [
        ("UserAdd", pb.AuthUserAddRequest(password="x"), Reason.USER_EMPTY),
        (
            "RoleGrantPermission",
            pb.AuthRoleGrantPermissionRequest(name="r"),
            Reason.PERMISSION_NOT_GIVEN,
        ),
    ],
)
def test_what_cannot_be_is_not_proposed(method: str, request_: Any, error: Reason) -> None:
    async def test(stage: Stage) -> None:
        with pytest.raises(EtcdError) as refused:
            await stage.call(method, request_)
        assert refused.value.reason is error
        assert not stage.proposed

    staged(test)


def test_a_password_that_is_too_long_is_refused() -> None:
    async def test(stage: Stage) -> None:
        with pytest.raises(InvalidArgumentError):
            await stage.call("UserAdd", pb.AuthUserAddRequest(name="u", password="x" * 5000))
        with pytest.raises(EtcdError, match="authentication failed"):
            await stage.login("ann", "x" * 5000)

    staged(test)


@pytest.mark.parametrize("method", ["UserAdd", "UserChangePassword"])
def test_nothing_is_hashed_for_others_than_root(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_passwords, "hash_password", lambda *_: pytest.fail("it was hashed"))
    shape: Any = getattr(pb, f"Auth{method}Request")

    async def test(stage: Stage) -> None:
        with pytest.raises(EtcdError, match="permission denied"):
            await stage.call(method, shape(name="u", password="x"), "ann")

    staged(test)


# --- who is told what ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "request_", "is_for_ann"),
    [
        ("AuthStatus", pb.AuthStatusRequest(), False),
        ("UserList", pb.AuthUserListRequest(), False),
        ("RoleList", pb.AuthRoleListRequest(), False),
        ("UserGet", pb.AuthUserGetRequest(name="ann"), True),
        ("UserGet", pb.AuthUserGetRequest(name="root"), False),
        ("UserGet", pb.AuthUserGetRequest(name="nobody"), False),
        ("RoleGet", pb.AuthRoleGetRequest(role="jobs"), True),
        ("RoleGet", pb.AuthRoleGetRequest(role="empty"), False),
        ("RoleGet", pb.AuthRoleGetRequest(role="nothing"), False),
    ],
)
def test_what_is_told_to_whom(method: str, request_: Any, is_for_ann: bool) -> None:
    async def test(stage: Stage) -> None:
        if is_for_ann:
            assert await stage.call(method, request_, "ann") == await stage.call(method, request_)
        else:
            with pytest.raises(EtcdError, match="permission denied"):
                await stage.call(method, request_, "ann")

    staged(test)


def test_users_and_roles_as_root_sees_them() -> None:
    async def test(stage: Stage) -> None:
        call = stage.call
        status = await call("AuthStatus", pb.AuthStatusRequest())
        assert (status.enabled, status.authRevision) == (True, 7)
        assert [*(await call("UserList", pb.AuthUserListRequest())).users] == ["ann", "nop", "root"]
        roles = (await call("RoleList", pb.AuthRoleListRequest())).roles
        assert [*roles] == ["empty", "jobs", "root"]
        assert [*(await call("UserGet", pb.AuthUserGetRequest(name="ann"))).roles] == ["jobs"]
        (jobs,) = (await call("RoleGet", pb.AuthRoleGetRequest(role="jobs"))).perm
        assert jobs == pb.Permission(permType="WRITE", key=b"j", range_end=b"k")
        (root,) = (await call("RoleGet", pb.AuthRoleGetRequest(role="root"))).perm
        assert root == pb.Permission(permType="READWRITE", range_end=b"\0")
        with pytest.raises(EtcdError, match="user name not found"):
            await call("UserGet", pb.AuthUserGetRequest(name="eve"))
        with pytest.raises(EtcdError, match="role name not found"):
            await call("RoleGet", pb.AuthRoleGetRequest(role="eve"))

    staged(test)


# --- logins --------------------------------------------------------------------------------------


def test_who_knows_the_password_gets_a_token() -> None:
    async def test(stage: Stage) -> None:
        token = await stage.login("ann", "secret")
        assert stage.users.tokens.user_of(token, stage.users.auth) == "ann"

    staged(test)


def test_others_are_told_the_same_whatever_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(password: bytes, kept: bytes) -> bool:
        compared.append(kept)
        return is_password(password, kept)

    monkeypatch.setattr(auth_passwords, "is_password", compare)

    async def test(stage: Stage) -> None:
        for name, password in (("ann", "wrong"), ("nop", ""), ("nop", "x"), ("eve", "x"), ("", "")):
            with pytest.raises(EtcdError) as refused:
                await stage.login(name, password)
            assert refused.value.reason is Reason.AUTHENTICATION_FAILED
        assert len(compared) == 5, "each takes the time of a comparison"

    staged(test)


def test_failures_are_logged_without_names_and_not_each() -> None:
    async def test(stage: Stage) -> None:
        with structlog.testing.capture_logs() as logged:
            for _ in range(3):
                with pytest.raises(EtcdError):
                    await stage.login("my password, by mistake", "x")
        (line,) = logged
        assert line["event"] == "authentication failed"
        assert line["peer"] == "ipv4:10.0.0.1:5"
        assert "mistake" not in str(logged)

    staged(test)


def test_nobody_logs_in_while_nobody_is_asked_for() -> None:
    async def test(stage: Stage) -> None:
        stage.users.become(users_of({"ann": []}, enabled=False))
        with pytest.raises(EtcdError, match="authentication is not enabled"):
            await stage.login("ann", "secret")

    staged(test)


def test_a_password_that_changed_meanwhile_is_compared_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(stage: Stage) -> None:
        loop = asyncio.get_running_loop()
        other = people(ann=hash_password(b"other", b"s" * SALT_BYTES))

        def compare(password: bytes, kept: bytes) -> bool:
            changed = threading.Event()
            loop.call_soon_threadsafe(lambda: (stage.users.become(other), changed.set()))
            changed.wait(30)
            return is_password(password, kept)

        monkeypatch.setattr(auth_passwords, "is_password", compare)
        with pytest.raises(EtcdError, match="authentication failed"):
            await stage.login("ann", "secret")

    staged(test)


def test_a_login_knows_what_was_acknowledged_before() -> None:
    async def test(stage: Stage) -> None:
        newer = people(ann=hash_password(b"other", b"s" * SALT_BYTES))
        stage.at_points.append(lambda: stage.users.become(newer))
        assert await stage.login("ann", "other")

    staged(test)


def test_logins_have_bounds_of_all_and_of_each_address(monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()

    def compare(password: bytes, kept: bytes) -> bool:
        free.wait(30)
        return True

    monkeypatch.setattr(auth_passwords, "is_password", compare)

    async def test(stage: Stage) -> None:
        def begin(host: int, count: int) -> list[asyncio.Task[str]]:
            peers = [f"ipv4:10.0.0.{host}:{port}" for port in range(count)]
            return [asyncio.create_task(stage.login("ann", "x", peer)) for peer in peers]

        one = begin(1, 17)
        await asyncio.sleep(0.05)
        refused = [task for task in one if task.done()]
        assert len(refused) == 1, "16 of an address"
        others = [task for host in (2, 3, 4) for task in begin(host, 16)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in others)
        more = begin(5, 1)
        await asyncio.sleep(0.05)
        refused += more
        # Who goes away makes no room before what is under way has ended.
        free.set()
        for task in refused:
            with pytest.raises(EtcdError, match="too many requests"):
                await task
        assert all(await asyncio.gather(*others))
        assert await stage.login("ann", "x")

    try:
        staged(test)
    finally:
        free.set()


def test_changes_at_one_time_are_done_one_after_the_other() -> None:
    async def test(stage: Stage) -> None:
        loop = asyncio.get_running_loop()

        def propose(operation: Any, who: Any, deadline: Any, done: Any, request: Any) -> None:
            loop.call_soon(applied, operation, who, done)

        def applied(operation: Any, who: Any, done: Any) -> None:
            auth = stage.users.auth
            if who.auth_revision != auth.revision:
                done(EtcdError(Reason.AUTH_OLD_REVISION))
                return
            stage.proposed.append(operation)
            changed = Auth(
                enabled=True,
                revision=auth.revision + 1,
                token_key=auth.token_key,
                users=auth.users,
                roles=auth.roles,
            )
            stage.users.become(changed)
            done(AuthAnswer(3))

        cast(Any, stage).propose = propose
        names = [f"role{number}" for number in range(30)]
        await asyncio.gather(
            *(stage.call("RoleAdd", pb.AuthRoleAddRequest(name=name)) for name in names)
        )
        assert stage.proposed == [RoleAdd(name) for name in names]

    staged(test)


def test_changes_of_others_than_root_hold_nobody_up() -> None:
    async def test(stage: Stage) -> None:
        names: list[str] = []
        cast(Any, stage).propose = lambda operation, *asked, **more: names.append(operation.name)
        calls = [
            asyncio.create_task(stage.call("RoleAdd", pb.AuthRoleAddRequest(name=name), name))
            for name in ("ann", "ann", "root")
        ]
        while len(names) < len(calls):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()

    staged(test)


def test_a_change_waits_for_its_turn_as_long_as_the_service_would() -> None:
    async def test(stage: Stage) -> None:
        stage.patience_s = 0.05
        cast(Any, stage).propose = lambda *asked, **more: stage.proposed.append(asked)
        add = pb.AuthRoleAddRequest(name="one")
        first = asyncio.create_task(stage.call("RoleAdd", add))
        while not stage.proposed:
            await asyncio.sleep(0)
        with pytest.raises(EtcdError, match="request timed out"):
            await stage.call("RoleAdd", add)
        first.cancel()
        await asyncio.wait([first])
        # Nobody has the turn any more.
        again = asyncio.create_task(stage.call("RoleAdd", add))
        while len(stage.proposed) < 2:
            await asyncio.sleep(0)
        again.cancel()

    staged(test)
