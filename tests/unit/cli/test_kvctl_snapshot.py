"""``kvctl snapshot save`` while members are stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from kvstore.cli.files import snapshot
from kvstore.client import Client
from kvstore.errors import CorruptionError, UnavailableError
from kvstore.replica.backup_file import BackupInfo, encode_backup

INFO = BackupInfo("test", 7, 1, 5, 0, 1, 1_700_000_000, 4)
WHOLE = b"".join(encode_backup(INFO, lambda offset, size: b"data"[offset : offset + size]))


class Stopped:
    """A client whose members end amid the first transfers."""

    def __init__(self, failures: int, pieces_before: int) -> None:
        self.failures = failures
        self.pieces_before = pieces_before
        self.transfers = 0

    def save_snapshot(self, *, stale: bool) -> Iterator[bytes]:
        self.transfers += 1
        if self.transfers <= self.failures:
            for number in range(self.pieces_before):
                yield WHOLE[number : number + 1]
            raise UnavailableError("the connection was lost")
        yield WHOLE


def save(client: Stopped, file: Path) -> Any:
    return snapshot._save_whole(cast("Client", client), False, file)


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_transfer_that_is_cut_off_is_begun_anew(tmp_path: Path, failures: int) -> None:
    assert save(Stopped(failures, 5), tmp_path / "f.kvs") == INFO
    assert (tmp_path / "f.kvs").read_bytes() == WHOLE


@pytest.mark.parametrize(("failures", "pieces", "transfers"), [(3, 5, 3), (1, 0, 1)])
def test_it_ends(tmp_path: Path, failures: int, pieces: int, transfers: int) -> None:
    client = Stopped(failures, pieces)
    with pytest.raises(UnavailableError):
        save(client, tmp_path / "f.kvs")
    assert client.transfers == transfers
    assert list(tmp_path.iterdir()) == []


def test_damage_is_no_reason_for_another_try(tmp_path: Path) -> None:
    class Damaged(Stopped):
        def save_snapshot(self, *, stale: bool) -> Iterator[bytes]:
            self.transfers += 1
            yield bytes(len(WHOLE))

    client = Damaged(0, 0)
    with pytest.raises(CorruptionError):
        save(client, tmp_path / "f.kvs")
    assert client.transfers == 1
