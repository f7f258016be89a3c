"""``kvctl lock`` and ``kvctl elect``: they hold until Ctrl-C, SIGTERM or their command's end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.data_bytes import in_words, read_key, read_value
from kvstore.cli.interface.entries import entry_fields
from kvstore.cli.interface.keys import hex_option
from kvstore.cli.interface.output import tell_data
from kvstore.client import Client, KeyValue, Lock
from kvstore.client.options import LOCK_TTL_S
from kvstore.errors import LeaseLostError

# How long the command of a lock that was lost has to end by itself, and how often it is looked at.
KILL_AFTER_S = 10.0
LOOK_S = 0.2

ttl_option = click.option(
    "--ttl",
    type=click.FloatRange(min=0, min_open=True),
    default=LOCK_TTL_S,
    metavar="SECONDS",
    show_default=True,
    help="How long it outlives this process if that is killed.",
)
wait_option = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Give up after this long, with status 4. [default: never]",
)


@click.command(
    "lock",
    short_help="hold a lock, or run a command under it",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@ttl_option
@wait_option
@hex_option
@connection_options
@click.pass_context
def lock_command(
    context: click.Context,
    name: str,
    command: Sequence[str],
    ttl: float,
    wait: float | None,
    hexadecimal: bool,
) -> None:
    """Wait for the lock NAME and hold it until Ctrl-C, or while COMMAND runs.

    \b
    Examples:
      kvctl lock reports                   prints its key and fence, and holds it
      kvctl lock reports -- make report    exits with the command's status

    The command has KVCTL_LOCK_KEY and KVCTL_LOCK_FENCE in its environment. If the lock is lost it
    is sent SIGTERM, and after 10 s SIGKILL. A holder that stood still for longer than --ttl doesn't
    know that another one has it: what must not be done twice needs the fence (docs/clients.md).
    Locks of etcdctl with the same name queue with these.
    """
    lock_name = read_key(name, hexadecimal=hexadecimal)
    with (
        settings_of(context).connect() as client,
        client.lock(lock_name, ttl=ttl, wait=wait) as lock,
    ):
        if not command:
            _hold(context, lock, hexadecimal)
        status = _run(command, lock)
    sys.exit(status)


def _hold(context: click.Context, lock: Lock, hexadecimal: bool) -> NoReturn:
    """Say that it is held, and do so until it is lost."""
    _say_held(context, lock, hexadecimal)
    lock.wait_lost()
    raise LeaseLostError(f"lost what {lock.key!r} stood for: its lease has expired")


def _say_held(context: click.Context, lock: Lock, hexadecimal: bool) -> None:
    key = in_words(lock.key, hexadecimal=hexadecimal)
    fields: dict[str, object] = {"key": lock.key, "fence": lock.fence}
    tell_data(context, fields, f"{key}\t{lock.fence}", hexadecimal=hexadecimal)


def _run(command: Sequence[str], lock: Lock) -> int:
    """The command's status. Raises LeaseLostError if the lock was lost meanwhile."""
    environment = {
        **os.environ,
        "KVCTL_LOCK_KEY": os.fsdecode(lock.key),
        "KVCTL_LOCK_FENCE": str(lock.fence),
    }
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        raise click.ClickException(f"can't run {command[0]}: {error.strerror}") from error
    try:
        while True:
            try:
                return _shell_status(process.wait(LOOK_S))
            except subprocess.TimeoutExpired:
                lock.check()
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _shell_status(status: int) -> int:
    """As a shell says that a signal ended it."""
    return 128 - status if status < 0 else status


@click.command("elect", short_help="lead, or see who does")
@click.argument("name")
@click.argument("value", required=False)
@click.option("-l", "--listen", is_flag=True, help="Print who leads, whenever that changes.")
@ttl_option
@wait_option
@hex_option
@connection_options
@click.pass_context
def elect_command(
    context: click.Context,
    name: str,
    value: str | None,
    listen: bool,
    ttl: float,
    wait: float | None,
    hexadecimal: bool,
) -> None:
    """Campaign in the election NAME with VALUE; once elected, say so and lead until Ctrl-C.

    \b
    Examples:
      kvctl elect scheduler host-3     prints its key and fence when it leads
      kvctl elect scheduler --listen   prints the key and value of each leader, until Ctrl-C

    Candidates of etcdctl with the same name queue with these.
    """
    if listen == (value is not None):
        raise click.UsageError("give a VALUE to campaign with, or --listen.")
    election_name = read_key(name, hexadecimal=hexadecimal)
    with settings_of(context).connect() as client:
        if value is None:
            _listen(context, client, election_name, hexadecimal)
            return
        candidate = read_value(value, hexadecimal=hexadecimal)
        with client.election(election_name, ttl=ttl).campaign(candidate, wait=wait) as leadership:
            _hold(context, leadership, hexadecimal)


def _listen(context: click.Context, client: Client, name: bytes, hexadecimal: bool) -> None:
    for leader in client.election(name).observe():
        _say_leader(context, leader, hexadecimal)


def _say_leader(context: click.Context, leader: KeyValue, hexadecimal: bool) -> None:
    key = in_words(leader.key, hexadecimal=hexadecimal)
    value = in_words(leader.value, hexadecimal=hexadecimal)
    tell_data(context, entry_fields(leader), f"{key}\t{value}", hexadecimal=hexadecimal)
