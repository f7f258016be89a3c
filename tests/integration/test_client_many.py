"""put_many, get_many, pipelines and many callers of one client, against a kvd."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import pytest

from kvstore.client import TLS, AsyncClient, Client
from kvstore.client.many import IN_FLIGHT
from kvstore.client.pipeline import CHUNK_OPERATIONS
from kvstore.errors import (
    BatchError,
    ClosedError,
    ConfigurationError,
    Error,
    InvalidArgumentError,
    Outcome,
)
from tests.integration.process import Certificates, Kvd

pytestmark = pytest.mark.usefixtures("transport")

COUNT = 3000


def items(prefix: bytes, count: int = COUNT) -> dict[bytes, bytes]:
    return {b"%s-%d" % (prefix, number): b"v%d" % number for number in range(count)}


def test_many_are_put_and_got_in_order(kvd: Kvd) -> None:
    wanted = items(b"many")
    keys = [*wanted, b"many-none"]
    with kvd.client() as client:
        assert client.put_many(wanted) == COUNT
        assert list(client.get_many(keys)) == [*wanted.items(), (b"many-none", None)]
        assert client.put_many(iter([])) == 0


def test_many_are_put_and_got_in_order_by_asyncio(kvd: Kvd) -> None:
    async def test() -> None:
        wanted = items(b"async")
        async with AsyncClient(kvd.address) as client:
            assert await client.put_many(iter(wanted.items())) == COUNT
            assert [pair async for pair in client.get_many(wanted)] == list(wanted.items())
            async with client.pipeline() as pipe:
                pipe.get(b"async-7").delete(b"async-7").get(b"async-7")
                assert await pipe.execute() == [b"v7", True, None]

    asyncio.run(test())


def test_a_pipeline_gives_results_in_order(kvd: Kvd, transport: str) -> None:
    with kvd.client() as client, client.pipeline() as pipe:
        for number in range(300):
            pipe.put(b"%s-%d" % (transport.encode(), number), b"%d" % number)
        for number in range(300):
            pipe.get(b"%s-%d" % (transport.encode(), number))
        results = pipe.execute()
    assert results == [False] * 300 + [b"%d" % number for number in range(300)]


def test_large_values_are_got_a_few_at_a_time(kvd: Kvd, transport: str) -> None:
    keys = [b"large-%s-%d" % (transport.encode(), number) for number in range(120)]
    asked: list[int] = []  # how many keys had been taken when each pair came

    def counted() -> Iterator[bytes]:
        for key in keys:
            asked[-1] += 1
            yield key

    with kvd.client() as client:
        client.put_many((key, bytes(1 << 20)) for key in keys)
        asked.append(0)
        for key, value in client.get_many(counted()):
            assert (key, len(value or b"")) == (keys[len(asked) - 1], 1 << 20)
            asked.append(asked[-1])
    ahead = [taken - place for place, taken in enumerate(asked[:-1])]
    assert max(ahead) <= 64
    assert max(ahead[65:]) <= 16


def test_one_bad_item_ends_put_many_and_is_named(kvd: Kvd, transport: str) -> None:
    wanted = list(items(b"bad-" + transport.encode(), 6000).items())
    bad = wanted[5000][0]
    wanted[5000] = (bad, bytes((1 << 20) + 1))
    with kvd.client() as client:
        with pytest.raises(BatchError) as caught:
            client.put_many(wanted)
        error = caught.value
        assert list(error.failures) == [5000]
        assert isinstance(error.failures[5000], InvalidArgumentError)
        stored = [key for key, value in client.get_many(key for key, _ in wanted) if value]
        assert stored == [key for key, _ in wanted[: error.taken] if key != bad]


@pytest.mark.parametrize("others", [0, 1], ids=["the-last-client", "one-of-two"])
def test_put_many_of_a_client_that_is_closed_says_what_was_stored(
    kvd: Kvd, transport: str, others: int
) -> None:
    def endless() -> Iterator[tuple[bytes, bytes]]:
        return ((b"closed-%s-%d-%d" % (transport.encode(), others, n), b"v") for n in count())

    async def stored(key: bytes) -> None:
        async with AsyncClient(kvd.address) as watcher:  # on a loop of its own
            while await watcher.get(key) is None:
                pass

    client = kvd.client()
    kept = [kvd.client() for _ in range(others)]
    for each in kept:
        each.get(b"closed")  # its loop is the closed client's, and goes on
    raised: list[BaseException] = []

    def put() -> None:
        try:
            client.put_many(endless())
        except Error as error:
            raised.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    ((some_of_the_second_chunk, _),) = islice(
        endless(), CHUNK_OPERATIONS + 100, CHUNK_OPERATIONS + 101
    )
    asyncio.run(asyncio.wait_for(stored(some_of_the_second_chunk), 60))
    client.close()
    thread.join(60)
    for each in kept:
        each.close()
    (error,) = raised
    assert isinstance(error, BatchError)
    for failure in error.failures.values():
        assert isinstance(failure, ClosedError)
        assert failure.outcome is not None
    keys = [key for key, _ in islice(endless(), error.taken + IN_FLIGHT)]
    with kvd.client() as client:
        values = [value for _, value in client.get_many(keys)]
    for place, value in enumerate(values):
        failure = error.failures.get(place)
        if failure is None:
            assert (value is not None) == (place < error.taken), place
        elif failure.outcome is Outcome.NOT_APPLIED:
            assert value is None, place


def test_threads_share_a_client(kvd: Kvd) -> None:
    with kvd.client() as client:

        def work(number: int) -> None:
            for turn in range(20):
                client.put(b"thread-%d" % number, b"%d" % turn)
                assert client.get(b"thread-%d" % number) == b"%d" % turn

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert all(
            value == b"19" for _, value in client.get_many(b"thread-%d" % n for n in range(16))
        )


def test_a_restart_of_kvd_in_the_middle_loses_and_repeats_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        kvd = Kvd(tmp_path / "data").wait_serving()
        address = kvd.address
        done = [0] * 16
        running = True
        async with AsyncClient(address, timeout=30) as client:

            async def count(number: int) -> None:
                key = b"count-%d" % number
                while running:
                    had = await client.put(key + b"-%d" % done[number], b"x")
                    assert not had, "applied twice"
                    done[number] += 1

            tasks = [asyncio.create_task(count(number)) for number in range(16)]

            async def passed(more: int) -> None:
                target = sum(done) + more
                end = time.monotonic() + 60
                while sum(done) < target:
                    assert time.monotonic() < end
                    for task in tasks:
                        if task.done():
                            task.result()
                    await asyncio.sleep(0.01)

            await passed(200)
            kvd.kill()
            with Kvd(tmp_path / "data", listen=address):
                await passed(200)
                running = False
                await asyncio.gather(*tasks)
                keys = [b"count-%d-%d" % (n, turn) for n in range(16) for turn in range(done[n])]
                async for key, value in client.get_many(keys):
                    assert value == b"x", key

    asyncio.run(test())


def test_certificates_swapped_in_the_middle_are_taken_up(tmp_path: Path) -> None:
    files = Certificates.make(tmp_path)
    with Kvd(tmp_path / "data", certificates=files) as kvd:
        address = kvd.address
        with Client(address, tls=TLS(ca=files.ca), timeout=30) as client:
            assert client.put_many(items(b"tls", 500)) == 500
            Certificates.make(tmp_path)  # another authority
            kvd.terminate()
            with Kvd(tmp_path / "data", certificates=files, listen=address):
                assert dict(client.get_many(items(b"tls", 500))) == items(b"tls", 500)


FORKS = """
import os, sys
from kvstore.client import Client

client = Client(sys.argv[1], transport=sys.argv[2])
assert client.put(b"forked", b"parent") is False
child = os.fork()
if child == 0:
    assert client.put(b"forked", b"child") is True
    client.close()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert client.get(b"forked") == b"child"
assert client.put(b"forked", b"parent again") is True
assert client.delete(b"forked")
"""


def test_parent_and_child_write_with_a_session_each(kvd: Kvd) -> None:
    """And the program ends by itself with its client open."""
    ran = subprocess.run(
        [sys.executable, "-c", FORKS, kvd.address, "native"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


FORKS_AMID_CALLS = """
import os, signal, sys, threading
from kvstore.client import Client

address = sys.argv[1]
shared = Client(address, timeout=30)
ended = threading.Event()

def use():
    while not ended.is_set():
        with Client(address, timeout=30) as own:
            own.put(b"amid", b"x")
            shared.get(b"amid")

threads = [threading.Thread(target=use) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        signal.alarm(40)
        shared.get(b"amid")
        Client(address, timeout=30).get(b"amid")
        os._exit(7)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 7, code
ended.set()
for thread in threads:
    thread.join()
"""


def test_forks_while_other_threads_call(kvd: Kvd) -> None:
    """Whatever those hold at that moment, from the first call on."""
    ran = subprocess.run(
        [sys.executable, "-c", FORKS_AMID_CALLS, kvd.address],
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


def test_arguments_are_judged_at_the_call(kvd: Kvd) -> None:
    with kvd.client() as client:
        for call in (client.get_many, client.put_many):
            with pytest.raises(InvalidArgumentError, match="timeout"):
                call([], timeout=-1)  # type: ignore[operator]
        with pytest.raises(InvalidArgumentError, match="timeout"):
            client.pipeline(timeout=0)
        words = "timeout must be a positive number of seconds, not 'x'"
        for work in (
            lambda: client.put(b"k", b"v", timeout="x"),  # type: ignore[arg-type]
            lambda: client.get(b"k", timeout="x"),  # type: ignore[arg-type]
            lambda: client.put_many({}, timeout="x"),  # type: ignore[arg-type]
            lambda: client.get_many([], timeout="x"),  # type: ignore[arg-type]
            lambda: client.pipeline(timeout="x"),  # type: ignore[arg-type]
            lambda: client.status(timeout="x"),  # type: ignore[arg-type]
        ):
            with pytest.raises(InvalidArgumentError, match=words):
                work()
    with pytest.raises(ClosedError):
        client.get_many([b"k"])
    with pytest.raises(ClosedError):
        client.put_many({b"k": b"v"})


def test_a_client_of_another_loop_is_refused(kvd: Kvd, transport: str) -> None:
    async def one(client: AsyncClient) -> None:
        await client.put(b"loop", b"1")

    client = AsyncClient(kvd.address)
    asyncio.run(one(client))
    if transport == "native":
        with pytest.raises(ConfigurationError, match="belongs to the event loop of its first call"):
            asyncio.run(one(client))
        asyncio.run(client.close())
