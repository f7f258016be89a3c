"""``kvctl status``."""

from __future__ import annotations

import dataclasses

import click

from kvstore.cli.cluster.reports import Report, Reports, gather, lag_of
from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.data_bytes import in_line
from kvstore.cli.interface.output import tell
from kvstore.cli.interface.tables import size, table
from kvstore.client import MemberStatus

COLUMNS = (
    "member",
    "role",
    "term",
    "commit",
    "applied",
    "lag",
    "revision",
    "tables",
    "log",
    "free",
    "memory",
    "cache",
    "address",
)


@click.command("status", short_help="show members, leader, terms, indexes, disk and cache use")
@connection_options
@click.pass_context
def status_command(context: click.Context) -> None:
    """Show the members, and what each is doing.

    Give one address, or several: the others are found through the leader. Without a leader only
    the given ones are asked. Ends with 0 as soon as one member answers.

    \b
    Examples:
      kvctl status
      kvctl --addr db1:50051 status
      kvctl status --output=json | jq '.members[] | {member_id, role, lag}'
    """
    reports = gather(settings_of(context))
    tell(context, as_json(reports), *as_text(reports).split("\n"))


def as_json(reports: Reports) -> dict[str, object]:
    """Return everything that is known; a member that didn't answer has ``reachable`` false."""
    members: list[dict[str, object]] = []
    for report in reports.members:
        fields: dict[str, object] = {
            "member_id": report.member_id,
            "client_address": report.address,
            "reachable": report.said is not None,
        }
        if report.said is None:
            fields |= {"role": "unreachable", "fault": report.silence}
        else:
            fields |= dataclasses.asdict(report.said)
            fields |= {
                "lag": lag_of(report, reports),
                "version": report.version,
                "uptime_s": report.uptime_s,
            }
        members.append(fields)
    asked = reports.asked
    return {
        "version": asked.version,
        "mode": asked.mode,
        "leader_id": asked.leader_id,
        "uptime_s": asked.uptime_s,
        "warnings": list(asked.warnings),
        "members": members,
    }


def as_text(reports: Reports) -> str:
    """Return the reports as a heading and a table."""
    asked = reports.asked
    leader = f"leader {asked.leader_id}, " if asked.leader_id else "no leader, "
    said = in_line(f"kvd {asked.version}, {asked.mode}")
    if asked.mode == "rados":
        leader = ""  # a gateway has no members
    heading = f"{said}, {leader}up {_duration(asked.uptime_s)}"
    rows = [_row(report, reports) for report in reports.members]
    faults = []
    for report in reports.members:
        fault = report.silence if report.said is None else report.said.fault
        if fault:
            faults.append(f"member {report.member_id or '?'}: {in_line(fault)}")
        if report.said is not None:
            found = [in_line(finding) for finding in report.said.findings]
            faults += [f"member {report.member_id} finds: {finding}" for finding in found]
    # The members of an embedded kvd have no addresses of their own.
    shown = len(COLUMNS) if asked.mode == "cluster-node" else -1
    lines = table(COLUMNS[:shown], [row[:shown] for row in rows]) if rows else []
    warnings = [f"warning: {in_line(warning)}" for warning in asked.warnings]
    return "\n".join([heading, *lines, *faults, *_scrubs(reports), *warnings])


def _scrubs(reports: Reports) -> list[str]:
    """How far members are with reading and checking all that they hold; a line, if any does."""
    said = [
        _scrub(report.said)
        for report in reports.members
        if report.said is not None and report.said.scrub_progress >= 0
    ]
    return ["scrub: " + "; ".join(said)] if said else []


def _scrub(said: MemberStatus) -> str:
    words = f"member {said.member_id} {said.scrub_progress:.0%}"
    if said.scrub_ended_seconds >= 0:
        words += f", last round ended {_duration(said.scrub_ended_seconds)} ago"
    if said.scrub_damages:
        words += f", damages found: {said.scrub_damages}"
    return words


def _row(report: Report, reports: Reports) -> tuple[str, ...]:
    said = report.said
    if said is None:
        nothing = ["-"] * (len(COLUMNS) - 3)
        return (str(report.member_id or "-"), "unreachable", *nothing, report.address)
    return (
        str(said.member_id),
        said.role,
        str(said.term),
        str(said.commit_index),
        str(said.applied_index),
        str(lag_of(report, reports)),
        str(said.revision),
        size(said.table_bytes),
        size(said.log_bytes),
        size(said.free_bytes),
        size(said.memory_bytes),
        size(said.cache_bytes),
        report.address,
    )


def _duration(seconds: float) -> str:
    minutes, whole_seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (whole_seconds, "s")]
    largest = next((i for i, (amount, _) in enumerate(parts) if amount), 3)
    return " ".join(f"{amount}{unit}" for amount, unit in parts[largest : largest + 2])
