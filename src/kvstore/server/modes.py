"""The modes of kvd and what opens the node of each."""

from __future__ import annotations

from kvstore.server.embedded import open_embedded
from kvstore.server.process import OpenNode

OPEN_NODE: dict[str, OpenNode] = {"embedded": open_embedded}
