"""``kvctl config``: the configuration file of a cluster's member."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import output_options
from kvstore.cli.interface.output import Results, is_json, tell, write_line
from kvstore.cli.kvd_check import check_file
from kvstore.server.config.cluster_config import OVERRIDES, load_cluster_config

__all__ = ["EXAMPLE", "config_group"]

_file = click.argument("file", type=click.Path(path_type=Path), metavar="FILE")

EXAMPLE = """\
# One member of a cluster; each has a file like this, equal but for self_id and paths.
# kvd --mode=cluster-node --config=FILE starts it, and kvctl config validate FILE checks it.

cluster_id = "orders-eu"        # the same for all; members of other clusters are refused
self_id = 1                     # which of the nodes below this one is
data_dir = "/var/lib/kvstore"

# Towards clients. Without TLS: tls_profile = "dev", on loopback or with insecure_clients = true.
tls_profile = "secure"
tls_cert = "/etc/kvstore/server.pem"
tls_key = "/etc/kvstore/server.key"
# tls_client_ca = "/etc/kvstore/ca.pem"    # only clients with a certificate of this authority

# metrics_address = "127.0.0.1:9100"       # Prometheus; not encrypted
# forward = false                          # pass calls on to the leader instead of naming it
# join = false                             # true: the cluster exists, and this was added to it

[peer_tls]                      # between members: mutual, with an authority of its own
ca = "/etc/kvstore/peer-ca.pem"
cert = "/etc/kvstore/peer.pem"
key = "/etc/kvstore/peer.key"

[[nodes]]                       # every founder, this one included
node_id = 1
client_addr = "db1:50051"
peer_addr = "db1:50052"

[[nodes]]
node_id = 2
client_addr = "db2:50051"
peer_addr = "db2:50052"

[[nodes]]
node_id = 3
client_addr = "db3:50051"
peer_addr = "db3:50052"
"""


@click.group("config", short_help="check, show and begin a member's configuration")
def config_group() -> None:
    """The configuration file of a cluster's member.

    \b
    Examples:
      kvctl config example > kvd.toml
      kvctl config validate /etc/kvstore/kvd.toml
      kvctl config show /etc/kvstore/kvd.toml
    """


@config_group.command("validate", short_help="say all that is wrong with it")
@_file
@click.option(
    "--running",
    is_flag=True,
    help="A kvd runs with it: that the directory and the addresses are in use is no fault.",
)
@output_options
@click.pass_context
def validate_command(context: click.Context, file: Path, running: bool) -> int:
    """Say all that is wrong with FILE, as 'kvd check' does, on the machine where kvd is to run.

    Variables KVD_… of the environment are heeded. Ends with 2 if kvd would not start with it.
    """
    found = check_file(str(file), _from_environment(), running=running)
    fields = {
        "file": str(file),
        "valid": not any(one.fault for one in found),
        "findings": [dataclasses.asdict(one) for one in found],
    }
    lines = [f"{'error' if one.fault else 'warning'}: {one.text}" for one in found]
    tell(context, fields, *lines, "kvd can start" if fields["valid"] else "kvd would not start")
    return ExitCode.OK if fields["valid"] else ExitCode.USAGE


@config_group.command("show", short_help="show what is in force, defaults included")
@_file
@output_options
@click.pass_context
def show_command(context: click.Context, file: Path) -> None:
    """Show each setting of FILE as kvd would take it: with defaults, and with what variables KVD_…
    of the environment say in its place. FILE must be valid."""
    config = load_cluster_config(str(file), _from_environment())
    fields = dataclasses.asdict(config)
    with Results(context, ("setting", "value")) as results:
        if is_json(context):
            results.add_document(fields)
            return
        for name, value in fields.items():
            results.add({}, (name, _shown(value)), _shown(value).encode())


@config_group.command("example", short_help="print one to begin with")
def example_command() -> None:
    """Print a configuration with comments, to begin with."""
    write_line(EXAMPLE.rstrip("\n"))


def _from_environment() -> dict[str, str]:
    names = {key: f"KVD_{key.upper()}" for key in OVERRIDES}
    return {key: os.environ[name] for key, name in names.items() if name in os.environ}


def _shown(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case dict():
            return " ".join(f"{name}={_shown(one)}" for name, one in value.items())
        case list() | tuple():
            return "; ".join(map(_shown, value))
        case _:
            return str(value)
