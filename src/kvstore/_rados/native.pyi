"""Types of the extension module over librados."""

from typing import Any

# library.pyx

NAMES: tuple[bytes, ...]

def load(name: str) -> tuple[int, int, int]:
    """Load the library ``name`` once for the process: its version, such as ``(3, 0, 0)``.

    Raises OSError that says what is missing: the library, or a function of it.
    """

# operations.pyx

ABSENT: int
ANY: int

class Operation:
    """What was asked of an object, and once ``finished`` what came of it.

    ``code``: 0, or an errno, negative. ``version``: of the object, where it is there. ``pairs``: of
    those that were asked for the ones that are there; ``more``: behind the last of a list there are
    others. ``data``: bytes that were read. ``done``: whatever the caller gave.
    """

    done: Any
    code: int
    version: int
    pairs: dict[bytes, bytes] | None
    data: bytes | None
    more: bool
    finished: bool
    def __init__(self, pool: Pool, done: Any) -> None: ...
    def cancel(self) -> None:
        """Have it finish now, with ECANCELED; it may be done all the same. Nothing once it is."""

class Pool:
    """A pool's namespace, through a client of its own. One thread, but for what says otherwise."""

    under_way: int
    """Operations that weren't drained yet."""
    def __init__(self, user: str) -> None:
        """``user``: as ``client.kvstore``. Raises OSError."""

    def fileno(self) -> int:
        """Readable when something is finished."""

    def read_configuration(self, path: str) -> None:
        """Raises OSError."""

    def set_option(self, option: str, value: str) -> None:
        """Raises OSError for an option that the library doesn't know."""

    def option(self, option: str) -> str:
        """What an option is; empty for one that isn't set, or isn't known."""

    def connect(self) -> None:
        """Meet the monitors; waits, without the GIL, as long as the options say. Raises OSError.

        On any thread, while no other one uses this.
        """

    def open(self, pool: str, namespace: str) -> None:
        """Open the pool, as :meth:`connect` connects."""

    def fsid(self) -> str:
        """The cluster's name for itself."""

    def is_there(self) -> bool:
        """Whether the pool is the one that was opened, as far as this client has heard."""

    def read_pairs(self, name: bytes, keys: list[bytes], done: Any = None) -> Operation:
        """Begin to read the pairs of an object that have ``keys``."""

    def list_pairs(
        self, name: bytes, after: bytes, prefix: bytes, most: int, done: Any
    ) -> Operation:
        """Begin to read the pairs behind the key ``after``, in the order of their keys."""

    def read_data(self, name: bytes, most: int, done: Any) -> Operation:
        """Begin to read the bytes of an object, ``most`` at most."""

    def write(
        self,
        name: bytes,
        guard: int,
        pairs: dict[bytes, bytes] | None,
        removed: list[bytes] | None,
        data: bytes | None,
        done: Any,
        size: int | None = None,
    ) -> Operation:
        """Begin to change an object in one go: set ``pairs``, remove those with the keys
        ``removed``, and let ``data`` be its bytes, or have as many of them as ``size`` says, zeros
        where there were none; None: leave them.

        ``guard``: its version, or ABSENT or ANY. Otherwise nothing is done, and the code is
        -ERANGE, -EOVERFLOW, -ENOENT or -EEXIST.
        """

    def remove(self, name: bytes, done: Any) -> Operation:
        """Begin to remove an object."""

    def drain(self) -> list[Operation]:
        """Take the operations that have finished, in the order in which they did."""

    def close(self) -> bool:
        """Let go of the cluster; waits, without the GIL, for the library's threads.

        What is under way must have finished and been drained: with something left the client stays
        as it is until the process ends, and the answer is False.
        """

class Listing:
    """Walks over the names of a namespace's objects, in no order that means anything.

    Waits, without the GIL, for the pool: on a thread of its own. One at a time; done with before
    the pool is closed.
    """

    def __init__(self, pool: Pool) -> None: ...
    def names(self, most: int) -> list[bytes]:
        """Some more of them, ``most`` or so; none at the end. Raises OSError."""
