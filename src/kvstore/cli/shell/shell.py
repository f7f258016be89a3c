"""``kvctl shell``: one command after the other, over one connection."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import (
    KeptClients,
    Settings,
    connection_options,
    settings_of,
)
from kvstore.extras import install_line

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

__all__ = ["shell_command"]

HISTORY_VARIABLE = "XDG_STATE_HOME"
HISTORY_DIRECTORY = "~/.local/state"
PROMPT = "kvctl> "
ENDING = ("exit", "quit")
HELP = ("help", "?")


@click.command("shell", short_help="one command after the other, connected")
@connection_options
@click.pass_context
def shell_command(context: click.Context) -> int:
    """Read commands as kvctl has them, without its name, and do one after the other over one
    connection. On a terminal with history and completion (package prompt_toolkit, extra cli);
    else from standard input, where # begins a comment.

    Ctrl-C ends a command, Ctrl-D or 'exit' the shell. Options said here are those of each command
    that doesn't say others. The history is in ~/.local/state/kvctl/history, which nobody else may
    read. Ends with the status of the last command.

    \b
    Examples:
      kvctl --addr db1:50051 shell
      kvctl shell < commands.txt
    """
    settings = settings_of(context)
    group = context.find_root().command
    assert isinstance(group, click.Group)
    kept = KeptClients()
    settings.kept = kept
    try:
        on_terminal = sys.stdin is not None and sys.stdin.isatty()
        lines = _asked(group, settings) if on_terminal else _read()
        return _do_all(lines, settings)
    finally:
        kept.close()


def _do_all(lines: Iterator[str], settings: Settings) -> int:
    """Do what each line says; the last one's status."""
    from kvstore.cli.kvctl import run

    status: int = ExitCode.OK
    for line in lines:
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            click.echo(f"kvctl: {error}", err=True)
            status = ExitCode.USAGE
            continue
        if not words:
            continue
        if words[0] in ENDING:
            break
        if words[0] in HELP:
            words = [*words[1:], "--help"]
        if words[0] == "shell":
            click.echo("kvctl: this is a shell already", err=True)
            status = ExitCode.USAGE
            continue
        # Options of one command aren't those of the next.
        status = run(words, dataclasses.replace(settings))
    return status


def _read() -> Iterator[str]:
    if sys.stdin is not None:
        yield from sys.stdin


def _asked(group: click.Group, settings: Settings) -> Iterator[str]:
    session = _session(group, settings)
    while True:
        try:
            yield session.prompt(PROMPT)
        except KeyboardInterrupt:
            continue  # the line is given up
        except EOFError:
            return


def _session(group: click.Group, settings: Settings) -> PromptSession[str]:
    """Raises ClickException where the package isn't there."""
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory, InMemoryHistory

        from kvstore.cli.shell.words import Words
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"kvctl shell on a terminal needs the 'prompt_toolkit' package: {install_line('cli')}"
        ) from error
    file = _history_file()
    history = InMemoryHistory() if file is None else FileHistory(str(file))
    return PromptSession(
        history=history,
        completer=Words(group, settings),
        complete_while_typing=False,
        enable_history_search=True,
    )


def _history_file() -> Path | None:
    """Where history is kept, which nobody else may read; None where it can't be."""
    base = os.environ.get(HISTORY_VARIABLE) or os.path.expanduser(HISTORY_DIRECTORY)
    file = Path(base) / "kvctl" / "history"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError:
        return None
    return file
