"""Random operations that mostly make sense for what is there."""

from __future__ import annotations

import random
from collections.abc import Callable

from kvstore.state.mvcc.requests import (
    Alarm,
    Compact,
    Compare,
    DeleteRange,
    EnableModel,
    LeaseCheckpoint,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Put,
    Range,
    Txn,
)
from tests.unit.state.mvcc.oracle import Oracle

KEYS = [b"a", b"b", b"b\0", b"ba", b"c", b"\0", b"\xff", b"\xff\xff", b"d" * 300]
LEASES = [1, 2, -1, -(2**63), 2**63 - 1]
VALUES = [b"", b"1", b"2", b"10", b"v" * 700]


class History:
    """Draws requests, seeded."""

    def __init__(self, seed: int, oracle: Oracle) -> None:
        self.random = random.Random(seed)
        self.oracle = oracle

    def one_in(self, number: int) -> bool:
        return self.random.randrange(number) == 0

    def key(self) -> bytes:
        return b"" if self.one_in(150) else self.random.choice(KEYS)

    def end(self) -> bytes:
        if self.one_in(2):
            return b""
        return self.random.choice([b"\0", b"b", b"c", b"d", b"\xff"])

    def revision(self) -> int:
        """0, or any that is, was, or nearly is."""
        oracle = self.oracle
        if self.one_in(3):
            return 0
        if self.one_in(4):
            return self.random.choice([-1, -5, 1, oracle.compacted, oracle.revision + 1])
        # What is new is the likelier: it may be of the very slice that reads it.
        back = self.random.choice([4, 4, oracle.revision])
        return self.random.randint(
            max(oracle.compacted - 1, oracle.revision - back, 0), oracle.revision
        )

    def bound(self) -> int:
        return self.revision() if self.one_in(4) else 0

    def range(self) -> Range:
        return Range(
            self.key(),
            self.end(),
            self.random.choice([0, 0, 1, 2, 3, 100, -1, 2**63 - 1]),
            self.revision(),
            7 if self.one_in(150) else self.random.choice([0, 1, 2]),
            -1 if self.one_in(150) else self.random.choice([0, 0, 0, 1, 2, 3, 4]),
            self.one_in(4),
            self.one_in(6),
            self.bound(),
            self.bound(),
            self.bound(),
            self.bound(),
        )

    def put(self) -> Put:
        ignore_value = self.one_in(6)
        ignore_lease = self.one_in(6)
        return Put(
            self.key(),
            b"" if ignore_value and not self.one_in(30) else self.random.choice(VALUES),
            0 if (ignore_lease and not self.one_in(30)) or self.one_in(2) else self.lease(),
            self.one_in(2),
            ignore_value,
            ignore_lease,
        )

    def lease(self) -> int:
        known = list(self.oracle.leases)
        if known and not self.one_in(8):
            return self.random.choice(known)
        return self.random.choice(LEASES)

    def delete(self) -> DeleteRange:
        return DeleteRange(self.key(), b"" if self.one_in(2) else self.end(), self.one_in(2))

    def compare(self) -> Compare:
        target = 9 if self.one_in(60) else self.random.randrange(5)
        result = 9 if self.one_in(60) else self.random.randrange(4)
        key = self.key()
        kv = self.oracle.now.get(key)
        operand: int | bytes
        if target == 3:
            operand = kv.value if kv and self.one_in(2) else self.random.choice(VALUES)
        elif kv and target < 5 and not self.one_in(4):
            operand = [kv.version, kv.create_revision, kv.mod_revision, 0, kv.lease][target]
        else:
            operand = self.random.choice([0, 1, self.oracle.revision, -1])
        return Compare(key, target, result, operand, b"" if self.one_in(2) else self.end())

    def txn(self, depth: int = 3) -> Txn:
        def branch() -> tuple[Range | Put | DeleteRange | Txn, ...]:
            kinds: list[Callable[[], Range | Put | DeleteRange | Txn]] = [
                self.range,
                self.put,
                self.put,
                self.delete,
            ]
            if depth:
                kinds.append(lambda: self.txn(depth - 1))
            return tuple(
                self.random.choice(kinds)() for _ in range(self.random.choice([0, 1, 1, 2, 2, 3]))
            )

        compares = self.random.choice([0, 1, 1, 2])
        return Txn(tuple(self.compare() for _ in range(compares)), branch(), branch())

    def txn_of_reads(self) -> Txn:
        """One that needs no log."""

        def branch() -> tuple[Range, ...]:
            return tuple(self.range() for _ in range(self.random.randrange(3)))

        return Txn((self.compare(),), branch(), branch())

    def checkpoint(self) -> LeaseCheckpoint:
        rests = []
        for _ in range(self.random.randrange(3)):
            lease = self.lease()
            known = self.oracle.leases.get(lease)
            birth = known[2] if known and not self.one_in(4) else 1
            rests.append((lease, birth, self.random.choice([-1, 0, 1, 5, 2**60, -7])))
        return LeaseCheckpoint(self.random.choice([1, 1, 1, 2]), tuple(rests))

    def revoke(self) -> LeaseRevoke:
        lease = self.lease()
        if self.one_in(2):
            return LeaseRevoke(lease)
        known = self.oracle.leases.get(lease)
        birth = known[2] if known and not self.one_in(4) else 1
        return LeaseRevoke(lease, self.random.choice([1, 1, 1, 2]), birth)

    def operation(self) -> Operation:
        """Any, the likelier the more there is to it."""
        draw = self.random.randrange(100)
        if draw < 30:
            return self.put()
        if draw < 42:
            return self.delete()
        if draw < 76:
            return self.txn()
        if draw < 84:
            return LeaseGrant(self.random.choice([*LEASES, 0]), self.random.choice([5, 0, 10**10]))
        if draw < 89:
            return self.revoke()
        if draw < 92:
            return self.checkpoint()
        if draw < 95:
            return Compact(self.revision())
        if draw < 96:
            return EnableModel()
        if self.oracle.alarms and not self.one_in(4):
            member, kind = self.random.choice(sorted(self.oracle.alarms))
            return Alarm(2, member, kind)
        kind = self.random.choice([0, 0, 0, 1, 1, 2, 3])
        return Alarm(self.random.choice([0, 1, 2, 3]), self.random.choice([0, 1, 2**64 - 1]), kind)
