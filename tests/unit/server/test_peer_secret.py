"""The secret that members without certificates prove each other by."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from kvstore.api.metadata_keys import INTRODUCTION_KEY
from kvstore.api.v1 import raft_pb2
from kvstore.errors import ConfigurationError
from kvstore.server.peers.identity import MemberIdentity, Stage
from kvstore.server.peers.introductions import Introductions, RefusedPeerError
from kvstore.server.peers.registry import Known, PeerRegistry
from kvstore.server.peers.secret import make_secret_file, prove, read_secret

SECRET = b"a secret of the cluster"


def member(directory: Path, number: int, secret: bytes | None = SECRET) -> Introductions:
    directory.mkdir(exist_ok=True)
    identity = MemberIdentity("c", number, 70 + number, 1, "f", Stage.MEMBER)
    return Introductions(identity, PeerRegistry(directory), (1, 2, 3), secret)


def test_who_knows_the_secret_is_let_in_and_answered(tmp_path: Path) -> None:
    one, two = member(tmp_path / "1", 1), member(tmp_path / "2", 2)
    said = one.to(2)
    assert two.judge_caller(said, {}) == 1
    one.judge_called(two.to(1, said), 2, said)
    assert two.registry.known() == {1: Known(71, 1)}


@pytest.mark.parametrize("secret", [None, b"another secret, as long"])
def test_who_doesnt_is_refused_on_both_sides_and_nothing_is_noted(
    tmp_path: Path, secret: bytes | None
) -> None:
    one, stranger = member(tmp_path / "1", 1), member(tmp_path / "2", 2, secret)
    with pytest.raises(RefusedPeerError, match="doesn't know the cluster's secret") as refused:
        one.judge_caller(stranger.to(1), {})
    assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED
    said = one.to(2)
    with pytest.raises(RefusedPeerError, match="doesn't know the cluster's secret"):
        one.judge_called(stranger.to(1, said), 2, said)
    assert not one.registry.known()


@pytest.mark.parametrize(
    ("field", "value"),
    [("sender", 3), ("starts", 9), ("incarnation", 5), ("receiver", 9), ("founders", "x")],
)
def test_every_word_is_proved(tmp_path: Path, field: str, value: object) -> None:
    one, two = member(tmp_path / "1", 1), member(tmp_path / "2", 2)
    ((_, said),) = one.to(2)
    changed = raft_pb2.Introduction.FromString(said)
    setattr(changed, field, value)
    with pytest.raises(RefusedPeerError, match="doesn't know the cluster's secret"):
        two.judge_caller(((INTRODUCTION_KEY, changed.SerializeToString()),), {})


def test_an_answer_of_another_call_is_refused(tmp_path: Path) -> None:
    """Somebody at a member's address who heard it answer before."""
    one, two = member(tmp_path / "1", 1), member(tmp_path / "2", 2)
    heard = two.to(1, one.to(2))
    said = one.to(2)
    with pytest.raises(RefusedPeerError, match="answers another call"):
        one.judge_called(heard, 2, said)


def test_a_made_secret_is_read_back_and_others_cant(tmp_path: Path) -> None:
    path = tmp_path / "peer.secret"
    make_secret_file(path)
    assert len(read_secret(str(path))) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigurationError, match="File exists"):
        make_secret_file(path)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="lets others read or replace"):
        read_secret(str(path))


@pytest.mark.parametrize("text", [b"", b"short", b" " * 100, b"x" * 5000])
def test_a_secret_that_is_none_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "peer.secret"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="16 to 4096 are possible"):
        read_secret(str(path))


def test_what_is_remembered_can_be_forgotten_but_not_a_removal(tmp_path: Path) -> None:
    registry = PeerRegistry(tmp_path)
    registry.admit(2, Known(7, 900), present=True)
    registry.remove([3])
    assert registry.knows(2)
    registry.forget(2)
    assert not registry.knows(2)
    registry.forget(2)
    again = PeerRegistry(tmp_path)
    again.admit(2, Known(8, 1), present=True)
    assert again.is_removed(3)


def test_words_of_a_newer_kvd_are_proved_as_well(tmp_path: Path) -> None:
    """An older one knows no name for them."""
    one, two = member(tmp_path / "1", 1), member(tmp_path / "2", 2)
    ((_, said),) = one.to(2)
    newer = raft_pb2.Introduction.FromString(said + b"\xa2\x06\x01x")  # field 100
    prove(SECRET, newer)
    assert two.judge_caller(((INTRODUCTION_KEY, newer.SerializeToString()),), {}) == 1
    with pytest.raises(RefusedPeerError, match="doesn't know the cluster's secret"):
        two.judge_caller(((INTRODUCTION_KEY, newer.SerializeToString() + b"\xa2\x06\x01y"),), {})
