"""What an alarm refuses of v1's commands, in both forms of what applies them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, Options
from kvstore.errors import CorruptionError, IntegrityCode, NoSpaceError, Outcome
from kvstore.state import (
    Command,
    CommandResult,
    StateMachine,
    delete_command,
    encode_commands,
    open_command,
    put_command,
    request_digest,
    result_of,
)
from kvstore.state.mvcc.alarms import Refused
from kvstore.state.mvcc.operations import encode_operations
from kvstore.state.mvcc.requests import Alarm, AlarmAction, AlarmKind, EnableModel, Proposal
from kvstore.state.results import code_of, refused_by_alarm

OPTIONS = Options(wal=False, background=False)
SESSION = b"s" * 16


def put(number: int, key: bytes = b"k", value: bytes = b"v") -> Command:
    return put_command(request_digest(b"put %d" % number), key, value)


def delete(number: int, key: bytes = b"k") -> Command:
    return delete_command(request_digest(b"delete %d" % number), key)


class Store:
    """A machine of the model, an entry at a time."""

    def __init__(self, plain: bool) -> None:
        self.plain = plain
        self.disk = MemoryFileSystem()
        self.index = 0
        self.open()
        self.operate(EnableModel())

    def open(self) -> None:
        db = DB("/state", options=OPTIONS, filesystem=self.disk)
        self.machine = StateMachine(db, plain=self.plain)

    def reopen(self) -> None:
        self.machine.flush()
        self.machine.close()
        self.open()

    def _apply(self, data: bytes) -> bytes:
        self.index += 1
        (applied,) = self.machine.apply([(self.index, 1, data)])
        return applied.results

    def operate(self, operation: Alarm | EnableModel) -> None:
        self._apply(encode_operations([Proposal(b"%016d" % self.index, operation)]))

    def alarm(self, action: AlarmAction, kind: AlarmKind, member: int = 1) -> None:
        self.operate(Alarm(action, member, kind))

    def do(self, *commands: Command) -> Sequence[CommandResult]:
        return [result_of(code) for code in self._apply(encode_commands(commands, 1))]


@pytest.fixture(params=[False, True], ids=["native", "plain"])
def store(request: pytest.FixtureRequest) -> Store:
    return Store(request.param)


def test_a_full_store_refuses_puts_and_lets_all_else_go_on(store: Store) -> None:
    assert store.do(put(1)) == [False]
    store.alarm(AlarmAction.ACTIVATE, AlarmKind.NOSPACE)
    before = store.machine.revision
    refused, deleted, opened = store.do(put(2, b"other"), delete(1), open_command(SESSION))
    assert isinstance(refused, NoSpaceError)
    assert deleted is True
    assert not isinstance(opened, Exception)
    assert store.machine.revision == before + 1, "that of the delete"
    assert store.machine.get(b"other") is None


def test_what_was_refused_is_done_when_it_comes_again_after_the_alarm(store: Store) -> None:
    store.alarm(AlarmAction.ACTIVATE, AlarmKind.NOSPACE)
    in_session = put_command(SESSION, b"s", b"v", 1, 1)
    store.do(open_command(SESSION))
    assert all(isinstance(result, NoSpaceError) for result in store.do(put(1), in_session))
    store.alarm(AlarmAction.DEACTIVATE, AlarmKind.NOSPACE)
    assert store.do(put(1), in_session) == [False, False]
    assert store.machine.get(b"k") == store.machine.get(b"s") == b"v"


def test_what_was_done_before_keeps_its_result_during_the_alarm(store: Store) -> None:
    store.do(open_command(SESSION))
    writes = put(1), put_command(SESSION, b"s", b"v", 1, 1), delete(1, b"absent")
    assert store.do(*writes) == [False, False, False]
    for kind in (AlarmKind.NOSPACE, AlarmKind.CORRUPT):
        store.alarm(AlarmAction.ACTIVATE, kind)
        assert store.do(*writes) == [False, False, False]


def test_a_corrupt_cluster_writes_nothing(store: Store) -> None:
    store.do(put(1))
    store.alarm(AlarmAction.ACTIVATE, AlarmKind.NOSPACE)
    store.alarm(AlarmAction.ACTIVATE, AlarmKind.CORRUPT)
    results = store.do(put(2), delete(2))
    for result in results:
        assert isinstance(result, CorruptionError)
        assert result.code is IntegrityCode.CHECKSUM_MISMATCH
        assert result.outcome is Outcome.NOT_APPLIED
    assert store.machine.get(b"k") == b"v"
    store.alarm(AlarmAction.DEACTIVATE, AlarmKind.CORRUPT)
    refused, deleted = store.do(put(2), delete(2))
    assert isinstance(refused, NoSpaceError), "that alarm stands as well"
    assert deleted is True


def test_an_alarm_stands_until_each_member_s_has_ended_and_over_a_restart(store: Store) -> None:
    store.alarm(AlarmAction.ACTIVATE, AlarmKind.NOSPACE, member=1)
    store.alarm(AlarmAction.ACTIVATE, AlarmKind.NOSPACE, member=2)
    store.alarm(AlarmAction.DEACTIVATE, AlarmKind.NOSPACE, member=1)
    store.reopen()
    assert isinstance(store.do(put(1))[0], NoSpaceError)
    store.alarm(AlarmAction.DEACTIVATE, AlarmKind.NOSPACE, member=2)
    store.reopen()
    assert store.do(put(1)) == [False]


@pytest.mark.parametrize("refused", [Refused.PUTS, Refused.WRITES])
def test_the_byte_of_a_refusal_means_it(refused: Refused) -> None:
    error = refused_by_alarm(refused)
    again = result_of(code_of(error))
    assert (type(again), str(again)) == (type(error), str(error))
