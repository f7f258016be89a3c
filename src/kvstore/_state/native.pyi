"""Types of the native parts of the state."""

from collections.abc import Sequence
from typing import Any

from kvstore._engine.database.native import Database, WriteBatch

# requests.pyx

class RequestMemory:
    """The newest ``capacity`` requests, forgotten one by one, oldest first.

    One thread at a time. ``kvstore.state.requests.PlainRequestMemory`` does the same, readably.
    A word is a fingerprint with the result as its lowest bit, and never 0.
    """

    def __init__(self, capacity: int) -> None: ...
    def __len__(self) -> int: ...
    @property
    def forgotten_ms(self) -> int:
        """The time of the newest request that was forgotten; 0: none was."""

    @forgotten_ms.setter
    def forgotten_ms(self, time: int) -> None: ...
    @property
    def memory_bytes(self) -> int:
        """What is used of memory."""

    def find(self, digest: bytes) -> int:
        """The word of a remembered request, 0 for none."""

    def add(self, digest: bytes, word: int, index: int, time: int) -> None:
        """Remember a request, which :meth:`find` doesn't know, of entry ``index`` at ``time``.

        Neither may go back. Raises MemoryError, and nothing has changed.
        """

    def load(self, packed: bytes, offset: int, index: int, time: int) -> None:
        """Remember all of an entry: from ``offset`` on 24 bytes each, digest and word."""

    def take_forgotten(self) -> list[int]:
        """The entries of which the last request was forgotten, since this was asked last."""

# commands.pyx

def is_whole(data: bytes) -> bool:
    """Whether ``kvstore.state.commands.decode_commands`` takes the bytes of an entry."""

def digest_of_request(request_id: bytes) -> bytes:
    """As ``kvstore.state.commands.request_digest``."""

def fingerprint_bytes(kind: int, key: bytes, value: bytes) -> bytes:
    """The fingerprint of a put (1) or a delete (2), as ``kvstore.state.commands`` has it."""

# sessions.pyx

class Sessions:
    """As ``kvstore.state.sessions.Sessions``; one thread at a time. What uses it is native."""

    def __init__(self, sessions_max: int, idle_ms: int, spared_ms: int) -> None: ...
    def __len__(self) -> int: ...
    @property
    def idle_ms(self) -> int: ...
    def restore(
        self,
        name: bytes,
        floor: int,
        used_ms: int,
        index: int,
        place: int,
        words: bytes,
        answers: bytes,
    ) -> None:
        """Take up a session, in the place of one that there is; they come in the order of their
        last use. See ``kvstore.state.sessions.SessionParts``.

        Raises ValueError for words or answers that aren't whole or too many.
        """

    def parts(self, name: bytes) -> tuple[int, int, int, int, bytes, bytes] | None:
        """What :meth:`restore` takes, of a session; None for none."""

# applying.pyx

class Prepared:
    """Entries that are about to be applied, read and looked up; good for one application.

    ``cold``: keys of the engine of which only the disk knows whether they have a value.
    """

    cold: list[bytes]
    def __len__(self) -> int:
        """The number of entries."""

    def learn(self, found: dict[bytes, tuple[bytes, int] | None]) -> None:
        """What the disk said of all that was cold: value and sequence. Raises CorruptionError."""

class Applying:
    """Applies entries to a state: as ``kvstore.state.plain.PlainApplying``, in one call for a lot.

    One thread at a time.
    """

    applied_index: int
    applied_term: int
    revision: int
    state_hash: int
    clock_ms: int
    model_from: int
    compacted: int
    guard: int
    """The revision of the users while they are asked for, else 0: entries of commands that were
    let in as of another one are refused. For whoever keeps the users to set."""
    level: int
    def __init__(
        self,
        db: Database,
        requests: RequestMemory,
        sessions: Sessions,
        applied_index: int,
        applied_term: int,
        revision: int,
        state_hash: int,
        clock_ms: int,
        model_from: int,
        compacted: int,
        level: int,
    ) -> None: ...
    def advance(
        self,
        applied_index: int,
        applied_term: int,
        revision: int,
        state_hash: int,
        clock_ms: int,
        model_from: int,
        compacted: int,
        level: int,
    ) -> None:
        """Something else was applied, which brought the state so far."""

    def refuse(self, refused: int) -> None:
        """What is refused from here on, but for requests that were applied before: a
        ``kvstore.state.mvcc.alarms.Refused``."""

    @property
    def open_sessions(self) -> int:
        """How many there are."""

    def prepare(self, entries: Sequence[tuple[int, int, bytes]]) -> Prepared:
        """Read entries, and find out from memory which of the keys that they write have a value.

        Ends before the first that carries operations of the model. Changes nothing. Raises
        ValueError for data that isn't a batch of commands, StorageError, CorruptionError.
        """

    def apply(self, prepared: Prepared) -> list[tuple[int, int, bytes]]:
        """Apply what was prepared. What was applied since then makes it wrong.

        Of each entry its index, its term, and a byte for the result of each of its commands
        (``kvstore.state.results``). Raises StorageError, MemoryError: not to be used again then.
        """

    def first_result(self, request: bytes, fingerprint: bytes, sequence: int = 0) -> int | None:
        """The byte of what an applied request got, None where that isn't remembered."""

# operations.pyx

def names_single_keys(data: bytes) -> bool:
    """Whether an entry is whole, and of nothing but Puts and Txns of single keys, of nobody's, that
    say no more: whatever this is true of ``decode_operations`` takes."""

class Evaluator:
    """Evaluates entries of the model's operations that name single keys, from memory.

    As ``kvstore.state.mvcc.evaluate`` does, and the same to the last byte; the answers are tuples
    of the types that it is given. One thread at a time.
    """

    def __init__(
        self,
        db: Database,
        applied: type[Any],
        put: type[Any],
        delete_range: type[Any],
        range: type[Any],
        txn: type[Any],
        key_value: type[Any],
    ) -> None: ...
    def evaluate(
        self,
        entries: list[tuple[int, int, bytes]],
        revision: int,
        model_from: int,
        state_hash: int,
        clock_ms: int,
        leases: dict[int, Any],
    ) -> tuple[list[Any], WriteBatch, int, int, int] | None:
        """What entries come to in a state whose model is on: what was applied, what is to be
        written, and revision, hash and clock after them.

        None where anything is out of the ordinary (who asks, what would be refused, several keys at
        once, what only the disk knows, much of it): that is for the readable form. Changes nothing.
        Raises CorruptionError, StorageError.
        """

class KeyReader:
    """Answers Ranges of single keys from memory, as ``kvstore.state.mvcc.reads`` does."""

    def __init__(self, db: Database, range: type[Any], key_value: type[Any]) -> None: ...
    def read(self, keys: list[bytes], revision: int, model_from: int) -> list[Any | None]:
        """Of each key an answer, of the types that it was given; None where only the disk knows,
        and for those after the first MiB of values.

        On the thread that applies. Raises CorruptionError, ClosedError.
        """
