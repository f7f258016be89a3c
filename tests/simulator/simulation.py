"""One run: a cluster under load and trouble, then peace, in which it must answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kvstore.errors import Error
from kvstore.raft import Membership, PeerState
from kvstore.replica import Replica
from kvstore.replica.packets import Packet
from kvstore.state.mvcc.answers import HashAnswer
from tests.simulator import linearizability
from tests.simulator.agenda import SECOND, Agenda
from tests.simulator.client import Client
from tests.simulator.etcd_client import SHARED_KEY, EtcdClient
from tests.simulator.etcd_member import EtcdMember
from tests.simulator.ledger import Ledger
from tests.simulator.linearizability import Verdict
from tests.simulator.network import Network
from tests.simulator.oracle import Oracle
from tests.simulator.plan import TICK_US, Plan, draw
from tests.simulator.process import Process
from tests.simulator.trace import Trace, Violation
from tests.simulator.troubles import Troubles
from tests.simulator.watcher import Watcher
from tests.watch_validator import History

__all__ = ["Failed", "Outcome", "attempt", "replay_command", "simulate"]

PEACE_TICKS = 1500
"""Once the troubles are over, everything must be answered within so many ticks."""

CATCH_UP_TICKS = 20_000
"""And all members be equal: a state with its history, in parts of 300 bytes over a network that
loses some, takes as long."""

READY_TICKS = 150
"""So long is waited, under load, for a cluster that could do without its leader."""

LAG_MAX = 8
"""Entries that a follower may lack and still count as one that has all: they are on their way."""

HANG_TICKS = 80
"""With the leader's disk hanging and all else well, others write on within so many ticks: two
election timeouts until it is noticed, one until leadership is left to chance, two of an election,
and as many again for links that take their time."""

OPERATIONS_MIN = 20
"""A run that finishes fewer shows nothing."""

ETCD_OPERATIONS_MIN = 10
"""And so for the clients of etcd's API, each."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run that kept every promise. ``digest`` is that of its trace."""

    seed: int
    digest: str
    operations: int
    committed: int
    terms: int
    steps: int
    troubles: dict[str, int]
    refused: int = 0
    """Writes that were refused since nobody knew any more what had become of them."""
    etcd: int = 0
    """Calls of etcd's API that were answered."""
    events: int = 0
    """That watchers were told of."""
    expired: int = 0
    """Leases that ran out."""


class Failed(AssertionError):
    """A run that broke a promise; tells which one, the last lines of the trace, and the replay."""

    def __init__(self, seed: int, why: BaseException | str, story: list[str]) -> None:
        self.seed = seed
        self.why = why if isinstance(why, str) else f"{type(why).__name__}: {why}"
        lines = "\n".join(story)
        super().__init__(f"seed {seed}: {self.why}\n{lines}\nreplay: {replay_command(seed)}")


def replay_command(seed: int) -> str:
    """What to type to see a run again, line by line."""
    return f"python -m tests.simulator --seed {seed} --trace"


def simulate(seed: int, write: Callable[[str], object] | None = None) -> Outcome:
    """Run ``seed``; ``write`` gets every line of its trace. Raises Failed."""
    run = _Run(draw(seed), write)
    try:
        return run.run()
    except Exception as error:
        raise Failed(seed, error, [str(run.plan), *run.trace.tail]) from error
    finally:
        for process in run.processes.values():
            process.abandon()


def attempt(seed: int) -> Outcome | str:
    """Run ``seed``, for another process: the outcome, or what a failure says."""
    try:
        return simulate(seed)
    except Failed as error:
        return str(error)


class _Run:
    def __init__(self, plan: Plan, write: Callable[[str], object] | None) -> None:
        self.plan = plan
        self.agenda = Agenda()
        self.trace = Trace(self.agenda, write)
        self.oracle = Oracle(plan.replica.memory)
        self.network = Network(plan, self.agenda, self.trace, self._deliver)
        self.processes: dict[int, Process] = {}
        founders = Membership(voters=frozenset(range(1, plan.members + 1)))
        for member in sorted(founders.voters):
            self._add(member, founders)
        self.clients = [
            Client(
                number,
                plan=plan,
                agenda=self.agenda,
                trace=self.trace,
                processes=lambda: list(self.processes.values()),
            )
            for number in range(1, plan.clients + 1)
        ]
        self.troubles = Troubles(
            plan,
            self.agenda,
            self.trace,
            self.network,
            self.processes,
            self.clients,
            self._add,
        )

        self._peace = False
        self.ledger = Ledger(self.agenda, self.oracle.model, plan.fastest_clock)
        self.etcd_clients: list[EtcdClient] = []
        self.watchers: list[Watcher] = []
        # What members said their hashes are, and whose are asked for.
        self._hashes: dict[int, HashAnswer] = {}
        self._hashing: set[int] = set()
        if plan.model_after_us is not None:
            self._add_etcd_load(plan)

    def _endpoints(self) -> list[Process]:
        """Whom clients of etcd's API ask: in peace they know who is no member any more."""
        leader = self._leader() if self._peace else None
        processes = self.processes.values()
        if leader is None:
            return list(processes)
        members = leader.membership.members
        return [process for process in processes if process.member in members]

    def _add_etcd_load(self, plan: Plan) -> None:
        self.etcd_clients = [
            EtcdClient(
                number,
                plan=plan,
                agenda=self.agenda,
                trace=self.trace,
                ledger=self.ledger,
                processes=self._endpoints,
            )
            for number in range(1, plan.etcd.clients + 1)
        ]
        self.watchers = [
            Watcher(
                number,
                plan=plan,
                agenda=self.agenda,
                trace=self.trace,
                processes=self._endpoints,
            )
            for number in range(1, plan.etcd.watchers + 1)
        ]

    def _add(self, member: int, founders: Membership | None = None) -> None:
        process = Process(
            member,
            founders,
            plan=self.plan,
            agenda=self.agenda,
            trace=self.trace,
            oracle=self.oracle,
            network=self.network,
            processes=self.processes,
        )
        self.processes[member] = process
        process.start()

    def _deliver(self, packet: Packet) -> None:
        process = self.processes.get(packet.to)
        if process is not None:
            process.receive(packet)

    def run(self) -> Outcome:
        self.trace.note(str(self.plan))
        self._until(lambda: False, self.plan.duration_us)
        self.trace.note("PEACE: no more trouble")
        self._peace = True
        self.troubles.stop()
        self.network.calm()
        loads: list[Client | EtcdClient] = [*self.clients, *self.etcd_clients]
        for load in (*loads, *self.watchers):
            load.calm()
        self._expect(self._enough, f"{OPERATIONS_MIN} operations are finished")
        self._hang_leader()
        for client in loads:
            client.stop()
        self._expect(lambda: all(client.idle for client in loads), "every call is answered")
        reader = self.clients[0]
        reader.read_all([b"key-%d" % number for number in range(self.plan.keys)])
        self._expect(lambda: reader.idle and not reader.left_to_read, "every key is read")
        self._expect(lambda: not self.oracle.model.keyspace.leases, "every lease has run out")
        self._expect(self._equal, "every member holds the same", CATCH_UP_TICKS)
        self._check_history()
        events = self._check_etcd() if self.oracle.model.model_from else 0
        return Outcome(
            seed=self.plan.seed,
            digest=self.trace.digest,
            operations=sum(client.finished for client in self.clients),
            committed=len(self.oracle.committed),
            terms=self.oracle.terms,
            steps=self.agenda.steps,
            troubles=self.troubles.made | {"job that stands still": self._standstills()},
            refused=sum(client.refused for client in self.clients),
            etcd=sum(client.finished for client in self.etcd_clients),
            events=events,
            expired=self.ledger.expired,
        )

    def _standstills(self) -> int:
        return sum(process.workers.stood_still for process in self.processes.values())

    def _hang_leader(self) -> None:
        """Nothing but the leader's disk is wrong: leadership leaves it, and writes go on."""
        if not self._until(self._can_do_without_leader, READY_TICKS * TICK_US):
            return  # too few are left, or their clocks or disks are too slow, to promise anything
        leader = self._leader()
        assert leader is not None
        process = self.processes[leader.member]
        self.trace.note(f"member {leader.member} leads, and its disk hangs")
        process.hanging = True
        committed = len(self.oracle.committed)

        def written_on() -> bool:
            now = self._leader()
            return (
                len(self.oracle.committed) > committed + 1 and now is not None and now is not leader
            )

        # Clients may pause for long, and nobody learns of a disk that isn't asked for anything.
        self._until(lambda: leader.storage_busy or written_on(), READY_TICKS * TICK_US)
        gone = self._gone()

        def written_on_or_fewer() -> bool:
            # What a bit flip left to be found may be found just now: it ends another member, or has
            # it repaired, which counts among those that nobody hands over to meanwhile.
            return written_on() or self._gone() != gone or self._repairing()

        self._expect(written_on_or_fewer, "writes go on without the leader's disk", HANG_TICKS)
        process.hanging = False

    def _repairing(self) -> bool:
        replicas = [process.replica for process in self.processes.values()]
        return any(replica is not None and replica.repair.under_way for replica in replicas)

    def _gone(self) -> set[int]:
        return {member for member, process in self.processes.items() if process.gone is not None}

    def _can_do_without_leader(self) -> bool:
        """A majority of the voters without the leader is whole, and has all that it has."""
        leader = self._leader()
        if leader is None or leader.storage_trouble or leader.membership.joint:
            return False
        if not all(process.awake for process in self.processes.values()):
            return False
        if any(
            process.replica and process.replica.is_damaged for process in self.processes.values()
        ):
            return False  # whatever the leader knows of it by now
        if any(
            process.workers.jobs_until > self.agenda.now + SECOND // 10
            for process in self.processes.values()
        ):
            return False  # a job of the time before looks as if that one's disk hung
        status = leader.status().raft
        if leader.machine.applied_index < status.commit:
            return False
        fit = [
            peer
            for peer in status.peers
            if peer.member in status.membership.voters
            and not peer.damaged
            and not peer.ailing
            and peer.silent_ticks <= 2
            and peer.state is PeerState.REPLICATE
            and peer.match + LAG_MAX >= status.last_index
        ]
        return len(fit) > len(status.membership.voters) // 2

    def _enough(self) -> bool:
        """So many that the run shows something."""
        return sum(client.finished for client in self.clients) >= OPERATIONS_MIN and all(
            client.finished >= ETCD_OPERATIONS_MIN for client in self.etcd_clients
        )

    def _until(self, condition: Callable[[], bool], duration_us: int) -> bool:
        end = self.agenda.now + duration_us
        while self.agenda.now < end:
            if condition():
                return True
            if not self.agenda.step():
                raise Violation("nothing will ever happen any more")
        return condition()

    def _expect(
        self, condition: Callable[[], bool], promise: str, ticks: int = PEACE_TICKS
    ) -> None:
        if not self._until(condition, ticks * TICK_US):
            states = "; ".join(self._describe(process) for process in self.processes.values())
            raise Violation(f"not so within {ticks} ticks after the troubles: {promise} ({states})")

    def _describe(self, process: Process) -> str:
        replica = process.replica
        if replica is None:
            return f"member {process.member}: {process.gone or 'down'}"
        raft = replica._raft
        return (
            f"member {process.member}: {raft.role.name} in term {raft.term}, "
            f"applied {replica.machine.applied_index}, commit {raft.commit}"
        )

    def _leader(self) -> Replica | None:
        for process in self.processes.values():
            replica = process.replica
            if replica is not None and replica.is_leader and replica.has_quorum_contact:
                return replica
        return None

    def _equal(self) -> bool:
        leader = self._leader()
        if leader is None:
            return False
        if leader.membership.outgoing:
            return False
        last = leader.status().raft.last_index
        whole = self._whole(leader)
        for process in whole:
            process.find_flaws()
        if any(process.is_flawed for process in whole):
            return False
        replicas = {each.member: each.replica for each in whole}
        if any(each is None or each.machine.applied_index != last for each in replicas.values()):
            return False
        # Once: a long history takes seconds to compare.
        for member, replica in replicas.items():
            assert replica is not None
            self.oracle.model.compare(f"member {member}", replica.machine)
        return True

    def _whole(self, leader: Replica) -> list[Process]:
        """The members that must have everything in the end."""
        members = sorted(leader.membership.voters | leader.membership.learners)
        processes = [self.processes[member] for member in members]
        return [
            process
            for process in processes
            if process.gone is None and "bit flip" not in process.excuses
        ]

    def _check_history(self) -> None:
        history = [operation for client in self.clients for operation in client.history]
        if self.plan.etcd.writes_shared and self.etcd_clients:
            # Of what others write, too, it knows too little.
            history = [operation for operation in history if operation.key != SHARED_KEY]
        report = linearizability.check(history)
        if report.verdict is not Verdict.LINEARIZABLE:
            raise Violation(f"the history is {report.verdict.value}: {report.story}")

    def _check_etcd(self) -> int:
        """What nobody can check before all is over; how many events watchers saw."""
        model = self.oracle.model
        self.ledger.check_refused()
        for watcher in self.watchers:
            watcher.finish(model.keyspace.revision)
        self._expect(
            lambda: all(watcher.is_finished for watcher in self.watchers),
            "watchers are told of everything",
        )
        before = model.keyspace.states[model.model_from].values()
        history = History(model.keyspace.events, before)
        history.compactions |= model.compactions
        events = sum(watcher.check(history) for watcher in self.watchers)
        self._expect(self._hash_all, "every member can hash what it holds")
        hashes = {(told.hash, told.compacted, told.hash_revision) for told in self._hashes.values()}
        if len(hashes) != 1:
            raise Violation(f"members differ: {self._hashes}")
        return events

    def _hash_all(self) -> bool:
        """Ask all that are there for their hash; True once each has told it."""
        leader = self._leader()
        if leader is None:
            return False
        waits = False
        for process in self._whole(leader):
            if process.member in self._hashes:
                continue
            waits = True
            if process.etcd is not None and process.member not in self._hashing:
                self._hashing.add(process.member)
                process.ask_etcd(partial(self._ask_hash, process.member))
        return not waits

    def _ask_hash(self, member: int, etcd: EtcdMember) -> None:
        def hashed(outcome: HashAnswer | Error) -> None:
            self._hashing.discard(member)
            if isinstance(outcome, HashAnswer):
                self._hashes[member] = outcome

        etcd.service.hash_kv(0, hashed)


assert PEACE_TICKS * TICK_US <= 60 * SECOND
