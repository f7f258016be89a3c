"""A state with the model through power losses: what comes back and is applied again is the same."""

from __future__ import annotations

import contextlib
import random

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import Options
from kvstore.errors import StorageError
from kvstore.state import (
    StateMachine,
    delete_command,
    encode_commands,
    open_state,
    put_command,
    request_digest,
)
from kvstore.state.mvcc.operations import encode_operations
from kvstore.state.mvcc.requests import (
    LEVEL_NUMBERED,
    SERVER,
    AuthDisable,
    AuthEnable,
    Compact,
    DeleteRange,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Proposal,
    Put,
    RaiseLevel,
    Range,
    RoleAdd,
    UserAdd,
    UserGrantRole,
)

OPTIONS = Options(
    wal=False,
    background=False,
    write_buffer_size=64 << 10,
    max_file_size=64 << 10,
    compaction_trigger=2,
    block_size=1024,
)
ENTRIES = 40
FLUSHED_EACH = 7
KEYS = [b"a", b"b", b"c"]
ALL = Range(b"\0", b"\0")


def entries_of(seed: int) -> list[tuple[int, int, bytes]]:
    """A log: v1's commands, then the model's operations among them."""
    chance = random.Random(seed)
    entries = []
    guard = 0
    for index in range(1, ENTRIES + 1):
        key, value = chance.choice(KEYS), chance.randbytes(chance.choice([3, 300, 3000]))
        request = request_digest(b"%d" % index)
        operations: list[Operation] = []
        match chance.randrange(10) if index > 6 else 0:
            case 0 | 1:
                data = encode_commands([put_command(request, key, value)], guard=guard)
            case 2:
                data = encode_commands([delete_command(request, key)], guard=guard)
            case 3:
                operations = [LeaseGrant(1 + index % 2, 60), Put(key, value, lease=1 + index % 2)]
            case 4:
                operations = [LeaseRevoke(1 + index % 2), DeleteRange(b"a", b"c")]
            case 5 | 6:
                operations = [Put(key, value), Put(key, b"")]
            case 7:
                operations = [UserAdd("root", b""), UserGrantRole("root", "root")]
            case 8:
                # Some of v1's entries are let in as of this, the others as of nothing.
                guard = 3 - guard
                operations = [AuthEnable(bytes(32)), RoleAdd(f"r{index}"), AuthDisable()]
                del operations[chance.randrange(1, 4) :]
            case _:
                operations = [Compact(max(index - 8, 0))]
        if index == 6:
            operations = [RaiseLevel(LEVEL_NUMBERED)]
        if operations:
            data = encode_operations(
                [
                    Proposal(b"%08d%08d" % (index, place), operation, SERVER)
                    for place, operation in enumerate(operations)
                ]
            )
        entries.append((index, 1, data))
    return entries


def opened(disk: MemoryFileSystem) -> StateMachine:
    return StateMachine(open_state("/state", options=OPTIONS, filesystem=disk))


def run(disk: MemoryFileSystem, entries: list[tuple[int, int, bytes]]) -> StateMachine:
    """Apply what the state lacks of ``entries``."""
    machine = opened(disk)
    for entry in entries[machine.applied_index :]:
        machine.apply([entry])
        if entry[0] % FLUSHED_EACH == 0:
            machine.flush()
    return machine


def everything(machine: StateMachine) -> tuple[object, ...]:
    """What can be asked of it, its past included."""
    past = range(max(machine.compacted, 1), machine.revision + 1)
    return (
        machine.applied_index,
        machine.revision,
        machine.state_hash,
        machine.compacted,
        (machine.auth.record, machine.auth.users, machine.auth.roles, machine.guard),
        dict(machine.leases()),
        [machine.lease_keys(lease) for lease in (1, 2)],
        [machine.read_range(ALL._replace(revision=revision)) for revision in past],
        machine.events(past[0], past[-1], 1 << 30, previous=True),
        machine.hash_kv(0),
        [item for item in machine._db if item[0] != b"\x00state"],
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_a_power_loss_at_any_operation_is_made_up_for_by_the_log(seed: int) -> None:
    entries = entries_of(seed)
    undisturbed = MemoryFileSystem()
    expected = everything(whole := run(undisturbed, entries))
    total = undisturbed.operations
    assert total > 60
    assert whole.compacted > 0, "its history was compacted"
    for stop in range(1, total + 1):
        disk = MemoryFileSystem()
        disk.stop_at(stop)
        with contextlib.suppress(StorageError):
            run(disk, entries)
        for keep in ("none", "random"):
            left = disk.crash(random.Random(stop), keep)  # type: ignore[arg-type]
            machine = run(left, entries)
            assert everything(machine) == expected
            machine.close()
