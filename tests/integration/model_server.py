"""A server of etcd's API for tests: a real etcd, or kvd, each in turn."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import pytest

from kvstore.client import AsyncClient, Client, Put
from kvstore.testing import AsyncMemoryClient, MemoryClient, MemoryStore
from tests.integration import etcd
from tests.integration.cluster import free_addresses
from tests.integration.etcd import Etcd
from tests.integration.process import Kvd

KINDS = ["etcd", "kvd"]
CLIENT_KINDS = [*KINDS, "kvd-namespace", "memory"]
"""What a client itself is tested with."""


class ModelServer(Protocol):
    """Either of them."""

    address: str

    def start(self) -> Self: ...
    def kill(self) -> None: ...
    def client(self, timeout: float = 30.0) -> Client: ...
    def asynchronous(self) -> AsyncClient: ...


class RestartedKvd:
    """A kvd that comes back where it was; its clients see a namespace of it, if one is given."""

    def __init__(self, directory: Path, namespace: bytes = b"") -> None:
        self._directory = directory
        self.namespace = namespace
        (self.address,) = free_addresses(1)
        self._kvd: Kvd | None = None

    def start(self) -> Self:
        self._kvd = Kvd(self._directory, listen=self.address).wait_serving()
        return self

    def kill(self) -> None:
        if self._kvd is not None:
            self._kvd.kill()
            self._kvd = None

    def client(self, timeout: float = 30.0) -> Client:
        return Client(self.address, timeout=timeout, namespace=self.namespace)

    def asynchronous(self) -> AsyncClient:
        return AsyncClient(self.address, timeout=30, namespace=self.namespace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


class Memory:
    """A store in this process, which nobody else reaches."""

    address = ""

    def __init__(self) -> None:
        self._store = MemoryStore()

    def start(self) -> Self:
        return self

    def kill(self) -> None:
        """Its server ends with the last of its clients, and goes on with the next one."""

    def client(self, timeout: float = 30.0) -> Client:
        return MemoryClient(self._store, timeout=timeout)

    def asynchronous(self) -> AsyncClient:
        # On the test's own event loop, where the others' store can't be.
        return AsyncMemoryClient(timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


def started(kind: str, directory: Path) -> Etcd | RestartedKvd | Memory:
    """One of that kind; skips the test where there is no etcd."""
    if kind == "memory":
        return Memory()
    if kind == "etcd":
        why = etcd.missing()
        if why is not None:
            pytest.skip(why)
        return Etcd(directory / "etcd").start()
    # One whose end is the end of all keys.
    namespace = b"\xff\xff" if kind == "kvd-namespace" else b""
    kvd = RestartedKvd(directory / "kvd", namespace).start()
    try:
        with kvd.client() as client:
            client.count()
    except BaseException:
        kvd.kill()
        raise
    return kvd


def store(client: Client, *keys: bytes, value: bytes = b"v") -> int:
    """Put keys at one revision, which is returned."""
    return client.transaction().then(*(Put(key, value) for key in keys)).commit().revision
