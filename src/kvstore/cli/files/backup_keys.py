"""The keys that a backup file holds, read without making a member of it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kvstore._engine.files.native import PosixFileSystem
from kvstore.cli.transfer.dump import Pair
from kvstore.client.keys import with_prefix
from kvstore.engine import Options
from kvstore.replica.backup_file import read_backup
from kvstore.replica.checkpoint_stream import CheckpointWriter
from kvstore.state.machine import StateMachine
from kvstore.state.mvcc.requests import Range, SortOrder
from kvstore.state.stored import open_state

__all__ = ["BackupKeys", "opened_backup"]

PAGE_KEYS = 256


class BackupKeys:
    """Its keys as they were when it was saved."""

    def __init__(self, state: StateMachine) -> None:
        self._state = state

    @property
    def revision(self) -> int:
        """The newest that it has."""
        return self._state.revision

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None: it has none."""
        return self._state.get(key)

    def pairs(self, prefix: bytes, *, reverse: bool = False) -> Iterator[Pair]:
        """All keys that begin so, in order, with their values."""
        keys = with_prefix(prefix)
        start, end = keys.key, keys.end
        while True:
            asked = Range(
                start,
                end,
                limit=PAGE_KEYS,
                sort_order=SortOrder.DESCEND if reverse else SortOrder.NONE,
            )
            answer = self._state.read_range(asked)
            for one in answer.kvs:
                yield Pair(one.key, one.value)
            if not answer.more or not answer.kvs:
                return
            if reverse:
                end = answer.kvs[-1].key
            else:
                start = answer.kvs[-1].key + b"\0"


@contextlib.contextmanager
def opened_backup(file: Path) -> Iterator[BackupKeys]:
    """Unpack it for as long as the block lasts, into the system's directory for such files, where
    it takes as much room as the file; every byte is checked. Raises CorruptionError, StorageError.
    """
    disk = PosixFileSystem()
    with tempfile.TemporaryDirectory(prefix="kvctl-snapshot-") as directory:
        unpacked = f"{directory}/state"
        disk.make_directory(unpacked)
        read_backup(str(file), lambda info: CheckpointWriter(disk, unpacked, info.stream_bytes))
        options = Options(create_if_missing=False, wal=False)
        with open_state(unpacked, options=options, filesystem=disk) as db:
            yield BackupKeys(StateMachine(db))
