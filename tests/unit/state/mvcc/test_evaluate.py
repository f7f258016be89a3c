"""What operations come to, where etcd's rules are easily got wrong, and once were."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.alarms import ALARMS_MAX
from kvstore.state.mvcc.answers import (
    AlarmAnswer,
    Answer,
    CompactAnswer,
    DeleteRangeAnswer,
    Event,
    KeyValue,
    LeaseRevokeAnswer,
    PutAnswer,
    RangeAnswer,
    TxnAnswer,
)
from kvstore.state.mvcc.evaluate import evaluate, evaluate_slice
from kvstore.state.mvcc.operations import TXN_DEPTH_MAX
from kvstore.state.mvcc.reads import read_range
from kvstore.state.mvcc.records import USER, LeaseRecord
from kvstore.state.mvcc.requests import (
    FOR_EVER,
    LEVEL_ACCUSES,
    LEVEL_MODEL,
    LEVEL_NUMBERED,
    Alarm,
    AlarmAction,
    AlarmKind,
    Compact,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    EnableModel,
    LeaseCheckpoint,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Proposal,
    Put,
    RaiseLevel,
    Range,
    Txn,
)
from kvstore.state.mvcc.source import ColdError, Standing, attached_keys
from kvstore.state.mvcc.view import ENTRY_BYTES_MAX
from tests.unit.state.mvcc.harness import ColdStore, Model, enabled
from tests.unit.state.mvcc.oracle import Oracle
from tests.unit.state.mvcc.reading import events, plain
from tests.unit.state.mvcc.strategies import proposals


@pytest.fixture
def model() -> Model:
    return enabled()


def refused(model: Model, operation: Operation) -> Reason:
    """Why it is refused; it changes nothing then."""
    before = model.standing, dict(model.leases), model.alarms, model.auth
    (answer,) = model.apply(operation)
    assert isinstance(answer, EtcdError)
    assert (model.standing, model.leases, model.alarms, model.auth) == before
    return answer.reason


def kv(model: Model, key: bytes) -> KeyValue | None:
    found = read_range(model.store, lambda: model.standing, Range(key)).kvs
    return found[0] if found else None


def txn(model: Model, request: Txn) -> TxnAnswer:
    answer = model.do(request)
    assert isinstance(answer, TxnAnswer)
    return answer


# Any input


@given(st.lists(st.lists(proposals, min_size=1, max_size=4), min_size=1, max_size=4))
@settings(max_examples=150)
def test_whatever_can_be_decoded_is_answered_or_refused(slices: list[list[Proposal]]) -> None:
    model, oracle = enabled(), Oracle()
    known = [Proposal(bytes(16), Put(b"a")), Proposal(b"x" * 16, LeaseGrant(1, 5))]
    for batch in [known, *slices]:
        answers = model.apply_proposals(batch)
        for proposal, answer in zip(batch, map(plain, answers), strict=True):
            if proposal.request is None:
                assert answer == plain(oracle.apply(proposal, 1))
            else:
                # There are no sessions, and no users who were asked for as of that revision.
                assert answer in (
                    Reason.SESSION_FORGOTTEN,
                    Reason.USER_EMPTY,
                    Reason.AUTH_OLD_REVISION,
                    Reason.PERMISSION_DENIED,
                )
    assert model.leases == oracle.leases


def test_before_the_model_is_enabled_all_is_refused_but_that() -> None:
    model = Model()
    for operation in (Put(b"a"), Txn(), Compact(0), LeaseGrant(1, 1), Alarm(0, 0, 0)):
        assert refused(model, operation) is Reason.NOT_CAPABLE
    assert model.apply(EnableModel(), Put(b"a"))[1] == PutAnswer(2)
    assert model.standing == Standing(2, 1, -1)


def test_what_v1_wrote_is_there_without_headers() -> None:
    model = Model()
    batch = model.db.write_batch()
    batch.put(USER + b"old", b"\x80v1", sequence=3)
    batch.put(USER + b"older", b"x", sequence=4)
    model.db.write(batch, sequence=3)
    model.standing = Standing(4, 0, -1)
    # In one slice with operations that meet such records.
    answers = model.apply(
        EnableModel(), Put(b"old", b"new", prev_kv=True), DeleteRange(b"older", prev_kv=True)
    )
    assert model.standing == Standing(6, 4, 4)
    assert answers[1:] == [
        PutAnswer(5, KeyValue(b"old", 3, 3, 1, b"\x80v1", 0)),
        DeleteRangeAnswer(6, 1, (KeyValue(b"older", 4, 4, 1, b"x", 0),)),
    ]
    assert kv(model, b"old") == KeyValue(b"old", 3, 5, 2, b"new", 0)
    past = read_range(model.store, lambda: model.standing, Range(b"\0", b"\0", revision=4))
    assert [found.value for found in past.kvs] == [b"\x80v1", b"x"]
    assert [event.previous_revision for _, event in events(model, 5)] == [3, 4]


def test_enabling_again_changes_nothing(model: Model) -> None:
    model.do(Put(b"a"))
    before = model.standing
    model.do(EnableModel())
    assert model.standing == before


# Txn


def test_a_txn_that_reads_a_compacted_revision_changes_nothing(model: Model) -> None:
    # etcd's #18667: it had put before it found out, and only where the revision was gone.
    model.apply(Put(b"a", b"1"), Put(b"a", b"2"), Put(b"a", b"3"), Compact(4))
    reads_late = Txn((), (Put(b"b"), Range(b"a", revision=3)))
    assert refused(model, reads_late) is Reason.COMPACTED
    assert refused(model, Txn((), (Put(b"c"), Txn((), (reads_late,))))) is Reason.COMPACTED
    assert refused(model, Txn((), (Range(b"a", revision=5),))) is Reason.FUTURE_REVISION
    # The next revision is none yet, though the Txn makes it.
    assert refused(model, Txn((), (Put(b"b"), Range(b"b", revision=5)))) is Reason.FUTURE_REVISION
    # As it is: it isn't the current one here.
    assert refused(model, Txn((), (Range(b"a", revision=-1),))) is Reason.COMPACTED
    assert kv(model, b"b") is None


def test_compares_are_judged_by_the_state_before_the_txn(model: Model) -> None:
    absent = Compare(b"a", CompareTarget.VERSION, CompareResult.EQUAL, 0)
    answer = txn(model, Txn((absent,), (Put(b"a"), Txn((absent,), (Put(b"b"),), (Put(b"c"),)))))
    assert answer == TxnAnswer(2, True, (PutAnswer(2), TxnAnswer(0, True, (PutAnswer(2),))))


def test_no_compare_with_a_value_is_true_of_an_absent_key(model: Model) -> None:
    for result in CompareResult:
        for end in (b"", b"b"):
            condition = Compare(b"a", CompareTarget.VALUE, result, b"", end)
            assert not txn(model, Txn((condition,))).succeeded
    condition = Compare(b"a", CompareTarget.LEASE, CompareResult.EQUAL, 0)
    assert txn(model, Txn((condition,))).succeeded


def test_answers_in_a_txn_tell_the_revision_as_it_goes(model: Model) -> None:
    model.do(Put(b"a"))
    answer = txn(
        model,
        Txn(
            (),
            (
                Range(b"a", count_only=True),
                DeleteRange(b"x"),
                DeleteRange(b"a"),
                Range(b"a"),
                DeleteRange(b"a"),
                Put(b"b"),
                Range(b"a", b"c", revision=2, count_only=True),
            ),
        ),
    )
    assert [one.revision for one in answer.answers] == [2, 2, 3, 3, 3, 3, 3]
    assert answer.revision == 3
    # As of a revision before, whatever the Txn itself wrote.
    assert answer.answers[-1] == RangeAnswer(3, (), False, 1)
    assert txn(model, Txn((), (DeleteRange(b"x"), Range(b"b", count_only=True)))).revision == 3


def test_a_txn_is_one_revision_with_its_events_in_order(model: Model) -> None:
    # etcd's #17247 told some of them twice.
    model.apply(Put(b"a"), Put(b"b"))
    model.do(Txn((), (Put(b"z"), Txn((), (DeleteRange(b"a", b"c"),)), Put(b"m"))))
    assert [(revision, event.is_delete, event.kv.key) for revision, event in events(model, 4)] == [
        (4, False, b"z"),
        (4, True, b"a"),
        (4, True, b"b"),
        (4, False, b"m"),
    ]


def test_txns_nest_as_deep_as_can_be_decoded(model: Model) -> None:
    request = Txn()
    for _ in range(TXN_DEPTH_MAX - 1):
        request = Txn((), (request,))
    answer = txn(model, request)
    for _ in range(TXN_DEPTH_MAX - 1):
        (answer,) = answer.answers  # type: ignore[assignment]
    assert answer == TxnAnswer(0, True, ())


def test_which_of_two_faults_of_a_put_is_told(model: Model) -> None:
    both = Put(b"a", lease=7, ignore_value=True)
    assert refused(model, both) is Reason.LEASE_NOT_FOUND
    assert refused(model, Txn((), (both,))) is Reason.KEY_NOT_FOUND
    # Puts before ranges.
    late = Range(b"a", revision=100)
    assert refused(model, Txn((), (late, both))) is Reason.KEY_NOT_FOUND


def test_a_key_of_a_request_longer_than_the_engine_takes_is_refused(model: Model) -> None:
    key = b"k" * (1 << 20)
    assert refused(model, Put(key)) is Reason.REQUEST_TOO_LARGE
    assert refused(model, Txn((), (Put(key),))) is Reason.REQUEST_TOO_LARGE
    assert model.do(DeleteRange(key, key + b"z")) == DeleteRangeAnswer(1, 0)
    assert model.do(Put(key[16:])) == PutAnswer(2)


# Compaction


def test_deletes_at_the_compacted_revision_stay(model: Model) -> None:
    # etcd's #18089 and #19179.
    model.apply(Put(b"a", b"1"), Put(b"b", b"2"))
    model.apply(DeleteRange(b"a", b"c"))
    assert model.do(Compact(4)) == CompactAnswer(4)
    model.db.compact_range()
    model.restart()
    # Not so what the keys were before, nor is that kept.
    assert events(model, 4) == [
        (4, Event(True, KeyValue(b"a", 0, 4, 0, b"", 0), 2)),
        (4, Event(True, KeyValue(b"b", 0, 4, 0, b"", 0), 3)),
    ]
    assert not [*model.db.iterator(prefix=b"\x01")]
    assert list(model.db.iterator(prefix=b"\x02", include_value=False)) == [
        b"\x02" + (4).to_bytes(8, "big") + place.to_bytes(4, "big") for place in (0, 1)
    ]


def test_compaction_goes_forward_and_never_beyond_now(model: Model) -> None:
    model.apply(Put(b"a"), Put(b"a"))
    assert refused(model, Compact(-1)) is Reason.COMPACTED
    assert model.apply(Compact(0), Compact(0))[1].args == EtcdError(Reason.COMPACTED).args  # type: ignore[union-attr]
    assert refused(model, Compact(4)) is Reason.FUTURE_REVISION
    assert model.do(Compact(3)) == CompactAnswer(3)
    assert refused(model, Compact(3)) is Reason.COMPACTED
    assert kv(model, b"a") == KeyValue(b"a", 2, 3, 2, b"", 0)


def test_the_revision_does_not_follow_the_data_that_is_left(model: Model) -> None:
    # etcd's #17780: the newest change was a compacted delete, and the revision went back.
    model.apply(Put(b"a"), DeleteRange(b"a"), Compact(3))
    model.db.compact_range()
    model.restart()
    assert model.do(Put(b"b")) == PutAnswer(4)


# Leases


def test_revocation_deletes_keys_in_their_order_at_one_revision(model: Model) -> None:
    model.apply(LeaseGrant(-9, 60), Put(b"c", lease=-9), Put(b"a", lease=-9))
    model.apply(Put(b"b", lease=-9), LeaseRevoke(-9))
    assert [(revision, event.kv.key) for revision, event in events(model, 5)] == [
        (5, b"a"),
        (5, b"b"),
        (5, b"c"),
    ]
    assert not model.leases
    assert not list(attached_keys(model.store, -9))
    assert refused(model, LeaseRevoke(-9)) is Reason.LEASE_NOT_FOUND
    model.apply(LeaseGrant(-9, 60), LeaseRevoke(-9))
    assert model.standing.revision == 5


def test_a_key_has_one_lease_at_most(model: Model) -> None:
    model.apply(LeaseGrant(1, 60), LeaseGrant(2, 60), Put(b"a", lease=1), Put(b"a", lease=2))
    assert list(attached_keys(model.store, 1)) == []
    assert list(attached_keys(model.store, 2)) == [b"a"]
    model.do(Put(b"a", b"v", ignore_lease=True))
    assert list(attached_keys(model.store, 2)) == [b"a"]
    model.do(LeaseRevoke(1))
    assert kv(model, b"a") == KeyValue(b"a", 2, 4, 3, b"v", 2)
    model.do(Put(b"a"))
    assert list(attached_keys(model.store, 2)) == []
    model.do(LeaseRevoke(2))
    assert kv(model, b"a") is not None
    # Deleting takes a key off its lease; a later one of that name isn't on it.
    model.apply(LeaseGrant(3, 60), Put(b"b", lease=3), DeleteRange(b"b"), Put(b"b"), LeaseRevoke(3))
    assert kv(model, b"b") is not None


def test_leases_are_apart_at_the_ends_of_their_ids(model: Model) -> None:
    # A negative id once sorted wrongly in etcd's backend, and members diverged.
    for lease in (-(2**63), -1, 1, 2**63 - 1):
        model.apply(LeaseGrant(lease, 5), Put(b"%d" % lease, lease=lease))
    model.restart()
    assert set(model.leases) == {-(2**63), -1, 1, 2**63 - 1}
    for lease in list(model.leases):
        assert list(attached_keys(model.store, lease)) == [b"%d" % lease]
        model.do(LeaseRevoke(lease))
        assert kv(model, b"%d" % lease) is None
    assert model.standing.revision == 9


def test_an_expiry_counts_in_its_leaders_term_alone(model: Model) -> None:
    # etcd's #15247: a deposed leader had live leases' keys deleted.
    model.apply(LeaseGrant(1, 5), Put(b"a", lease=1))
    birth = model.leases[1].birth
    assert birth == 2
    model.term = 4
    assert refused(model, LeaseRevoke(1, 3, birth)) is Reason.LEADER_CHANGED
    assert refused(model, LeaseRevoke(1, 4, birth + 1)) is Reason.LEASE_NOT_FOUND
    model.do(LeaseRevoke(1, 4, birth))
    assert kv(model, b"a") is None


def test_a_checkpoint_is_of_its_term_and_of_leases_that_are_still_the_same(model: Model) -> None:
    model.apply(LeaseGrant(1, 50), LeaseGrant(2, 50))
    births = {lease: record.birth for lease, record in model.leases.items()}
    assert refused(model, LeaseCheckpoint(2, ((1, births[1], 30),))) is Reason.LEADER_CHANGED
    model.do(LeaseCheckpoint(1, ((1, births[1], 30), (2, births[1], 30), (3, 0, 30))))
    assert model.leases == {
        1: LeaseRecord(50, 30, births[1]),
        2: LeaseRecord(50, FOR_EVER, births[2]),
    }
    model.do(LeaseCheckpoint(1, ((1, births[1], 51), (2, births[2], 50))))
    assert [record.rest for record in model.leases.values()] == [FOR_EVER, 50]
    model.restart()
    assert [record.rest for record in model.leases.values()] == [FOR_EVER, 50]


def test_so_many_leases_stand_and_no_more(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.state.mvcc.leases.LEASES_MAX", 3)
    answers = model.apply(LeaseGrant(1, 5), LeaseGrant(2, 5), LeaseGrant(3, 5), LeaseGrant(4, 5))
    assert plain(answers[-1]) is Reason.TOO_MANY_REQUESTS
    answers = model.apply(LeaseRevoke(2), LeaseGrant(5, 5), LeaseGrant(6, 5))
    assert plain(answers[-1]) is Reason.TOO_MANY_REQUESTS
    model.restart()
    assert refused(model, LeaseGrant(7, 5)) is Reason.TOO_MANY_REQUESTS
    assert sorted(model.leases) == [1, 3, 5]


@pytest.mark.parametrize("bound", ["entry_bytes_max", "entry_read_max"])
def test_a_lease_with_too_many_keys_for_an_entry_ends_in_several(model: Model, bound: str) -> None:
    model.do(LeaseGrant(1, 5))
    keys = [bytes([place]) * 1000 for place in range(1, 11)]
    for key in keys:
        model.do(Put(key, bytes(2000), 1))
    setattr(model, bound, 20_000)
    ended = 0
    while isinstance(answer := model.apply(LeaseRevoke(1))[0], EtcdError):
        assert answer.reason is Reason.TOO_MANY_REQUESTS
        ended += 3
        assert [kv(model, key) is None for key in keys] == [at < ended for at in range(10)]
        assert 1 in model.leases
    assert ended == 9
    assert answer == LeaseRevokeAnswer(model.standing.revision, 1)
    assert not model.leases
    assert not any(kv(model, key) for key in keys)
    assert not [*attached_keys(model.store, 1)]


# Alarms


def test_so_many_alarms_stand_and_no_more(model: Model) -> None:
    kind = AlarmKind.CORRUPT
    model.apply(*[Alarm(AlarmAction.ACTIVATE, each, kind) for each in range(1, ALARMS_MAX + 1)])
    last = Alarm(AlarmAction.ACTIVATE, ALARMS_MAX + 1, kind)
    assert refused(model, last) is Reason.TOO_MANY_REQUESTS
    assert model.do(Alarm(AlarmAction.ACTIVATE, 1, kind)) == AlarmAnswer(1, ((1, kind),))
    model.do(Alarm(AlarmAction.DEACTIVATE, 1, kind))
    assert model.do(last) == AlarmAnswer(1, ((ALARMS_MAX + 1, kind),))


def test_without_space_nothing_is_put_but_all_else_goes_on(model: Model) -> None:
    model.apply(Put(b"a"), LeaseGrant(1, 5), Alarm(AlarmAction.ACTIVATE, 7, AlarmKind.NOSPACE))
    untaken = Txn((), (), (Txn((), (), (Put(b"a"),)),))
    for operation in (Put(b"a"), LeaseGrant(2, 5), Txn((), (Put(b"a"),)), untaken):
        assert refused(model, operation) is Reason.NO_SPACE
    goes_on: tuple[Operation, ...] = (
        DeleteRange(b"a"),
        Txn((), (DeleteRange(b"a"), Range(b"a"))),
        LeaseRevoke(1),
        LeaseCheckpoint(1, ()),
        Compact(2),
        EnableModel(),
    )
    for operation in goes_on:
        model.do(operation)
    model.restart()
    assert model.alarms == {(7, AlarmKind.NOSPACE)}
    model.do(Alarm(AlarmAction.DEACTIVATE, 0, AlarmKind.NOSPACE))
    assert refused(model, Put(b"a")) is Reason.NO_SPACE
    model.do(Alarm(AlarmAction.DEACTIVATE, 7, AlarmKind.NOSPACE))
    model.do(Put(b"a"))


def test_a_corrupt_cluster_changes_nothing(model: Model) -> None:
    model.apply(Alarm(1, 1, AlarmKind.CORRUPT), Alarm(1, 1, AlarmKind.NOSPACE))
    for operation in (Put(b"a"), Txn(), DeleteRange(b"a"), Compact(1), LeaseRevoke(1)):
        assert refused(model, operation) is Reason.CORRUPT


ACCUSE = Alarm(AlarmAction.ACTIVATE, 7, AlarmKind.DIFFERS)
LISTED = (AlarmAction.GET, 0, AlarmKind.NONE)


def test_a_member_that_differs_is_told_as_corrupt_and_refuses_nobody_anything(
    model: Model,
) -> None:
    model.do(RaiseLevel(LEVEL_ACCUSES))
    told = ((7, AlarmKind.CORRUPT),)
    assert model.do(ACCUSE) == AlarmAnswer(1, told)
    assert model.do(ACCUSE) == AlarmAnswer(1, told), "once, however often"
    model.restart()
    assert model.alarms == {(7, AlarmKind.DIFFERS)}
    writes = Put(b"a"), Txn((), (Put(b"b"),)), LeaseGrant(1, 5), Compact(2), LeaseRevoke(1)
    assert not any(isinstance(answer, EtcdError) for answer in model.apply(*writes))
    revision = model.standing.revision
    for kind in (AlarmKind.NONE, AlarmKind.CORRUPT):
        listed = model.do(Alarm(AlarmAction.GET, 0, kind))
        assert listed == AlarmAnswer(revision, told)
    assert model.do(Alarm(AlarmAction.GET, 0, AlarmKind.NOSPACE)) == AlarmAnswer(revision, ())


def test_to_disarm_corrupt_ends_both_and_an_operator_s_own_still_stops_writes(
    model: Model,
) -> None:
    model.apply(
        RaiseLevel(LEVEL_ACCUSES), ACCUSE, Alarm(AlarmAction.ACTIVATE, 7, AlarmKind.CORRUPT)
    )
    assert refused(model, Put(b"a")) is Reason.CORRUPT
    told = ((7, AlarmKind.CORRUPT),)
    assert model.do(Alarm(*LISTED)) == AlarmAnswer(1, told), "told once"
    unlike = [(8, AlarmKind.CORRUPT), (7, AlarmKind.NOSPACE), (7, AlarmKind.DIFFERS)]
    for member, kind in unlike:
        assert model.do(Alarm(AlarmAction.DEACTIVATE, member, kind)) == AlarmAnswer(1, ())
    assert model.do(Alarm(AlarmAction.DEACTIVATE, 7, AlarmKind.CORRUPT)) == AlarmAnswer(1, told)
    assert model.alarms == frozenset()
    model.do(Put(b"a"))


@pytest.mark.parametrize("level", [LEVEL_MODEL, LEVEL_NUMBERED])
def test_below_its_level_the_milder_alarm_is_nothing_as_to_older_members(
    model: Model, level: int
) -> None:
    model.do(RaiseLevel(level))
    assert model.do(ACCUSE) == AlarmAnswer(1, ())
    assert model.alarms == frozenset()


# Slices


def test_an_operation_that_no_entry_can_carry_is_refused(model: Model) -> None:
    for number in range(200):
        model.do(Put(b"key%03d" % number))
    model.entry_bytes_max = 4000
    everything = DeleteRange(b"key", b"\0")
    answers = model.apply(Put(b"a"), everything, Put(b"b"), DeleteRange(b"key0", b"key01"))
    assert list(map(plain, answers)) == [
        PutAnswer(202),
        Reason.REQUEST_TOO_LARGE,
        PutAnswer(203),
        Reason.TOO_MANY_REQUESTS,
    ]
    assert model.do(DeleteRange(b"key0", b"key01")) == DeleteRangeAnswer(204, 10)
    # All operations of an entry together.
    some = [
        DeleteRange(b"key%03d" % number, b"key%03d" % (number + 30)) for number in (0, 40, 80, 120)
    ]
    assert Reason.REQUEST_TOO_LARGE in map(plain, model.apply(*some))
    # Where the entry is full what needs little has to come again.
    answers = model.apply(DeleteRange(b"key17", b"key18"), *[Put(b"a" * 300)] * 12, Put(b"b"))
    assert not isinstance(answers[0], EtcdError)
    full = [plain(each) for each in answers if isinstance(each, EtcdError)]
    assert full
    assert set(full) == {Reason.TOO_MANY_REQUESTS}
    assert isinstance(answers[-1], EtcdError)
    assert kv(model, b"key199") is not None
    model.entry_bytes_max = ENTRY_BYTES_MAX
    model.do(everything)
    assert read_range(model.store, lambda: model.standing, Range(b"key", b"\0")).count == 0


def test_an_operation_that_reads_too_much_for_an_entry_is_refused(model: Model) -> None:
    for number in range(10):
        model.do(Put(b"key%d" % number, bytes(1000)))
    model.entry_read_max = 30_000
    every = Range(b"key", b"\0")
    ranged = Compare(b"key", CompareTarget.VERSION, CompareResult.EQUAL, 1, b"\0")
    put = Put(b"a")
    for much in (
        Txn((), (put, every, every, every)),
        Txn((ranged,) * 3, (put,)),
        Txn((), (put, Txn((ranged, ranged), (every,)))),
        Txn((), (put, *[Range(b"key1")] * 30)),
        Txn((), (put, *[Range(b"key", b"\0", count_only=True)] * 100)),
    ):
        assert refused(model, much) is Reason.REQUEST_TOO_LARGE
        assert kv(model, b"a") is None
    # What may do the same waits for another entry; what can't isn't touched.
    single = Txn((Compare(b"key1", CompareTarget.VERSION, CompareResult.EQUAL, 1),), (put,))
    little = Txn((), (Put(b"b"), Range(b"key1")))
    much = Txn((), (put, every, every, every))
    answers = model.apply(little, much, single, little, DeleteRange(b"key", b"\0", prev_kv=True))
    assert [plain(each) if isinstance(each, EtcdError) else None for each in answers] == [
        None,
        Reason.REQUEST_TOO_LARGE,
        None,
        Reason.TOO_MANY_REQUESTS,
        Reason.TOO_MANY_REQUESTS,
    ]
    # All operations of an entry together.
    once = Txn((), (put, every, every))
    assert Reason.REQUEST_TOO_LARGE in map(plain, model.apply(once, once))
    assert isinstance(model.do(once), TxnAnswer)
    model.do(DeleteRange(b"key", b"\0", prev_kv=True))


def test_a_slice_ends_where_enough_is_read(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.state.mvcc.evaluate.SLICE_BYTES_MAX", 3000)
    model.do(Put(b"key", bytes(1000)))
    read = Txn((), (Put(b"a"), Range(b"key")))
    entries = [(index, 1, 1, [model.proposal(read)]) for index in range(5)]
    assert len(evaluate_slice(entries, model.view)[1]) == 3


def test_a_slice_ends_where_enough_is_written(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvstore.state.mvcc.evaluate.SLICE_BYTES_MAX", 1000)
    sizes = (400, 400, 400, 2000, 10)
    entries = [(size, 1, 1, [model.proposal(Put(b"a", bytes(size)))]) for size in sizes]
    view, answers = evaluate_slice(entries, model.view)
    assert (len(answers), view.standing.revision) == (3, 4)
    assert len(evaluate_slice(entries[3:], model.view)[1]) == 1


def test_a_slice_that_memory_cannot_tell_leaves_nothing_behind(model: Model) -> None:
    model.do(Put(b"a", b"1"))
    view = model.view(ColdStore(model.db))
    first = evaluate(model.proposal(Put(b"a", prev_kv=True)), view, 1)
    assert first == PutAnswer(3, KeyValue(b"a", 2, 2, 1, b"1", 0))
    with pytest.raises(ColdError):
        evaluate(model.proposal(DeleteRange(b"a", b"b")), view, 1)
    assert model.standing.revision == 2
    assert model.do(Put(b"a", prev_kv=True)) == first


def test_equal_logs_make_equal_bytes_however_they_are_cut() -> None:
    def run(size: int) -> tuple[list[object], list[object]]:
        operations: list[Operation] = [
            LeaseGrant(5, 7),
            *(Put(b"%d" % (number % 7), b"v", 5 * (number % 2)) for number in range(30)),
            Txn((), (DeleteRange(b"1", b"3"), Put(b"9"))),
            LeaseRevoke(5),
        ]
        model = enabled()
        answers: list[Answer | EtcdError] = []
        for start in range(0, len(operations), size):
            answers += model.apply(*operations[start : start + size])
        stored = [
            entry for entry in model.db.iterator(include_sequence=True) if entry[0][:1] != b"\0"
        ]
        return list(map(plain, answers)), list(stored)

    assert run(1) == run(7) == run(100)
