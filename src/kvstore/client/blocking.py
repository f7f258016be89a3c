"""The client for threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Protocol, Self, TypeVar

import grpc

from kvstore.addresses import is_unix
from kvstore.api.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    kv_pb2,
    kv_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
)
from kvstore.client.attempts import Attempts, Endpoints, Metadata
from kvstore.client.connections import Connections
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
from kvstore.client.sessions import PlainWrite, Sessions, SessionWrite, Write
from kvstore.client.status import ClusterStatus, Members
from kvstore.errors import (
    ClosedError,
    Error,
    ForgottenError,
    InvalidArgumentError,
    Outcome,
    Refusal,
    ResourceExhaustedError,
    UnsupportedError,
)

Request = TypeVar("Request", contravariant=True)
WriteRequest = TypeVar("WriteRequest", kv_pb2.PutRequest, kv_pb2.DeleteRequest)
Response = TypeVar("Response", covariant=True)


_CLOSED = "the client was closed during the call"


class _Method(Protocol[Request, Response]):
    """One RPC of a stub."""

    def __call__(
        self, request: Request, *, timeout: float | None, metadata: Metadata | None
    ) -> Response: ...


class _Server:
    """The connection to one address."""

    __slots__ = ("admin", "channel", "kv", "sessions")

    def __init__(self, address: str, tls: TLS | None) -> None:
        if tls is None or is_unix(address):
            self.channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        else:
            self.channel = grpc.secure_channel(
                address, tls.credentials(), options=CHANNEL_OPTIONS + tls.channel_options()
            )
        self.kv = kv_pb2_grpc.KVStub(self.channel)
        self.sessions = session_pb2_grpc.SessionsStub(self.channel)
        self.admin = admin_pb2_grpc.AdminStub(self.channel)


class Client:
    """A kvd, or a cluster of them, as seen from ordinary threads.

    ``addresses`` is one ``host:port``, several separated by commas, or a list. The client finds the
    leader among them, follows leader hints, and tries a call that failed for a passing reason again
    until ``timeout`` seconds are over. Its writes belong to a session, which the first of them
    opens, and are applied at most once however often they are sent; where a server can't know any
    more whether an earlier try was applied, it refuses the next one, and the call ends with that.

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
        self._timeout = checked_timeout(timeout, timeout)
        self._retry = retry or RetryPolicy()
        self._closed = threading.Event()
        self._connections = Connections(partial(_Server, tls=tls), tls)
        self._sessions = Sessions()
        # Unreadable PEM files are told now, not later.
        self._connections.give_back(self._connections.take(self._endpoints.preferred))

    def put(
        self,
        key: BytesLike,
        value: BytesLike,
        *,
        request_id: str | None = None,
        retry: bool = False,
        timeout: float | None = None,
    ) -> bool:
        """Store ``value`` (up to 1 MiB) under ``key`` (1 to 1,024 bytes).

        Returns True if the key had a value before. When this returns, the write is on the disks of
        a majority. Without a ``request_id`` the write is the client's session's, and applied at
        most once whatever happens. With one (1 to 4,096 bytes of UTF-8) a later client or process
        can try again: ``retry`` says that this is done, so that the server refuses what it may have
        forgotten, and doesn't take it for new.

        Raises InvalidArgumentError, UnavailableError or NotLeaderError (no leader found in time),
        DeadlineExceededError, StorageError, ClosedError, ForgottenError (nobody knows any more
        whether it was applied). ``outcome`` of the error says whether the write was not applied, or
        may have been.
        """
        request = put_request(key, value)
        return self._write(_put, request, request_id, retry, timeout).overwritten

    def get(self, key: BytesLike, *, timeout: float | None = None) -> bytes | None:
        """Return the newest value of ``key``, None if it has none. Linearizable.

        Raises as :meth:`put` does.
        """
        response = self._call(_get, get_request(key), timeout)
        return response.value if response.found else None

    def delete(
        self,
        key: BytesLike,
        *,
        request_id: str | None = None,
        retry: bool = False,
        timeout: float | None = None,
    ) -> bool:
        """Remove ``key``; True if it had a value. Arguments and errors as of :meth:`put`."""
        request = delete_request(key)
        return self._write(_delete, request, request_id, retry, timeout).deleted

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
            connection = self._connections.take(attempts.address)
            try:
                for response in connection.server.admin.SaveSnapshot(request):
                    begun = True
                    yield response.data
                return
            except grpc.RpcError as error:
                if self._closed.is_set():
                    raise ClosedError(_CLOSED) from error
                failure = understand(error)
                if begun:
                    raise failure.error from error
                self._connections.failed(connection, failure)
                delay = attempts.failed(failure)
            except ValueError as error:  # what gRPC raises for a channel that close() has closed
                if self._closed.is_set():
                    raise ClosedError(_CLOSED) from error
                raise
            finally:
                left = self._connections.give_back(connection)
                if left is not None:
                    left.channel.close()
            self._closed.wait(delay)

    def close(self) -> None:
        """Close all connections. Calls under way fail with ClosedError; closing twice is fine."""
        self._closed.set()
        for server in self._connections.close():
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

    def _call(
        self,
        method: Callable[[_Server], _Method[Request, Response]],
        request: Request,
        timeout: float | None,
    ) -> Response:
        """Try until it works, can't work or the time is up."""
        timeout = checked_timeout(timeout, self._timeout)
        return self._try(method, request, Attempts(self._endpoints, self._retry, timeout))

    def _write(
        self,
        method: Callable[[_Server], _Method[WriteRequest, Response]],
        request: WriteRequest,
        request_id: str | None,
        retry: bool,
        timeout: float | None,
    ) -> Response:
        """The same for a write, which gets its id here."""
        timeout = checked_timeout(timeout, self._timeout)
        if retry and request_id is None:
            raise InvalidArgumentError("retry needs the request_id that was sent before")
        attempts = Attempts(self._endpoints, self._retry, timeout, writes=True, sent_before=retry)
        while True:
            write = self._numbered(attempts) if request_id is None else PlainWrite(request_id)
            request.request_id = write.request_id
            try:
                return self._try(method, request, attempts)
            except ForgottenError as error:
                if not self._may_renew(write, error):
                    raise
                attempts.renew()
            finally:
                write.done()

    def _may_renew(self, write: Write, error: ForgottenError) -> bool:
        """Whether the write, which a session that has expired numbered, may have another id."""
        if error.refusal is not Refusal.SESSION_EXPIRED or not isinstance(write, SessionWrite):
            return False
        self._sessions.expired(write.session)
        return error.outcome is Outcome.NOT_APPLIED

    def _numbered(self, attempts: Attempts) -> Write:
        """Give a write its id; opens a session where there is none."""
        if self._sessions.claim():
            opened = None
            refused = False
            try:
                opened = self._try(_open, session_pb2.OpenSessionRequest(), attempts)
            except (ResourceExhaustedError, UnsupportedError):
                refused = True
            except Error as error:
                # Whatever became of the session, the write was not sent.
                error.outcome = Outcome.NOT_APPLIED
                raise
            finally:
                self._sessions.opened(opened, refused=refused)
                attempts.renew()
        return self._sessions.begin()

    def _try(
        self,
        method: Callable[[_Server], _Method[Request, Response]],
        request: Request,
        attempts: Attempts,
    ) -> Response:
        while True:
            time_left = attempts.next()
            connection = self._connections.take(attempts.address)
            try:
                method_there = method(connection.server)
                response = method_there(request, timeout=time_left, metadata=attempts.metadata())
                connection.answered()
                attempts.succeeded()
                return response
            except grpc.RpcError as error:
                if self._closed.is_set():
                    raise attempts.ended(ClosedError(_CLOSED)) from error
                failure = understand(error)
                self._connections.failed(connection, failure, time_left)
                delay = attempts.failed(failure)
            except ValueError as error:  # what gRPC raises for a channel that close() has closed
                if self._closed.is_set():
                    raise attempts.ended(ClosedError(_CLOSED)) from error
                raise
            finally:
                left = self._connections.give_back(connection)
                if left is not None:
                    left.channel.close()
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


def _open(
    server: _Server,
) -> _Method[session_pb2.OpenSessionRequest, session_pb2.OpenSessionResponse]:
    return server.sessions.Open
