"""``kvctl role``: what is allowed, to whoever has the role."""

from __future__ import annotations

from collections.abc import Sequence

import click

from kvstore.cli.access.user import ACCESSES
from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.data_bytes import in_words
from kvstore.cli.interface.keys import KeysWanted, hex_option, keys_wanted, range_options
from kvstore.cli.interface.output import tell, tell_data
from kvstore.client import Access, Permission

_ALL = click.option("--all", "all_keys", is_flag=True, help="Every key, in place of KEY.")


@click.group("role", short_help="roles and their permissions")
def role_group() -> None:
    """Roles: what users may do that have them.

    \b
    Examples:
      kvctl role add worker
      kvctl role grant-permission worker readwrite jobs/ --prefix
      kvctl role grant-permission worker read --all
      kvctl role get worker
    """


@role_group.command("add", short_help="make a role")
@click.argument("name")
@connection_options
@click.pass_context
def add_command(context: click.Context, name: str) -> None:
    """Make a role, which is allowed nothing yet."""
    with settings_of(context).connect() as client:
        client.auth.add_role(name)
    tell(context, {"role": name, "added": True}, "added")


@role_group.command("delete", short_help="remove a role")
@click.argument("name")
@connection_options
@click.pass_context
def delete_command(context: click.Context, name: str) -> None:
    """Remove a role, and take it from everybody. Exits with 3 if there is none."""
    with settings_of(context).connect() as client:
        client.auth.delete_role(name)
    tell(context, {"role": name, "deleted": True}, "deleted")


@role_group.command("list", short_help="list all roles")
@connection_options
@click.pass_context
def list_command(context: click.Context) -> None:
    """Print the names of all roles."""
    with settings_of(context).connect() as client:
        roles = client.auth.roles()
    tell(context, {"roles": roles}, *roles)


@role_group.command("get", short_help="show what a role is allowed")
@click.argument("name")
@hex_option
@connection_options
@click.pass_context
def get_command(context: click.Context, name: str, hexadecimal: bool) -> None:
    """Print what the role is allowed: with what, from which key on, and to before which."""
    with settings_of(context).connect() as client:
        permissions = client.auth.permissions_of(name)
    fields: list[object] = [
        {"access": one.access.value, "key": one.key, "end": one.end} for one in permissions
    ]
    tell_data(
        context,
        {"role": name, "permissions": fields},
        *(_line(one, hexadecimal=hexadecimal) for one in permissions),
        hexadecimal=hexadecimal,
    )


def _line(permission: Permission, *, hexadecimal: bool) -> str:
    access, key, end = permission
    if end == b"\0":
        first = in_words(key, hexadecimal=hexadecimal)
        return f"{access}\tall keys" if key in (b"", b"\0") else f"{access}\t{first}\tand all after"
    words = [access.value, in_words(key, hexadecimal=hexadecimal)]
    if end:
        words.append(in_words(end, hexadecimal=hexadecimal))
    return "\t".join(words)


@role_group.command("grant-permission", short_help="allow a role something")
@click.argument("name")
@click.argument("access", type=click.Choice(ACCESSES))
@click.argument("keys", metavar="[KEY [END]]", nargs=-1)
@_ALL
@range_options
@hex_option
@connection_options
@click.pass_context
def grant_command(
    context: click.Context,
    name: str,
    access: str,
    keys: Sequence[str],
    all_keys: bool,
    prefix: bool,
    from_key: bool,
    between: bool,
    hexadecimal: bool,
) -> None:
    """Allow a role to read, write or both: a KEY, all up to before END, a prefix, or all keys."""
    wanted = _wanted(
        keys,
        all_keys,
        prefix=prefix,
        from_key=from_key,
        between=between,
        hexadecimal=hexadecimal,
    )
    with settings_of(context).connect() as client:
        client.auth.grant_permission(
            name,
            Access(access),
            wanted.key,
            prefix=wanted.prefix,
            start=wanted.start,
            end=wanted.end,
        )
    tell(context, {"role": name, "access": access, "granted": True}, "granted")


@role_group.command("revoke-permission", short_help="take back what a role is allowed")
@click.argument("name")
@click.argument("keys", metavar="[KEY [END]]", nargs=-1)
@_ALL
@range_options
@hex_option
@connection_options
@click.pass_context
def revoke_command(
    context: click.Context,
    name: str,
    keys: Sequence[str],
    all_keys: bool,
    prefix: bool,
    from_key: bool,
    between: bool,
    hexadecimal: bool,
) -> None:
    """Take back what was granted for just these keys."""
    wanted = _wanted(
        keys,
        all_keys,
        prefix=prefix,
        from_key=from_key,
        between=between,
        hexadecimal=hexadecimal,
    )
    with settings_of(context).connect() as client:
        client.auth.revoke_permission(
            name, wanted.key, prefix=wanted.prefix, start=wanted.start, end=wanted.end
        )
    tell(context, {"role": name, "revoked": True}, "revoked")


def _wanted(
    keys: Sequence[str],
    all_keys: bool,
    *,
    prefix: bool,
    from_key: bool,
    between: bool,
    hexadecimal: bool,
) -> KeysWanted:
    if all_keys == bool(keys):
        raise click.UsageError("It takes a KEY, or --all.")
    if keys:
        return keys_wanted(
            keys,
            prefix=prefix,
            from_key=from_key,
            between=between,
            hexadecimal=hexadecimal,
            many=False,
        )
    if prefix or from_key or between:
        raise click.UsageError("--prefix, --from-key and --range go with a KEY.")
    return KeysWanted(prefix=b"")
