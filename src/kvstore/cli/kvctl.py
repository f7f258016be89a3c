"""The ``kvctl`` command: arguments in, an exit status and words out."""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

# gRPC's own log lines would stand between kvctl's. Set GRPC_VERBOSITY to see them.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import click

from kvstore.cli.commands import ALIASES, MEANT, SECTIONS
from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import Settings, connection_options, version_option
from kvstore.cli.interface.data_bytes import printable
from kvstore.cli.interface.lazy import LazyGroup, hyphens
from kvstore.cli.interface.output import OutputError, flush_output
from kvstore.errors import (
    BatchError,
    CorruptionError,
    DeadlineExceededError,
    Error,
    NotFoundError,
    NotLeaderError,
    Outcome,
    StorageError,
    UnauthenticatedError,
    UnavailableError,
)

__all__ = ["exit_code_of", "kvctl", "main", "run"]

HELP = """Talk to a kvstore server.

\b
Examples:
  kvctl put colour green           store a value
  kvctl get colour                 print it
  kvctl del colour                 remove it
  kvctl put photo - < cat.jpg      a value from standard input, byte for byte
  kvctl get photo > cat.jpg        and back
  kvctl list jobs/                 all keys that begin so
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
  141  whoever read the output has gone

Each option below can be set for a shell: KVCTL_ADDR for --addr, and so on. What the command line
says wins. The password of --user is in KVCTL_PASSWORD.
"""


@click.group(
    "kvctl",
    cls=LazyGroup,
    sections=SECTIONS,
    aliases=ALIASES,
    meant=MEANT,
    help=HELP,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": hyphens,
    },
)
@connection_options
@version_option
@click.pass_context
def kvctl(context: click.Context) -> None:
    context.ensure_object(Settings)


# What is said beside an error of a write.
_OUTCOMES = {
    Outcome.NOT_APPLIED: " (not applied)",
    Outcome.UNKNOWN: " (may have been applied)",
}

# What a server says, as etcd does, to whoever gave no name.
NOBODY = "user name is empty"

# What is wrong with a path that was given, or with who gave it, and not with a disk.
_PATH_ERRORS = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)


def exit_code_of(error: Error) -> ExitCode:
    """Return the exit status that stands for an error."""
    match error:
        case BatchError() if error.failures:
            return exit_code_of(next(iter(error.failures.values())))
        case UnavailableError() | NotLeaderError() | DeadlineExceededError():
            return ExitCode.UNAVAILABLE
        case CorruptionError():
            return ExitCode.DAMAGED
        case StorageError() if error.errno in _PATH_ERRORS:
            return ExitCode.FAILURE
        case StorageError():
            return ExitCode.DAMAGED
        case NotFoundError():
            return ExitCode.NOT_FOUND
        case _:
            return ExitCode.FAILURE


def run(arguments: Sequence[str], settings: Settings | None = None) -> int:
    """Do what ``arguments`` say; the exit status. Whatever goes wrong is told in a line.

    With ``settings``, those of a shell, they and not the environment say what arguments don't.
    """
    # Ctrl-C can come between a call and its first step: that is no news for whoever pressed it.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    try:
        status = _told(arguments, settings)
        flush_output()
        return status
    except OutputError as error:
        if error.closed:
            return ExitCode.OUTPUT_CLOSED  # as 'head' does: that is no news
        _complain(str(error))
        return ExitCode.FAILURE


def _told(arguments: Sequence[str], settings: Settings | None) -> int:
    try:
        return _run(arguments, settings)
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        _complain(error.format_message())
        return error.exit_code
    except click.Abort:
        return ExitCode.INTERRUPTED
    except Error as error:
        became = "" if error.outcome is None else _OUTCOMES[error.outcome]
        _complain(f"{_words(error)}{became}")
        return exit_code_of(error)
    except OSError as error:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        _complain(f"{where}{error.strerror or error}")
        return ExitCode.FAILURE


def _words(error: Error) -> str:
    if isinstance(error, UnauthenticatedError) and str(error) == NOBODY:
        return "this store asks for users: say who you are with --user NAME"
    return str(error)


def _run(arguments: Sequence[str], settings: Settings | None) -> int:
    try:
        status = kvctl.main(
            [*arguments],
            prog_name="kvctl",
            auto_envvar_prefix="KVCTL" if settings is None else None,
            standalone_mode=False,
            obj=settings or Settings(),
        )
    except SystemExit as ended:
        status = ended.code
    return status if isinstance(status, int) else ExitCode.OK


def _complain(words: str) -> None:
    click.echo(f"kvctl: {printable(words.encode('utf-8', 'surrogateescape'))}", err=True)


def main() -> NoReturn:
    """Run kvctl, and end the process with its status."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, _terminated)
        _open_streams()
        status = run(sys.argv[1:])
    except KeyboardInterrupt:  # before the command began, or once more after the first
        status = ExitCode.INTERRUPTED
    signal.signal(signal.SIGINT, _leave)
    # Nothing is left to be tidied up, and what Python does at its end takes as long as a call.
    os._exit(status)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """End as after Ctrl-C: what is held is given up, and what is half done removed."""
    sys.exit(ExitCode.TERMINATED)


def _open_streams() -> None:
    """No socket or file may get the number of a standard stream that was closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End at once: all is done."""
    os._exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main()
