"""What etcd's v3 API says of keys, leases and compaction, as plainly as it can be said.

A copy of the whole map is kept for each revision, and rules are followed one at a time, in the
words of the specification. Nothing here is fast, and nothing comes from the code it judges but the
tuples of requests and answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kvstore.etcd_errors import EtcdError, Reason
from kvstore.state.mvcc.answers import (
    AlarmAnswer,
    Answer,
    AuthAnswer,
    CompactAnswer,
    DeleteRangeAnswer,
    EnableAnswer,
    Event,
    KeyValue,
    LeaseCheckpointAnswer,
    LeaseGrantAnswer,
    LeaseRevokeAnswer,
    PutAnswer,
    RangeAnswer,
    TxnAnswer,
)
from kvstore.state.mvcc.requests import (
    Alarm,
    AuthEnable,
    AuthOperation,
    Compact,
    Compare,
    DeleteRange,
    EnableModel,
    LeaseCheckpoint,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Proposal,
    Put,
    RaiseLevel,
    Range,
    RoleAdd,
    RoleGrantPermission,
    Txn,
    UserAdd,
    UserChangePassword,
)
from tests.unit.state.mvcc.auth_oracle import AuthOracle, refuse

Keys = dict[bytes, KeyValue]


def is_in(key: bytes, start: bytes, end: bytes) -> bool:
    """Whether a request with ``start`` and ``end`` means ``key``."""
    if end == b"":
        return key == start
    if end == b"\0":
        return key >= start
    return start <= key < end


class Oracle:
    """The model. ``states``: the keys as of each revision, ``events``: of each, in order."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = -1
        self.states: dict[int, Keys] = {0: {}, 1: {}}
        self.events: dict[int, list[Event]] = {}
        # TTL, rest, birth
        self.leases: dict[int, tuple[int, int, int]] = {}
        self.alarms: set[tuple[int, int]] = set()
        self.auth = AuthOracle()

    @property
    def now(self) -> Keys:
        return self.states[self.revision]

    def apply(self, proposal: Proposal, term: int) -> Answer | EtcdError:
        """What the operation comes to."""
        try:
            self._check_alarms(proposal.operation)
            check(proposal.operation)
            leased: dict[int, list[bytes]] = {}
            for key, kv in self.now.items():
                leased.setdefault(kv.lease, []).append(key)
            self.auth.check(proposal, leased)
            return self._apply(proposal.operation, proposal.id, term)
        except EtcdError as error:
            return error

    def _apply(self, operation: Operation, proposal_id: bytes, term: int) -> Answer:
        match operation:
            case Put():
                refuse(
                    operation.lease and operation.lease not in self.leases, Reason.LEASE_NOT_FOUND
                )
                self._check_previous(operation)
                return self._change([operation])[0]  # type: ignore[return-value]
            case DeleteRange():
                return self._change([operation])[0]  # type: ignore[return-value]
            case Txn():
                return self._txn(operation)
            case Compact(revision):
                refuse(revision <= self.compacted, Reason.COMPACTED)
                refuse(revision > self.revision, Reason.FUTURE_REVISION)
                self.compacted = revision
                return CompactAnswer(self.revision)
            case LeaseGrant(lease, ttl):
                refuse(lease == 0, Reason.LEASE_NOT_FOUND)
                refuse(lease in self.leases, Reason.LEASE_EXISTS)
                self.leases[lease] = (max(ttl, 1), -1, int.from_bytes(proposal_id[:8], "big"))
                return LeaseGrantAnswer(self.revision, lease, max(ttl, 1))
            case LeaseRevoke():
                return self._revoke(operation, term)
            case LeaseCheckpoint(noted_in, rests):
                refuse(noted_in != term, Reason.LEADER_CHANGED)
                for lease, birth, rest in rests:
                    if lease in self.leases and self.leases[lease][2] == birth:
                        ttl = self.leases[lease][0]
                        self.leases[lease] = (ttl, rest if 0 <= rest <= ttl else -1, birth)
                return LeaseCheckpointAnswer(self.revision)
            case Alarm():
                return self._alarm(operation)
            case EnableModel() | RaiseLevel():
                return EnableAnswer(self.revision)
            case _:
                self.auth.apply(operation)
                return AuthAnswer(self.revision)

    def _check_alarms(self, operation: Operation) -> None:
        if isinstance(
            operation, Alarm | EnableModel | RaiseLevel | LeaseCheckpoint | AuthOperation
        ):
            return
        kinds = [kind for _, kind in self.alarms]
        refuse(2 in kinds, Reason.CORRUPT)
        puts = isinstance(operation, Put | LeaseGrant) or (
            isinstance(operation, Txn)
            and any(isinstance(leaf, Put) for _, leaf in leaves(operation))
        )
        refuse(1 in kinds and puts, Reason.NO_SPACE)

    def _alarm(self, operation: Alarm) -> AlarmAnswer:
        one = (operation.member, operation.kind)
        told: list[tuple[int, int]] = []
        if operation.action == 0:
            told = [alarm for alarm in sorted(self.alarms) if operation.kind in (0, alarm[1])]
        elif operation.action == 1 and operation.kind in (1, 2):
            told = [one]
            self.alarms.add(one)
        elif operation.action == 2 and one in self.alarms:
            told = [one]
            self.alarms.remove(one)
        return AlarmAnswer(self.revision, tuple(told))

    def _revoke(self, operation: LeaseRevoke, term: int) -> LeaseRevokeAnswer:
        lease = operation.id
        if operation.term:
            refuse(operation.term != term, Reason.LEADER_CHANGED)
        refuse(lease not in self.leases, Reason.LEASE_NOT_FOUND)
        if operation.term:
            refuse(operation.birth != self.leases[lease][2], Reason.LEASE_NOT_FOUND)
        keys = sorted(key for key, kv in self.now.items() if kv.lease == lease)
        self._change([DeleteRange(key) for key in keys])
        del self.leases[lease]
        return LeaseRevokeAnswer(self.revision, lease)

    def _check_previous(self, put: Put) -> None:
        refuse(
            (put.ignore_value or put.ignore_lease) and put.key not in self.now, Reason.KEY_NOT_FOUND
        )

    def _txn(self, txn: Txn) -> TxnAnswer:
        taken = self._taken(txn)
        for operation in taken:
            if isinstance(operation, Put):
                self._check_previous(operation)
                refuse(
                    operation.lease and operation.lease not in self.leases, Reason.LEASE_NOT_FOUND
                )
        for operation in taken:
            if isinstance(operation, Range) and operation.revision != 0:
                refuse(operation.revision > self.revision, Reason.FUTURE_REVISION)
                refuse(operation.revision < self.compacted, Reason.COMPACTED)
        before = dict(self.now)
        flat = iter(self._change(taken))
        return self._answer(txn, flat, before, self.revision)

    def _taken(self, txn: Txn) -> list[Put | Range | DeleteRange]:
        """What is to be done, nested Txns taken apart."""
        taken: list[Put | Range | DeleteRange] = []
        for operation in txn.success if holds(txn, self.now) else txn.failure:
            taken += self._taken(operation) if isinstance(operation, Txn) else [operation]
        return taken

    def _answer(self, txn: Txn, flat: Iterator[Any], before: Keys, revision: int) -> TxnAnswer:
        succeeded = holds(txn, before)
        answers = [
            self._answer(operation, flat, before, 0) if isinstance(operation, Txn) else next(flat)
            for operation in (txn.success if succeeded else txn.failure)
        ]
        return TxnAnswer(revision, succeeded, tuple(answers))

    def _change(
        self, operations: Sequence[Put | Range | DeleteRange]
    ) -> list[PutAnswer | RangeAnswer | DeleteRangeAnswer]:
        """Do all of them at one revision, which counts if something changed."""
        next_revision = self.revision + 1
        keys = dict(self.now)
        events: list[Event] = []
        answers: list[PutAnswer | RangeAnswer | DeleteRangeAnswer] = []
        for operation in operations:
            match operation:
                case Put(key):
                    old = keys.get(key)
                    keys[key] = KeyValue(
                        key,
                        old.create_revision if old else next_revision,
                        next_revision,
                        old.version + 1 if old else 1,
                        old.value if old and operation.ignore_value else operation.value,
                        old.lease if old and operation.ignore_lease else operation.lease,
                    )
                    events.append(Event(False, keys[key], old.mod_revision if old else 0, old))
                    answers.append(PutAnswer(next_revision, old if operation.prev_kv else None))
                case DeleteRange(start, end):
                    gone = [keys[key] for key in sorted(keys) if is_in(key, start, end)]
                    for old in gone:
                        del keys[old.key]
                        kv = KeyValue(old.key, 0, next_revision, 0, b"", 0)
                        events.append(Event(True, kv, old.mod_revision, old))
                    revision = next_revision if events else self.revision
                    told = tuple(gone) if operation.prev_kv else ()
                    answers.append(DeleteRangeAnswer(revision, len(gone), told))
                case Range():
                    past = self.states[operation.revision] if operation.revision > 0 else keys
                    revision = next_revision if events else self.revision
                    answers.append(take(past, operation, revision))
        if events:
            self.revision = next_revision
            self.states[next_revision] = keys
            self.events[next_revision] = events
        return answers

    def read(self, request: Range) -> RangeAnswer:
        """A Range that goes through no log; raises EtcdError."""
        check(request)
        revision = request.revision
        refuse(revision > self.revision, Reason.FUTURE_REVISION)
        refuse(0 < revision < self.compacted, Reason.COMPACTED)
        return take(self.states[revision] if revision > 0 else self.now, request, self.revision)


def take(keys: Keys, request: Range, revision: int) -> RangeAnswer:
    """Section 4.3, from its second step on."""
    found = [keys[key] for key in sorted(keys) if is_in(key, request.key, request.range_end)]
    count = len(found)
    if request.count_only:
        return RangeAnswer(revision, (), False, count)
    if request.max_mod_revision:
        found = [kv for kv in found if kv.mod_revision <= request.max_mod_revision]
    if request.min_mod_revision:
        found = [kv for kv in found if kv.mod_revision >= request.min_mod_revision]
    if request.max_create_revision:
        found = [kv for kv in found if kv.create_revision <= request.max_create_revision]
    if request.min_create_revision:
        found = [kv for kv in found if kv.create_revision >= request.min_create_revision]
    field = ["key", "version", "create_revision", "mod_revision", "value"][request.sort_target]
    # Python's sort keeps keys with the same field in their order, both ways.
    found.sort(key=lambda kv: getattr(kv, field), reverse=request.sort_order == 2)
    more = 0 < request.limit < len(found)
    if more:
        found = found[: request.limit]
    if request.keys_only:
        found = [kv._replace(value=b"") for kv in found]
    return RangeAnswer(revision, tuple(found), more, count)


def holds(txn: Txn, keys: Keys) -> bool:
    """Whether all compares of ``txn`` are true."""
    return all(_holds(compare, keys) for compare in txn.compare)


def _holds(compare: Compare, keys: Keys) -> bool:
    found = [kv for key, kv in keys.items() if is_in(key, compare.key, compare.range_end)]
    if not found:
        if compare.target == 3:
            return False
        found = [KeyValue(b"", 0, 0, 0, b"", 0)]
    for kv in found:
        fields: list[Any] = [kv.version, kv.create_revision, kv.mod_revision, kv.value, kv.lease]
        operand: Any = compare.operand
        known = 0 <= compare.target < len(fields)
        field = fields[compare.target] if known else operand
        truth = {0: field == operand, 1: field > operand, 2: field < operand, 3: field != operand}
        if not truth.get(compare.result, True):
            return False
    return True


# Static checks

Leaf = Put | Range | DeleteRange
Path = tuple[tuple[int, str], ...]


def leaves(txn: Txn, path: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """All that isn't a Txn in it, and the way there: a place in each branch, and which branch."""
    for name, branch in (("success", txn.success), ("failure", txn.failure)):
        for place, operation in enumerate(branch):
            if isinstance(operation, Txn):
                yield from leaves(operation, (*path, (-1, name), (place, "")))
            else:
                yield (*path, (-1, name), (place, "")), operation


def check(operation: Operation | Range) -> None:
    """What is refused by its looks."""
    match operation:
        case Txn():
            size = _check_sizes(operation, 128)
            refuse(size > 16384, Reason.TOO_MANY_OPERATIONS)
            _check_duplicates(operation)
        case Put() | Range() | DeleteRange():
            refuse(operation.key == b"", Reason.EMPTY_KEY)
            if isinstance(operation, Put):
                refuse(operation.ignore_value and operation.value, Reason.VALUE_PROVIDED)
                refuse(operation.ignore_lease and operation.lease, Reason.LEASE_PROVIDED)
            if isinstance(operation, Range):
                refuse(operation.sort_order not in (0, 1, 2), Reason.INVALID_SORT_OPTION)
                refuse(operation.sort_target not in (0, 1, 2, 3, 4), Reason.INVALID_SORT_OPTION)
        case LeaseGrant(_, ttl):
            refuse(ttl > 9_000_000_000, Reason.TTL_TOO_LARGE)
        case AuthEnable(token_key):
            refuse(len(token_key) != 32, Reason.INVALID_AUTH_MANAGEMENT)
        case UserAdd(name) | UserChangePassword(name):
            refuse(name == "", Reason.USER_EMPTY)
        case RoleAdd(name):
            refuse(name == "", Reason.ROLE_EMPTY)
        case RoleGrantPermission(_, (kind, key, end)):
            refuse(kind not in (0, 1, 2) or key == b"", Reason.INVALID_AUTH_MANAGEMENT)
            refuse(end not in (b"", b"\0") and end <= key, Reason.INVALID_AUTH_MANAGEMENT)


def _check_sizes(txn: Txn, budget: int) -> int:
    longest = max(len(txn.compare), len(txn.success), len(txn.failure))
    refuse(longest > budget, Reason.TOO_MANY_OPERATIONS)
    refuse(any(compare.key == b"" for compare in txn.compare), Reason.EMPTY_KEY)
    size = len(txn.compare) + len(txn.success) + len(txn.failure)
    for operation in (*txn.success, *txn.failure):
        if isinstance(operation, Txn):
            size += _check_sizes(operation, budget - longest)
        else:
            check(operation)
    return size


def _check_duplicates(txn: Txn) -> None:
    """Of any two changes that may both be done: no key is put twice, or put and deleted."""
    changes = [(path, leaf) for path, leaf in leaves(txn) if not isinstance(leaf, Range)]
    for first, (path, one) in enumerate(changes):
        for other_path, other in changes[first + 1 :]:
            if _both_may_be_done(path, other_path):
                refuse(_clash(one, other) or _clash(other, one), Reason.DUPLICATE_KEY)


def _both_may_be_done(path: Path, other: Path) -> bool:
    """Unless they part at the two branches of one Txn."""
    for step, other_step in zip(path, other, strict=False):
        if step != other_step:
            return step[0] != other_step[0]
    return True


def _clash(one: Leaf, other: Leaf) -> bool:
    if not isinstance(one, Put):
        return False
    if isinstance(other, Put):
        return one.key == other.key
    assert isinstance(other, DeleteRange)
    return is_in(one.key, other.key, other.range_end)
