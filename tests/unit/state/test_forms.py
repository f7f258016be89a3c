"""The native form of what is done to entries beside the plain one: not a byte may differ."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._state.native import digest_of_request, fingerprint_bytes, is_whole
from kvstore.engine import DB, Options
from kvstore.errors import CorruptionError
from kvstore.state import (
    Command,
    MemoryBounds,
    SessionBounds,
    StateMachine,
    decode_commands,
    delete_command,
    encode_commands,
    open_command,
    put_command,
    request_digest,
)
from kvstore.state.mvcc.operations import encode_operations
from kvstore.state.mvcc.requests import (
    LEVEL_NUMBERED,
    SERVER,
    Alarm,
    AlarmAction,
    AlarmKind,
    AuthDisable,
    AuthEnable,
    Compact,
    DeleteRange,
    EnableModel,
    LeaseGrant,
    LeaseRevoke,
    Numbered,
    Operation,
    Proposal,
    Put,
    RaiseLevel,
    Txn,
    UserAdd,
    UserGrantRole,
)

OPTIONS = Options(wal=False, background=False)
# Few of everything, so that each bound is met.
KEYS = [b"a", b"b", b"key", b"k" * 1024]
NAMES = [bytes([letter]) * 16 for letter in b"abcde"]

values = st.sampled_from([b"", b"1", b"2", b"v" * 300])
plain_requests = st.integers(0, 40).map(lambda number: request_digest(b"%d" % number))
since = st.one_of(st.none(), st.integers(0, 3000))


@st.composite
def in_session(draw: st.DrawFn) -> tuple[bytes, int, int]:
    floor = draw(st.integers(1, 12))
    return draw(st.sampled_from(NAMES)), floor + draw(st.sampled_from([0, 0, 1, 2, 9, 255])), floor


@st.composite
def commands(draw: st.DrawFn) -> Command:
    kind = draw(st.sampled_from(["plain", "plain", "session", "session", "open"]))
    if kind == "open":
        return open_command(draw(st.sampled_from(NAMES)))
    name, sequence, floor = draw(in_session()) if kind == "session" else (b"", 0, 0)
    request = name or draw(plain_requests)
    key = draw(st.sampled_from(KEYS))
    if draw(st.booleans()):
        command = put_command(request, key, draw(values), sequence, floor)
    else:
        command = delete_command(request, key, sequence, floor)
    return command if sequence else command._replace(since=draw(since))


entries = st.tuples(
    st.sampled_from([0, 0, 1, 50, 400]), st.one_of(st.just([]), st.lists(commands(), max_size=12))
)
# Entries of the model, with what puts v1's keys on leases and takes them off again.
leases = st.sampled_from([1, -7, 1 << 62])
model_keys = st.sampled_from([*KEYS, b"l" * 2000])
operations_of_txns = st.builds(Put, model_keys, values, st.just(0)) | st.builds(
    DeleteRange, model_keys, st.sampled_from([b"", b"\0"]), st.booleans()
)
operations: st.SearchStrategy[Operation] = st.one_of(
    st.just(EnableModel()),
    st.just(RaiseLevel(LEVEL_NUMBERED)),
    st.builds(Put, model_keys, values, st.just(0) | leases),
    st.builds(DeleteRange, model_keys, st.sampled_from([b"", b"\0"])),
    st.builds(LeaseGrant, leases, st.just(60)),
    st.builds(LeaseRevoke, leases, st.just(0), st.just(0)),
    st.builds(Compact, st.integers(-1, 40)),
    st.sampled_from(
        [
            UserAdd("root", b""),
            UserGrantRole("root", "root"),
            AuthEnable(bytes(32)),
            AuthEnable(bytes(32)),
            AuthDisable(),
        ]
    ),
    st.builds(
        Alarm,
        st.sampled_from([AlarmAction.ACTIVATE, AlarmAction.DEACTIVATE]),
        st.just(1),
        st.sampled_from([AlarmKind.NOSPACE, AlarmKind.CORRUPT]),
    ),
)
numbered = st.builds(
    lambda operation, number: Proposal(b"", operation, None, Numbered(*number)),
    operations
    | st.builds(
        lambda operations: Txn((), tuple(operations)), st.lists(operations_of_txns, max_size=3)
    ),
    in_session(),
)
entries_of_operations = st.tuples(
    st.sampled_from([0, 1, 50]), st.lists(operations | numbered, min_size=1, max_size=3)
)
# Runs of entries; after each of them all may be flushed, so that the next asks the disk.
stories = st.lists(
    st.tuples(st.lists(entries | entries_of_operations, min_size=1, max_size=4), st.booleans()),
    max_size=12,
)
bounds = st.builds(
    MemoryBounds,
    requests=st.sampled_from([1, 3, 8, 64]),
    sessions=st.builds(
        SessionBounds,
        sessions_max=st.sampled_from([1, 3, 64]),
        idle_ms=st.sampled_from([100, 1000, 10_000]),
        spared_ms=st.sampled_from([0, 100]),
    ),
)


def opened(memory: MemoryBounds, plain: bool, disk: MemoryFileSystem) -> StateMachine:
    return StateMachine(DB("/state", options=OPTIONS, filesystem=disk), memory=memory, plain=plain)


def everything(machine: StateMachine) -> tuple[object, ...]:
    return (
        machine.applied_index,
        machine.applied_term,
        machine.revision,
        machine.state_hash,
        machine.clock_ms,
        machine.remembered,
        machine.level,
        machine.compacted,
        machine.auth.record,
        machine.auth.users,
        machine.guard,
        machine._db.last_sequence,
        list(machine._db),
    )


def encoded(batch: Sequence[Command | Operation | Proposal], now: int, index: int) -> bytes:
    """An entry's data; ids of proposals, who they are of, and what commands were let in as of, are
    made up of where they stand."""
    commands = [item for item in batch if isinstance(item, Command)]
    if commands or not batch:
        return encode_commands(commands, now, index % 5) if batch else b""
    who = SERVER if index % 3 else None
    proposals = []
    for place, item in enumerate(batch):
        if not isinstance(item, Command):
            proposal = item if isinstance(item, Proposal) else Proposal(b"", item)
            proposals.append(proposal._replace(id=b"%08d%08d" % (index, place), who=who))
    return encode_operations(proposals, now)


def apply_slice(
    native: StateMachine, plain: StateMachine, data: Sequence[tuple[int, int, bytes]]
) -> int:
    """Apply the first entries to both; how many they were."""
    prepared = native.prepare(data), plain.prepare(data)
    assert set(prepared[0].cold) == set(prepared[1].cold)
    assert len(prepared[0]) == len(prepared[1])
    for machine, of_it in zip((native, plain), prepared, strict=True):
        if of_it.cold:
            of_it.learn(machine.look_up(of_it))  # type: ignore[arg-type]
    applied = [
        machine.apply_prepared(of_it)
        for machine, of_it in zip((native, plain), prepared, strict=True)
    ]
    assert [*map(repr, applied[0])] == [*map(repr, applied[1])]
    assert everything(native) == everything(plain)
    return len(applied[0])


@settings(max_examples=300, deadline=None)
@given(bounds, stories)
def test_both_apply_the_same_to_the_last_byte_of_the_engine(
    memory: MemoryBounds,
    story: list[tuple[list[tuple[int, list[Command] | list[Operation | Proposal]]], bool]],
) -> None:
    disks = MemoryFileSystem(), MemoryFileSystem()
    native, plain = (opened(memory, form, disk) for form, disk in enumerate(disks))
    index = now = 0
    for run, flushes in story:
        data = []
        for step, batch in run:
            index += 1
            now += step
            data.append((index, 1 + index // 7, encoded(batch, now, index)))
        while data:
            del data[: apply_slice(native, plain, data)]
        for _, batch in run:
            for command in batch:
                if not isinstance(command, Command):
                    continue
                asked = command.request, command.fingerprint, command.sequence
                mine, other = native.first_result(*asked), plain.first_result(*asked)
                assert type(mine) is type(other)
                assert str(mine) == str(other)
        for key in KEYS:
            assert native.get(key) == plain.get(key)
        if flushes:
            native.flush()
            plain.flush()
    # What either has stored the other one takes up.
    native.flush()
    plain.flush()
    expected = everything(plain)
    native.close()
    plain.close()
    for form, disk in ((True, disks[0]), (False, disks[1])):
        again = opened(memory, form, disk)
        assert everything(again) == expected
        again.close()


def test_what_the_disk_was_not_asked_for_is_not_guessed() -> None:
    machine = opened(MemoryBounds(), False, MemoryFileSystem())
    machine.apply([(1, 1, encode_commands([put_command(NAMES[0], b"k", b"v")]))])
    machine.flush()
    prepared = machine.prepare([(2, 1, encode_commands([delete_command(NAMES[1], b"k")]))])
    assert prepared.cold
    with pytest.raises(ValueError, match="only the disk knows"):
        machine.apply_prepared(prepared)


VALID = encode_commands(
    [
        put_command(NAMES[0], b"key", b"value"),
        put_command(NAMES[0], b"key", b"value", 300, 45),
        delete_command(NAMES[1], b"k" * 1024)._replace(since=7),
        open_command(NAMES[2]),
    ],
    5_000,
)


GUARDED = encode_commands(decode_commands(VALID), 5_000, 1 << 60)


def is_taken(data: bytes) -> bool:
    try:
        decode_commands(data)
    except CorruptionError:
        return False
    return True


@settings(max_examples=500)
@given(st.data())
def test_both_take_the_same_bytes(data: st.DataObject) -> None:
    changed = bytearray(data.draw(st.sampled_from([VALID, GUARDED])))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    cuts = st.sampled_from([len(changed), 0, 12, 13, 20, 21, 50])
    given_bytes = bytes(changed[: data.draw(cuts)])
    assert is_whole(given_bytes) is is_taken(given_bytes)


@pytest.mark.parametrize("size", range(len(GUARDED) + 1))
def test_both_refuse_what_is_cut_short(size: int) -> None:
    assert is_whole(VALID[:size]) is is_taken(VALID[:size]) is (size >= len(VALID))
    assert is_whole(GUARDED[:size]) is is_taken(GUARDED[:size]) is (size == len(GUARDED))


def test_both_refuse_what_was_let_in_as_of_nothing() -> None:
    data = GUARDED[:13] + bytes(8) + GUARDED[21:]
    assert is_whole(data) is is_taken(data) is False


@pytest.mark.parametrize(
    ("sequence", "floor"), [(1, 0), (0, 1), (0, 0), (1, 2), (256, 1), (257, 1), (1 << 63, 1 << 63)]
)
def test_both_judge_a_sequence_and_its_floor_alike(sequence: int, floor: int) -> None:
    data = bytearray(encode_commands([put_command(NAMES[0], b"k", b"", 5, 5)]))
    data[45:61] = sequence.to_bytes(8, "little") + floor.to_bytes(8, "little")
    assert is_whole(bytes(data)) is is_taken(bytes(data)) is ((sequence, floor) == (256, 1))


@given(st.binary(max_size=400))
def test_digests_are_those_of_hashlib(request_id: bytes) -> None:
    assert digest_of_request(request_id) == hashlib.blake2b(request_id, digest_size=16).digest()


@pytest.mark.parametrize("size", [0, 1, 64, 127, 128, 129, 255, 256, 257, 4096])
def test_digests_are_those_of_hashlib_around_a_block(size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    assert digest_of_request(data) == request_digest(data)


@given(st.binary(min_size=1, max_size=1024), st.binary(max_size=600))
def test_fingerprints_are_those_of_commands(key: bytes, value: bytes) -> None:
    assert fingerprint_bytes(1, key, value) == put_command(NAMES[0], key, value).fingerprint
    assert fingerprint_bytes(2, key, b"") == delete_command(NAMES[0], key).fingerprint
