"""Upkeep by etcd's API: the alarms of a store, and room given back."""

from __future__ import annotations

from typing import NamedTuple

from kvstore.api.etcd import etcd_pb2
from kvstore.client.background import Runner
from kvstore.client.calls import Calls
from kvstore.client.requests import as_revision

__all__ = ["Alarm", "AsyncMaintenance", "Maintenance", "StateHash"]


class Alarm(NamedTuple):
    """What a member found wrong, for which the whole store refuses writes until it is disarmed.

    ``kind``: ``NOSPACE`` (puts are refused), ``CORRUPT`` (all writes are), or the number of one
    that this client doesn't know.
    """

    member_id: int
    kind: str


class StateHash(NamedTuple):
    """What one member has at ``revision``, from ``compact_revision`` on: equal for members that
    have the same."""

    hash: int
    revision: int
    compact_revision: int


class AsyncMaintenance:
    """Upkeep of a store; see :attr:`kvstore.Client.maintenance`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def alarms(self, *, timeout: float | None = None) -> list[Alarm]:
        """The alarms that stand."""
        request = etcd_pb2.AlarmRequest(action=etcd_pb2.AlarmRequest.GET)
        answer = await self._calls.call(
            lambda server: server.etcd.maintenance("Alarm"), request, timeout
        )
        return [_alarm(one) for one in answer.alarms]

    async def disarm(
        self, alarm: Alarm | None = None, *, timeout: float | None = None
    ) -> list[Alarm]:
        """End an alarm, or all that stand; those that it ended.

        One whose reason is still there comes back.
        """
        wanted = await self.alarms(timeout=timeout) if alarm is None else [alarm]
        ended: list[Alarm] = []
        for one in wanted:
            request = etcd_pb2.AlarmRequest(
                action=etcd_pb2.AlarmRequest.DEACTIVATE, memberID=one.member_id
            )
            # By its number: the kind may be newer than this client.
            request.alarm = _number(one.kind)  # type: ignore[assignment]
            answer = await self._calls.write_again(
                lambda server: server.etcd.maintenance("Alarm"), request, timeout
            )
            ended += [_alarm(each) for each in answer.alarms]
        return ended

    async def defragment(self, *, timeout: float | None = None) -> None:
        """Have the member that is called give back the room of what was deleted and compacted.

        Of a client with several addresses that is any of them: have a client for each. It serves
        meanwhile. For operators.
        """
        await self._calls.write_again(
            lambda server: server.etcd.maintenance("Defragment"),
            etcd_pb2.DefragmentRequest(),
            timeout,
        )

    async def hash(self, revision: int = 0, *, timeout: float | None = None) -> StateHash:
        """What the member that is called has of all keys, up to ``revision``; 0: what it has now.

        Of a client with several addresses that is any of them: have a client for each. Raises
        CompactedError, FutureRevisionError.
        """
        request = etcd_pb2.HashKVRequest(revision=as_revision(revision))
        answer = await self._calls.call(
            lambda server: server.etcd.maintenance("HashKV"), request, timeout
        )
        return StateHash(answer.hash, answer.hash_revision or revision, answer.compact_revision)


def _alarm(message: etcd_pb2.AlarmMember) -> Alarm:
    names = etcd_pb2.AlarmType.DESCRIPTOR.values_by_number
    known = names.get(message.alarm)
    return Alarm(message.memberID, str(message.alarm) if known is None else known.name)


def _number(kind: str) -> int:
    return int(kind) if kind.isdecimal() else etcd_pb2.AlarmType.Value(kind)


class Maintenance:
    """Upkeep of a store; see :attr:`kvstore.Client.maintenance`."""

    def __init__(self, run: Runner, maintenance: AsyncMaintenance) -> None:
        self._run = run
        self._maintenance = maintenance

    def alarms(self, *, timeout: float | None = None) -> list[Alarm]:
        """The alarms that stand."""
        return self._run(self._maintenance.alarms(timeout=timeout))

    def disarm(self, alarm: Alarm | None = None, *, timeout: float | None = None) -> list[Alarm]:
        """End an alarm, or all that stand; those that it ended.

        One whose reason is still there comes back.
        """
        return self._run(self._maintenance.disarm(alarm, timeout=timeout))

    def defragment(self, *, timeout: float | None = None) -> None:
        """Have the member that is called give back the room of what was deleted and compacted.

        Of a client with several addresses that is any of them: have a client for each. It serves
        meanwhile. For operators.
        """
        self._run(self._maintenance.defragment(timeout=timeout))

    def hash(self, revision: int = 0, *, timeout: float | None = None) -> StateHash:
        """What the member that is called has of all keys, up to ``revision``; 0: what it has now.

        Of a client with several addresses that is any of them: have a client for each. Raises
        CompactedError, FutureRevisionError.
        """
        return self._run(self._maintenance.hash(revision, timeout=timeout))
