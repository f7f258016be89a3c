"""How ``kvctl status`` looks."""

from __future__ import annotations

from kvstore.cli.kvctl_status import as_text
from kvstore.client import ClusterStatus, MemberStatus


def member(number: int, role: str, address: str = "", fault: str = "") -> MemberStatus:
    return MemberStatus(
        member_id=number,
        role=role,
        term=2,
        leader_id=1,
        commit_index=1041,
        applied_index=1041,
        last_index=1041,
        revision=7,
        client_address=address,
        peer_address="",
        fault=fault,
    )


def status(*members: MemberStatus, leader: int = 1, uptime_s: float = 3.0) -> ClusterStatus:
    return ClusterStatus("0.1.0", "embedded", leader, uptime_s, members)


def test_members_without_addresses_have_no_column_for_them() -> None:
    assert as_text(status(member(1, "leader"), member(2, "follower"))).splitlines() == [
        "kvd 0.1.0, embedded, leader 1, up 3s",
        "member  role      term  commit  applied  last  revision",
        "     1  leader       2    1041     1041  1041         7",
        "     2  follower     2    1041     1041  1041         7",
    ]


def test_addresses_and_faults_are_shown_where_there_are_any() -> None:
    text = as_text(
        status(
            member(1, "leader", "db1:50051"),
            member(2, "stopped", "db2:50051", "IO_ERROR: the disk"),
            leader=0,
            uptime_s=90_061,
        )
    )
    assert text.splitlines() == [
        "kvd 0.1.0, embedded, no leader, up 1d 1h",
        "member  role     term  commit  applied  last  revision  address",
        "     1  leader      2    1041     1041  1041         7  db1:50051",
        "     2  stopped     2    1041     1041  1041         7  db2:50051",
        "member 2: IO_ERROR: the disk",
    ]
