"""Troubles in several acts: what chance alone would bring together once in many thousand seeds.

A play is a generator that yields how long to wait, in microseconds. It leads up to a state in which
one forgotten rule of Raft shows, and asks nothing of the members that a network, a disk and a power
supply couldn't. Where the members don't play along, it ends early.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple

from kvstore.raft import Membership, MessageKind, Role
from tests.simulator.agenda import MILLISECOND, SECOND, Agenda
from tests.simulator.client import Client
from tests.simulator.network import Link, Network
from tests.simulator.plan import CLOCK_SPEEDS
from tests.simulator.process import Process

__all__ = ["Play", "Staged"]

Play = Generator[int, None, None]
LOOK_US = 100
"""Between two looks at a member: less than a message takes."""


class Sides(NamedTuple):
    """Voters parted so that either side has a majority with the swing, and neither without."""

    first: list[Process]
    swing: Process
    second: list[Process]


class Staged:
    """Runs plays; ``over`` says when no play is to go on."""

    def __init__(
        self,
        agenda: Agenda,
        rng: random.Random,
        network: Network,
        processes: dict[int, Process],
        clients: Sequence[Client],
        over: Callable[[], bool],
    ) -> None:
        self._agenda = agenda
        self._rng = rng
        self._network = network
        self._processes = processes
        self._clients = clients
        self._over = over

    def run(self, play: Play) -> None:
        """Begin ``play``; it goes on by itself."""

        def go_on() -> None:
            if self._over():
                play.close()
                return
            with contextlib.suppress(StopIteration):
                self._agenda.after(next(play), go_on)

        go_on()

    # --- what plays are made of ----------------------------------------------------------------

    def sides(self, first: Process | None = None) -> Sides | None:
        """Sides of the running voters, ``first`` on the first one; None where there are none."""
        running = [process for process in self._processes.values() if process.replica is not None]
        known = [process.replica.membership for process in running if process.replica is not None]
        if not known or any(membership != known[0] for membership in known):
            return None
        voters = [process for process in running if process.member in known[0].voters]
        if known[0].outgoing or len(voters) != len(known[0].voters) or len(voters) % 2 == 0:
            return None
        self._rng.shuffle(voters)
        if first is not None:
            voters.sort(key=lambda process: process is not first)
        half = len(voters) // 2
        if half == 0 or (first is not None and voters[0] is not first):
            return None
        return Sides(voters[:half], voters[half], voters[half + 1 :])

    @contextlib.contextmanager
    def _apart(self, first: Sequence[Process], second: Sequence[Process]) -> Iterator[None]:
        links = [
            link
            for a in first
            for b in second
            for link in ((a.member, b.member), (b.member, a.member))
        ]
        with self._cut(links):
            yield

    @contextlib.contextmanager
    def _cut(self, links: Sequence[Link]) -> Iterator[None]:
        self._network.cut(links)
        try:
            yield
        finally:
            self._network.mend(links)

    def _wait_for(
        self, condition: Callable[[], bool], limit_us: int, step_us: int = LOOK_US
    ) -> Generator[int, None, bool]:
        end = self._agenda.now + limit_us
        while not condition():
            if self._agenda.now >= end:
                return False
            yield step_us
        return True

    def _lead(
        self, process: Process, limit_us: int, step_us: int = 60 * MILLISECOND
    ) -> Generator[int, None, bool]:
        """Let it stand for election again and again until it leads."""
        end = self._agenda.now + limit_us
        while self._agenda.now < end:
            if process.replica is None:
                return False
            process.replica.campaign()
            if (yield from self._wait_for(lambda: leads(process), step_us)):
                return True
        return False

    # --- the plays -----------------------------------------------------------------------------

    def duel(self, sides: Sides) -> Play:
        """Two stand in one term. Who votes for one of them loses power, then hears the other."""
        first, swing, second = sides
        one, other = first[0], second[0]
        with self._apart(first, second), contextlib.ExitStack() as lonely:
            # Until nobody has a leader any more: who hears one gives no vote.
            lonely.enter_context(self._apart([swing], [*first, *second]))
            yield self._rng.randint(450, 600) * MILLISECOND
            lonely.close()
            links = [(one.member, swing.member), (other.member, swing.member)]
            for candidate, link in zip((one, other), links, strict=True):
                if candidate.replica is None:
                    return
                # Let go one by one below, or when the play ends.
                lonely.callback(self._network.free, link)
                candidate.replica.campaign()
            held: set[Link] = set()

            def both_stand() -> bool:
                for candidate, link in zip((one, other), links, strict=True):
                    if role(candidate) is Role.CANDIDATE and link not in held:
                        held.add(link)
                        self._network.clog(link)
                return len(held) == 2

            if not (yield from self._wait_for(both_stand, 150 * MILLISECOND)):
                return
            # Its disk is slow: what it says before a sync, it forgets.
            swing.slowness = 200
            swing.outage_ms = (1, 30)
            swing.fatal_promise = MessageKind.VOTE_RESPONSE
            starts = swing.starts
            self._network.free(links[0])
            yield from self._wait_for(lambda: swing.up and swing.starts > starts, 150 * MILLISECOND)
            swing.slowness = 1
            swing.fatal_promise = None
            self._network.free(links[1])
            yield 200 * MILLISECOND

    def figure_eight(self, sides: Sides) -> Play:
        """Entries of an old leader reach a majority only under its next term (Raft, figure 8).

        Meanwhile another one led for a moment, and has an entry of its own in that place. Were the
        old entries committed by their number alone, the other one would overwrite them.
        """
        first, swing, second = sides
        old, rival = first[0], second[0]
        with contextlib.ExitStack() as cuts:
            alone = cuts.enter_context(contextlib.ExitStack())
            alone.enter_context(self._apart(first, [swing, *second]))
            yield self._rng.randint(220, 400) * MILLISECOND
            if not (yield from self._lead(rival, SECOND)):
                return
            # What it wrote as a leader stays its own.
            cuts.enter_context(self._apart([rival], [swing, *second[1:]]))
            cuts.enter_context(self._apart(second, first))
            alone.close()
            with self._apart([swing], second[1:]):
                before = last_index(swing)
                if not (yield from self._lead(old, SECOND)):
                    return
                yield from self._wait_for(
                    lambda: before < last_index(swing) < last_index(old), 40 * MILLISECOND
                )
                strike = [(a.member, swing.member) for a in first]
                cuts.enter_context(self._cut(strike))
                # Its last answers may still arrive.
                yield self._rng.randint(0, 20) * MILLISECOND
            cuts.pop_all().close()
            with self._apart(first, [swing, *second]):
                yield from self._lead(rival, SECOND)
                yield 100 * MILLISECOND

    def outlast_slow_leader(self, leader: Process) -> Play:
        """A leader with a slow clock is cut off; the others, in a hurry, elect another one.

        Some forget in a restart that they have heard the leader, or what they answered it comes
        late. Clients ask both leaders.
        """
        others = [process for process in self._processes.values() if process is not leader]
        leader.speed = min(CLOCK_SPEEDS)
        for process in others:
            process.speed = max(CLOCK_SPEEDS)
        rival = max(others, key=knowledge)
        to_leader = [(process.member, leader.member) for process in others]
        how = self._rng.choice(("restart", "late answers", "nothing"))
        try:
            with self._cut([(to, sender) for sender, to in to_leader]):
                if how == "restart":
                    for process in others:
                        if process.up:
                            process.stop("all", "killed")
                            process.start()
                elif how == "late answers":
                    for link in to_leader:
                        self._network.clog(link)
                    yield 100 * MILLISECOND
                    for link in to_leader:
                        self._network.free(link)
                    yield 20 * MILLISECOND
                with self._cut(to_leader):
                    yield from self._lead(rival, 300 * MILLISECOND, 25 * MILLISECOND)
                    for number, client in enumerate(self._clients):
                        client.turn_to((leader, rival)[number % 2].member)
                    yield 150 * MILLISECOND
        finally:
            for process in self._processes.values():
                process.speed = 1.0

    def forget_change(self, leader: Process, old: Membership, new: Membership) -> Play:
        """Part a leader from the old members just as the joint configuration is committed.

        They have it in their logs, and don't know that it is committed. With those who are new it
        is a majority of the new voters, and without it the others are one of the old voters.
        """

        def final() -> bool:
            replica = leader.replica
            return replica is not None and replica.membership == new

        if (yield from self._wait_for(final, 2 * SECOND)):
            added = new.voters - old.voters
            side = [p for p in self._processes.values() if p is leader or p.member in added]
            with self._apart(side, [p for p in self._processes.values() if p not in side]):
                yield self._rng.randint(600, 1500) * MILLISECOND


def role(process: Process) -> Role | None:
    """The member's part, None while it is down."""
    return None if process.replica is None else process.replica.status().raft.role


def leads(process: Process) -> bool:
    """Whether it believes that it leads."""
    return process.replica is not None and process.replica.is_leader


def knowledge(process: Process) -> tuple[bool, int, int]:
    """Of two members the larger is the more likely to win an election."""
    replica = process.replica
    if replica is None:
        return False, 0, 0
    return process.member in replica.membership.voters, *replica.last_log


def last_index(process: Process) -> int:
    """The last index of the member's log, 0 while it is down."""
    return 0 if process.replica is None else process.replica.last_log[1]
