"""Exactly once, as long as it was promised: what the state machine says of retries.

Each story runs on a machine that is killed and opened again, from what was flushed and the entries
after it, or goes on from a checkpoint as a member does that installed a snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, Options
from kvstore.errors import (
    ForgottenError,
    InvalidArgumentError,
    Refusal,
    ResourceExhaustedError,
)
from kvstore.raft import Entry, EntryKind
from kvstore.state import (
    Command,
    CommandResult,
    MemoryBounds,
    SessionBounds,
    StateMachine,
    encode_commands,
    open_command,
    put_command,
    request_digest,
    result_of,
)
from tests.simulator.oracle import Model

OPTIONS = Options(wal=False, background=False)
BOUNDS = MemoryBounds(
    requests=8, sessions=SessionBounds(sessions_max=3, idle_ms=1000, spared_ms=100)
)
A, B, C, D = (bytes([letter]) * 16 for letter in b"abcd")


class House:
    """A machine with its log, which may be killed at any time.

    It applies by the plain or by the native form, after each start by the other one.
    """

    def __init__(self, plain: bool = False) -> None:
        self.plain = plain
        self.disk = MemoryFileSystem()
        self.path = "/state"
        self.log: list[tuple[int, int, bytes]] = []
        self.machine = self._open()

    def _open(self) -> StateMachine:
        database = DB(self.path, options=OPTIONS, filesystem=self.disk)
        return StateMachine(database, memory=BOUNDS, plain=self.plain)

    def apply(self, *commands: Command, at: int = 0) -> Sequence[CommandResult]:
        self.log.append((len(self.log) + 1, 1, encode_commands(commands, at)))
        return [*map(result_of, self.machine.apply(self.log[-1:])[0].results)]

    def one(self, command: Command, at: int = 0) -> CommandResult:
        (result,) = self.apply(command, at=at)
        return result

    def kill(self) -> None:
        """The process dies and starts again: what was not flushed comes back from the log."""
        before = self.fingerprint()
        self.disk = self.disk.crash()
        self.plain = not self.plain
        self.machine = self._open()
        for entry in self.log[self.machine.applied_index :]:
            self.machine.apply([entry])
        assert self.fingerprint() == before

    def install_snapshot(self) -> None:
        """Go on from a checkpoint, as a member that was far behind does."""
        before = self.fingerprint()
        old, self.path = self.path, f"{self.path}+"
        self.machine.checkpoint(self.path)
        self.machine.close()
        self.disk.remove_tree(old)
        self.machine = self._open()
        assert self.fingerprint() == before

    def fingerprint(self) -> tuple[object, ...]:
        machine = self.machine
        return (
            machine.applied_index,
            machine.revision,
            machine.state_hash,
            machine.clock_ms,
            machine._requests.forgotten_ms,
            machine.remembered[0],
            machine.remembered[2],
        )


@pytest.fixture(params=["goes on", "killed", "killed after a flush", "snapshot"])
def between(request, house):
    """What happens between a first try and its retry."""

    def happen() -> None:
        if request.param == "killed after a flush":
            house.machine.flush()
        if request.param.startswith("killed"):
            house.kill()
        if request.param == "snapshot":
            house.install_snapshot()

    return happen


@pytest.fixture(params=[False, True], ids=["native", "plain"])
def house(request) -> House:
    return House(request.param)


def plain(number: int, value: bytes = b"", since: int | None = None) -> Command:
    command = put_command(request_digest(b"%d" % number), b"k", value or b"%d" % number)
    return command._replace(since=since)


def numbered(session: bytes, sequence: int, floor: int, value: bytes = b"v") -> Command:
    return put_command(session, b"k", value, sequence, floor)


def refused(result: CommandResult) -> Refusal | None:
    return result.refusal if isinstance(result, ForgottenError) else None


def test_a_retry_of_a_forgotten_request_is_refused_and_changes_nothing(house, between) -> None:
    """The finding: v2 is acknowledged, and a late retry of v1 must not overwrite it."""
    assert house.one(plain(1, b"v1"), at=100) is False
    assert house.one(plain(2, b"v2"), at=101) is True
    house.apply(*[plain(number) for number in range(10, 18)], at=200)
    house.one(plain(18, b"v2"), at=200)
    between()
    assert refused(house.one(plain(1, b"v1", since=99), at=300)) is Refusal.REQUEST_FORGOTTEN
    assert house.machine.get(b"k") == b"v2"


def test_a_retry_that_is_younger_than_all_that_was_forgotten_is_new(house, between) -> None:
    house.one(plain(1), at=100)
    house.apply(*[plain(number) for number in range(10, 18)], at=200)
    between()
    assert house.machine._requests.forgotten_ms == 100
    assert house.one(plain(2, since=101), at=300) is True
    assert refused(house.one(plain(3, since=200), at=300)) is Refusal.REQUEST_FORGOTTEN


def test_a_remembered_request_gets_its_first_result_whatever_was_forgotten(house, between) -> None:
    house.apply(*[plain(number) for number in range(12)], at=5)
    between()
    assert house.one(plain(11, since=0), at=6) is True
    assert isinstance(house.one(plain(11, b"other", since=0), at=6), InvalidArgumentError)


def test_a_sequence_is_applied_once(house, between) -> None:
    assert house.one(open_command(A), at=1) is True
    assert house.one(numbered(A, 1, 1), at=2) is False
    assert house.one(numbered(A, 3, 1), at=2) is True
    between()
    revision = house.machine.revision
    assert house.one(numbered(A, 1, 1), at=3) is False
    assert isinstance(house.one(numbered(A, 1, 1, b"other"), at=3), InvalidArgumentError)
    assert house.machine.revision == revision
    # Number 2 was on its way for longer.
    assert house.one(numbered(A, 2, 1), at=4) is True
    assert house.machine.revision == revision + 1


def test_a_sequence_below_the_floor_is_refused_however_late(house, between) -> None:
    house.one(open_command(A), at=1)
    house.one(numbered(A, 1, 1, b"v1"), at=2)
    house.one(numbered(A, 2, 2, b"v2"), at=2)
    between()
    assert refused(house.one(numbered(A, 1, 1, b"v1"), at=3)) is Refusal.SEQUENCE_PASSED
    assert house.machine.get(b"k") == b"v2"


def test_two_tries_in_one_entry_are_one_write(house) -> None:
    house.one(open_command(A), at=1)
    assert house.apply(numbered(A, 1, 1), numbered(A, 1, 1), at=2) == [False, False]
    assert house.apply(plain(1), plain(1), at=2) == [True, True]
    assert house.machine.revision == 2


def test_a_session_expires_by_the_logs_clock_alone(house, between) -> None:
    house.one(open_command(A), at=1)
    house.one(numbered(A, 1, 1), at=500)
    between()
    # Its last use counts, not its age.
    assert house.one(numbered(A, 2, 2), at=1499) is True
    between()
    assert refused(house.one(numbered(A, 2, 2), at=2499)) is Refusal.SESSION_EXPIRED
    assert house.machine.remembered[2] == 0
    # The clock doesn't go back for a leader who knows less.
    assert refused(house.one(numbered(A, 3, 2), at=10)) is Refusal.SESSION_EXPIRED
    assert house.machine.clock_ms == 2499


def test_a_session_that_never_was_is_refused(house) -> None:
    assert refused(house.one(numbered(B, 1, 1), at=1)) is Refusal.SESSION_EXPIRED
    assert house.machine.get(b"k") is None


def test_at_the_bound_the_one_that_was_idle_longest_makes_room(house, between) -> None:
    for name, at in ((A, 10), (B, 20), (C, 30)):
        assert house.one(open_command(name), at=at) is True
    between()
    house.one(numbered(A, 1, 1), at=40)
    assert isinstance(house.one(open_command(D), at=119), ResourceExhaustedError)
    between()
    assert house.one(open_command(D), at=120) is True
    assert refused(house.one(numbered(B, 1, 1), at=121)) is Refusal.SESSION_EXPIRED
    assert house.one(numbered(A, 2, 2), at=121) is True


def test_a_sessions_id_is_given_once(house) -> None:
    house.one(open_command(A), at=1)
    house.one(numbered(A, 1, 1), at=2)
    assert house.one(open_command(A), at=3) is False
    assert house.one(numbered(A, 1, 1), at=4) is False
    assert house.machine.revision == 1


def test_a_million_requests_are_remembered_by_default() -> None:
    bounds = MemoryBounds()
    assert bounds.requests >= 1000 * 60 * 15
    assert bounds.sessions.idle_ms == 3_600_000


class AgainstTheModel(RuleBasedStateMachine):
    """Any story of requests, sessions, time, kills and snapshots, beside the simulator's model.

    The model raises Violation where a request is applied twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.house = House()
        self.model = Model(BOUNDS)
        self.now = 1
        self.sent: list[Command] = []
        self.first_sent: dict[Command, int] = {}
        self.sessions: list[bytes] = []
        self.sequences: dict[bytes, int] = {}
        self.floors: dict[bytes, int] = {}

    def put(self, *commands: Command) -> None:
        index = len(self.house.log) + 1
        results = self.house.apply(*commands, at=self.now)
        before = self.model.revisions[-1]
        self.model.apply(Entry(1, index, EntryKind.COMMAND, self.house.log[-1][2]))
        assert self.house.machine.revision == self.model.revisions[-1]
        assert self.model.revisions[-1] - before <= sum(isinstance(r, bool) for r in results)

    @rule(step=st.sampled_from([0, 1, 60, 99, 500, 999]))
    def time_passes(self, step: int) -> None:
        self.now += step

    @rule(count=st.integers(1, 12))
    def plain_writes(self, count: int) -> None:
        commands = [plain(len(self.first_sent) + n) for n in range(count)]
        for command in commands:
            self.first_sent[command] = self.now
        self.sent += commands
        self.put(*commands)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        command = data.draw(st.sampled_from(self.sent[-30:]))
        if not command.sequence:
            command = command._replace(since=self.first_sent[command])
        self.put(command)

    @rule()
    def open(self) -> None:
        name = len(self.house.log).to_bytes(16, "big")
        self.put(open_command(name))
        self.sessions.append(name)
        self.sequences[name], self.floors[name] = 0, 1

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), late=st.integers(0, 5), skip=st.integers(0, 3), count=st.integers(1, 4))
    def session_writes(self, data: st.DataObject, late: int, skip: int, count: int) -> None:
        name = data.draw(st.sampled_from(self.sessions[-4:]))
        commands = []
        for _ in range(count):
            sequence = self.sequences[name] = self.sequences[name] + 1 + skip
            floor = self.floors[name] = max(self.floors[name], sequence - late)
            commands.append(numbered(name, sequence, floor, b"%d" % sequence))
        self.sent += commands
        self.put(*commands)

    @rule(flush=st.booleans())
    def kill(self, flush: bool) -> None:
        if flush:
            self.house.machine.flush()
        self.house.kill()

    @precondition(lambda self: self.house.log)
    @rule()
    def install_snapshot(self) -> None:
        self.house.install_snapshot()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        self.model.compare("the machine", self.house.machine)

    def teardown(self) -> None:
        self.house.machine.close()


AgainstTheModel.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestAgainstTheModel = AgainstTheModel.TestCase
