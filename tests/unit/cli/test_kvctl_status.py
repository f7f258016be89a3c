"""How ``kvctl status`` looks."""

from __future__ import annotations

import dataclasses

import pytest

from kvstore.cli.cluster.reports import Report, Reports, merged
from kvstore.cli.cluster.status import as_json, as_text
from kvstore.cli.interface.tables import size, table
from kvstore.client import ClusterStatus, MemberStatus


def member(number: int, role: str, *, applied: int = 1041, fault: str = "") -> MemberStatus:
    return MemberStatus(
        member_id=number,
        role=role,
        term=2,
        leader_id=1,
        commit_index=applied,
        applied_index=applied,
        last_index=1041,
        revision=7,
        client_address="",
        peer_address="",
        fault=fault,
        table_bytes=3 << 20,
        log_bytes=16 << 20,
        free_bytes=120 << 30,
        memory_bytes=900,
        cache_bytes=1536,
    )


def reports(mode: str, *members: Report, leader: int = 1, uptime_s: float = 3.0) -> Reports:
    return Reports(ClusterStatus("0.1.0", mode, leader, uptime_s, ()), members)


def test_members_without_addresses_have_no_column_for_them() -> None:
    text = as_text(
        reports(
            "embedded",
            Report(1, "db1:50051", said=member(1, "leader")),
            Report(2, "db1:50051", said=member(2, "follower", applied=1000)),
        )
    )
    assert text.splitlines() == [
        "kvd 0.1.0, embedded, leader 1, up 3s",
        "member  role      term  commit  applied  lag  revision"
        "  tables      log    free  memory   cache",
        "     1  leader       2    1041     1041    0         7"
        "  3.0MiB  16.0MiB  120GiB    900B  1.5KiB",
        "     2  follower     2    1000     1000   41         7"
        "  3.0MiB  16.0MiB  120GiB    900B  1.5KiB",
    ]


def test_what_members_found_and_how_far_they_checked_their_files_is_shown() -> None:
    one = dataclasses.replace(
        member(1, "leader"),
        findings=("member 2: rows stored by entry 7 differ from those of members 1, 3\x1b",),
        scrub_progress=0.342,
        scrub_ended_seconds=90_061.0,
    )
    two = dataclasses.replace(member(2, "follower"), scrub_progress=0.0, scrub_damages=2)
    three = member(3, "follower")
    said = [Report(said.member_id, "db:1", said=said) for said in (one, two, three)]
    lines = as_text(reports("embedded", *said)).splitlines()
    assert lines[5:] == [
        "member 1 finds: member 2: rows stored by entry 7 differ from those of members 1, 3\\x1b",
        "scrub: member 1 34%, last round ended 1d 1h ago; member 2 0%, damages found: 2",
    ]


def test_addresses_faults_and_silence_are_shown_where_there_are_any() -> None:
    shown = reports(
        "cluster-node",
        Report(1, "db1:50051", said=member(1, "stopped", fault="IO_ERROR: the disk")),
        Report(2, "db2:50051", silence="cannot connect"),
        leader=0,
        uptime_s=90_061,
    )
    assert as_text(shown).splitlines() == [
        "kvd 0.1.0, cluster-node, no leader, up 1d 1h",
        "member  role         term  commit  applied  lag  revision"
        "  tables      log    free  memory   cache  address",
        "     1  stopped         2    1041     1041    0         7"
        "  3.0MiB  16.0MiB  120GiB    900B  1.5KiB  db1:50051",
        "     2  unreachable     -       -        -    -         -"
        "       -        -       -       -       -  db2:50051",
        "member 1: IO_ERROR: the disk",
        "member 2: cannot connect",
    ]
    members = as_json(shown)["members"]
    assert isinstance(members, list)
    assert [one["reachable"] for one in members] == [True, False]
    assert members[0]["lag"] == 0
    assert members[1]["fault"] == "cannot connect"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.0KiB"),
        (1000 << 10, "1.0MiB"),
        (99 << 20, "99.0MiB"),
        (100 << 20, "100MiB"),
        (5 << 50, "5.0PiB"),
    ],
)
def test_sizes_are_short(count: int, text: str) -> None:
    assert size(count) == text


def test_a_member_is_shown_once_by_what_it_said_last_through_any_address() -> None:
    given = Report(1, "localhost:7001", said=member(1, "leader"))
    known = Report(1, "db1:50051", said=member(1, "leader"))
    assert merged([given, Report(1, "db1:50051", silence="no route")]) == (given,)
    assert merged([given, known]) == (known,)
    unknown = [Report(0, "db8:50051", silence="?"), Report(0, "db9:50051", silence="?")]
    assert merged([given, *unknown]) == (*unknown, given)


def test_what_a_member_says_cant_move_a_cursor_or_forge_a_line() -> None:
    lines = table(("member", "address"), [("1", "\x1b[2J\x1b[1;31mdb1:1\n2  leader\tdb9:1\u202e")])
    assert lines[1:] == ["     1  \\x1b[2J\\x1b[1;31mdb1:1\\n2  leader\\tdb9:1\\u202e"]
