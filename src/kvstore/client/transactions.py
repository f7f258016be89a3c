"""Transactions: conditions, and what is done at one revision if they hold or if they don't.

What is built here is sent as one call; nothing else comes between its reads and its writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, Self, TypeAlias, overload

from kvstore.api.etcd import etcd_pb2
from kvstore.client.calls import Calls
from kvstore.client.entries import KeyValue, entry_of
from kvstore.client.keys import Compare, KeyRange, Keys, selected_or_key, single
from kvstore.client.requests import NUMBER_MAX, BytesLike, as_bytes, as_lease
from kvstore.errors import AnswerLostError, InternalError, InvalidArgumentError

__all__ = [
    "AsyncTransaction",
    "Delete",
    "DeleteResult",
    "Get",
    "GetResult",
    "LeaseLike",
    "Operation",
    "OperationResult",
    "Put",
    "PutResult",
    "Transaction",
    "TransactionResult",
    "lease_id",
    "succeeds",
]


class HasId(Protocol):
    """A lease."""

    @property
    def id(self) -> int: ...


LeaseLike: TypeAlias = int | HasId


def lease_id(lease: LeaseLike | None) -> int:
    """The id of a lease, 0 for none."""
    if lease is None:
        return 0
    return as_lease(lease if isinstance(lease, int) else lease.id)


class Put:
    """Store ``value`` under ``key``, of ``lease`` if given, else of none; its result is a
    :class:`PutResult`.

    ``previous``: return what there was before.
    """

    __slots__ = ("message",)

    def __init__(
        self,
        key: BytesLike,
        value: BytesLike,
        *,
        lease: LeaseLike | None = None,
        previous: bool = False,
    ) -> None:
        self.message = etcd_pb2.PutRequest(
            key=single(key).key,
            value=as_bytes(value, "value"),
            lease=lease_id(lease),
            prev_kv=previous,
        )


class Get:
    """Read a key, or those of a range; its result is a :class:`GetResult`.

    It sees what was written before it in its transaction.
    """

    __slots__ = ("message",)

    def __init__(
        self,
        key: BytesLike | None = None,
        *,
        start: BytesLike | None = None,
        end: BytesLike | None = None,
        prefix: BytesLike | None = None,
        limit: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
    ) -> None:
        keys = selected_or_key(key, start, end, prefix)
        if not 0 <= limit <= NUMBER_MAX:
            raise InvalidArgumentError(f"a limit is 0 or more, not {limit}")
        self.message = etcd_pb2.RangeRequest(
            key=keys.key,
            range_end=keys.end,
            limit=limit,
            keys_only=keys_only,
            count_only=count_only,
        )


class Delete:
    """Remove a key, or those of a range; its result is a :class:`DeleteResult`.

    ``previous``: return what there was before.
    """

    __slots__ = ("message",)

    def __init__(
        self,
        key: BytesLike | None = None,
        *,
        start: BytesLike | None = None,
        end: BytesLike | None = None,
        prefix: BytesLike | None = None,
        previous: bool = False,
    ) -> None:
        keys = selected_or_key(key, start, end, prefix)
        self.message = etcd_pb2.DeleteRangeRequest(
            key=keys.key, range_end=keys.end, prev_kv=previous
        )


@dataclass(frozen=True, slots=True)
class PutResult:
    """``previous``: what there was, if that was asked for and there was something."""

    revision: int
    previous: KeyValue | None


@dataclass(frozen=True, slots=True)
class GetResult:
    """``count``: how many keys there are in the range, whatever limit was given."""

    entries: tuple[KeyValue, ...]
    count: int

    @property
    def entry(self) -> KeyValue | None:
        """The first, or only, one."""
        return self.entries[0] if self.entries else None

    @property
    def value(self) -> bytes | None:
        """Its value."""
        return self.entries[0].value if self.entries else None


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """``previous``: what there was, by key, if that was asked for."""

    revision: int
    deleted: int
    previous: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """What a transaction came to.

    ``succeeded``: whether its conditions held. ``results``: those of the operations that were
    done, in order; each is found by its operation too: ``result[operation]``.
    """

    succeeded: bool
    revision: int
    results: tuple[OperationResult, ...]
    _done: tuple[Operation, ...] = field(repr=False)

    @overload
    def __getitem__(self, operation: Put) -> PutResult: ...
    @overload
    def __getitem__(self, operation: Get) -> GetResult: ...
    @overload
    def __getitem__(self, operation: Delete) -> DeleteResult: ...
    @overload
    def __getitem__(self, operation: Parts) -> TransactionResult: ...
    def __getitem__(self, operation: Operation) -> OperationResult:
        """The result of an operation. Raises KeyError for one that wasn't done."""
        for done, result in zip(self._done, self.results, strict=True):
            if done is operation:
                return result
        raise KeyError(operation)


class Parts:
    """What a transaction consists of."""

    def __init__(self) -> None:
        self._compares: list[Compare] = []
        self._then: list[Operation] = []
        self._else: list[Operation] = []

    def if_(self, *compares: Compare) -> Self:
        """Add conditions; all of them must hold. Without any they do."""
        for compare in compares:
            if not isinstance(compare, Compare):
                raise TypeError(f"a condition compares a field of keys, not {compare!r}")
        self._compares += compares
        return self

    def then(self, *operations: Operation) -> Self:
        """Add what is done if the conditions hold."""
        self._then += operations
        return self

    def else_(self, *operations: Operation) -> Self:
        """Add what is done if they don't."""
        self._else += operations
        return self

    @property
    def message(self) -> etcd_pb2.TxnRequest:
        """As it is sent."""
        return etcd_pb2.TxnRequest(
            compare=[_compare(compare) for compare in self._compares],
            success=[_request(operation) for operation in self._then],
            failure=[_request(operation) for operation in self._else],
        )

    @property
    def reads_only(self) -> bool:
        """Whether it surely changes nothing."""
        return all(
            isinstance(operation, Get) or (isinstance(operation, Parts) and operation.reads_only)
            for operation in (*self._then, *self._else)
        )

    def result(self, response: etcd_pb2.TxnResponse, revision: int) -> TransactionResult:
        """What the server's answer says. Raises InternalError for one that doesn't fit, and
        AnswerLostError where it can't say it any more."""
        if response.repeated_request:
            return self._repeated(response, revision)
        done = self._then if response.succeeded else self._else
        if len(done) != len(response.responses):
            raise InternalError("the server answered other operations than it was asked to do")
        results = tuple(
            _result(operation, answer, revision)
            for operation, answer in zip(done, response.responses, strict=True)
        )
        return TransactionResult(response.succeeded, revision, results, tuple(done))

    def _repeated(self, response: etcd_pb2.TxnResponse, revision: int) -> TransactionResult:
        """Of one that was done when its answer was lost: puts and deletions say no more than that
        and how many keys went."""
        done = self._then if response.succeeded else self._else
        deletions = sum(isinstance(operation, Delete) for operation in done)
        if not all(map(_says_little, done)) or (deletions > 1 and response.deleted):
            raise AnswerLostError(revision, response.succeeded)
        results = tuple(
            PutResult(revision, None)
            if isinstance(operation, Put)
            else DeleteResult(revision, response.deleted, ())
            for operation in done
        )
        return TransactionResult(response.succeeded, revision, results, tuple(done))


def _says_little(operation: Operation) -> bool:
    """Whether it neither reads nor returns what there was."""
    return isinstance(operation, Put | Delete) and not operation.message.prev_kv


Operation: TypeAlias = Put | Get | Delete | Parts
OperationResult: TypeAlias = PutResult | GetResult | DeleteResult | TransactionResult


class AsyncTransaction(Parts):
    """A transaction being built; see :meth:`kvstore.Client.transaction`."""

    def __init__(self, calls: Calls, timeout: float | None) -> None:
        super().__init__()
        self._calls = calls
        self._timeout = timeout

    async def commit(self) -> TransactionResult:
        """Do it; see :meth:`Transaction.commit`."""
        return await commit(self._calls, self, self._timeout)


class Transaction(Parts):
    """A transaction being built.

    >>> a = client.key(b"a")
    >>> read = Get(b"b")
    >>> result = client.transaction().if_(a.mod_revision == 3).then(Put(b"a", b"1"), read).commit()
    >>> if result.succeeded:
    ...     print(result[read].value)

    One may be an operation of another, and is then done in its place.
    """

    def __init__(
        self, do: Callable[[Parts, float | None], TransactionResult], timeout: float | None
    ) -> None:
        super().__init__()
        self._do = do
        self._timeout = timeout

    def commit(self) -> TransactionResult:
        """Do it, all at one revision.

        It is done at most once, however often it must be sent. Raises AnswerLostError when it was
        done and what it has read can't be told any more. Raises OutcomeUnknownError when nobody
        knows whether it was done, of a server that isn't kvd: it is sent again only while it
        surely wasn't. Raises InvalidArgumentError for more than 128 operations or
        conditions, or a key that is written twice; LeaseNotFoundError; and as ``put`` does.
        """
        return self._do(self, self._timeout)


async def commit(calls: Calls, parts: Parts, timeout: float | None) -> TransactionResult:
    """Send a transaction."""
    send = calls.call if parts.reads_only else calls.operate
    response = await send(lambda server: server.etcd.txn, parts.message, timeout)
    return parts.result(response, response.header.revision)


async def put_with_lease(
    calls: Calls, key: BytesLike, value: BytesLike, lease: LeaseLike, timeout: float | None
) -> bool:
    """Store a key that goes with its lease; whether it had a value before."""
    parts = Parts().if_(Keys(single(key)).absent())
    parts.then(Put(key, value, lease=lease)).else_(Put(key, value, lease=lease))
    return not (await commit(calls, parts, timeout)).succeeded


async def succeeds(calls: Calls, parts: Parts, timeout: float | None) -> bool:
    """Send a transaction; whether its conditions held."""
    try:
        return (await commit(calls, parts, timeout)).succeeded
    except AnswerLostError as lost:
        return lost.succeeded


async def delete_range(
    calls: Calls, keys: KeyRange, previous: bool, timeout: float | None
) -> DeleteResult:
    """Remove keys."""
    request = etcd_pb2.DeleteRangeRequest(key=keys.key, range_end=keys.end, prev_kv=previous)
    response = await calls.operate(lambda server: server.etcd.delete_range, request, timeout)
    if response.repeated_request and previous and response.deleted:
        raise AnswerLostError(response.header.revision, True)
    return delete_result(response, response.header.revision)


_TARGETS: Final = {
    "version": etcd_pb2.Compare.VERSION,
    "create_revision": etcd_pb2.Compare.CREATE,
    "mod_revision": etcd_pb2.Compare.MOD,
    "lease": etcd_pb2.Compare.LEASE,
    "value": etcd_pb2.Compare.VALUE,
}
_RELATIONS: Final = {
    "==": etcd_pb2.Compare.EQUAL,
    "!=": etcd_pb2.Compare.NOT_EQUAL,
    "<": etcd_pb2.Compare.LESS,
    ">": etcd_pb2.Compare.GREATER,
}


def _compare(compare: Compare) -> etcd_pb2.Compare:
    message = etcd_pb2.Compare(
        key=compare.keys.key,
        range_end=compare.keys.end,
        target=_TARGETS[compare.field],
        result=_RELATIONS[compare.relation],
    )
    setattr(message, compare.field, compare.operand)
    return message


def _request(operation: Operation) -> etcd_pb2.RequestOp:
    match operation:
        case Put():
            return etcd_pb2.RequestOp(request_put=operation.message)
        case Get():
            return etcd_pb2.RequestOp(request_range=operation.message)
        case Delete():
            return etcd_pb2.RequestOp(request_delete_range=operation.message)
        case Parts():
            return etcd_pb2.RequestOp(request_txn=operation.message)


def _result(operation: Operation, answer: etcd_pb2.ResponseOp, revision: int) -> OperationResult:
    match operation:
        case Put():
            return put_result(answer.response_put, revision)
        case Get():
            return get_result(answer.response_range)
        case Delete():
            return delete_result(answer.response_delete_range, revision)
        case Parts():
            return operation.result(answer.response_txn, revision)


def put_result(response: etcd_pb2.PutResponse, revision: int) -> PutResult:
    """From the wire."""
    previous = entry_of(response.prev_kv) if response.HasField("prev_kv") else None
    return PutResult(revision, previous)


def get_result(response: etcd_pb2.RangeResponse) -> GetResult:
    """From the wire."""
    return GetResult(tuple(map(entry_of, response.kvs)), response.count)


def delete_result(response: etcd_pb2.DeleteRangeResponse, revision: int) -> DeleteResult:
    """From the wire."""
    return DeleteResult(revision, response.deleted, tuple(map(entry_of, response.prev_kvs)))
