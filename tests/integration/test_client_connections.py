"""Connections of clients that can't be used any more: others take their place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore.client import TLS, AsyncClient, Client
from tests.integration.process import Certificates, Kvd

pytestmark = pytest.mark.usefixtures("transport")

WAIT_S = 15.0


class Blocking:
    """A Client, called as the other kind is."""

    def __init__(self, address: str, **options: Any) -> None:
        self._client = Client(address, **options)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        call: Callable[..., Any] = getattr(self._client, method)
        return call


class Asynchronous:
    """An AsyncClient on a loop of its own."""

    def __init__(self, address: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(address, **options)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        async def call(*arguments: Any) -> Any:
            return await getattr(self._client, method)(*arguments)

        return lambda *arguments: self._runner.run(call(*arguments))


Kind = Callable[..., Any]


@pytest.fixture(params=[Blocking, Asynchronous], ids=["Client", "AsyncClient"])
def kind(request: pytest.FixtureRequest) -> Kind:
    made: Kind = request.param
    return made


def test_certificates_are_read_again_when_a_connection_fails(tmp_path: Path, kind: Kind) -> None:
    files = Certificates.make(tmp_path)
    with Kvd(tmp_path / "data", certificates=files) as kvd:
        client = kind(kvd.address, tls=TLS(ca=files.ca), timeout=WAIT_S)
        client.put(b"k", b"1")
        address = kvd.address
    # Another authority, as when the old one has ended.
    Certificates.make(tmp_path)
    with Kvd(tmp_path / "data", certificates=files, listen=address):
        assert client.get(b"k") == b"1"
        client.close()


class Road:
    """A way to ``address`` on which connections can go silent, as when a machine vanished."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._silent: set[int] = set()
        self._stopping, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def silence(self) -> None:
        """Nothing passes any more on the connections there are."""
        self._silent |= set(range(1, self.connections + 1))

    def _run(self) -> None:
        pairs: dict[socket.socket, tuple[socket.socket, int]] = {}
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._listener)
            while True:
                ready, _, _ = select.select([self._listener, self._stopping, *pairs], [], [])
                if self._stopping in ready:
                    return
                for each in ready:
                    if each is self._listener:
                        near = stack.enter_context(self._listener.accept()[0])
                        far = stack.enter_context(socket.create_connection(self._target))
                        self.connections += 1
                        pairs[near] = (far, self.connections)
                        pairs[far] = (near, self.connections)
                    elif each in pairs:
                        other, number = pairs[each]
                        data = each.recv(65536)
                        if not data:
                            del pairs[each]
                        elif number not in self._silent:
                            other.sendall(data)

    def close(self) -> None:
        os.close(self._stop)
        self._thread.join()
        os.close(self._stopping)


@pytest.fixture
def road(tmp_path: Path) -> Iterator[Road]:
    with Kvd(tmp_path / "data") as kvd:
        made = Road(kvd.wait_serving().address)
        yield made
        made.close()


def test_a_connection_gone_silent_is_replaced_within_the_call(road: Road, kind: Kind) -> None:
    client = kind(road.address, timeout=4)
    client.put(b"k", b"1")
    assert road.connections == 1
    road.silence()
    assert client.get(b"k") == b"1"
    assert road.connections == 2
    client.close()
