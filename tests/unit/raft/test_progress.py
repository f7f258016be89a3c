"""A follower as its leader sees it."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvstore.raft.progress import PeerState, Progress

MESSAGES_MAX = 3
BYTES_MAX = 50


class Window(RuleBasedStateMachine):
    """Answers and refusals in any order keep the marks in order and the window in bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = Progress(10, heard=0)
        self.last_match = 0

    @precondition(lambda self: self.progress.may_send(MESSAGES_MAX, BYTES_MAX))
    @rule(count=st.integers(1, 5), size=st.integers(0, 40))
    def send(self, count: int, size: int) -> None:
        self.progress.sent(self.progress.next + count - 1, size)

    @rule(index=st.integers(0, 60))
    def acknowledge(self, index: int) -> None:
        new = self.progress.acknowledged(index)
        assert new == (index > self.last_match)
        if self.progress.state is PeerState.PROBE:
            self.progress.become_replicate()

    @rule(rejected=st.integers(0, 60), hint=st.integers(0, 60))
    def reject(self, rejected: int, hint: int) -> None:
        before = self.progress.next
        if self.progress.rejected(rejected, hint):
            assert self.progress.next <= before
            assert self.progress.state is PeerState.PROBE

    @rule(index=st.integers(0, 60))
    def need_snapshot(self, index: int) -> None:
        self.progress.become_snapshot(index)
        assert not self.progress.may_send(MESSAGES_MAX, BYTES_MAX)

    @rule()
    def snapshot_done(self) -> None:
        if self.progress.state is PeerState.SNAPSHOT:
            pending = self.progress.pending_snapshot
            self.progress.become_probe()
            assert self.progress.next > pending

    @invariant()
    def marks_are_in_order(self) -> None:
        assert self.last_match <= self.progress.match < self.progress.next
        self.last_match = self.progress.match

    @invariant()
    def window_adds_up(self) -> None:
        inflight = self.progress.inflight
        assert len(inflight) <= MESSAGES_MAX
        assert self.progress.inflight_bytes == sum(size for _, size in inflight)
        assert [last for last, _ in inflight] == sorted(last for last, _ in inflight)
        if self.progress.state is not PeerState.REPLICATE:
            assert not inflight


TestWindow = Window.TestCase


def replicating(match: int) -> Progress:
    progress = Progress(match + 1, heard=0)
    progress.acknowledged(match)
    progress.become_replicate()
    return progress


def test_probe_sends_one_message_and_waits() -> None:
    progress = Progress(5, heard=0)
    assert progress.may_send(10, 10)
    progress.sent(7, 3)
    assert not progress.may_send(10, 10)
    assert progress.next == 5


def test_replicate_runs_ahead_until_the_window_is_full() -> None:
    progress = replicating(4)
    for last in (5, 6, 7):
        assert progress.may_send(3, 1000)
        progress.sent(last, 1)
    assert progress.next == 8
    assert not progress.may_send(3, 1000)
    progress.acknowledged(5)
    assert progress.may_send(3, 1000)


def test_bytes_bound_the_window_too() -> None:
    progress = replicating(4)
    progress.sent(5, 100)
    assert not progress.may_send(100, 100)


def test_one_answer_frees_all_messages_up_to_it() -> None:
    progress = replicating(4)
    for last in (5, 6, 7):
        progress.sent(last, 10)
    progress.acknowledged(6)
    assert (len(progress.inflight), progress.inflight_bytes) == (1, 10)


def test_refusal_of_what_was_acknowledged_since_is_old_news() -> None:
    progress = replicating(9)
    assert not progress.rejected(9, 3)
    assert progress.state is PeerState.REPLICATE


def test_doubled_refusal_in_probe_steps_back_once() -> None:
    progress = Progress(10, heard=0)
    progress.sent(12, 1)
    assert progress.rejected(9, 5)
    assert progress.next == 6
    assert not progress.rejected(9, 5)
    assert progress.next == 6
