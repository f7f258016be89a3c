"""What the health service says, and what operators read of storage that takes no writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from grpc_health.v1 import health_pb2
from structlog.testing import capture_logs

from kvstore.replica import Replica
from kvstore.replica.counters import ReplicaCounters
from kvstore.replica.recovery import TABLE, Decision, Row
from kvstore.server.health import HealthWatch
from kvstore.server.nodes.storage_report import REASON_TICKS, StorageReport


def status_with(leader: int, trouble: str) -> int:
    async def main() -> int:
        watch = HealthWatch(lambda: leader, lambda: trouble)
        await watch.start()
        answer = await watch.servicer.Check(
            health_pb2.HealthCheckRequest(service="kvstore.v1.KV"), None
        )
        await watch.stop()
        status: int = answer.status
        return status

    return asyncio.run(main())


def test_a_member_serves_with_a_leader_and_with_storage_that_takes_writes() -> None:
    serving, not_serving = (
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    )
    assert status_with(1, "") == serving
    assert status_with(0, "") == not_serving
    assert status_with(1, "its disk hangs") == not_serving
    assert status_with(0, "its disk hangs") == not_serving


@pytest.mark.skipif(
    not hasattr(health_pb2, "HealthListRequest"), reason="its protocol has no List yet"
)
def test_all_that_has_a_health_is_listed_with_it() -> None:
    async def main() -> dict[str, int]:
        watch = HealthWatch(lambda: 1, lambda: "")
        await watch.start()
        listed = await watch.servicer.List(health_pb2.HealthListRequest(), None)
        await watch.stop()
        return {service: one.status for service, one in listed.statuses.items()}

    serving = health_pb2.HealthCheckResponse.SERVING
    assert asyncio.run(main()) == {"": serving, "kvstore.v1.KV": serving}


WELL = SimpleNamespace(under_way="", fallen_back="")
NOTHING_DONE = SimpleNamespace(repairs_done=0)


def a_member(
    number: int,
    found: Row = TABLE[-1],
    repair: SimpleNamespace = WELL,
    counters: SimpleNamespace = NOTHING_DONE,
) -> SimpleNamespace:
    return SimpleNamespace(
        member=number,
        recovery=found,
        storage_trouble="",
        log_short="cut",
        vote_lost="flipped" if found.name == "the only voter's vote is damaged" else "",
        stands_aside=found.decision is Decision.STAND_ASIDE,
        failure=None,
        note_damage="",
        log_trouble="",
        repair=repair,
        counters=counters,
    )


def test_each_trouble_of_storage_has_one_line_at_each_end_and_for_each_lasting_reason() -> None:
    well, counters = SimpleNamespace(under_way="", fallen_back=""), SimpleNamespace(repairs_done=0)
    members = [a_member(number, repair=well, counters=counters) for number in (1, 2)]
    report = StorageReport(cast("Callable[[], list[Replica]]", lambda: members))
    with capture_logs() as lines:
        report.tick()
        members[1].storage_trouble = "full"
        report.tick()
        members[1].storage_trouble = "hangs"
        report.tick()
        members[1].storage_trouble = ""
        report.tick()
        report.tick()
        # To and fro, and then another one for good.
        for number in range(REASON_TICKS + 2):
            members[0].storage_trouble = "full" if number % 2 == 0 else "hangs"
            report.tick()
        members[0].storage_trouble = ""
        report.tick()
    told: list[Any] = [
        (line["event"], line["member"], line.get("reason"), line.get("was")) for line in lines
    ]
    assert told == [
        ("storage takes no writes", 2, "full", None),
        ("storage takes writes again", 2, None, "full"),
        ("storage takes no writes", 1, "full", None),
        ("storage takes no writes", 1, "hangs", None),
        ("storage takes writes again", 1, None, "hangs"),
    ]


def test_a_repair_has_one_line_at_each_end() -> None:
    repair = SimpleNamespace(under_way="", fallen_back="")
    counters = ReplicaCounters()
    member = a_member(3, repair=repair, counters=counters)
    report = StorageReport(cast("Callable[[], list[Replica]]", lambda: [member]))
    with capture_logs() as lines:
        report.tick()
        for _ in range(2):
            repair.under_way = "damage"
            report.tick()
        counters.repairs_failed = counters.repairs_done = 1
        for _ in range(2):
            repair.under_way = ""
            report.tick()
        counters.repairs_done = 2
        counters.repairs_by_range, counters.repair_received_bytes = 1, 70
        for _ in range(2):
            report.tick()
        repair.under_way = repair.fallen_back = "much of it"
        for _ in range(2):
            report.tick()
    begun, done, at_once, _, whole = lines
    assert (begun["event"], begun["member"], begun["reason"]) == ("repair begun", 3, "damage")
    assert (done["event"], done["was"], done["failed_tries"]) == ("repair done", "damage", 1)
    assert (at_once["event"], at_once["was"]) == ("repair done", "")
    assert (at_once["by_range"], at_once["received_rows_bytes"]) == (1, 70)
    assert (whole["event"], whole["reason"]) == ("repair needs the whole state", "much of it")


def test_damaged_entries_of_a_log_have_one_line_at_each_end_and_one_when_all_is_lost() -> None:
    member = a_member(2)
    report = StorageReport(cast("Callable[[], list[Replica]]", lambda: [member]))
    with capture_logs() as lines:
        for trouble in ("", "some", "some", "all", "all", "", ""):
            member.log_trouble = trouble
            report.tick()
    assert [(line["event"], line.get("reason")) for line in lines] == [
        ("entries of the log are damaged", "some"),
        ("entries of the log are damaged", "all"),
        ("the log is whole again", None),
    ]


def test_a_member_that_votes_again_says_so_and_why_it_did_not() -> None:
    (found,) = [one for one in TABLE if one.name == "the log is damaged"]
    member = a_member(2, found)
    report = StorageReport(cast("Callable[[], list[Replica]]", lambda: [member]))
    with capture_logs() as lines:
        for aside in (True, True, False, False):
            member.stands_aside = aside
            report.tick()
        member.recovery = TABLE[-1]
        for aside in (True, False):
            member.stands_aside = aside
            report.tick()
    assert [(line["event"], line.get("reason")) for line in lines] == [
        ("stands aside: its vote counts for nothing yet", "cut"),
        ("votes again: it has all that was acknowledged", None),
        (
            "stands aside: its vote counts for nothing yet",
            "its leader remembers more of its log than is there",
        ),
        ("votes again: it has all that was acknowledged", None),
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("all is there", []),
        ("the tail is torn", ["a torn tail of the log was cut off"]),
        ("the log is short", ["stands aside: its vote counts for nothing yet"]),
        ("the log is damaged", ["stands aside: its vote counts for nothing yet"]),
        (
            "the only voter's vote is damaged",
            ["term and vote were damaged, and are its own alone: it goes on in a later term"],
        ),
    ],
)
def test_what_was_found_at_the_start_is_said(row: str, said: list[str]) -> None:
    (found,) = [one for one in TABLE if one.name == row]
    report = StorageReport(cast("Callable[[], list[Replica]]", lambda: [a_member(2, found)]))
    with capture_logs() as lines:
        report.tick()
        report.tick()
    assert [line["event"] for line in lines] == said
