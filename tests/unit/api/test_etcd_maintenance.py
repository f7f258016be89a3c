"""What of Maintenance isn't for everybody, snapshots in blobs, and whom leadership is moved to."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, cast

import grpc
import pytest

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers import sending
from kvstore.api.handlers.etcd.asking import Asking
from kvstore.api.handlers.etcd.kv import KVHandlers
from kvstore.api.handlers.etcd.maintenance import MaintenanceHandlers, Member
from kvstore.api.handlers.etcd.rights import Rights
from kvstore.api.handlers.etcd.snapshot import BLOB_BYTES_MAX, Blobs
from kvstore.errors import Error, InvalidArgumentError, NotLeaderError, UnavailableError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.replica.backup_file import BackupInfo, encode_backup, sealed
from kvstore.service.etcd import EtcdService
from kvstore.state.mvcc.requests import AlarmKind
from tests.unit.api.etcd_desk import Desk, run

CONTEXT = cast("Any", None)


def rights(*, operator: bool = False, upkeep: bool = False) -> Rights:
    return Rights(lambda _: operator, lambda _: upkeep)


def reason_of(play: Callable[[], Coroutine[Any, Any, object]]) -> Reason:
    """Why a call is refused."""

    async def main() -> None:
        async with asyncio.timeout(20):
            await play()

    with pytest.raises(EtcdError) as refused:
        asyncio.run(main())
    return refused.value.reason


def test_operators_alone_raise_alarms() -> None:
    async def play(desk: Desk) -> None:
        service, member = cast("EtcdService", None), cast("Member", None)

        def handlers(operator: bool) -> MaintenanceHandlers:
            allowed = rights(operator=operator)
            return MaintenanceHandlers(service, cast("Asking", desk), allowed, member)

        raising = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=1, alarm=pb.CORRUPT)
        listing = pb.AlarmRequest(action=pb.AlarmRequest.GET)
        ending = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=1, alarm=pb.CORRUPT)
        with pytest.raises(EtcdError) as refused:
            await handlers(False).Alarm(raising, CONTEXT)
        assert refused.value.reason is Reason.PERMISSION_DENIED
        assert not (await handlers(False).Alarm(listing, CONTEXT)).alarms
        await handlers(True).Alarm(raising, CONTEXT)
        (alarm,) = (await handlers(False).Alarm(listing, CONTEXT)).alarms
        assert (alarm.memberID, alarm.alarm) == (1, pb.CORRUPT)
        await handlers(False).Alarm(ending, CONTEXT)
        assert not (await handlers(False).Alarm(listing, CONTEXT)).alarms
        # A number that etcd doesn't know, and the state does.
        ours = AlarmKind.DIFFERS
        for action in (pb.AlarmRequest.ACTIVATE, pb.AlarmRequest.GET, pb.AlarmRequest.DEACTIVATE):
            strange = pb.AlarmRequest(action=action, memberID=1, alarm=cast("Any", int(ours)))
            assert not (await handlers(True).Alarm(strange, CONTEXT)).alarms
        assert not (await handlers(False).Alarm(listing, CONTEXT)).alarms

    run(play)


class Stage:
    """A member that leads, of voters 1 and 2, and the process around it."""

    def __init__(self) -> None:
        self.has_leader = True
        self.is_leader = True
        self.member_id = 1
        self.patience_s = 5.0
        self.quota_bytes = 0
        self.moved: list[int] = []
        self.leads_then = 2
        self.refusal: Error | None = None
        self.saved_stale: list[bool] = []
        self.pieces: Sequence[bytes] = ()
        self.is_closed = False

    def voters(self) -> tuple[int, ...]:
        return (1, 2)

    async def transfer_leadership(self, to: int) -> int:
        self.moved.append(to)
        if self.refusal is not None:
            raise self.refusal
        return self.leads_then

    async def save_sealed(self, stale: bool) -> AsyncGenerator[bytes, None]:
        self.saved_stale.append(stale)
        try:
            for piece in self.pieces:
                yield piece
        finally:
            self.is_closed = True

    def header(self, revision: int | None = None) -> pb.ResponseHeader:
        return pb.ResponseHeader(revision=9)

    def handlers(self, *, upkeep: bool = True) -> MaintenanceHandlers:
        return MaintenanceHandlers(
            cast("EtcdService", self),
            cast("Asking", self),
            rights(upkeep=upkeep),
            cast("Member", self),
        )


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Defragment", pb.DefragmentRequest()),
        ("Hash", pb.HashRequest()),
        ("HashKV", pb.HashKVRequest()),
        ("Snapshot", pb.SnapshotRequest()),
        ("MoveLeader", pb.MoveLeaderRequest(targetID=2)),
    ],
)
def test_what_is_heavy_is_for_those_who_may_keep_it_up(method: str, request_: Any) -> None:
    stage = Stage()
    call = getattr(stage.handlers(upkeep=False), method)
    assert reason_of(lambda: call(request_, CONTEXT)) is Reason.PERMISSION_DENIED
    assert (stage.moved, stage.saved_stale) == ([], [])


def test_so_is_a_compaction_that_waits_for_the_disk() -> None:
    handlers = KVHandlers(cast("Asking", None), rights())
    request = pb.CompactionRequest(revision=5, physical=True)
    assert reason_of(lambda: handlers.Compact(request, CONTEXT)) is Reason.PERMISSION_DENIED


def test_leadership_is_moved() -> None:
    stage = Stage()
    request = pb.MoveLeaderRequest(targetID=2)
    response = asyncio.run(stage.handlers().MoveLeader(request, CONTEXT))
    assert stage.moved == [2]
    assert response.header.revision == 9


def test_who_leads_already_is_left_alone() -> None:
    stage = Stage()
    asyncio.run(stage.handlers().MoveLeader(pb.MoveLeaderRequest(targetID=1), CONTEXT))
    assert not stage.moved


@pytest.mark.parametrize(
    ("given", "target", "reason"),
    [
        ({"is_leader": False}, 2, Reason.NOT_LEADER),
        ({"is_leader": False}, 9, Reason.NOT_LEADER),
        ({}, 9, Reason.BAD_TRANSFEREE),
        ({}, 0, Reason.BAD_TRANSFEREE),
        ({"refusal": InvalidArgumentError("it ails")}, 2, Reason.BAD_TRANSFEREE),
        ({"refusal": NotLeaderError(2)}, 2, Reason.NOT_LEADER),
        ({"refusal": UnavailableError("not in time")}, 2, Reason.TRANSFER_TIMED_OUT),
        ({"leads_then": 3}, 2, Reason.TRANSFER_TIMED_OUT),
    ],
)
def test_why_leadership_is_not_moved(given: dict[str, Any], target: int, reason: Reason) -> None:
    stage = Stage()
    for name, value in given.items():
        setattr(stage, name, value)
    request = pb.MoveLeaderRequest(targetID=target)
    assert reason_of(lambda: stage.handlers().MoveLeader(request, CONTEXT)) is reason


def test_a_transfer_that_hangs_is_given_up() -> None:
    stage = Stage()
    stage.patience_s = 0.01

    async def never(to: int) -> int:
        await asyncio.Event().wait()
        return to

    stage.transfer_leadership = never  # type: ignore[method-assign]
    request = pb.MoveLeaderRequest(targetID=2)
    assert (
        reason_of(lambda: stage.handlers().MoveLeader(request, CONTEXT))
        is Reason.TRANSFER_TIMED_OUT
    )


# --- snapshots -----------------------------------------------------------------------------------


def file_of(size: int) -> list[bytes]:
    info = BackupInfo("c", 1, 1, 1, 1, 1, 1, size)
    return list(sealed(encode_backup(info, lambda offset, wanted: bytes(wanted))))


@pytest.mark.parametrize("size", [1, 100, BLOB_BYTES_MAX, 1 << 20, (2 << 20) + 77])
def test_blobs_are_the_file_and_count_down_to_its_sum(size: int) -> None:
    pieces, blobs = file_of(size), Blobs()
    cut = [pair for piece in pieces for pair in blobs.cut(piece)]
    assert b"".join(blob for blob, _ in cut) == b"".join(pieces)
    *data, (digest, none_left) = cut
    assert (digest, none_left) == (hashlib.sha256(b"".join(b for b, _ in data)).digest(), 0)
    left = sum(len(blob) for blob, _ in data)
    assert left % 512 == 0
    for blob, remaining in data:
        assert 0 < len(blob) <= BLOB_BYTES_MAX
        left -= len(blob)
        assert remaining == left
    assert left == 0


class Reader:
    """A call whose client takes ``taken`` messages and then nothing."""

    def __init__(self, taken: int = 1 << 30) -> None:
        self.taken = taken
        self.got: list[pb.SnapshotResponse] = []
        self.ended: grpc.StatusCode | None = None

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def write(self, message: pb.SnapshotResponse) -> None:
        if len(self.got) == self.taken:
            await asyncio.Event().wait()
        self.got.append(message)

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.ended = code
        raise asyncio.CancelledError


def test_a_snapshot_is_streamed_with_one_header() -> None:
    stage, reader = Stage(), Reader()
    stage.pieces = file_of(100_000)
    asyncio.run(stage.handlers().Snapshot(pb.SnapshotRequest(), cast("Any", reader)))
    assert b"".join(message.blob for message in reader.got) == b"".join(stage.pieces)
    assert [message.HasField("header") for message in reader.got].count(True) == 1
    assert reader.got[0].header.revision == 9
    assert stage.saved_stale == [False]


def test_without_a_leader_it_is_of_what_the_member_has() -> None:
    stage = Stage()
    stage.has_leader = False
    stage.pieces = file_of(100)
    asyncio.run(stage.handlers().Snapshot(pb.SnapshotRequest(), cast("Any", Reader())))
    assert stage.saved_stale == [True]


def test_a_reader_who_hangs_is_given_up_and_the_backup_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "STALL_S", 0.05)
    stage, reader = Stage(), Reader(taken=3)
    stage.pieces = file_of(1 << 20)

    async def play() -> None:
        async with asyncio.timeout(20):
            await stage.handlers().Snapshot(pb.SnapshotRequest(), cast("Any", reader))

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(play())
    assert reader.ended is grpc.StatusCode.ABORTED
    assert len(reader.got) == 3
    assert stage.is_closed


def test_one_who_goes_away_closes_the_backup() -> None:
    stage, reader = Stage(), Reader(taken=3)
    stage.pieces = file_of(1 << 20)

    async def play() -> None:
        async with asyncio.timeout(20):
            snapshot = stage.handlers().Snapshot(pb.SnapshotRequest(), cast("Any", reader))
            task = asyncio.create_task(snapshot)
            while len(reader.got) < 3:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(play())
    assert stage.is_closed
