"""``kvctl top``: members on a live screen."""

from __future__ import annotations

import sys
import time
from functools import partial

import click

from kvstore.addresses import HostPort
from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.durations import duration_type
from kvstore.cli.interface.output import tell
from kvstore.cli.interface.tables import table
from kvstore.cli.measuring.figures import COLUMNS, Moment, faults, heading, look, rows
from kvstore.extras import install_line

__all__ = ["top_command"]

EVERY_S_MIN = 0.2


@click.command("top", short_help="watch members on a live screen")
@click.option(
    "--every",
    "every_s",
    type=duration_type,
    default="2",
    metavar="SECONDS",
    show_default=True,
    help="Between two looks; 0.2 at least.",
)
@click.option(
    "--metrics",
    default="",
    metavar="HOST:PORT[,...]",
    help="Where members serve metrics: shows calls a second and how long they take.",
)
@click.option("--once", is_flag=True, help="Look twice, print what is seen then, and end.")
@connection_options
@click.pass_context
def top_command(context: click.Context, every_s: float, metrics: str, once: bool) -> None:
    """Show the members, who leads, what they write, how far they lag and what they take, until q or
    Ctrl-C. Needs a terminal and the package textual (extra cli); --once needs neither.

    \b
    Examples:
      kvctl top
      kvctl top --every 1 --metrics db1:9100,db2:9100,db3:9100
      kvctl top --once
    """
    addresses = [address for address in metrics.split(",") if address]
    for address in addresses:
        if HostPort.parse(address) is None:
            raise click.UsageError(f"--metrics is HOST:PORT, and not {address!r}.")
    every_s = max(EVERY_S_MIN, every_s)
    asking = partial(look, settings_of(context), addresses)
    if once:
        _print(context, every_s, asking)
        return
    if not _has_terminal():
        raise click.UsageError("there is no terminal to show it on: --once prints it.")
    try:
        from kvstore.cli.measuring.screen import Screen
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"kvctl top needs the 'textual' package: {install_line('cli')}"
        ) from error
    Screen(asking, every_s).run()


def _has_terminal() -> bool:
    streams = (sys.stdin, sys.stdout)
    return all(stream is not None and stream.isatty() for stream in streams)


def _print(context: click.Context, every_s: float, asking: partial[Moment]) -> None:
    before = asking()
    time.sleep(every_s)
    now = asking()
    members = [dict(zip(COLUMNS, row, strict=True)) for row in rows(before, now)]
    said = heading(before, now)
    tell(
        context,
        {"heading": said, "members": members, "faults": faults(now)},
        said,
        *table(COLUMNS, rows(before, now)),
        *faults(now),
    )
