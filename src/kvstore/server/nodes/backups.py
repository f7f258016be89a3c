"""Backups of a running member: made on a thread of their own, while it serves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import structlog

from kvstore.errors import (
    ClosedError,
    Error,
    OverloadedError,
    StorageError,
    UnavailableError,
)
from kvstore.replica import Replica
from kvstore.replica.backup import ReplicaBackup

__all__ = ["Backups", "Form"]

Form = Callable[[Iterator[bytes]], Iterator[bytes]]

log = structlog.get_logger("kvstore.backup")


class Backups:
    """The backups of one node, one at a time. Used on the event loop's thread."""

    def __init__(self) -> None:
        self._busy = False
        self.saved_at = 0.0
        """When one was last given whole, in seconds since 1970; 0: none yet."""

    async def stream(
        self, replica: Replica, stale: bool, form: Form = iter
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of a backup file of ``replica``.

        It holds every write that was acknowledged, to anyone, before the call; a ``stale`` one
        what the member has applied, without asking for a leader. ``form`` makes of the file's
        pieces what is given.

        Raises UnavailableError (no leader confirmed the state, or it is damaged: others have it),
        OverloadedError (another backup is under way), StorageError where no other member has the
        data.
        """
        if self._busy:
            raise OverloadedError("another snapshot of this member is being saved; try again")
        if replica.failure is not None:
            raise replica.failure
        if replica.repair.state_is_damaged:
            # A stand-in may have its place.
            raise UnavailableError(f"ask another member: {replica.repair.under_way}")
        self._busy = True
        loop = asyncio.get_running_loop()
        # One thread, so that what ends the backup comes after whatever it still does.
        worker = ThreadPoolExecutor(1, thread_name_prefix="backup")
        backup: ReplicaBackup | None = None
        sent = 0
        try:
            if not stale:
                await _read_point(replica)
            backup = ReplicaBackup(replica)
            pieces = form(backup.pieces(int(time.time())))
            while piece := await loop.run_in_executor(worker, next, pieces, b""):
                sent += len(piece)
                yield piece
            # Gone before the caller knows that it has everything.
            await loop.run_in_executor(worker, backup.close)
            self.saved_at = time.time()
            log.info("snapshot saved", member=replica.member, bytes=sent, stale=stale)
        except StorageError as error:
            # A read like any other: a member that is damaged must not go on.
            raise replica.read_failed(error) from error
        except ClosedError:
            raise UnavailableError(
                "the member's state was replaced or is being closed; try again"
            ) from None
        finally:
            if backup is not None:
                worker.submit(backup.close)
            worker.submit(self._end)
            worker.shutdown(wait=False)

    def _end(self) -> None:
        self._busy = False


async def _read_point(replica: Replica) -> None:
    """Wait until ``replica`` has applied all that was acknowledged before; raises why it can't."""
    reached: asyncio.Future[Error | None] = asyncio.get_running_loop().create_future()

    def done(reason: Error | None) -> None:
        if not reached.done():
            reached.set_result(reason)

    replica.read(done)
    reason = await reached
    if reason is not None:
        raise reason
