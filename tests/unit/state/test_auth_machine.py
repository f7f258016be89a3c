"""Users in a whole state machine, its two forms, its restarts and its copies."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, Options
from kvstore.errors import UnavailableError
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state import (
    USERS_CHANGED,
    CommandResult,
    StateMachine,
    encode_commands,
    open_command,
    put_command,
    request_digest,
    result_of,
)
from kvstore.state.mvcc.operations import encode_operations
from kvstore.state.mvcc.requests import (
    LEVEL_NUMBERED,
    SERVER,
    AuthDisable,
    AuthEnable,
    Authenticated,
    Operation,
    Permission,
    PermissionKind,
    Proposal,
    Put,
    RaiseLevel,
    RoleAdd,
    RoleGrantPermission,
    Txn,
    UserAdd,
    UserGrantRole,
)

OPTIONS = Options(wal=False, background=False)
WITH_USERS: list[Operation] = [
    RaiseLevel(LEVEL_NUMBERED),
    UserAdd("root", b"hash"),
    UserGrantRole("root", "root"),
    UserAdd("alice", b""),
    RoleAdd("r"),
    RoleGrantPermission("r", Permission(PermissionKind.READWRITE, b"a", b"c")),
    UserGrantRole("alice", "r"),
    AuthEnable(b"k" * 32),
]
REVISION = 1 + len(WITH_USERS) - 2


class Story:
    """A machine, and the entries that it gets."""

    def __init__(self, plain: bool) -> None:
        self.plain = plain
        self.disk = MemoryFileSystem()
        self.index = 0
        self.open()

    def open(self) -> None:
        db = DB("/state", options=OPTIONS, filesystem=self.disk)
        self.machine = StateMachine(db, plain=self.plain)

    def restart(self) -> None:
        self.machine.flush()
        self.machine.close()
        self.open()

    def entry(self, data: bytes) -> tuple[int, int, bytes]:
        self.index += 1
        return self.index, 1, data

    def ask(
        self, operations: Sequence[Operation], who: Authenticated | None = SERVER
    ) -> list[object]:
        proposals = [
            Proposal(b"%08d%08d" % (self.index, place), operation, who)
            for place, operation in enumerate(operations)
        ]
        (applied,) = self.machine.apply([self.entry(encode_operations(proposals))])
        return [
            answer.reason if isinstance(answer, EtcdError) else None
            for _, answer in applied.answers
        ]

    def write(self, request: bytes, guard: int, value: bytes = b"v") -> CommandResult:
        command = put_command(request_digest(request), b"k", value)
        (applied,) = self.machine.apply([self.entry(encode_commands([command], 5, guard))])
        return result_of(applied.results[0])


@pytest.fixture(params=[False, True], ids=["native", "plain"])
def story(request: pytest.FixtureRequest) -> Story:
    return Story(request.param)


def is_refused(result: CommandResult) -> bool:
    return isinstance(result, UnavailableError) and str(result) == USERS_CHANGED


def test_v1_writes_only_as_of_the_users_it_was_let_in(story: Story) -> None:
    assert story.write(b"1", 0) is False
    assert story.ask(WITH_USERS) == [None] * len(WITH_USERS)
    assert (story.machine.auth.revision, story.machine.guard) == (REVISION, REVISION)
    revision = story.machine.revision
    for guard in (0, REVISION - 1, REVISION + 1):
        assert is_refused(story.write(b"2", guard))
    assert story.machine.revision == revision
    assert story.write(b"2", REVISION) is True, "it wasn't remembered as refused"
    assert story.write(b"2", REVISION) is True
    assert is_refused(story.write(b"1", 0)), "not even what it came to before"
    story.ask([UserAdd("bob", b"")])
    assert is_refused(story.write(b"3", REVISION))
    assert story.write(b"3", REVISION + 1) is True
    story.ask([AuthDisable()])
    assert story.machine.guard == 0
    assert story.write(b"4", 0) is True
    assert story.write(b"5", REVISION) is True, "nobody is asked for any more"


def test_a_session_that_was_not_let_in_is_not_opened(story: Story) -> None:
    story.ask(WITH_USERS)
    name = b"s" * 16
    numbered = put_command(name, b"k", b"v", 1, 1)
    for guard, taken in ((0, False), (REVISION, True)):
        data = encode_commands([open_command(name), numbered], 5, guard)
        (applied,) = story.machine.apply([story.entry(data)])
        results = [*map(result_of, applied.results)]
        assert (results == [True, False]) is taken, results
        assert all(map(is_refused, results)) is not taken
        assert story.machine.remembered[2] == taken


def test_single_keys_are_no_way_around_users(story: Story) -> None:
    """Where nothing is out of the ordinary they are evaluated natively."""
    story.ask(WITH_USERS)
    put = Put(b"z", b"v")
    alice = Authenticated("alice", REVISION)
    for operation in (put, Txn(success=(put,))):
        assert story.ask([operation], None) == [Reason.USER_EMPTY]
        assert story.ask([operation], alice) == [Reason.PERMISSION_DENIED]
    assert story.ask([Put(b"b", b"v")], alice) == [None]
    story.ask([AuthDisable()])
    assert story.ask([put], None) == [None]


def test_users_survive_a_restart_and_a_checkpoint(story: Story) -> None:
    story.ask(WITH_USERS)
    before = story.machine
    story.restart()
    after = story.machine
    assert after is not before
    assert after.auth.record == before.auth.record
    assert (after.auth.users, after.auth.roles) == (before.auth.users, before.auth.roles)
    assert (after.guard, after.state_hash) == (before.guard, before.state_hash)
    assert is_refused(story.write(b"1", 0))
    assert story.ask([Put(b"b")], Authenticated("alice", REVISION)) == [None]
    assert story.ask([Put(b"z")], Authenticated("alice", REVISION)) == [Reason.PERMISSION_DENIED]
    story.machine.flush()
    story.machine.checkpoint("/copy")
    copy = StateMachine(DB("/copy", options=OPTIONS, filesystem=story.disk), plain=not story.plain)
    assert copy.auth.record == story.machine.auth.record
    assert copy.guard == REVISION
    copy.close()


def test_members_agree_wherever_their_slices_end() -> None:
    """On the bytes of the engine, with users that change between the entries of a slice."""
    stories = [Story(plain=False), Story(plain=True)]
    entries = []
    alice = [Authenticated("alice", REVISION + late) for late in (0, 0, 1)]
    batches: list[list[Proposal]] = [
        [Proposal(b"%016d" % place, each, SERVER) for place, each in enumerate(WITH_USERS)],
        [
            Proposal(b"a" * 16, Put(b"a"), alice[0]),
            Proposal(b"b" * 16, UserAdd("bob", b""), SERVER),
        ],
        [Proposal(b"c" * 16, Put(b"a"), alice[1]), Proposal(b"d" * 16, Put(b"b"), alice[2])],
        [Proposal(b"e" * 16, AuthDisable(), SERVER), Proposal(b"f" * 16, Put(b"z"))],
    ]
    for index, batch in enumerate(batches, 1):
        entries.append((index, 1, encode_operations(batch)))
    together, apart = stories
    answers = together.machine.apply(entries)
    singly = [answer for entry in entries for answer in apart.machine.apply([entry])]
    assert repr(answers) == repr(singly)
    assert together.machine.state_hash == apart.machine.state_hash
    assert list(together.machine._db) == list(apart.machine._db)
    reasons = [
        answer.reason
        for one in answers
        for _, answer in one.answers
        if isinstance(answer, EtcdError)
    ]
    assert reasons == [Reason.AUTH_OLD_REVISION]
