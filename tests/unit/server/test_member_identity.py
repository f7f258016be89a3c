from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.errors import ConfigurationError, CorruptionError
from kvstore.server.config.cluster_config import ClusterConfig, Node
from kvstore.server.config.sealed_file import write_sealed
from kvstore.server.peers.identity import Stage, reach_stage, start_identity
from kvstore.server.peers.registry import (
    PASSING_MAX,
    STARTS_LEAP_MAX,
    STARTS_MAX,
    Known,
    PeerRegistry,
    StaleMemberError,
)

NODES = (Node(1, "a:1", "a:2"), Node(2, "b:1", "b:2"))


def config(cluster: str = "c", member: int = 1, *, join: bool = False) -> ClusterConfig:
    return ClusterConfig(cluster, member, "d", NODES, "a:1", "a:2", join=join)


def test_a_new_directory_gets_an_incarnation_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    one = start_identity(tmp_path / "1", config())
    other = start_identity(tmp_path / "2", config())
    assert one.incarnation != other.incarnation
    assert (one.starts, one.stage) == (1, Stage.REGISTERING)
    assert one.founders == config().founders_digest


def test_each_start_is_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    first = start_identity(tmp_path, config())
    reach_stage(tmp_path, first, Stage.MEMBER)
    again = start_identity(tmp_path, config())
    assert (again.starts, again.incarnation) == (2, first.incarnation)
    assert again.stage is Stage.MEMBER


def test_one_that_joins_founds_nothing(tmp_path: Path) -> None:
    joined = start_identity(tmp_path, config(join=True))
    assert (joined.stage, joined.founders) == (Stage.JOINING, "")


def test_the_directory_of_another_cluster_or_member_is_refused(tmp_path: Path) -> None:
    start_identity(tmp_path, config())
    before = (tmp_path / "MEMBER").read_bytes()
    with pytest.raises(ConfigurationError, match="belongs to cluster 'c', not to 'x'"):
        start_identity(tmp_path, config("x"))
    with pytest.raises(ConfigurationError, match="belongs to member 1, not to member 2"):
        start_identity(tmp_path, config(member=2))
    assert (tmp_path / "MEMBER").read_bytes() == before


@pytest.mark.parametrize("name", ["MEMBER", "PEERS"])
def test_every_flipped_bit_is_noticed(tmp_path: Path, name: str) -> None:
    start_identity(tmp_path, config())
    PeerRegistry(tmp_path).admit(2, Known(7, 1), present=True)
    good = (tmp_path / name).read_bytes()
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(CorruptionError):
            start_identity(tmp_path, config()) if name == "MEMBER" else PeerRegistry(tmp_path)


def test_a_known_directory_is_admitted_again_and_again(tmp_path: Path) -> None:
    registry = PeerRegistry(tmp_path)
    for starts in (1, 1, 2, 9):
        registry.admit(2, Known(7, starts), present=True)
    assert PeerRegistry(tmp_path).known() == {2: Known(7, 9)}


@pytest.mark.parametrize(
    ("seen", "complaint"), [(Known(8, 5), "wiped or replaced"), (Known(7, 4), "older copy")]
)
def test_amnesia_is_refused_also_after_a_restart(
    tmp_path: Path, seen: Known, complaint: str
) -> None:
    PeerRegistry(tmp_path).admit(2, Known(7, 5), present=True)
    with pytest.raises(StaleMemberError, match=complaint) as refusal:
        PeerRegistry(tmp_path).admit(2, seen, present=True)
    assert "kvctl member remove 2" in str(refusal.value)
    assert PeerRegistry(tmp_path).known() == {2: Known(7, 5)}


def test_what_others_remember_is_learned_but_never_overrides(tmp_path: Path) -> None:
    registry = PeerRegistry(tmp_path)
    registry.admit(2, Known(7, 5), present=True)
    registry.learn([(2, Known(8, 9)), (3, Known(1, 1))])
    registry.learn([(2, Known(7, 6)), (3, Known(1, 1))])
    registry.learn([(2, Known(7, 2))])
    assert PeerRegistry(tmp_path).known() == {2: Known(7, 6), 3: Known(1, 1)}


def test_a_removed_member_stays_removed(tmp_path: Path) -> None:
    registry = PeerRegistry(tmp_path)
    registry.admit(2, Known(7, 5), present=True)
    registry.remove([2, 3])
    again = PeerRegistry(tmp_path)
    assert [again.is_removed(member) for member in (1, 2, 3)] == [False, True, True]
    assert again.known() == {2: Known(7, 5)}


def test_who_is_no_member_is_remembered_in_memory_and_noted_when_it_becomes_one(
    tmp_path: Path,
) -> None:
    registry = PeerRegistry(tmp_path)
    registry.admit(2, Known(7, 5), present=False)
    assert not registry.known()
    assert not (tmp_path / "PEERS").exists()
    with pytest.raises(StaleMemberError, match="wiped"):
        registry.admit(2, Known(8, 5), present=False)
    registry.settle([1, 2, 3])
    assert PeerRegistry(tmp_path).known() == {2: Known(7, 5)}


def test_made_up_members_write_nothing_and_take_no_place(tmp_path: Path) -> None:
    registry = PeerRegistry(tmp_path)
    for member in range(100, 20_000):
        registry.admit(member, Known(member, 1), present=False)
    assert len(registry._passing) == PASSING_MAX
    registry.admit(2, Known(7, 1), present=True)
    assert registry.known() == {2: Known(7, 1)}


@pytest.mark.parametrize("present", [True, False])
def test_starts_that_leap_are_refused_and_the_real_member_comes_back(
    tmp_path: Path, present: bool
) -> None:
    registry = PeerRegistry(tmp_path)
    with pytest.raises(StaleMemberError, match="so many can't have been missed"):
        registry.admit(2, Known(7, STARTS_MAX + 1), present=present)
    registry.admit(2, Known(7, 3), present=present)
    for starts in (1 << 62, (1 << 64) - 1, 3 + STARTS_LEAP_MAX + 1):
        with pytest.raises(StaleMemberError, match="so many can't have been missed"):
            registry.admit(2, Known(7, starts), present=present)
        registry.learn([(2, Known(7, starts))])
    registry.admit(2, Known(7, 3 + STARTS_LEAP_MAX), present=present)


@pytest.mark.parametrize("left", ["PEERS", "node1"])
def test_a_directory_that_lost_its_identity_gets_no_other_one(tmp_path: Path, left: str) -> None:
    (tmp_path / left).mkdir()
    with pytest.raises(CorruptionError, match=f"{left} is there") as caught:
        start_identity(tmp_path, config())
    assert caught.value.path == str(tmp_path / "MEMBER")
    assert not (tmp_path / "MEMBER").exists()


def test_the_memory_of_another_directory_is_refused_and_one_without_an_owner_is_taken(
    tmp_path: Path,
) -> None:
    PeerRegistry(tmp_path, 7).admit(2, Known(5, 1), present=True)
    assert PeerRegistry(tmp_path, 7).known() == {2: Known(5, 1)}
    assert PeerRegistry(tmp_path).known() == {2: Known(5, 1)}
    with pytest.raises(CorruptionError, match="not this member's"):
        PeerRegistry(tmp_path, 8)
    write_sealed(tmp_path / "PEERS", {"known": {"2": [5, 1]}, "removed": []})
    assert PeerRegistry(tmp_path, 8).known() == {2: Known(5, 1)}
