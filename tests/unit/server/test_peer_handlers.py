"""What the peer listener says of those whom it doesn't let in."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn, cast

import grpc
import pytest
import structlog

from kvstore.errors import StorageError
from kvstore.server.peers.handlers import PeerHandlers
from kvstore.server.peers.introductions import Introductions
from kvstore.server.peers.unary import UnaryCalls


class AbortedError(Exception):
    pass


class Call:
    """A call of a peer at ``address``."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.code: grpc.StatusCode | None = None

    def peer(self) -> str:
        return self.address

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def auth_context(self) -> dict[str, Any]:
        return {}

    async def abort(self, code: grpc.StatusCode, *_: object) -> NoReturn:
        self.code = code
        raise AbortedError


class FullDisk:
    """Introductions whose registry can't note anybody."""

    registry = None
    reason = "No space left on device"

    def judge_caller(self, *_: object) -> NoReturn:
        raise StorageError(self.reason)


def test_a_full_disk_is_said_once_for_each_peer_and_reason() -> None:
    disk = FullDisk()

    async def call(address: str) -> None:
        one = Call(address)
        with pytest.raises(AbortedError):
            await handlers.admit(cast("Any", one))
        assert one.code is grpc.StatusCode.UNAVAILABLE

    async def play() -> None:
        for port in range(50):
            await call(f"ipv4:10.0.0.1:{port}")
        await call("ipv4:10.0.0.2:1")
        disk.reason = "Input/output error"
        await call("ipv4:10.0.0.2:2")

    handlers = PeerHandlers(cast("Introductions", disk), lambda _: None, UnaryCalls())
    with structlog.testing.capture_logs() as logs:
        asyncio.run(play())
    assert [(line["event"], line["address"], line["log_level"]) for line in logs] == [
        ("can't note a peer", "ipv4:10.0.0.1:0", "error"),
        ("can't note a peer", "ipv4:10.0.0.2:1", "error"),
        ("can't note a peer", "ipv4:10.0.0.2:2", "error"),
    ]
