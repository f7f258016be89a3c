"""The name in a peer certificate that says which member of which cluster holds it."""

from __future__ import annotations

import re

_NAME = re.compile(r"member-([1-9][0-9]{0,18})\.([a-z0-9][a-z0-9._-]{0,62})\.kvstore")


def member_name(cluster_id: str, member: int) -> str:
    """Return ``member-<id>.<cluster id>.kvstore``: a DNS name that no resolver needs to know.

    Whoever dials a member expects exactly this name in its certificate (so the network can't put
    another member in its place), and whoever is dialled reads the caller's id from it. DNS names
    compare without regard to case, so the cluster id is in lower case here.
    """
    return f"member-{member}.{cluster_id.lower()}.kvstore"


def parse_member_name(name: str) -> tuple[str, int] | None:
    """Return cluster id (in lower case) and member of such a name; None for any other name."""
    match = _NAME.fullmatch(name.lower())
    return None if match is None else (match[2], int(match[1]))
