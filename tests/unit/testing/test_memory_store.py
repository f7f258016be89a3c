"""The store in memory, where the tests of clients against a real kvd (tests/integration) don't go.

That it does what kvd does is shown there: the same tests run against both.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time

import grpc
import pytest

from kvstore.client import Put
from kvstore.errors import (
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    LeaseLostError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from kvstore.testing import AsyncMemoryClient, MemoryClient, MemoryStore
from kvstore.testing.channel import MemoryChannel, Services
from kvstore.wire import RpcError


def test_writes_of_single_keys_do_what_they_do_at_kvd() -> None:
    with MemoryClient() as client:
        assert client.put(b"a", b"1") is False
        assert client.put(b"a", b"2", request_id="once") is True
        assert client.put(b"a", b"2", request_id="once", retry=True) is True
        with pytest.raises(InvalidArgumentError):
            client.put(b"a", b"other", request_id="once", retry=True)
        assert client.put_many({b"k%d" % n: b"v" for n in range(1000)}) == 1000
        assert dict(client.get_many([b"a", b"k7", b"none"])) == {
            b"a": b"2",
            b"k7": b"v",
            b"none": None,
        }
        assert client.pipeline().get(b"a").delete(b"a").get(b"a").execute() == [b"2", True, None]
        with pytest.raises(InvalidArgumentError, match="expected 1 to 1024 bytes"):
            client.put(b"k" * 1025, b"")
        with pytest.raises(InvalidArgumentError, match="expected 0 to 1048576 bytes"):
            client.put(b"k", bytes((1 << 20) + 1))


def test_clients_share_a_store_that_outlives_them() -> None:
    store = MemoryStore()
    with MemoryClient(store) as one, MemoryClient(store, namespace=b"app/") as other:
        one.put(b"app/a", b"1")
        assert other.get(b"a") == b"1"
        revision = one.put(b"b", b"") or one.transaction().then(Put(b"c", b"")).commit().revision
    with MemoryClient(store) as again:
        assert again.get(b"app/a") == b"1"
        assert again.transaction().then(Put(b"c", b"")).commit().revision == revision + 1
        assert [entry.key for entry in again.range()] == [b"app/a", b"b", b"c"]
    with MemoryClient() as nobodys:
        assert nobodys.count() == 0


def test_an_event_loop_has_the_store_for_itself() -> None:
    store = MemoryStore()

    async def other() -> None:
        async with AsyncMemoryClient(store) as stranger:
            with pytest.raises(ConfigurationError, match="in use on another event loop"):
                await stranger.get(b"a")

    with MemoryClient(store) as client:
        client.put(b"a", b"1")
        asyncio.run(other())
        assert client.get(b"a") == b"1"

    async def next_one() -> bytes | None:
        async with AsyncMemoryClient(store) as heir:
            return await heir.get(b"a")

    assert asyncio.run(next_one()) == b"1"


def test_a_client_belongs_to_the_loop_of_its_first_call() -> None:
    client = AsyncMemoryClient()

    async def ask() -> bytes | None:
        return await client.get(b"a")

    assert asyncio.run(ask()) is None
    with pytest.raises(ConfigurationError, match="belongs to the event loop of its first call"):
        asyncio.run(ask())
    asyncio.run(client.close())


def test_a_loop_that_ended_under_its_clients_leaves_the_store_to_the_next() -> None:
    store = MemoryStore()

    async def leave() -> None:
        await AsyncMemoryClient(store).put(b"a", b"1")

    with contextlib.suppress(ResourceWarning):
        asyncio.run(leave())
    with MemoryClient(store) as client:
        assert client.get(b"a") == b"1"


def test_leases_end_when_the_clock_has_leapt() -> None:
    with MemoryClient() as client, MemoryClient(client.store) as witness:
        lease = client.lease(10).grant()
        client.put(b"a", b"1", lease=lease)
        client.advance(9)
        assert witness.get(b"a") == b"1"
        lease.check()
        with client.watch(b"a") as changes:
            client.advance(11)
            assert changes.next(timeout=30) is not None
        assert lease.lost
        assert lease.wait_lost(timeout=30)
        assert witness.get(b"a") is None
        with pytest.raises(LeaseLostError):
            lease.revoke()
        with pytest.raises(InvalidArgumentError):
            client.advance(-1)


@pytest.mark.parametrize("seconds", [0.3, 3.0, 599.0, 601.0, 86_400.0, 365 * 86_400.0])
def test_the_clock_leaps_as_far_as_it_is_told(seconds: float) -> None:
    with MemoryClient() as client:
        short = client.lease(2).grant()
        long = client.lease(400 * 86_400).grant()
        client.put(b"short", b"", lease=short)
        client.put(b"long", b"", lease=long)
        before = time.monotonic()
        client.advance(seconds)
        assert (client.get(b"short") is None) is (seconds > 2.5)
        assert client.get(b"long") == b""
        assert long.left > 30 * 86_400
        assert time.monotonic() - before < 30


def test_a_lock_goes_to_the_next_when_its_holder_stood_still() -> None:
    store = MemoryStore()
    with MemoryClient(store) as client:
        lock = client.lock(b"l", ttl=5)
        assert lock.acquire()
        fence = lock.fence
        taken = threading.Event()

        def wait() -> None:
            with MemoryClient(store) as other, other.lock(b"l", ttl=60) as theirs:
                assert theirs.fence > fence
                taken.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        client.advance(6)
        assert taken.wait(30)
        waiting.join()
        assert lock.lost
        with pytest.raises(LeaseLostError):
            lock.release()


def test_asyncio_has_the_clock_too() -> None:
    async def run() -> None:
        async with AsyncMemoryClient() as client:
            lease = await client.lease(5).grant()
            await client.put(b"a", b"1", lease=lease)
            await client.advance(6)
            assert await client.get(b"a") is None
            await lease.wait_lost()

    asyncio.run(run())


def test_users_are_asked_for_as_at_kvd() -> None:
    with MemoryClient() as root:
        for name, role in (("root", "root"), ("app", "jobs")):
            root.auth.add_user(name, "secret")
            root.auth.add_role(role)
            root.auth.grant_role(name, role)
        root.auth.grant_permission("jobs", "readwrite", prefix=b"jobs/")  # type: ignore[arg-type]
        root.auth.enable()
        with MemoryClient(root.store, user="app", password="secret", namespace=b"jobs/") as app:
            assert app.put(b"1", b"") is False
        with MemoryClient(root.store, user="app", password="secret") as app:
            assert app.get(b"jobs/1") == b""
            with pytest.raises(PermissionDeniedError):
                app.put(b"other", b"")
        with pytest.raises(UnauthenticatedError):
            root.count()


def test_what_is_refused_says_that_it_is_in_memory() -> None:
    with MemoryClient() as client:
        assert client.status().mode == "memory"
        assert client.health()[0].serving
        with pytest.raises(InvalidArgumentError, match="a store in memory has one member"):
            client.members()
        assert b"".join(client.save_snapshot())


def test_a_closed_client_says_so_and_ends_what_is_under_way() -> None:
    client = MemoryClient()
    with client.watch() as changes:
        waiting = threading.Thread(target=lambda: list(changes))
        waiting.start()
        client.put(b"a", b"")
        changes.close()
        waiting.join(30)
        assert not waiting.is_alive()
    client.close()
    with pytest.raises(ClosedError):
        client.get(b"a")


def test_a_child_of_fork_is_told_that_it_has_no_store() -> None:
    program = """
import os
import signal
import kvstore
from kvstore.testing import MemoryClient
with MemoryClient() as client:
    client.put(b"a", b"1")
    child = os.fork()
    if not child:
        signal.alarm(40)
        try:
            client.get(b"a")
        except kvstore.ClosedError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert client.get(b"a") == b"1"
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_ctrl_c_ends_a_call_and_leaves_the_client_usable() -> None:
    with MemoryClient() as client, client.lock(b"l", ttl=60):
        main = threading.get_ident()
        other = client.lock(b"l", ttl=60)
        timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            other.acquire()
        timer.join()
        assert client.put(b"a", b"") is False
        assert client.count(prefix=b"l/") == 1


def test_a_store_that_failed_says_why() -> None:
    with MemoryClient(timeout=5) as client:
        client.put(b"a", b"1")
        node = client.store._node
        assert node is not None
        node._driver.fail(InternalError("the disk in memory has a defect"))
        with pytest.raises(InternalError, match="the disk in memory has a defect"):
            client.get(b"a")


def test_what_it_lacks_is_said_in_a_line() -> None:
    program = """
import sys
sys.modules["structlog"] = None
from kvstore.testing import MemoryClient
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    line = "kvstore.testing.MemoryClient needs the 'structlog' package: pip install "
    assert line in done.stderr
    assert "[server]" in done.stderr


# The channel itself: what no handler of ours does, or does by chance.


def served(**methods: object) -> MemoryChannel:
    services = Services()
    handlers = {}
    for name, behaviour in methods.items():
        make = grpc.stream_stream_rpc_method_handler
        if not name.startswith("Stream"):
            make = grpc.unary_unary_rpc_method_handler  # type: ignore[assignment]
        handlers[name] = make(behaviour)  # type: ignore[arg-type]
    services.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))

    async def given() -> Services:
        return services

    async def closed(channel: MemoryChannel) -> None:
        pass

    return MemoryChannel(given, closed)


def test_a_call_ends_with_what_its_handler_raises() -> None:
    async def breaks(request: bytes, context: object) -> bytes:
        raise ValueError("a defect")

    async def hangs(request: bytes, context: object) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def run() -> None:
        channel = served(Breaks=breaks, Hangs=hangs)
        with pytest.raises(RpcError) as raised:
            await channel.unary_unary("/test/Breaks", bytes, bytes)(b"")
        assert raised.value.code() is grpc.StatusCode.UNKNOWN
        with pytest.raises(RpcError) as raised:
            await channel.unary_unary("/test/Hangs", bytes, bytes)(b"", timeout=0.01)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(RpcError) as raised:
            await channel.unary_unary("/test/Nothing", bytes, bytes)(b"")
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        under_way = channel.unary_unary("/test/Hangs", bytes, bytes)(b"")
        await asyncio.sleep(0)
        await channel.close()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        with pytest.raises(grpc.aio.UsageError):
            channel.unary_unary("/test/Hangs", bytes, bytes)(b"")

    asyncio.run(run())


def test_a_stream_waits_for_its_reader_and_ends_with_its_handler() -> None:
    written = 0

    async def counts(requests: object, context: object) -> None:
        nonlocal written
        for number in range(200):
            await context.write(b"%d" % number)  # type: ignore[attr-defined]
            written += 1

    async def run() -> None:
        channel = served(StreamCounts=counts)
        call = channel.stream_stream("/test/StreamCounts", bytes, bytes)()
        assert await call.read() == b"0"
        for _ in range(20):
            await asyncio.sleep(0)
        assert written < 100
        assert [answer async for answer in call] == [b"%d" % number for number in range(1, 200)]
        assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"")
        assert call.cancel() is False
        again = channel.stream_stream("/test/StreamCounts", bytes, bytes)()
        await again.read()
        again.cancel()
        with pytest.raises(asyncio.CancelledError):
            _ = [answer async for answer in again]
        await channel.close()

    asyncio.run(run())


def test_who_waits_for_a_lock_waits_so_long() -> None:
    with (
        MemoryClient() as client,
        client.lock(b"l", ttl=60),
        pytest.raises(DeadlineExceededError),
        client.lock(b"l", ttl=60, wait=0.05),
    ):
        pass


SAVING = """
import logging, sys
import structlog
from kvstore.testing import MemoryClient
if sys.argv[1] == "logging":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
elif sys.argv[1] == "structlog":
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
with MemoryClient() as client:
    list(client.save_snapshot())
structlog.get_logger("theirs").info("of the program")
"""


def saving(logs: str) -> tuple[list[str], str]:
    ended = subprocess.run(
        [sys.executable, "-c", SAVING, logs], capture_output=True, text=True, timeout=60
    )
    return ended.stdout.splitlines(), ended.stderr


def test_what_it_says_goes_to_logging_and_not_to_standard_output() -> None:
    printed, logged = saving("nothing")
    assert (len(printed), logged) == (1, "")
    assert "of the program" in printed[0]
    printed, logged = saving("logging")
    assert len(printed) == 1
    assert logged.startswith("INFO kvstore.backup snapshot saved ")
    assert " bytes=" in logged


def test_a_program_that_has_set_structlog_up_gets_what_it_says() -> None:
    printed, logged = saving("structlog")
    assert "snapshot saved" in printed[0]
    assert printed[1] == '{"event": "of the program"}'
    assert logged == ""
