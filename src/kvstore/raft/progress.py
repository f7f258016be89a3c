"""How far each follower is, and how much it may be sent (dissertation §10.2.1, §10.2.2).

A follower is in one of three states:

* PROBE: where the logs part isn't known. One APPEND at a time, then wait for the answer or the
  next heartbeat's.
* REPLICATE: the logs are known to be equal up to ``match``. APPENDs go out one after another
  without waiting, as far as the window allows; ``next`` runs ahead optimistically.
* SNAPSHOT: it needs entries that are gone. Nothing is sent until the snapshot is reported.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence

from kvstore.raft.messages import Entry

__all__ = ["PeerState", "Progress"]


class PeerState(enum.IntEnum):
    """See the module's words."""

    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2


# Looking up a member of an enum costs ten times as much as a name.
_PROBE = PeerState.PROBE
_REPLICATE = PeerState.REPLICATE
_SNAPSHOT = PeerState.SNAPSHOT


class Progress:
    """One follower as its leader sees it.

    Invariant: ``match < next``. ``match`` is the last entry known to be durable there;
    ``inflight`` holds (last index, payload bytes) of each unanswered APPEND, in order.
    ``heard`` is the tick of the last answer, ``pulsed`` that of the last pulse, ``round`` the
    newest heartbeat round answered, ``commit_told`` the commit index that the follower was last
    sent, ``commit_wanted`` the one that it is to be sent as soon as it has the entries.
    ``leaving``: the newest configuration doesn't have it any more; it is only still told so.
    ``kept_after``: the index of the snapshot that is on its way or was delivered last, whose next
    entries the log keeps until the follower has come near its end; 0 for none. ``ailing``: its
    storage takes nothing for now, as it last said. ``older``: entries read back from the disk for
    it, the first of them for its term alone; ``fetching``: the index that is being read back, 0 for
    none; ``older_sent``: index and term of the last such entry sent.
    """

    __slots__ = (
        "ailing",
        "commit_told",
        "commit_wanted",
        "damaged",
        "fetching",
        "heard",
        "inflight",
        "inflight_bytes",
        "kept_after",
        "leaving",
        "match",
        "next",
        "older",
        "older_sent",
        "paused",
        "pending_snapshot",
        "pulsed",
        "round",
        "state",
    )

    def __init__(self, next_index: int, heard: int) -> None:
        self.state = _PROBE
        self.match = 0
        self.next = next_index
        self.paused = False
        self.pending_snapshot = 0
        self.inflight: deque[tuple[int, int]] = deque()
        self.inflight_bytes = 0
        self.heard = heard
        self.pulsed = 0
        self.round = 0
        self.commit_told = 0
        self.commit_wanted = 0
        self.damaged = False
        self.leaving = False
        self.kept_after = 0
        self.ailing = False
        self.older: Sequence[Entry] = ()
        self.older_sent = (0, 0)
        self.fetching = 0

    def become_probe(self) -> None:
        """Find out anew where the logs part; a delivered snapshot gives the start."""
        start = self.match + 1
        if self.state is _SNAPSHOT:
            start = max(start, self.pending_snapshot + 1)
        self._enter(_PROBE)
        self.next = start

    def become_replicate(self) -> None:
        """The logs are equal up to ``match``; send on from there."""
        self._enter(_REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        """A snapshot up to ``index`` is on its way; nothing else is until it is reported."""
        self._enter(_SNAPSHOT)
        self.pending_snapshot = index
        self.kept_after = index
        self.older = ()

    def _enter(self, state: PeerState) -> None:
        self.state = state
        self.paused = False
        self.pending_snapshot = 0
        self.inflight.clear()
        self.inflight_bytes = 0

    def sent(self, last: int, size: int) -> None:
        """Entries up to ``last`` with ``size`` payload bytes left for this follower."""
        if self.state is _REPLICATE:
            self.next = last + 1
            self.inflight.append((last, size))
            self.inflight_bytes += size
        else:
            self.paused = True

    def acknowledged(self, index: int) -> bool:
        """The follower has all up to ``index``; False when that is old news."""
        inflight = self.inflight
        while inflight and inflight[0][0] <= index:
            self.inflight_bytes -= inflight.popleft()[1]
        if self.next <= index:
            self.next = index + 1
        if index <= self.match:
            return False
        self.match = index
        self.paused = False
        return True

    def rejected(self, rejected_index: int, retry_index: int) -> bool:
        """Step back after a refused APPEND; False when the refusal is old news.

        ``rejected_index`` is the APPEND's ``log_index``; ``retry_index`` the last place where
        the logs may still be equal, found from the follower's hint (Raft §5.3). A follower that
        refuses what it had acknowledged isn't sent the same again before its next heartbeat.
        """
        if self.state is _REPLICATE:
            if rejected_index <= self.match:
                return False
            self.become_probe()
            return True
        if self.state is _SNAPSHOT or self.next - 1 != rejected_index:
            return False
        retry = max(min(rejected_index, retry_index + 1), self.match + 1)
        if retry < self.next:
            self.next = retry
            self.paused = False
        return True

    def may_send(self, messages_max: int, bytes_max: int) -> bool:
        """True when the window has room for another APPEND."""
        if self.state is _REPLICATE:
            return len(self.inflight) < messages_max and self.inflight_bytes < bytes_max
        return self.state is _PROBE and not self.paused
