"""The state machine with the model: enabled, under v1's commands, stored, and beside the disk."""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import Options
from kvstore.errors import CorruptionError, IntegrityCode, StorageError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state import (
    COLD,
    Applied,
    Command,
    StateMachine,
    check_entry,
    delete_command,
    encode_commands,
    open_state,
    put_command,
    request_digest,
    result_of,
)
from kvstore.state.mvcc.answers import (
    EnableAnswer,
    Event,
    EventPage,
    KeyValue,
    PutAnswer,
    RangeAnswer,
)
from kvstore.state.mvcc.operations import encode_operations
from kvstore.state.mvcc.records import (
    ATTACHMENTS,
    EVENTS,
    EventRecord,
    attachment_key,
    decode_event,
    decode_event_key,
    decode_key,
)
from kvstore.state.mvcc.requests import (
    Alarm,
    AlarmAction,
    AlarmKind,
    Compact,
    DeleteRange,
    EnableModel,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Proposal,
    Put,
    Range,
    Txn,
)

OPTIONS = Options(wal=False, background=False)

both = pytest.mark.parametrize("plain", [False, True], ids=["native", "plain"])


class Story:
    """A state machine, and entries for it one after the other."""

    def __init__(self, plain: bool = False, disk: MemoryFileSystem | None = None) -> None:
        self.disk = disk or MemoryFileSystem()
        self.plain = plain
        self.index = 0
        self.machine = self.opened()

    def opened(self) -> StateMachine:
        db = open_state("/state", options=OPTIONS, filesystem=self.disk)
        machine = StateMachine(db, plain=self.plain)
        self.index = machine.applied_index
        return machine

    def entry(self, data: bytes) -> tuple[int, int, bytes]:
        self.index += 1
        return self.index, 1, data

    def apply(self, data: bytes) -> Applied:
        (applied,) = self.machine.apply([self.entry(data)])
        return applied

    def put(self, key: bytes, value: bytes) -> object:
        return self.command(put_command(self.request(), key, value))

    def delete(self, key: bytes) -> object:
        return self.command(delete_command(self.request(), key))

    def command(self, command: Command) -> object:
        return result_of(self.apply(encode_commands([command])).results[0])

    def request(self) -> bytes:
        return request_digest(b"%d" % self.index)

    def ask(self, *operations: Operation) -> list[object]:
        applied = self.apply(self.operations(*operations))
        assert [proposal for proposal, _ in applied.answers] == [
            b"%016d" % place for place in range(len(operations))
        ]
        return [answer for _, answer in applied.answers]

    def operations(self, *operations: Operation, time_ms: int = 0) -> bytes:
        return encode_operations(
            [Proposal(b"%016d" % place, operation) for place, operation in enumerate(operations)],
            time_ms,
        )

    def again(self) -> None:
        """As after a restart, with all in tables."""
        self.machine.flush()
        self.machine.close()
        self.machine = self.opened()

    def events(self) -> list[tuple[int, EventRecord]]:
        return [
            (decode_event_key(key)[0], decode_event(record))
            for key, record in self.machine._db.iterator(prefix=EVENTS)
        ]


def is_reason(answer: object, reason: Reason) -> bool:
    return isinstance(answer, EtcdError) and answer.reason is reason


@both
def test_a_fresh_store_begins_at_revision_1_with_all_its_history(plain: bool) -> None:
    story = Story(plain)
    assert not story.machine.model_enabled
    assert story.ask(EnableModel()) == [EnableAnswer(1)]
    assert story.machine.model_enabled
    assert (story.machine.revision, story.machine.compacted) == (1, -1)
    assert story.put(b"k", b"v") is False
    assert story.machine.revision == 2
    story.again()
    assert story.machine.model_enabled
    assert (story.machine.revision, story.machine.compacted) == (2, -1)


@both
def test_a_used_store_goes_on_at_its_revision_and_knows_no_history_before_it(plain: bool) -> None:
    story = Story(plain)
    for value in (b"1", b"2", b"3"):
        story.put(b"k", value)
    story.delete(b"absent")
    assert story.ask(EnableModel(), EnableModel()) == [EnableAnswer(4), EnableAnswer(4)]
    assert (story.machine.revision, story.machine.compacted) == (4, 4)
    assert story.machine.get(b"k") == b"3"
    assert story.events() == []
    story.put(b"k", b"4")
    assert story.events() == [(5, EventRecord(False, b"k", 3))]
    record, sequence = story.machine._db.get_versioned(b"\x01k")
    assert decode_key(b"k", record, sequence, 4)[1:] == (3, 5, 2, b"4", 0)
    assert story.ask(EnableModel()) == [EnableAnswer(5)]
    assert story.machine.compacted == 4


@both
def test_while_the_model_is_off_operations_are_refused_and_the_records_are_as_ever(
    plain: bool,
) -> None:
    story = Story(plain)
    (answer,) = story.ask(Put(b"k", b"v"))
    assert is_reason(answer, Reason.NOT_CAPABLE)
    story.put(b"k", b"v")
    story.delete(b"absent")
    assert story.machine.revision == 2
    stored = story.machine._db.get(b"\x00state")
    assert (stored[0], len(stored)) == (2, 45)
    assert story.machine._db.retained_sequence is None
    assert story.machine._db.get(b"\x01k") == b"v"


@both
def test_writes_of_v1_are_revisions_and_events(plain: bool) -> None:
    story = Story(plain)
    story.ask(EnableModel())
    assert story.delete(b"k") is False
    assert story.put(b"k", b"1") is False
    assert story.put(b"k", b"2") is True
    assert story.delete(b"k") is True
    assert story.delete(b"k") is False
    assert story.put(b"k", b"3") is False
    assert story.machine.revision == 5
    assert story.events() == [
        (2, EventRecord(False, b"k", 0)),
        (3, EventRecord(False, b"k", 2)),
        (4, EventRecord(True, b"k", 3)),
        (5, EventRecord(False, b"k", 0)),
    ]
    record, sequence = story.machine._db.get_versioned(b"\x01k", 3)
    assert decode_key(b"k", record, sequence, 1)[1:] == (2, 3, 2, b"2", 0)
    assert story.machine._db.get_versioned(b"\x01k", 4) is None
    assert story.machine.get(b"k") == story.machine.get_cached(b"k") == b"3"


@both
def test_a_write_of_v1_takes_its_key_off_the_lease(plain: bool) -> None:
    story = Story(plain)
    story.ask(EnableModel(), LeaseGrant(7, 60), LeaseGrant(-7, 60))
    story.ask(Put(b"a", b"1", lease=7), Put(b"b", b"1", lease=-7), Put(b"c", b"1", lease=-7))
    story.again()
    assert story.machine.leases().keys() == {7, -7}
    story.put(b"a", b"2")
    story.delete(b"b")
    attached = [*story.machine._db.iterator(prefix=ATTACHMENTS, include_value=False)]
    assert attached == [attachment_key(-7, b"c")]
    assert story.put(b"c", b"2") is True
    assert [*story.machine._db.iterator(prefix=ATTACHMENTS)] == []


@both
def test_results_within_one_entry_are_those_of_the_commands_before(plain: bool) -> None:
    story = Story(plain)
    story.ask(EnableModel())
    commands = [
        put_command(request_digest(b"a"), b"k", b"1"),
        put_command(request_digest(b"b"), b"k", b"2"),
        delete_command(request_digest(b"c"), b"k"),
        delete_command(request_digest(b"d"), b"k"),
        put_command(request_digest(b"d"), b"k", b"3"),
        put_command(request_digest(b"e"), b"k", b"3"),
    ]
    results = story.apply(encode_commands(commands)).results
    assert results == b"\0\1\1\0\2\0"
    assert story.machine.revision == 5
    assert [event.previous_revision for _, event in story.events()] == [0, 2, 3, 0]


@both
def test_what_an_entry_needs_of_the_disk_is_asked_beside_the_loop(plain: bool) -> None:
    story = Story(plain)
    story.ask(EnableModel())
    story.put(b"a", b"1")
    story.put(b"b", b"1")
    story.machine.flush()
    story.disk.fail("pread", 5, always=True)
    machine = story.machine
    for data in (
        encode_commands([put_command(request_digest(b"x"), b"a", b"2")]),
        story.operations(Put(b"a", b"3")),
        story.operations(DeleteRange(b"a", b"c")),
    ):
        prepared = machine.prepare([story.entry(data)])
        assert prepared.cold
        with pytest.raises(ValueError, match="only the disk knows"):
            machine.apply_prepared(prepared)
        story.disk.heal()
        prepared.learn(machine.look_up(prepared))  # type: ignore[arg-type]
        assert not prepared.cold
        story.disk.fail("pread", 5, always=True)
        machine.apply_prepared(prepared)
        story.disk.heal()
        machine.flush()
        machine._db.compact_range()
        story.disk.fail("pread", 5, always=True)
    assert machine.revision == 6
    story.disk.heal()
    assert machine.get(b"a") is None


def test_what_lies_in_memory_is_asked_of_it() -> None:
    story = Story()
    story.ask(EnableModel())
    story.put(b"a", b"1")
    data = story.operations(Put(b"a", b"2"), DeleteRange(b"a"), Put(b"new", b""))
    prepared = story.machine.prepare([story.entry(data)])
    assert not prepared.cold
    assert story.machine.revision == 2
    story.machine.apply_prepared(prepared)
    assert story.machine.revision == 5


def test_a_slice_has_entries_of_one_sort_and_a_compaction_for_itself() -> None:
    story = Story()
    story.ask(EnableModel())
    v1 = encode_commands([put_command(request_digest(b"1"), b"k", b"v")])
    entries = [
        story.entry(data)
        for data in (
            b"",
            v1,
            story.operations(Put(b"a")),
            b"",
            story.operations(Put(b"b")),
            story.operations(Compact(2)),
            story.operations(Put(b"c")),
            v1,
        )
    ]
    sizes = []
    machine = story.machine
    while entries:
        prepared = machine.prepare(entries)
        sizes.append(len(prepared))
        if prepared.cold:
            prepared.learn(machine.look_up(prepared))  # type: ignore[arg-type]
        del entries[: len(machine.apply_prepared(prepared))]
    assert sizes == [2, 3, 1, 1, 1]
    assert machine.compacted == 2


def hashes_of(slices: Sequence[Sequence[bytes]]) -> tuple[int, int, int]:
    story = Story()
    for data in slices:
        story.machine.apply([story.entry(one) for one in data])
    return story.machine.state_hash, story.machine.revision, story.machine.clock_ms


def test_the_hash_doesnt_depend_on_how_entries_were_cut_into_slices() -> None:
    story = Story()
    entries = [
        story.operations(EnableModel(), time_ms=50),
        story.operations(Put(b"a", b"1"), Put(b"a", b"2", ignore_value=True)),
        encode_commands([put_command(request_digest(b"1"), b"a", b"v")]),
        story.operations(DeleteRange(b"a", b"\0"), time_ms=70),
    ]
    together = hashes_of([entries])
    assert together == hashes_of([[entry] for entry in entries])
    assert together != hashes_of([entries[:3]])
    assert together[1:] == (4, 70)


@both
def test_history_is_kept_from_the_compaction_on(plain: bool) -> None:
    story = Story(plain)
    story.ask(EnableModel())
    for number in range(5):
        story.put(b"k", b"%d" % number)
    assert story.machine._db.retained_sequence == 0
    story.ask(Compact(4))
    assert [revision for revision, _ in story.events()] == [4, 5, 6]
    # A crash may have forgotten it, and the state's own record hasn't.
    story.again()
    assert story.machine._db.retained_sequence == 4
    assert story.machine.compacted == 4
    story.machine._db.compact_range()
    assert story.machine._db.get_versioned(b"\x01k", 4) is not None


@both
def test_history_is_kept_until_tables_know_of_its_compaction(plain: bool) -> None:
    """Or what is applied anew after a crash would ask for what is gone, as readers may then."""
    story = Story(plain)
    story.ask(EnableModel())
    for number in range(5):
        story.put(b"k", b"%d" % number)
        story.machine.flush()
    past = story.operations(Txn(success=(Range(b"k", revision=3),)))
    applied = story.apply(past)
    story.put(b"k", b"5")
    story.ask(Compact(6))
    # What any compaction of tables goes by, and the next edit of the manifest says.
    assert story.machine._db.retained_sequence == 0
    # Only the process ends.
    story.disk = story.disk.crash(keep="all")
    story.machine = story.opened()
    assert (story.machine.revision, story.machine.compacted) == (6, -1)
    answer = story.machine.read_range(Range(b"k", revision=3))
    assert [kv.value for kv in answer.kvs] == [b"1"]
    assert story.apply(past) == applied
    story.put(b"k", b"5")
    story.ask(Compact(6))
    assert story.machine._db.retained_sequence == 0
    # By whoever it is flushed.
    story.machine._db.flush()
    story.put(b"k", b"6")
    assert story.machine._db.retained_sequence == 6
    story.ask(Compact(8))
    story.machine.flush()
    assert story.machine._db.retained_sequence == 8


def test_the_model_is_kept_before_there_is_history_to_lose() -> None:
    """Durably, and beside the loop; that the disk is full for it passes."""
    story = Story()
    prepared = story.machine.prepare([story.entry(story.operations(EnableModel()))])
    assert prepared.cold
    story.disk.fail("pwrite", errno.ENOSPC, always=True)
    with pytest.raises(StorageError) as caught:
        story.machine.look_up(prepared)
    assert caught.value.retryable
    assert not story.machine.model_enabled
    story.disk.heal()
    prepared.learn(story.machine.look_up(prepared))  # type: ignore[arg-type]
    story.machine.apply_prepared(prepared)
    assert story.machine.model_enabled
    assert story.machine._db.retained_sequence == 0


def test_an_entry_of_another_sort_is_refused_where_it_comes_in_and_where_it_is_applied() -> None:
    story = Story()
    good = story.operations(Put(b"k", b"v"), EnableModel())
    check_entry(good)
    for bad in (good[:-1], good + b"\0", b"\4" + good[1:], b"\3"):
        with pytest.raises(CorruptionError):
            check_entry(bad)
        with pytest.raises(CorruptionError):
            story.machine.apply([story.entry(bad)])
    with pytest.raises(CorruptionError) as caught:
        story.machine.apply([story.entry(b"\5" + good[1:])])
    assert caught.value.code is IntegrityCode.UNSUPPORTED_VERSION


def test_a_broken_record_ends_a_read_and_a_write() -> None:
    story = Story()
    story.ask(EnableModel())
    story.put(b"k", b"v")
    batch = story.machine._db.write_batch()
    batch.put(b"\x01k", b"\xff", sequence=story.machine.revision)
    story.machine._db.write(batch, sequence=story.machine.revision)
    with pytest.raises(CorruptionError):
        story.machine.get_cached(b"k")
    with pytest.raises(CorruptionError):
        story.put(b"k", b"v")


def test_answers_come_with_the_ids_of_their_proposals() -> None:
    story = Story()
    story.ask(EnableModel())
    put, refused = story.ask(Put(b"k", b"v"), Put(b"k", b"v", lease=9))
    assert put == PutAnswer(2)
    assert is_reason(refused, Reason.LEASE_NOT_FOUND)


def key_value(key: bytes, created: int, changed: int, version: int, value: bytes) -> KeyValue:
    return KeyValue(key, created, changed, version, value, 0)


@both
def test_what_v1_wrote_is_read_by_revision(plain: bool) -> None:
    story = Story(plain)
    story.put(b"old", b"0")
    story.ask(EnableModel())
    machine = story.machine
    story.put(b"old", b"1")
    story.put(b"new", b"2")
    story.delete(b"old")
    now = machine.read_range(Range(b"a", b"\0"))
    assert now == RangeAnswer(4, (key_value(b"new", 3, 3, 1, b"2"),), False, 1)
    then = machine.read_range(Range(b"a", b"\0", revision=2))
    assert then == RangeAnswer(4, (key_value(b"old", 1, 2, 2, b"1"),), False, 1)
    at_first = machine.read_range(Range(b"old", revision=1))
    assert at_first == RangeAnswer(4, (key_value(b"old", 1, 1, 1, b"0"),), False, 1)
    assert machine.read_range_cached(Range(b"new")) == now
    assert machine.read_range_cached(Range(b"a", b"\0")) is COLD
    page = machine.events(2, 4, 1 << 20, previous=True)
    cached = machine.events_cached(4, 4, 1 << 20)
    assert cached == EventPage(machine.events(4, 4, 1 << 20).revisions, 5)
    assert page.revisions == (
        (
            2,
            (Event(False, key_value(b"old", 1, 2, 2, b"1"), 1, key_value(b"old", 1, 1, 1, b"0")),),
        ),
        (3, (Event(False, key_value(b"new", 3, 3, 1, b"2")),)),
        (4, (Event(True, key_value(b"old", 0, 4, 0, b""), 2, key_value(b"old", 1, 2, 2, b"1")),)),
    )
    txn = Txn((), (Range(b"new"), Range(b"old")))
    assert machine.read_txn(txn).answers == (
        RangeAnswer(4, now.kvs, False, 1),
        RangeAnswer(4, (), False, 0),
    )
    with pytest.raises(EtcdError) as caught:
        machine.read_range(Range(b"old", revision=5))
    assert caught.value.reason is Reason.FUTURE_REVISION


@both
def test_what_was_compacted_is_refused_and_its_room_comes_back(plain: bool) -> None:
    story = Story(plain)
    story.ask(EnableModel())
    for number in range(200):
        story.put(b"k%d" % (number % 3), b"%0100d" % number)
    machine = story.machine
    hashed = machine.hash_kv(0)
    machine.flush()
    before = machine._db.approximate_sizes((b"\1", b"\3"))
    story.ask(Compact(200))
    assert machine.hash_kv(0) != hashed
    machine.reclaim()
    assert machine._db.approximate_sizes((b"\1", b"\3"))[0] < before[0] / 3
    with pytest.raises(EtcdError) as caught:
        machine.read_range(Range(b"k1", revision=199))
    assert caught.value.reason is Reason.COMPACTED
    with pytest.raises(EtcdError) as caught:
        machine.events(199, 201, 1000)
    assert caught.value.reason is Reason.COMPACTED
    kept = machine.read_range(Range(b"k1", revision=200))
    assert kept.kvs[0].value == b"%0100d" % 196
    assert [revision for revision, _ in machine.events(200, 201, 1 << 20).revisions] == [200, 201]


@both
@pytest.mark.parametrize("way", ["delete", "replace"])
def test_what_was_deleted_at_the_compacted_revision_gives_its_room_back(
    plain: bool, way: str
) -> None:
    """etcd's recipe against a full store: delete, compact to the current revision, defragment."""
    story = Story(plain)
    story.ask(EnableModel())
    for number in range(100):
        story.put(b"k%03d" % number, random.Random(number).randbytes(2000))
    machine = story.machine
    machine.flush()
    before = machine._db.approximate_sizes((b"\1", b"\3"))[0]
    assert before > 100 * 2000
    if way == "delete":
        story.ask(DeleteRange(b"k", b"l"))
    else:
        story.ask(Txn((), tuple(Put(b"k%03d" % number, b"") for number in range(100))))
    gone = machine.revision
    story.ask(Compact(gone))
    machine.reclaim()
    assert machine._db.approximate_sizes((b"\1", b"\3"))[0] < before / 10
    # Who watches from then on, or from the compacted revision itself, misses nothing but what
    # keys were before.
    page = machine.events(gone, gone, 1 << 20, previous=True)
    ((revision, events),) = page.revisions
    assert (revision, len(events)) == (gone, 100)
    assert all(event.previous is None for event in events)
    assert all(event.is_delete is (way == "delete") for event in events)
    story.put(b"k000", b"after")
    ((_, (event,)),) = machine.events(gone + 1, gone + 1, 1 << 20, previous=True).revisions
    assert (event.previous is None) is (way == "delete")
    left = machine.read_range(Range(b"k", b"l", revision=gone)).count
    assert left == (0 if way == "delete" else 100)


def test_while_the_model_is_off_nothing_of_it_is_read() -> None:
    story = Story()
    story.put(b"k", b"v")
    for read in (
        lambda: story.machine.read_range(Range(b"k")),
        lambda: story.machine.read_range_cached(Range(b"k")),
        lambda: story.machine.read_txn(Txn((), (Range(b"k"),))),
        lambda: story.machine.hash_kv(0),
    ):
        with pytest.raises(EtcdError) as caught:
            read()
        assert caught.value.reason is Reason.NOT_CAPABLE


def test_keys_of_a_lease_are_known_after_a_restart() -> None:
    story = Story()
    story.ask(EnableModel(), LeaseGrant(7, 60), LeaseGrant(8, 60))
    story.ask(*(Put(key, b"", lease=7) for key in (b"b", b"a", b"c")), Put(b"d", b"", lease=8))
    story.ask(Put(b"c", b""), Alarm(AlarmAction.ACTIVATE, 3, AlarmKind.NOSPACE))
    before = story.machine
    assert before.lease_keys(7) == (b"a", b"b")
    assert before.alarms == {(3, AlarmKind.NOSPACE)}
    leases, alarms = dict(before.leases()), before.alarms
    story.again()
    assert (story.machine.leases(), story.machine.alarms) == (leases, alarms)
    assert story.machine.lease_keys(7) == (b"a", b"b")
    story.ask(LeaseRevoke(7), Alarm(AlarmAction.DEACTIVATE, 3, AlarmKind.NOSPACE))
    assert story.machine.leases().keys() == {8}
    assert story.machine.lease_keys(7) == ()
    assert not story.machine.alarms
    assert story.machine.get(b"a") is None


def test_what_takes_long_to_evaluate_is_a_workers() -> None:
    story = Story()
    story.ask(EnableModel())
    many = Txn((), tuple(Put(b"%d" % number) for number in range(100)))
    for _ in range(4):
        many = Txn((), (many, many, many))
    prepared = story.machine.prepare([story.entry(story.operations(many))])
    assert prepared.cold
    assert len(prepared) == 1
