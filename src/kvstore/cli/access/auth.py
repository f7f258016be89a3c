"""``kvctl auth``: whether users are asked for."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from kvstore.cli.access.user import new_password
from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.output import tell
from kvstore.client import Auth
from kvstore.errors import ConflictError

ROOT = "root"
"""The user, and the role, that may do everything."""


@click.group("auth", short_help="whether users are asked for")
def auth_group() -> None:
    """Whether users are asked for: once they are, nobody may do anything without a role.

    \b
    Examples:
      kvctl auth enable                     makes the user root, asking for its password
      kvctl --user root auth disable
      kvctl --dir DATA_DIR auth disable     where the password is lost, on the member's machine
    """


@auth_group.command("enable", short_help="ask for users from now on")
@click.option(
    "--new-password-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The password of the user root, if there is none yet.",
)
@connection_options
@click.pass_context
def enable_command(context: click.Context, new_password_file: Path | None) -> None:
    """Ask for users from now on, by all APIs and on all members.

    The user root and its role are made where they are missing.
    """
    with settings_of(context).connect() as client:
        auth = client.auth
        if ROOT not in auth.users():
            auth.add_user(ROOT, new_password(ROOT, new_password_file))
        _make_root(auth)
        auth.enable()
    tell(context, {"enabled": True}, "enabled")


def _make_root(auth: Auth) -> None:
    if ROOT not in auth.roles_of(ROOT):
        with contextlib.suppress(ConflictError):
            auth.add_role(ROOT)
        auth.grant_role(ROOT, ROOT)


@auth_group.command("disable", short_help="ask for nobody any more")
@connection_options
@click.pass_context
def disable_command(context: click.Context) -> None:
    """Ask for nobody any more. Users and roles stay as they are."""
    with settings_of(context).connect() as client:
        client.auth.disable()
    tell(context, {"enabled": False}, "disabled")


@auth_group.command("status", short_help="whether users are asked for")
@connection_options
@click.pass_context
def status_command(context: click.Context) -> None:
    """Print whether users are asked for; where they are, only root is told."""
    with settings_of(context).connect() as client:
        status = client.auth.status()
    text = "enabled" if status.enabled else "disabled"
    tell(
        context,
        {"enabled": status.enabled, "revision": status.revision},
        f"{text}, revision {status.revision}",
    )
