"""Several members in one process, over a network that tests can cut, delay and reorder.

Entries travel as the objects they are: the members share their bytes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial

from kvstore._engine.files.native import FileSystem, PosixFileSystem
from kvstore.errors import ConfigurationError, Error
from kvstore.raft import Membership
from kvstore.replica.log_loss import ASIDE, is_unfounded
from kvstore.replica.notices import Later, at_once
from kvstore.replica.packets import Packet
from kvstore.replica.recovery import Findings, LogFound, refused
from kvstore.replica.replica import Replica, ReplicaOptions
from kvstore.replica.storage import Identity
from kvstore.replica.work import Work

__all__ = ["Group", "InProcessNetwork", "is_fresh", "lost_member"]

INBOX_MAX = 10_000
"""Packets that wait for one member; more are dropped, as a network does."""

ROUNDS_MAX = 16
"""How often one turn goes round the members. An entry or a read point needs three or four; what is
left then waits for the next turn, so that whoever drives the group gets its say."""


class InProcessNetwork:
    """Carries packets between the members of one process.

    ``wake`` asks for :meth:`take` to be called soon. Faults, for tests: :meth:`cut` and
    :meth:`heal` links (each direction by itself), ``hold`` keeps packets back until released, and
    ``shuffle`` reorders what a member takes.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._inboxes: dict[int, list[Packet]] = {}
        self._cut: set[tuple[int, int]] = set()
        self._held: list[Packet] = []
        self.hold: Callable[[Packet], bool] | None = None
        self.shuffle: random.Random | None = None
        self.dropped = 0

    def send(self, packets: Sequence[Packet]) -> None:
        """Put packets into the inboxes of those they are for."""
        for packet in packets:
            sender, to = packet.sender, packet.to
            if (sender, to) in self._cut:
                continue
            if self.hold is not None and self.hold(packet):
                self._held.append(packet)
                continue
            inbox = self._inboxes.setdefault(to, [])
            if len(inbox) >= INBOX_MAX:
                self.dropped += 1
                continue
            inbox.append(packet)
        self._wake()

    def take(self, member: int) -> list[Packet]:
        """What has arrived for ``member``, in order unless shuffled."""
        packets = self._inboxes.pop(member, [])
        if self.shuffle is not None:
            self.shuffle.shuffle(packets)
        return packets

    @property
    def busy(self) -> bool:
        """Something has arrived that nobody took yet."""
        return bool(self._inboxes)

    def cut(self, sender: int, to: int) -> None:
        """Lose everything from ``sender`` to ``to`` from now on."""
        self._cut.add((sender, to))

    def isolate(self, member: int, others: Sequence[int]) -> None:
        """Cut a member off from ``others``, both ways."""
        for other in others:
            self.cut(member, other)
            self.cut(other, member)

    def heal(self) -> None:
        """Mend every link."""
        self._cut.clear()

    def release(self) -> None:
        """Deliver what ``hold`` kept back, and hold nothing any more."""
        self.hold = None
        held, self._held = self._held, []
        self.send(held)


class Group:
    """The members of an embedded cluster, each in its own directory ``node<id>``.

    Driven as one: ``wake`` is asked for one call of :meth:`turn` soon. A turn goes round those that
    have something to do until none has, so that a question and its answers, which wait for no disk,
    take one turn and not one for each message.
    """

    def __init__(
        self,
        path: str,
        *,
        cluster: str,
        wake: Callable[[], None],
        rng: random.Random,
        members: int = 5,
        options: ReplicaOptions | None = None,
        filesystem: FileSystem | None = None,
        on_failure: Callable[[int, Error], None] | None = None,
        threaded: bool = True,
        work: Work | None = None,
        now: Callable[[], float] = time.monotonic,
        later: Later = at_once,
    ) -> None:
        """Open all members below ``path``, founding the cluster where it is new.

        The member that knows most stands for election at once. One that has lost its directory, or
        its log, goes on as one that lost all it had, while a majority of the others is whole.
        Raises ConfigurationError when it isn't, and what Replica raises.
        """
        self._wake = wake
        self._woken = False
        # Who asked for a turn.
        self._due: set[int] = set()
        self.network = InProcessNetwork(self._ask_for_turn)
        self.replicas: dict[int, Replica] = {}
        disk = PosixFileSystem() if filesystem is None else filesystem
        founders = Membership(voters=frozenset(range(1, members + 1)))
        new = [member for member in founders.voters if is_unfounded(disk, f"{path}/node{member}")]
        try:
            # Those that have run before come first: they tell whether the others may be founded.
            for member in sorted(founders.voters, key=lambda member: (member in new, member)):
                forgotten = member in new and self._has_history()
                if forgotten and len(self._whole()) <= members // 2:
                    raise lost_member(path, member)
                self.replicas[member] = Replica(
                    Identity(cluster, member),
                    f"{path}/node{member}",
                    self.network,
                    options=options or ReplicaOptions(),
                    rng=random.Random(rng.getrandbits(64)),
                    wake=partial(self._make_due, member),
                    founders=None if forgotten else founders,
                    # All of them stopped together: nobody was in a later term.
                    forgotten_term=max(self._terms()) if forgotten else 0,
                    filesystem=disk,
                    on_failure=_report(on_failure, member),
                    threaded=threaded,
                    work=work,
                    now=now,
                    later=later,
                )
        except BaseException:
            self.close()
            raise
        self.replicas = dict(sorted(self.replicas.items()))
        max(self.replicas.values(), key=lambda replica: replica.last_log).campaign()

    def _has_history(self) -> bool:
        """More was written than the founding: whoever has nothing has forgotten its votes."""
        # The founders' own membership is entry 1. Of one that lost its log nothing may be left.
        return any(
            replica.last_log[1] > 1 or replica.stands_aside for replica in self.replicas.values()
        )

    def _whole(self) -> list[int]:
        """Members that have all they promised."""
        return [
            member for member, replica in self.replicas.items() if not replica.status().raft.damaged
        ]

    def _terms(self) -> list[int]:
        return [replica.term for replica in self.replicas.values()]

    def leader_replica(self) -> Replica | None:
        """The member that leads and is in touch with a majority."""
        for replica in self.replicas.values():
            if replica.is_leader and replica.has_quorum_contact:
                return replica
        return None

    def tick(self) -> None:
        """One tick of the clock for all."""
        for replica in self.replicas.values():
            replica.tick()

    def turn(self) -> None:
        """Deliver what arrived and let each member do its work."""
        self._woken = True
        due = self._due
        take = self.network.take
        for _ in range(ROUNDS_MAX):
            for member, replica in self.replicas.items():
                packets = take(member)
                if packets:
                    replica.receive(packets)
                if member in due:
                    due.discard(member)
                    replica.turn()
            if not due and not self.network.busy:
                break
        self._woken = False
        if due or self.network.busy:
            self._ask_for_turn()

    def _make_due(self, member: int) -> None:
        self._due.add(member)
        self._ask_for_turn()

    def _ask_for_turn(self) -> None:
        if not self._woken:
            self._woken = True
            self._wake()

    def close(self) -> None:
        """Close every member; the first failure is raised after all were closed."""
        failure: Error | None = None
        for replica in self.replicas.values():
            try:
                replica.close()
            except Error as error:
                failure = failure or error
        if failure is not None:
            raise failure


def lost_member(path: str, member: int) -> ConfigurationError:
    """What is wrong where a member below ``path`` has no log, others have history, and there is no
    majority of members that have all they promised."""
    error = ConfigurationError(
        f"{path}/node{member} has no log but other members have data, and too few of them are "
        "whole to go on without it"
    )
    return refused(Findings(log=LogFound.GONE), error)


def is_fresh(disk: FileSystem, path: str) -> bool:
    """No log was ever begun in a member's directory ``path``."""
    log = f"{path}/log"
    return disk.kind(log) == 0 or not any(
        name.endswith((".wal", ASIDE)) for name in disk.names(log)
    )


def _report(
    on_failure: Callable[[int, Error], None] | None, member: int
) -> Callable[[Error], None] | None:
    if on_failure is None:
        return None
    return lambda error: on_failure(member, error)
