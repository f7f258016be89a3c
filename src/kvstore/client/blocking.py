"""The client for threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self, TypeVar

import grpc

from kvstore.api.v1 import admin_pb2, admin_pb2_grpc, kv_pb2, kv_pb2_grpc
from kvstore.client.attempts import Attempts, Endpoints
from kvstore.client.failure import understand
from kvstore.client.options import (
    CHANNEL_OPTIONS,
    DEFAULT_ADDRESS,
    DEFAULT_TIMEOUT_S,
    TLS,
    RetryPolicy,
    checked_timeout,
    parse_addresses,
)
from kvstore.client.requests import BytesLike, delete_request, get_request, put_request
from kvstore.client.status import ClusterStatus, Members
from kvstore.errors import ClosedError

Request = TypeVar("Request", contravariant=True)
Response = TypeVar("Response", covariant=True)


class _Method(Protocol[Request, Response]):
    """One RPC of a stub."""

    def __call__(self, request: Request, *, timeout: float | None) -> Response: ...


class _Server:
    """The connection to one address."""

    __slots__ = ("admin", "channel", "kv")

    def __init__(self, address: str, tls: TLS | None) -> None:
        if tls is None:
            self.channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        else:
            self.channel = grpc.secure_channel(
                address, tls.credentials(), options=CHANNEL_OPTIONS + tls.channel_options()
            )
        self.kv = kv_pb2_grpc.KVStub(self.channel)
        self.admin = admin_pb2_grpc.AdminStub(self.channel)


class Client:
    """A kvd, or a cluster of them, as seen from ordinary threads.

    ``addresses`` is one ``host:port``, several separated by commas, or a list. The client finds the
    leader among them, follows leader hints, and tries a call that failed for a passing reason again
    until ``timeout`` seconds are over. Each write carries a request id that stays the same over all
    tries, so it is applied once however often it was sent.

    Any number of threads may use one client. Connections are made on first use.

    >>> with Client("127.0.0.1:50051") as client:
    ...     client.put(b"colour", b"green")
    ...     client.get(b"colour")
    False
    b'green'
    """

    def __init__(
        self,
        addresses: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        tls: TLS | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Raises ConfigurationError for a malformed address or an unreadable PEM file."""
        self._endpoints = Endpoints(parse_addresses(addresses))
        self._tls = tls
        self._timeout = checked_timeout(timeout, timeout)
        self._retry = retry or RetryPolicy()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._servers: dict[str, _Server] = {}
        self._server(self._endpoints.preferred)  # unreadable PEM files are told now, not later

    def put(
        self,
        key: BytesLike,
        value: BytesLike,
        *,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Store ``value`` (up to 1 MiB) under ``key`` (1 to 1,024 bytes).

        Returns True if the key had a value before. When this returns, the write is on the disks of
        a majority. Give a ``request_id`` (1 to 4,096 bytes of UTF-8) to retry a write of an earlier
        client or process; without one, a fresh id is made.

        Raises InvalidArgumentError, UnavailableError or NotLeaderError (no leader found in time),
        DeadlineExceededError, StorageError, ClosedError. After all but the first, the write may
        have been applied or may yet be; the same ``request_id`` makes trying again safe.
        """
        request = put_request(key, value, request_id)
        return self._call(_put, request, timeout).overwritten

    def get(self, key: BytesLike, *, timeout: float | None = None) -> bytes | None:
        """Return the newest value of ``key``, None if it has none. Linearizable.

        Raises as :meth:`put` does.
        """
        response = self._call(_get, get_request(key), timeout)
        return response.value if response.found else None

    def delete(
        self, key: BytesLike, *, request_id: str | None = None, timeout: float | None = None
    ) -> bool:
        """Remove ``key``; True if it had a value. Raises as :meth:`put` does."""
        return self._call(_delete, delete_request(key, request_id), timeout).deleted

    def status(self, *, timeout: float | None = None) -> ClusterStatus:
        """Return what the server knows of itself and its members."""
        answer = self._call(_status, admin_pb2.StatusRequest(), timeout)
        return ClusterStatus.from_message(answer)

    def members(self, *, timeout: float | None = None) -> Members:
        """Return who belongs to the cluster. Raises as :meth:`put` does."""
        answer = self._call(_members, admin_pb2.MembersRequest(), timeout)
        return Members.from_message(answer)

    def add_member(
        self,
        member_id: int,
        client_address: str,
        peer_address: str,
        *,
        timeout: float | None = None,
    ) -> Members:
        """Add a member under an id never used, as a learner. Returns when that is committed.

        Raises InvalidArgumentError for an id or address that is taken, UnavailableError while
        another change is under way, and as :meth:`put` does.
        """
        new = admin_pb2.Member(
            member_id=member_id, client_address=client_address, peer_address=peer_address
        )
        return self._change(admin_pb2.ChangeMembersRequest(add=new), timeout)

    def promote_member(
        self, member_id: int, *, force: bool = False, timeout: float | None = None
    ) -> Members:
        """Let a learner vote.

        Raises UnavailableError while it lacks too much of the log or wasn't heard from lately, or
        when no majority of the voters to be was; with ``force`` it is done all the same.
        """
        return self._change(admin_pb2.ChangeMembersRequest(promote=member_id, force=force), timeout)

    def remove_member(
        self, member_id: int, *, force: bool = False, timeout: float | None = None
    ) -> Members:
        """Take a member out for good: its id can't be used again.

        Raises UnavailableError when no majority of the voters that stay was heard from lately;
        with ``force`` it is done all the same.
        """
        return self._change(admin_pb2.ChangeMembersRequest(remove=member_id, force=force), timeout)

    def _change(self, request: admin_pb2.ChangeMembersRequest, timeout: float | None) -> Members:
        return Members.from_message(self._call(_change_members, request, timeout))

    def forget_introduction(self, member_id: int, *, timeout: float | None = None) -> bool:
        """Let the member that answers forget what it remembers of another one's data directory.

        Returns whether there was anything. For when it refuses a member whose directory is whole.
        """
        request = admin_pb2.ForgetIntroductionRequest(member_id=member_id)
        return (self._call(_forget_introduction, request, timeout)).known

    def transfer_leadership(self, to: int = 0, *, timeout: float | None = None) -> int:
        """Hand leadership to a voter (0: the one that is furthest); returns who leads then."""
        request = admin_pb2.TransferLeadershipRequest(to=to)
        return (self._call(_transfer_leadership, request, timeout)).leader_id

    def save_snapshot(
        self, *, stale: bool = False, timeout: float | None = None
    ) -> Iterator[bytes]:
        """Yield a backup file of the member that answers, piece by piece (docs/storage-format.md).

        It holds every write that was acknowledged, to anyone, before the call. With ``stale`` it is
        what that member has, for when a majority is lost. ``timeout`` bounds finding a member that
        can begin, not the transfer; members are only changed before the first piece.

        Raises CorruptionError when the member's data is damaged, and as :meth:`put` does.
        """
        attempts = Attempts(self._endpoints, self._retry, checked_timeout(timeout, self._timeout))
        request = admin_pb2.SaveSnapshotRequest(stale=stale)
        begun = False
        while True:
            attempts.next()
            try:
                for response in self._server(attempts.address).admin.SaveSnapshot(request):
                    begun = True
                    yield response.data
                return
            except grpc.RpcError as error:
                if self._closed.is_set():
                    raise ClosedError("the client was closed during the call") from error
                failure = understand(error)
                if begun:
                    raise failure.error from error
                delay = attempts.failed(failure)
            except ValueError as error:  # what gRPC raises for a channel that close() has closed
                if self._closed.is_set():
                    raise ClosedError("the client was closed during the call") from error
                raise
            self._closed.wait(delay)

    def close(self) -> None:
        """Close all connections. Calls under way fail with ClosedError; closing twice is fine."""
        self._closed.set()
        with self._lock:
            servers, self._servers = self._servers, {}
        for server in servers.values():
            server.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _server(self, address: str) -> _Server:
        with self._lock:
            if self._closed.is_set():
                raise ClosedError("the client is closed")
            server = self._servers.get(address)
            if server is None:
                server = self._servers[address] = _Server(address, self._tls)
            return server

    def _call(
        self,
        method: Callable[[_Server], _Method[Request, Response]],
        request: Request,
        timeout: float | None,
    ) -> Response:
        """Try until it works, can't work or the time is up."""
        timeout = checked_timeout(timeout, self._timeout)
        attempts = Attempts(self._endpoints, self._retry, timeout)
        while True:
            time_left = attempts.next()
            server = self._server(attempts.address)
            try:
                return method(server)(request, timeout=time_left)
            except grpc.RpcError as error:
                if self._closed.is_set():
                    raise ClosedError("the client was closed during the call") from error
                delay = attempts.failed(understand(error))
            except ValueError as error:  # what gRPC raises for a channel that close() has closed
                if self._closed.is_set():
                    raise ClosedError("the client was closed during the call") from error
                raise
            self._closed.wait(delay)


def _put(server: _Server) -> _Method[kv_pb2.PutRequest, kv_pb2.PutResponse]:
    return server.kv.Put


def _get(server: _Server) -> _Method[kv_pb2.GetRequest, kv_pb2.GetResponse]:
    return server.kv.Get


def _delete(server: _Server) -> _Method[kv_pb2.DeleteRequest, kv_pb2.DeleteResponse]:
    return server.kv.Delete


def _status(server: _Server) -> _Method[admin_pb2.StatusRequest, admin_pb2.StatusResponse]:
    return server.admin.Status


def _members(server: _Server) -> _Method[admin_pb2.MembersRequest, admin_pb2.MembersResponse]:
    return server.admin.Members


def _change_members(
    server: _Server,
) -> _Method[admin_pb2.ChangeMembersRequest, admin_pb2.MembersResponse]:
    return server.admin.ChangeMembers


def _forget_introduction(
    server: _Server,
) -> _Method[admin_pb2.ForgetIntroductionRequest, admin_pb2.ForgetIntroductionResponse]:
    return server.admin.ForgetIntroduction


def _transfer_leadership(
    server: _Server,
) -> _Method[admin_pb2.TransferLeadershipRequest, admin_pb2.TransferLeadershipResponse]:
    return server.admin.TransferLeadership
