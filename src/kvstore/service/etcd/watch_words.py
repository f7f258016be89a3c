"""What a front asks of the watches of a stream, and what it is to send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from kvstore.service.etcd.watch_topic import Chunk

__all__ = [
    "DUPLICATE_ID",
    "EMPTY_RANGE",
    "NO_WATCH",
    "Canceled",
    "Created",
    "Events",
    "Message",
    "Progress",
    "WatchRequest",
]

NO_WATCH: Final = -1
"""As the id of a watch: none of them, or all of the stream."""

EMPTY_RANGE: Final = "mvcc: watcher range is empty"
DUPLICATE_ID: Final = "mvcc: duplicate watch ID provided on the WatchStream"


class WatchRequest(NamedTuple):
    """Watch a range of keys. ``start_revision`` of 0: from now on; ``watch_id`` of 0: any.

    ``no_puts`` and ``no_deletes`` leave such events out. ``fragment``: the client can join the
    parts of a large message.
    """

    key: bytes
    range_end: bytes = b""
    start_revision: int = 0
    prev_kv: bool = False
    no_puts: bool = False
    no_deletes: bool = False
    watch_id: int = 0
    progress_notify: bool = False
    fragment: bool = False


class Created(NamedTuple):
    """A watch has begun: it gets every event after ``revision``, or from its start on."""

    watch_id: int
    revision: int


class Canceled(NamedTuple):
    """A watch has ended, or, where it is ``created`` as well, never begun.

    ``compact_revision``: events before it are gone, and some of them were still to come; else 0.
    """

    watch_id: int
    revision: int
    compact_revision: int = 0
    reason: str = ""
    created: bool = False


class Events(NamedTuple):
    """Events of one watch, in order and of whole revisions, unless more ``fragment`` s follow."""

    watch_id: int
    revision: int
    chunks: tuple[Chunk, ...]
    fragment: bool = False


class Progress(NamedTuple):
    """All events up to ``revision`` were sent before: of one watch, or of the whole stream."""

    watch_id: int
    revision: int


Message = Created | Canceled | Events | Progress
