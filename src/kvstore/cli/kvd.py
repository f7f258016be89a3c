"""The ``kvd`` command: the server."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial

# gRPC's own log lines would stand between kvd's. Set GRPC_VERBOSITY to see them.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import click
from click.core import ParameterSource

from kvstore.cli.exit_codes import ExitCode
from kvstore.errors import ConfigurationError, StorageError
from kvstore.server.config.cluster_config import OVERRIDES, load_cluster_config
from kvstore.server.config.options import (
    ADMINS,
    DEFAULT_DATA_DIR,
    DEFAULT_LISTEN_ADDRESS,
    LOG_FORMATS,
    LOG_LEVELS,
    MODES,
    TLS_PROFILES,
    ServerOptions,
)
from kvstore.server.nodes.cluster_node import open_cluster_node
from kvstore.server.nodes.embedded import open_embedded
from kvstore.server.process import serve
from kvstore.version import version

HELP = """Serve a kvstore over gRPC.

Each flag can also be given as an environment variable: KVD_LISTEN_ADDR for --listen_addr, and so
on. A flag on the command line wins; both win over the file of --config.

\b
Examples:
  kvd                                    five replicas in ./data, on 127.0.0.1:50051
  kvd --listen_addr=0.0.0.0:50051 --tls_profile=secure \\
      --tls_cert=server.pem --tls_key=server.key --data_dir=/var/lib/kvstore
  kvd --listen_addr=127.0.0.1:0          a free port; the first line printed says which
  kvd --mode=cluster-node --config=node1.toml
                                         one member of a cluster; see docs/operations.md

\b
Signals:
  SIGTERM, SIGINT  refuse new calls, finish those under way (5 s at most), exit with 0;
                   a second one stops at once

\b
Exit status:
  0  stopped by a signal
  1  could not start: one line on standard error says why
  2  wrong usage
  5  stopped itself: the disk failed or stored data is damaged
"""


# Flags of a cluster node alone; the others have their own texts below.
CLUSTER_FLAGS = {
    "cluster_id": ("NAME", "The cluster that this member belongs to."),
    "self_id": ("N", "The node_id of this member."),
    "client_addr": ("HOST:PORT", "Where clients connect; the same as --listen_addr."),
    "peer_addr": ("HOST:PORT", "Where other members connect."),
    "tls_client_ca": ("FILE", "Ask clients for a certificate of this authority, PEM."),
    "forward": ("true|false", "Pass calls on to the leader instead of naming it."),
    "join": ("true|false", "The cluster exists; this member was added to it."),
    "heartbeat_ms": ("MS", "Between two heartbeats of a leader."),
    "election_timeout_ms": ("MS", "Without a heartbeat for this long, elect another leader."),
    "snapshot_mib_per_s": ("MIB", "How fast a snapshot is sent to another member."),
    "peer_secret_file": ("FILE", "What members without TLS prove each other by."),
    "insecure_peers": ("true|false", "Members may talk in plain text beyond this machine."),
    "peer_tls": ("off", "Talk to other members in plain text."),
    "peer_tls_ca": ("FILE", "Authority of the members' certificates, PEM."),
    "peer_tls_cert": ("FILE", "This member's certificate, PEM."),
    "peer_tls_key": ("FILE", "The key of --peer_tls_cert, PEM."),
}


def _one_of(values: tuple[str, ...]) -> str:
    return "|".join(values)


def _cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    for key, (metavar, text) in reversed(CLUSTER_FLAGS.items()):
        command = click.option(f"--{key}", metavar=metavar, help=f"Cluster node: {text}")(command)
    return command


def _given(context: click.Context) -> dict[str, str]:
    """The flags that were given, on the command line or in the environment."""
    unsaid = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    return {
        key: value
        for key, value in context.params.items()
        if value is not None and context.get_parameter_source(key) not in unsaid
    }


def _serve_cluster_node(path: str, given: dict[str, str]) -> None:
    if "listen_addr" in given:
        address = given.pop("listen_addr")
        if given.setdefault("client_addr", address) != address:
            raise ConfigurationError(
                f"--listen_addr={address} and --client_addr={given['client_addr']} say the same "
                "thing; give one of them"
            )
    config = load_cluster_config(path, {key: given[key] for key in OVERRIDES if key in given})
    options = ServerOptions(
        mode="cluster-node",
        listen_addr=config.client_addr,
        data_dir=config.data_dir,
        tls_profile=config.tls_profile,
        tls_cert=config.tls_cert,
        tls_key=config.tls_key,
        tls_client_ca=config.tls_client_ca,
        metrics_addr=given.get("metrics_addr", config.metrics_address),
        config=path,
        log_level=config.log_level,
        log_format=config.log_format,
        admin=config.admin,
        insecure_clients=config.insecure_clients,
    )
    serve(options, partial(open_cluster_node, config))


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--mode",
    metavar=_one_of(MODES),
    default=MODES[0],
    show_default=True,
    help="Five replicas in this process, or one member of a cluster.",
)
@click.option(
    "--listen_addr",
    metavar="HOST:PORT",
    default=DEFAULT_LISTEN_ADDRESS,
    show_default=True,
    help="Where clients connect. Port 0 is one that the system chooses.",
)
@click.option(
    "--data_dir",
    metavar="DIR",
    default=DEFAULT_DATA_DIR,
    show_default=True,
    help="Where the data lives; made if it doesn't exist.",
)
@click.option(
    "--tls_profile",
    metavar=_one_of(TLS_PROFILES),
    default=TLS_PROFILES[0],
    show_default=True,
    help="Without encryption, or with TLS.",
)
@click.option("--tls_cert", metavar="FILE", help="Server certificate chain, PEM.")
@click.option("--tls_key", metavar="FILE", help="Private key of the certificate, PEM.")
@click.option(
    "--metrics_addr",
    metavar="HOST:PORT",
    help="Serve Prometheus metrics at http://HOST:PORT/metrics; not encrypted. Off by default.",
)
@click.option(
    "--admin",
    metavar=_one_of(ADMINS),
    default=ADMINS[0],
    show_default=True,
    help="Who may change members and take backups: who comes over the socket in the data "
    "directory or with an operator's certificate, or whoever reaches the port.",
)
@click.option(
    "--insecure_clients",
    metavar="true|false",
    type=bool,
    default=False,
    help="Plain text is meant, also where others than this machine reach the port.",
)
@click.option("--config", metavar="FILE", help="TOML file of a cluster node.")
@click.option(
    "--log_level",
    metavar=_one_of(LOG_LEVELS),
    default="info",
    show_default=True,
    help="How much to say on standard error.",
)
@click.option(
    "--log_format",
    metavar=_one_of(LOG_FORMATS),
    default="console",
    show_default=True,
    help="For machines or for the eye.",
)
@click.version_option(version(), prog_name="kvd", message="%(prog)s %(version)s")
@_cluster_options
@click.pass_context
def kvd(
    context: click.Context,
    /,
    mode: str,
    listen_addr: str,
    data_dir: str,
    tls_profile: str,
    tls_cert: str | None,
    tls_key: str | None,
    metrics_addr: str | None,
    admin: str,
    insecure_clients: bool,
    config: str | None,
    log_level: str,
    log_format: str,
    **_cluster_flags: str | None,
) -> None:
    given = _given(context)
    if mode == "cluster-node" and config:
        _serve_cluster_node(config, given)
        return
    options = ServerOptions(
        mode=mode,
        listen_addr=listen_addr,
        data_dir=data_dir,
        tls_profile=tls_profile,
        tls_cert=tls_cert,
        tls_key=tls_key,
        metrics_addr=metrics_addr,
        config=config,
        tls_client_ca=given.pop("tls_client_ca", None),
        log_level=log_level,
        log_format=log_format,
        admin=admin,
        insecure_clients=insecure_clients,
    )
    for key in CLUSTER_FLAGS:
        if key in given:
            raise ConfigurationError(
                f"--{key} has no effect with --mode=embedded; use --mode=cluster-node"
            )
    serve(options, open_embedded)


def main() -> None:
    """Run kvd and exit with its status."""
    # Keys and values lie in clear in what it writes: nobody else may read any of it.
    os.umask(0o077)
    try:
        kvd.main(prog_name="kvd", auto_envvar_prefix="KVD")
    except ConfigurationError as error:
        click.echo(str(error), err=True)
        sys.exit(ExitCode.FAILURE)
    except StorageError as error:
        click.echo(str(error), err=True)
        sys.exit(ExitCode.DAMAGED)


if __name__ == "__main__":
    main()
