"""The option of the quota, in the words of what watches over it."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from kvstore.replica.work import Work
from kvstore.server.config.options import ServerOptions
from kvstore.service.etcd import EtcdService
from kvstore.service.etcd.quota import Quota

__all__ = ["watch_quota"]

log = structlog.get_logger("kvstore.etcd")


def watch_quota(
    etcd: EtcdService, options: ServerOptions, work: Work, is_alone: Callable[[], bool]
) -> Quota:
    """Have alarms raised, at the ticks of ``etcd``, where the store has no room for more."""

    def raised(reason: str) -> None:
        log.warning("alarm NOSPACE", member=etcd.member_id, reason=reason)

    def ended(reason: str) -> None:
        log.info("alarm NOSPACE ended", member=etcd.member_id, reason=reason)

    quota = Quota(
        etcd,
        options.quota_mib << 20,
        now=time.monotonic,
        work=work,
        raised=raised,
        ended=ended,
        is_alone=is_alone,
    )
    etcd.at_tick(quota.tick)
    return quota
