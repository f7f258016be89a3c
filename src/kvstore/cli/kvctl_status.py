"""``kvctl status``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import click

from kvstore.cli.kvctl_connection import connection_options, settings_of
from kvstore.client import ClusterStatus

COLUMNS = ("member", "role", "term", "commit", "applied", "last", "revision", "address")


@click.command("status", short_help="show members, leader, terms and indexes")
@connection_options
@click.pass_context
def status_command(context: click.Context) -> None:
    """Show the members that the server knows, and what each is doing.

    \b
    Examples:
      kvctl status
      kvctl status --output=json | jq .leader_id
    """
    settings = settings_of(context)
    with settings.connect() as client:
        status = client.status()
    if settings.output == "json":
        click.echo(json.dumps(dataclasses.asdict(status)))
    else:
        click.echo(as_text(status))


def as_text(status: ClusterStatus) -> str:
    """Return the status as a heading and a table."""
    leader = f"leader {status.leader_id}" if status.leader_id else "no leader"
    heading = f"kvd {status.version}, {status.mode}, {leader}, up {_duration(status.uptime_s)}"
    rows = [
        (
            str(member.member_id),
            member.role,
            str(member.term),
            str(member.commit_index),
            str(member.applied_index),
            str(member.last_index),
            str(member.revision),
            member.client_address,
        )
        for member in status.members
    ]
    faults = [f"member {m.member_id}: {m.fault}" for m in status.members if m.fault]
    # The members of an embedded kvd have no addresses of their own.
    shown = len(COLUMNS) if any(member.client_address for member in status.members) else -1
    lines = table(COLUMNS[:shown], [row[:shown] for row in rows])
    return "\n".join([heading, *lines, *faults])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of aligned columns; numbers to the right, words to the left."""
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    numeric = [bool(rows) and all(row[i].isdecimal() for row in rows) for i in range(len(columns))]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    ]


def _duration(seconds: float) -> str:
    minutes, whole_seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (whole_seconds, "s")]
    largest = next((i for i, (amount, _) in enumerate(parts) if amount), 3)
    return " ".join(f"{amount}{unit}" for amount, unit in parts[largest : largest + 2])
