"""What operators ask about repairs, of the members of one process."""

from __future__ import annotations

from collections.abc import Iterable

from kvstore.api.v1 import admin_pb2
from kvstore.replica import Replica

__all__ = ["repairs_of"]


def repairs_of(replicas: Iterable[Replica], *, begin: bool) -> admin_pb2.RepairResponse:
    """What each repairs; with ``begin`` each first begins to check all that it holds."""
    told = []
    for replica in replicas:
        if begin and replica.failure is None:
            replica.check_all()
        checks, counters = replica.scrub.figures(), replica.counters
        told.append(
            admin_pb2.MemberRepair(
                member_id=replica.member,
                checks=checks.rounds,
                checked=max(checks.progress, 0.0),
                damages=checks.damages,
                repairing=replica.repair.under_way,
                repairs_started=counters.repairs_started,
                repairs_done=counters.repairs_done,
                repairs_failed=counters.repairs_failed,
                repairs_by_range=counters.repairs_by_range,
                repair_received_bytes=counters.repair_received_bytes,
                fault="" if replica.failure is None else str(replica.failure),
            )
        )
    return admin_pb2.RepairResponse(members=told)
