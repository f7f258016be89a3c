"""A story of three members, one of whose disks fails somewhere; what must hold is checked.

The members found a cluster, write until logs change segments and tables are flushed and compacted,
one is cut off until it needs a snapshot and gets it, all start again, and write on. Whoever asks
retries with the same id until it is answered, so that what each write comes to is known exactly.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import Error, StorageError
from kvstore.replica import Replica
from kvstore.state import Command, encode_commands
from tests.crash.disk_sweep import ALL
from tests.unit.replica.driven_group import DrivenGroup, delete_of, into, put_of

__all__ = ["Fault", "MemberStory", "is_lack"]

ROUNDS = 3 if ALL else 1
VALUE_BYTES = 2000
KEYS = 40
TRIES = 1000
LACKS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
WRITES = frozenset(("pwrite", "datasync", "allocate", "truncate"))


@dataclass
class Fault:
    """The ``at``-th call of ``operation`` on one member's files fails, or all from it on.

    ``path``: only those whose path contains it.
    """

    operation: str
    code: int
    at: int
    always: bool = False
    path: str = ""
    seen: int = 0
    hits: list[str] = field(default_factory=list)
    healed: bool = False

    def before(self, operation: str, path: str) -> None:
        """Raises what the disk is to answer."""
        if operation != self.operation or self.path not in path or self.healed:
            return
        self.seen += 1
        if self.seen == self.at or (self.always and self.seen > self.at):
            self.hits.append(path)
            raise OSError(self.code, os.strerror(self.code), path)


def is_lack(fault: Fault) -> bool:
    """Only space or descriptors were lacking, and nothing had begun that can't be taken back.

    A sync that fails has failed, whatever its number; the log's space was reserved before. What a
    directory's sync lacks is a descriptor: without one it never began.
    """
    if fault.code not in LACKS or fault.operation == "datasync":
        return False
    if fault.operation == "sync_directory":
        return fault.code in (errno.EMFILE, errno.ENFILE)
    return not (fault.operation == "pwrite" and any(_is_of_log(path) for path in fault.hits))


def _is_of_log(path: str) -> bool:
    # A segment keeps the name under which it was opened.
    return "/log/" in path and path.endswith((".wal", ".spare"))


class MemberStory:
    """Member ``victim`` has the fault; ``cut_off`` is the one that needs a snapshot."""

    def __init__(self, victim: int, cut_off: int, fault: Fault) -> None:
        self.fault = fault
        self.victim = victim
        self.cut_off = cut_off
        self.disk = MemoryFileSystem()
        self.disk.make_directories("/data")
        self.disk.on_operation = self._before
        self.model: dict[bytes, bytes] = {}
        self.chance = random.Random(5)
        self.asked = 0
        self.openings = 0
        self.wrong: list[str] = []
        self.stopped = False
        """The victim has fenced itself at some time, or didn't start."""
        self._driven: DrivenGroup | None = None
        # What a sync failed of, while it is open: nothing more may be written there.
        self._lost: set[str] = set()

    # --- the disk --------------------------------------------------------------------------------

    def _before(self, operation: str, path: str) -> None:
        if f"/node{self.victim}/" not in f"{path}/":
            return
        if operation in WRITES and self._is_lost(path):
            self.wrong.append(f"{operation} of {path} after a sync of it had failed")
        if operation in ("open", "unlink"):
            self._lost.discard(path)
        try:
            self.fault.before(operation, path)
        except OSError:
            if operation == "datasync":
                self._lost.add(path)
            raise

    def _is_lost(self, path: str) -> bool:
        # A log that has failed begins no other segment either.
        return path in self._lost or (
            _is_of_log(path) and any(_is_of_log(lost) for lost in self._lost)
        )

    # --- the members -----------------------------------------------------------------------------

    @property
    def driven(self) -> DrivenGroup:
        """The members, opened if they aren't: in a second try where the first met the fault."""
        while self._driven is None:
            self._lost.clear()
            self.openings += 1
            try:
                self._driven = DrivenGroup(self.disk, seed=self.openings)
            except StorageError as error:
                self._expect(error)
                self.stopped = True
                if self.fault.always:
                    self.fault.healed = True
        return self._driven

    def _expect(self, error: StorageError) -> None:
        assert self.fault.hits, error
        assert error.errno == self.fault.code, error

    def restart(self) -> None:
        """All stop and start again."""
        driven, self._driven = self._driven, None
        if driven is None:
            return
        self._note_failures(driven)
        try:
            driven.group.close()
        except StorageError as error:
            self._expect(error)
        assert self.driven

    def _note_failures(self, driven: DrivenGroup) -> None:
        for member, failure in driven.failed.items():
            assert member == self.victim, (member, failure)
            assert isinstance(failure, StorageError), failure
            self._expect(failure)
            self.stopped = True

    # --- what is asked ---------------------------------------------------------------------------

    def ask(self, command: Command) -> object:
        """The answer, in whatever try it comes."""
        driven = self.driven
        answers: list[object] = []
        for _ in range(TRIES):
            leader = self._leader(driven)
            if leader is not None:
                answers.clear()
                leader.propose(encode_commands([command]), into(answers))
                driven.until(lambda: answers)
                if not isinstance(answers[0], Error):
                    return answers[0]
            driven.step()
        raise AssertionError(f"no answer but {answers}; failures: {driven.failed}")

    @staticmethod
    def _leader(driven: DrivenGroup) -> Replica | None:
        if driven.failed:
            # Together with who is cut off it would be a majority that is away.
            driven.group.network.heal()
        return driven.group.leader_replica()

    def write(self, count: int, until: Callable[[], bool] = lambda: False) -> None:
        """Puts, and a delete now and then."""
        for _ in range(count):
            if until():
                return
            self.asked += 1
            key = b"%02d" % self.chance.randrange(KEYS)
            existed = key in self.model
            if self.chance.random() < 0.1:
                command = delete_of(f"r{self.asked}", key)
                self.model.pop(key, None)
            else:
                value = self.chance.randbytes(VALUE_BYTES)
                command = put_of(f"r{self.asked}", key, value)
                self.model[key] = value
            assert self.ask(command) == [existed]
            if self.asked % 8 == 0:
                self.read()

    def read(self) -> None:
        """A linearizable read is right, or says that it can't be had now."""
        key = b"%02d" % self.chance.randrange(KEYS)
        driven = self.driven
        answers: list[Error | None] = []
        for _ in range(TRIES):
            leader = self._leader(driven)
            if leader is not None:
                answers.clear()
                leader.read(answers.append)
                driven.until(lambda: answers)
                if answers[0] is None and self._finds(leader, key):
                    return
            driven.step()
        raise AssertionError(f"no read was answered, but {answers}")

    def _finds(self, leader: Replica, key: bytes) -> bool:
        try:
            found = leader.machine.get(key)
        except StorageError as error:
            self._expect(error)
            leader.read_failed(error)
            return False
        assert found == self.model.get(key)
        return True

    # --- the story -------------------------------------------------------------------------------

    def tell(self) -> None:
        """All of it, checked."""
        for _ in range(ROUNDS):
            self.write(45)
            self.fall_behind()
            self.write(10)
            self.restart()
        self.write(45)
        self.end()

    def fall_behind(self) -> None:
        """One misses more than the others' logs keep: it needs their state."""
        if self.driven.failed:
            self.restart()
        driven = self.driven
        network = driven.group.network
        others = [member for member in driven.group.replicas if member != self.cut_off]
        network.isolate(self.cut_off, others)
        last = driven.group.replicas[self.cut_off].status().raft.last_index

        def needs_it() -> bool:
            return driven.failed != {} or driven.leader().status().raft.first_index > last + 1

        self.write(150, needs_it)
        network.heal()
        if not driven.failed and not self.fault.always:
            driven.until(lambda: driven.failed or self._are_equal(driven))

    @staticmethod
    def _are_equal(driven: DrivenGroup) -> bool:
        leader = driven.group.leader_replica()
        if leader is None:
            return False
        last = leader.status().raft.last_index
        return all(one.status().applied == last for one in driven.group.replicas.values())

    def end(self) -> None:
        """What is there at once, after a restart, and after a power loss."""
        self.fault.healed = True
        if is_lack(self.fault) and self.fault.hits:
            assert not self.driven.failed, (self.fault, self.driven.failed)
            self.check(self.driven)
        self.restart()
        self.check(self.driven)
        lost = self.disk.crash(random.Random(self.fault.at), "random")
        self.driven.group.close()
        self._driven = None
        self.disk.on_operation = None
        for disk in (self.disk, lost):
            with DrivenGroup(disk, seed=99) as driven:
                self.check(driven)
        assert not self.wrong, self.wrong

    def check(self, driven: DrivenGroup) -> None:
        """All members have all that was acknowledged, and nothing else."""
        driven.until(lambda: self._are_equal(driven))
        assert len(driven.hashes()) == 1
        for replica in driven.group.replicas.values():
            found = {
                key: value
                for key in (b"%02d" % number for number in range(KEYS))
                if (value := replica.machine.get(key)) is not None
            }
            assert found == self.model
        driven.until(lambda: not any(r.storage_trouble for r in driven.group.replicas.values()))
