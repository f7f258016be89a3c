"""The newest calls that took long: which, how large, and where their time went. Never what of.

Fronts tell of them a group at a time: of the calls of a batch that came, and ended, alike. A group
is looked at closely at most :data:`GROUPS_A_SECOND` times a second, and logged once a second.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from kvstore.api.v1 import admin_pb2
from kvstore.replica.durations import EntryTimes
from kvstore.server.metrics.names import name_of
from kvstore.server.nodes.node import Node

__all__ = ["SlowCall", "SlowCalls", "last_entry_of", "newest_of"]

NEWEST: Final = 128
GROUPS_A_SECOND: Final = 32
LOG_S: Final = 1.0

WRITES: Final = frozenset(
    (
        *("Put", "Delete", "Open", "etcdserverpb.KV/Put", "etcdserverpb.KV/DeleteRange"),
        *("etcdserverpb.KV/Txn", "etcdserverpb.Lease/LeaseGrant"),
        "etcdserverpb.Lease/LeaseRevoke",
    )
)
"""Of which an entry of the log may say where the time went."""

LastEntry = Callable[[float, float], EntryTimes | None]
"""(since, until) -> the entry that answered a write of that time; None: it isn't known here."""

log = structlog.get_logger("kvstore.slow")


@dataclass(frozen=True, slots=True)
class SlowCall:
    """So many calls that came together and ended alike. Sizes are those of the requests, together.

    ``ended_at``: in seconds since 1970. ``queue_s``, ``commit_s``, ``apply_s``: until its entry was
    proposed, then committed, then applied; None where that isn't known: reads, and what another
    member did.
    """

    ended_at: float
    method: str
    code: str
    calls: int
    request_bytes: int
    seconds: float
    queue_s: float | None = None
    commit_s: float | None = None
    apply_s: float | None = None


class SlowCalls:
    """Those of a process. On the event loop's thread."""

    def __init__(self, slow_s: float, wall: Callable[[], float] = time.time) -> None:
        """``slow_s``: from how many seconds on a call is slow."""
        self.slow_s = slow_s
        self.last_entry: LastEntry = lambda since, until: None
        """Asked for where the time of a write went."""
        self._wall = wall
        self._newest: deque[SlowCall] = deque(maxlen=NEWEST)
        self._second = 0
        self._groups = 0
        self._logged_at = 0.0
        self._unlogged = 0

    def newest(self) -> Sequence[SlowCall]:
        """The newest of them, the newest last."""
        return tuple(self._newest)

    def note(
        self, path: str, code: str, began: float, ended: float, calls: int, request_bytes: int
    ) -> None:
        """A group of calls was slow; times of the monotonic clock."""
        name = name_of(path)
        if name is None:
            return
        if int(ended) != self._second:
            self._second, self._groups = int(ended), 0
        self._groups += 1
        if self._groups > GROUPS_A_SECOND:
            self._unlogged += calls
            return
        times = self.last_entry(began, ended) if name in WRITES and code == "OK" else None
        slow = SlowCall(self._wall(), name, code, calls, request_bytes, ended - began)
        if times is not None:
            slow = SlowCall(
                slow.ended_at,
                name,
                code,
                calls,
                request_bytes,
                slow.seconds,
                queue_s=times.proposed_s - began,
                commit_s=times.committed_s - times.proposed_s,
                apply_s=times.applied_s - times.committed_s,
            )
        self._newest.append(slow)
        if ended - self._logged_at < LOG_S:
            self._unlogged += calls
            return
        self._logged_at = ended
        others, self._unlogged = self._unlogged, 0
        _say(slow, others)


def last_entry_of(node: Node, since: float, until: float) -> EntryTimes | None:
    """The entry that answered a write of that time, if a member of this process proposed it."""
    for replica in node.figures().replicas:
        if replica.is_leader:
            return replica.durations.last_entry(since, until)
    return None


def newest_of(slow_calls: SlowCalls | None) -> admin_pb2.SlowCallsResponse:
    """What operators are told; None: nobody looks for slow ones."""
    if slow_calls is None:
        return admin_pb2.SlowCallsResponse()
    return admin_pb2.SlowCallsResponse(
        slow_seconds=slow_calls.slow_s,
        calls=[
            admin_pb2.SlowCall(
                ended_at=slow.ended_at,
                method=slow.method,
                code=slow.code,
                calls=slow.calls,
                request_bytes=slow.request_bytes,
                seconds=slow.seconds,
                queue_seconds=slow.queue_s,
                commit_seconds=slow.commit_s,
                apply_seconds=slow.apply_s,
            )
            for slow in slow_calls.newest()
        ],
    )


def _say(slow: SlowCall, others: int) -> None:
    parts = {"queue_ms": slow.queue_s, "commit_ms": slow.commit_s, "apply_ms": slow.apply_s}
    log.info(
        "slow call",
        method=slow.method,
        code=slow.code,
        calls=slow.calls,
        request_bytes=slow.request_bytes,
        ms=round(slow.seconds * 1000, 1),
        **{name: round(part * 1000, 1) for name, part in parts.items() if part is not None},
        **({"others_since": others} if others else {}),
    )
