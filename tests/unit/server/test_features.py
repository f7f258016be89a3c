"""What members say that their kvd can do."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.api.metadata_keys import INTRODUCTION_KEY
from kvstore.api.v1 import raft_pb2
from kvstore.server.peers import introductions
from kvstore.server.peers.identity import MemberIdentity, Stage
from kvstore.server.peers.introductions import (
    COMPARES,
    LENDS,
    MENDS,
    MODEL,
    Introduction,
    Introductions,
)
from kvstore.server.peers.registry import PeerRegistry


def member(directory: Path, number: int) -> Introductions:
    directory.mkdir(exist_ok=True)
    identity = MemberIdentity("c", number, 70 + number, 1, "f", Stage.MEMBER)
    return Introductions(identity, PeerRegistry(directory), (1, 2, 3))


def older(said: Introduction) -> Introduction:
    """What a kvd says that knows no features."""
    introduction = raft_pb2.Introduction.FromString(said[0][1])
    introduction.ClearField("features")
    return ((INTRODUCTION_KEY, introduction.SerializeToString()),)


def test_a_member_is_known_to_have_what_it_said_last(tmp_path: Path) -> None:
    one, two, three = (member(tmp_path / str(number), number) for number in (1, 2, 3))
    assert one.all_have(MODEL, [1])
    assert not one.all_have(MODEL, [1, 2]), "it was never heard of"
    one.judge_caller(two.to(1), {})
    said = one.to(3)
    one.judge_called(three.to(1, said), 3, said)
    assert one.all_have(MODEL, [1, 2, 3])
    assert one.all_have(COMPARES, [2])
    assert one.all_have(MENDS, [2])
    assert one.all_have(LENDS, [2])
    one.judge_caller(older(two.to(1)), {})
    assert not one.all_have(MODEL, [1, 2, 3])
    assert not one.all_have(COMPARES, [2]), "it wouldn't understand a question about its state"
    assert not one.all_have(MENDS, [2]), "nor one for an entry"
    assert not one.all_have(LENDS, [2]), "nor one for rows"
    one.judge_caller(two.to(1), {})
    assert one.all_have(MODEL, [1, 2, 3])
    assert not one.all_have(MODEL, [1, 2, 3, 4])


def test_strangers_that_say_something_are_remembered_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(introductions, "FEATURES_OF_MAX", 2)
    one = member(tmp_path / "1", 1)
    for number in (7, 8, 9, 2):
        stranger = member(tmp_path / str(number), number)
        one.judge_caller(stranger.to(1), {})
    assert one.all_have(MODEL, [7, 8])
    assert not one.all_have(MODEL, [9])
    assert one.all_have(MODEL, [2]), "there is room for each member"
