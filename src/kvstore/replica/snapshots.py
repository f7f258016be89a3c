"""Moving a snapshot from a leader to a follower: a checkpoint's stream (``checkpoint_stream``).

It travels in parts, each with a checksum of its own. The receiver answers each part with the offset
up to which it has everything, so a lost or doubled part costs one part, and a transfer that was cut
goes on where it stopped. Inside, each block of each table has its checksum too.

Parts are read and written beside the loop, one at a time on either side: what does it is marked
"any thread", and nothing else of the object is used while it is at it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kvstore.errors import CorruptionError, StorageError
from kvstore.raft import SnapshotMeta
from kvstore.replica.checkpoint_stream import CheckpointReader, CheckpointWriter
from kvstore.replica.directory import MemberDirectory
from kvstore.replica.packets import SnapshotPart, SnapshotProgress
from kvstore.replica.ticks import TICK_S, ticks_of

__all__ = ["PART_BYTES", "SnapshotReceiver", "SnapshotSender"]

PART_BYTES = 1 << 20
RESEND_S = 0.25
"""A part without an answer for this long is sent again."""
SILENT_S = 5.0
"""A transfer without any answer for this long has failed, or at the receiver: may be replaced."""


@dataclass(slots=True)
class SnapshotSender:
    """One transfer under way: of the checkpoint in ``path``, which ``stream`` reads."""

    stream: CheckpointReader
    path: str
    sender: int
    to: int
    term: int
    meta: SnapshotMeta
    part_bytes: int = PART_BYTES
    tick_s: float = TICK_S
    offset: int = 0
    silent_ticks: int = 0
    waits: bool = False
    """The next part could not be sent yet."""

    @property
    def total(self) -> int:
        """Bytes of the whole stream."""
        return self.stream.total

    def part(self, offset: int) -> SnapshotPart:
        """What stands at ``offset``. Any thread. Raises StorageError."""
        data = self.stream.read(offset, self.part_bytes)
        return SnapshotPart(self.sender, self.to, self.term, self.meta, self.total, offset, data)

    def answered(self, progress: SnapshotProgress) -> bool:
        """Note an answer; True when it moves the transfer on."""
        if progress.index != self.meta.index or progress.next > self.total:
            return False
        self.silent_ticks = 0
        if progress.next == self.offset:
            return False
        self.offset = progress.next
        return True

    @property
    def done(self) -> bool:
        """The receiver has everything."""
        return self.offset == self.total

    def tick(self) -> bool:
        """True when the part should be sent again."""
        self.silent_ticks += 1
        return self.silent_ticks % ticks_of(RESEND_S, self.tick_s) == 0

    @property
    def failed(self) -> bool:
        """Nothing was heard for too long."""
        return self.silent_ticks >= ticks_of(SILENT_S, self.tick_s)


class SnapshotReceiver:
    """What a follower has of a snapshot. The state machine is untouched until all is verified."""

    def __init__(
        self,
        directory: MemberDirectory,
        verify: Callable[[str, SnapshotMeta], None],
        tick_s: float = TICK_S,
    ) -> None:
        """``verify`` raises CorruptionError unless a directory holds the snapshot of a mark."""
        self._directory = directory
        self._verify = verify
        self._meta: SnapshotMeta | None = None
        self._sender = 0
        self._term = 0
        self._total = 0
        self._next = 0
        self._silent_ticks = 0
        self._silent_ticks_max = ticks_of(SILENT_S, tick_s)
        self._path = ""
        self._writer: CheckpointWriter | None = None
        # Something is done with it beside the loop.
        self._busy = False

    def received(self, part: SnapshotPart) -> int:
        """The offset up to which everything of the snapshot of ``part`` is here.

        0 while another one is being received: its sender must not go on from there. Without a part
        that is being written, and the last one while that all is being checked: its sender hears
        that it is still at it.
        """
        return self._next if self._belongs(part) else 0

    def tick(self) -> None:
        """One tick has passed."""
        self._silent_ticks += 1

    def take(self, part: SnapshotPart) -> Callable[[], None] | None:
        """What to do with a part, on any thread: :meth:`kept` is next. None where it is ignored.

        So are parts out of order, and all parts while one is written or a snapshot is checked. What
        is to be done raises CorruptionError for a snapshot that is damaged or makes no sense and
        StorageError when it can't be written, or there is no room for all of it.
        """
        if self._busy:
            return None
        if not self._belongs(part):
            if part.offset != 0 or not self._may_begin(part):
                return None
            self._forget()
            self._meta = part.meta
            self._sender = part.sender
            self._term = part.term
            self._total = part.total
        self._silent_ticks = 0
        if part.offset != self._next or self._next == self._total:
            return None
        self._busy = True
        return partial(self._dropping, partial(self._keep, part))

    def kept(self, part: SnapshotPart, *, ok: bool) -> bool:
        """What came of :meth:`take`; True when all is here: :meth:`check` is next, then
        :meth:`checked`. What couldn't be kept is forgotten, with all that came before."""
        if ok and self._next + len(part.data) == self._total:
            return True
        self._busy = False
        self._silent_ticks = 0
        if ok:
            self._next += len(part.data)
        else:
            self._forget()
        return False

    def check(self, meta: SnapshotMeta) -> None:
        """Make sure that all is right, and durable under its name. On any thread; takes long.

        Raises CorruptionError, or StorageError when it can't be read or made durable.
        """
        self._dropping(partial(self._check, meta))

    def checked(self, *, ok: bool) -> None:
        """What came of :meth:`check`: it can be installed, or is forgotten."""
        self._busy = False
        self._silent_ticks = 0
        if ok:
            self._next = self._total
        else:
            self._forget()

    def _forget(self) -> None:
        self._meta = None
        self._next = 0
        self._writer = None

    def _belongs(self, part: SnapshotPart) -> bool:
        return self._meta == part.meta and self._sender == part.sender and self._total == part.total

    def _may_begin(self, part: SnapshotPart) -> bool:
        """One at a time, unless it is finished, has gone silent, or this one is newer.

        The leader of a later term has a say as well: the one before sends nothing more.
        """
        return (
            self._meta is None
            or self._next == self._total
            or self._silent_ticks >= self._silent_ticks_max
            or part.term > self._term
            or part.meta.index > self._meta.index
        )

    # --- any thread ----------------------------------------------------------------------------

    def _dropping(self, work: Callable[[], None]) -> None:
        """Do ``work``; where it fails, what has come so far isn't wanted any more."""
        try:
            work()
        except (CorruptionError, StorageError):
            self._writer = None
            self._directory.drop_incoming()
            raise

    def _keep(self, part: SnapshotPart) -> None:
        if part.offset == 0:
            self._writer = self._begin(part.total)
        assert self._writer is not None, "begun with the part of offset 0"
        self._writer.write(part.data)
        if part.offset + len(part.data) == part.total:
            self._writer.finish()

    def _begin(self, total: int) -> CheckpointWriter:
        self._path = self._directory.make_incoming()
        free = self._directory.free_bytes()
        if 0 < free < total:
            raise StorageError(
                f"a snapshot of {total} bytes where {free} are free",
                path=self._path,
                errno=errno.ENOSPC,
            )
        return CheckpointWriter(self._directory.filesystem, self._path, total)

    def _check(self, meta: SnapshotMeta) -> None:
        self._verify(self._path, meta)
        self._directory.incoming_is_whole(meta.index)
