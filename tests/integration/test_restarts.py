"""What a client has under way while servers are stopped with SIGTERM, and how much that may be.

One round of what ``python -m tests.integration.restarts`` does ten of.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kvstore.client import AsyncClient
from kvstore.client.channels import Transport
from kvstore.client.gate import TRIES_MAX
from tests.integration import restarts
from tests.integration.process import FRONT, FRONTS, Kvd

MANY = 20_000

transports = pytest.mark.parametrize("transport", FRONTS)


@transports
def test_no_call_of_a_thousand_tasks_fails(tmp_path: Path, transport: Transport) -> None:
    tally = restarts.restart_under_tasks(
        tmp_path, tasks=1000, rounds=1, front=FRONT, transport=transport, calls=restarts.PUTS
    )
    assert not tally.failed, str(tally)
    assert tally.done["put"] >= 1000


@transports
def test_no_call_of_any_kind_fails(tmp_path: Path, transport: Transport) -> None:
    tally = restarts.restart_under_tasks(
        tmp_path, tasks=50, rounds=2, front=FRONT, transport=transport, calls=restarts.CALLS
    )
    assert not tally.failed, str(tally)


@transports
def test_no_call_of_64_threads_fails(tmp_path: Path, transport: Transport) -> None:
    tally = restarts.restart_under_threads(
        tmp_path, threads=64, rounds=1, front=FRONT, transport=transport
    )
    assert not tally.failed, str(tally)
    assert tally.done["put"] >= 64


@transports
def test_no_call_fails_while_members_with_tls_are_restarted(
    tmp_path: Path, transport: Transport
) -> None:
    tally = restarts.restart_cluster(
        tmp_path, tasks=32, rounds=1, front=FRONT, transport=transport, calls=restarts.CALLS
    )
    assert not tally.failed, str(tally)
    assert set(tally.done) >= set(restarts.CALLS)


@transports
def test_a_client_with_20_000_calls_holds_back_by_itself(
    tmp_path: Path, transport: Transport
) -> None:
    async def run(address: str) -> tuple[list[object], int]:
        most = 0
        async with AsyncClient(address, timeout=120, transport=transport) as client:
            take = client.calls.connections.take

            def counted(address: str) -> object:
                nonlocal most
                connection = take(address)
                most = max(most, connection.calls)
                return connection

            client.calls.connections.take = counted  # type: ignore[method-assign, assignment]
            await client.put(b"k", b"v")
            puts = [client.put(b"k/%d" % number, bytes(100)) for number in range(MANY)]
            gets = [client.get(b"k") for _ in range(MANY)]
            answers: list[object] = [*await asyncio.gather(*puts, return_exceptions=True)]
            answers += await asyncio.gather(*gets, return_exceptions=True)
        return answers, most

    with Kvd(tmp_path / "data") as kvd:
        kvd.wait_serving()
        answers, most = asyncio.run(run(kvd.address))
        assert [answer for answer in answers if isinstance(answer, BaseException)] == []
        assert answers == [False] * MANY + [b"v"] * MANY
        assert most <= TRIES_MAX
        assert "Traceback" not in kvd.stderr


@transports
def test_large_values_are_held_back_by_their_bytes(tmp_path: Path, transport: Transport) -> None:
    """The native wire lets 64 MiB wait."""

    async def run(address: str) -> list[bool]:
        async with AsyncClient(address, timeout=120, transport=transport) as client:
            value = bytes(1 << 20)
            return await asyncio.gather(*(client.put(b"%d" % n, value) for n in range(150)))

    with Kvd(tmp_path / "data") as kvd:
        kvd.wait_serving()
        assert asyncio.run(run(kvd.address)) == [False] * 150
