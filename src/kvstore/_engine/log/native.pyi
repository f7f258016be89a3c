"""Types of the room log."""

from collections.abc import Iterable, Iterator
from os import PathLike
from types import TracebackType
from typing import NamedTuple, Self

from typing_extensions import Buffer

from kvstore._engine.files.native import FileSystem

# log.pyx

class Hollow(NamedTuple):
    """A record that had been durable, whose header checks and whose payload doesn't.

    The header at ``offset`` of ``path`` says what it was: ``kind``, ``index``, ``term``, and the
    ``size`` and ``checksum`` of the payload, which stands 48 bytes further on.
    """

    path: str
    offset: int
    kind: int
    index: int  # type: ignore[assignment]
    term: int
    size: int
    checksum: int

class Recovery(NamedTuple):
    """What opening a log found.

    ``cut_bytes`` (at ``cut_offset`` of ``cut_path``) is a torn tail that no record proves to have
    been durable; ``clean`` says that the log had been closed properly. ``short`` says, where that
    was to be reported, in which way the log ends before what is ``noted`` of it; empty: it doesn't.
    ``hollows`` are records with damaged payloads, of a log that was opened ``hollow``. ``damaged``
    says, where that was to be reported, that ``short`` is damage and no end: what goes on behind it
    in its segment, and in those of ``beyond``, counts for nothing.
    """

    records: int
    segments: int
    cut_bytes: int
    cut_path: str | None
    cut_offset: int
    clean: bool
    short: str = ""
    hollows: tuple[Hollow, ...] = ()
    damaged: bool = False
    beyond: tuple[str, ...] = ()

class Log:
    """An append-only log of checksummed records in preallocated, recycled segments.

    Opening it checks every record: a torn tail is cut off and reported in :attr:`recovery`; any
    other damage raises :class:`kvstore.errors.CorruptionError` with its code, and nothing is
    changed. Appending after that begins a new segment.

    One thread appends; ``write``, ``sync`` and ``durable_ticket`` may be used from any thread. The
    first write or sync that fails is final: every later call raises the same error.

    :param path: directory of the segments, made if absent.
    :param filesystem: the disk to stand on; the operating system's by default.
    :param segment_bytes: size of a segment, at least 4096; a larger record gets one of its own.
    :param sticky_kinds: kinds whose newest record is written again at the head of each new segment,
        so that removing old segments never loses it. Their index must be 0.
    :param read_only: only :attr:`recovery` and :meth:`replay`; nothing is written.
    :param log_id: 16 bytes that a log must have, if it exists; a new one gets them, or random ones.
    :param database_id: likewise of the database that it belongs to, or zeros.
    :param noted: what is known of the log: the oldest segment that must be there, the newest one
        that was durable, and up to which offset. A log of less is damaged. 0: not known.
    :param report_short: open such a log all the same, say so in :attr:`recovery`, and leave its
        files as they are but for what is appended.
    :param hollow: go on behind a record with a damaged payload whose header checks and that was
        durable: it is reported in :attr:`recovery`, and :meth:`replay` gives it without a payload.
    :param report_damage: take a log with any other damage to end before that, say so in
        :attr:`recovery`, and leave its files as they are. Who opens it must take those that
        ``recovery.beyond`` names away before appending: the next segment takes such a name.
    """

    path: str
    recovery: Recovery
    log_id: bytes
    database_id: bytes

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        filesystem: FileSystem | None = None,
        segment_bytes: int = 67_108_864,
        sticky_kinds: Iterable[int] = (),
        read_only: bool = False,
        log_id: bytes | None = None,
        database_id: bytes | None = None,
        noted: tuple[int, int, int] | None = None,
        report_short: bool = False,
        hollow: bool = False,
        report_damage: bool = False,
    ) -> None: ...
    def append(self, kind: int, index: int, term: int, payload: Buffer) -> int:
        """Add a record (kind 1 to 239, payload up to 1 GiB) in memory; returns its ticket.

        MemoryError leaves the log as it was.
        """

    def append_many(self, records: Iterable[tuple[int, int, int, Buffer]]) -> int:
        """Add several records, all or none; returns the ticket of the last one."""

    def write(self) -> None:
        """Move what was appended into the file: it survives the process, not the machine."""

    def sync(self) -> None:
        """Make what was appended durable. Concurrent callers share one sync."""

    def start_writer(self) -> int:
        """Start the writer thread; returns the eventfd that it signals, see :meth:`submit`."""

    def tell(self, event: int) -> None:
        """Have the writer thread signal this eventfd of the caller's as well; starts it if need be.

        Until :meth:`forget` or the end of :meth:`close` it must not be closed. Raises StorageError
        where no thread can be started.
        """

    def forget(self, event: int) -> None:
        """Signal it no more, from now on."""

    def start_write_behind(self) -> None:
        """Start a thread that writes, within about a millisecond, what a database leaves to it."""

    def submit(self) -> int:
        """Ask the writer thread to make what was appended durable; returns the ticket.

        Any thread. The eventfds are signalled when it is, or when the log has failed or is closed.
        """

    def hand_over(self) -> int:
        """As :meth:`submit`, but that it is in the file is enough."""

    @property
    def durable_ticket(self) -> int:
        """The ticket up to which all is durable; raises the log's failure if it has one."""

    @property
    def synced_ticket(self) -> int:
        """The same, of a log that has failed or is closed, too."""

    @property
    def written_ticket(self) -> int:
        """The ticket up to which all is in the file, likewise."""

    @property
    def out_of_space(self) -> bool:
        """The disk lacked space, a descriptor or memory for what waits; nothing of it is lost."""

    @property
    def notify_fd(self) -> int:
        """The eventfd of the writer thread, -1 before :meth:`start_writer`."""

    def begin_next_segment(self) -> int:
        """Have all that is appended from now on stand in a new segment; returns its number, or a
        higher one. Any thread.

        Raises StorageError; where it is ``retryable`` the log is as it was.
        """

    @property
    def oldest_segment(self) -> int:
        """The number of the oldest segment that is there."""

    def remove_before(self, index: int) -> int:
        """Remove whole segments that hold only indexes below ``index``; returns how many."""

    def remove_segments_before(self, number: int) -> None:
        """Remove the segments with lower numbers, all of them durable and not needed."""

    def durable_places(self, index: int) -> tuple[int, int, int]:
        """What could be ``noted``, once :meth:`remove_before` this index were called; 0: none."""

    def newest_place(self, index: int = 0) -> tuple[int, int]:
        """The newest segment whose name is durable, and up to which offset it all is; 0: none that
        holds ``index`` or above is durable.
        """

    def replay(self, index: int = 0) -> Iterator[tuple[int, int, int, bytes | None]]:
        """The records ``(kind, index, term, payload)`` that opening found, in written order.

        Use it before anything is appended or removed. The oldest segments that hold only indexes
        below ``index`` are left out: of sticky kinds nothing is missing then.
        """

    def newest(self, kind: int) -> bytes | None:
        """The payload of the newest record of a sticky kind."""

    @property
    def first_index(self) -> int:
        """The lowest index of a record that is not of a sticky kind, 0 without any."""

    def first_of_tail(self, least_bytes: int) -> int:
        """What to call :meth:`remove_before` with so that segments of at least so many bytes stay.

        As few as that takes; the one that is written now is always among them.
        """

    def read_entries(
        self, first: int, last: int, bytes_max: int
    ) -> list[tuple[int, int, int, bytes]] | None:
        """Records ``(kind, index, term, payload)`` from index ``first`` to ``last`` at most.

        Without a gap, the newest of each index, at least one and none after the one that passes
        ``bytes_max``: fewer than there are, perhaps. None where ``first`` is in no segment any
        more. For a log whose indexes are consecutive or go back (Raft's), and for entries that are
        durable and not to be replaced. From any thread, beside the one that appends or removes;
        without the GIL while it reads.

        Raises CorruptionError for damage, StorageError when it can't be read.
        """

    def stats(self) -> dict[str, int]: ...
    def close(self) -> None:
        """Sync, mark the log as closed properly, and give back what was preallocated."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

# log_salvage.pyx

class SegmentSalvage:
    """The records (kind, index, payload) of one segment that check, wherever they stand in it."""

    damage: list[str]
    """A line for each place where something doesn't check, as far as was read."""

    def __init__(self, disk: FileSystem, path: str, number: int) -> None: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> tuple[int, int, bytes]: ...

def log_segments(disk: FileSystem, path: str) -> list[int]:
    """The numbers of a log's segments, ascending."""

def salvage_segment(disk: FileSystem, path: str, number: int) -> SegmentSalvage:
    """What can be read of segment ``number`` of the log in ``path``; nothing is written."""

# log_tail.pyx

class LogTail:
    """A place in an open log, for the database's change feeds; only native code moves it."""

    def __init__(self, log: Log) -> None: ...

# log_check.pyx

class SegmentCheck:
    """Every record of one segment, and that it ends where the segment after it says.

    That one must be there: the newest segment is still written. One thread at a time.
    """

    def __init__(self, disk: FileSystem, path: str, number: int) -> None: ...
    def step(self, bytes_max: int, *, forget: bool = True) -> int:
        """Check about so many more bytes, a record at least: returns how many, 0 after the end.

        With ``forget`` the device is asked, and what the system caches of it is dropped. Raises
        CorruptionError for damage, StorageError when it can't be read.
        """
