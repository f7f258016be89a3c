"""Who answers, and as of when: what stands in every answer's header."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

__all__ = ["Header", "cluster_number"]


class Header(NamedTuple):
    """``cluster_id`` and ``member_id`` never change and are never 0. ``revision``: of the state as
    of this answer; ``raft_term``: the answering member's."""

    cluster_id: int
    member_id: int
    revision: int
    raft_term: int


def cluster_number(cluster: str) -> int:
    """The number, of 64 bits and not 0, that stands for a cluster's name."""
    digest = hashlib.sha256(b"kvstore cluster\0" + cluster.encode()).digest()
    return int.from_bytes(digest[:8], "big") or 1
