"""Who calls, by what a call says of that, and which methods are for whom."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from operator import attrgetter
from typing import Any, cast

import pytest

from kvstore.api.etcd.methods import SERVICES
from kvstore.api.handlers.etcd.asking import TRIES_MAX, Asking
from kvstore.api.handlers.etcd.auth_callers import Identity, forwarded_identity, identity_of
from kvstore.api.handlers.etcd.auth_gate import is_user
from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd import EtcdService
from kvstore.state.mvcc.answers import RangeAnswer
from kvstore.state.mvcc.requests import Authenticated, PermissionKind, Put, Range, Txn
from tests.unit.api.auth_gates import Caller, Users, users_of

READ, WRITE = PermissionKind.READ, PermissionKind.WRITE

PEOPLE = users_of(
    {"ann": ["reader"], "bob": []}, {"reader": [(READ, b"a", b"c"), (WRITE, b"x", b"")]}
)

TCP = "ipv4:127.0.0.1:1"


def played(play: Callable[[Users], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await play(Users(PEOPLE))

    asyncio.run(main())


# --- who calls -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "name", "peer", "identity"),
    [
        ((), b"", TCP, Identity(None)),
        ((("token", "t"),), b"", TCP, Identity("t")),
        ((("authorization", "t"),), b"", TCP, Identity("t")),
        ((("authorization", "Bearer t"),), b"", TCP, Identity("t")),
        ((("authorization", "bearer t"),), b"", TCP, Identity("t")),
        ((("token", "t"), ("authorization", "u")), b"", TCP, Identity("t")),
        ((("token", ""),), b"ann", TCP, Identity("")),
        ((), b"ann", TCP, Identity(None, "ann")),
        ((("token", "t"),), b"ann", TCP, Identity("t")),
        # A gateway's certificate isn't its callers'; nor is anybody root who comes by one.
        ((("grpcgateway-accept", "*/*"),), b"ann", TCP, Identity(None)),
        ((("grpcgateway-accept", "*/*"),), b"", "unix:", Identity(None)),
        ((("grpcgateway-accept", "*/*"), ("token", "t")), b"ann", TCP, Identity("t")),
        ((), b"", "unix:", Identity(None, "root")),
        ((("token", "t"),), b"", "unix:", Identity("t")),
        # What members say to each other is nobody else's to say.
        ((("kvstore-common-name-bin", b"root"),), b"", TCP, Identity(None)),
    ],
)
def test_a_call_says_whose_it_is_by(
    metadata: Any, name: bytes, peer: str, identity: Identity
) -> None:
    proved = {"x509_common_name": [name]} if name else {}
    assert identity_of(metadata, proved, peer) == identity


@pytest.mark.parametrize(
    ("metadata", "identity"),
    [
        ((), Identity(None)),
        ((("kvstore-common-name-bin", b"ann"),), Identity(None, "ann")),
        ((("token", "t"), ("kvstore-common-name-bin", b"ann")), Identity("t")),
    ],
)
def test_a_call_that_a_member_passes_on_says_it_too(metadata: Any, identity: Identity) -> None:
    assert forwarded_identity(metadata) == identity


def test_a_call_that_lasts_stays_its_users() -> None:
    async def play(users: Users) -> None:
        caller = users.gate.caller(Caller(("token", users.token("ann"))))
        assert caller.user(PEOPLE) == "ann"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("kvstore.service.etcd.auth_tokens.TOKEN_TTL_S", 0.0)
            assert caller.user(users_of({"ann": []}, revision=9)) == "ann"
            without = users_of({"bob": []}, revision=10)
            with pytest.raises(EtcdError, match="invalid auth token"):
                caller.user(without)

    played(play)


# --- which methods are for whom ------------------------------------------------------------------

OF_USERS = {
    "/etcdserverpb.Cluster/MemberList",
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Maintenance/Status",
}
JUDGED_LATER = ("KV", "Watch", "Lease", "Auth", "Lock", "Election")


@pytest.mark.parametrize(
    "shape",
    [shape for methods in SERVICES.values() for shape in methods.values()],
    ids=attrgetter("path"),
)
def test_every_method_is_for_root_unless_it_is_for_others(shape: Any) -> None:
    users = Users(PEOPLE)
    contexts = {
        "nobody": Caller(),
        "forged": Caller(("token", "x")),
        "stranger": Caller(name=b"stranger"),
        "bob": Caller(("token", users.token("bob"))),
        "root": Caller(("token", users.token("root"))),
    }
    everybody = {*contexts}

    def let_in(users: Users) -> set[str]:
        found = set()
        for who in everybody:
            with contextlib.suppress(EtcdError):
                asyncio.run(users.gate.admit(shape, contexts[who]))
                found.add(who)
        return found

    if shape.service.rpartition(".")[2] in JUDGED_LATER:
        assert let_in(users) == everybody
    else:
        assert let_in(users) == ({"bob", "root"} if shape.path in OF_USERS else {"root"})
    assert let_in(Users()) == everybody, "nobody is asked for"


@pytest.mark.parametrize("method", ["MemberRemove", "MemberList", "Status", "Alarm", "Snapshot"])
def test_what_is_not_for_everybody_waits_for_users_to_be_known(method: str) -> None:
    async def play(users: Users) -> None:
        users.machine = None
        shape = next(methods[method] for methods in SERVICES.values() if method in methods)
        with pytest.raises(EtcdError, match="no leader"):
            await users.gate.admit(shape, Caller())

    played(play)


# --- a member that lags behind -------------------------------------------------------------------


def test_a_token_that_is_newer_than_this_member_waits_for_it() -> None:
    async def play(users: Users) -> None:
        users.newer = users_of({"ann": [], "eve": []}, revision=9)
        token = users.tokens.make("eve", users.newer)
        calls = [asyncio.create_task(users.gate.who(Caller(("token", token)))) for _ in range(3)]
        await asyncio.sleep(0)
        assert len(users.points) == 1, "one question for all"
        users.reach_point()
        assert await asyncio.gather(*calls) == [Authenticated("eve", 9)] * 3
        assert await users.gate.who(Caller(("token", token))) == Authenticated("eve", 9)
        assert not users.points

    played(play)


def test_a_token_that_only_says_that_it_is_newer_is_refused_then() -> None:
    async def play(users: Users) -> None:
        forged = users.tokens.make("ann", users_of({"ann": []}, revision=2**60))
        users.become(users_of({"ann": [], "bob": []}, revision=8))
        other = Users(users_of({}, revision=8))
        call = asyncio.create_task(other.gate.who(Caller(("token", forged))))
        await asyncio.sleep(0)
        other.reach_point()
        with pytest.raises(EtcdError, match="invalid auth token"):
            await call

    played(play)


def test_a_member_that_cannot_catch_up_says_why() -> None:
    async def play(users: Users) -> None:
        token = users.tokens.make("ann", users_of({"ann": []}, revision=9))
        call = asyncio.create_task(users.gate.who(Caller(("token", token))))
        await asyncio.sleep(0)
        users.reach_point(EtcdError(Reason.TIMED_OUT))
        with pytest.raises(EtcdError, match="request timed out"):
            await call

    played(play)


def test_a_caller_that_goes_away_takes_no_other_along() -> None:
    async def play(users: Users) -> None:
        users.newer = users_of({"ann": []}, revision=9)
        token = users.tokens.make("ann", users.newer)
        gone, stays = (
            asyncio.create_task(users.gate.who(Caller(("token", token)))) for _ in range(2)
        )
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        users.reach_point()
        assert await stays == Authenticated("ann", 9)

    played(play)


# --- what handlers ask ---------------------------------------------------------------------------


class Service:
    """An :class:`EtcdService` that notes proposals and refuses some, and reads nothing."""

    def __init__(self, users: Users) -> None:
        self.users = users
        self.proposed: list[Authenticated | None] = []
        self.refusals: list[Reason] = []
        self.answers = 0

    def propose(
        self,
        operation: Any,
        who: Any,
        deadline: Any,
        done: Callable[[Any], None],
        request: Any = None,
    ) -> None:
        self.proposed.append(who)
        if self.refusals:
            if self.users.newer is not None:
                self.users.become(self.users.newer)
            done(EtcdError(self.refusals.pop(0)))
        else:
            done("done")

    def read(
        self,
        operation: Any,
        serializable: bool,
        deadline: Any,
        done: Callable[[Any], None],
        render: Callable[[Any], Any],
        permit: Callable[[Any], None],
        make: Any,
        gone: Callable[[], bool],
    ) -> None:
        assert not gone()
        try:
            permit(self.users.auth)
        except Error as error:
            done(error)
        else:
            done(render(RangeAnswer(1, (), False, 0)))


def asking_of(users: Users) -> tuple[Asking, Service]:
    service = Service(users)
    return Asking(cast(EtcdService, service), users.gate), service


def test_proposals_say_who_asks() -> None:
    async def play(users: Users) -> None:
        asking, service = asking_of(users)
        context: Any = Caller(("token", users.token("ann")))
        assert await asking.propose(Put(b"x"), context) == "done"
        users.become(users_of({"ann": []}, enabled=False))
        assert await asking.propose(Put(b"x"), context) == "done"
        assert service.proposed == [Authenticated("ann", 7), None]
        users.become(PEOPLE)
        with pytest.raises(EtcdError, match="user name is empty"):
            await asking.propose(Put(b"x"), cast(Any, Caller()))

    played(play)


@pytest.mark.parametrize("overtaken", [Reason.AUTH_OLD_REVISION, Reason.USER_EMPTY])
def test_a_proposal_that_users_changed_before_is_made_anew(overtaken: Reason) -> None:
    async def play(users: Users) -> None:
        before = users_of({"ann": []}, enabled=overtaken is Reason.AUTH_OLD_REVISION)
        context: Any = Caller(("token", users.token("ann")))
        users.become(before)
        users.newer = users_of({"ann": []}, revision=8)
        asking, service = asking_of(users)
        service.refusals = [overtaken]
        assert await asking.propose(Put(b"x"), context) == "done"
        assert service.proposed[1:] == [Authenticated("ann", 8)]

    played(play)


def test_a_proposal_is_made_anew_a_few_times_only() -> None:
    async def play(users: Users) -> None:
        asking, service = asking_of(users)
        service.refusals = [Reason.AUTH_OLD_REVISION] * 2 * TRIES_MAX
        context: Any = Caller(("token", users.token("ann")))
        with pytest.raises(EtcdError, match="revision of auth store is old"):
            await asking.propose(Put(b"x"), context)
        assert len(service.proposed) == TRIES_MAX

    played(play)


@pytest.mark.parametrize(
    ("operation", "is_allowed"),
    [
        (Range(b"a"), True),
        (Range(b"a", b"c"), True),
        (Range(b"a", b"d"), False),
        (Range(b"a", b"\0"), False),
        (Range(b"c"), False),
        (Range(b"c", count_only=True), False),
        (Txn((), (Range(b"a"),), ()), True),
        (Txn((), (Range(b"a"),), (Range(b"c"),)), False),
    ],
)
@pytest.mark.parametrize("serializable", [False, True])
def test_reads_are_judged_where_they_are_read(
    operation: Range | Txn, is_allowed: bool, serializable: bool
) -> None:
    async def play(users: Users) -> None:
        asking, _ = asking_of(users)
        context: Any = Caller(("token", users.token("ann")))

        async def read() -> Any:
            return await asking.read(operation, serializable, context, lambda answer: "read")

        if is_allowed:
            assert await read() == "read"
        else:
            with pytest.raises(EtcdError, match="permission denied"):
                await read()
        users.become(users_of({"ann": []}, enabled=False))
        assert await read() == "read"

    played(play)


# --- calls that last -----------------------------------------------------------------------------


def test_calls_that_last_are_looked_at_when_their_users_rights_change() -> None:
    async def play(users: Users) -> None:
        looked: list[int] = []
        token = users.token("ann")
        lasting = users.gate.keep(
            users.gate.caller(Caller(("token", token))), lambda auth: looked.append(auth.revision)
        )
        permissions = {role: [*found] for role, found in PEOPLE.roles.items()}
        same: Any = {role: [tuple(one) for one in found] for role, found in permissions.items()}
        users.become(users_of({"ann": ["reader"], "bob": []}, same, revision=8))
        users.become(users_of({"ann": ["reader"], "bob": ["reader"]}, same, revision=9))
        assert looked == [8], "from then on it is known what ann may do"
        users.become(users_of({"ann": ["reader"]}, {"reader": []}, revision=10))
        users.become(users_of({"ann": []}, revision=11))
        users.become(users_of({}, revision=12))
        assert looked == [8, 10, 11, 12]
        lasting.end()
        users.become(users_of({"ann": ["reader"]}, same, revision=13))
        assert looked == [8, 10, 11, 12]

    played(play)


def test_a_certificates_name_that_is_no_users_is_no_user() -> None:
    async def play(users: Users) -> None:
        await users.gate.require(Caller(name=b"ann"), is_user)
        with pytest.raises(EtcdError, match="permission denied"):
            await users.gate.require(Caller(name=b"eve"), is_user)

    played(play)
