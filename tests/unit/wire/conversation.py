"""A client's and a server's session that talk in memory."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.wire.frames import PATHS

__all__ = ["PATHS", "Conversation", "Event", "native"]

native: Any = pytest.importorskip("kvstore._wire.native", exc_type=ImportError)

Event = tuple[Any, ...]


class Conversation:
    """``step`` lets both say what they have to; ``now`` is the time that they are told."""

    def __init__(
        self,
        *,
        server: Any = None,
        client: Any = None,
        received: int = 1 << 30,
        unsent: int = 1 << 30,
    ) -> None:
        self.now = 0.0
        self.hot: list[Any] = []
        self.received, self.unsent = native.Budget(received), native.Budget(unsent)
        self.client_received, self.client_unsent = native.Budget(1 << 30), native.Budget(1 << 30)
        self.server = native.ServerSession(
            server or native.Limits(), self.received, self.unsent, PATHS, self.hot
        )
        self.client = native.ClientSession(
            client or native.Limits(),
            self.client_received,
            self.client_unsent,
            "server.example:7400",
            "http",
        )
        self.at_server: list[Event] = []
        self.at_client: list[Event] = []
        self.step()

    def step(self, bytes_max: int = 1 << 20) -> None:
        """Until neither has anything to say; what came is in ``at_server`` and ``at_client``."""
        while True:
            to_server = self.client.send(bytes_max)
            to_client = self.server.send(bytes_max)
            if not to_server and not to_client:
                return
            self.at_server += self.server.receive(to_server, self.now)
            self.at_client += self.client.receive(to_client, self.now)

    def server_events(self) -> list[Event]:
        self.step()
        events, self.at_server = self.at_server, []
        return events

    def client_events(self) -> list[Event]:
        self.step()
        events, self.at_client = self.at_client, []
        return events

    def unary(self, path: str, message: bytes, **more: Any) -> int:
        """Begin a call and let the server hear of it; the stream."""
        stream = self.client.call(
            path, more.get("metadata", ()), more.get("timeout_s"), message, True
        )
        self.step()
        return int(stream)
