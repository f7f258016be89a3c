"""A pool in memory, for tests: guards, versions and order as in RADOS, and troubles on request."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kvstore.beyond.rados.objects import ABSENT, ANY


@dataclass
class Thing:
    """An object."""

    version: int
    pairs: dict[bytes, bytes] = field(default_factory=dict)
    data: bytes = b""


class MemoryOperation:
    """One operation; it is done when the pool's :meth:`MemoryPool.run` comes to it."""

    def __init__(self, client: MemoryClient, kind: str, name: bytes, done: Any, *what: Any) -> None:
        self.client = client
        self.kind = kind
        self.name = name
        self.done = done
        self.what = what
        self.code = 0
        self.version = 0
        self.pairs: dict[bytes, bytes] | None = None
        self.data: bytes | None = None
        self.more = False
        self.is_finished = False
        self.cancelled = False

    def cancel(self) -> None:
        """It finishes now, and is done all the same when its time comes."""
        if not self.is_finished and not self.cancelled:
            self.cancelled = True
            self.code = -errno.ECANCELED
            self.finish()

    def finish(self) -> None:
        self.is_finished = True
        self.client.finished.append(self)


class MemoryPool:
    """Objects that any number of clients share, with a queue of operations of them all."""

    def __init__(self) -> None:
        self.things: dict[bytes, Thing] = {}
        self.queue: list[MemoryOperation] = []
        self.version = 0
        self.exists = True
        self.full = False
        self.log: list[str] = []
        self.trouble: Callable[[MemoryOperation], int | None] = lambda operation: None
        """Asked before an operation is done: the errno that it ends with, 0 to have it wait, or
        None. One below -1000 is for what is done, with an answer of that + 1000."""

    def client(self) -> MemoryClient:
        return MemoryClient(self)

    def run(self, choose: Callable[[int], int] = lambda count: 0) -> bool:
        """Do one operation, that ``choose`` picks of the first one of each client and object;
        False when none can be done."""
        firsts: dict[tuple[bytes, int], MemoryOperation] = {}
        for operation in self.queue:
            firsts.setdefault((operation.name, id(operation.client)), operation)
        able = []
        for operation in firsts.values():
            trouble = self.trouble(operation)
            if trouble != 0:
                able.append((operation, trouble))
        if not able:
            return False
        operation, trouble = able[choose(len(able))]
        self.queue.remove(operation)
        self.log.append(f"{operation.kind} {operation.name.decode()}")
        if not self.exists:
            trouble = -errno.ENOENT
        if trouble is None or trouble < -1000:
            code = self._do(operation)
            if trouble is not None:
                code = trouble + 1000
        else:
            code = trouble
        if not operation.cancelled:
            operation.code = code
            operation.finish()
        return True

    def _do(self, operation: MemoryOperation) -> int:
        thing = self.things.get(operation.name)
        if operation.kind in ("write", "remove"):
            return self._change(operation, thing)
        if thing is None:
            operation.pairs = {}
            return -errno.ENOENT
        operation.version = thing.version
        match operation.kind:
            case "read_pairs":
                (keys,) = operation.what
                operation.pairs = {key: thing.pairs[key] for key in keys if key in thing.pairs}
            case "list_pairs":
                after, prefix, most = operation.what
                keys = sorted(k for k in thing.pairs if k > after and k.startswith(prefix))
                operation.pairs = {key: thing.pairs[key] for key in keys[:most]}
                operation.more = len(keys) > most
            case "read_data":
                (most,) = operation.what
                operation.data = thing.data[:most]
        return 0

    def _change(self, operation: MemoryOperation, thing: Thing | None) -> int:
        self.version += 1
        if operation.kind == "remove":
            if thing is None:
                return -errno.ENOENT
            del self.things[operation.name]
            return 0
        guard, pairs, removed, data, size = operation.what
        if guard == ABSENT and thing is not None:
            return -errno.EEXIST
        if guard not in (ABSENT, ANY):
            version = 0 if thing is None else thing.version
            if guard != version:
                return -errno.ERANGE if guard < version else -errno.EOVERFLOW
        before = b"" if thing is None else thing.data
        if data is None:
            data = before if size is None else before[:size].ljust(size, b"\0")
        # Pairs aren't looked at.
        if self.full and (thing is None or len(data) > len(before)):
            return -errno.ENOSPC
        if thing is None:
            thing = self.things[operation.name] = Thing(0)
        thing.version = operation.version = self.version
        thing.data = data
        for key in removed or ():
            thing.pairs.pop(key, None)
        thing.pairs |= pairs or {}
        return 0


class MemoryClient:
    """One client's way to a pool: :class:`kvstore.beyond.rados.objects.Objects`."""

    def __init__(self, pool: MemoryPool) -> None:
        self.pool = pool
        self.finished: list[MemoryOperation] = []

    def _begin(self, kind: str, name: bytes, done: Any, *what: Any) -> MemoryOperation:
        operation = MemoryOperation(self, kind, name, done, *what)
        self.pool.queue.append(operation)
        return operation

    def read_pairs(self, name: bytes, keys: list[bytes], done: Any) -> MemoryOperation:
        return self._begin("read_pairs", name, done, keys)

    def list_pairs(
        self, name: bytes, after: bytes, prefix: bytes, most: int, done: Any
    ) -> MemoryOperation:
        return self._begin("list_pairs", name, done, after, prefix, most)

    def read_data(self, name: bytes, most: int, done: Any) -> MemoryOperation:
        return self._begin("read_data", name, done, most)

    def write(
        self,
        name: bytes,
        guard: int,
        pairs: dict[bytes, bytes] | None,
        removed: list[bytes] | None,
        data: bytes | None,
        done: Any,
        size: int | None = None,
    ) -> MemoryOperation:
        assert all(b"\0" not in key for key in (*(pairs or ()), *(removed or ())))
        return self._begin("write", name, done, guard, pairs, removed, data, size)

    def remove(self, name: bytes, done: Any) -> MemoryOperation:
        return self._begin("remove", name, done)

    def is_there(self) -> bool:
        return self.pool.exists

    def drain(self) -> list[MemoryOperation]:
        taken, self.finished = self.finished, []
        return taken
