"""Many operations at once: how many, how much, in which order, and what is known when one fails."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count

import pytest

from kvstore.client import many
from kvstore.client.many import IN_FLIGHT, Flight, do_all, put_all
from kvstore.client.operations import Kind, Operation, Result
from kvstore.client.pipeline import Pipeline, gets_next, moved, operations_of, take_chunk
from kvstore.errors import BatchError, Error, InvalidArgumentError, Outcome, UnavailableError


class Store:
    """A client over a dictionary; each operation takes a turn of the loop, or until released."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.under_way = 0
        self.most = 0
        self.bytes = 0
        self.most_bytes = 0
        self.refused: set[bytes] = set()
        self.slow: dict[bytes, int] = {}
        self.opened = True
        self.abandoned = 0

    def told(self, operation: str) -> AbstractContextManager[None]:
        return nullcontext()

    async def _pass(self, key: bytes, size: int) -> None:
        self.under_way += 1
        self.bytes += size
        self.most = max(self.most, self.under_way)
        self.most_bytes = max(self.most_bytes, self.bytes)
        for _ in range(self.slow.pop(key, 1)):
            await asyncio.sleep(0)
        self.under_way -= 1
        self.bytes -= size
        if key in self.refused:
            error = UnavailableError("no leader")
            error.outcome = Outcome.NOT_APPLIED
            raise error

    def seconds(self, timeout: float | None) -> float:
        return timeout or 10.0

    def opens_session(self, operation: Operation) -> bool:
        return not self.opened

    def begin(self, operation: Operation, flight: Flight, now: float) -> bool:
        if self.opened:
            flight.go_on(operation, self.do(operation, flight.timeout))
        return self.opened

    async def do(self, operation: Operation, timeout: float) -> Result:
        self.opened = True
        key = operation.key
        await self._pass(key, len(key) + len(operation.value))
        if operation.kind is Kind.PUT:
            had = key in self.values
            self.values[key] = operation.value
            return had
        if operation.kind is Kind.GET:
            return self.values.get(key)
        return self.values.pop(key, None) is not None

    def abandon(self, operations: Sequence[Operation]) -> None:
        self.abandoned += len(operations)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


def items(number: int) -> Iterator[tuple[bytes, bytes]]:
    return ((b"%d" % place, b"v%d" % place) for place in range(number))


def test_all_are_put_with_so_many_under_way_at_most() -> None:
    async def test() -> None:
        store = Store()
        assert await put_all(store, operations_of(items(2000)), timeout=None) == 2000
        assert store.values == dict(items(2000))
        assert store.most == IN_FLIGHT

    run(test)


def test_the_first_one_goes_alone_where_it_opens_a_session() -> None:
    async def test() -> None:
        store = Store()
        store.opened = False
        store.slow[b"0"] = 5
        done: list[int] = []

        def watched() -> Iterator[tuple[bytes, bytes]]:
            for item in items(10):
                done.append(len(store.values))
                yield item

        assert await put_all(store, operations_of(watched()), timeout=None) == 10
        assert done[:2] == [0, 1]

    run(test)


def test_what_a_task_raises_that_is_no_error_of_ours_ends_the_flight() -> None:
    async def test() -> None:
        store = Store()
        store.slow = {b"0": 1 << 30}
        operations = list(operations_of(items(2)))
        operations[1].kind = None  # type: ignore[assignment]
        store.values = None  # type: ignore[assignment]
        with pytest.raises(AttributeError):
            await do_all(store, operations, timeout=None)

    run(test)


def test_bytes_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(many, "BYTES_MAX", 1000)
        store = Store()
        taken = 0

        def large() -> Iterator[tuple[bytes, bytes]]:
            nonlocal taken
            for place in range(100):
                taken += 1
                assert taken - len(store.values) <= 5  # nothing is taken long before it goes
                yield b"%d" % place, bytes(300)

        assert await put_all(store, operations_of(large()), timeout=None) == 100
        assert 900 < store.most_bytes <= 1000 + 302

    run(test)


def test_of_one_key_the_later_one_is_done_later() -> None:
    async def test() -> None:
        store = Store()
        store.slow[b"k"] = 50  # the first one takes longest
        operations = [
            Operation(Kind.PUT, b"k", b"1"),
            Operation(Kind.PUT, b"other", b"x"),
            Operation(Kind.GET, b"k"),
            Operation(Kind.PUT, b"k", b"2"),
            Operation(Kind.GET, b"k"),
            Operation(Kind.DELETE, b"k"),
            Operation(Kind.DELETE, b"k"),
        ]
        results = await do_all(store, operations, timeout=None)
        assert results == [False, False, b"1", True, b"2", True, False]
        assert store.values == {b"other": b"x"}

    run(test)


def test_a_pipeline_goes_on_after_a_failure() -> None:
    async def test() -> None:
        store = Store()
        store.refused = {b"3"}
        results = await do_all(store, list(operations_of(items(10))), timeout=None)
        assert [type(result) for result in results].count(UnavailableError) == 1
        assert isinstance(results[3], UnavailableError)
        assert len(store.values) == 9

    run(test)


def test_put_many_stops_at_a_failure_and_knows_what_was_stored() -> None:
    async def test() -> None:
        store = Store()
        store.refused = {b"500", b"501"}
        store.slow[b"500"] = 3
        endless = ((b"%d" % place, b"") for place in count())
        with pytest.raises(BatchError) as caught:
            await put_all(store, operations_of(endless), timeout=None)
        error = caught.value
        assert list(error.failures) == [500, 501]
        assert all(each.outcome is Outcome.NOT_APPLIED for each in error.failures.values())
        expected = {b"%d" % place for place in range(error.taken)} - store.refused
        assert set(store.values) == expected
        assert error.taken < 500 + 5 * IN_FLIGHT
        assert not store.under_way

    run(test)


def test_an_iterator_that_fails_is_the_cause() -> None:
    def broken() -> Iterator[tuple[bytes, bytes]]:
        yield from items(300)
        raise LookupError("no more")

    async def test() -> None:
        store = Store()
        with pytest.raises(BatchError) as caught:
            await put_all(store, operations_of(broken()), timeout=None)
        assert isinstance(caught.value.__cause__, LookupError)
        assert (caught.value.taken, caught.value.failures) == (300, {})
        assert len(store.values) == 300
        with pytest.raises(BatchError) as caught:
            await put_all(store, operations_of([("text", b"")]), timeout=None)  # type: ignore[list-item]
        assert isinstance(caught.value.__cause__, TypeError)
        said = "the iterator of items failed after 0: key must be bytes-like, not str"
        assert str(caught.value) == said

    run(test)


def test_a_cancelled_flight_leaves_nothing_behind() -> None:
    async def test() -> None:
        store = Store()
        store.slow = {b"%d" % place: 1 << 30 for place in range(3)}
        before = asyncio.all_tasks()
        flight = asyncio.create_task(put_all(store, operations_of(items(3)), timeout=None))
        while store.under_way < 3:
            await asyncio.sleep(0)
        flight.cancel()
        await asyncio.wait([flight])
        assert flight.cancelled()
        assert asyncio.all_tasks() == before
        assert store.abandoned == 3

    run(test)


def test_what_fails_in_the_turn_of_the_cancellation_gives_back_what_it_was_handed() -> None:
    class Quick(Store):
        """Begins operations without a task."""

        def __init__(self) -> None:
            super().__init__()
            self.begun: list[tuple[Operation, Flight]] = []
            self.given_back = 0

        def begin(self, operation: Operation, flight: Flight, now: float) -> bool:
            self.begun.append((operation, flight))
            return True

        async def finish(self) -> Result:
            try:
                return await asyncio.get_running_loop().create_future()
            finally:
                self.given_back += 1

    async def test() -> None:
        store = Quick()
        before = asyncio.all_tasks()
        waiting = asyncio.create_task(put_all(store, operations_of(items(3)), timeout=None))
        while len(store.begun) < 3:
            await asyncio.sleep(0)
        waiting.cancel()
        for operation, flight in store.begun:
            flight.go_on(operation, store.finish())
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert store.given_back == 3
        assert asyncio.all_tasks() == before

    run(test)


def test_a_batch_error_says_how_many_and_why_and_can_be_pickled() -> None:
    error = BatchError({7: UnavailableError("no leader"), 4: UnavailableError("gone")}, 9)
    assert str(error) == "2 of 9 operations failed; number 4: gone"
    error = moved(error, 100)
    assert list(error.failures) == [104, 107]
    copy = pickle.loads(pickle.dumps(error))
    assert (list(copy.failures), copy.taken, str(copy)) == ([104, 107], 109, str(error))


def test_a_chunk_is_bounded_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.client.pipeline.CHUNK_OPERATIONS", 3)
    monkeypatch.setattr("kvstore.client.pipeline.CHUNK_BYTES", 10)
    operations = operations_of([(b"k", bytes(size)) for size in (1, 1, 1, 20, 1)])
    assert [len(take_chunk(operations, 0)) for _ in range(4)] == [3, 1, 1, 0]


def test_fewer_are_asked_for_where_values_are_large() -> None:
    mib = 1 << 20
    assert gets_next([b"", None, UnavailableError("gone")]) == IN_FLIGHT
    assert gets_next([bytes(1000)] * 256) == IN_FLIGHT
    assert gets_next([b"small", bytes(mib)]) == 16
    assert gets_next([bytes(mib // 4)]) == 64
    assert gets_next([bytes(17 * mib)]) == 1


class Recorded:
    """What a blocking pipeline sends."""

    def __init__(self, results: list[bool | bytes | Error | None]) -> None:
        self.results = results
        self.sent: list[list[Operation]] = []

    def __call__(self, operations: object, timeout: float | None) -> list[object]:
        assert isinstance(operations, list)
        self.sent.append(operations)
        return self.results[: len(operations)]


def test_a_pipeline_is_executed_at_the_end_of_its_block_and_only_once() -> None:
    do = Recorded([True, b"v"])
    with Pipeline(do, 1.0) as pipe:  # type: ignore[arg-type]
        assert pipe.put(b"a", b"1").get(bytearray(b"b")).execute() == [True, b"v"]
        assert len(pipe) == 0
        pipe.delete(b"c")
    assert [len(sent) for sent in do.sent] == [2, 1]

    def leave(pipe: Pipeline) -> None:
        with pipe:
            pipe.put(b"a", b"1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave(Pipeline(do, 1.0))  # type: ignore[arg-type]
    assert len(do.sent) == 2


def test_errors_of_a_pipeline_are_raised_with_all_results_or_given() -> None:
    failure = UnavailableError("gone")
    do = Recorded([True, failure, None])
    pipe = Pipeline(do, 1.0)  # type: ignore[arg-type]
    for _ in range(2):
        pipe.get(b"a").get(b"b").get(b"c")
        if do.sent:
            assert pipe.execute(raise_on_error=False) == [True, failure, None]
        else:
            with pytest.raises(BatchError, match="1 of 3") as caught:
                pipe.execute()
            assert caught.value.results == [True, failure, None]
            assert caught.value.failures == {1: failure}


def test_what_a_pipeline_lists_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.client.pipeline.LISTED_BYTES_MAX", 10)
    pipe = Pipeline(Recorded([False]), 1.0)  # type: ignore[arg-type]
    pipe.put(b"a", bytes(9))
    with pytest.raises(InvalidArgumentError, match="put_many"):
        pipe.get(b"b")
    assert len(pipe) == 1
    with pytest.raises(TypeError, match="key must be bytes-like"):
        pipe.get("b")  # type: ignore[arg-type]
