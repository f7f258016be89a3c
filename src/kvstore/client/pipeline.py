"""Pipelines: operations that are listed first and sent together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeAlias

from kvstore.client.many import BYTES_MAX, IN_FLIGHT, Doer, do_all
from kvstore.client.operations import Kind, Operation, Result
from kvstore.client.requests import BytesLike, as_bytes
from kvstore.errors import BatchError, Error, InvalidArgumentError

__all__ = [
    "FIRST_GETS",
    "AsyncPipeline",
    "Items",
    "Pipeline",
    "gets_next",
    "gets_of",
    "moved",
    "operations_of",
    "take_chunk",
]

Items: TypeAlias = Mapping[bytes, bytes] | Iterable[tuple[BytesLike, BytesLike]]

# Keys and values that a pipeline holds until it is executed, in bytes.
LISTED_BYTES_MAX = 256 << 20

# Keys that get_many asks for first, knowing nothing of their values' size.
FIRST_GETS = 64

# What a blocking client takes from an iterator at a time.
CHUNK_OPERATIONS = 4096
CHUNK_BYTES = 8 << 20


class _Listed:
    """What both kinds of pipeline have."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._operations: list[Operation] = []
        self._bytes = 0

    def put(self, key: BytesLike, value: BytesLike) -> Self:
        """List a put; its result will be whether the key had a value before."""
        return self._add(Operation(Kind.PUT, as_bytes(key, "key"), as_bytes(value, "value")))

    def get(self, key: BytesLike) -> Self:
        """List a get; its result will be the value, or None."""
        return self._add(Operation(Kind.GET, as_bytes(key, "key")))

    def delete(self, key: BytesLike) -> Self:
        """List a delete; its result will be whether the key had a value."""
        return self._add(Operation(Kind.DELETE, as_bytes(key, "key")))

    def __len__(self) -> int:
        """How many are listed."""
        return len(self._operations)

    def _add(self, operation: Operation) -> Self:
        self._bytes += len(operation.key) + len(operation.value)
        if self._bytes > LISTED_BYTES_MAX:
            self._bytes -= len(operation.key) + len(operation.value)
            raise InvalidArgumentError(
                f"a pipeline lists {LISTED_BYTES_MAX} bytes at most: execute it, or use put_many"
            )
        self._operations.append(operation)
        return self

    def _taken(self) -> list[Operation]:
        """All that is listed; the list is empty then."""
        operations, self._operations, self._bytes = self._operations, [], 0
        return operations


class Pipeline(_Listed):
    """Operations that are listed and then sent together, hundreds at a time.

    It is no transaction: each operation is one by itself, with the promises of the client's
    ``put``, ``get`` and ``delete`` and with ``timeout`` seconds of its own; others' operations come
    between, and when one fails the rest is done all the same. Operations on one key are done in the
    order in which they were listed, those on different keys in any.

    >>> with client.pipeline() as pipe:
    ...     pipe.put(b"a", b"1").get(b"a").delete(b"b")
    ...     pipe.execute()
    [False, b'1', False]

    Leaving the ``with`` block executes what is still listed, unless an exception leaves it.
    For one thread at a time.
    """

    def __init__(
        self,
        do: Callable[[Sequence[Operation], float], list[Result | Error]],
        timeout: float,
    ) -> None:
        super().__init__(timeout)
        self._do = do

    def execute(self, *, raise_on_error: bool = True) -> list[Result | Error]:
        """Do all that is listed; the results in order. The pipeline can be filled again.

        Raises BatchError, which has the results and errors in ``results``, if any failed; without
        ``raise_on_error`` the errors are in their places in what is returned.
        """
        return _judged(self._do(self._taken(), self._timeout), raise_on_error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.execute()
        self._taken()


class AsyncPipeline(_Listed):
    """The same for asyncio: see :class:`Pipeline`.

    >>> async with client.pipeline() as pipe:
    ...     pipe.put(b"a", b"1").get(b"a")
    ...     results = await pipe.execute()
    """

    def __init__(self, client: Doer, timeout: float) -> None:
        super().__init__(timeout)
        self._client = client

    async def execute(self, *, raise_on_error: bool = True) -> list[Result | Error]:
        """Do all that is listed; see :meth:`Pipeline.execute`."""
        results = await do_all(self._client, self._taken(), timeout=self._timeout)
        return _judged(results, raise_on_error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.execute()
        self._taken()


def _judged(results: list[Result | Error], raise_on_error: bool) -> list[Result | Error]:
    if raise_on_error:
        failures = {
            place: result for place, result in enumerate(results) if isinstance(result, Error)
        }
        if failures:
            raise BatchError(failures, len(results), results)
    return results


def operations_of(items: Items) -> Iterator[Operation]:
    """A put for each item, as it is taken."""
    pairs = items.items() if isinstance(items, Mapping) else items
    for key, value in pairs:
        yield Operation(Kind.PUT, as_bytes(key, "key"), as_bytes(value, "value"))


def gets_of(keys: Iterable[BytesLike]) -> Iterator[Operation]:
    """A get for each key, as it is taken."""
    for key in keys:
        yield Operation(Kind.GET, as_bytes(key, "key"))


def gets_next(values: Sequence[Result | Error]) -> int:
    """How many keys to ask for after those that had ``values``.

    So many that values as large as the largest of these take ``BYTES_MAX`` at most.
    """
    largest = max((len(value) for value in values if isinstance(value, bytes)), default=0)
    return max(1, min(IN_FLIGHT, BYTES_MAX // max(1, largest)))


def pairs_of(
    gets: Sequence[Operation], values: Sequence[Result | Error]
) -> Iterator[tuple[bytes, bytes | None]]:
    """Each key with its value. Raises the error of the first that has one, when it comes to it."""
    for operation, value in zip(gets, values, strict=True):
        if isinstance(value, Error):
            raise value
        assert not isinstance(value, bool)
        yield operation.key, value


def take_chunk(operations: Iterator[Operation], taken: int) -> list[Operation]:
    """The next ones, of which ``taken`` went before. Raises BatchError if the iterator fails."""
    chunk: list[Operation] = []
    size = 0
    try:
        while len(chunk) < CHUNK_OPERATIONS and size < CHUNK_BYTES:
            operation = next(operations, None)
            if operation is None:
                break
            chunk.append(operation)
            size += len(operation.key) + len(operation.value)
    except Exception as error:
        raise BatchError({}, taken, cause=error) from error
    return chunk


def moved(error: BatchError, places: int) -> BatchError:
    """The same error of a chunk that ``places`` operations went before."""
    failures = {place + places: failure for place, failure in error.failures.items()}
    return BatchError(failures, error.taken + places, cause=error.__cause__)
