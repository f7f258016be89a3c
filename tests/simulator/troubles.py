"""Troubles: what the plan lets happen to machines, disks, links and members, and when it ends.

Safety must hold through all of it. So that the cluster can answer once the troubles are over, what
can't be undone (a damaged disk) never happens to more members than a majority can do without.
"""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Callable, Sequence
from functools import partial

from kvstore.errors import Error, InvalidArgumentError
from kvstore.raft import Entry, Membership, MessageKind
from tests.simulator.agenda import MILLISECOND, Agenda
from tests.simulator.client import Client
from tests.simulator.damaged_entries import damage_entries, entries_of
from tests.simulator.lost_entry import lose_last_entry
from tests.simulator.memberships import draw_membership
from tests.simulator.network import Link, Network
from tests.simulator.plan import CLOCK_SPEEDS, TROUBLES, Plan
from tests.simulator.process import LOG_DIRECTORY, STATE_DIRECTORY, Keep, Process
from tests.simulator.staged import Sides, Staged
from tests.simulator.trace import Trace

__all__ = ["Troubles"]

PROMISES = (
    MessageKind.VOTE,
    MessageKind.VOTE_RESPONSE,
    MessageKind.VOTE_RESPONSE,
    MessageKind.APPEND,
    MessageKind.APPEND_RESPONSE,
)
KEEPS: tuple[Keep, ...] = ("none", "prefix", "random")
ROTTEN_MAX = 8
"""Entries, of the newest ones, that may be damaged at one time."""
FAILING = ("open", "pwrite", "datasync", "rename", "sync_directory", "allocate", "pread")


class Troubles:
    """Makes trouble at the plan's pace until told to stop. ``add`` starts a new, empty member."""

    def __init__(
        self,
        plan: Plan,
        agenda: Agenda,
        trace: Trace,
        network: Network,
        processes: dict[int, Process],
        clients: Sequence[Client],
        add: Callable[[int], None],
    ) -> None:
        self._plan = plan
        self._agenda = agenda
        self._trace = trace
        self._network = network
        self._processes = processes
        self._add = add
        self._rng = random.Random(f"{plan.seed}/troubles")
        self._lies = random.Random(f"{plan.seed}/lies")
        self._rot = random.Random(f"{plan.seed}/rot")
        self._over = False
        self._made: dict[str, int] = {}
        # Whose logs lost an entry, and may not have it again yet.
        self._incomplete: set[int] = set()
        self._stage = Staged(agenda, self._rng, network, processes, clients, lambda: self._over)
        if plan.troubles:
            self._wait()

    def stop(self) -> None:
        """No more trouble; mend what can be mended."""
        self._over = True
        for process in self._processes.values():
            process.speed = 1.0
            process.slowness = 1
            process.workers.long_jobs = 0.0
            process.hanging = False
            process.fatal_promise = None
            process.disk.heal()
            process.disk.capacity_bytes = None
            process.restart_after_us = lambda: 100 * MILLISECOND
            process.start()

    @property
    def made(self) -> dict[str, int]:
        """How often each kind came."""
        return self._made

    def _wait(self) -> None:
        self._agenda.after(int(self._rng.expovariate(1 / self._plan.trouble_pause_us)), self._next)

    def _next(self) -> None:
        if self._over:
            return
        kinds = self._plan.troubles
        (kind,) = self._rng.choices(kinds, [TROUBLES[kind] for kind in kinds])
        told = _MAKERS[kind](self)
        if told is not None:
            self._made[kind] = self._made.get(kind, 0) + 1
            self._trace.note(f"TROUBLE {kind}: {told}")
        self._wait()

    def _later(self, low_ms: int, high_ms: int, undo: Callable[[], object]) -> None:
        def unless_over() -> None:
            if not self._over:
                undo()

        self._agenda.after(self._rng.randint(low_ms, high_ms) * MILLISECOND, unless_over)

    # --- whom ----------------------------------------------------------------------------------

    def _one(self) -> Process | None:
        running = [process for process in self._processes.values() if process.up]
        return self._rng.choice(running) if running else None

    def _leader(self) -> Process | None:
        leaders = [
            process
            for process in self._processes.values()
            if process.replica is not None and process.replica.is_leader
        ]
        return self._rng.choice(leaders) if leaders else None

    def _others(self, member: int) -> list[int]:
        return [other for other in self._processes if other != member]

    def _settled_membership(self) -> Membership | None:
        """The committed configuration, where no log may hold another one that comes back."""
        leader = self._leader()
        if leader is None or leader.replica is None or not leader.replica.membership_is_committed:
            return None
        all_there = all(p.up or p.gone for p in self._processes.values())
        return leader.replica.membership if all_there else None

    # --- machines ------------------------------------------------------------------------------

    def _stop(self, process: Process, keep: Keep, why: str) -> str:
        process.stop(keep, why)
        self._later(20, 2500, process.start)
        return f"member {process.member}"

    def kill(self) -> str | None:
        process = self._one()
        return None if process is None else self._stop(process, "all", "killed")

    def lose_power(self) -> str | None:
        process = self._one()
        if process is None:
            return None
        return self._stop(process, self._rng.choice(KEEPS), "power lost")

    def lose_power_in_the_middle(self) -> str | None:
        """At some operation of its disk soon: between a write and its sync, within a flush, ..."""
        process = self._one()
        if process is None or process.excuses:
            return None
        process.excuses.add("power loss")
        operations = self._rng.choice((1, 3, 10, 40))
        process.disk.stop_at(process.disk.operations + self._rng.randint(1, operations))
        return f"member {process.member} within {operations} operations"

    def lose_power_after_a_promise(self) -> str | None:
        """Once it has sent the next message of a kind: was all durable that this rests on?"""
        process = self._one()
        if process is None:
            return None
        process.fatal_promise = self._rng.choice(PROMISES)
        return f"member {process.member} after {process.fatal_promise.name}"

    def black_out(self) -> str | None:
        """All lose power at one time, some with slow disks; some come back much later."""
        rng = self._rng
        up = [process for process in self._processes.values() if process.up]
        if not up:
            return None
        warning = rng.choice((0, 20, 200))
        for process in rng.sample(up, rng.randint(0, len(up))) if warning else ():
            process.slowness = 200
        late = {p.member for p in rng.sample(up, rng.randint(0, len(up) // 2))}

        def strike() -> None:
            for process in up:
                process.slowness = 1
                if process.up:
                    process.stop(rng.choice(KEEPS), "blackout")
                    slow = process.member in late
                    self._later(*((1500, 4000) if slow else (20, 300)), process.start)

        self._later(warning, warning, strike)
        return f"members {[process.member for process in up]}, late {sorted(late)}"

    def pause(self) -> str | None:
        process = self._leader() if self._rng.random() < 0.5 else self._one()
        if process is None:
            return None
        duration = self._rng.randint(50, 3000)
        process.pause(duration * MILLISECOND)
        return f"member {process.member} for {duration} ms"

    def busy(self) -> str | None:
        """Loops that have no time, while their processes live: a leader's, or others'."""
        count = self._rng.randint(1, len(self._processes))
        leader = self._leader()
        chosen = self._rng.sample(sorted(self._processes), count)
        if leader is not None and self._rng.random() < 0.6:
            chosen = [leader.member]
        duration = self._rng.randint(50, 4000)
        for member in chosen:
            self._processes[member].hold_up(duration * MILLISECOND)
        return f"members {chosen} for {duration} ms"

    def lie(self) -> str | None:
        """One sends the others anything, beside what it has to say."""
        liar = self._one()
        if liar is None:
            return None
        step, left = self._rng.randint(10, 100) * MILLISECOND, self._rng.randint(1, 50)

        def tell(left: int) -> None:
            if self._over or not left:
                return
            for process in self._processes.values():
                if process is not liar and process.up:
                    process.deceive(liar, self._lies)
            self._agenda.after(step, partial(tell, left - 1))

        tell(left)
        return f"member {liar.member}, {left} times"

    def turn_clock(self) -> str | None:
        process = self._one()
        if process is None:
            return None
        process.speed = self._rng.choice(CLOCK_SPEEDS)
        self._later(500, 5000, lambda: setattr(process, "speed", 1.0))
        return f"member {process.member} times {process.speed}"

    # --- links ---------------------------------------------------------------------------------

    def _cut(self, links: Sequence[Link]) -> str:
        self._network.cut(links)
        self._later(100, 1500, lambda: self._network.mend(links))
        return " ".join(f"{sender}->{to}" for sender, to in links)

    def _both_ways(self, first: Sequence[int], second: Sequence[int]) -> list[Link]:
        return [link for a in first for b in second for link in ((a, b), (b, a))]

    def isolate(self) -> str | None:
        process = self._one()
        if process is None:
            return None
        return self._cut(self._both_ways([process.member], self._others(process.member)))

    def isolate_leader(self) -> str | None:
        process = self._leader()
        if process is None:
            return None
        self._hold_up(process)
        return self._cut(self._both_ways([process.member], self._others(process.member)))

    def rivals(self) -> str | None:
        """The leader is gone, two stand for election at one time; a voter may lose power."""
        leader = self._leader()
        if leader is None or len(self._processes) < 3:
            return None
        others = [self._processes[member] for member in self._others(leader.member)]
        self._rng.shuffle(others)
        self._hold_up(leader)
        self._cut(self._both_ways([leader.member], self._others(leader.member)))
        if self._rng.random() < 0.7:
            others[-1].fatal_promise = MessageKind.VOTE_RESPONSE

        def stand() -> None:
            for process in others[:2]:
                if process.replica is not None:
                    process.replica.campaign()

        self._later(200, 300, stand)
        return f"members {[process.member for process in others[:2]]}"

    def _hold_up(self, leader: Process) -> None:
        """Sometimes a leader that is cut off takes longer to see that nobody answers."""
        kind = self._rng.choice(("nothing", "slow", "pause"))
        if kind == "slow":
            leader.speed = min(CLOCK_SPEEDS)
            self._later(500, 1500, lambda: setattr(leader, "speed", 1.0))
        elif kind == "pause":
            leader.pause(self._rng.randint(150, 800) * MILLISECOND)

    def forget_leader(self) -> str | None:
        """It stands still, cut off, until another one leads; then it runs again, still cut off."""
        leader = self._leader()
        if leader is None:
            return None
        links = self._both_ways([leader.member], self._others(leader.member))
        self._network.cut(links)
        step = 50 * MILLISECOND

        def watch(left: int) -> None:
            if self._over:
                return
            others = [p.replica for p in self._processes.values() if p is not leader]
            if left and not any(other is not None and other.is_leader for other in others):
                leader.pause(step + MILLISECOND)
                self._agenda.after(step, lambda: watch(left - 1))
                return
            leader.pause(self._rng.randint(0, 200) * MILLISECOND)
            self._later(300, 600, lambda: self._network.mend(links))

        watch(20)
        return f"member {leader.member}"

    def outlast_slow_leader(self) -> str | None:
        leader = self._leader()
        if leader is None or len(self._processes) < 2:
            return None
        self._stage.run(self._stage.outlast_slow_leader(leader))
        return f"member {leader.member} cut off, its clock slow"

    def duel(self) -> str | None:
        sides = self._stage.sides()
        if sides is None:
            return None
        self._stage.run(self._stage.duel(sides))
        return _tell(sides)

    def play_figure_eight(self) -> str | None:
        leader = self._leader()
        sides = self._stage.sides(leader) if leader is not None else None
        if sides is None:
            return None
        self._stage.run(self._stage.figure_eight(sides))
        return _tell(sides)

    def split(self) -> str | None:
        members = list(self._processes)
        self._rng.shuffle(members)
        place = self._rng.randint(1, len(members) - 1)
        return self._cut(self._both_ways(members[:place], members[place:]))

    def cut_one_way(self) -> str | None:
        links = list(itertools.permutations(self._processes, 2))
        if self._rng.random() < 0.5:
            member = self._rng.choice(list(self._processes))
            side = self._rng.randint(0, 1)
            return self._cut([link for link in links if link[side] == member])
        return self._cut(self._rng.sample(links, self._rng.randint(1, len(links) // 2)))

    def bridge(self) -> str | None:
        """Two halves that only one member can reach both of."""
        members = list(self._processes)
        self._rng.shuffle(members)
        rest = members[1:]
        half = len(rest) // 2
        return self._cut(self._both_ways(rest[:half], rest[half:]))

    def flap(self) -> str | None:
        link = self._rng.choice(list(itertools.permutations(self._processes, 2)))
        period = self._rng.randint(20, 300) * MILLISECOND

        def change(times: int) -> None:
            if self._over or not times:
                return
            self._network.cut([link])
            self._agenda.after(period, lambda: self._network.mend([link]))
            self._agenda.after(2 * period, lambda: change(times - 1))

        change(self._rng.randint(3, 15))
        return f"{link[0]}->{link[1]} every {period // MILLISECOND} ms"

    def clog(self) -> str | None:
        """Some links hold back what they are given and let go one by one in another order."""
        links = list(itertools.permutations(self._processes, 2))
        clogged = self._rng.sample(links, self._rng.randint(1, max(1, len(links) * 2 // 3)))
        moment = 0
        for link in clogged:
            moment += self._rng.randint(0, 40)
            self._agenda.after(moment * MILLISECOND, partial(self._clog, link))
        self._rng.shuffle(clogged)
        moment += self._rng.randint(50, 1200)
        for link in clogged:
            moment += self._rng.randint(0, 100)
            self._agenda.after(moment * MILLISECOND, partial(self._network.free, link))
        return f"{len(clogged)} links"

    def _clog(self, link: Link) -> None:
        if not self._over:
            self._network.clog(link)

    # --- disks ---------------------------------------------------------------------------------

    def fail_disk(self) -> str | None:
        process = self._one()
        if process is None or process.excuses:
            return None
        process.excuses.add("disk error")
        operation = self._rng.choice(FAILING)
        process.disk.fail(operation, errno.EIO, at=self._rng.randint(1, 8))
        return f"member {process.member} {operation}"

    def fill_disk(self) -> str | None:
        process = self._one()
        if process is None or process.excuses:
            return None
        process.excuses.add("disk full")
        process.disk.capacity_bytes = process.disk.used_bytes + self._rng.randint(0, 20_000)

        def empty() -> None:
            process.disk.capacity_bytes = None
            process.excuses.discard("disk full")

        self._later(200, 3000, empty)
        return f"member {process.member}"

    def slow_disk(self) -> str | None:
        process = self._one()
        if process is None:
            return None
        process.slowness = self._rng.choice((10, 50, 200))
        self._later(200, 3000, lambda: setattr(process, "slowness", 1))
        return f"member {process.member} times {process.slowness}"

    def hang_disk(self) -> str | None:
        """Mostly the leader's; now and then all at once, as disks of one machine do."""
        kind = self._rng.choice(("leader", "leader", "one", "all"))
        process = self._leader() if kind == "leader" else self._one()
        if process is None:
            return None
        hanging = list(self._processes.values()) if kind == "all" else [process]
        for one in hanging:
            one.hanging = True

        def go_on() -> None:
            for one in hanging:
                one.hanging = False

        self._later(200, 4000, go_on)
        return f"members {[one.member for one in hanging]}"

    def fill_disks(self) -> str | None:
        """The leader's, or all of them, for longer than an election takes; then there is room."""
        leader = self._leader()
        if leader is None:
            return None
        kind = self._rng.choice(("leader", "all"))
        hurt = list(self._processes.values()) if kind == "all" else [leader]
        hurt = [process for process in hurt if not process.excuses]
        for process in hurt:
            process.excuses.add("disk full")
            process.disk.capacity_bytes = process.disk.used_bytes + self._rng.randint(0, 20_000)

        def empty() -> None:
            for process in hurt:
                process.disk.capacity_bytes = None
                process.excuses.discard("disk full")

        self._later(500, 5000, empty)
        return f"members {[process.member for process in hurt]}"

    def flip_bit(self) -> str | None:
        """Damage at rest, where a majority can do without the member.

        Of a log until it starts anew and others have given it what it lost; a state is repaired.
        """
        process = self._dispensable()
        path = self._damageable(process) if process is not None else None
        if process is None or path is None:
            return None
        if path.endswith(".wal"):
            process.excuses.add("bit flip")
            process.rotten = True
            if self._rot.random() < 0.6:
                return self._rot_log(process, path)
        else:
            process.flipped.add(path)
        offset = self._rng.randrange(len(process.disk.read_file(path)))
        process.disk.flip_bit(path, offset, self._rng.randrange(8))
        return f"member {process.member} {path} at {offset}"

    def _rot_log(self, process: Process, path: str) -> str:
        """What only a start finds: a segment's or a record's header is damaged, or one is gone."""
        told = self._stop(process, "none", "its disk rots")
        if not process.disk.exists(path):
            return told
        content = process.disk.read_file(path)
        headers = [0] + [
            at for at in range(128, len(content), 8) if content[at : at + 3] == b"KR\2"
        ]
        if self._rot.random() < 0.25:
            process.disk.remove_file(path)
            return f"{told} {path} is gone"
        at = self._rot.choice(headers) + self._rot.randrange(48)
        process.disk.flip_bit(path, at, self._rot.randrange(8))
        return f"{told} {path} at {at}"

    def lose_entry(self) -> str | None:
        """A disk lied: the last entry that it made durable is gone at the next start.

        Or disks of all rot: entries that are known can't be read, and each is whole at one of them.
        """
        if self._rng.random() < 0.5:
            return self._damage_entries()
        process = self._dispensable()
        if process is None or process.replica is None or process.excuses:
            return None
        machine = process.replica.machine
        machine.flush()
        applied = machine.durable_index
        told = self._stop(process, "none", "its disk lied")
        if not lose_last_entry(process.disk, LOG_DIRECTORY, process.identity, applied):
            return None
        self._incomplete.add(process.member)
        return told

    def _damage_entries(self) -> str | None:
        if self._settled_membership() is None or self._hurt():
            return None
        members = [p for p in self._processes.values() if p.up and p.replica is not None]
        if any(process.excuses for process in members) or len(members) < 2:
            return None
        applied = {}
        for process in members:
            assert process.replica is not None
            applied[process.member] = process.replica.machine.durable_index
            self._stop(process, "none", "its disk rots")
        owners: dict[tuple[int, int], list[Process]] = {}
        entries: dict[tuple[int, int], Entry] = {}
        for process in members:
            found = entries_of(
                process.disk, LOG_DIRECTORY, process.identity, applied[process.member]
            )
            for entry in found:
                entries[entry.index, entry.term] = entry
                owners.setdefault((entry.index, entry.term), []).append(process)
        wanted: dict[int, list[Entry]] = {process.member: [] for process in members}
        for place in sorted(owners)[-ROTTEN_MAX:]:
            spared = self._rng.choice(owners[place])
            for process in owners[place]:
                if process is not spared and self._rng.random() < 0.5:
                    wanted[process.member].append(entries[place])
        told = {}
        for process in members:
            hurt = damage_entries(
                process.disk,
                LOG_DIRECTORY,
                process.identity,
                wanted[process.member],
                self._rng,
            )
            if hurt:
                self._incomplete.add(process.member)
                told[process.member] = hurt
        return f"entries that can't be read: {told}" if told else None

    def _dispensable(self) -> Process | None:
        """One that runs and that a majority can do without for good."""
        membership = self._settled_membership()
        process = self._one()
        if membership is None or process is None:
            return None
        hurt = self._hurt() | {process.member}
        for voters in (membership.voters, membership.outgoing):
            if voters and len(voters & hurt) > (len(voters) - 1) // 2:
                return None
        return process

    def _hurt(self) -> set[int]:
        """Members that are damaged for good, or don't vote until their log is whole again."""
        for process in self._processes.values():
            replica = process.replica
            if replica is not None and not replica.storage_busy and not replica.is_damaged:
                self._incomplete.discard(process.member)
                process.is_healing = False
        for_good = {p.member for p in self._processes.values() if p.gone or "bit flip" in p.excuses}
        flawed = {p.member for p in self._processes.values() if p.is_flawed}
        healing = {p.member for p in self._processes.values() if p.is_healing}
        return for_good | flawed | healing | self._incomplete

    def _damageable(self, process: Process) -> str | None:
        """A file whose damage can be told from a torn write: not the newest of the log."""
        segments = sorted(path for path in process.disk.files() if path.endswith(".wal"))
        unsynced = process.disk.unsynced_files()
        paths = [
            path
            for path in process.disk.files()
            if (path.startswith(STATE_DIRECTORY) or path in segments[:-1])
            and path not in unsynced
            and process.disk.read_file(path)
        ]
        return self._rng.choice(paths) if paths else None

    # --- members -------------------------------------------------------------------------------

    def transfer(self) -> str | None:
        leader = self._leader()
        if leader is None or leader.replica is None:
            return None
        to = self._rng.choice(self._others(leader.member))
        try:
            leader.replica.transfer_leadership(to)
        except (Error, InvalidArgumentError):
            return None
        return f"from member {leader.member} to {to}"

    def change_members(self) -> str | None:
        leader = self._leader()
        if leader is None or leader.replica is None:
            return None
        membership = leader.replica.membership
        target = draw_membership(self._rng, membership, set(self._processes), self._hurt)
        if target is None:
            return None
        for member in sorted((target.voters | target.learners) - set(self._processes)):
            self._add(member)
        try:
            # As an operator does who knows better: members that nobody has heard of yet, too.
            leader.replica.propose_membership(target, force=True)
        except (Error, InvalidArgumentError) as error:
            return f"refused: {error}"
        self._put_under_fire(leader, membership, target)
        return f"voters {sorted(target.voters)}, learners {sorted(target.learners)}"

    def _put_under_fire(self, leader: Process, old: Membership, new: Membership) -> None:
        """More trouble while the change is under way: just there it must hold."""
        kinds = ["nothing", "part", "isolate", "power", "another"]
        if len(new.voters - old.voters) > 1:
            kinds += ["forget"] * 5
        kind = self._rng.choice(kinds)
        before, after = sorted(old.voters - {leader.member}), sorted(new.voters - {leader.member})

        def part() -> None:
            with_leader = [leader.member, *(voter for voter in after if voter not in before)]
            rest = [member for member in self._processes if member not in with_leader]
            self._trace.note(f"TROUBLE members {with_leader} apart")
            self._cut(self._both_ways(with_leader, rest))

        def lose() -> None:
            if leader.up:
                self._stop(leader, self._rng.choice(KEEPS), "power lost")

        if kind == "part":
            self._later(0, 50, part)
        elif kind == "forget":
            self._stage.run(self._stage.forget_change(leader, old, new))
        elif kind == "isolate":
            self._later(0, 50, self.isolate_leader)
        elif kind == "power":
            self._later(0, 50, lose)
        elif kind == "another":
            self._later(0, 100, self.change_members)


def _tell(sides: Sides) -> str:
    first, swing, second = sides
    parts = ([p.member for p in first], swing.member, [p.member for p in second])
    return "members {} and {} between them and {}".format(*parts)


_MAKERS: dict[str, Callable[[Troubles], str | None]] = {
    "kill": Troubles.kill,
    "lies": Troubles.lie,
    "power loss": Troubles.lose_power,
    "power loss in the middle": Troubles.lose_power_in_the_middle,
    "power loss after a promise": Troubles.lose_power_after_a_promise,
    "blackout": Troubles.black_out,
    "isolate": Troubles.isolate,
    "isolate leader": Troubles.isolate_leader,
    "rivals": Troubles.rivals,
    "forgotten leader": Troubles.forget_leader,
    "slow leader": Troubles.outlast_slow_leader,
    "duel": Troubles.duel,
    "figure eight": Troubles.play_figure_eight,
    "split": Troubles.split,
    "one-way cut": Troubles.cut_one_way,
    "bridge": Troubles.bridge,
    "flap": Troubles.flap,
    "clog": Troubles.clog,
    "disk error": Troubles.fail_disk,
    "disk full": Troubles.fill_disk,
    "slow disk": Troubles.slow_disk,
    "hanging disk": Troubles.hang_disk,
    "full disks": Troubles.fill_disks,
    "bit flip": Troubles.flip_bit,
    "lost entry": Troubles.lose_entry,
    "pause": Troubles.pause,
    "clock speed": Troubles.turn_clock,
    "change members": Troubles.change_members,
    "transfer": Troubles.transfer,
    "busy": Troubles.busy,
}
assert _MAKERS.keys() == TROUBLES.keys()
