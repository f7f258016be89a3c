"""One cluster for all tests of this folder, or a word why they are skipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore._rados import native
from kvstore.beyond.rados.opening import LIBRARY, PoolAddress
from tools.rados_cluster import POOL, USER, RadosCluster, missing_programs, rados_cluster


def why_not() -> str:
    """What isn't installed; empty when a cluster can be started."""
    missing = missing_programs()
    if missing:
        return f"no {', '.join(missing)} here: packages ceph-mon, ceph-osd, ceph-common"
    try:
        native.load(LIBRARY)
    except OSError as error:
        return str(error)
    return ""


@pytest.fixture(scope="session")
def cluster() -> Iterator[RadosCluster]:
    """Three OSDs with cephx, as clusters have it, and a pool."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with rados_cluster(cephx=True) as started:
        yield started


@pytest.fixture
def whole(cluster: RadosCluster) -> Iterator[RadosCluster]:
    """The same for who hurts it: all daemons run again afterwards."""
    yield cluster
    cluster.mend()


def address_in(cluster: RadosCluster, namespace: str) -> PoolAddress:
    """A namespace of the cluster's pool, for its user."""
    keyring = None if cluster.keyring is None else str(cluster.keyring)
    user = USER.removeprefix("client.")
    return PoolAddress(str(cluster.configuration), user, keyring, POOL, namespace)


def write_config(cluster: RadosCluster, directory: Path, namespace: str, *lines: str) -> Path:
    """A gateway's file."""
    address = address_in(cluster, namespace)
    path = directory / f"{namespace}.toml"
    path.write_text(
        "\n".join(
            [
                f'ceph_conf = "{address.ceph_conf}"',
                f'user = "{address.user}"',
                *([f'keyring = "{address.keyring}"'] if address.keyring else []),
                f'pool = "{address.pool}"',
                f'namespace = "{namespace}"',
                'client_addr = "127.0.0.1:0"',
                *lines,
                "",
            ]
        )
    )
    return path
