"""What the environment says of benchmarks of servers."""

from __future__ import annotations

import os
import shlex

__all__ = ["BEHIND_MIB", "KVD_FLAGS", "ROUNDS", "SECONDS"]

SECONDS = float(os.environ.get("KVSTORE_BENCH_SECONDS", "4"))
"""Of one load of one server."""

ROUNDS = int(os.environ.get("KVSTORE_BENCH_ROUNDS", "3"))
"""How often the servers take turns at each point; the median counts."""

KVD_FLAGS = shlex.split(os.environ.get("KVSTORE_BENCH_KVD_FLAGS", ""))
"""Further flags of kvd."""

BEHIND_MIB = int(os.environ.get("KVSTORE_BENCH_BEHIND_MIB", "1024"))
"""What a follower has missed that is to catch up."""
