"""A group on memory disks, driven step by step by the test: no thread, no clock."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import Options as EngineOptions
from kvstore.errors import Error
from kvstore.raft import Options
from kvstore.replica import Group, Replica, ReplicaOptions, Work
from kvstore.replica.notices import Later, at_once
from kvstore.state import (
    Command,
    MemoryBounds,
    delete_command,
    encode_commands,
    put_command,
    request_digest,
    result_of,
)

STEPS_MAX = 2000
TICK_S = 0.05
SMALL = ReplicaOptions(
    raft=Options(tail_entries=16, tail_bytes=4096, log_entries_max=400),
    engine=EngineOptions(
        wal=False, background=False, write_buffer_size=64 << 10, max_file_size=64 << 10
    ),
    segment_bytes=64 << 10,
    log_tail_bytes=0,
    memory=MemoryBounds(requests=64),
)


def put_of(request: str, key: bytes, value: bytes) -> Command:
    return put_command(request_digest(request.encode()), key, value)


def delete_of(request: str, key: bytes) -> Command:
    return delete_command(request_digest(request.encode()), key)


def into(answers: list[object]) -> Callable[[bytes | Error], None]:
    """Has a proposal's results appended to ``answers`` as one list, or why it has none."""

    def done(outcome: bytes | Error) -> None:
        words = outcome if isinstance(outcome, Error) else [*map(result_of, outcome)]
        answers.append(words)

    return done


class LaterWork:
    """Holds jobs of some kinds back until the test has them done; the others are done at once."""

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds
        self.jobs: deque[tuple[Callable[[], None], Callable[[], None]]] = deque()

    def run(self, kind: str, job: Callable[[], None], then: Callable[[], None]) -> None:
        if kind.startswith(self.kinds):
            self.jobs.append((job, then))
        else:
            job()
            then()

    def do(self) -> None:
        """All that was asked for so far."""
        for _ in range(len(self.jobs)):
            job, then = self.jobs.popleft()
            job()
            then()


class DrivenGroup:
    """Opens a group in ``/data`` of ``disk`` and drives it until something is so."""

    def __init__(
        self,
        disk: MemoryFileSystem | None = None,
        *,
        members: int = 3,
        seed: int = 1,
        cluster: str = "a-cluster",
        options: ReplicaOptions = SMALL,
        work: Work | None = None,
        later: Later = at_once,
    ) -> None:
        if disk is None:
            disk = MemoryFileSystem()
            disk.make_directories("/data")
        self.disk = disk
        self.failed: dict[int, Error] = {}
        self.answers: list[object] = []
        self.steps = 0
        self.group = Group(
            "/data",
            cluster=cluster,
            wake=lambda: None,
            rng=random.Random(seed),
            members=members,
            options=options,
            filesystem=disk,
            on_failure=self.failed.__setitem__,
            threaded=False,
            work=work,
            now=lambda: self.steps * TICK_S,
            later=later,
        )

    def __enter__(self) -> DrivenGroup:
        return self

    def __exit__(self, *exc: object) -> None:
        self.group.close()

    def step(self) -> None:
        """Deliver, work, sync, and let a tick pass."""
        self.group.turn()
        for replica in self.group.replicas.values():
            if replica.storage_busy:
                replica.sync_storage()
        self.group.turn()
        self.group.tick()
        self.steps += 1

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(STEPS_MAX):
            if condition():
                return
            self.step()
        raise AssertionError(f"not so after {STEPS_MAX} steps; failures: {self.failed}")

    def leader(self) -> Replica:
        self.until(self.group.leader_replica)
        leader = self.group.leader_replica()
        assert leader is not None
        return leader

    def encoded(self, command: Command) -> bytes:
        return encode_commands([command])

    def ask(self, commands: list[Command], member: int | None = None) -> object:
        """Propose at the leader (or a member) and wait for the answer."""
        replica = self.leader() if member is None else self.group.replicas[member]
        answers: list[object] = []
        replica.propose(encode_commands(commands), into(answers))
        self.until(lambda: answers)
        return answers[0]

    def put(self, key: bytes, value: bytes, request: str | None = None) -> object:
        return self.ask([put_of(request or f"put-{key!r}-{value!r}", key, value)])

    def delete(self, key: bytes, request: str) -> object:
        return self.ask([delete_of(request, key)])

    def read(self, key: bytes) -> object:
        """Read linearizably at the leader; the reason where that can't be done."""
        leader = self.leader()
        answers: list[object] = []
        leader.read(answers.append)
        self.until(lambda: answers)
        return leader.machine.get(key) if answers[0] is None else answers[0]

    def settle(self) -> None:
        """Until every member that works has applied all that the leader has."""

        def settled() -> bool:
            applied = {
                replica.status().applied
                for replica in self.group.replicas.values()
                if replica.failure is None
            }
            leader = self.group.leader_replica()
            return (
                leader is not None
                and len(applied) == 1
                and leader.status().raft.last_index in applied
            )

        self.until(settled)

    def hashes(self) -> set[tuple[int, int]]:
        return {
            (replica.machine.revision, replica.machine.state_hash)
            for replica in self.group.replicas.values()
            if replica.failure is None
        }

    def power_off(self, seed: int = 0, keep: str = "none") -> MemoryFileSystem:
        """The disk as a power loss at this moment leaves it."""
        return self.disk.crash(random.Random(seed), keep)  # type: ignore[arg-type]
