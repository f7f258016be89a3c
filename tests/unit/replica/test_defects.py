"""A mistake in this program ends the member with a clear word, wherever it shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvstore.errors import InternalError
from kvstore.raft import Membership, Message, MessageKind, Raft
from kvstore.replica import Replica
from tests.unit.replica.driven_group import DrivenGroup, put_of

ENTERED: dict[str, tuple[str, Callable[[DrivenGroup, Replica], object]]] = {
    "step": (
        "step",
        lambda driven, leader: leader.receive(
            [Message(MessageKind.HEARTBEAT_RESPONSE, leader.member, 9, leader.term)]
        ),
    ),
    "tick": ("tick", lambda driven, leader: leader.tick()),
    "propose": (
        "propose",
        lambda driven, leader: (
            leader.propose(driven.encoded(put_of("r", b"k", b"v")), driven.answers.append),
            leader.turn(),
        ),
    ),
    "read": (
        "read_index",
        lambda driven, leader: (leader.read(driven.answers.append), leader.turn()),
    ),
    "members": (
        "propose_membership",
        lambda driven, leader: leader.propose_membership(Membership(frozenset({1, 2}))),
    ),
    "transfer": ("transfer_leadership", lambda driven, leader: leader.transfer_leadership(2)),
    "campaign": ("campaign", lambda driven, leader: leader.campaign()),
    "unreachable": ("unreachable", lambda driven, leader: leader.unreachable(2)),
    "pulse": ("pulse", lambda driven, leader: leader.pulse(2, leader.term)),
    "turn": ("ready", lambda driven, leader: leader.turn()),
}


@pytest.mark.parametrize(
    "defect", [AssertionError("half"), InternalError("half"), KeyError("half")]
)
@pytest.mark.parametrize("entry", ENTERED)
def test_a_defect_of_the_core_fences_the_member(
    entry: str, defect: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, enter = ENTERED[entry]

    def fail(*arguments: Any, **options: Any) -> None:
        raise defect

    with DrivenGroup() as driven:
        leader = driven.leader()
        with monkeypatch.context() as patch:
            patch.setattr(Raft, method, fail)
            try:
                enter(driven, leader)
            except InternalError:
                assert entry in ("members", "transfer"), "only who asks for an answer is told"
        assert isinstance(leader.failure, InternalError)
        assert "half" in str(leader.failure)
        assert driven.failed[leader.member] is leader.failure
        answers: list[object] = []
        leader.propose(b"", answers.append)
        leader.read(answers.append)
        assert len(answers) == 2
        assert all(answer is leader.failure for answer in answers)


def test_a_refusal_of_the_core_is_no_defect() -> None:
    with DrivenGroup() as driven:
        leader = driven.leader()
        follower = driven.group.replicas[leader.member % 3 + 1]
        for replica in (leader, follower):
            with pytest.raises(Exception, match=r".") as raised:
                replica.transfer_leadership(77)
            assert not isinstance(raised.value, InternalError)
            assert replica.failure is None
