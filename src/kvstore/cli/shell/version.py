"""``kvctl version``."""

from __future__ import annotations

import platform

import click

from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.output import tell
from kvstore.version import version

__all__ = ["version_command"]


@click.command("version", short_help="show versions")
@click.option("--server", is_flag=True, help="Of each server as well.")
@connection_options
@click.pass_context
def version_command(context: click.Context, server: bool) -> None:
    """Show the version of kvctl and of Python, and with --server that of each member.

    \b
    Examples:
      kvctl version
      kvctl version --server -o json
    """
    fields: dict[str, object] = {"kvctl": version(), "python": platform.python_version()}
    lines = [f"kvctl {version()}, Python {platform.python_version()}"]
    if server:
        from kvstore.cli.cluster.reports import gather

        reports = gather(settings_of(context))
        members = [
            {"member_id": one.member_id, "address": one.address, "version": one.version or None}
            for one in reports.members
        ]
        fields |= {"server": reports.asked.version, "members": members}
        lines.append(f"kvd {reports.asked.version}")
        lines += [
            f"member {one.member_id or '?'} at {one.address}: {one.version or 'no answer'}"
            for one in reports.members
        ]
    tell(context, fields, *lines)
