"""The rules of a request, with a member whose answers the test gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from kvstore.errors import (
    CorruptionError,
    DeadlineExceededError,
    Error,
    IntegrityCode,
    InvalidArgumentError,
    NotLeaderError,
    OutcomeUnknownError,
    ResourceExhaustedError,
    StorageError,
    UnavailableError,
)
from kvstore.service import (
    Delete,
    Get,
    KVService,
    Limits,
    Method,
    OpenSession,
    Operation,
    Put,
    Result,
)
from kvstore.service.limits import DELAY_S
from kvstore.service.pace import GATHER_MAX_S, GATHER_S, PATIENCE_S, UNDER_WAY_MAX
from kvstore.state import (
    COLD,
    Cold,
    Command,
    CommandKind,
    CommandResult,
    code_of,
    decode_commands,
    decode_guard,
    decode_time,
    request_digest,
)


class ScriptedMember:
    """A replica that keeps what it is asked, for the test to answer."""

    def __init__(self) -> None:
        self.entries: list[list[Command]] = []
        self.proposals: list[Callable[[bytes | Error], None]] = []
        self.reads: list[Callable[[Error | None], None]] = []
        self.values: dict[bytes, bytes] = {}
        self.answers: dict[bytes, CommandResult] = {}
        self.damage: CorruptionError | None = None
        self.log_time = 7_000_000
        self.times: list[int] = []
        self.write_delay_s = 0.0
        self.guard = 0
        self.guards: list[int] = []
        self.ages: list[int] = []
        self.cold: set[bytes] = set()
        """Keys of which only the disk knows."""

    @property
    def machine(self) -> ScriptedMember:
        return self

    @property
    def applying(self) -> object:
        return None

    def propose(self, data: bytes, done: Callable[[bytes | Error], None]) -> None:
        self.entries.append(decode_commands(data))
        self.times.append(decode_time(data))
        self.guards.append(decode_guard(data))
        self.proposals.append(done)

    def read(self, done: Callable[[Error | None], None]) -> None:
        self.reads.append(done)

    def reads_take(self, ticks: int) -> None:
        self.ages.append(ticks)

    def read_failed(self, error: StorageError) -> Error:
        assert error is self.damage
        return UnavailableError("damaged here", code=error.code)

    def get(self, key: bytes) -> bytes | None:
        if self.damage is not None:
            raise self.damage
        return self.values.get(key)

    def get_cached(self, key: bytes) -> bytes | Cold | None:
        return COLD if key in self.cold else self.get(key)

    def first_result(
        self, request: bytes, fingerprint: bytes, sequence: int = 0
    ) -> CommandResult | None:
        return self.answers.get(fingerprint)

    def log_time_ms(self) -> int:
        return self.log_time


LIMITS = Limits()


class House:
    """A service whose clock and turns the test moves."""

    def __init__(self, plain: bool = False, limits: Limits | None = None) -> None:
        self.member = ScriptedMember()
        self.route: ScriptedMember | Error = self.member
        self.seconds = 1000.0
        self.soon: list[Callable[[], None]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.service = KVService(
            lambda: self.route,
            now=lambda: self.seconds,
            soon=self.soon.append,
            later=lambda delay, call: self.timers.append((self.seconds + delay, call)),
            limits=limits,
            plain=plain,
        )

    def submit(self, *operations: Operation, timeout: float = 10.0) -> list[Result]:
        """Return a list that fills when the call is done."""
        results: list[Result] = []
        self.service.submit(operations, self.seconds + timeout, results.extend)
        return results

    def batch(self, *calls: Call) -> None:
        """What a front of batches brings; its answers are of no interest."""
        self.service.take(calls, lambda calls, results: None)

    def turn(self) -> None:
        calls, self.soon[:] = list(self.soon), []
        for call in calls:
            call()

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        due = [call for at, call in self.timers if at <= self.seconds]
        self.timers = [(at, call) for at, call in self.timers if at > self.seconds]
        for call in due:
            call()
        self.turn()


@pytest.fixture(params=[False, True], ids=["native", "plain"])
def house(request: pytest.FixtureRequest) -> House:
    return House(request.param)


def put(n: int = 1, value: bytes = b"v") -> Put:
    return Put(b"key", value, b"id-%d" % n)


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (Put(b"", b"v", b"i"), "key is empty; expected 1 to 1024 bytes"),
        (Put(b"k" * 1025, b"v", b"i"), "key has 1025 bytes; expected 1 to 1024 bytes"),
        (Get(b""), "key is empty; expected 1 to 1024 bytes"),
        (Delete(b"", b"i"), "key is empty; expected 1 to 1024 bytes"),
        (Put(b"k", b"v" * 1048577, b"i"), "value has 1048577 bytes; expected 0 to 1048576 bytes"),
        (Put(b"k", b"v", b""), "request_id is empty; expected 1 to 4096 bytes"),
        (Delete(b"k", b"i" * 4097), "request_id has 4097 bytes; expected 1 to 4096 bytes"),
    ],
)
def test_what_breaks_a_limit_is_refused_and_never_proposed(
    house: House, operation: Operation, words: str
) -> None:
    house.route = UnavailableError("no leader")  # bad input is bad, leader or not
    (result,) = house.submit(operation)
    assert isinstance(result, InvalidArgumentError)
    assert str(result) == words
    house.turn()
    assert house.member.entries == []


@pytest.mark.parametrize(
    "operation", [Put(b"k" * 1024, b"v" * 1048576, b"i" * 4096), Put(b"k", b"", b"i")]
)
def test_what_just_keeps_the_limits_is_taken(house: House, operation: Operation) -> None:
    house.submit(operation)
    house.turn()
    assert len(house.member.entries) == 1


def test_the_writes_of_a_turn_are_one_entry(house: House) -> None:
    calls = [house.submit(put(n)) for n in range(5)]
    house.turn()
    (entry,) = house.member.entries
    assert len(entry) == 5
    house.member.proposals[0](bytes([False, True, True, True, True]))
    assert calls == [[False], [True], [True], [True], [True]]


def test_a_large_turn_is_cut_into_several_entries(house: House) -> None:
    for n in range(LIMITS.entry_commands_max + 1):
        house.submit(put(n))
    for n in range(3):
        house.submit(Put(b"big", b"v" * 700_000, b"big-%d" % n))
    house.turn()
    sizes = [LIMITS.entry_commands_max, 2, 1, 1]
    assert [len(entry) for entry in house.member.entries] == sizes[:UNDER_WAY_MAX], "and no more"
    for n, size in enumerate(sizes):
        house.member.proposals[n](bytes(size))
        house.wait(GATHER_MAX_S)
    assert [len(entry) for entry in house.member.entries] == sizes


def test_the_reads_of_a_turn_share_one_read_point(house: House) -> None:
    house.member.values = {b"a": b"1"}
    calls = [house.submit(Get(b"a")), house.submit(Get(b"b"))]
    house.turn()
    assert calls == [[], []]
    (confirmed,) = house.member.reads
    confirmed(None)
    assert calls == [[b"1"], [None]]


def test_writes_wait_for_room_and_then_share_an_entry(house: House) -> None:
    for n in range(UNDER_WAY_MAX + 3):
        house.submit(put(n))
        house.wait(GATHER_S)
    assert [len(entry) for entry in house.member.entries] == [1] * UNDER_WAY_MAX
    house.member.proposals[0](bytes([False]))
    house.turn()
    assert [len(entry) for entry in house.member.entries] == [1] * UNDER_WAY_MAX + [3]


def test_a_write_alone_never_waits_for_company(house: House) -> None:
    for n in range(3):
        house.submit(put(n))
        house.turn()
        assert len(house.member.entries) == n + 1
        house.member.proposals[n](bytes([False]))


def test_writes_in_a_crowd_gather_for_a_while(house: House) -> None:
    house.submit(put(0))
    house.turn()
    house.submit(put(1))  # meets the first one
    house.turn()
    house.submit(put(2))
    house.turn()
    assert [len(entry) for entry in house.member.entries] == [1]
    house.wait(GATHER_S)
    assert [len(entry) for entry in house.member.entries] == [1, 2]


def test_entries_are_further_apart_with_many_writes_under_way(house: House) -> None:
    house.submit(*map(put, range(100)))
    house.wait(GATHER_S)
    house.submit(put(100))
    house.wait(GATHER_S)
    assert [len(entry) for entry in house.member.entries] == [100]
    house.wait(GATHER_MAX_S)
    assert [len(entry) for entry in house.member.entries] == [100, 1]


def test_a_read_that_meets_another_one_gathers_for_a_while(house: House) -> None:
    house.submit(Get(b"a"))
    house.turn()
    house.submit(Get(b"a"))
    house.turn()
    assert len(house.member.reads) == 1
    house.wait(GATHER_S)
    assert len(house.member.reads) == 2


def test_reads_wait_for_room_and_then_share_a_read_point_asked_after_they_came(
    house: House,
) -> None:
    calls = []
    for _ in range(UNDER_WAY_MAX + 3):
        calls.append(house.submit(Get(b"a")))
        house.wait(GATHER_S)
    assert len(house.member.reads) == UNDER_WAY_MAX
    house.member.reads[0](None)
    house.wait(GATHER_S)
    assert len(house.member.reads) == UNDER_WAY_MAX + 1
    house.member.reads[-1](None)
    answered = [bool(call) for call in calls]
    assert answered == [True] + [False] * (UNDER_WAY_MAX - 1) + [True] * 3


def test_a_read_alone_never_waits_for_company(house: House) -> None:
    for n in range(3):
        house.submit(Get(b"a"))
        house.turn()
        assert len(house.member.reads) == n + 1
        house.member.reads[n](None)


def test_reads_in_a_crowd_gather_for_a_while(house: House) -> None:
    house.submit(Get(b"a"))
    house.submit(Get(b"b"))
    house.wait(GATHER_S)
    assert len(house.member.reads) == 1
    house.submit(Get(b"a"))
    house.turn()
    assert len(house.member.reads) == 1
    house.wait(GATHER_S)
    assert len(house.member.reads) == 2


def test_a_new_leader_has_room_although_the_old_one_never_answered(house: House) -> None:
    for n in range(UNDER_WAY_MAX + 1):
        house.submit(put(n))
        house.wait(GATHER_S)
    old, house.member = house.member, ScriptedMember()
    house.route = house.member
    house.service.expire()
    house.turn()
    assert [len(entry) for entry in house.member.entries] == [1]
    # What the old one says late makes no room at the new one.
    for done in old.proposals:
        done(OutcomeUnknownError("leadership was lost"))
    for n in range(10, 10 + UNDER_WAY_MAX):
        house.submit(put(n))
        house.wait(GATHER_S)
    assert len(house.member.entries) == UNDER_WAY_MAX


def test_a_retry_is_proposed_to_a_new_leader_while_the_old_one_is_silent(house: House) -> None:
    first = house.submit(put())
    house.turn()
    old, house.member = house.member, ScriptedMember()
    house.route = house.member
    retry = house.submit(put())
    house.turn()
    assert house.member.entries == old.entries
    house.member.proposals[0](bytes([True]))
    assert retry == [True]
    assert first == []
    old.proposals[0](OutcomeUnknownError("leadership was lost"))
    assert isinstance(first[0], OutcomeUnknownError)


def test_what_waits_for_room_is_refused_when_the_leader_is_gone(house: House) -> None:
    for n in range(UNDER_WAY_MAX):
        house.submit(put(n))
        house.wait(GATHER_S)
    call = house.submit(put(99))
    house.wait(GATHER_S)
    house.route = UnavailableError("no leader")
    house.service.expire()
    house.wait(GATHER_S)
    assert call == [house.route]


def test_a_call_of_several_operations_is_done_when_the_last_one_is(house: House) -> None:
    house.member.values = {b"a": b"1"}
    call = house.submit(Get(b"a"), put(), Get(b""))
    house.turn()
    house.member.reads[0](None)
    assert call == []
    house.member.proposals[0](bytes([True]))
    assert call[:2] == [b"1", True]
    assert isinstance(call[2], InvalidArgumentError)


def test_an_empty_call_is_done_at_once(house: House) -> None:
    done: list[Sequence[Result]] = []
    house.service.submit((), house.seconds + 1, done.append)
    assert done == [()]


@pytest.mark.parametrize("error", [UnavailableError("no leader"), NotLeaderError(3, "h:1")])
def test_without_a_leader_here_nothing_is_proposed(house: House, error: Error) -> None:
    house.route = error
    assert house.submit(put()) == [error]
    assert house.submit(Get(b"a")) == [error]


def test_a_leader_lost_within_the_turn_is_noticed(house: House) -> None:
    calls = [house.submit(put()), house.submit(Get(b"a"))]
    house.route = UnavailableError("no leader")
    house.turn()
    assert calls == [[house.route], [house.route]]
    assert house.member.entries == []


def test_an_entry_that_is_lost_fails_all_its_writes(house: House) -> None:
    calls = [house.submit(put(n)) for n in range(2)]
    house.turn()
    lost = OutcomeUnknownError("leadership was lost")
    house.member.proposals[0](lost)
    assert calls == [[lost], [lost]]


def test_a_read_that_cannot_be_confirmed_fails(house: House) -> None:
    call = house.submit(Get(b"a"))
    house.turn()
    refusal = UnavailableError("no majority")
    house.member.reads[0](refusal)
    assert call == [refusal]


def test_a_read_that_finds_damage_is_answered_as_the_member_says(house: House) -> None:
    house.member.damage = CorruptionError("block")
    call = house.submit(Get(b"a"))
    house.turn()
    house.member.reads[0](None)
    assert isinstance(call[0], UnavailableError)
    assert call[0].code is IntegrityCode.IO_ERROR


def test_a_request_done_before_is_answered_from_memory(house: House) -> None:
    first = house.submit(put())
    house.turn()
    house.member.answers[house.member.entries[0][0].fingerprint] = False
    house.member.proposals[0](bytes([False]))
    assert house.submit(put()) == first == [False]
    house.turn()
    assert len(house.member.entries) == 1


def test_a_retry_joins_its_first_try_while_that_is_under_way(house: House) -> None:
    first = house.submit(put())
    house.turn()
    retry = house.submit(put())
    house.turn()
    assert len(house.member.entries) == 1
    house.member.proposals[0](bytes([True]))
    assert first == retry == [True]
    house.submit(put())
    house.turn()
    assert len(house.member.entries) == 2


def test_an_id_under_way_for_another_value_is_left_to_the_log(house: House) -> None:
    house.submit(put(value=b"one"))
    house.submit(put(value=b"two"))
    house.turn()
    assert [command.value for command in house.member.entries[0]] == [b"one", b"two"]


def test_a_call_expires_at_its_deadline_and_no_later_result_counts(house: House) -> None:
    call = house.submit(put(), timeout=2.0)
    house.turn()
    house.seconds += 1.9
    house.service.expire()
    assert call == []
    house.seconds += 0.2
    house.service.expire()
    assert isinstance(call[0], DeadlineExceededError)
    house.member.proposals[0](bytes([True]))
    assert len(call) == 1


def test_results_that_came_in_time_are_kept_when_the_rest_expires(house: House) -> None:
    house.member.values = {b"a": b"1"}
    call = house.submit(Get(b"a"), put(), timeout=1.0)
    house.turn()
    house.member.reads[0](None)
    house.seconds += 1.2
    house.service.expire()
    assert call[0] == b"1"
    assert isinstance(call[1], DeadlineExceededError)


def test_a_deadline_in_the_past_proposes_nothing(house: House) -> None:
    (result,) = house.submit(put(), timeout=-1.0)
    assert isinstance(result, DeadlineExceededError)
    house.turn()
    assert house.member.entries == []


def test_calls_that_wait_are_bounded_and_finished_ones_make_room(house: House) -> None:
    for n in range(LIMITS.calls_max):
        house.submit(put(n))
    assert isinstance(house.submit(put(LIMITS.calls_max))[0], UnavailableError)
    house.turn()
    house.member.proposals[0](bytes([True] * len(house.member.entries[0])))
    assert house.submit(put(LIMITS.calls_max + 1)) == []


@pytest.mark.parametrize("plain", [False, True])
def test_what_waiting_writes_weigh_is_bounded(plain: bool) -> None:
    assert LIMITS.gathered_bytes_max == 64 << 20, "as docs/wire-protocol.md says"
    house = House(plain, Limits(gathered_bytes_max=3000))
    heavy = [Put(b"key", bytes(1000), b"%d" % n) for n in range(4)]
    for put_of_a_kilobyte in heavy[:3]:
        assert house.submit(put_of_a_kilobyte) == []
    assert isinstance(house.submit(heavy[3])[0], UnavailableError)
    house.turn()
    assert house.submit(heavy[3]) == [], "what is proposed waits elsewhere"


SESSION = b"0123456789abcdef" * 2
NAME = bytes.fromhex(SESSION.decode())


def numbered(sequence: int, floor: int, value: bytes = b"v") -> Put:
    return Put(b"key", value, b"kvs1/%s/%d/%d" % (SESSION, sequence, floor))


def test_an_entry_has_the_time_of_the_leaders_log(house: House) -> None:
    house.submit(put(1))
    house.turn()
    assert house.member.times == [7_000_000]


def test_a_sessions_id_becomes_session_sequence_and_floor(house: House) -> None:
    house.submit(numbered(7, 3))
    house.submit(Delete(b"key", b"kvs1/%s/8/8" % SESSION))
    house.turn()
    (entry,) = house.member.entries
    assert [(c.request, c.sequence, c.floor) for c in entry] == [(NAME, 7, 3), (NAME, 8, 8)]


@pytest.mark.parametrize(
    "request_id",
    [
        b"kvs1/",
        b"kvs1/%s/1" % SESSION,
        b"kvs1/%s/0/0" % SESSION,
        b"kvs1/%s/01/1" % SESSION,
        b"kvs1/%s/1/1/" % SESSION,
        b"kvs1/%s/1/1" % SESSION.upper(),
        b"kvs1/%s/1/1\n" % SESSION,
        b"kvs2/%s/1/1" % SESSION,
        b"kvs1/%s/99999999999999999999/1" % SESSION,
    ],
)
def test_an_id_that_only_looks_like_a_sessions_is_a_plain_one(
    house: House, request_id: bytes
) -> None:
    house.submit(Put(b"key", b"v", request_id))
    house.turn()
    ((command,),) = house.member.entries
    assert (command.request, command.sequence) == (request_digest(request_id), 0)


@pytest.mark.parametrize(
    ("sequence", "floor"),
    [(1, 2), (257, 1), (9_999_999_999_999_999_999, 9_999_999_999_999_999_999)],
)
def test_a_sequence_outside_its_window_is_refused(house: House, sequence: int, floor: int) -> None:
    (result,) = house.submit(numbered(sequence, floor))
    assert isinstance(result, InvalidArgumentError)
    assert "expected the floor to 255 above it" in str(result)


def test_tries_of_one_sequence_are_one_command_whatever_their_floors(house: House) -> None:
    first, second = house.submit(numbered(5, 1)), house.submit(numbered(5, 4))
    other = house.submit(numbered(6, 4))
    house.turn()
    ((one, two),) = house.member.entries
    assert (one.sequence, two.sequence) == (5, 6)
    house.member.proposals[0](bytes([False, True]))
    assert (first, second, other) == ([False], [False], [True])


def test_a_retry_is_proposed_with_the_time_before_which_it_was_not_applied(house: House) -> None:
    """Its age, what it took to come here, and what it waited here are all taken off."""
    for n in range(3):  # no room for one more entry
        house.submit(put(n))
        house.turn()
    house.submit(Put(b"key", b"v", b"again", age_s=2.0))
    house.submit(numbered(5, 1)._replace(age_s=2.0))
    house.seconds += 0.5
    house.member.log_time = 7_000_500
    house.member.proposals[0](bytes([False]))
    house.wait(GATHER_MAX_S)
    commands = {command.sequence: command for command in house.member.entries[-1]}
    assert commands[0].since is not None
    late = 2 + DELAY_S + 0.5 + GATHER_MAX_S
    assert 0 <= 7_000_500 - late * 1000 - commands[0].since <= 2
    assert commands[5].since is None


def test_a_retry_of_unknown_age_is_older_than_anything(house: House) -> None:
    house.submit(Put(b"key", b"v", b"again", age_s=1e12))
    house.turn()
    assert house.member.entries[0][0].since == 0


def test_a_session_has_an_id_that_the_leader_drew(house: House) -> None:
    drawn = [house.submit(OpenSession()) for _ in range(2)]
    house.turn()
    (commands,) = house.member.entries
    assert [command.kind for command in commands] == [CommandKind.OPEN_SESSION] * 2
    assert commands[0].request != commands[1].request
    house.member.proposals[0](bytes([True, code_of(ResourceExhaustedError("full"))]))
    assert drawn[0] == [commands[0].request.hex().encode()]
    assert isinstance(drawn[1][0], ResourceExhaustedError)


def test_a_session_is_not_opened_where_nobody_leads(house: House) -> None:
    house.route = NotLeaderError(3)
    (result,) = house.submit(OpenSession())
    assert isinstance(result, NotLeaderError)


def test_entries_are_held_back_while_compactions_dont_keep_up(house: House) -> None:
    house.member.write_delay_s = 1.0
    house.submit(put(1))
    house.submit(put(2))
    house.turn()
    assert len(house.member.entries) == 1
    house.submit(put(3))
    house.submit(put(4))
    house.wait(GATHER_MAX_S)
    assert len(house.member.entries) == 1
    house.wait(1.0)
    assert len(house.member.entries) == 2


@dataclass
class Call:
    """What a front of batches hands over."""

    method: int
    key: bytes = b"key"
    value: bytes = b"v"
    request_id: bytes = b"id"
    deadline: float = 1010.0
    age_s: float | None = None


def test_a_batch_of_a_front_is_handed_back_in_batches(house: House) -> None:
    house.member.values = {b"a": b"1"}
    puts = [Call(Method.PUT, b"k%d" % n, request_id=b"%d" % n) for n in range(3)]
    gets = [Call(Method.GET, b"a"), Call(Method.GET, b"none")]
    wrong = Call(Method.DELETE, b"")
    back: list[tuple[list[Call], list[Result]]] = []
    house.service.take(
        [*puts, *gets, wrong],
        lambda calls, results: back.append((calls, results)),  # type: ignore[arg-type]
    )
    ((calls, (refusal,)),) = back
    assert calls == [wrong]
    assert isinstance(refusal, InvalidArgumentError)
    house.turn()
    house.member.reads[0](None)
    house.member.proposals[0](bytes([False, True, False]))
    assert back[1:] == [(gets, [b"1", None]), (puts, [False, True, False])]
    assert all(call is one for call, one in zip(back[2][0], puts, strict=True))


def test_batches_go_on_when_what_went_before_them_is_done(house: House) -> None:
    """Without a pause, and all that came meanwhile together."""
    for n in range(3):
        house.batch(Call(Method.PUT, request_id=b"%d" % n), Call(Method.GET))
        assert [len(entry) for entry in house.member.entries] == [1], "and the first at once"
    assert len(house.member.reads) == 1
    house.member.proposals[0](bytes(1))
    house.member.reads[0](None)
    house.turn()
    assert [len(entry) for entry in house.member.entries] == [1, 2]
    assert len(house.member.reads) == 2
    house.member.reads[1](None)
    house.member.proposals[1](bytes(2))
    assert house.service._desk.waiting == 0


def test_a_full_entry_goes_on_at_once(house: House) -> None:
    house.batch(Call(Method.PUT, request_id=b"first"))
    house.turn()
    house.batch(Call(Method.PUT, request_id=b"second"))
    house.turn()
    assert len(house.member.entries) == 1
    house.batch(*[Call(Method.PUT, value=bytes(300_000), request_id=b"%d" % n) for n in range(4)])
    house.turn()
    assert [len(entry) for entry in house.member.entries] == [1, 4]


def test_one_that_takes_long_is_not_waited_for(house: House) -> None:
    """But nothing is held that nobody asks for again; and a third has no room."""
    for n in range(UNDER_WAY_MAX + 1):
        house.batch(Call(Method.PUT, request_id=b"%d" % n), Call(Method.GET))
        house.turn()
        house.wait(PATIENCE_S)
        house.batch(Call(Method.PUT, request_id=b"more-%d" % n), Call(Method.GET))
        house.turn()
    assert len(house.member.entries) == UNDER_WAY_MAX
    assert len(house.member.reads) == UNDER_WAY_MAX


def test_a_call_that_comes_singly_among_batches_brings_no_pause(house: House) -> None:
    house.batch(*[Call(Method.PUT, request_id=b"%d" % n) for n in range(5)])
    house.submit(put(100))
    house.turn()
    assert [len(entry) for entry in house.member.entries] == [5]
    house.batch(*[Call(Method.PUT, request_id=b"more-%d" % n) for n in range(5)])
    house.submit(put(101))
    house.member.proposals[0](bytes(5))
    house.turn()
    assert [len(entry) for entry in house.member.entries] == [5, 7]


def test_large_values_are_handed_back_bit_by_bit(house: House) -> None:
    house.member.values = {b"a": bytes(LIMITS.answer_bytes_max // 2)}
    back: list[int] = []
    house.service.take(
        [Call(Method.GET, b"a") for _ in range(7)],
        lambda calls, results: back.append(len(calls)),
    )
    house.turn()
    house.member.reads[0](None)
    house.turn()
    assert back == [2, 2, 2, 1]


def test_what_nobody_waits_for_any_more_is_not_proposed(house: House) -> None:
    for n in range(UNDER_WAY_MAX):
        house.submit(put(n))
        house.wait(GATHER_MAX_S)
    late = [house.submit(put(10 + n), timeout=1.0) for n in range(3)]
    house.submit(put(20), timeout=60.0)
    # Its first try is late, but not the one that joined it.
    house.submit(put(21), timeout=1.0)
    house.submit(put(21), timeout=60.0)
    house.seconds += 2.0
    house.member.proposals[0](bytes(1))
    house.wait(GATHER_MAX_S)
    assert [isinstance(call[0], DeadlineExceededError) for call in late] == [True] * 3
    digests = [command.request for command in house.member.entries[-1]]
    assert digests == [request_digest(b"id-20"), request_digest(b"id-21")]


def test_a_read_that_nobody_waits_for_any_more_asks_for_no_read_point(house: House) -> None:
    for _ in range(UNDER_WAY_MAX):
        house.submit(Get(b"a"))
        house.wait(GATHER_S)
    call = house.submit(Get(b"a"), timeout=1.0)
    house.seconds += 2.0
    house.member.reads[0](None)
    house.wait(GATHER_S)
    assert len(house.member.reads) == UNDER_WAY_MAX
    assert isinstance(call[0], DeadlineExceededError)


def test_behind_a_member_that_never_answers_nothing_gathers(house: House) -> None:
    house.submit(put(0), timeout=1e6)
    house.submit(Get(b"a"), timeout=1e6)
    house.wait(GATHER_MAX_S)
    for second in range(20):
        for n in range(300):
            house.submit(put(1000 * (second + 1) + n), timeout=2.0)
            house.submit(Get(b"a"), timeout=2.0)
        house.wait(1.0)
        house.service.expire()
        desk = house.service._desk
        assert desk.waiting == 2 + 600 * min(second + 1, 1)
        assert desk.reads <= 600
        assert desk.writes <= 600
        assert desk.under_way <= 2 * 600


def test_a_retry_of_what_expired_under_way_joins_it_and_expires_as_well(house: House) -> None:
    first = house.submit(put(), timeout=1.0)
    house.turn()
    house.seconds += 2.0
    house.service.expire()
    assert isinstance(first[0], DeadlineExceededError)
    retry, late = house.submit(put(), timeout=60.0), house.submit(put(), timeout=1.0)
    house.turn()
    assert len(house.member.entries) == 1
    house.seconds += 2.0
    house.service.expire()
    assert isinstance(late[0], DeadlineExceededError)
    house.member.proposals[0](bytes([True]))
    assert retry == [True]


def test_an_old_leaders_calls_expire_though_it_never_answers(house: House) -> None:
    call, read = house.submit(put(), timeout=5.0), house.submit(Get(b"a"), timeout=5.0)
    house.turn()
    house.route = house.member = ScriptedMember()
    house.service.expire()
    house.seconds += 6.0
    house.service.expire()
    assert isinstance(call[0], DeadlineExceededError)
    assert isinstance(read[0], DeadlineExceededError)
    assert house.service._desk.waiting == 0
