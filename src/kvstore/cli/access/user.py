"""``kvctl user``: who may come, and which roles they have."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import click

from kvstore.cli.interface.connection import (
    connection_options,
    has_terminal,
    read_password_file,
    settings_of,
)
from kvstore.cli.interface.output import tell
from kvstore.client import Access, Auth
from kvstore.errors import ConflictError

# As for the password of --user: not on the command line.
NEW_PASSWORD_VARIABLE = "KVCTL_NEW_PASSWORD"

ACCESSES: Final = [access.value for access in Access]

_NEW_PASSWORD_FILE = click.option(
    "--new-password-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The user's password, in place of the variable.",
)


def new_password(user: str, file: Path | None) -> str:
    """A password to be given to ``user``: of a file, the environment or the terminal, there twice.

    Raises ConfigurationError for a file that can't be read, UsageError where there is no terminal.
    """
    if file is not None:
        return read_password_file(file)
    password = os.environ.get(NEW_PASSWORD_VARIABLE)
    if password is None:
        if not has_terminal():
            raise click.UsageError(
                f"there is no terminal to ask for the new password of {user} on: give it in "
                f"{NEW_PASSWORD_VARIABLE}, or --new-password-file"
            )
        password = click.prompt(
            f"New password of {user}", hide_input=True, confirmation_prompt=True, err=True
        )
    return str(password)


@click.group("user", short_help="users and their roles")
def user_group() -> None:
    """Users: who is asked for once 'kvctl auth enable' was said.

    A new password is in KVCTL_NEW_PASSWORD, or asked for.

    \b
    Examples:
      kvctl user add app --all-keys readwrite   may read and write every key
      kvctl user add jobs                       may nothing yet
      kvctl user grant-role jobs worker         may what the role may
      kvctl --user root user list
    """


@user_group.command("add", short_help="make a user")
@click.argument("name")
@click.option(
    "--no-password",
    is_flag=True,
    help="It can't log in; it is whose certificate has it for its common name.",
)
@click.option(
    "--all-keys",
    "access",
    type=click.Choice(ACCESSES),
    help="Allow it that with every key, by a role that is called all-keys-… after it.",
)
@_NEW_PASSWORD_FILE
@connection_options
@click.pass_context
def add_command(
    context: click.Context,
    name: str,
    no_password: bool,
    access: str | None,
    new_password_file: Path | None,
) -> None:
    """Make a user, who may do nothing before it has a role."""
    password = None if no_password else new_password(name, new_password_file)
    with settings_of(context).connect() as client:
        client.auth.add_user(name, password)
        if access is not None:
            _allow_all_keys(client.auth, name, Access(access))
    tell(context, {"user": name, "added": True}, "added")


def _allow_all_keys(auth: Auth, user: str, access: Access) -> None:
    role = f"all-keys-{access}"
    with contextlib.suppress(ConflictError):  # another user has it already
        auth.add_role(role)
    auth.grant_permission(role, access)
    auth.grant_role(user, role)


@user_group.command("delete", short_help="remove a user")
@click.argument("name")
@connection_options
@click.pass_context
def delete_command(context: click.Context, name: str) -> None:
    """Remove a user; what it was logged in with ends. Exits with 3 if there is none."""
    with settings_of(context).connect() as client:
        client.auth.delete_user(name)
    tell(context, {"user": name, "deleted": True}, "deleted")


@user_group.command("list", short_help="list all users")
@connection_options
@click.pass_context
def list_command(context: click.Context) -> None:
    """Print the names of all users."""
    with settings_of(context).connect() as client:
        users = client.auth.users()
    tell(context, {"users": users}, *users)


@user_group.command("get", short_help="show a user's roles")
@click.argument("name")
@connection_options
@click.pass_context
def get_command(context: click.Context, name: str) -> None:
    """Print the roles that the user has. Exits with 3 if there is none."""
    with settings_of(context).connect() as client:
        roles = client.auth.roles_of(name)
    tell(context, {"user": name, "roles": roles}, *roles)


@user_group.command("passwd", short_help="give a user another password")
@click.argument("name")
@_NEW_PASSWORD_FILE
@connection_options
@click.pass_context
def passwd_command(context: click.Context, name: str, new_password_file: Path | None) -> None:
    """Give the user another password; what it was logged in with ends."""
    password = new_password(name, new_password_file)
    with settings_of(context).connect() as client:
        client.auth.change_password(name, password)
    tell(context, {"user": name, "changed": True}, "changed")


@user_group.command("grant-role", short_help="give a user a role")
@click.argument("name")
@click.argument("role")
@connection_options
@click.pass_context
def grant_command(context: click.Context, name: str, role: str) -> None:
    """Give the user a role."""
    with settings_of(context).connect() as client:
        client.auth.grant_role(name, role)
    tell(context, {"user": name, "role": role, "granted": True}, "granted")


@user_group.command("revoke-role", short_help="take a role from a user")
@click.argument("name")
@click.argument("role")
@connection_options
@click.pass_context
def revoke_command(context: click.Context, name: str, role: str) -> None:
    """Take the role from the user."""
    with settings_of(context).connect() as client:
        client.auth.revoke_role(name, role)
    tell(context, {"user": name, "role": role, "revoked": True}, "revoked")
