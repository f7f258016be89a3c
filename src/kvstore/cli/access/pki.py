"""``kvctl pki``: an authority and certificates for a cluster."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

from kvstore.addresses import HostPort
from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import Command, output_options
from kvstore.cli.interface.output import tell
from kvstore.cli.interface.tables import table
from kvstore.errors import ConfigurationError
from kvstore.extras import install_line
from kvstore.server.peers.secret import make_secret_file

if TYPE_CHECKING:
    from kvstore.server.tls.pki import CertificateFacts

DEFAULT_DIRECTORY = "pki"
RENEW_WITHIN_DAYS = 30

directory_option = click.option(
    "--dir",
    "directory",
    default=DEFAULT_DIRECTORY,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Where the authority lives. [default: {DEFAULT_DIRECTORY}]",
)


def days_option(default: int, what: str) -> Callable[[Command], Command]:
    """An option ``--days``."""
    return click.option(
        "--days",
        default=default,
        type=click.IntRange(1, 3650),
        metavar="DAYS",
        help=f"How long {what} valid. [default: {default}]",
    )


def _library() -> ModuleType:
    """The part that needs the ``cryptography`` package, which not every machine has."""
    try:
        from kvstore.server.tls import pki
    except ImportError as error:
        if not (error.name or "").startswith("cryptography"):
            raise
        raise ConfigurationError(
            f"kvctl pki needs the 'cryptography' package: {install_line('pki')}"
        ) from error
    return pki


@click.group("pki", short_help="make certificates for a cluster")
def pki_group() -> None:
    """Make an authority and certificates for a cluster, renew them, look at them.

    \b
    Examples:
      kvctl pki init --cluster-id orders-eu
      kvctl pki issue --config cluster.toml       every member of the file
      kvctl pki issue --member 4 --host db4 --host 10.0.0.4
      kvctl pki issue --client alice
      kvctl pki secret /etc/kvstore/peer.secret
      kvctl pki show
      kvctl pki renew                             what expires within 30 days
    """


@pki_group.command("init", short_help="make the authority")
@click.option(
    "--cluster-id",
    required=True,
    metavar="NAME",
    help="The cluster_id of the configuration.",
)
@directory_option
@days_option(3650, "the authority is")
def init_command(cluster_id: str, directory: Path, days: int) -> None:
    """Make two authorities in a new directory: one for clients and servers, one for members.

    Their keys (ca.key and peer-ca.key) sign everything else: keep the directory off the servers.
    """
    _library().init(directory, cluster_id, days)
    click.echo(f"made {directory}/ca.pem and {directory}/peer-ca.pem for cluster {cluster_id}")


@pki_group.command("secret", short_help="make a secret for members without TLS")
@click.argument("file", type=click.Path(path_type=Path), default="peer.secret")
def secret_command(file: Path) -> None:
    """Write a random secret to FILE (peer.secret), for peer_secret_file of every member.

    It proves members to each other where they have no certificates; it encrypts nothing.
    """
    make_secret_file(file)
    click.echo(f"made {file}")


@pki_group.command("issue", short_help="sign certificates for members or a client")
@click.option("--config", metavar="FILE", help="Every member in this cluster configuration.")
@click.option("--member", type=click.IntRange(min=1), metavar="ID", help="One member, with --host.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A name or address of that member.",
)
@click.option("--client", metavar="NAME", help="A client that the server is to know.")
@click.option("--operator", is_flag=True, help="With --client: may change members and back up.")
@directory_option
@days_option(365, "the certificates are")
def issue_command(
    config: str | None,
    member: int | None,
    hosts: tuple[str, ...],
    client: str | None,
    operator: bool,
    directory: Path,
    days: int,
) -> None:
    """Sign certificates; keys are written beside them, readable by you alone.

    A member gets server.pem for clients and peer.pem for other members, which also carries the
    name that says which member of which cluster it is.
    """
    if sum(choice is not None for choice in (config, member, client)) != 1:
        raise click.UsageError("give one of --config, --member and --client")
    if operator and client is None:
        raise click.UsageError("--operator goes with --client")
    if (member is None) != (not hosts):
        raise click.UsageError("--member and --host go together")
    authority = _library().Authority(directory)
    if client is not None:
        made = authority.issue_client(client, days, operator=operator)
    elif member is not None:
        made = authority.issue_member(member, hosts, days)
    else:
        made = []
        # Only here, as with it comes what a member is made of.
        from kvstore.server.config.cluster_config import load_cluster_config

        cluster = load_cluster_config(str(config))
        if cluster.cluster_id != authority.cluster_id:
            raise ConfigurationError(
                f"{directory} is the authority of cluster {authority.cluster_id}, but {config} is "
                f"of cluster {cluster.cluster_id}"
            )
        for node in cluster.nodes:
            addresses = (node.client_addr, node.peer_addr)
            names = [parsed.host for parsed in map(HostPort.parse, addresses) if parsed]
            made += authority.issue_member(node.node_id, names, days)
    for path in made:
        click.echo(f"made {path}")


@pki_group.command("renew", short_help="replace certificates that expire soon")
@click.option(
    "--within",
    default=RENEW_WITHIN_DAYS,
    metavar="DAYS",
    type=click.IntRange(0, 3650),
    help=f"Those that expire within so many days. [default: {RENEW_WITHIN_DAYS}]",
)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@directory_option
@days_option(365, "the certificates are")
def renew_command(within: int, everything: bool, directory: Path, days: int) -> None:
    """Sign certificates anew, for the same names, with new keys.

    Copy them over the old ones on the servers: a running kvd notices and drops no connection.
    """
    library = _library()
    authority = library.Authority(directory)
    now = datetime.datetime.now(datetime.UTC)
    renewed = 0
    for path in authority.issued():
        if everything or library.facts(path).days_left(now) <= within:
            authority.renew(path, days)
            click.echo(f"renewed {path}")
            renewed += 1
    if not renewed:
        click.echo(f"nothing expires within {within} days")


@pki_group.command("show", short_help="show names and expiry of certificates")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@directory_option
@output_options
@click.pass_context
def show_command(context: click.Context, files: tuple[Path, ...], directory: Path) -> None:
    """Show certificate FILES, or all those of the authority. Exits with 1 if one has expired."""
    library = _library()
    if not files:
        authority = library.Authority(directory)
        files = (directory / "ca.pem", directory / "peer-ca.pem", *authority.issued())
    now = datetime.datetime.now(datetime.UTC)
    shown = [library.facts(path) for path in files]
    rows = [
        (one.path, one.not_after.strftime("%Y-%m-%d"), _left(one, now), _names(one))
        for one in shown
    ]
    tell(
        context,
        [_as_json(one, now) for one in shown],
        *table(("file", "expires", "left", "names"), rows),
    )
    if any(one.not_after <= now for one in shown):
        sys.exit(ExitCode.FAILURE)


def _left(one: CertificateFacts, now: datetime.datetime) -> str:
    days = one.days_left(now)
    return "EXPIRED" if one.not_after <= now else f"{days} day{'' if days == 1 else 's'}"


def _names(one: CertificateFacts) -> str:
    return ", ".join(one.names) or one.subject


def _as_json(one: CertificateFacts, now: datetime.datetime) -> dict[str, object]:
    return {
        "file": one.path,
        "subject": one.subject,
        "issuer": one.issuer,
        "names": list(one.names),
        "authority": one.authority,
        "not_before": one.not_before.isoformat(),
        "not_after": one.not_after.isoformat(),
        "days_left": one.days_left(now),
        "fingerprint_sha256": one.fingerprint_sha256,
    }
