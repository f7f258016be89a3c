"""Whether servers can serve, each asked by itself, by gRPC's health protocol."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import grpc

from kvstore.client.calls import Calls
from kvstore.client.options import checked_timeout
from kvstore.errors import Error

__all__ = ["Health", "check"]


@dataclass(frozen=True, slots=True)
class Health:
    """What one server says. ``serving``: it takes reads and writes now: itself, or by a leader that
    it knows of. ``error``: why nothing was heard of it, None where it has answered. ``seconds``:
    how long that took."""

    address: str
    serving: bool
    error: Error | None
    seconds: float


async def check(calls: Calls, timeout: float | None) -> tuple[Health, ...]:
    """All servers that a client knows, asked at once."""
    seconds = checked_timeout(timeout, min(calls.policy.attempt_timeout_s, calls.timeout))
    addresses = tuple(calls.endpoints.addresses)
    return tuple(await asyncio.gather(*(_ask(calls, one, seconds) for one in addresses)))


async def _ask(calls: Calls, address: str, timeout: float) -> Health:
    loop = asyncio.get_running_loop()
    began = loop.time()
    connection = calls.connections.take(address)
    try:
        serving = await connection.server.health(b"", timeout=timeout, metadata=None)
        connection.answered()
        return Health(address, serving, None, loop.time() - began)
    except grpc.RpcError as error:
        failure = calls.understood(error, ())
        calls.connections.failed(connection, failure, timeout)
        return Health(address, False, failure.error, loop.time() - began)
    finally:
        await calls.give_back(connection)
