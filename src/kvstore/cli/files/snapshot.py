"""``kvctl snapshot``: back a cluster up into a file, look at the file, begin a cluster from it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.lazy import LazyCommand, LazyGroup
from kvstore.cli.interface.output import tell
from kvstore.cli.interface.tables import size, table
from kvstore.errors import ConfigurationError, StorageError, UnavailableError
from kvstore.server.config.private_files import replacing

# What a member is made of takes twice as long to import as all else: each command gets its own.
if TYPE_CHECKING:
    from kvstore.client import Client
    from kvstore.replica.backup_file import BackupInfo

# Of one save: members that are stopped one after the other, as by an upgrade, cut off one or two.
TRANSFERS_MAX: Final = 3

file_argument = click.argument("file", type=click.Path(path_type=Path))


def _here(name: str, short_help: str, module: str = "snapshot") -> LazyCommand:
    return LazyCommand(f"kvstore.cli.files.{module}:{name}_command", short_help)


COMMANDS: Final = {
    "save": _here("save", "save all keys into a file"),
    "status": _here("status", "check a file and say what it holds"),
    "restore": _here("restore", "begin a new cluster with what a file holds"),
    "list": _here("list", "list the keys in a file", "snapshot_keys"),
    "get": _here("get", "print a value in a file", "snapshot_keys"),
    "diff": _here("diff", "say which keys differ between two files", "snapshot_keys"),
}


@click.group(
    "snapshot",
    cls=LazyGroup,
    sections={"Commands": COMMANDS},
    aliases={},
    meant={},
    short_help="save, check and restore backups",
)
def snapshot_group() -> None:
    """Save all keys into a file, check such a file, and begin a new cluster with what it holds.

    \b
    Examples:
      kvctl snapshot save monday.kvs
      kvctl snapshot status monday.kvs
      kvctl snapshot list monday.kvs jobs/
      kvctl snapshot get monday.kvs colour
      kvctl snapshot diff monday.kvs tuesday.kvs
      kvctl snapshot restore monday.kvs --config /etc/kvstore/kvd.toml    on each machine
      kvctl snapshot restore monday.kvs --data-dir ./data                 for an embedded kvd
    """


@click.command("save", short_help="save all keys into a file")
@file_argument
@click.option(
    "--stale",
    is_flag=True,
    help="Save what the member asked has, without a leader: for when a majority is lost.",
)
@connection_options
@click.pass_context
def save_command(context: click.Context, file: Path, stale: bool) -> None:
    """Save what the cluster holds now into FILE, while it serves.

    FILE holds every write that was acknowledged before. It appears under its name only once it is
    whole, checked and on disk; a file that exists is not replaced. --timeout bounds the wait for a
    member that can begin, not the transfer, which is begun anew, twice at most, where the member
    is stopped amid it.
    """
    if file.exists():
        raise ConfigurationError(f"{file} exists already; give another name")
    with settings_of(context).connect() as client:
        info = _save_whole(client, stale, file)
    _show(context, file, info, "saved")


def _save_whole(client: Client, stale: bool, file: Path) -> BackupInfo:
    """Save it, again where the member ends amid the transfer."""
    for left in reversed(range(TRANSFERS_MAX)):
        begun = False

        def pieces() -> Iterator[bytes]:
            nonlocal begun
            for piece in client.save_snapshot(stale=stale):
                begun = True
                yield piece

        try:
            return _save(pieces(), file)
        except UnavailableError:
            # Before the first piece the client has tried for as long as it was told to.
            if not (begun and left):
                raise
    raise AssertionError("the last one returns or raises")


def _save(pieces: Iterable[bytes], file: Path) -> BackupInfo:
    """Write and check the pieces; returns once the file is durable under its name."""
    from kvstore.replica.backup_file import BackupParser

    parser = BackupParser(str(file))
    try:
        # All keys and values are in it: nobody else may read it.
        with replacing(file) as output:
            for piece in pieces:
                parser.feed(piece)
                output.write(piece)
            info = parser.finish()
    except StorageError:
        raise
    except TimeoutError:  # a call's deadline, not the disk's
        raise
    except OSError as error:
        raise StorageError(
            f"failed to write: {error.strerror}", path=str(file), errno=error.errno
        ) from error
    return info


@click.command("status", short_help="check a file and say what it holds")
@file_argument
@connection_options
@click.pass_context
def status_command(context: click.Context, file: Path) -> None:
    """Read all of FILE, check every checksum, and say what it is a snapshot of.

    Exits with 5 when the file is damaged.
    """
    from kvstore.replica.backup_file import read_backup

    _show(context, file, read_backup(str(file)), "whole")


@click.command("restore", short_help="begin a new cluster with what a file holds")
@file_argument
@click.option(
    "--config",
    "configs",
    multiple=True,
    metavar="FILE",
    help="The configuration of a member of the new cluster; once for each to be made here.",
)
@click.option(
    "--data-dir",
    metavar="DATA_DIR",
    type=click.Path(path_type=Path),
    help="The data directory of a new embedded kvd.",
)
@connection_options
@click.pass_context
def restore_command(
    context: click.Context, file: Path, configs: tuple[str, ...], data_dir: Path | None
) -> None:
    """Make data directories that begin with what FILE holds; then start kvd on them.

    With --config they are those of a new cluster's members, which has a cluster_id of its own. Run
    it for every founder, on its machine, with the same FILE. Directories must be new or empty.
    Everything is checked before anything is made.
    """
    from kvstore.server.config.cluster_config import load_cluster_config
    from kvstore.server.nodes.restore import restore_cluster, restore_embedded

    if bool(configs) == (data_dir is not None):
        raise click.UsageError("give --config for members of a cluster, or --data-dir")
    if data_dir is not None:
        info = restore_embedded(str(file), data_dir)
    else:
        info = restore_cluster(str(file), [load_cluster_config(config) for config in configs])
    _show(context, file, info, "restored")


def _show(context: click.Context, file: Path, info: BackupInfo, outcome: str) -> None:
    fields = {"file": str(file), "outcome": outcome, "bytes": file.stat().st_size}
    saved_at = datetime.datetime.fromtimestamp(info.saved_at, datetime.UTC)
    columns = ("outcome", "cluster", "member", "index", "term", "revision", "size", "saved at")
    row = (
        outcome,
        info.cluster,
        str(info.member),
        str(info.index),
        str(info.term),
        str(info.revision),
        size(file.stat().st_size),
        f"{saved_at:%Y-%m-%dT%H:%M:%SZ}",
    )
    tell(context, fields | info._asdict(), *table(columns, [row]))
