"""The flags of kvd, which ``kvd check`` takes as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import click
from click.core import ParameterSource

from kvstore.server.config.options import (
    ADMINS,
    DEFAULT_DATA_DIR,
    DEFAULT_LISTEN_ADDRESS,
    FRONTS,
    HISTORY_MIB_DEFAULT,
    HISTORY_S_DEFAULT,
    LOG_FORMATS,
    LOG_LEVELS,
    MODES,
    SCRUB_ROUND_HOURS_DEFAULT,
    SLOW_CALL_MS_DEFAULT,
    TLS_PROFILES,
)

__all__ = ["CLUSTER_FLAGS", "CONTEXT_SETTINGS", "given_flags", "kvd_flags"]


def _with_underscores(flag: str) -> str:
    return flag.replace("-", "_")


CONTEXT_SETTINGS: Final = {
    "help_option_names": ["-h", "--help"],
    # Flags have underscores, as they always had, and may be typed with hyphens.
    "token_normalize_func": _with_underscores,
}

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
    "snapshot_mib_per_s": ("MIB", "How fast other members are caught up."),
    "log_tail_mib": ("MIB", "Log on disk for members that were away; 0: as little as possible."),
    "peer_secret_file": ("FILE", "What members without TLS prove each other by."),
    "insecure_peers": ("true|false", "Members may talk in plain text beyond this machine."),
    "peer_tls": ("off", "Talk to other members in plain text."),
    "peer_tls_ca": ("FILE", "Authority of the members' certificates, PEM."),
    "peer_tls_cert": ("FILE", "This member's certificate, PEM."),
    "peer_tls_key": ("FILE", "The key of --peer_tls_cert, PEM."),
}


def _one_of(values: tuple[str, ...]) -> str:
    return "|".join(values)


_FLAGS = (
    click.option(
        "--mode",
        metavar=_one_of(MODES),
        default=MODES[0],
        show_default=True,
        help="Five replicas in this process, one member of a cluster, or a gateway to RADOS.",
    ),
    click.option(
        "--listen_addr",
        metavar="HOST:PORT",
        default=DEFAULT_LISTEN_ADDRESS,
        show_default=True,
        help="Where clients connect. Port 0 is one that the system chooses.",
    ),
    click.option(
        "--data_dir",
        metavar="DIR",
        default=DEFAULT_DATA_DIR,
        show_default=True,
        help="Where the data lives; made if it doesn't exist.",
    ),
    click.option(
        "--tls_profile",
        metavar=_one_of(TLS_PROFILES),
        default=TLS_PROFILES[0],
        show_default=True,
        help="Without encryption, or with TLS.",
    ),
    click.option("--tls_cert", metavar="FILE", help="Server certificate chain, PEM."),
    click.option("--tls_key", metavar="FILE", help="Private key of the certificate, PEM."),
    click.option(
        "--metrics_addr",
        metavar="HOST:PORT",
        help="Serve Prometheus metrics at http://HOST:PORT/metrics; not encrypted. Off by default.",
    ),
    click.option(
        "--admin",
        metavar=_one_of(ADMINS),
        default=ADMINS[0],
        show_default=True,
        help="Who may change members and take backups: who comes over the socket in the data "
        "directory or with an operator's certificate, or whoever reaches the port.",
    ),
    click.option(
        "--insecure_clients",
        metavar="true|false",
        type=bool,
        default=False,
        help="Plain text is meant, also where others than this machine reach the port.",
    ),
    click.option(
        "--front",
        metavar=_one_of(FRONTS),
        default=FRONTS[0],
        show_default=True,
        help="What talks HTTP/2 with clients and members: kvstore's own wire, where it is built, "
        "or grpcio.",
    ),
    click.option(
        "--etcd_api",
        metavar="true|false",
        type=bool,
        default=True,
        show_default=True,
        help="Serve etcd's v3 API as well; keys get revisions, and their history is kept.",
    ),
    click.option(
        "--history_s",
        metavar="SECONDS",
        type=int,
        default=HISTORY_S_DEFAULT,
        show_default=True,
        help="History of keys that is older is compacted; 0: however old it is, it stays.",
    ),
    click.option(
        "--history_mib",
        metavar="MIB",
        type=int,
        default=HISTORY_MIB_DEFAULT,
        show_default=True,
        help="History behind the last MIB of writes is compacted, too; 0: no bound in bytes.",
    ),
    click.option(
        "--history_revisions",
        metavar="COUNT",
        type=int,
        default=0,
        show_default=True,
        help="History behind the last COUNT revisions is compacted, too; 0: no bound of these.",
    ),
    click.option(
        "--quota_mib",
        metavar="MIB",
        type=int,
        default=0,
        show_default=True,
        help="A store that takes more has puts refused until there is room; 0: no bound but the "
        "disk.",
    ),
    click.option(
        "--scrub_round_hours",
        metavar="HOURS",
        type=int,
        default=SCRUB_ROUND_HOURS_DEFAULT,
        show_default=True,
        help="In what time all stored bytes are read and checked in the background; 0: never.",
    ),
    click.option(
        "--slow_call_ms",
        metavar="MS",
        type=int,
        default=SLOW_CALL_MS_DEFAULT,
        show_default=True,
        help="Calls that take at least so long are logged and kept for operators; 0: none.",
    ),
    click.option(
        "--config", metavar="FILE", help="TOML file of a cluster node, or of a gateway to RADOS."
    ),
    click.option(
        "--log_level",
        metavar=_one_of(LOG_LEVELS),
        default="info",
        show_default=True,
        help="How much to say on standard error.",
    ),
    click.option(
        "--log_format",
        metavar=_one_of(LOG_FORMATS),
        default="console",
        show_default=True,
        help="For machines or for the eye.",
    ),
)


def kvd_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all flags of kvd."""
    cluster_flags = [
        click.option(f"--{key}", metavar=metavar, help=f"Cluster node: {text}")
        for key, (metavar, text) in CLUSTER_FLAGS.items()
    ]
    for flag in reversed((*_FLAGS, *cluster_flags)):
        command = flag(command)
    return command


def given_flags(context: click.Context) -> dict[str, str]:
    """The flags that were given, on the command line or in the environment."""
    unsaid = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    return {
        key: value
        for key, value in context.params.items()
        if value is not None and context.get_parameter_source(key) not in unsaid
    }
