"""Who may do what by kvstore.v1, call by call and in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from kvstore.api.handlers.calls import Calls
from kvstore.api.handlers.failures import failure_of
from kvstore.api.handlers.guard import Guard
from kvstore.api.handlers.kv_batches import KVBatches
from kvstore.errors import Error, NotLeaderError, UnavailableError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.operations import Delete, Get, Method, OpenSession, Operation, Put
from kvstore.state.mvcc.requests import PermissionKind
from tests.unit.api.auth_gates import Caller, Users, users_of

PEOPLE = users_of(
    {"ann": ["one"], "bob": []},
    {"one": [(PermissionKind.READ, b"r", b""), (PermissionKind.WRITE, b"w", b"")]},
)

CASES = [
    ("ann", Get(b"r"), None),
    ("ann", Get(b"w"), Reason.PERMISSION_DENIED),
    ("ann", Put(b"w", b"v", b"id"), None),
    ("ann", Put(b"r", b"v", b"id"), Reason.PERMISSION_DENIED),
    ("ann", Delete(b"w", b"id"), None),
    ("ann", Delete(b"r", b"id"), Reason.PERMISSION_DENIED),
    ("bob", Get(b"r"), Reason.PERMISSION_DENIED),
    ("bob", OpenSession(), None),
    ("root", Put(b"anything", b"v", b"id"), None),
    ("nobody", Get(b"r"), Reason.USER_EMPTY),
    ("nobody", Put(b"w", b"v", b"id"), Reason.USER_EMPTY),
    ("nobody", OpenSession(), Reason.USER_EMPTY),
    ("forged", Get(b"r"), Reason.INVALID_AUTH_TOKEN),
    ("certificate of ann", Get(b"r"), None),
    ("certificate of eve", Get(b"r"), Reason.PERMISSION_DENIED),
    ("certificate of eve", OpenSession(), Reason.PERMISSION_DENIED),
    ("socket", Get(b"anything"), None),
]


class Stage:
    """A guard, and a service that notes what it is given. ``route``: as a node's."""

    def __init__(self) -> None:
        self.users = Users(PEOPLE)
        self.route: Any = object()
        self.has_replica = True
        self.guard = Guard(
            lambda: cast(Any, self.users) if self.has_replica else None,
            lambda: self.route,
            self.users.tokens,
        )
        self.taken: list[Any] = []

    def caller(self, who: str) -> Caller:
        match who.split():
            case ["nobody"]:
                return Caller()
            case ["forged"]:
                return Caller(("token", "forged"))
            case ["socket"]:
                return Caller(peer="unix:")
            case ["certificate", _, name]:
                return Caller(name=name.encode())
            case _:
                return Caller(("token", self.users.token(who)))

    # A Service.

    def submit(self, operations: Any, deadline: float, done: Callable[[Any], None]) -> None:
        self.taken += operations
        done([True])

    def take(self, calls: list[Any], answered: Callable[[Any, Any], None]) -> None:
        self.taken += calls
        answered(calls, [True] * len(calls))


class Hot:
    """A call of a batch."""

    deadline = 0.0
    age_s = None
    value = b""
    request_id = b""

    def __init__(self, operation: Operation, caller: Caller) -> None:
        self.caller = caller
        self.metadata = caller.invocation_metadata()
        self.method = {Put: Method.PUT, Get: Method.GET, Delete: Method.DELETE}[type(operation)]
        self.key: bytes = cast(Any, operation).key
        self.failure: tuple[int, str] | None = None
        self.is_done = False

    def fail(self, status: int, details: str, trailer: Any = ()) -> None:
        self.failure = status, details


class Front:
    """Where a batch's calls are answered."""

    def answer(self, calls: list[Hot], results: list[Any]) -> list[int]:
        for call, result in zip(calls, results, strict=True):
            call.is_done = not isinstance(result, Error)
        return [place for place, result in enumerate(results) if isinstance(result, Error)]

    def end(self, call: Hot, answer: Callable[[Hot], None]) -> None:
        answer(call)

    def caller(self, call: Hot) -> tuple[Any, str]:
        return call.caller.auth_context(), call.caller.peer()


async def one_by_one(stage: Stage, operation: Operation, caller: Caller) -> Error | None:
    calls = Calls(cast(Any, stage), guard=stage.guard)
    result = await calls.result(operation, cast(Any, caller))
    return result if isinstance(result, Error) else None


@pytest.mark.parametrize(("who", "operation", "reason"), CASES)
def test_calls_one_by_one(who: str, operation: Operation, reason: Reason | None) -> None:
    async def test() -> None:
        stage = Stage()
        refusal = await one_by_one(stage, operation, stage.caller(who))
        assert (refusal.reason if isinstance(refusal, EtcdError) else refusal) is reason
        assert stage.taken == ([] if reason else [operation])

    asyncio.run(test())


def test_a_batch_is_judged_call_by_call() -> None:
    async def test() -> None:
        stage = Stage()
        batches = KVBatches(cast(Any, stage), guard=stage.guard)
        batches.answered_by(cast(Any, Front()))
        cases = [case for case in CASES if not isinstance(case[1], OpenSession)]
        calls = [Hot(operation, stage.caller(who)) for who, operation, _ in cases]
        batches.take(cast(Any, calls))
        for call, (who, operation, reason) in zip(calls, cases, strict=True):
            assert call.is_done == (reason is None), (who, operation)
            assert (call.failure and call.failure[1]) == (reason and reason.text), (who, operation)
        assert stage.taken == [call for call in calls if call.is_done]

    asyncio.run(test())


@pytest.mark.parametrize("is_known", [True, False])
def test_nothing_is_judged_while_nobody_is_asked_for(is_known: bool) -> None:
    async def test() -> None:
        stage = Stage()
        stage.users.become(users_of({}, enabled=False))
        stage.has_replica = is_known
        assert await one_by_one(stage, Get(b"k"), Caller(("token", "of somebody else"))) is None
        batches = KVBatches(cast(Any, stage), guard=stage.guard)
        batches.answered_by(cast(Any, Front()))
        call = Hot(Get(b"k"), Caller())
        batches.take(cast(Any, [call]))
        assert call.is_done

    asyncio.run(test())


@pytest.mark.parametrize("where", [NotLeaderError(2, "b:1"), UnavailableError("no leader")])
def test_another_member_judges_where_another_one_leads(where: Error) -> None:
    """And nothing is handed to a service that may lead by the time that it does it."""

    async def test() -> None:
        stage = Stage()
        stage.route = where
        for who in ("nobody", "ann"):
            assert await one_by_one(stage, Get(b"r"), stage.caller(who)) is where
        batches = KVBatches(cast(Any, stage), guard=stage.guard)
        batches.answered_by(cast(Any, Front()))
        call = Hot(Get(b"r"), stage.caller("ann"))
        batches.take(cast(Any, [call]))
        assert call.failure is not None
        assert not stage.taken

    asyncio.run(test())


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((("kvstore-common-name-bin", b"ann"),), None),
        ((), Reason.USER_EMPTY),
    ],
)
def test_what_members_pass_on_is_judged_by_what_they_say(
    metadata: Any, reason: Reason | None
) -> None:
    """The certificate of such a call is the member's own, and its user nobody's."""
    stage = Stage()
    refusal = stage.guard.of_forwarded().refusal(Get(b"r"), Caller(*metadata, name=b"root"))
    assert (refusal.reason if isinstance(refusal, EtcdError) else refusal) is reason
    # From a client that says so itself it is worth nothing.
    refusal = stage.guard.refusal(Get(b"r"), Caller(*metadata))
    assert isinstance(refusal, EtcdError)
    assert refusal.reason is Reason.USER_EMPTY


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.USER_EMPTY, "UNAUTHENTICATED"),
        (Reason.INVALID_AUTH_TOKEN, "UNAUTHENTICATED"),
        (Reason.AUTH_OLD_REVISION, "UNAUTHENTICATED"),
        (Reason.PERMISSION_DENIED, "PERMISSION_DENIED"),
    ],
)
def test_a_refused_call_was_not_applied(reason: Reason, code: str) -> None:
    failure = failure_of(EtcdError(reason))
    assert (failure.code.name, failure.details) == (code, reason.text)
    assert dict(failure.trailer)["kvstore-outcome"] == "not-applied"
