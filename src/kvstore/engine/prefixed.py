"""PrefixedDB: the keys under one prefix as a database of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvstore._engine.batch import WriteBatch
    from kvstore._engine.iterator import Iterator, Snapshot
    from kvstore.engine.database import DB

__all__ = ["PrefixedDB"]

Bytes = bytes | bytearray | memoryview


class PrefixedDB:
    """A view of the keys of ``db`` that begin with ``prefix``, shown without it.

    Costs nothing to make, keeps nothing open; nests. Made by :meth:`DB.prefixed_db`.
    """

    __slots__ = ("db", "prefix")

    def __init__(self, db: DB, prefix: bytes) -> None:
        self.db = db
        self.prefix = prefix

    def get(
        self,
        key: Bytes,
        default: Any = None,
        *,
        verify_checksums: bool = False,
        fill_cache: bool = True,
    ) -> Any:
        return self.db.get(self.prefix + key, default, fill_cache=fill_cache)

    def put(self, key: Bytes, value: Bytes, *, sync: bool = False) -> None:
        self.db.put(self.prefix + key, value, sync=sync)

    def delete(self, key: Bytes, *, sync: bool = False) -> None:
        self.db.delete(self.prefix + key, sync=sync)

    def __contains__(self, key: Bytes) -> bool:
        return self.prefix + key in self.db

    def __getitem__(self, key: Bytes) -> bytes:
        value = self.db.get(self.prefix + key)
        if value is None:
            raise KeyError(key)
        return bytes(value)

    def __setitem__(self, key: Bytes, value: Bytes) -> None:
        self.db.put(self.prefix + key, value)

    def __delitem__(self, key: Bytes) -> None:
        del self.db[self.prefix + key]

    def write_batch(self, *, transaction: bool = False, sync: bool = False) -> WriteBatch:
        return self.db._new_batch(transaction, sync, self.prefix)

    def iterator(self, **arguments: Any) -> Iterator:
        """As :meth:`DB.iterator`; bounds and yielded keys are without the prefix."""
        return self.db.iterator(within=self.prefix, **arguments)

    def __iter__(self) -> Iterator:
        return self.iterator()

    def snapshot(self) -> Snapshot:
        return self.db._new_snapshot(self.prefix)

    def prefixed_db(self, prefix: Bytes) -> PrefixedDB:
        return PrefixedDB(self.db, self.prefix + prefix)
