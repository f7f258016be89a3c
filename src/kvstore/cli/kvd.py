"""The ``kvd`` command: the server."""

from __future__ import annotations

import os
import sys

# gRPC's own log lines would stand between kvd's. Set GRPC_VERBOSITY to see them.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.errors import ConfigurationError, StorageError
from kvstore.server.modes import OPEN_NODE
from kvstore.server.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_LISTEN_ADDRESS,
    LOG_FORMATS,
    LOG_LEVELS,
    MODES,
    TLS_PROFILES,
    ServerOptions,
)
from kvstore.server.process import serve
from kvstore.version import version

HELP = """Serve a kvstore over gRPC.

Each flag can also be given as an environment variable: KVD_LISTEN_ADDR for --listen_addr, and so
on. A flag on the command line wins.

\b
Examples:
  kvd                                    five replicas in ./data, on 127.0.0.1:50051
  kvd --listen_addr=0.0.0.0:50051 --tls_profile=secure \\
      --tls_cert=server.pem --tls_key=server.key --data_dir=/var/lib/kvstore
  kvd --listen_addr=127.0.0.1:0          a free port; the first line printed says which

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


def _one_of(values: tuple[str, ...]) -> str:
    return "|".join(values)


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
def kvd(
    mode: str,
    listen_addr: str,
    data_dir: str,
    tls_profile: str,
    tls_cert: str | None,
    tls_key: str | None,
    config: str | None,
    log_level: str,
    log_format: str,
) -> None:
    options = ServerOptions(
        mode=mode,
        listen_addr=listen_addr,
        data_dir=data_dir,
        tls_profile=tls_profile,
        tls_cert=tls_cert,
        tls_key=tls_key,
        config=config,
        log_level=log_level,
        log_format=log_format,
    )
    open_node = OPEN_NODE.get(mode)
    if open_node is None:
        raise ConfigurationError(
            f"this version of kvd can't serve --mode={mode} yet; use --mode=embedded"
        )
    serve(options, open_node)


def main() -> None:
    """Run kvd and exit with its status."""
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
