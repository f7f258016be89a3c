"""``kvctl incr`` and ``kvctl edit``: a value is read, changed, and written if it is still so."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.data_bytes import in_words, read_key
from kvstore.cli.interface.keys import DataCommand, complete_keys, hex_option
from kvstore.cli.interface.output import tell_data
from kvstore.client import Client, Draft, KeyValue, Put

__all__ = ["edit_command", "incr_command"]

INTEGER = re.compile(rb"[+-]?[0-9]{1,19}")
INTEGER_MIN, INTEGER_MAX = -(1 << 63), (1 << 63) - 1
DEFAULT_EDITOR = "vi"


@click.command("incr", cls=DataCommand, short_help="add to a number")
@click.argument("key", shell_complete=complete_keys)
@click.argument("by", type=click.IntRange(INTEGER_MIN, INTEGER_MAX), default=1, metavar="[BY]")
@hex_option
@connection_options
@click.pass_context
def incr_command(context: click.Context, key: str, by: int, hexadecimal: bool) -> None:
    """Add BY, or 1, to the number in decimal digits under KEY, and print what it is then.

    A KEY without a value counts as 0. Of any number of callers each adds what it adds. Numbers have
    64 bits and a sign.

    \b
    Examples:
      kvctl incr visits
      kvctl incr stock -- -5
    """
    wanted = read_key(key, hexadecimal=hexadecimal)

    def add(draft: Draft) -> int:
        number = _number(wanted, draft.get(wanted) or b"0", hexadecimal) + by
        if not INTEGER_MIN <= number <= INTEGER_MAX:
            raise click.ClickException(f"{number} has more than 64 bits; nothing was changed")
        draft.put(wanted, b"%d" % number)
        return number

    with settings_of(context).connect() as client:
        number = client.transact(add)
    tell_data(context, {"key": wanted, "number": number}, str(number), hexadecimal=hexadecimal)


def _number(key: bytes, value: bytes, hexadecimal: bool) -> int:
    if INTEGER.fullmatch(value) is None:
        shown = in_words(key, hexadecimal=hexadecimal)
        raise click.ClickException(f"the value of {shown} is no number; nothing was changed")
    return int(value)


@click.command("edit", cls=DataCommand, short_help="change a value in an editor")
@click.argument("key", shell_complete=complete_keys)
@hex_option
@connection_options
@click.pass_context
def edit_command(context: click.Context, key: str, hexadecimal: bool) -> None:
    """Open the value of KEY in $VISUAL or $EDITOR, and store what it is when that ends.

    Nothing is stored if the editor fails, if nothing was changed, or if somebody else changed KEY
    meanwhile: then what was written is kept in a file that is named. An end of line that the editor
    added at the end goes again.

    \b
    Examples:
      kvctl edit config/app.toml
      EDITOR="code --wait" kvctl edit config/app.toml
    """
    wanted = read_key(key, hexadecimal=hexadecimal)
    with settings_of(context).connect() as client:
        entry = client.get_entry(wanted)
        before = b"" if entry is None else entry.value
        with tempfile.TemporaryDirectory(prefix="kvctl-edit-") as directory:
            file = Path(directory) / _name_for(wanted)
            file.write_bytes(before)
            _run_editor(file)
            after = _without_added_end(before, file.read_bytes())
        if after == before:
            shown = {"key": wanted, "changed": False}
            tell_data(context, shown, "nothing was changed", hexadecimal=hexadecimal)
            return
        if not _store(client, wanted, after, entry):
            _keep(wanted, after, hexadecimal)
    tell_data(context, {"key": wanted, "changed": True}, "stored", hexadecimal=hexadecimal)


def _name_for(key: bytes) -> str:
    """With the key's own ending, by which editors know what it is."""
    ending = Path(os.fsdecode(key.rsplit(b"/", 1)[-1])).suffix
    return "value" + (ending if re.fullmatch(r"\.[A-Za-z0-9]{1,16}", ending) else "")


def _run_editor(file: Path) -> None:
    """Raises ClickException where it can't be run, or fails."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or DEFAULT_EDITOR
    try:
        ended = subprocess.run([*shlex.split(editor), str(file)], check=False)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"can't run the editor {editor!r}: {error}") from error
    if ended.returncode:
        raise click.ClickException(
            f"the editor ended with status {ended.returncode}; nothing was changed"
        )


def _without_added_end(before: bytes, after: bytes) -> bytes:
    if after.endswith(b"\n") and not before.endswith(b"\n") and before:
        return after[:-1]
    return after


def _store(client: Client, key: bytes, value: bytes, entry: KeyValue | None) -> bool:
    """False: somebody else has changed it."""
    revision = 0 if entry is None else entry.mod_revision
    lease = entry.lease if entry is not None and entry.lease else None
    return (
        client.transaction()
        .if_(client.key(key).mod_revision == revision)
        .then(Put(key, value, lease=lease))
        .commit()
        .succeeded
    )


def _keep(key: bytes, value: bytes, hexadecimal: bool) -> None:
    """Nobody's work is thrown away."""
    number, path = tempfile.mkstemp(prefix="kvctl-edit-")
    with open(number, "wb") as file:
        file.write(value)
    shown = in_words(key, hexadecimal=hexadecimal)
    click.echo(
        f"kvctl: {shown} was changed by somebody else meanwhile; nothing was stored, and what you "
        f"wrote is in {path}",
        err=True,
    )
    sys.exit(ExitCode.FAILURE)
