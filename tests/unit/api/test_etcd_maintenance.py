"""What of Maintenance isn't for everybody."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd.asking import Asking
from kvstore.api.handlers.etcd.maintenance import MaintenanceHandlers
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.service.etcd import EtcdService
from tests.unit.api.etcd_desk import Desk, run


def test_operators_alone_raise_alarms() -> None:
    async def play(desk: Desk) -> None:
        context = cast("Any", None)
        service = cast("EtcdService", None)

        def handlers(is_operator: bool) -> MaintenanceHandlers:
            return MaintenanceHandlers(service, cast("Asking", desk), lambda _: is_operator)

        raising = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=1, alarm=pb.CORRUPT)
        listing = pb.AlarmRequest(action=pb.AlarmRequest.GET)
        ending = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=1, alarm=pb.CORRUPT)
        with pytest.raises(EtcdError) as refused:
            await handlers(False).Alarm(raising, context)
        assert refused.value.reason is Reason.PERMISSION_DENIED
        assert not (await handlers(False).Alarm(listing, context)).alarms
        await handlers(True).Alarm(raising, context)
        (alarm,) = (await handlers(False).Alarm(listing, context)).alarms
        assert (alarm.memberID, alarm.alarm) == (1, pb.CORRUPT)
        await handlers(False).Alarm(ending, context)
        assert not (await handlers(False).Alarm(listing, context)).alarms

    run(play)
