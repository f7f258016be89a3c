"""``kvctl put``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.holding.lease import lease_id
from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.data_bytes import in_words, read_key, read_value, read_value_file
from kvstore.cli.interface.durations import duration_type
from kvstore.cli.interface.entries import entry_fields
from kvstore.cli.interface.keys import DataCommand, complete_keys, hex_option
from kvstore.cli.interface.output import tell_data
from kvstore.client import Client, Get, KeyValue, Put
from kvstore.errors import Error, Outcome

__all__ = ["check_retry", "put_command", "request_id_option", "retry_option"]

request_id_option = click.option(
    "--request-id",
    metavar="ID",
    help="Identity of this write, to repeat one whose outcome is unknown. [default: a new one]",
)
retry_option = click.option(
    "--retry", is_flag=True, help="With --request-id: it may have been sent before."
)


def check_retry(request_id: str | None, retry: bool) -> None:
    """Raises UsageError."""
    if retry and request_id is None:
        raise click.UsageError("--retry needs the --request-id that was sent before")


class Wanted(NamedTuple):
    """What is to be stored, and on which condition."""

    key: bytes
    value: bytes
    lease: int | None
    if_revision: int | None
    """0: if there is no such key."""
    previous: bool
    request_id: str | None
    retry: bool

    @property
    def is_plain(self) -> bool:
        """No transaction: a write of its own, with an identity."""
        return self.if_revision is None and not self.previous


class Stored(NamedTuple):
    """What came of it; ``stored`` false: the condition didn't hold."""

    stored: bool
    overwritten: bool
    previous: KeyValue | None = None
    revision: int = 0
    """Of the key, where the condition didn't hold; 0: there is none."""


@click.command("put", cls=DataCommand, short_help="store a value")
@click.argument("key", shell_complete=complete_keys)
@click.argument("value", required=False)
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The value is what this file holds, byte for byte.",
)
@click.option("--if-absent", is_flag=True, help="Only if KEY has no value.")
@click.option(
    "--if-revision",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only if KEY was last changed at revision N.",
)
@click.option(
    "--ttl", type=duration_type, metavar="SECONDS", help="KEY goes after so long: 30, 30s, 5m, 2h."
)
@click.option("--lease", type=lease_id, help="The key goes when this lease does.")
@click.option("--prev", is_flag=True, help="Print as well what there was before.")
@hex_option
@request_id_option
@retry_option
@connection_options
@click.pass_context
def put_command(
    context: click.Context,
    key: str,
    value: str | None,
    file: Path | None,
    if_absent: bool,
    if_revision: int | None,
    ttl: float | None,
    lease: int | None,
    prev: bool,
    hexadecimal: bool,
    request_id: str | None,
    retry: bool,
) -> None:
    """Store VALUE under KEY. A VALUE of - is read from standard input, byte for byte.

    \b
    Examples:
      kvctl put colour green
      kvctl put photo - < cat.jpg
      kvctl put photo --file cat.jpg
      kvctl put --if-absent owner host-3
      kvctl put --if-revision 17 colour blue
      kvctl put --ttl 30s session/7 ann
      kvctl put -- -5 minus-five       after -- nothing is an option
      kvctl put --request-id=order-17 order:17 paid
      kvctl put --request-id=order-17 --retry order:17 paid     when the first one timed out

    Prints "created" or "overwritten"; exits with 1 if a condition doesn't hold. Keys have 1 to
    1,024 bytes, values up to 1 MiB.
    """
    check_retry(request_id, retry)
    if if_absent and if_revision is not None:
        raise click.UsageError("--if-absent and --if-revision exclude each other.")
    if ttl is not None and lease is not None:
        raise click.UsageError("--ttl makes a lease of its own: leave --lease out.")
    wanted = Wanted(
        key=read_key(key, hexadecimal=hexadecimal),
        value=_value(value, file, hexadecimal),
        lease=lease,
        if_revision=0 if if_absent else if_revision,
        previous=prev,
        request_id=request_id,
        retry=retry,
    )
    if request_id is not None and not (wanted.is_plain and ttl is None and lease is None):
        raise click.UsageError(
            "--request-id is for a put without --if-absent, --if-revision, --ttl, --lease and "
            "--prev, which are transactions."
        )
    with settings_of(context).connect() as client:
        stored = _store(client, wanted) if ttl is None else _store_for(client, wanted, ttl)
    _show(context, wanted, stored, hexadecimal)


def _value(value: str | None, file: Path | None, hexadecimal: bool) -> bytes:
    """What is to be stored. Raises UsageError, OSError, InvalidArgumentError."""
    if value is not None and file is None:
        return read_value(value, hexadecimal=hexadecimal)
    if value is None and file is not None:
        return read_value_file(file)
    raise click.UsageError("give a VALUE, or --file.")


def _store_for(client: Client, wanted: Wanted, ttl: float) -> Stored:
    """With a lease of its own, which goes at once where nothing was stored."""
    lease = client.lease(ttl).grant()
    lease.let_go()
    try:
        stored = _store(client, wanted._replace(lease=lease.id))
    except Error as error:
        if error.outcome is Outcome.NOT_APPLIED:
            client.revoke_lease(lease.id)
        raise
    if not stored.stored:
        client.revoke_lease(lease.id)
    return stored


def _store(client: Client, wanted: Wanted) -> Stored:
    if wanted.is_plain:
        overwritten = client.put(
            wanted.key,
            wanted.value,
            lease=wanted.lease,
            request_id=wanted.request_id,
            retry=wanted.retry,
        )
        return Stored(True, overwritten)
    put = Put(wanted.key, wanted.value, lease=wanted.lease, previous=True)
    get = Get(wanted.key)
    transaction = client.transaction().then(put).else_(get)
    if wanted.if_revision is not None:
        transaction = transaction.if_(client.key(wanted.key).mod_revision == wanted.if_revision)
    result = transaction.commit()
    if result.succeeded:
        before = result[put].previous
        return Stored(True, before is not None, before)
    there = result[get].entry
    return Stored(False, False, None, 0 if there is None else there.mod_revision)


def _show(context: click.Context, wanted: Wanted, stored: Stored, hexadecimal: bool) -> None:
    fields: dict[str, object] = {"key": wanted.key, "overwritten": stored.overwritten}
    lines = ["overwritten" if stored.overwritten else "created"]
    if not wanted.is_plain:
        fields["stored"] = stored.stored
    if not stored.stored:
        fields["mod_revision"] = stored.revision
        lines = []
    if wanted.previous and stored.stored:
        before = stored.previous
        fields["previous"] = None if before is None else entry_fields(before)
        lines += [] if before is None else [in_words(before.value, hexadecimal=hexadecimal)]
    tell_data(context, fields, *lines, hexadecimal=hexadecimal)
    if not stored.stored:
        there = f"was changed at revision {stored.revision}" if stored.revision else "has no value"
        shown = in_words(wanted.key, hexadecimal=hexadecimal)
        click.echo(f"kvctl: nothing was stored: {shown} {there}", err=True)
        sys.exit(ExitCode.FAILURE)
