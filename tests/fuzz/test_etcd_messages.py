"""Every method of etcd's API with random requests, to three members, by both ways of calls.

Whatever is sent, each call ends with a status that clients know, no member stops, all of them come
to the same state, and so does their log in a state machine of its own, native or plain, answer by
answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.log.native import Log
from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.etcd.methods import SERVICES, MethodShape
from kvstore.engine import DB, Options
from kvstore.raft import EntryKind
from kvstore.state import StateMachine
from tests.fuzz.budget import rounds
from tests.fuzz.etcd_requests import KEYS, Requests
from tests.fuzz.etcd_ways import IN_BATCHES, Members, Metadata, Outcome

ROUNDS = 4
CALLS = 250
AT_ONCE = 25
WAIT_S = 30.0
# Calls that last as long as somebody else likes, or for ever, are given up after a while.
LASTING_S = 0.05
LASTING = {
    "/v3lockpb.Lock/Lock",
    "/v3electionpb.Election/Campaign",
    "/v3electionpb.Election/Observe",
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseKeepAlive",
}
# What a defect would end a call with: INTERNAL; UNKNOWN without words that etcd has, too.
INTERNAL, UNKNOWN = 13, 2

SHAPES = [shape for methods in SERVICES.values() for shape in methods.values()]
KV = [shape for shape in SHAPES if shape.service == "etcdserverpb.KV"]
BATCHED = [shape for shape in SHAPES if shape.path in IN_BATCHES[:3]]
# Auth shuts everybody out for most of a round where it is enabled early.
WEIGHTS = [
    12 if shape.service == "etcdserverpb.KV" else 0.3 if shape.name == "Snapshot" else 1.5
    for shape in SHAPES
]


def played(directory: Path, play: Callable[[Members], Coroutine[Any, Any, None]]) -> None:
    """Let ``play`` have members, compare them afterwards, and see that nobody told of a defect."""

    async def main() -> None:
        members = Members(directory)
        try:
            await members.serve()
            await play(members)
            await members.settle()
            compare(members)
            found.append(state_of(members.replicas[0].machine))
        finally:
            await members.close()

    found: list[tuple[object, ...]] = []
    directory.mkdir()
    with capture_logs() as lines:
        asyncio.run(main())
    assert not [line for line in lines if line["log_level"] in ("error", "critical")]
    apply_the_log(directory, found[0])


def state_of(machine: StateMachine) -> tuple[object, ...]:
    return (
        machine.revision,
        machine.state_hash,
        machine.compacted,
        machine.hash_kv(0),
        sorted(machine.leases()),
        machine.alarms,
        machine.auth.record,
        machine.auth.users,
        machine.auth.roles,
    )


def compare(members: Members) -> None:
    assert not members.node.failed.done()
    assert [one.failure for one in members.replicas] == [None] * 3
    states = [state_of(one.machine) for one in members.replicas]
    assert states[0] == states[1] == states[2]


def apply_the_log(directory: Path, expected: tuple[object, ...]) -> None:
    """What the members applied, by a native and a plain state machine."""
    native, plain = (
        StateMachine(
            DB("/state", options=Options(wal=False), filesystem=MemoryFileSystem()), plain=form
        )
        for form in (False, True)
    )
    entries: dict[int, tuple[int, bytes]] = {}
    log = Log(str(directory / "node1" / "log"), read_only=True)
    for kind, index, term, payload in log.replay():
        if kind - 1 in {*EntryKind}:
            entries[index] = term, payload if kind - 1 == EntryKind.COMMAND else b""
    log.close()
    assert sorted(entries) == list(range(1, len(entries) + 1))
    assert len(entries) > 20, "hardly anything came of what was asked"
    for index in sorted(entries):
        term, data = entries[index]
        answers = [[*map(repr, one.apply([(index, term, data)]))] for one in (native, plain)]
        assert answers[0] == answers[1]
        assert native.state_hash == plain.state_hash
    assert state_of(native) == state_of(plain) == expected
    native.close()
    plain.close()


class Play:
    """One round's calls."""

    def __init__(self, members: Members, chance: random.Random) -> None:
        self._members = members
        self._chance = chance
        self._requests = Requests(chance)
        self._token = ""

    async def run(self) -> None:
        await self._prepare()
        for _ in range(CALLS // AT_ONCE):
            calls = self._chance.choices(SHAPES, WEIGHTS, k=AT_ONCE)
            await asyncio.gather(*map(self._call, calls))
            if self._chance.random() < 0.3:
                await self._come_back()

    async def _prepare(self) -> None:
        """There is something that requests can concern."""
        for lease in (1, 2):
            await self._ask("Lease/LeaseGrant", pb.LeaseGrantRequest(ID=lease, TTL=3600))
        for key in KEYS[:5]:
            await self._ask("KV/Put", pb.PutRequest(key=key, value=b"v"))
        if self._chance.random() < 0.5:
            await self._ask("Auth/UserAdd", pb.AuthUserAddRequest(name="root", password="root"))
            await self._ask("Auth/RoleAdd", pb.AuthRoleAddRequest(name="root"))
            grant = pb.AuthUserGrantRoleRequest(user="root", role="root")
            await self._ask("Auth/UserGrantRole", grant)

    async def _come_back(self) -> None:
        """From what has everything refused: users that are asked for, alarms."""
        request = pb.AuthenticateRequest(name="root", password="root")
        answer = await self._ask("Auth/Authenticate", request)
        if answer.code == 0:
            self._token = pb.AuthenticateResponse.FromString(answer.answers[0]).token
        if self._chance.random() < 0.5:
            await self._ask("Auth/AuthDisable", pb.AuthDisableRequest())
        stands = await self._ask("Maintenance/Alarm", pb.AlarmRequest())
        for alarm in pb.AlarmResponse.FromString(b"".join(stands.answers)).alarms:
            off = pb.AlarmRequest(action=2, memberID=alarm.memberID, alarm=alarm.alarm)
            await self._ask("Maintenance/Alarm", off)

    async def _ask(self, method: str, request: Any) -> Outcome:
        path = f"/etcdserverpb.{method}"
        return await self._members.plain(path, (request.SerializeToString(),), self._metadata())

    def _metadata(self) -> Metadata:
        return [("token", self._token)] if self._token else []

    async def _call(self, shape: MethodShape) -> None:
        chance = self._chance
        count = chance.randrange(4) if shape.streams_in else 1
        requests = [self._requests.draw(shape) for _ in range(count)]
        metadata = self._metadata() if chance.random() < 0.7 else []
        in_batch = shape.path in IN_BATCHES and count == 1 and chance.random() < 0.6
        way = self._members.in_batch if in_batch else self._members.plain
        lasts = shape.path in LASTING or chance.random() < 0.02
        try:
            async with asyncio.timeout(LASTING_S if lasts else WAIT_S) as limit:
                outcome = await way(shape.path, requests, metadata)
        except TimeoutError:
            assert lasts, f"{shape.path} has no end: {requests}"
            assert limit.expired()
            return
        check_outcome(shape, outcome, requests)


def check_outcome(shape: MethodShape, outcome: Outcome, requests: Sequence[bytes]) -> None:
    told = f"{shape.path} {requests} ended with {outcome}"
    assert outcome.code != INTERNAL, told
    assert outcome.code != UNKNOWN or outcome.details.startswith("etcdserver: "), told
    for answer in outcome.answers:
        shape.response.FromString(answer)


def test_all_members_come_to_the_same_whatever_is_sent(tmp_path: Path) -> None:
    for number in rounds(ROUNDS):
        played(tmp_path / f"{number}", partial(play, random.Random(number)))


async def play(chance: random.Random, members: Members) -> None:
    await Play(members, chance).run()


def test_both_ways_answer_the_same(tmp_path: Path) -> None:
    """One request after the other, to members of each way's own."""

    for number in rounds(ROUNDS):
        plain: list[object] = []
        batched: list[object] = []
        for outcomes, in_batches in ((plain, False), (batched, True)):
            ask = partial(ask_in_turn, outcomes, random.Random(number), in_batches)
            played(tmp_path / f"{number}-{in_batches}", ask)
        for one, other in zip(plain, batched, strict=True):
            assert one == other


async def ask_in_turn(
    outcomes: list[object], chance: random.Random, in_batches: bool, members: Members
) -> None:
    requests = Requests(chance)
    for _ in range(CALLS // 2):
        shape = chance.choice(BATCHED)
        data = requests.draw(shape)
        way = members.in_batch if in_batches else members.plain
        async with asyncio.timeout(WAIT_S):
            outcome = await way(shape.path, (data,))
        check_outcome(shape, outcome, (data,))
        outcomes.append((shape.path, data, *comparable(shape, outcome)))


def comparable(shape: MethodShape, outcome: Outcome) -> tuple[object, ...]:
    """But for the term, which elections count."""
    answers = []
    for answer in outcome.answers:
        message = shape.response.FromString(answer)
        message.header.raft_term = 0
        answers.append(message.SerializeToString(deterministic=True))
    return outcome.code, outcome.details, answers
