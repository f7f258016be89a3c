"""What members send each other for an entry, and when followers hear of its commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from kvstore.raft import Message, MessageKind
from kvstore.replica.notices import NOTICE_S
from kvstore.replica.packets import Packet
from tests.unit.replica.driven_group import DrivenGroup, into, put_of

APPEND = MessageKind.APPEND
APPEND_RESPONSE = MessageKind.APPEND_RESPONSE
HEARTBEAT = MessageKind.HEARTBEAT


class Timer:
    """Keeps calls until the test lets time pass."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        assert delay_s == NOTICE_S
        self.calls.append(call)

    def pass_by(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Watched(DrivenGroup):
    """Three members of which one leads, at rest, whose messages are counted. No tick passes."""

    def __init__(self) -> None:
        self.timer = Timer()
        super().__init__(later=self.timer.later)
        self.settle()
        self.first = self.leader()
        self.timer.pass_by()
        self.work()
        self.sent: Counter[MessageKind] = Counter()
        network = self.group.network
        deliver = network.send

        def send(packets: Sequence[Packet]) -> None:
            self.sent.update(p.kind for p in packets if isinstance(p, Message))
            deliver(packets)

        network.send = send  # type: ignore[method-assign]

    def work(self) -> None:
        """Deliver and sync until nothing moves."""
        self.group.turn()
        while any(replica.storage_busy for replica in self.group.replicas.values()):
            self.sync()

    def sync(self) -> None:
        for replica in self.group.replicas.values():
            replica.sync_storage()
        self.group.turn()

    def propose(self, name: str) -> list[object]:
        answers: list[object] = []
        command = put_of(name, name.encode(), b"")
        self.first.propose(self.encoded(command), into(answers))
        return answers

    def applied(self) -> set[int]:
        return {replica.machine.applied_index for replica in self.group.replicas.values()}


def test_an_entry_costs_two_messages_a_follower():
    with Watched() as group:
        for number in range(5):
            answers = group.propose(str(number))
            group.work()
            assert answers == [[False]]
        assert group.sent == {APPEND: 10, APPEND_RESPONSE: 10}
        behind = min(group.applied())
        assert behind == max(group.applied()) - 1, "the last commit waits for the next entry"


def test_followers_hear_of_the_last_commit_after_a_silence():
    with Watched() as group:
        group.propose("one")
        group.work()
        group.timer.pass_by()
        group.work()
        assert group.sent == {APPEND: 2, APPEND_RESPONSE: 2, HEARTBEAT: 2}
        assert len(group.applied()) == 1
        assert not group.timer.calls


def test_no_notice_is_sent_while_entries_follow_each_other():
    with Watched() as group:
        for number in range(5):
            group.propose(str(number))
            group.work()
            if number:
                group.timer.pass_by()
        assert HEARTBEAT not in group.sent
        assert group.timer.calls, "the silence after the last one is waited for"


def test_what_one_sync_made_durable_is_acknowledged_once():
    with Watched() as group:
        group.propose("one")
        group.group.turn()
        group.propose("two")
        group.group.turn()
        group.propose("three")
        group.group.turn()
        assert group.sent == {APPEND: 6}
        group.sync()
        assert group.sent == {APPEND: 6, APPEND_RESPONSE: 2}


def test_a_follower_that_reads_is_not_kept_waiting():
    with Watched() as group:
        group.propose("one")
        group.work()
        follower = next(r for r in group.group.replicas.values() if r is not group.first)
        answers: list[object] = []
        follower.read(answers.append)
        group.work()
        assert answers == [None]
        assert follower.machine.get(b"one") == b""
