"""The native desk beside the plain one: the same calls, entries and answers, to the last byte."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, Options
from kvstore.errors import Error, OutcomeUnknownError, StorageError, UnavailableError
from kvstore.service.desks import Desk, Entry, Point, Read, new_desk
from kvstore.service.limits import Limits
from kvstore.service.operations import Asked, Method, Result
from kvstore.service.request_ids import understand
from kvstore.state import MemoryBounds, StateMachine, encode_commands, open_command

OPTIONS = Options(wal=False, background=False)
SESSIONS = [bytes([letter]) * 16 for letter in b"ab"]
LIMITS = Limits(
    calls_max=12,
    gathered_bytes_max=3000,
    entry_commands_max=4,
    entry_bytes_max=1000,
    answer_bytes_max=500,
    delay_s=1.5,
)


@dataclass(frozen=True, slots=True)
class Call:
    number: int
    method: int
    key: bytes
    value: bytes
    request_id: bytes
    deadline: float
    age_s: float | None


session_ids = st.builds(
    lambda name, floor, above: b"kvs1/%s/%d/%d" % (name.hex().encode(), floor + above, floor),
    st.sampled_from(SESSIONS),
    st.integers(1, 4),
    st.sampled_from([0, 0, 1, 2, 255, 256]),
)
request_ids = st.one_of(
    st.integers(0, 12).map(lambda number: b"%d" % number),
    session_ids,
    st.sampled_from([0, 4096, 4097]).map(lambda size: b"i" * size),
    st.sampled_from([b"kvs1/", b"kvs1/%s/1/2" % (b"a" * 32)]),
)
keys = st.one_of(
    st.sampled_from([b"a", b"b", b"c"]),
    st.sampled_from([0, 1024, 1025]).map(lambda size: b"k" * size),
)
values = st.sampled_from([0, 1, 2, 400, 1048576, 1048577]).map(bytes)
calls = st.tuples(
    st.sampled_from([Method.PUT, Method.PUT, Method.GET, Method.DELETE, Method.OPEN_SESSION]),
    keys,
    values,
    request_ids,
    st.sampled_from([-0.5, 0.0, 0.2, 1.0, 30.0]),
    st.sampled_from([None, None, 0.0, 0.25, 1e12]),
)


class Side:
    """A desk, a machine of the same form, and what was handed back to three fronts."""

    def __init__(self, plain: bool) -> None:
        self.desk: Desk = new_desk(LIMITS, plain=plain)
        self.machine = StateMachine(
            DB("/state", options=OPTIONS, filesystem=MemoryFileSystem()),
            memory=MemoryBounds(requests=6),
            plain=plain,
        )
        self.answers: list[tuple[int, list[tuple[int, str]]]] = []
        self.entries: deque[Entry] = deque()
        self.points: deque[Point] = deque()
        self.cold: list[Read] = []
        self.fronts = [self._front(number) for number in range(3)]

    def _front(self, number: int) -> Any:
        def answered(calls: list[Asked], results: list[Result]) -> None:
            told = zip(calls, results, strict=True)
            self.answers.append((number, [(call.number, _word(r)) for call, r in told]))  # type: ignore[attr-defined]

        return answered

    def failed(self, error: StorageError) -> Error:
        return UnavailableError(str(error))


def _word(result: Result) -> str:
    return f"{type(result).__name__} {result!r}"


class TwoDesks(RuleBasedStateMachine):
    """Whatever happens to one happens to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = Side(False), Side(True)
        self.now = 100.0
        self.time_ms = 1_000_000
        self.number = 0
        self.index = 0

    def both(self, do: Any) -> None:
        first, second = (do(side) for side in self.sides)
        assert first == second

    @initialize()
    def begin(self) -> None:
        self.log(encode_commands([open_command(name) for name in SESSIONS], self.time_ms))

    def log(self, data: bytes) -> None:
        self.index += 1
        self.both(lambda side: side.machine.apply([(self.index, 1, data)]))

    @rule(
        batch=st.lists(calls, min_size=1, max_size=6),
        front=st.integers(0, 2),
        refused=st.sampled_from([False, False, False, True]),
    )
    def take(self, batch: list[tuple[Any, ...]], front: int, refused: bool) -> None:
        asked = []
        for method, key, value, request_id, left, age_s in batch:
            self.number += 1
            if method == Method.OPEN_SESSION:
                request_id = self.number.to_bytes(16, "big")
                key = value = b""
            asked.append(Call(self.number, method, key, value, request_id, self.now + left, age_s))
        refusal = UnavailableError("no leader") if refused else None
        for side in self.sides:
            machine = None if refused else side.machine
            side.desk.take(asked, side.fronts[front], self.now, refusal, machine)

    @rule()
    def propose(self) -> None:
        entries = [side.desk.next_entry(self.now, self.time_ms) for side in self.sides]
        if entries[0] is None or entries[1] is None:
            assert entries == [None, None]
            return
        assert entries[0].data == entries[1].data
        for side, entry in zip(self.sides, entries, strict=True):
            assert entry is not None
            side.entries.append(entry)

    @precondition(lambda self: self.sides[0].entries)
    @rule(lost=st.booleans(), fails=st.sampled_from([False, False, True]))
    def decide(self, lost: bool, fails: bool) -> None:
        entries = [side.entries.popleft() for side in self.sides]
        if not lost:
            self.index += 1
        for side, entry in zip(self.sides, entries, strict=True):
            outcome: bytes | Error = OutcomeUnknownError("lost")
            if not lost:
                (applied,) = side.machine.apply([(self.index, 1, entry.data)])
                outcome = outcome if fails else applied.results
            entry.answer(outcome)

    @rule(flushes=st.booleans())
    def ask(self, flushes: bool) -> None:
        points = [side.desk.next_point(self.now) for side in self.sides]
        assert (points[0] is None) == (points[1] is None)
        for side, point in zip(self.sides, points, strict=True):
            if flushes:
                side.machine.flush()
            if point is not None:
                side.points.append(point)

    @precondition(lambda self: self.sides[0].points)
    @rule(most=st.integers(1, 5), refused=st.sampled_from([False, False, True]))
    def read(self, most: int, refused: bool) -> None:
        for side in self.sides:
            if refused:
                side.points.popleft().refuse(UnavailableError("no majority"))
                continue
            side.cold += side.points[0].read(side.machine, side.failed, most)
            if not len(side.points[0]):
                side.points.popleft()
        self.both(lambda side: [read.key for read in side.cold])

    @precondition(lambda self: self.sides[0].cold)
    @rule(late=st.booleans())
    def read_the_disk(self, late: bool) -> None:
        for side in self.sides:
            if late:
                side.desk.expire_reads(side.cold, self.now)  # type: ignore[arg-type]
            else:
                results = [side.machine.get(read.key) for read in side.cold]
                side.desk.decide(side.cold, results)  # type: ignore[arg-type]
                side.cold.clear()
        self.both(lambda side: [read.decided for read in side.cold])

    @rule(step=st.sampled_from([0.1, 0.2, 1.0, 40.0]))
    def time_passes(self, step: float) -> None:
        self.now += step
        self.time_ms += int(step * 900)

    @rule()
    def expire(self) -> None:
        for side in self.sides:
            side.desk.expire(self.now)

    @rule()
    def another_leads(self) -> None:
        for side in self.sides:
            side.desk.new_reign()

    @rule()
    def nobody_leads(self) -> None:
        for side in self.sides:
            side.desk.refuse(UnavailableError("no leader"))

    @invariant()
    def nobody_can_tell_them_apart(self) -> None:
        self.both(lambda side: side.answers)
        self.both(
            lambda side: (
                side.desk.waiting,
                side.desk.reads,
                side.desk.writes,
                side.desk.under_way,
                side.desk.write_bytes,
                side.desk.fills_entry,
            )
        )
        answered = [number for _, told in self.sides[0].answers for number, _ in told]
        assert len(answered) == len(set(answered)), "each call is answered once"
        assert len(answered) + self.sides[0].desk.waiting == self.number, "and none is lost"

    def teardown(self) -> None:
        # Whatever was left undone: at its deadline each call is answered.
        self.now += 1000.0
        for side in self.sides:
            side.desk.expire(self.now)
            side.desk.expire_reads(side.cold, self.now)  # type: ignore[arg-type]
            for point in side.points:
                side.cold += point.read(side.machine, side.failed, 100)
            side.desk.expire_reads(side.cold, self.now)  # type: ignore[arg-type]
        self.nobody_can_tell_them_apart()
        assert self.sides[0].desk.waiting == 0
        for side in self.sides:
            side.machine.close()


TwoDesks.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTwoDesks = TwoDesks.TestCase


@settings(max_examples=500)
@given(
    st.one_of(
        session_ids,
        st.binary(max_size=60).map(lambda rest: b"kvs1/" + rest),
        st.builds(
            lambda name, *numbers: b"kvs1/%s/%s/%s" % (name, *numbers),
            st.from_regex(rb"[0-9a-fA-F]{31,33}", fullmatch=True),
            *[st.from_regex(rb"[0-9]{0,3}|[0-9]{18,20}", fullmatch=True)] * 2,
        ),
    )
)
def test_both_understand_a_request_id_alike(request_id: bytes) -> None:
    """Told by the entry, which has the session, or the digest of the id."""
    desk = new_desk(Limits(), plain=False)
    machine = Side(False).machine
    results: list[Result] = []
    call = Call(1, Method.PUT, b"k", b"", request_id, 10.0, None)
    desk.take([call], lambda calls, answers: results.extend(answers), 0.0, None, machine)
    named = understand(request_id, Limits())
    entry = desk.next_entry(0.0, 1)
    if isinstance(named, Error):
        assert entry is None
        assert str(results[0]) == str(named)
    else:
        assert entry is not None
        assert entry.data[15:31] == named.request
        assert (entry.data[14] == 2) is bool(named.sequence)
