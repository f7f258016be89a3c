"""Who is believed what of a pulse, without sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.api.metadata_keys import INTRODUCTION_KEY
from kvstore.api.v1 import raft_pb2
from kvstore.server.peers.identity import MemberIdentity, Stage
from kvstore.server.peers.introductions import Introductions, RefusedPeerError
from kvstore.server.peers.pulse_datagram import Kind, Pulse, decode, encode
from kvstore.server.peers.pulses import PASSING_MAX, Pulses
from kvstore.server.peers.registry import PeerRegistry

TERM = 7


def acquainted(*members: int, leader: int = 1) -> dict[int, Pulses]:
    """Members who told each other their keys, in a term where ``leader`` leads."""
    made = {member: Pulses(member) for member in members}
    for member, pulses in made.items():
        pulses.follow([other for other in members if other != member])
        pulses.stand(TERM, leader)
        for other in members:
            if other != member:
                pulses.learn(other, made[other].key_for(member), 0)
    return made


def beat_to(pulses: Pulses, peer: int) -> bytes:
    return dict(pulses.beat())[peer]


def test_a_leader_is_felt_and_so_are_those_who_answer() -> None:
    members = acquainted(1, 2, 3)
    for peer, datagram in members[1].beat():
        answer = members[peer].receive(datagram)
        assert answer is not None
        assert len(answer) == len(datagram)
        assert members[1].receive(answer) is None, "an answer is not answered"
        assert members[peer].take() == {1: TERM}
    assert members[1].take() == {2: TERM, 3: TERM}
    assert members[1].take() == {}, "once taken it is gone"


def test_members_of_large_ids_are_felt_as_well() -> None:
    members = acquainted(1 << 40, 3, leader=1 << 40)
    answer = members[3].receive(beat_to(members[1 << 40], 3))
    assert answer is not None
    members[1 << 40].receive(answer)
    assert members[1 << 40].take() == {3: TERM}


def test_only_a_leader_pulses() -> None:
    members = acquainted(1, 2)
    assert members[2].beat() == []
    members[1].stand(TERM, 0)
    assert members[1].beat() == []
    members[1].stand(0, 0)
    assert members[1].beat() == []


def test_of_another_term_or_leader_nothing_is_noted_or_answered() -> None:
    members = acquainted(1, 2, 3)
    for term, leader in ((TERM + 1, 1), (TERM - 1, 1), (TERM, 3), (TERM, 0), (TERM, 2)):
        members[2].stand(term, leader)
        assert members[2].receive(beat_to(members[1], 2)) is None
        assert members[2].take() == {}
    assert members[2].heard == 5


def test_an_answer_counts_only_for_the_leader_of_its_term() -> None:
    members = acquainted(1, 2)
    for term, leader in ((TERM + 1, 1), (TERM, 0), (TERM, 2)):
        members[1].stand(TERM, 1)
        answer = members[2].receive(beat_to(members[1], 2))
        assert answer is not None
        members[1].stand(term, leader)
        members[1].receive(answer)
        assert members[1].take() == {}


def test_what_was_said_once_is_not_believed_again() -> None:
    members = acquainted(1, 2)
    first, second = beat_to(members[1], 2), beat_to(members[1], 2)
    assert members[2].receive(second) is not None
    members[2].take()
    for old in (first, second):
        assert members[2].receive(old) is None
    assert members[2].take() == {}
    assert members[2].dropped == 2


def test_a_member_that_was_started_anew_is_believed_and_its_former_process_is_not() -> None:
    members = acquainted(1, 2)
    old = [beat_to(members[1], 2) for _ in range(3)]
    members[2].receive(old[0])
    again = Pulses(1)
    again.follow([2])
    again.stand(TERM, 1)
    assert members[2].receive(beat_to(again, 2)) is None, "not before it introduced itself"
    members[2].learn(1, again.key_for(2), 0)
    assert members[2].receive(beat_to(again, 2)) is not None
    assert members[2].receive(old[2]) is None


def test_the_same_key_told_again_lets_nothing_be_said_again() -> None:
    members = acquainted(1, 2)
    said = beat_to(members[1], 2)
    members[2].receive(said)
    members[2].learn(1, members[1].key_for(2), 0)
    assert members[2].receive(said) is None


def test_what_was_said_to_a_former_process_is_not_believed_by_the_next_one() -> None:
    members = acquainted(1, 2)
    said = [beat_to(members[1], 2) for _ in range(3)]
    members[2].receive(said[0])
    again = Pulses(2)
    again.follow([1])
    again.stand(TERM, 1)
    again.learn(1, members[1].key_for(2), members[1].sequence)
    assert [again.receive(datagram) for datagram in said] == [None] * 3
    assert again.receive(beat_to(members[1], 2)) is not None


def test_no_member_can_speak_for_another() -> None:
    """2 knows what 1 told it; that opens nothing at 3."""
    members = acquainted(1, 2, 3)
    key = members[1].key_for(2)
    assert key != members[1].key_for(3)
    forged = encode(Pulse(Kind.PULSE, 1, 3, TERM, 99), key)
    assert members[3].receive(forged) is None
    # Nor is what it was told by 1 taken back by 1.
    reflected = beat_to(members[1], 2)
    assert members[1].receive(reflected) is None
    assert members[1].take() == members[3].take() == {}


def test_one_that_is_no_member_is_neither_believed_nor_told() -> None:
    members = acquainted(1, 2, 3)
    members[1].follow([3])
    members[2].follow([3])
    assert [peer for peer, _ in members[1].beat()] == [3]
    stranger = Pulses(1)
    stranger.follow([2])
    stranger.stand(TERM, 1)
    members[2].learn(1, stranger.key_for(2), 0)
    assert members[2].receive(beat_to(stranger, 2)) is None
    # Its key was kept for the day that it is one.
    members[2].follow([1, 3])
    assert members[2].receive(beat_to(stranger, 2)) is not None


def test_keys_of_those_that_are_no_members_are_bounded() -> None:
    members = acquainted(1, 2)
    for stranger in range(100, 100 + 3 * PASSING_MAX):
        members[1].learn(stranger, bytes(32), 0)
    kept = [n for n in range(100, 100 + 3 * PASSING_MAX) if members[1].key_of(n) is not None]
    assert kept == list(range(100 + 2 * PASSING_MAX, 100 + 3 * PASSING_MAX))
    assert members[1].key_of(2) is not None


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_a_key_of_another_size_is_none(key: bytes) -> None:
    """Who is older tells none, and goes on without."""
    pulses = Pulses(1)
    pulses.learn(2, key, 0)
    assert pulses.key_of(2) is None


def introduced(directory: Path, member: int, secret: bytes | None) -> Introductions:
    directory.mkdir()
    identity = MemberIdentity("c", member, 70 + member, 1, "f", Stage.MEMBER)
    pulses = Pulses(member)
    pulses.follow({1, 2, 3} - {member})
    pulses.stand(TERM, 1)
    return Introductions(identity, PeerRegistry(directory), (1, 2, 3), secret, pulses)


@pytest.mark.parametrize("secret", [None, b"a secret of the cluster"])
def test_keys_are_told_in_introductions_both_ways(tmp_path: Path, secret: bytes | None) -> None:
    one = introduced(tmp_path / "1", 1, secret)
    two = introduced(tmp_path / "2", 2, secret)
    said = one.to(2)
    two.judge_caller(said, {})
    one.judge_called(two.to(1, said), 2, said)
    assert one.pulses is not None
    assert two.pulses is not None
    answer = two.pulses.receive(beat_to(one.pulses, 2))
    assert answer is not None
    one.pulses.receive(answer)
    assert one.pulses.take() == {2: TERM}


def test_the_key_of_one_that_is_refused_is_not_kept(tmp_path: Path) -> None:
    one = introduced(tmp_path / "1", 1, b"a secret of the cluster")
    stranger = introduced(tmp_path / "2", 2, b"another secret, as long")
    with pytest.raises(RefusedPeerError):
        one.judge_caller(stranger.to(1), {})
    assert one.pulses is not None
    assert one.pulses.key_of(2) is None


def test_a_key_is_proved_like_every_word(tmp_path: Path) -> None:
    one = introduced(tmp_path / "1", 1, b"a secret of the cluster")
    two = introduced(tmp_path / "2", 2, b"a secret of the cluster")
    ((_, said),) = one.to(2)
    changed = raft_pb2.Introduction.FromString(said)
    changed.pulse_key = bytes(32)
    with pytest.raises(RefusedPeerError, match="doesn't know the cluster's secret"):
        two.judge_caller(((INTRODUCTION_KEY, changed.SerializeToString()),), {})


def test_a_datagram_shows_no_name_and_no_key() -> None:
    members = acquainted(1, 2)
    datagram = beat_to(members[1], 2)
    pulse = decode(datagram)
    assert pulse is not None
    assert pulse[:4] == (Kind.PULSE, 1, 2, TERM)
    assert members[1].key_for(2)[:8] not in datagram
