"""``kvctl lease``: leases by their ids, which are hexadecimal as etcdctl's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.data_bytes import in_words
from kvstore.cli.interface.output import tell, tell_data
from kvstore.client import Client
from kvstore.errors import LeaseNotFoundError

_ID_MAX = (1 << 63) - 1


if TYPE_CHECKING:
    IntType = click.ParamType[int]
else:
    IntType = click.ParamType  # which older versions of Click can't subscript


class LeaseId(IntType):
    """A lease's id on the command line."""

    name = "ID"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        try:
            number = int(value, 16)
        except ValueError:
            number = 0
        if not number or not -_ID_MAX - 1 <= number <= _ID_MAX:
            self.fail(f"{value!r} is no lease's id, which is hexadecimal", param, ctx)
        return number


lease_id = LeaseId()


@click.group("lease", short_help="grant, renew and revoke leases")
def lease_group() -> None:
    """Leases: keys that are put with one go when it does.

    \b
    Examples:
      kvctl lease grant 60                     prints its id
      kvctl put --lease 5c3a9f20e1b7d846 workers/7 host-3
      kvctl lease keep-alive 5c3a9f20e1b7d846  until Ctrl-C
      kvctl lease revoke 5c3a9f20e1b7d846
    """


@lease_group.command("grant", short_help="make a lease")
@click.argument("ttl", type=click.FloatRange(min=0, min_open=True))
@click.option("--id", "wanted", type=lease_id, help="Its id. [default: drawn]")
@connection_options
@click.pass_context
def grant_command(context: click.Context, ttl: float, wanted: int | None) -> None:
    """Make a lease of TTL seconds, which nobody renews; print its id and its time."""
    with settings_of(context).connect() as client:
        lease = client.lease(ttl, lease_id=wanted).grant()
        lease.let_go()
    tell(context, {"id": f"{lease.id:x}", "ttl": lease.ttl}, f"{lease.id:x}\t{lease.ttl}s")


@lease_group.command("revoke", short_help="end a lease, and remove its keys")
@click.argument("lease", metavar="ID", type=lease_id)
@connection_options
@click.pass_context
def revoke_command(context: click.Context, lease: int) -> None:
    """End the lease and remove its keys; exits with 3 if there is none."""
    with settings_of(context).connect() as client:
        client.revoke_lease(lease)
    tell(context, {"id": f"{lease:x}", "revoked": True}, "revoked")


@lease_group.command("ttl", short_help="show a lease's time, and its keys")
@click.argument("lease", metavar="ID", type=lease_id)
@click.option("--keys", is_flag=True, help="Print its keys as well.")
@click.option("--hex", "hexadecimal", is_flag=True, help="Print keys as hexadecimal.")
@connection_options
@click.pass_context
def ttl_command(context: click.Context, lease: int, keys: bool, hexadecimal: bool) -> None:
    """Print the seconds that are left of the lease; exits with 3 if there is none."""
    with settings_of(context).connect() as client:
        status = client.lease_status(lease, keys=keys)
    if status is None:
        raise LeaseNotFoundError(f"there is no lease {lease:x}")
    fields: dict[str, object] = {
        "id": f"{lease:x}",
        "ttl": status.ttl,
        "granted_ttl": status.granted_ttl,
    }
    if keys:
        fields["keys"] = [*status.keys]
    tell_data(
        context,
        fields,
        f"{status.ttl}s left of {status.granted_ttl}s",
        *(in_words(key, hexadecimal=hexadecimal) for key in status.keys),
        hexadecimal=hexadecimal,
    )


@lease_group.command("list", short_help="list all leases")
@connection_options
@click.pass_context
def list_command(context: click.Context) -> None:
    """Print the ids of all leases, as the member has them that answers."""
    with settings_of(context).connect() as client:
        leases = [f"{lease:x}" for lease in client.leases()]
    tell(context, {"leases": leases}, *leases)


@lease_group.command("keep-alive", short_help="renew a lease")
@click.argument("lease", metavar="ID", type=lease_id)
@click.option("--once", is_flag=True, help="Renew it once.")
@connection_options
@click.pass_context
def keep_alive_command(context: click.Context, lease: int, once: bool) -> None:
    """Renew the lease after each third of its time, until Ctrl-C; exits with 3 once it is gone."""
    with settings_of(context).connect() as client:
        while True:
            ttl = _renewed(context, client, lease)
            if once:
                return
            time.sleep(ttl / 3)


def _renewed(context: click.Context, client: Client, lease: int) -> int:
    ttl = client.renew_lease(lease)
    tell(context, {"id": f"{lease:x}", "ttl": ttl}, f"{ttl}s")
    return ttl
