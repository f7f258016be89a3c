"""A member that starts again, asked alone: never older than what it has said before."""

from __future__ import annotations

from pathlib import Path

from tests.integration.cluster import Cluster
from tests.integration.etcd_calls import EtcdCalls


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
