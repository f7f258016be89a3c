"""The ``kvctl`` command: arguments in, exit codes and words out."""

from __future__ import annotations

import os
import sys
import warnings

# gRPC's own log lines would stand between kvctl's. Set GRPC_VERBOSITY to see them.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import click

from kvstore.cli.access.auth import auth_group
from kvstore.cli.access.pki import pki_group
from kvstore.cli.access.role import role_group
from kvstore.cli.access.user import user_group
from kvstore.cli.cluster.console import console_command
from kvstore.cli.cluster.local import cluster_group
from kvstore.cli.cluster.member import leader_group, member_group
from kvstore.cli.cluster.repair import repair_command
from kvstore.cli.cluster.status import status_command
from kvstore.cli.cluster.upkeep import alarm_group, defrag_command
from kvstore.cli.data.txn import txn_command
from kvstore.cli.data.values import delete_command, get_command, put_command
from kvstore.cli.data.watch import compact_command, history_command, watch_command
from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.files.snapshot import snapshot_group
from kvstore.cli.files.verify import verify_command
from kvstore.cli.holding.lease import lease_group
from kvstore.cli.holding.lock import elect_command, lock_command
from kvstore.cli.interface.connection import Settings, connection_options, version_option
from kvstore.cli.interface.data_bytes import printable
from kvstore.errors import (
    DeadlineExceededError,
    Error,
    NotFoundError,
    NotLeaderError,
    Outcome,
    StorageError,
    UnavailableError,
)

HELP = """Talk to a kvstore server.

\b
Examples:
  kvctl put colour green           store a value
  kvctl get colour                 print it
  kvctl del colour                 remove it
  kvctl put photo - < cat.jpg      a value from standard input, byte for byte
  kvctl get photo > cat.jpg        and back
  kvctl get --prefix jobs/         all keys that begin so
  kvctl watch --prefix jobs/       their changes as they come
  kvctl put --hex 00ff 68656c6c6f  keys and values that can't be typed
  kvctl --addr db1:50051,db2:50051 --tls-ca ca.pem status

\b
Exit status:
  0  done
  1  refused, or failed
  2  wrong usage
  3  the key has no value, or there is no such lease, user or role
  4  no server, no leader, or no answer in time: try again
  5  stored data is damaged, at the server, in a snapshot file or in what was verified
  130  Ctrl-C
"""


@click.group(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@connection_options
@version_option
@click.pass_context
def kvctl(context: click.Context) -> None:
    context.ensure_object(Settings)


kvctl.add_command(put_command)
kvctl.add_command(get_command)
kvctl.add_command(delete_command)
kvctl.add_command(txn_command)
kvctl.add_command(watch_command)
kvctl.add_command(history_command)
kvctl.add_command(compact_command)
kvctl.add_command(alarm_group)
kvctl.add_command(defrag_command)
kvctl.add_command(lease_group)
kvctl.add_command(lock_command)
kvctl.add_command(elect_command)
kvctl.add_command(status_command)
kvctl.add_command(cluster_group)
kvctl.add_command(console_command)
kvctl.add_command(member_group)
kvctl.add_command(leader_group)
kvctl.add_command(snapshot_group)
kvctl.add_command(verify_command)
kvctl.add_command(repair_command)
kvctl.add_command(pki_group)
kvctl.add_command(auth_group)
kvctl.add_command(user_group)
kvctl.add_command(role_group)


# What is said beside an error of a write.
_OUTCOMES = {
    Outcome.NOT_APPLIED: " (not applied)",
    Outcome.UNKNOWN: " (may have been applied)",
}


def exit_code_of(error: Error) -> ExitCode:
    """Return the exit status that stands for an error of the client."""
    match error:
        case UnavailableError() | NotLeaderError() | DeadlineExceededError():
            return ExitCode.UNAVAILABLE
        case StorageError():
            return ExitCode.DAMAGED
        case NotFoundError():
            return ExitCode.NOT_FOUND
        case _:
            return ExitCode.FAILURE


def main() -> None:
    """Run kvctl and exit with its status."""
    # Ctrl-C can come between a call and its first step: that is no news for whoever pressed it.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    try:
        status = kvctl.main(prog_name="kvctl", auto_envvar_prefix="KVCTL", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else ExitCode.OK)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(ExitCode.INTERRUPTED)
    except Error as error:
        became = "" if error.outcome is None else _OUTCOMES[error.outcome]
        click.echo(f"kvctl: {printable(str(error).encode())}{became}", err=True)
        sys.exit(exit_code_of(error))


if __name__ == "__main__":
    main()
