"""A backup's reader that doesn't read gives its place up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest

from kvstore.api.handlers import admin, sending
from kvstore.api.v1 import admin_pb2


class Aborted(Exception):
    pass


class Node:
    """Gives ``count`` pieces; notes that the backup was closed."""

    mode = "embedded"

    def __init__(self, count: int) -> None:
        self._count = count
        self.closed = False

    async def save_snapshot(self, stale: bool) -> AsyncGenerator[bytes, None]:
        try:
            for _ in range(self._count):
                yield bytes(1000)
        finally:
            self.closed = True


class Reader:
    """A call whose client takes ``taken`` messages and then nothing."""

    def __init__(self, taken: int) -> None:
        self._taken = taken
        self.got: list[bytes] = []
        self.ended: grpc.StatusCode | None = None

    def peer(self) -> str:
        return "unix:"

    async def write(self, message: admin_pb2.SaveSnapshotResponse) -> None:
        if len(self.got) == self._taken:
            await asyncio.Event().wait()
        self.got.append(message.data)

    async def abort(self, code: grpc.StatusCode, details: str, trailer: Any = ()) -> None:
        self.ended = code
        raise Aborted(details)


def test_one_that_stops_reading_is_given_up_and_the_backup_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "STALL_S", 0.05)

    async def test() -> None:
        node, reader = Node(10), Reader(3)
        handlers = admin.AdminHandlers(node)  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            with pytest.raises(Aborted, match="took less than 100 KiB/s"):
                await handlers.SaveSnapshot(admin_pb2.SaveSnapshotRequest(), reader)  # type: ignore[arg-type]
        assert reader.ended is grpc.StatusCode.ABORTED
        assert len(reader.got) == 3
        assert node.closed

    asyncio.run(test())


def test_one_that_reads_gets_all_of_it() -> None:
    async def test() -> None:
        node, reader = Node(10), Reader(11)
        handlers = admin.AdminHandlers(node)  # type: ignore[arg-type]
        await handlers.SaveSnapshot(admin_pb2.SaveSnapshotRequest(), reader)  # type: ignore[arg-type]
        assert (len(reader.got), reader.ended, node.closed) == (10, None, True)

    asyncio.run(test())
