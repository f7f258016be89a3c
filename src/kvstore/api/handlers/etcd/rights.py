"""Who may call what isn't for everybody, by the way a call comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kvstore.api.handlers.etcd.register import Context
from kvstore.etcd_errors import EtcdError, Reason

__all__ = ["Rights"]


class Rights(NamedTuple):
    """``is_operator``: whoever may change the members, and raise alarms. ``may_keep_up``: whoever
    may have a member do what takes long, or hand leadership over; operators may."""

    is_operator: Callable[[Context], bool]
    may_keep_up: Callable[[Context], bool]

    def check_operator(self, context: Context) -> None:
        """Raise EtcdError for a caller who isn't one."""
        if not self.is_operator(context):
            raise EtcdError(Reason.PERMISSION_DENIED)

    def check_upkeep(self, context: Context) -> None:
        """Raise EtcdError for a caller who may not."""
        if not self.may_keep_up(context):
            raise EtcdError(Reason.PERMISSION_DENIED)
