"""ChangeFeed: what is written to a database, in order, as it becomes durable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvstore._engine.database.change import Change, ChangeKind
from kvstore._engine.database.native import ChangeReader

if TYPE_CHECKING:
    from kvstore.engine.database import DB

__all__ = ["Change", "ChangeFeed", "ChangeKind"]

Bytes = bytes | bytearray | memoryview


class ChangeFeed(ChangeReader):
    """The changes of a database after a sequence, in the order in which they were written.

    Made by :meth:`DB.changes`. First those of the past, from the log, then each as it comes. Only
    what is durable is given: the feed syncs the log itself where it has caught up with writes that
    nobody synced, so nothing that it gave is ever taken back by a crash. Each change is given once,
    in order, none is left out, and those of a batch follow one another; :attr:`Change.batch` and
    :meth:`batches` tell which belong together.

    ``for change in feed`` waits for the next change for ``timeout`` seconds (None: however long)
    and ends where none came; it may be begun again, and goes on where it was. One thread at a time;
    another is refused, but may :meth:`close` the feed, which ends the loop. Where the database is
    closed, or has failed, the loop is told so by ClosedError or StorageError. A database that was
    opened to be read ends its feeds where its log ends.

    Raises CompactedError where the feed fell so far behind that the log let go of what comes next.
    """

    def __init__(
        self,
        db: DB,
        within: bytes,
        since: int | None,
        start: Bytes | None,
        stop: Bytes | None,
        prefix: Bytes | None,
        timeout: float | None,
    ) -> None:
        super().__init__(db, within, since, start, stop, prefix, timeout)

    def batches(self) -> Iterator[list[Change]]:
        """The changes of one batch at a time, as iteration of the feed gives them one by one.

        Of a batch that iteration is in the middle of, what is left of it.
        """
        while not self.closed and (batch := self.poll_batch(self.timeout)) is not None:
            yield batch
