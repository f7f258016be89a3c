"""Operations of the model that a session numbered: done once, whatever happens between tries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.errors import CorruptionError, Refusal
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state import open_command
from kvstore.state.mvcc.answers import (
    DeleteRangeAnswer,
    LeaseGrantAnswer,
    PutAnswer,
    RepeatedAnswer,
    TxnAnswer,
)
from kvstore.state.mvcc.operations import encode_operations
from kvstore.state.mvcc.requests import (
    LEVEL_ACCUSES,
    LEVEL_MODEL,
    LEVEL_NUMBERED,
    Alarm,
    AlarmAction,
    AlarmKind,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    EnableModel,
    LeaseGrant,
    Numbered,
    Operation,
    Proposal,
    Put,
    RaiseLevel,
    Range,
    Txn,
)
from kvstore.state.stored import STATE_KEY
from tests.unit.state.test_exactly_once import A, B, House, numbered, refused

Asked = tuple[Operation, Numbered | None]


class Shop(House):
    """A machine that also takes operations."""

    def ask(self, *asked: Asked, at: int = 0) -> Sequence[Any]:
        """One entry; of each what it came to, a refusal by its reason."""
        index = len(self.log) + 1
        proposals = [
            Proposal(b"%08d%08d" % (index, place), operation, None, request)
            for place, (operation, request) in enumerate(asked)
        ]
        self.log.append((index, 1, encode_operations(proposals, at)))
        (applied,) = self.machine.apply(self.log[-1:])
        return [
            answer.reason if isinstance(answer, EtcdError) else answer
            for _, answer in applied.answers
        ]

    def do(self, operation: Operation, request: Numbered | None = None, at: int = 0) -> Any:
        (answer,) = self.ask((operation, request), at=at)
        return answer


def of(session: bytes, sequence: int, floor: int = 1) -> Numbered:
    return Numbered(session, sequence, floor)


@pytest.fixture(params=[False, True], ids=["native", "plain"])
def shop(request: pytest.FixtureRequest) -> Shop:
    shop = Shop(request.param)
    shop.do(RaiseLevel(LEVEL_NUMBERED), at=1)
    shop.one(open_command(A), at=1)
    return shop


@pytest.fixture(params=["goes on", "killed", "killed after a flush", "snapshot"])
def between(request: pytest.FixtureRequest, shop: Shop) -> Any:
    """What happens between a first try and its retry."""

    def happen() -> None:
        if request.param == "killed after a flush":
            shop.machine.flush()
        if request.param.startswith("killed"):
            shop.kill()
        if request.param == "snapshot":
            shop.machine.flush()
            shop.install_snapshot()

    return happen


def test_an_operation_is_done_once(shop: Shop, between: Any) -> None:
    put = Put(b"k", b"v", prev_kv=True)
    assert shop.do(put, of(A, 1)) == PutAnswer(2)
    assert shop.do(Put(b"k", b"w"), of(A, 2)) == PutAnswer(3)
    between()
    assert shop.do(put, of(A, 1)) == RepeatedAnswer(2, True, 0)
    assert shop.machine.revision == 3
    between()
    assert shop.do(put, of(A, 1)) == RepeatedAnswer(2, True, 0)
    assert shop.machine.get(b"k") == b"w"


def test_a_repeat_says_what_was_decided_and_how_much_was_deleted(shop: Shop, between: Any) -> None:
    for number in range(5):
        shop.do(Put(b"k%d" % number))
    absent = Compare(b"lock", CompareTarget.CREATE, CompareResult.EQUAL, 0)
    nested = Txn((), (DeleteRange(b"k0"), DeleteRange(b"gone")))
    txn = Txn((absent,), (Put(b"lock"), nested, DeleteRange(b"k1", b"k3")), (Range(b"lock"),))
    delete = DeleteRange(b"k3", b"\0", prev_kv=True)
    assert isinstance(shop.do(txn, of(A, 1)), TxnAnswer)
    assert shop.do(delete, of(A, 2)).deleted == 3  # the lock as well
    failed = Txn((absent._replace(operand=7),), (), (Range(b"k"),))
    assert not shop.do(failed, of(A, 3)).succeeded
    between()
    assert shop.do(txn, of(A, 1)) == RepeatedAnswer(7, True, 3)
    assert shop.do(delete, of(A, 2)) == RepeatedAnswer(8, True, 3)
    # Nothing was changed by it, and yet a late try must not do what was answered otherwise.
    assert shop.do(failed, of(A, 3)) == RepeatedAnswer(8, False, 0)
    assert shop.machine.revision == 8


def test_two_tries_in_one_entry_are_one(shop: Shop) -> None:
    answers = shop.ask((Put(b"k"), of(A, 1)), (Put(b"k"), of(A, 1)), (Put(b"k"), None))
    assert answers == [PutAnswer(2), RepeatedAnswer(2, True, 0), PutAnswer(3)]


def test_tries_of_one_slice_are_one(shop: Shop) -> None:
    """Several entries that are applied in one go."""
    entries = [
        (len(shop.log) + place, 1, encode_operations([Proposal(b"%016d" % place, *asked)], 5))
        for place, asked in enumerate(
            [
                (Put(b"k"), None, of(A, 2)),
                (Put(b"k"), None, of(A, 2)),
                (Put(b"k"), None, of(A, 3, 3)),
                (Put(b"k"), None, of(A, 2)),
            ],
            start=1,
        )
    ]
    answers = [answer for applied in shop.machine.apply(entries) for _, answer in applied.answers]
    assert answers[:3] == [PutAnswer(2), RepeatedAnswer(2, True, 0), PutAnswer(3)]
    assert isinstance(answers[3], EtcdError)
    assert answers[3].reason is Reason.SEQUENCE_PASSED


def test_writes_of_v1_and_operations_share_the_numbers(shop: Shop, between: Any) -> None:
    assert shop.one(numbered(A, 1, 1)) is False
    assert shop.do(Put(b"k", b"w"), of(A, 2)) == PutAnswer(3)
    between()
    assert shop.do(Put(b"k", b"v"), of(A, 1)) is Reason.NUMBER_REUSED
    assert "used before" in str(shop.one(numbered(A, 2, 1, b"w")))
    assert shop.one(numbered(A, 1, 1)) is False
    assert shop.do(Put(b"k", b"w"), of(A, 2)) == RepeatedAnswer(3, True, 0)
    assert shop.do(Put(b"k", b"other"), of(A, 2)) is Reason.NUMBER_REUSED
    assert shop.machine.revision == 3


def test_what_a_client_is_done_with_is_refused_however_late(shop: Shop, between: Any) -> None:
    shop.do(Put(b"k", b"1"), of(A, 1))
    shop.do(Put(b"k", b"2"), of(A, 2, 2))
    between()
    assert shop.do(Put(b"k", b"1"), of(A, 1)) is Reason.SEQUENCE_PASSED
    assert refused(shop.one(numbered(A, 1, 1))) is Refusal.SEQUENCE_PASSED
    assert shop.machine.get(b"k") == b"2"


def test_what_was_refused_may_be_done_by_a_retry(shop: Shop, between: Any) -> None:
    put = Put(b"k", b"v", lease=7)
    assert shop.do(put, of(A, 1)) is Reason.LEASE_NOT_FOUND
    between()
    assert isinstance(shop.do(LeaseGrant(7, 60)), LeaseGrantAnswer)
    assert shop.do(put, of(A, 1)) == PutAnswer(2)
    between()
    assert shop.do(put, of(A, 1)) == RepeatedAnswer(2, True, 0)


def test_what_was_done_before_is_told_whatever_alarm_stands(shop: Shop) -> None:
    shop.do(Put(b"k"), of(A, 1))
    shop.do(Alarm(AlarmAction.ACTIVATE, 1, AlarmKind.NOSPACE))
    assert shop.do(Put(b"k"), of(A, 1)) == RepeatedAnswer(2, True, 0)
    assert shop.do(Put(b"k"), of(A, 2)) is Reason.NO_SPACE


def test_a_session_lives_by_operations_and_expires_without(shop: Shop, between: Any) -> None:
    shop.do(Put(b"k"), of(A, 1), at=900)
    between()
    assert shop.do(Put(b"k"), of(A, 2), at=1899) == PutAnswer(3)
    between()
    assert shop.do(Put(b"k"), of(A, 2), at=2899) is Reason.SESSION_FORGOTTEN
    assert refused(shop.one(numbered(A, 3, 1))) is Refusal.SESSION_EXPIRED
    assert shop.do(Put(b"k"), of(B, 1)) is Reason.SESSION_FORGOTTEN
    assert shop.machine.revision == 3
    assert shop.machine.remembered[2] == 0


def test_a_session_that_was_used_by_operations_is_spared(shop: Shop, between: Any) -> None:
    """At the bound the one makes room that was idle longest."""
    shop.one(open_command(B), at=10)
    shop.one(open_command(b"c" * 16), at=20)
    shop.do(Put(b"k"), of(A, 1), at=30)
    between()
    assert shop.one(open_command(b"d" * 16), at=200) is True
    assert shop.do(Put(b"k"), of(B, 1)) is Reason.SESSION_FORGOTTEN
    assert shop.do(Put(b"k"), of(A, 1)) == RepeatedAnswer(2, True, 0)


def test_a_session_expires_within_a_slice(shop: Shop) -> None:
    entries = [
        (len(shop.log) + place, 1, encode_operations([Proposal(b"%016d" % place, *asked)], at))
        for place, (at, asked) in enumerate(
            [(5, (Put(b"k"), None, of(A, 1))), (1005, (Put(b"k"), None, of(A, 1)))], start=1
        )
    ]
    *_, (_, last) = [each for applied in shop.machine.apply(entries) for each in applied.answers]
    assert isinstance(last, EtcdError)
    assert last.reason is Reason.SESSION_FORGOTTEN


@pytest.mark.parametrize("at", [5, 1005])
def test_what_a_slice_did_in_a_session_is_kept_wherever_slices_are_cut(shop: Shop, at: int) -> None:
    """Also where the session expires in the same slice."""
    other = Shop(shop.plain)
    other.do(RaiseLevel(LEVEL_NUMBERED), at=1)
    other.one(open_command(A), at=1)
    entries = [
        (
            len(shop.log) + place,
            1,
            encode_operations([Proposal(b"%016d" % place, Put(b"k"), None, of(A, place))], time_ms),
        )
        for place, time_ms in enumerate([5, at], start=1)
    ]
    shop.machine.apply(entries)
    for entry in entries:
        other.machine.apply([entry])
    assert list(shop.machine._db) == list(other.machine._db)


# --- levels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True])
def test_a_level_is_for_good_and_older_programs_refuse_the_state(plain: bool) -> None:
    shop = Shop(plain)
    shop.one(numbered(A, 1, 1))
    levels = []
    raising = (None, EnableModel(), RaiseLevel(LEVEL_NUMBERED), RaiseLevel(LEVEL_ACCUSES))
    for operation in (*raising, RaiseLevel(LEVEL_NUMBERED), EnableModel()):
        if operation is not None:
            shop.do(operation)
        shop.one(open_command(b"%016d" % len(levels)))  # v1 writes the same record
        levels.append((shop.machine.level, shop.machine._db.get(STATE_KEY)[0]))
        shop.kill()
    accuses = (LEVEL_ACCUSES, 5)
    assert levels == [(0, 2), (LEVEL_MODEL, 3), (LEVEL_NUMBERED, 4), accuses, accuses, accuses]
    shop.machine.flush()
    shop.kill()
    assert shop.machine.level == LEVEL_ACCUSES
    assert shop.machine.model_enabled


def test_a_level_switches_revisions_on_as_well() -> None:
    shop = Shop()
    assert shop.do(Put(b"k")) is Reason.NOT_CAPABLE
    shop.do(RaiseLevel(LEVEL_NUMBERED))
    assert shop.do(Put(b"k")) == PutAnswer(2)


def test_a_level_of_a_newer_program_stops_this_one() -> None:
    shop = Shop()
    newer = encode_operations([Proposal(bytes(16), RaiseLevel(LEVEL_ACCUSES + 1))])
    with pytest.raises(CorruptionError, match="level 4"):
        shop.machine.apply([(1, 1, newer)])


# --- any story ----------------------------------------------------------------------------------

# Requests by number; each puts a key of its own, so that its version tells how often it was done.
story = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 1, 60, 400, 999]), st.lists(st.integers(0, 30), max_size=5)
    ),
    max_size=25,
)


@settings(max_examples=80, deadline=None)
@given(story, st.lists(st.sampled_from(["", "", "", "kill", "flush", "install"]), max_size=25))
def test_no_story_does_anything_twice(
    entries: list[tuple[int, list[int]]], happens: list[str]
) -> None:
    shop = Shop()
    shop.do(RaiseLevel(LEVEL_NUMBERED))
    for session in (A, B):
        shop.one(open_command(session), at=1)
    now, done = 1, {}
    happens += [""] * len(entries)
    for (step, numbers), happening in zip(entries, happens, strict=False):
        now += step
        asked = [
            (
                Txn((), (Put(b"%d" % number), DeleteRange(b"no"))),
                of((A, B)[number % 2], 1 + number // 2, max(number // 2 - 5, 1)),
            )
            for number in numbers
        ]
        for number, answer in zip(numbers, shop.ask(*asked, at=now), strict=True):
            match answer:
                case TxnAnswer(revision):
                    assert number not in done
                    done[number] = revision
                case RepeatedAnswer(revision, succeeded, deleted):
                    assert (done[number], True, 0) == (revision, succeeded, deleted)
                case _:
                    assert answer in (Reason.SEQUENCE_PASSED, Reason.SESSION_FORGOTTEN)
        if happening == "flush":
            shop.machine.flush()
        elif happening == "kill":
            shop.kill()
        elif happening == "install":
            shop.machine.flush()
            shop.install_snapshot()
    for number in range(31):
        found = shop.machine.read_range(Range(b"%d" % number)).kvs
        assert [kv.version for kv in found] == [1] * (number in done)
    shop.machine.close()


def test_a_deletion_counts_what_it_deleted(shop: Shop) -> None:
    shop.do(Put(b"a"))
    assert shop.do(DeleteRange(b"a", b"\0"), of(A, 1)) == DeleteRangeAnswer(3, 1)
