"""``kvctl status`` of a cluster: every member, found from any one address."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.cluster import Cluster
from tests.integration.process import run


def test_one_address_is_enough_to_see_all_members_and_who_is_silent(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start()
        with cluster.client() as client:
            for n in range(20):
                client.put(b"%d" % n, b"v" * 100)
        leader = cluster.leader()
        asked, killed = (member for member in cluster.members if member != leader)
        cluster.kill(killed)
        address = f"--addr={cluster.clients[asked]}"
        shown = run("kvctl", address, "status", "--output=json")
        assert shown.returncode == 0, shown.stderr
        status = json.loads(shown.stdout)
        assert status["leader_id"] == leader
        members = {member["member_id"]: member for member in status["members"]}
        assert list(members) == [1, 2, 3]
        assert members[leader]["role"] == "leader"
        assert members[leader]["lag"] == 0
        # One more where the model was enabled before the first of them.
        assert members[leader]["revision"] in (20, 21)
        assert members[asked]["role"] == "follower"
        assert members[asked]["client_address"] == cluster.clients[asked]
        assert members[asked]["lag"] is not None
        for member in (leader, asked):
            assert members[member]["reachable"]
            assert members[member]["log_bytes"] >= 64 << 20
            assert members[member]["free_bytes"] > 0
            assert members[member]["cache_capacity_bytes"] == 256 << 20
        assert members[killed]["reachable"] is False
        assert "Connection refused" in members[killed]["fault"]
        # With the leader gone as well, those that were named are asked.
        cluster.kill(leader)
        table = run("kvctl", address, "status").stdout.decode().splitlines()
        (warning,) = [line for line in table if line.startswith("warning: ")]
        assert "members prove nothing to each other" in warning
        table.remove(warning)
        scrub = table.pop()
        assert scrub.startswith(f"scrub: member {asked} "), scrub
        # What it finds of others, once they have been away for a while, may stand below the table.
        assert all(line.startswith(f"member {asked} finds: ") for line in table[3:]), table
        assert table[2].split()[0] == str(asked)
        assert table[2].split()[-1] == cluster.clients[asked]
