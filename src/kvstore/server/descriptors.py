"""How many files and connections a kvd may have open, and who gets them.

What the log, the tables and the other members need is kept from clients: a flood of connections
must not be felt as a broken disk.
"""

from __future__ import annotations

import resource

import structlog

__all__ = ["PEER_CONNECTIONS_MAX", "client_connections_max", "raise_limit"]

# Beyond what is of use to one process, should the hard limit be "unlimited".
LIMIT_MAX = 1 << 20

# For log, tables, snapshots, the other members, operators and metrics.
RESERVED = 512

# Each of at most 31 others has four or five; those of a member that vanished last a few seconds.
PEER_CONNECTIONS_MAX = 192

FEW = 4_096

log = structlog.get_logger("kvstore.server")


def raise_limit() -> int:
    """Raise the soft limit on descriptors as far as it goes; returns what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = LIMIT_MAX if hard == resource.RLIM_INFINITY else min(hard, LIMIT_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    limit = LIMIT_MAX if soft == resource.RLIM_INFINITY else min(soft, LIMIT_MAX)
    if limit < FEW:
        log.warning(
            "few file descriptors: raise the hard limit (LimitNOFILE, ulimit -Hn)",
            limit=limit,
            connections_max=client_connections_max(limit),
        )
    return limit


def client_connections_max(limit: int) -> int:
    """Connections of clients at one time under a limit on descriptors; more are closed at once."""
    return max(limit - RESERVED, limit // 4)
