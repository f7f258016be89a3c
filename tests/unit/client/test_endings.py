"""What clients say when they end, or nobody ends them; and of how servers are."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import warnings

import grpc
import pytest

from kvstore.api.etcd import etcd_pb2
from kvstore.client import AsyncClient, Client
from kvstore.errors import ClosedError, UnavailableError
from tests.unit.client.fake_etcd import FakeEtcd, answer, header, refuse

FOUND = answer(etcd_pb2.RangeResponse(header=header(7)))


def test_a_client_that_nobody_closed_is_told_of() -> None:
    async def run() -> None:
        async with FakeEtcd(Range=[FOUND, FOUND]) as server:

            def forget() -> None:
                Client(server.address, timeout=30).count()

            def collect() -> None:
                held.clear()
                gc.collect()

            with pytest.warns(ResourceWarning, match=f"unclosed <Client {server.address}>"):
                await asyncio.to_thread(forget)
            held = [AsyncClient(server.address, timeout=30)]
            await held[0].count()
            with pytest.warns(ResourceWarning, match=f"unclosed <AsyncClient {server.address}>"):
                collect()

    asyncio.run(run())


def test_a_client_that_was_closed_or_never_used_is_not() -> None:
    async def run() -> None:
        async with FakeEtcd(Range=FOUND) as server:
            client = AsyncClient(server.address, timeout=30)
            await client.count()
            await client.close()
            unused = AsyncClient(server.address)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                del client, unused
                Client(server.address)
                gc.collect()

    asyncio.run(run())


def test_a_program_that_ends_without_closing_says_nothing() -> None:
    program = """
import kvstore
client = kvstore.Client("127.0.0.1:1", timeout=0.1)
try:
    client.get(b"a")
except kvstore.UnavailableError:
    pass
"""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", program],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_retries_are_logged_and_nothing_is_printed(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        refused = refuse(grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
        async with (
            FakeEtcd(Range=[refused, FOUND]) as server,
            AsyncClient(server.address, timeout=30) as client,
        ):
            await client.get_entry(b"hidden")

    caplog.set_level(logging.DEBUG, "kvstore.client")
    asyncio.run(run())
    (said,) = [one.getMessage() for one in caplog.records if one.name == "kvstore.client"]
    assert ": no leader; again in " in said
    assert "hidden" not in said
    assert any(
        isinstance(handler, logging.NullHandler)
        for handler in logging.getLogger("kvstore").handlers
    )


def test_servers_say_each_how_they_are() -> None:
    async def run() -> None:
        async with FakeEtcd() as server:
            client = AsyncClient([server.address, "127.0.0.1:1"], timeout=30)
            here, gone = await client.health(timeout=5)
            # It is no kvd: it doesn't know that call, and that is told.
            assert (here.address, here.serving) == (server.address, False)
            assert "doesn't know this call" in str(here.error)
            assert (gone.address, gone.serving) == ("127.0.0.1:1", False)
            assert isinstance(gone.error, UnavailableError)
            assert 0 <= gone.seconds < 5
            await client.close()
            with pytest.raises(ClosedError):
                await client.health()

    asyncio.run(run())
