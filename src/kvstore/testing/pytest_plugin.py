"""Fixtures of real servers for tests of programs that use kvstore.

pytest loads this by itself wherever kvstore is installed; what a fixture needs is loaded with its
first use. ``-p no:kvstore`` leaves it out.

``kvd``: one server for the whole run. ``kv``: a client of it, in a namespace that is the test's own
and empty. ``kv_namespace``: that namespace, for further clients. ``kv_cluster``: three members, all
of which serve when the test begins.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kvstore.client import Client
    from kvstore.testing.servers import Cluster, Server

__all__ = ["kv", "kv_cluster", "kv_namespace", "kvd"]


@pytest.fixture(scope="session")
def kvd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A kvd in embedded mode: one for all tests of the run, on a port that the system chose."""
    from kvstore.testing import Server

    with Server(tmp_path_factory.mktemp("kvd")) as server:
        yield server


@pytest.fixture
def kv_namespace() -> bytes:
    """A namespace that no other test has."""
    return b"test/%s/" % uuid.uuid4().hex.encode()


@pytest.fixture
def kv(kvd: Server, kv_namespace: bytes) -> Iterator[Client]:
    """A client of ``kvd`` in ``kv_namespace``, all keys of which are gone at the end.

    Where a test has killed or paused the server it serves again.
    """
    kvd.revive()
    with kvd.client(namespace=kv_namespace) as client:
        yield client
    kvd.revive()
    with kvd.client(namespace=kv_namespace) as client:
        client.delete_range(prefix=b"")


@pytest.fixture(scope="session")
def _kv_members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    from kvstore.testing import Cluster

    with Cluster(tmp_path_factory.mktemp("kv_cluster")) as cluster:
        yield cluster


@pytest.fixture
def kv_cluster(_kv_members: Cluster) -> Cluster:
    """Three real members, to be killed, paused and restarted; at the next test all serve again.

    What was stored stays: use a namespace.
    """
    return _kv_members.start()
