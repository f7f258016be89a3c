"""``kvctl repair``: members check all that they hold and repair it; a library's database, too."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.output import tell
from kvstore.client import Client, Repairs
from kvstore.errors import (
    AlreadyOpenError,
    ConfigurationError,
    CorruptionError,
    IntegrityCode,
    StorageError,
)

__all__ = ["repair_command", "repair_database"]

LOOK_S = 0.5
"""Between two questions how far it is."""


@click.command("repair", short_help="check all that members hold, and repair it")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@connection_options
@click.pass_context
def repair_command(context: click.Context, directory: Path | None) -> int:
    """Have each member of --addr read and check all that it holds, and wait until it is whole.

    What is damaged it repairs by itself, while it serves: its state it gets anew from its leader.
    The check takes all that the disk gives; a member checks itself at leisure as well.

    With DIRECTORY that of a library's database that nobody has open is made openable again with
    all in it that is provably whole (repair_db): what is gone is gone, so try a backup first.

    \b
    Examples:
      kvctl --addr db1:50051,db2:50051,db3:50051 repair
      kvctl repair ./my-database

    Exits with 5 where a member has stopped, or something of the database is lost.
    """
    if directory is not None:
        return repair_database(context, directory)
    settings = settings_of(context)
    ended: list[Repairs] = []
    for address in settings.addr.split(","):
        with settings.connect(address) as client:
            ended += _await(client, address)
    tell(context, [dataclasses.asdict(member) for member in ended])
    stopped = any(member.fault for member in ended)
    return ExitCode.DAMAGED if stopped else ExitCode.OK


def _await(client: Client, address: str) -> tuple[Repairs, ...]:
    """Begin, and tell of it until every member there is whole or has stopped."""
    before = {member.member_id: member for member in client.repair()}
    client.repair(begin=True)
    told: dict[int, str] = {}
    while True:
        now = client.repair()
        for member in now:
            line = _line(member, before.get(member.member_id, member))
            if told.get(member.member_id) != line:
                told[member.member_id] = line
                click.echo(f"{address} member {member.member_id}: {line}", err=True)
        if all(_is_over(member, before.get(member.member_id, member)) for member in now):
            return now
        time.sleep(LOOK_S)


def _is_over(member: Repairs, before: Repairs) -> bool:
    if member.fault:
        return True
    return member.checks > before.checks and not member.repairing


def _line(member: Repairs, before: Repairs) -> str:
    if member.fault:
        return f"has stopped: {member.fault}"
    if member.repairing:
        return member.repairing
    if member.checks > before.checks:
        done = member.repairs_done - before.repairs_done
        return f"whole; repairs done meanwhile: {done}"
    # In tenths: a line each.
    return f"checked {int(member.checked * 10) * 10} %"


def repair_database(context: click.Context, directory: Path) -> int:
    """Of a library: make it openable again, and say what came of it; the exit status."""
    from kvstore.engine import repair_db

    try:
        report = repair_db(directory, progress=_tell_progress)
    except AlreadyOpenError as error:
        raise ConfigurationError(f"{directory} is in use: close it first") from error
    except CorruptionError:
        raise
    except StorageError as error:
        if error.code is not IntegrityCode.INVALID_MAGIC:
            raise
        raise ConfigurationError(
            f"{directory} holds no kvstore database; nothing was touched"
        ) from error
    lost = bool(report.lost or report.log_damage or report.missing_sequences)
    fields = {
        "actions": report.actions,
        "tables_whole": report.tables_whole,
        "tables_salvaged": report.tables_salvaged,
        "lost": [{"table": one.table, "entries": one.entries} for one in report.lost],
        "old_may_be_back": report.old_may_be_back,
    }
    tell(context, fields, *(str(report) or "there was nothing to do").split("\n"))
    return ExitCode.DAMAGED if lost else ExitCode.OK


def _tell_progress(what: str, done: int, total: int) -> None:
    if done == total or done % 100 == 0:
        click.echo(f"{what}: {done} of {total}", err=True)
