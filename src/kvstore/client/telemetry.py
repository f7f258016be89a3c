"""What a client tells of its calls, to whom it was given for that.

Nothing of it is in the way of clients that tell nobody: :class:`Calls` itself knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, TypeVar

from kvstore.api.etcd import etcd_pb2
from kvstore.api.v1 import admin_pb2, kv_pb2, session_pb2
from kvstore.client.attempts import Attempts, Metadata
from kvstore.client.calls import Calls, FailedTry
from kvstore.client.options import RetryPolicy
from kvstore.client.servers import Method, Server
from kvstore.client.urls import Target

__all__ = ["Call", "Telemetry", "calls_of", "operation_of"]

Request = TypeVar("Request")
Response = TypeVar("Response")


class Call(Protocol):
    """One call, with all its tries, under way."""

    @property
    def metadata(self) -> Metadata:
        """What each try carries, for servers to link what they tell to it."""

    def many(self, operations: int) -> None:
        """It is about so many keys."""

    def ended(self, address: str, tries: int) -> None:
        """It has ended, well or not, after so many tries, the last of which went there."""


class Telemetry(Protocol):
    """Who is told: :class:`kvstore.client.otel.OpenTelemetry`."""

    def call(self, operation: str) -> AbstractContextManager[Call]:
        """Entered as a call begins, and left, by its error if it has one, when it has ended."""


# By the kind of request. Others are named by it: AuthUserAddRequest is auth_user_add.
_OPERATIONS: Final[dict[type[object], str]] = {
    kv_pb2.PutRequest: "put",
    kv_pb2.GetRequest: "get",
    kv_pb2.DeleteRequest: "delete",
    session_pb2.OpenSessionRequest: "open_session",
    admin_pb2.StatusRequest: "status",
    admin_pb2.MembersRequest: "members",
    etcd_pb2.RangeRequest: "range",
    etcd_pb2.DeleteRangeRequest: "delete_range",
    etcd_pb2.TxnRequest: "txn",
    etcd_pb2.CompactionRequest: "compact",
    etcd_pb2.LeaseLeasesRequest: "leases",
    list: "lease_renew",
}


def operation_of(request: object) -> str:
    """What a call is, in a word or two."""
    if isinstance(request, etcd_pb2.RangeRequest) and request.count_only:
        return "count"
    kind = type(request)
    name = _OPERATIONS.get(kind)
    if name is None:
        words = kind.__name__.removesuffix("Request")
        name = "".join(f"_{one.lower()}" if one.isupper() else one for one in words).lstrip("_")
        _OPERATIONS[kind] = name
    return name


class ToldCalls(Calls):
    """Calls of which somebody is told."""

    def __init__(
        self, target: Target, *, retry: RetryPolicy | None, telemetry: Telemetry, **options: Any
    ) -> None:
        super().__init__(target, retry=retry, **options)
        self._telemetry = telemetry

    carries_context = True

    def told(self, operation: str) -> AbstractContextManager[Call]:
        return self._telemetry.call(operation)

    async def tried(
        self,
        method: Callable[[Server], Method[Request, Response]],
        request: Request,
        attempts: Attempts,
        failed: FailedTry | None = None,
        number: Metadata = (),
    ) -> Response:
        with self._telemetry.call(operation_of(request)) as call:
            before = attempts.tries
            try:
                number = (*number, *call.metadata)
                return await super().tried(method, request, attempts, failed, number)
            finally:
                call.ended(attempts.address, attempts.tries - before)


def calls_of(
    target: Target,
    retry: RetryPolicy | None,
    telemetry: Telemetry | None,
    dial: Callable[[str], Any] | None = None,
) -> Calls:
    """What a client has to its servers."""
    if telemetry is None:
        return Calls(target, retry=retry, dial=dial)
    return ToldCalls(target, retry=retry, telemetry=telemetry, dial=dial)
