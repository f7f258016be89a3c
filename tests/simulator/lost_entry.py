"""A log that lost its last entry, which was durable: what a disk that lies leaves behind."""

from __future__ import annotations

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import CorruptionError
from kvstore.replica import Identity
from kvstore.replica.storage import MemberLog

__all__ = ["lose_last_entry"]


def lose_last_entry(disk: MemoryFileSystem, log: str, identity: Identity, applied: int) -> bool:
    """Take the last entry out of the log in directory ``log``; False, and nothing is done, where
    that can't be told from another loss.

    Only an entry that the state machine holds durably (at or below ``applied``) is taken, so that
    the member finds out when it starts, and only one that was written last of all: a vote that was
    lost as well would break what Raft takes for granted (damage.py).
    """
    path = max(path for path in disk.files(log) if path.endswith(".wal"))
    content = disk.read_file(path)
    before = _read(disk, log, identity)
    if before is None or before[2] > applied:
        return False

    def cut(size: int) -> MemoryFileSystem:
        left = disk.crash(keep="all")
        left.write_file(path, content[:size] + bytes(len(content) - size))
        return left

    # The shortest beginning of the segment that reads back as the whole.
    low, high = 0, len(content)
    while low < high:
        middle = (low + high) // 2
        if _read(cut(middle), log, identity) == before:
            high = middle
        else:
            low = middle + 1
    if low == 0:
        return False
    after = _read(cut(low - 1), log, identity)
    if after != (*before[:2], before[2] - 1):
        return False
    disk.write_file(path, content[: low - 1] + bytes(len(content) - low + 1))
    return True


def _read(
    disk: MemoryFileSystem, path: str, identity: Identity
) -> tuple[object, object, int] | None:
    """Hard state, mark and last index of the log; None where it can't be read."""
    try:
        log = MemberLog(path, identity, filesystem=disk.crash(keep="all"))
    except CorruptionError:
        return None
    try:
        if not log.entries:
            return None
        return log.hard_state, log.mark, log.entries[-1].index
    finally:
        log.close()
