"""``kvctl alarm`` and ``kvctl defrag``: what has a store refuse writes, and making room."""

from __future__ import annotations

import click

from kvstore.cli.cluster.reports import gather
from kvstore.cli.interface.connection import Settings, connection_options, settings_of
from kvstore.cli.interface.data_bytes import in_line
from kvstore.cli.interface.output import is_json, tell
from kvstore.client import Alarm
from kvstore.errors import Error


@click.group("alarm", short_help="list and disarm what has writes refused")
def alarm_group() -> None:
    """Alarms: what a member found wrong, for which all of them refuse writes.

    \b
    Examples: a store that has reached its quota
      kvctl alarm list
      kvctl del --prefix old/
      kvctl compact --physical 4711
      kvctl defrag --cluster
      kvctl alarm disarm
    """


@alarm_group.command("list", short_help="show the alarms that stand")
@connection_options
@click.pass_context
def list_command(context: click.Context) -> None:
    """Print a line for each alarm that stands: the member that raised it, and its kind."""
    with settings_of(context).connect() as client:
        _show(context, client.maintenance.alarms())


@alarm_group.command("disarm", short_help="end all alarms")
@connection_options
@click.pass_context
def disarm_command(context: click.Context) -> None:
    """End all alarms, and print those. One whose reason is still there comes back."""
    with settings_of(context).connect() as client:
        _show(context, client.maintenance.disarm())


def _show(context: click.Context, alarms: list[Alarm]) -> None:
    tell(
        context,
        {"alarms": [alarm._asdict() for alarm in alarms]},
        *(f"memberID:{alarm.member_id} alarm:{alarm.kind}" for alarm in alarms),
    )


@click.command("defrag", short_help="give back the room of what was deleted")
@click.option("--cluster", is_flag=True, help="All members that --addr knows of, not it alone.")
@connection_options
@click.pass_context
def defrag_command(context: click.Context, cluster: bool) -> None:
    """Have each member of --addr give back the room of what was deleted and compacted, in turn.

    They serve meanwhile. It may take long: see --timeout. For operators, but on a kvd of the dev
    profile.

    \b
    Examples:
      kvctl --addr db1:50051,db2:50051 --timeout 600 defrag
      kvctl --dir DATA_DIR --timeout 600 defrag
    """
    settings = settings_of(context)
    results: list[dict[str, object]] = []
    first: Error | None = None
    for address in _members(settings) if cluster else settings.addr.split(","):
        try:
            with settings.connect(address) as client:
                client.maintenance.defragment()
        except Error as error:
            # The others may go well; the status is this one's.
            first = first or error
            results.append({"address": address, "error": str(error)})
        else:
            results.append({"address": address})
        if not is_json(context):
            _tell(context, results[-1])
    if is_json(context):
        tell(context, {"members": results})
    if first is not None:
        raise first


def _tell(context: click.Context, result: dict[str, object]) -> None:
    if "error" in result:
        click.echo(
            in_line(f"failed to defragment {result['address']}: {result['error']}"), err=True
        )
    else:
        tell(context, result, f"finished defragmenting {result['address']}")


def _members(settings: Settings) -> list[str]:
    """Where clients reach the members; an embedded kvd where it was reached."""
    return [*dict.fromkeys(report.address for report in gather(settings).members)]
