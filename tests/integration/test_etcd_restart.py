"""A member that starts again, asked alone: never older than what it has said before."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from tests.integration.cluster import Cluster
from tests.integration.etcd_calls import EtcdCalls
from tests.integration.users import ask_for_users


def test_a_restarted_member_says_nothing_older_than_before(tmp_path: Path) -> None:
    with Cluster(tmp_path, 3) as cluster:
        cluster.start()
        member = next(one for one in cluster.members if one != cluster.leader())
        address = cluster.clients[member]
        calls = EtcdCalls(address)
        for number in range(200):
            calls.Put(key=b"k", value=b"%d" % number)
        told = calls.Range(key=b"k", serializable=True)
        assert told.kvs[0].value == b"199"
        calls.channel.close()
        # Nothing of it is in tables yet: all comes from the log again.
        cluster.kill(member)
        cluster.start(member)
        calls = EtcdCalls(address)
        again = calls.Range(key=b"k", serializable=True)
        assert again.kvs[0].value == b"199"
        assert again.header.revision >= told.header.revision
        calls.channel.close()


def test_a_member_that_starts_alone_lets_nobody_in_whom_users_shut_out(tmp_path: Path) -> None:
    """That users are asked for is the last entry of its log, and its disk doesn't know yet that
    this is committed."""
    with Cluster(tmp_path, 3) as cluster:
        cluster.start()
        calls = EtcdCalls(cluster.clients[1])
        calls.Put(key=b"secret", value=b"v")
        ask_for_users(cluster.clients[cluster.leader()])
        # Applied here, too.
        with pytest.raises(grpc.RpcError, match="user name is empty"):
            calls.Range(key=b"secret")
        calls.channel.close()
        cluster.kill()
        cluster.running[1] = cluster._start(1)
        calls = EtcdCalls(cluster.clients[1])
        # By half of the time that the first waits it would have begun to serve what it knows.
        for _ in range(2):
            with pytest.raises(grpc.RpcError, match="request timed out"):
                calls.Range(key=b"secret", serializable=True)
        calls.channel.close()
        cluster.start(2)
        calls = EtcdCalls(cluster.clients[1])
        with pytest.raises(grpc.RpcError, match="user name is empty"):
            calls.Range(key=b"secret", serializable=True)
        calls.channel.close()
