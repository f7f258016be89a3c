"""What a kvd is open to, said loudly: nobody should find out from somebody else."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from kvstore.addresses import is_loopback
from kvstore.server.config.cluster_config import ClusterConfig
from kvstore.server.config.options import ServerOptions

__all__ = ["exposures", "peer_exposures", "say"]

log = structlog.get_logger("kvstore.server")


def exposures(options: ServerOptions) -> dict[str, str]:
    """What the ports of ``options`` are open to, by what: ``clients``, ``admin``, ``metrics``."""
    found: dict[str, str] = {}
    beyond = not is_loopback(options.listen_addr)
    if options.tls_profile == "dev" and beyond:
        found["clients"] = (
            f"clients talk in plain text on {options.listen_addr}: whoever reaches it may read and "
            "write everything"
        )
    if options.admin == "everybody" and (beyond or options.tls_profile == "dev"):
        found["admin"] = (
            f'admin = "everybody": whoever reaches {options.listen_addr} may change the members '
            "and take backups"
        )
    if options.metrics_addr is not None and not is_loopback(options.metrics_addr):
        found["metrics"] = f"metrics are served to whoever reaches {options.metrics_addr}"
    return found


def peer_exposures(config: ClusterConfig) -> dict[str, str]:
    """What the members' port is open to."""
    if config.peer_tls is not None:
        return {}
    found = {}
    if config.insecure_peers:
        found["peers"] = (
            f"members talk in plain text on {config.peer_addr}: who is on their way reads and "
            "changes everything"
        )
    if config.peer_secret_file is None:
        found["membership"] = (
            f"members prove nothing to each other on {config.peer_addr}: who reaches it is one "
            "(give peer_secret_file or [peer_tls])"
        )
    return found


def say(options: ServerOptions, found: Mapping[str, str]) -> None:
    """Log each: an error where nobody asked for it in so many words."""
    for what, text in found.items():
        asked = what != "clients" or options.insecure_clients
        (log.warning if asked else log.error)("exposed", what=what, reason=text)
