"""Somebody else in the pool, who writes what he likes into a store's objects."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kvstore._rados import native
from kvstore.beyond.rados.layout import bucket_name, bucket_of, entry_key
from kvstore.beyond.rados.objects import ANY
from tools.rados_cluster import POOL, RadosCluster

__all__ = ["PATIENCE_S", "Foreign", "finished", "foreign", "poll"]

PATIENCE_S = 30.0


def poll(pool: native.Pool, until: float) -> None:
    """Wait for what is finished next, and take it; fails beyond ``until``."""
    ready = select.poll()
    ready.register(pool.fileno(), select.POLLIN)
    left = until - time.monotonic()
    assert left > 0, "it never comes"
    ready.poll(left * 1000)
    pool.drain()


def finished(pool: native.Pool, operation: native.Operation) -> native.Operation:
    """The same operation, once it is."""
    until = time.monotonic() + PATIENCE_S
    while not operation.finished:
        poll(pool, until)
    return operation


class Foreign:
    """A client of the cluster's administrator, in one namespace."""

    def __init__(self, cluster: RadosCluster, namespace: str) -> None:
        self.pool = native.Pool("client.admin")
        self.pool.read_configuration(str(cluster.configuration))
        self.pool.connect()
        self.pool.open(POOL, namespace)

    def set_pairs(self, name: bytes, pairs: dict[bytes, bytes]) -> None:
        done = finished(self.pool, self.pool.write(name, ANY, pairs, None, None, None))
        assert done.code == 0

    def set_data(self, name: bytes, data: bytes) -> None:
        assert finished(self.pool, self.pool.write(name, ANY, None, None, data, None)).code == 0

    def remove(self, name: bytes) -> None:
        assert finished(self.pool, self.pool.remove(name, None)).code == 0

    def pair(self, name: bytes, key: bytes) -> bytes:
        """What is there now."""
        read = finished(self.pool, self.pool.read_pairs(name, [key]))
        assert read.code == 0
        assert read.pairs is not None
        return read.pairs[key]

    def data(self, name: bytes) -> bytes:
        read = finished(self.pool, self.pool.read_data(name, 1 << 21, None))
        assert read.code == 0
        return bytes(read.data or b"")

    def entry(self, key: bytes, salt: bytes) -> bytes:
        """A key's."""
        return self.pair(bucket_name(bucket_of(key, salt)), entry_key(key))

    def set_entry(self, key: bytes, salt: bytes, entry: bytes) -> None:
        self.set_pairs(bucket_name(bucket_of(key, salt)), {entry_key(key): entry})


@contextmanager
def foreign(cluster: RadosCluster, namespace: str) -> Iterator[Foreign]:
    opened = Foreign(cluster, namespace)
    try:
        yield opened
    finally:
        assert opened.pool.close()
