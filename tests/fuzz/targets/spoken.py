"""What clients and members say: bytes of strangers, in messages that mostly are right."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._service.native import key_of_range, proposal_of_put, proposal_of_txn
from kvstore._state.native import is_whole, names_single_keys
from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.handlers.etcd import translate
from kvstore.api.handlers.gateway.routes import ROUTES
from kvstore.api.handlers.gateway.transcoding import messages_of, only_message_of, pieces_of
from kvstore.errors import CorruptionError, InvalidArgumentError
from kvstore.replica.packets import decode_packet, encode_packet
from kvstore.server.peers.frames import packets_in
from kvstore.server.peers.pulse_datagram import Kind, Pulse, decode, encode, is_authentic
from kvstore.server.peers.pulses import Pulses
from kvstore.state import (
    MemoryBounds,
    decode_commands,
    delete_command,
    encode_commands,
    open_command,
    put_command,
)
from kvstore.state.mvcc.operations import (
    decode_operations,
    encode_operations,
    encode_proposal,
    is_whole_operations,
)
from kvstore.state.mvcc.requests import (
    Compare,
    CompareTarget,
    DeleteRange,
    EnableModel,
    LeaseGrant,
    Proposal,
    Put,
    Range,
    Txn,
)
from tests.fuzz import resealing
from tests.fuzz.targets.stored import both_ways, code_of
from tests.fuzz.targets.target import plain
from tests.fuzz.test_peer_frames import FRAME, GOOD
from tests.fuzz.test_pulse_datagrams import KEY
from tests.fuzz.test_wire import ANSWERS, LIMITS, REQUESTS, Server, drain
from tests.unit.api.test_gateway_transcoding import filled
from tests.unit.state.test_forms import everything, opened
from tests.unit.wire.conversation import native

__all__ = ["TARGETS"]

PROPOSAL_ID = bytes(range(16))
SHAPES = sorted(set(ROUTES.values()), key=lambda shape: shape.path)


# --- the native wire -----------------------------------------------------------------------------


def _wire_server(data: bytes) -> object:
    server = Server(random.Random(len(data)))
    server.receive(data)
    said = len(server.told)
    server.end()
    return said


def _wire_client(data: bytes) -> object:
    budgets = native.Budget(1_000_000), native.Budget(1_000_000)
    session = native.ClientSession(native.Limits(**LIMITS), *budgets, "a", "http")
    streams = [session.call("/s/M", (), None, b"", unary) for unary in (True, True, True, False)]
    drain(session)
    events = session.receive(data, 0.0)
    drain(session)
    for event in events:
        if event[0] == native.MESSAGE:
            session.consumed(event[1], len(event[2]))
    events += session.close("lost")
    ends = [event[1] for event in events if event[0] in (native.ANSWER, native.FINISHED)]
    assert sorted(ends) == streams, "each call ends once"
    assert [budget.used for budget in budgets] == [0, 0]
    return tuple(event[0] for event in events)


# --- members -------------------------------------------------------------------------------------


def _frames(data: bytes) -> object:
    try:
        return len(packets_in(data))
    except CorruptionError as error:
        return code_of(error)


def _packet(data: bytes) -> object:
    try:
        packet = decode_packet(data)
    except CorruptionError as error:
        return code_of(error)
    assert decode_packet(encode_packet(packet)) == packet
    return type(packet).__name__


def _pulse(data: bytes) -> object:
    pulses = Pulses(2)
    pulses.follow([1])
    pulses.learn(1, KEY, 0)
    pulses.stand(3, 1)
    said = decode(data)
    taken = pulses.receive(data) is not None
    assert not taken or is_authentic(data, KEY)
    return said is None, taken


# --- entries -------------------------------------------------------------------------------------


def _commands(data: bytes) -> object:
    whole = is_whole(data)
    try:
        commands = decode_commands(data)
    except CorruptionError as error:
        assert not whole, "the native check is as strict as the plain one"
        return code_of(error)
    return len(commands)


def _operations(data: bytes) -> object:
    whole = is_whole_operations(data)
    names_single_keys(data)
    try:
        proposals = decode_operations(data)
    except CorruptionError as error:
        assert not whole
        return code_of(error)
    assert decode_operations(encode_operations(proposals)) == proposals
    return tuple(type(proposal.operation).__name__ for proposal in proposals)


def _entries_in(data: bytes) -> list[bytes]:
    """Up to eight entries, each behind a u16 of its size."""
    found, at = [], 0
    while at + 2 <= len(data) and len(found) < 8:
        (size,) = struct.unpack_from("<H", data, at)
        found.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    return found


def _applied(entries: list[bytes], *, plain_form: bool) -> tuple[object, object]:
    """What applying them one by one comes to, and all that is held then."""
    machine = opened(MemoryBounds(requests=8), plain_form, MemoryFileSystem())
    answers: list[str] = []
    for index, entry in enumerate(entries, 1):
        try:
            answers.append(repr(machine.apply([(index, 1, entry)])))
        except CorruptionError as error:
            answers.append(error.code)
            break
    return answers, everything(machine)


def _entries(data: bytes) -> object:
    """The native form and the plain one: not a byte may differ."""
    entries = _entries_in(data)
    native_form = _applied(entries, plain_form=False)
    assert native_form == _applied(entries, plain_form=True)
    return len(entries), str(native_form[0])[-60:]


def _joined(*entries: bytes) -> bytes:
    return b"".join(struct.pack("<H", len(entry)) + entry for entry in entries)


SESSION = bytes(range(16))
OF_COMMANDS = [
    encode_commands([put_command(bytes(16), b"key", b"value"), open_command(SESSION)], 5),
    encode_commands(
        [put_command(SESSION, b"key", b"v", 1, 1), delete_command(SESSION, b"k", 2, 1)]
    ),
    encode_commands([delete_command(bytes(16), b"key")], 9, guard=3),
]
TXN = Txn(
    (Compare(b"a", CompareTarget.VERSION, 0, 1), Compare(b"b", CompareTarget.VALUE, 1, b"v")),
    (Put(b"a", b"1"), Range(b"b", limit=3)),
    (DeleteRange(b"a"), Txn((), (Put(b"c", b"2", 7),))),
)
OF_OPERATIONS = [
    encode_operations([Proposal(PROPOSAL_ID, EnableModel())]),
    encode_operations(
        [Proposal(PROPOSAL_ID, LeaseGrant(7, 60)), Proposal(bytes(16), Put(b"a", b"v", 7))]
    ),
    encode_operations([Proposal(PROPOSAL_ID, TXN)], 50),
]


# --- etcd's messages -----------------------------------------------------------------------------


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError:
        return None


def _etcd(data: bytes) -> object:
    """What the native form takes protobuf takes as well, and both mean the same."""
    said = []
    forms: list[tuple[Callable[..., Any], Any, Callable[[Any], Any]]] = [
        (proposal_of_put, pb.PutRequest, translate.put_of),
        (proposal_of_txn, pb.TxnRequest, translate.txn_of),
    ]
    for native_form, kind, of in forms:
        encoded = native_form(data, PROPOSAL_ID)
        said.append(encoded is not None)
        if encoded is not None:
            message = _parsed(kind, data)
            assert message is not None, "protobuf refuses it"
            assert encoded == encode_proposal(Proposal(PROPOSAL_ID, of(message)))
    key = key_of_range(data)
    if key is not None:
        assert _parsed(pb.RangeRequest, data) == pb.RangeRequest(key=key)
    return *said, key is not None


def _etcd_seeds() -> list[bytes]:
    put = pb.PutRequest(key=b"k", value=b"v" * 20, lease=-5)
    txn = pb.TxnRequest(
        compare=[
            pb.Compare(key=b"k", target=pb.Compare.MOD, result=pb.Compare.EQUAL, mod_revision=7),
            pb.Compare(key=b"k", target=pb.Compare.VALUE, value=b"v"),
        ],
        success=[
            pb.RequestOp(request_put=put),
            pb.RequestOp(request_range=pb.RangeRequest(key=b"k")),
        ],
        failure=[pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"j"))],
    )
    return [one.SerializeToString() for one in (put, txn, pb.RangeRequest(key=b"key"))]


def _gateway(data: bytes) -> object:
    """The first byte chooses whose request it is."""
    kind = SHAPES[(data[0] if data else 0) % len(SHAPES)].request
    try:
        message = only_message_of(kind, data[1:])
    except InvalidArgumentError as error:
        with contextlib.suppress(InvalidArgumentError):
            list(messages_of(kind, data[1:]))
        return str(error)[:20]
    text = "".join(pieces_of(message)).encode()
    assert only_message_of(kind, text) == message
    return kind.__name__


def _gateway_seeds() -> list[bytes]:
    chance = random.Random(1)
    return [
        bytes([place]) + "".join(pieces_of(filled(shape.request, chance))).encode()
        for place, shape in enumerate(SHAPES)
    ]


PULSE = encode(Pulse(Kind.PULSE, 1, 2, 3, 4), KEY)

TARGETS = [
    plain("wire-server", lambda: [REQUESTS], _wire_server),
    plain("wire-client", lambda: [ANSWERS], _wire_client),
    plain("peer-frames", lambda: [FRAME], _frames),
    plain(
        "peer-packets",
        lambda: [encode_packet(packet) for packet in GOOD],
        both_ways(_packet, resealing.packet),
    ),
    plain("pulses", lambda: [PULSE], _pulse),
    plain("commands", lambda: OF_COMMANDS, _commands),
    plain("operations", lambda: OF_OPERATIONS, _operations),
    plain(
        "entries",
        lambda: [
            _joined(*OF_COMMANDS),
            _joined(*OF_OPERATIONS),
            _joined(*OF_COMMANDS, *OF_OPERATIONS),
        ],
        _entries,
    ),
    plain("etcd-messages", _etcd_seeds, _etcd),
    plain("gateway-bodies", _gateway_seeds, _gateway),
]
