"""Types of the room files."""

from collections.abc import Callable
from os import PathLike
from random import Random
from typing import Literal

from typing_extensions import Buffer

# file.pyx

class FileSystem:
    """A disk that :class:`kvstore.DB` and the log can stand on (their ``filesystem=`` argument).

    The methods are for whole files off the hot path; each raises
    :class:`kvstore.errors.StorageError` when the disk refuses.
    """

    def resolve(self, path: str) -> str:
        """``path`` from the root on, without links, ``..`` and a slash at its end.

        Whoever keeps a path keeps this one: it follows neither ``chdir`` nor a link that is
        changed, and its ``dirname`` is the directory that holds its name.
        """
    def names(self, path: str) -> list[str]:
        """The sorted names in a directory."""
    def kind(self, path: str) -> int:
        """0 nothing there, 1 a file, 2 a directory."""
    def size(self, path: str) -> int: ...
    def read(self, path: str, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``, fewer only at the end of the file."""
    def write(self, path: str, offset: int, data: Buffer) -> None:
        """Write at ``offset``, making the file if it is absent; not durable before :meth:`sync`.

        It is on the device on return, so that whoever syncs anything meanwhile or afterwards has
        little to wait for. After an error nothing of the file counts: a later sync may not tell.
        """
    def sync(self, path: str) -> None: ...
    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
    def rename(self, old: str, new: str) -> None: ...
    def make_directory(self, path: str) -> None:
        """Make a directory; one that exists is fine."""
    def remove_tree(self, path: str) -> None:
        """Remove a file, or a directory with all in it; nothing there is fine."""

# memory_disk.pyx

_Path = str | PathLike[str]

class MemoryFileSystem(FileSystem):
    """A disk in memory that can lose power, run full and fail, for tests and simulation.

    A file's bytes are durable only after a datasync of that file, and its name only after a sync
    of its directory, as strictly as POSIX allows; :meth:`crash` says what is left. Everything is
    deterministic. Paths begin at the root, which exists.

    Operations are named as in the table of ``file.pxd``: ``open close pwrite pread write_back
    datasync allocate truncate size rename link unlink make_directory remove_directory
    sync_directory list kind lock lock_shared free_bytes``.
    """

    counts: dict[str, int]
    """How often each operation was called."""
    preads_with_gil: int
    """How often a thread read that held the GIL: on a real disk, all of Python had to wait."""
    operations: int
    """How many calls so far may have changed the disk (what :meth:`stop_at` counts)."""
    stopped: bool
    capacity_bytes: int | None
    """What the files may hold together before ENOSPC; may be changed at any time."""
    on_operation: Callable[[str, str], None] | None
    """Called before each operation with its name and path; its OSError is the result."""

    def __init__(self, *, capacity_bytes: int | None = None) -> None: ...
    def fail(
        self, operation: str, error: int, *, at: int = 1, always: bool = False, path: str = ""
    ) -> None:
        """Let the ``at``-th such call from now on fail with errno ``error``, without effect.

        With ``always`` each later one too. ``path`` limits it to paths that contain it. After a
        failed datasync or write_back what was written before it never will be durable, as with a
        real kernel.
        """
    def shorten_read(self, *, at: int = 1, always: bool = False, path: str = "") -> None:
        """Let the ``at``-th pread return half of what is there."""
    def heal(self) -> None:
        """Forget all faults that were asked for."""
    def stop_at(self, operation: int) -> None:
        """Cut the power at that number of :attr:`operations`.

        It acts on what a reader would see (a sync does not act at all), fails with EIO, and so does
        everything after it; :meth:`crash` then gives the states that a restart may find.
        """
    @property
    def used_bytes(self) -> int: ...
    def crash(
        self,
        random: Random | None = None,
        keep: Literal["none", "prefix", "random", "all"] = "none",
    ) -> MemoryFileSystem:
        """The disk as found after a power loss; this one stays as it is.

        ``none``: only what was made durable. ``prefix``: what came before some moment as well, the
        write at that moment torn at any byte. ``random``: each 512-byte sector as it was at any
        moment since it was durable, and any subset of the changes of directories. ``all``:
        everything, as when only the process died. The same seed of ``random`` gives the same disk.
        """
    def exists(self, path: _Path) -> bool: ...
    def names(self, path: _Path = "/") -> list[str]:
        """The sorted names in a directory."""
    def files(self, path: _Path = "/") -> list[str]:
        """The sorted paths of all files below a directory."""
    def unsynced_files(self) -> list[str]:
        """The files whose content is not all durable."""
    def read_file(self, path: _Path) -> bytes: ...
    def write_file(self, path: _Path, content: bytes) -> None:
        """Put a file there, directories included, all of it durable at once."""
    def make_directories(self, path: _Path) -> object:
        """Make a directory and those above it, durable at once."""
    def remove_file(self, path: _Path) -> None: ...
    def copy(self, source: _Path, target: _Path) -> None:
        """Copy a file or a tree of files as a reader sees them; the copy is durable at once."""
    def flip_bit(self, path: _Path, offset: int, bit: int = 0) -> None:
        """Change one bit of a file at rest."""

# posix.pyx

class PosixFileSystem(FileSystem):
    """The operating system's files. Stateless: any number of instances are the same disk."""

# two_copies.pyx

class TwoCopies:
    """A small file that is written over in place, durably, and never lost to a crash.

    :meth:`load` it first; then any thread may :meth:`store`.
    """

    path: str
    owner: bytes
    """The 16 bytes of the log or database that it is about; empty while that isn't known."""

    def __init__(self, filesystem: FileSystem, path: str, magic: bytes, owner: bytes = b"") -> None:
        """``magic``: 8 bytes that say what it is a note of."""
    def load(self) -> tuple[bytes | None, str]:
        """The newer copy (None: there is none that can be used), and what is damaged, in words.

        It is of :attr:`owner`, which becomes that of the file where it isn't known. Raises
        CorruptionError for the file of another owner or of a later version, StorageError where it
        can't be read.
        """
    def begin(self, fields: bytes) -> tuple[bytes, int, bytes] | None:
        """What :meth:`store` would write, for who has more to write: path, offset, bytes.

        None where :meth:`store` is to be called after all: another copy is being written, or there
        is no file yet. Else :meth:`end` must follow.
        """
    def end(self, stored: bool) -> None:
        """What :meth:`begin` gave was written durably, or nobody knows."""
    def store(self, fields: bytes) -> bool:
        """Write a newer copy, durably. False where another one is being written and doesn't end.

        Raises StorageError.
        """
    @property
    def number(self) -> int:
        """Of the newer copy: how often it was written; 0 before load()."""
    def first_of(self, fields: bytes) -> bytes:
        """What the file is to hold at first, for whoever makes it otherwise than by store()."""
