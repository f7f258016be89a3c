"""The model on a real engine in memory: slices of operations applied as the state machine does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB, Options
from kvstore.etcd_errors import EtcdError
from kvstore.state.mvcc.answers import Answer
from kvstore.state.mvcc.auth import load_auth
from kvstore.state.mvcc.evaluate import evaluate_slice
from kvstore.state.mvcc.metering import ENTRY_READ_BYTES_MAX
from kvstore.state.mvcc.numbering import Numbering
from kvstore.state.mvcc.records import (
    ALARMS,
    LEASES,
    USER,
    USERS,
    LeaseRecord,
    decode_alarm_key,
    decode_lease,
    decode_lease_key,
)
from kvstore.state.mvcc.requests import (
    LEVEL_NUMBERED,
    Authenticated,
    Operation,
    Proposal,
    RaiseLevel,
)
from kvstore.state.mvcc.source import ColdError, Standing, Store
from kvstore.state.mvcc.view import ENTRY_BYTES_MAX, View
from kvstore.state.sessions import SessionBounds, Sessions

OPTIONS = Options(wal=False, background=False, write_buffer_size=64 << 10, history_prefixes=(USER,))


class EngineStore:
    """What a DB tells."""

    def __init__(self, db: DB) -> None:
        self.db = db

    def get_versioned(self, key: bytes, sequence: int | None = None) -> tuple[bytes, int] | None:
        return self.db.get_versioned(key, sequence)

    def versions(
        self, start: bytes, stop: bytes, sequence: int | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes, int]]:
        return self.db.iterator(
            start=start, stop=stop, sequence=sequence, include_sequence=True, reverse=reverse
        )

    def count(self, start: bytes, stop: bytes, sequence: int | None = None) -> int:
        return sum(1 for _ in self.versions(start, stop, sequence))


class ColdStore:
    """What memory alone tells."""

    def __init__(self, db: DB) -> None:
        self.db = db

    def get_versioned(self, key: bytes, sequence: int | None = None) -> tuple[bytes, int] | None:
        if sequence is not None and sequence < self.db.last_sequence:
            raise ColdError(key)
        found: tuple[bytes, int] | None = self.db.get_versioned_cached(key, cold=ColdError)
        if found is ColdError:
            raise ColdError(key)
        return found

    def versions(
        self, start: bytes, stop: bytes, sequence: int | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes, int]]:
        raise ColdError(start)

    def count(self, start: bytes, stop: bytes, sequence: int | None = None) -> int:
        raise ColdError(start)


class Model:
    """One member's copy of the model."""

    def __init__(self) -> None:
        self.disk = MemoryFileSystem()
        self.standing = Standing(0, 0, -1)
        self.term = 1
        self.entry_bytes_max = ENTRY_BYTES_MAX
        self.entry_read_max = ENTRY_READ_BYTES_MAX
        self.drawn = 0
        self.who: Authenticated | None = None
        self.level = 0
        self.index = 0
        self.clock_ms = 1
        self.sessions = Sessions(SessionBounds())
        self._open()

    def _open(self) -> None:
        self.db = DB("/db", options=OPTIONS, filesystem=self.disk)
        self.db.retain_from(max(self.standing.compacted, 0))
        self.store = EngineStore(self.db)
        self.leases: dict[int, LeaseRecord] = {
            decode_lease_key(key): decode_lease(record)
            for key, record in self.db.iterator(prefix=LEASES)
        }
        self.alarms = frozenset(
            map(decode_alarm_key, self.db.iterator(prefix=ALARMS, include_value=False))
        )
        self.auth = load_auth(self.db.iterator(prefix=USERS))

    def view(self, store: Store | None = None) -> View:
        """Of the state as it is, of what ``store`` has."""
        return View(
            store or self.store,
            self.standing,
            self.leases,
            self.alarms,
            self.auth,
            self.entry_bytes_max,
            self.entry_read_max,
            level=self.level,
            numbering=Numbering(self.sessions),
        )

    def restart(self) -> None:
        """Close and open, everything being durable."""
        self.db.flush()
        self.db.close()
        self._open()

    def proposal(self, operation: Operation) -> Proposal:
        """The next one, with an id of its own, of whoever asks now."""
        self.drawn += 1
        return Proposal(self.drawn.to_bytes(8, "big") + bytes(8), operation, self.who)

    def apply(self, *operations: Operation) -> list[Answer | EtcdError]:
        """One slice."""
        return self.apply_proposals([self.proposal(operation) for operation in operations])

    def apply_proposals(self, proposals: Sequence[Proposal]) -> list[Answer | EtcdError]:
        """The same, of proposals with their ids."""
        self.index += 1
        view, (answers,) = evaluate_slice(
            [(self.index, self.term, self.clock_ms, proposals)], self.view
        )
        view.batch.put(b"\0state", b"", sequence=view.standing.revision)
        self.db.write(view.batch, sequence=self.standing.revision)
        if view.standing.compacted != self.standing.compacted:
            self.db.retain_from(max(view.standing.compacted, 0))
        self.standing = view.standing
        self.level = view.level
        self.alarms = view.alarms
        self.auth = view.auth
        for name, session in view.numbering.used.items():
            self.sessions.restore(name, *session.parts())
        for lease, record in view.leases.items():
            if record is None:
                self.leases.pop(lease, None)
            else:
                self.leases[lease] = record
        return answers

    def do(self, operation: Operation) -> Answer:
        """One operation in a slice of its own; raises what it is refused with."""
        (answer,) = self.apply(operation)
        if isinstance(answer, EtcdError):
            raise answer
        return answer


def enabled() -> Model:
    """A fresh model that knows users."""
    model = Model()
    model.do(RaiseLevel(LEVEL_NUMBERED))
    return model
