"""The state machine on its engine: results, replay after a crash, memory of requests."""

from __future__ import annotations

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, Options, WriteBatch
from kvstore.errors import CorruptionError, ForgottenError, IntegrityCode
from kvstore.state import (
    COLD,
    Command,
    MemoryBounds,
    SessionBounds,
    StateMachine,
    delete_command,
    encode_commands,
    open_command,
    put_command,
    request_digest,
    result_of,
)

OPTIONS = Options(wal=False, background=False)


BOUNDS = MemoryBounds(
    requests=8, sessions=SessionBounds(sessions_max=3, idle_ms=1000, spared_ms=100)
)


both = pytest.mark.parametrize("plain", [False, True], ids=["native", "plain"])


def opened(disk: MemoryFileSystem, plain: bool = False) -> StateMachine:
    database = DB("/state", options=OPTIONS, filesystem=disk)
    return StateMachine(database, memory=BOUNDS, plain=plain)


def put(request: str, key: bytes, value: bytes) -> bytes:
    return encode_commands([put_command(request_digest(request.encode()), key, value)])


def history(count: int) -> list[tuple[int, int, bytes]]:
    return [
        (index, 1, put(f"r{index}", b"%d" % (index % 5), b"%d" % index))
        for index in range(1, count + 1)
    ]


@both
def test_results_say_whether_there_was_a_value_also_within_one_entry(plain):
    machine = opened(MemoryFileSystem(), plain)
    digest = [request_digest(b"%d" % number) for number in range(4)]
    data = encode_commands(
        [
            put_command(digest[0], b"k", b"1"),
            delete_command(digest[1], b"k"),
            delete_command(digest[2], b"k"),
            put_command(digest[3], b"k", b"2"),
        ]
    )
    (applied,) = machine.apply([(1, 1, data)])
    assert [*map(result_of, applied.results)] == [False, True, False, False]
    assert machine.get(b"k") == b"2"
    assert machine.revision == 4


@both
def test_a_request_that_comes_twice_in_one_entry_is_done_once(plain: bool) -> None:
    machine = opened(MemoryFileSystem(), plain)
    command = put_command(request_digest(b"r"), b"k", b"v")
    (applied,) = machine.apply([(1, 1, encode_commands([command, command]))])
    assert [*map(result_of, applied.results)] == [False, False]
    assert machine.revision == 1


def test_what_was_not_flushed_is_replayed_to_the_very_same_state():
    disk = MemoryFileSystem()
    machine = opened(disk)
    entries = history(30)
    machine.apply(entries[:12])
    machine.flush()
    machine.apply(entries[12:])
    expected = (machine.revision, machine.state_hash, machine.applied_index)
    again = opened(disk.crash())
    assert again.applied_index == again.durable_index == 12
    again.apply(entries[12:])
    assert (again.revision, again.state_hash, again.applied_index) == expected
    assert [again.get(b"%d" % key) for key in range(5)] == [
        machine.get(b"%d" % key) for key in range(5)
    ]
    # Old requests are forgotten at the same place as without the restart.
    for index in range(1, 31):
        digest = request_digest(b"r%d" % index)
        command = put_command(digest, b"%d" % (index % 5), b"%d" % index)
        assert again.first_result(digest, command.fingerprint) == machine.first_result(
            digest, command.fingerprint
        )


@both
def test_an_entry_without_commands_moves_only_the_index(plain):
    machine = opened(MemoryFileSystem(), plain)
    machine.apply([(1, 1, put("r", b"k", b"")), (2, 3, b"")])
    assert (machine.applied_index, machine.applied_term, machine.revision) == (2, 3, 1)


@both
@pytest.mark.parametrize(
    "data", [b"\x01\xff\xff\xff\xff", put("r", b"k", b"v")[:-1], put("r", b"k", b"v") + b"!"]
)
def test_data_that_is_no_batch_of_commands_is_refused(plain, data):
    machine = opened(MemoryFileSystem(), plain)
    with pytest.raises(CorruptionError):
        machine.apply([(1, 1, put("s", b"k", b"v")), (2, 1, data)])
    assert (machine.applied_index, machine.revision) == (0, 0)
    assert machine.get(b"k") is None


def test_a_state_of_a_newer_format_is_refused():
    disk = MemoryFileSystem()
    database = DB("/state", options=OPTIONS, filesystem=disk)
    batch = WriteBatch()
    batch.put(b"\x00state", b"\x7f" + bytes(44))
    database.write(batch, applied_index=1)
    database.flush()
    with pytest.raises(CorruptionError) as caught:
        StateMachine(database, memory=BOUNDS)
    assert caught.value.code == IntegrityCode.UNSUPPORTED_VERSION


@both
def test_entries_are_prepared_from_memory_and_ask_the_disk_for_what_it_lacks(plain: bool) -> None:
    disk = MemoryFileSystem()
    machine = opened(disk, plain)
    machine.apply([(1, 1, put("r1", b"old", b"1"))])
    machine.flush()
    entries = [
        (2, 1, put("r2", b"old", b"2")),
        (3, 1, put("r3", b"new", b"3")),
        (4, 1, encode_commands([delete_command(request_digest(b"r4"), b"new")])),
        (5, 1, b""),
    ]
    disk.fail("pread", 5, always=True)
    prepared = machine.prepare(entries)
    assert machine.applied_index == 1
    assert b"\x01old" in prepared.cold
    disk.heal()
    prepared.learn(machine.look_up(prepared))
    disk.fail("pread", 5, always=True)
    answers = machine.apply_prepared(prepared)
    assert [answer.results for answer in answers] == [b"\1", b"\0", b"\1", b""]
    disk.heal()
    machine.flush()
    assert machine.get_cached(b"old") is COLD
    assert machine.get(b"old") == b"2"
    assert machine.get_cached(b"old") == b"2"
    assert machine.get_cached(b"new") is None
    machine.close()


@both
def test_a_full_memory_of_sessions_forgets_the_one_that_was_used_least_lately(plain: bool) -> None:
    machine = opened(MemoryFileSystem(), plain)
    first, second, third, fourth = names = [bytes([letter]) * 16 for letter in b"abcd"]
    written = dict.fromkeys(names, 0)

    def apply(command: Command, now: int) -> object:
        entry = (machine.applied_index + 1, 1, encode_commands([command], now))
        (applied,) = machine.apply([entry])
        return result_of(applied.results[0])

    def write(name: bytes, now: int) -> object:
        written[name] += 1
        return apply(put_command(name, name, b"", written[name], 1), now)

    assert apply(open_command(first), 0) is True
    assert write(first, 10) is False
    assert apply(open_command(second), 20) is True
    assert write(first, 30) is True  # the one used last before another one was opened
    assert apply(open_command(third), 40) is True
    assert apply(open_command(fourth), 500) is True
    assert isinstance(write(second, 510), ForgottenError)
    for kept in (first, third, fourth):
        assert write(kept, 520) in (False, True)


@both
def test_a_state_whose_rows_went_back_behind_its_manifest_is_refused(plain: bool) -> None:
    """As where a table with the newest rows is gone."""
    disk = MemoryFileSystem()
    database = DB("/state", options=OPTIONS, filesystem=disk)
    machine = StateMachine(database, memory=BOUNDS, plain=plain)
    machine.apply([(1, 1, put("r", b"k", b"v"))])
    batch = WriteBatch()
    batch.put(b"k2", b"v")
    database.write(batch, applied_index=2)
    database.flush()
    database.close()
    with pytest.raises(CorruptionError, match="of index 1 but the manifest says 2"):
        opened(disk, plain)
