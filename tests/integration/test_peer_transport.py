"""Members that talk over gRPC on loopback, with everything real but what they talk about."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog

from kvstore.api.v1 import kv_pb2, kv_pb2_grpc, raft_pb2, raft_pb2_grpc
from kvstore.errors import ConfigurationError, Error, StorageError
from kvstore.raft.messages import Entry, EntryKind, Membership, Message, MessageKind, SnapshotMeta
from kvstore.replica.packets import Packet, SnapshotPart, SnapshotProgress, encode_packet
from kvstore.server.peers.frames import join
from kvstore.server.peers.identity import MemberIdentity, Stage
from kvstore.server.peers.introductions import Introductions, RefusedPeerError
from kvstore.server.peers.registration import register
from kvstore.server.peers.registry import Known, PeerRegistry
from kvstore.server.peers.snapshots import to_request
from kvstore.server.peers.transport import PeerTransport
from kvstore.server.peers.wire import choose_wire
from kvstore.server.tls import pki
from kvstore.server.tls.certificate_files import CertificateFiles
from kvstore.service.operations import Operation, Result
from tests.integration.cluster import free_addresses

WAIT_S = 10.0


# What members talk over.
_fronts: contextvars.ContextVar[list[str]] = contextvars.ContextVar("fronts")


@pytest.fixture(params=["native", "grpcio", "native, grpcio", "grpcio, native"], autouse=True)
def fronts(request: pytest.FixtureRequest) -> Iterator[None]:
    """Of members with odd and with even numbers; old and new ones in one cluster, so to speak."""
    token = _fronts.set(request.param.split(", "))
    yield
    _fronts.reset(token)


# What closes the transports of the test that runs.
_started: contextvars.ContextVar[contextlib.AsyncExitStack] = contextvars.ContextVar("started")


@dataclasses.dataclass
class Member:
    """One end: its transport, what it received and whom it lost messages to."""

    transport: PeerTransport
    introductions: Introductions
    received: list[Packet]
    lost: list[int]
    say_removed: list[int]
    address: str = ""

    async def until(self, condition: Callable[[Member], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition(self):
                await asyncio.sleep(0.005)


class Asked:
    """A service that notes what it was asked, and answers nothing."""

    def __init__(self, asked: list[object]) -> None:
        self._asked = asked

    def submit(
        self,
        operations: Sequence[Operation],
        deadline: float,
        done: Callable[[Sequence[Result]], None],
    ) -> None:
        self._asked += operations


async def start(
    directory: Path,
    member: int,
    *,
    cluster: str = "c",
    removed: Iterable[int] = (),
    incarnation: int | None = None,
    starts: int = 1,
    founders: str = "f",
    certificates: CertificateFiles | None = None,
    address: str = "127.0.0.1:0",
    snapshot_bytes_per_s: int = 1 << 30,
    members: Iterable[int] = (1, 2, 3),
    asked: list[object] | None = None,
) -> Member:
    """``asked`` gets the calls of clients that another member passed on."""
    directory.mkdir(exist_ok=True)
    identity = MemberIdentity(
        cluster, member, incarnation or member, starts, founders, Stage.MEMBER
    )
    registry = PeerRegistry(directory)
    registry.remove(removed)
    introductions = Introductions(identity, registry, members)
    received: list[Packet] = []
    lost: list[int] = []
    say_removed: list[int] = []
    failed: list[Error] = []
    transport = PeerTransport(
        introductions,
        certificates,
        received.extend,
        lost.append,
        say_removed.append,
        failed.append,
        wire=choose_wire((_fronts.get() * 2)[(member - 1) % 2]),
        snapshot_bytes_per_s=snapshot_bytes_per_s,
    )
    made = Member(transport, introductions, received, lost, say_removed)
    if asked is not None:
        transport.answer_forwarded(Asked(asked))
    made.address = transport.bind(address)
    await transport.start()
    _started.get().push_async_callback(transport.close)
    return made


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test; the transports that it started are closed, however it ends."""

    async def with_transports() -> None:
        async with contextlib.AsyncExitStack() as stack:
            token = _started.set(stack)
            try:
                await test
            finally:
                _started.reset(token)

    asyncio.run(with_transports())


def heartbeat(sender: int, to: int, context: int) -> Message:
    return Message(MessageKind.HEARTBEAT, to, sender, 1, context=context, entries=[])


def append(sender: int, to: int, data: Sequence[bytes]) -> Message:
    entries = [Entry(1, number, EntryKind.COMMAND, one) for number, one in enumerate(data, 1)]
    return Message(MessageKind.APPEND, to, sender, 1, entries=entries)


def connect(one: Member, other: Member) -> None:
    """Let ``one`` send to ``other``."""
    one.transport.update_members({other.introductions.member: other.address})


def connected(peer: int) -> Callable[[Member], bool]:
    return lambda member: member.transport.links()[peer].connected


def connected_times(peer: int, times: int) -> Callable[[Member], bool]:
    return lambda member: member.transport.links()[peer].counters.connects == times


def test_messages_arrive_whole_and_in_order(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        connect(one, two)
        await one.until(connected(2))
        sent = [heartbeat(1, 2, number) for number in range(1, 1001)]
        one.transport.send(sent)
        await two.until(lambda member: len(member.received) == len(sent))
        assert two.received == sent
        assert one.transport.links()[2].counters.frames < 100

    run(test())


def test_a_message_larger_than_a_frame_goes_alone(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        connect(one, two)
        await one.until(connected(2))
        big = [append(1, 2, [bytes([n]) * (3 << 20)]) for n in range(3)]
        one.transport.send(big)
        await two.until(lambda member: len(member.received) == 3)
        assert two.received == big
        assert one.transport.links()[2].counters.frames == 3

    run(test())


def test_a_heartbeat_overtakes_entries_that_are_on_their_way(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        connect(one, two)
        await one.until(connected(2))
        big = [append(1, 2, [bytes([n]) * (1 << 20)]) for n in range(30)]
        one.transport.send(big)
        await two.until(lambda member: len(member.received) > 0)
        one.transport.send([heartbeat(1, 2, 7)])
        await two.until(lambda member: len(member.received) == 31)
        assert two.received.index(heartbeat(1, 2, 7)) < 30
        assert [packet for packet in two.received if packet != heartbeat(1, 2, 7)] == big

    run(test())


def test_an_append_without_entries_keeps_its_place_among_the_others(tmp_path: Path) -> None:
    """It asks whether those before it got lost."""

    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        connect(one, two)
        await one.until(connected(2))
        sent = [append(1, 2, [bytes(3 << 20)]), append(1, 2, []), append(1, 2, [b"x"])]
        one.transport.send(sent)
        await two.until(lambda member: len(member.received) == 3)
        assert two.received == sent

    run(test())


def test_a_full_queue_drops_and_says_so(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        connect(one, two)
        await one.until(connected(2))
        # All in one turn of the loop: nothing can be sent in between.
        one.transport.send([append(1, 2, [bytes(1 << 20)])] * 40)
        counters = one.transport.links()[2].counters
        assert 0 < counters.dropped < 40
        assert one.lost == [2] * counters.dropped
        await two.until(lambda member: len(member.received) == 40 - counters.dropped)

    run(test())


def test_an_unreachable_peer_is_tried_again_and_gets_the_newest_votes(tmp_path: Path) -> None:
    async def test() -> None:
        (address,) = free_addresses(1)
        one = await start(tmp_path / "1", 1)
        two = await start(tmp_path / "2", 2, address=address)
        await two.transport.close()
        connect(one, two)
        one.transport.send([heartbeat(1, 2, number) for number in range(1, 101)])
        one.transport.send([append(1, 2, [b"x"])])
        assert one.transport.links()[2].counters.dropped == 85
        two = await start(tmp_path / "2", 2, starts=2, address=address)
        await two.until(lambda member: len(member.received) == 16)
        assert [message.context for message in two.received] == list(range(85, 101))

    run(test())


def test_a_peer_that_restarts_is_found_again_and_its_loss_is_reported(tmp_path: Path) -> None:
    async def test() -> None:
        (address,) = free_addresses(1)
        one = await start(tmp_path / "1", 1)
        two = await start(tmp_path / "2", 2, address=address)
        connect(one, two)
        await one.until(connected(2))
        await two.transport.close()
        await one.until(lambda member: member.lost == [2])
        two = await start(tmp_path / "2", 2, starts=2, address=address)
        await one.until(connected(2))
        one.transport.send([heartbeat(1, 2, 5)])
        await two.until(lambda member: len(member.received) == 1)

    run(test())


async def refusals(one: Member, two: Member) -> tuple[str, str]:
    """Let one knock at two until it is refused; the reasons that two and one logged."""
    found: dict[bool, str] = {}
    with structlog.testing.capture_logs() as logs:
        connect(one, two)
        async with asyncio.timeout(WAIT_S):
            while len(found) < 2:
                await asyncio.sleep(0.005)
                # Who dials knows whom; who is called knows an address alone.
                found = {"peer" in e: e["reason"] for e in logs if e["event"] == "peer refused"}
        assert not one.transport.links()[two.introductions.member].connected
    return found[False], found[True]


def test_a_member_removed_while_it_talks_is_cut_off(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        connect(one, two)
        await one.until(connected(2))
        two.introductions.registry.remove([1])
        one.transport.send([heartbeat(1, 2, 1)])
        await one.until(lambda member: member.lost == [2])
        assert not two.received

    run(test())


@pytest.mark.parametrize(
    ("caller", "called", "reason"),
    [
        ({"cluster": "x"}, {}, "member 1 belongs to cluster 'x', this is "),
        ({}, {"removed": (1,)}, "member 1 was removed from cluster 'c'"),
        ({"founders": "g"}, {}, "was started with other [[nodes]]"),
    ],
)
def test_a_stranger_is_refused_with_the_reason_on_both_sides(
    tmp_path: Path, caller: dict[str, Any], called: dict[str, Any], reason: str
) -> None:
    async def test() -> None:
        one = await start(tmp_path / "1", 1, **caller)
        two = await start(tmp_path / "2", 2, **called)
        called_says, caller_says = await refusals(one, two)
        assert reason in called_says
        assert reason in caller_says
        assert set(one.say_removed) == ({2} if "removed" in called else set())

    run(test())


def test_a_stranger_isnt_told_the_clusters_name(tmp_path: Path) -> None:
    async def test() -> None:
        one = await start(tmp_path / "1", 1, cluster="x")
        two = await start(tmp_path / "2", 2, cluster="the-name")
        hello = one.introductions.to(2)
        for method, request in (
            ("Register", raft_pb2.RegisterRequest()),
            ("RequestVote", raft_pb2.RequestVoteRequest(term=4, candidate_id=1)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await call(two, method, request, hello)
            said = [refusal.value.details(), *map(str, refusal.value.initial_metadata() or ())]
            said += map(str, refusal.value.trailing_metadata() or ())
            assert "the-name" not in "".join(map(str, said))

    run(test())


@pytest.mark.parametrize("tls", [False, True])
def test_a_certificate_is_no_membership(
    tmp_path: Path, authority: pki.Authority, tls: bool
) -> None:
    """Who holds one for an id that was never added gets no answer but to Raft's own messages."""

    async def test() -> None:
        files = {member: peer_files(authority, member) for member in (1, 78)} if tls else {}
        stranger = await start(tmp_path / "78", 78, certificates=files.get(78))
        asked: list[object] = []
        one = await start(
            tmp_path / "1", 1, certificates=files.get(1), asked=asked, members=(1, 2, 3)
        )
        hello = stranger.introductions.to(1)
        vote = raft_pb2.RequestVoteRequest(term=4, candidate_id=78)
        append = raft_pb2.AppendEntriesRequest(term=4, leader_id=78)
        async with stranger.transport.dialler.dial(1, one.address) as channel:
            stub: Any = raft_pb2_grpc.RaftPeerStub(channel)
            kv: Any = kv_pb2_grpc.KVStub(channel)
            for method, request in (
                (stub.Register, raft_pb2.RegisterRequest()),
                (stub.RequestVote, vote),
                (stub.AppendEntries, append),
                (kv.Get, kv_pb2.GetRequest(key=b"secret")),
                (kv.Put, kv_pb2.PutRequest(key=b"k", request_id="r")),
                (kv.Delete, kv_pb2.DeleteRequest(key=b"k", request_id="r")),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    await method(request, metadata=hello, timeout=WAIT_S)
                assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
                assert refusal.value.details() == "78 is no member"
        assert not one.received
        assert not asked
        # A member that is new to this one must be heard all the same: the core decides.
        connect(stranger, one)
        await stranger.until(connected(1))
        stranger.transport.send([heartbeat(78, 1, 1)])
        await one.until(lambda member: len(member.received) == 1)
        assert not one.introductions.registry.known()

    run(test())


def test_a_removed_members_certificate_opens_nothing(
    tmp_path: Path, authority: pki.Authority
) -> None:
    async def test() -> None:
        files = {member: peer_files(authority, member) for member in (1, 3)}
        gone = await start(tmp_path / "3", 3, certificates=files[3])
        asked: list[object] = []
        one = await start(
            tmp_path / "1", 1, certificates=files[1], asked=asked, members=(1, 2), removed=(3,)
        )
        hello = gone.introductions.to(1)
        async with gone.transport.dialler.dial(1, one.address) as channel:
            stub: Any = raft_pb2_grpc.RaftPeerStub(channel)
            kv: Any = kv_pb2_grpc.KVStub(channel)
            calls = [
                stub.Messages(iter([raft_pb2.MessageFrame()]), metadata=hello),
                stub.InstallSnapshot(iter([raft_pb2.InstallSnapshotRequest()]), metadata=hello),
                stub.Register(raft_pb2.RegisterRequest(), metadata=hello),
                stub.RequestVote(
                    raft_pb2.RequestVoteRequest(term=4, candidate_id=3), metadata=hello
                ),
                stub.AppendEntries(
                    raft_pb2.AppendEntriesRequest(term=4, leader_id=3), metadata=hello
                ),
                kv.Get(kv_pb2.GetRequest(key=b"secret"), metadata=hello),
                kv.Put(kv_pb2.PutRequest(key=b"k", request_id="r"), metadata=hello),
                kv.Delete(kv_pb2.DeleteRequest(key=b"k", request_id="r"), metadata=hello),
            ]
            for call_ in calls:
                with pytest.raises(grpc.aio.AioRpcError, match="member 3 was removed") as refusal:
                    await call_
                assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
                assert ("kvstore-removed", "1") in tuple(refusal.value.trailing_metadata() or ())
        assert not one.received
        assert not asked
        for member in (one, gone):
            await member.transport.close()

    run(test())


def test_one_that_expects_another_member_at_an_address_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        with structlog.testing.capture_logs() as logs:
            one.transport.update_members({3: two.address})
            async with asyncio.timeout(WAIT_S):
                while not logs:
                    await asyncio.sleep(0.005)
        assert "member 1 looks for member 3, this is 2" in logs[0]["reason"]

    run(test())


@pytest.mark.parametrize(
    ("later", "reason"),
    [
        ({"incarnation": 99}, "disk was wiped or replaced"),
        ({"incarnation": 1, "starts": 4}, "older copy of its data directory"),
    ],
)
def test_a_member_with_amnesia_is_refused_by_whoever_knew_it(
    tmp_path: Path, later: dict[str, Any], reason: str
) -> None:
    async def test() -> None:
        one = await start(tmp_path / "1", 1, starts=5)
        two = await start(tmp_path / "2", 2)
        connect(one, two)
        await one.until(connected(2))
        await one.transport.close()
        one = await start(tmp_path / "1b", 1, **later)
        called_says, caller_says = await refusals(one, two)
        assert reason in called_says
        assert reason in caller_says

    run(test())


def test_whoever_dials_a_member_with_amnesia_refuses_it_too(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        one.introductions.registry.admit(2, Known(99, 1), present=True)
        with structlog.testing.capture_logs() as logs:
            connect(one, two)
            async with asyncio.timeout(WAIT_S):
                while not logs:
                    await asyncio.sleep(0.005)
        assert logs[0]["event"] == "peer refused"
        assert "stale id: member 2" in logs[0]["reason"]

    run(test())


async def _register(one: Member, *others: Member) -> None:
    founders = {other.introductions.member: other.address for other in others}
    async with asyncio.timeout(WAIT_S):
        await register(one.introductions, one.transport.dialler, founders)


def test_a_founder_is_noted_by_a_majority_and_learns_what_they_know(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        three = await start(tmp_path / "3", 3)
        await three.transport.close()
        two.introductions.registry.admit(9, Known(5, 6), present=True)
        await _register(one, two, three)
        assert two.introductions.registry.known()[1] == Known(1, 1)
        assert one.introductions.registry.known()[9] == Known(5, 6)

    run(test())


def test_a_founder_whose_id_is_known_with_another_directory_stops(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        two.introductions.registry.admit(1, Known(77, 3), present=True)
        with pytest.raises(ConfigurationError, match="member 2 refuses this new data directory"):
            await _register(one, two)

    run(test())


async def call(
    target: Member, method: str, request: Any, metadata: tuple[tuple[str, bytes], ...]
) -> Any:
    async with grpc.aio.insecure_channel(target.address) as channel:
        stub = raft_pb2_grpc.RaftPeerStub(channel)
        return await getattr(stub, method)(request, metadata=metadata, timeout=WAIT_S)


def test_plain_raft_calls_are_answered_by_the_core(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        hello = one.introductions.to(2)
        request = raft_pb2.RequestVoteRequest(term=4, candidate_id=1, last_log_index=9)
        vote = asyncio.create_task(call(two, "RequestVote", request, hello))
        await two.until(lambda member: len(member.received) == 1)
        assert two.received[0] == Message(MessageKind.VOTE, 2, 1, 4, log_index=9)
        two.transport.send([Message(MessageKind.VOTE_RESPONSE, 1, 2, 4)])
        assert await vote == raft_pb2.RequestVoteResponse(term=4, vote_granted=True)

        entry = raft_pb2.LogEntry(index=10, term=4, payload=b"x")
        request = raft_pb2.AppendEntriesRequest(
            term=4, leader_id=1, prev_log_index=9, prev_log_term=3, entries=[entry], leader_commit=8
        )
        appended = asyncio.create_task(call(two, "AppendEntries", request, hello))
        await two.until(lambda member: len(member.received) == 2)
        assert two.received[1].entries == [Entry(4, 10, EntryKind.COMMAND, b"x")]
        two.transport.send([Message(MessageKind.APPEND_RESPONSE, 1, 2, 4, log_index=10)])
        assert (await appended).match_index == 10

    run(test())


def test_a_plain_call_takes_no_answer_from_the_stream(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        connect(two, one)
        await two.until(connected(1))
        request = raft_pb2.AppendEntriesRequest(term=4, leader_id=1, prev_log_index=9)
        appended = asyncio.create_task(call(two, "AppendEntries", request, one.introductions.to(2)))
        await two.until(lambda member: len(member.received) == 1)
        answers = [
            Message(MessageKind.APPEND_RESPONSE, 1, 2, 3, log_index=9),  # of another term
            Message(MessageKind.APPEND_RESPONSE, 1, 2, 4, log_index=5),  # to an earlier APPEND
            Message(MessageKind.APPEND_RESPONSE, 1, 2, 4, log_index=7, reject=True),
            Message(MessageKind.APPEND_RESPONSE, 1, 2, 4, log_index=9),
        ]
        two.transport.send(answers)
        assert (await appended).match_index == 9
        await one.until(lambda member: len(member.received) == 4)
        assert [(m.term, m.log_index) for m in one.received] == [(3, 9), (4, 5), (4, 7), (4, 9)]

    run(test())


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (raft_pb2.RequestVoteRequest(term=4, candidate_id=3), "DATA_LOSS"),
        (raft_pb2.RequestVoteRequest(term=1 << 63, candidate_id=1), "DATA_LOSS"),
    ],
)
def test_a_call_in_anothers_name_or_out_of_range_never_reaches_the_core(
    tmp_path: Path, request_: Any, code: str
) -> None:
    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await call(two, "RequestVote", request_, one.introductions.to(2))
        assert refusal.value.code().name == code
        assert not two.received

    run(test())


def test_a_damaged_frame_ends_the_stream_and_reaches_nobody(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        async with grpc.aio.insecure_channel(two.address) as channel:
            stub: Any = raft_pb2_grpc.RaftPeerStub(channel)
            stream = stub.Messages(metadata=one.introductions.to(2))
            await stream.initial_metadata()
            await stream.write(raft_pb2.MessageFrame(messages=b"\x05\0\0\0hello"))
            assert await stream.code() is grpc.StatusCode.DATA_LOSS
        assert not two.received

    run(test())


def test_a_stream_that_ends_says_how_much_came(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        frame = raft_pb2.MessageFrame.FromString(join([(encode_packet(heartbeat(1, 2, 1)),)]))
        chunks = [to_request(part, "c") for part in parts(10, 2) if isinstance(part, SnapshotPart)]
        async with grpc.aio.insecure_channel(two.address) as channel:
            stub: Any = raft_pb2_grpc.RaftPeerStub(channel)
            for method, requests in ((stub.Messages, [frame] * 3), (stub.InstallSnapshot, chunks)):
                answer = await method(iter(requests), metadata=one.introductions.to(2))
                assert answer.received == len(requests)
        assert len(two.received) == 5

    run(test())


def test_whoever_does_not_introduce_itself_is_turned_away(tmp_path: Path) -> None:
    async def test() -> None:
        two = await start(tmp_path / "2", 2)
        for metadata in ((), (("kvstore-introduction-bin", b"\xff\xff"),)):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await call(two, "Register", raft_pb2.RegisterRequest(), metadata)
            assert refusal.value.code() in (
                grpc.StatusCode.UNAUTHENTICATED,
                grpc.StatusCode.INVALID_ARGUMENT,
            )

    run(test())


def parts(size: int, count: int) -> list[Packet]:
    meta = SnapshotMeta(7, 3, Membership(frozenset({1, 2})))
    return [
        SnapshotPart(1, 2, 4, meta, size * count, size * n, bytes([n]) * size) for n in range(count)
    ]


def test_snapshots_go_beside_messages_and_progress_comes_back(tmp_path: Path) -> None:
    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        connect(one, two)
        connect(two, one)
        await two.until(connected(1))
        sent = parts(1 << 20, 8)
        with structlog.testing.capture_logs() as logs:
            one.transport.send(sent)
            await two.until(lambda member: member.received == sent)
            # Said once the last part is answered.
            await one.until(lambda _: any(line.get("percent") == 100 for line in logs))
        said = [line for line in logs if line["event"] == "snapshot sent"]
        assert [(line["bytes"], line["percent"]) for line in (said[0], said[-1])] == [
            (1 << 20, 12),
            (8 << 20, 100),
        ]
        progress = SnapshotProgress(2, 1, 4, 7, 8 << 20)
        two.transport.send([progress])
        await one.until(lambda member: member.received == [progress])

    run(test())


def test_snapshots_are_throttled_and_heartbeats_are_not(tmp_path: Path) -> None:
    async def test() -> None:
        one = await start(tmp_path / "1", 1, snapshot_bytes_per_s=1 << 20)
        two = await start(tmp_path / "2", 2)
        connect(one, two)
        await one.until(connected(2))
        begin = asyncio.get_running_loop().time()
        one.transport.send(parts(100_000, 5))
        one.transport.send([heartbeat(1, 2, 1)])
        await two.until(lambda member: len(member.received) == 6)
        assert asyncio.get_running_loop().time() - begin >= 4 * 100_000 / (1 << 20)
        assert two.received.index(heartbeat(1, 2, 1)) <= 1

    run(test())


@pytest.mark.parametrize(
    "damage",
    [{"data": b"y"}, {"total": 0}, {"done": False}, {"last_included_index": 8}, {"leader_id": 3}],
)
def test_a_damaged_chunk_reaches_nobody(tmp_path: Path, damage: dict[str, Any]) -> None:
    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        (part,) = parts(100, 1)
        assert isinstance(part, SnapshotPart)
        request = to_request(part, "c")
        for name, value in damage.items():
            setattr(request, name, value)
        async with grpc.aio.insecure_channel(two.address) as channel:
            stub: Any = raft_pb2_grpc.RaftPeerStub(channel)
            stream = stub.InstallSnapshot(metadata=one.introductions.to(2))
            await stream.initial_metadata()
            await stream.write(request)
            assert await stream.code() is grpc.StatusCode.DATA_LOSS
        assert not two.received

    run(test())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> pki.Authority:
    made = pki.init(tmp_path_factory.mktemp("pki") / "pki", "c", 100)
    for member in (1, 2, 3, 78):
        made.issue_member(member, ["127.0.0.1"], 50)
    return made


def peer_files(authority: pki.Authority, member: int, ca: Path | None = None) -> CertificateFiles:
    stem = authority.directory / f"member-{member}/peer"
    ca = ca or authority.directory / "peer-ca.pem"
    return CertificateFiles(cert=f"{stem}.pem", key=f"{stem}.key", ca=str(ca))


def test_members_with_certificates_talk(tmp_path: Path, authority: pki.Authority) -> None:
    async def test() -> None:
        one = await start(tmp_path / "1", 1, certificates=peer_files(authority, 1))
        two = await start(tmp_path / "2", 2, certificates=peer_files(authority, 2))
        connect(one, two)
        await one.until(connected(2))
        one.transport.send([heartbeat(1, 2, 5)])
        await two.until(lambda member: len(member.received) == 1)

    run(test())


def test_a_certificate_of_another_member_is_refused(
    tmp_path: Path, authority: pki.Authority
) -> None:
    async def test() -> None:
        one = await start(tmp_path / "1", 1, certificates=peer_files(authority, 3))
        two = await start(tmp_path / "2", 2, certificates=peer_files(authority, 2))
        for said in await refusals(one, two):
            assert "certificate is of member 3 of cluster 'c', but the caller says" in said

    run(test())


def test_one_that_answers_with_another_members_certificate_is_not_talked_to(
    tmp_path: Path, authority: pki.Authority
) -> None:
    async def test() -> None:
        one = await start(tmp_path / "1", 1, certificates=peer_files(authority, 1))
        two = await start(tmp_path / "2", 2, certificates=peer_files(authority, 3))
        with structlog.testing.capture_logs() as logs:
            connect(one, two)
            async with asyncio.timeout(WAIT_S):
                while not any(log["event"] == "peer unreachable" for log in logs):
                    await asyncio.sleep(0.005)
        (reason,) = (log["reason"] for log in logs if log["event"] == "peer unreachable")
        assert "Hostname Verification Check failed" in reason or "Hostname mismatch" in reason

    run(test())


@pytest.mark.parametrize("kind", ["foreign authority", "plain text", "no certificate"])
def test_whoever_has_no_certificate_of_the_cluster_stays_outside(
    tmp_path: Path, authority: pki.Authority, kind: str
) -> None:
    async def test() -> None:
        two = await start(tmp_path / "2", 2, certificates=peer_files(authority, 2))
        ca = (authority.directory / "peer-ca.pem").read_bytes()
        credentials = grpc.ssl_channel_credentials(ca)
        if kind == "foreign authority":
            foreign = pki.init(tmp_path / "pki", "c", 100)
            foreign.issue_member(1, ["127.0.0.1"], 50)
            credentials = peer_files(
                foreign, 1, authority.directory / "peer-ca.pem"
            ).channel_credentials()
        channel = (
            grpc.aio.insecure_channel(two.address)
            if kind == "plain text"
            else grpc.aio.secure_channel(
                two.address,
                credentials,
                options=[("grpc.ssl_target_name_override", "member-2.c.kvstore")],
            )
        )
        async with channel:
            stub: Any = raft_pb2_grpc.RaftPeerStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await stub.Register(raft_pb2.RegisterRequest(), timeout=WAIT_S)
            assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE

    run(test())


@pytest.fixture
def own_authority(tmp_path: Path) -> pki.Authority:
    made = pki.init(tmp_path / "pki", "c", 100)
    for member in (1, 2):
        made.issue_member(member, ["127.0.0.1"], 50)
    return made


def test_streams_are_opened_anew_when_either_sides_files_were_exchanged(
    tmp_path: Path, own_authority: pki.Authority
) -> None:
    async def test() -> None:
        files = {member: peer_files(own_authority, member) for member in (1, 2)}
        for each in files.values():
            each.look_interval_s = 0.02
        one = await start(tmp_path / "1", 1, certificates=files[1])
        two = await start(tmp_path / "2", 2, certificates=files[2])
        connect(one, two)
        await one.until(connected(2))
        for connects, renewed in ((2, 2), (3, 1)):
            before = files[renewed].expires()
            own_authority.renew(own_authority.directory / f"member-{renewed}/peer.pem", 80)
            await one.until(connected_times(2, connects))
            await one.until(connected(2))
            assert files[renewed].expires() > before
        one.transport.send([heartbeat(1, 2, 5)])
        await two.until(lambda member: len(member.received) == 1)
        assert one.transport.links()[2].counters.connects == 3

    run(test())


def test_a_stream_ends_with_the_certificate_of_its_caller(
    tmp_path: Path, own_authority: pki.Authority
) -> None:
    async def test() -> None:
        own_authority.issue_member(1, ["127.0.0.1"], 2 / 86400)  # type: ignore[arg-type]
        ending = peer_files(own_authority, 1)
        ending.look_interval_s = 1000.0  # it isn't its own look that ends the stream
        lasting = peer_files(own_authority, 2)
        lasting.look_interval_s = 0.02
        one = await start(tmp_path / "1", 1, certificates=ending)
        two = await start(tmp_path / "2", 2, certificates=lasting)
        connect(one, two)
        await one.until(connected(2))
        await one.until(lambda member: not member.transport.links()[2].connected)
        assert ending.has_ended
        assert one.lost == [2]
        own_authority.issue_member(1, ["127.0.0.1"], 50)
        ending.look()
        await one.until(connected(2))

    run(test())


def test_nothing_is_taken_over_a_connection_whose_certificate_has_ended(
    tmp_path: Path, own_authority: pki.Authority
) -> None:
    own_authority.issue_member(1, ["127.0.0.1"], 0)
    identities = {
        member: MemberIdentity("c", member, member, 1, "f", Stage.MEMBER) for member in (1, 2)
    }
    for member in (1, 2):
        (tmp_path / str(member)).mkdir()
    one, two = (
        Introductions(identities[member], PeerRegistry(tmp_path / str(member)), (1, 2))
        for member in (1, 2)
    )
    pem = (own_authority.directory / "member-1/peer.pem").read_bytes()
    auth = {
        "transport_security_type": [b"ssl"],
        "x509_subject_alternative_name": [b"member-1.c.kvstore"],
        "x509_pem_cert": [pem],
    }
    with pytest.raises(RefusedPeerError, match="has ended: dial again"):
        two.judge_caller(one.to(2), auth)
    own_authority.issue_member(1, ["127.0.0.1"], 5)
    auth["x509_pem_cert"] = [(own_authority.directory / "member-1/peer.pem").read_bytes()]
    assert two.judge_caller(one.to(2), auth) == 1


def test_a_link_lives_on_when_what_the_peer_says_cant_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: the peer was started again, and that must be written down."""

    async def test() -> None:
        one, two = await start(tmp_path / "1", 1), await start(tmp_path / "2", 2)
        judge, full = one.introductions.judge_called, [True, True]

        def judge_called(*said: Any) -> None:
            if full:
                full.pop()
                raise StorageError("failed to write: No space left on device", path="PEERS")
            judge(*said)

        monkeypatch.setattr(one.introductions, "judge_called", judge_called)
        connect(one, two)
        await one.until(connected(2))

    run(test())
