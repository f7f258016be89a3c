"""Read, think, write: transactions that are tried again when others came in between.

What a function reads is remembered with its revision, what it writes is kept back; at the end one
transaction writes all of it if what was read is still so (as etcd's and FoundationDB's clients do).
All reads show the revision that the first of them found.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from kvstore.client.background import Runner
from kvstore.client.calls import Calls
from kvstore.client.entries import KeyValue
from kvstore.client.keys import Compare, KeyRange, Keys, selected, single
from kvstore.client.requests import BytesLike, as_bytes
from kvstore.client.scanning import AsyncRange, Selection
from kvstore.client.transactions import Delete, LeaseLike, Operation, Parts, Put, succeeds
from kvstore.errors import CompactedError, ConflictError, InvalidArgumentError, Outcome

__all__ = ["AsyncDraft", "Draft", "transact", "transact_blocking"]

T = TypeVar("T")

# What one transaction may have of conditions, and of operations.
OPERATIONS_MAX: Final = 128

# Before try n a random time of up to this, twice as long each time.
PAUSE_FIRST_S: Final = 0.002
PAUSE_MAX_S: Final = 0.5


class AsyncDraft:
    """What a function of ``transact`` reads and writes with. For one task at a time."""

    def __init__(self, calls: Calls, timeout: float | None) -> None:
        self._calls = calls
        self._timeout = timeout
        self.revision = 0
        """What reads show; 0 before the first."""
        self._read: dict[bytes, KeyValue | None] = {}
        self._ranges: list[KeyRange] = []
        self._writes: dict[bytes, Operation] = {}
        self._written: dict[bytes, bytes | None] = {}

    async def get(self, key: BytesLike) -> bytes | None:
        """The value of ``key``, None if it has none; as written here, if it was.

        Raises as the client's ``get`` does.
        """
        one = single(key)
        if one.key in self._written:
            return self._written[one.key]
        if one.key not in self._read:
            await self._fetch(one)
        entry = self._read[one.key]
        return None if entry is None else entry.value

    async def items(
        self,
        start: BytesLike | None = None,
        end: BytesLike | None = None,
        *,
        prefix: BytesLike | None = None,
    ) -> list[tuple[bytes, bytes]]:
        """Keys and values of a range, in order, with what was written here.

        A key that comes into the range until the end is a conflict like any other. Raises
        InvalidArgumentError for more than 128 keys.
        """
        keys = selected(start, end, prefix)
        found = {entry.key: entry.value for entry in await self._fetch(keys)}
        for key, value in self._written.items():
            if value is None:
                found.pop(key, None)
            elif key >= keys.key and (keys.end == b"\0" or key < keys.end):
                found[key] = value
        return sorted(found.items())

    def put(self, key: BytesLike, value: BytesLike, *, lease: LeaseLike | None = None) -> None:
        """Write ``key`` at the end, if all goes well."""
        written = single(key).key
        self._writes[written] = Put(written, value, lease=lease)
        self._written[written] = as_bytes(value, "value")

    def delete(self, key: BytesLike) -> None:
        """Remove ``key`` at the end, if all goes well."""
        removed = single(key).key
        self._writes[removed] = Delete(removed)
        self._written[removed] = None

    async def commit(self) -> bool:
        """Write what was written; False: others came in between, and nothing was."""
        if not self._writes:
            return True
        return await succeeds(self._calls, self._parts(), self._timeout)

    async def _fetch(self, keys: KeyRange) -> list[KeyValue]:
        selection = Selection(keys, revision=self.revision, limit=OPERATIONS_MAX + 1)
        read = AsyncRange(self._calls, selection, self._timeout)
        entries = await read.list()
        self.revision = read.revision
        if keys.single:
            self._read[keys.key] = entries[0] if entries else None
        else:
            self._ranges.append(keys)
            self._read.update((entry.key, entry) for entry in entries)
        if len(self._read) + len(self._ranges) > OPERATIONS_MAX:
            raise _too_many("read")
        return entries

    def _parts(self) -> Parts:
        if len(self._writes) > OPERATIONS_MAX:
            raise _too_many("written")
        # Nothing in a range is newer than what was read; of what has gone its own condition tells.
        unchanged: list[Compare] = [
            Keys(keys).mod_revision < self.revision + 1 for keys in self._ranges
        ]
        for key, entry in self._read.items():
            mod_revision = 0 if entry is None else entry.mod_revision
            unchanged.append(Keys(KeyRange(key)).mod_revision == mod_revision)
        return Parts().if_(*unchanged).then(*self._writes.values())


class Draft:
    """What a function of :meth:`kvstore.Client.transact` reads and writes with. For one thread."""

    def __init__(self, run: Runner, draft: AsyncDraft) -> None:
        self._run = run
        self._draft = draft

    @property
    def revision(self) -> int:
        """What reads show; 0 before the first."""
        return self._draft.revision

    def get(self, key: BytesLike) -> bytes | None:
        """The value of ``key``, None if it has none; as written here, if it was.

        Raises as the client's ``get`` does.
        """
        return self._run(self._draft.get(key))

    def items(
        self,
        start: BytesLike | None = None,
        end: BytesLike | None = None,
        *,
        prefix: BytesLike | None = None,
    ) -> list[tuple[bytes, bytes]]:
        """Keys and values of a range, in order, with what was written here.

        A key that comes into the range until the end is a conflict like any other. Raises
        InvalidArgumentError for more than 128 keys.
        """
        return self._run(self._draft.items(start, end, prefix=prefix))

    def put(self, key: BytesLike, value: BytesLike, *, lease: LeaseLike | None = None) -> None:
        """Write ``key`` at the end, if all goes well."""
        self._draft.put(key, value, lease=lease)

    def delete(self, key: BytesLike) -> None:
        """Remove ``key`` at the end, if all goes well."""
        self._draft.delete(key)


async def transact(
    calls: Calls, do: Callable[[AsyncDraft], Awaitable[T]], tries: int, timeout: float | None
) -> T:
    """Call ``do`` until what it wrote could be written; see :meth:`kvstore.Client.transact`."""
    for number in range(_checked(tries)):
        draft = AsyncDraft(calls, timeout)
        try:
            result = await do(draft)
            if await draft.commit():
                return result
        except CompactedError:
            pass  # what it began with is forgotten: it was too slow for that
        await asyncio.sleep(_pause(number))
    raise _overtaken(tries)


def transact_blocking(
    run: Runner, calls: Calls, do: Callable[[Draft], T], tries: int, timeout: float | None
) -> T:
    """The same; ``do`` is called in this thread."""
    for number in range(_checked(tries)):
        draft = AsyncDraft(calls, timeout)
        try:
            result = do(Draft(run, draft))
            if run(draft.commit()):
                return result
        except CompactedError:
            pass  # what it began with is forgotten: it was too slow for that
        time.sleep(_pause(number))
    raise _overtaken(tries)


def _checked(tries: int) -> int:
    if tries < 1:
        raise InvalidArgumentError(f"there is at least one try, not {tries}")
    return tries


def _pause(number: int) -> float:
    return random.uniform(0.0, min(PAUSE_MAX_S, PAUSE_FIRST_S * 2**number))


def _overtaken(tries: int) -> ConflictError:
    error = ConflictError(f"others changed what was read, {tries} times")
    error.outcome = Outcome.NOT_APPLIED
    return error


def _too_many(what: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"more than {OPERATIONS_MAX} keys {what}: a transaction has that many conditions and "
        "operations at most"
    )
