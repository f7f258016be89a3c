"""``kvctl health``."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import Settings, connection_options, settings_of
from kvstore.cli.interface.output import tell
from kvstore.client import Client
from kvstore.client.health import Health
from kvstore.errors import ConfigurationError, UnavailableError

LOOK_INTERVAL_S = 0.2


@click.command("health", short_help="ask servers whether they can serve")
@click.option("--local", is_flag=True, help="Only whether they answer, a leader or none.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Ask again for so long until they can. [default: 0]",
)
@connection_options
@click.pass_context
def health_command(context: click.Context, local: bool, wait_s: float) -> None:
    """Ask each server of --addr, by gRPC's health protocol, whether it can serve: there is a
    leader, and its storage works.

    Ends with 0 if all can, else with 4. With --local it is enough that they answer: a probe of
    liveness must not ask for a leader. --dir asks over the socket, without certificates.

    \b
    Examples:
      kvctl health                            readiness
      kvctl --dir /var/lib/kvstore health --local
      kvctl --addr db1:50051,db2:50051 health --wait 30
    """
    until = time.monotonic() + wait_s
    with _connected(settings_of(context), until) as client:
        while True:
            found = client.health()
            well = all(one.serving or (local and _answered(one)) for one in found)
            if well or time.monotonic() >= until:
                break
            _pause(until)
    fields = {
        "healthy": well,
        "servers": [
            {"address": one.address, "serving": one.serving, "reason": _reason(one)}
            for one in found
        ],
    }
    lines = [
        f"{one.address} serves" if one.serving else f"{one.address} doesn't serve: {_reason(one)}"
        for one in found
    ]
    tell(context, fields, *lines)
    if not well:
        sys.exit(ExitCode.UNAVAILABLE)


def _connected(settings: Settings, until: float) -> AbstractContextManager[Client]:
    """A client; of a directory once a kvd has its socket there. Raises UnavailableError."""
    while True:
        try:
            return settings.connect()
        except ConfigurationError as error:
            if settings.directory is None:
                raise
            if time.monotonic() >= until:
                raise UnavailableError(str(error)) from error
        _pause(until)


def _pause(until: float) -> None:
    time.sleep(min(LOOK_INTERVAL_S, max(0.0, until - time.monotonic())))


def _answered(one: Health) -> bool:
    return one.error is None


def _reason(one: Health) -> str:
    return "" if one.serving else str(one.error or "no leader, or its storage takes no writes")
