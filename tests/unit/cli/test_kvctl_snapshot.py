"""``kvctl snapshot save`` while members are stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from kvstore.cli.files import snapshot
from kvstore.client import Client
from kvstore.errors import CorruptionError, UnavailableError
from tests.unit.server.test_restore import make_backup


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return Path(make_backup(tmp_path_factory.mktemp("backup"), "file.kvs", 3)).read_bytes()


class Stopped:
    """A client whose members end amid the first transfers."""

    def __init__(self, whole: bytes, failures: int, pieces_before: int) -> None:
        self.whole = whole
        self.failures = failures
        self.pieces_before = pieces_before
        self.transfers = 0

    def save_snapshot(self, *, stale: bool) -> Iterator[bytes]:
        self.transfers += 1
        if self.transfers <= self.failures:
            for number in range(self.pieces_before):
                yield self.whole[number : number + 1]
            raise UnavailableError("the connection was lost")
        yield self.whole


def save(client: Stopped, file: Path) -> Any:
    return snapshot._save_whole(cast("Client", client), False, file)


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_transfer_that_is_cut_off_is_begun_anew(
    tmp_path: Path, whole: bytes, failures: int
) -> None:
    assert save(Stopped(whole, failures, 5), tmp_path / "f.kvs").cluster == "old"
    assert (tmp_path / "f.kvs").read_bytes() == whole


@pytest.mark.parametrize(("failures", "pieces", "transfers"), [(3, 5, 3), (1, 0, 1)])
def test_it_ends(tmp_path: Path, whole: bytes, failures: int, pieces: int, transfers: int) -> None:
    client = Stopped(whole, failures, pieces)
    with pytest.raises(UnavailableError):
        save(client, tmp_path / "f.kvs")
    assert client.transfers == transfers
    assert list(tmp_path.iterdir()) == []


def test_damage_is_no_reason_for_another_try(tmp_path: Path, whole: bytes) -> None:
    class Damaged(Stopped):
        def save_snapshot(self, *, stale: bool) -> Iterator[bytes]:
            self.transfers += 1
            yield bytes(len(self.whole))

    client = Damaged(whole, 0, 0)
    with pytest.raises(CorruptionError):
        save(client, tmp_path / "f.kvs")
    assert client.transfers == 1
