"""A server of etcd's API for tests: a real etcd, or kvd, each in turn."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import pytest

from kvstore.client import Client, Put
from tests.integration import etcd
from tests.integration.cluster import free_addresses
from tests.integration.etcd import Etcd
from tests.integration.process import Kvd

KINDS = ["etcd", "kvd"]


class ModelServer(Protocol):
    """Either of them."""

    address: str

    def start(self) -> Self: ...
    def kill(self) -> None: ...
    def client(self, timeout: float = 30.0) -> Client: ...


class RestartedKvd:
    """A kvd that comes back where it was."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
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
        return Client(self.address, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


def started(kind: str, directory: Path) -> Etcd | RestartedKvd:
    """One of that kind; skips the test where there is no etcd."""
    if kind == "etcd":
        why = etcd.missing()
        if why is not None:
            pytest.skip(why)
        return Etcd(directory / "etcd").start()
    kvd = RestartedKvd(directory / "kvd").start()
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
