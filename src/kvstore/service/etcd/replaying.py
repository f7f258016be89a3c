"""Whether a process's member has applied again what it had applied before it was stopped.

It begins with what its tables hold and replays its log, of which it learns only from the leader up
to where it is committed. Who reads before that, and asks nobody else, would see the past that it
had left: revisions would go back, and a watch from now on would tell of the same changes again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kvstore.errors import Error
from kvstore.service.etcd.member import LocalMember

__all__ = ["Replaying"]


class Replaying:
    """Of one process. One thread."""

    def __init__(
        self, patience_s: float, *, now: Callable[[], float], over: Callable[[], object]
    ) -> None:
        """``patience_s``: where no leader can be asked for so long, what the member's own disk
        knows to be committed has to do. ``over``: called when a leader was asked."""
        self._over = over
        self._patience_s = patience_s
        self._now = now
        self._member: LocalMember | None = None
        self._began = 0.0
        self._is_asking = False
        self._is_over = False

    def is_over(self, member: LocalMember) -> bool:
        """To be asked at each tick, until it is so."""
        if member is not self._member:
            self._member = member
            self._began = self._now()
            self._is_asking = self._is_over = False
        if not self._is_over and not self._is_asking:
            self._is_asking = True
            member.read(partial(self._told, member))
        if not self._is_over and self._now() - self._began >= self._patience_s:
            self._is_over = _has_all(member)
        return self._is_over

    def _told(self, member: LocalMember, refusal: Error | None) -> None:
        """What was acknowledged before, by anyone, is applied, unless there is a ``refusal``."""
        if member is self._member:
            self._is_asking = False
            if refusal is None and not self._is_over:
                self._is_over = True
                self._over()


def _has_all(member: LocalMember) -> bool:
    """As far as its own disk says, which may lack that the last entries are committed. So one that
    knows users has to have applied these as well: they may say who is shut out."""
    status = member.status()
    if status.repair:
        return False  # what holds its place knows nothing
    if member.machine.auth.users:
        return status.applied >= status.raft.last_index
    return status.applied >= status.raft.commit
