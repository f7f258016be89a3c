"""The ``kvd`` command: the server."""

from __future__ import annotations

import os
import sys
import traceback
from functools import partial

# gRPC's own log lines would stand between kvd's. Set GRPC_VERBOSITY to see them.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.kvd_check import kvd_check, merge_listen_address, rados_overrides
from kvstore.cli.kvd_flags import CLUSTER_FLAGS, CONTEXT_SETTINGS, given_flags, kvd_flags
from kvstore.errors import ConfigurationError, Error, StorageError
from kvstore.server.config.cluster_config import OVERRIDES, load_cluster_config
from kvstore.server.config.options import ServerOptions
from kvstore.server.config.rados_config import load_rados_config
from kvstore.server.nodes.cluster_node import open_cluster_node
from kvstore.server.nodes.embedded import open_embedded
from kvstore.server.nodes.rados_node import open_rados_node
from kvstore.server.process import serve, serve_gateway
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
  kvd --mode=rados --config=gateway.toml a gateway to a pool of RADOS; see docs/beyond.md
  kvd check node1.toml                   all that is wrong with it, without starting

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


def _serve_cluster_node(path: str, given: dict[str, str]) -> None:
    merge_listen_address(given)
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
        front=config.front,
        etcd_api=config.etcd_api,
        history_s=config.history_s,
        history_mib=config.history_mib,
        history_revisions=config.history_revisions,
        quota_mib=config.quota_mib,
        scrub_round_hours=config.scrub_round_hours,
        slow_call_ms=config.slow_call_ms,
    )
    serve(options, partial(open_cluster_node, config))


def _serve_rados(path: str, given: dict[str, str]) -> None:
    merge_listen_address(given)
    config = load_rados_config(path, rados_overrides(given))
    serve_gateway(config.options(path), partial(open_rados_node, config))


@click.command(help=HELP, context_settings=CONTEXT_SETTINGS)
@kvd_flags
@click.version_option(version(), prog_name="kvd", message="%(prog)s %(version)s")
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
    front: str,
    etcd_api: bool,
    history_s: int,
    history_mib: int,
    history_revisions: int,
    quota_mib: int,
    scrub_round_hours: int,
    slow_call_ms: int,
    config: str | None,
    log_level: str,
    log_format: str,
    **_cluster_flags: str | None,
) -> None:
    given = given_flags(context)
    if mode == "cluster-node" and config:
        _serve_cluster_node(config, given)
        return
    if mode == "rados" and config:
        _serve_rados(config, given)
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
        front=front,
        etcd_api=etcd_api,
        history_s=history_s,
        history_mib=history_mib,
        history_revisions=history_revisions,
        quota_mib=quota_mib,
        scrub_round_hours=scrub_round_hours,
        slow_call_ms=slow_call_ms,
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
        if sys.argv[1:2] == ["check"]:
            kvd_check.main(sys.argv[2:], prog_name="kvd check", auto_envvar_prefix="KVD")
        kvd.main(prog_name="kvd", auto_envvar_prefix="KVD")
    except ConfigurationError as error:
        click.echo(str(error), err=True)
        sys.exit(ExitCode.FAILURE)
    except StorageError as error:
        click.echo(str(error), err=True)
        sys.exit(ExitCode.DAMAGED)
    except Error as error:
        # Nothing that is to be expected ends it so: where it was raised tells who mends it.
        traceback.print_exception(error)
        click.echo(
            f"kvd ended by a defect of its own, which the lines above are of: "
            f"{type(error).__name__}: {error}",
            err=True,
        )
        sys.exit(ExitCode.FAILURE)


if __name__ == "__main__":
    main()
