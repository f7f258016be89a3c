"""One member as a process: replica and service on a simulated disk, killed and started at will."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import (
    ConfigurationError,
    CorruptionError,
    Error,
    InternalError,
    NotLeaderError,
    StorageError,
    UnavailableError,
)
from kvstore.raft import Bundle, Entry, Membership, Message, MessageKind, Role
from kvstore.replica import Identity, Replica, ReplicaOptions
from kvstore.replica.packets import Packet, decode_packet, encode_packet
from kvstore.server.peers.pulse_datagram import decode
from kvstore.server.peers.pulses import Pulses
from kvstore.service import Get, KVService, Limits, Operation
from kvstore.service.calls import as_calls
from kvstore.service.operations import Result
from kvstore.state import SESSION_BYTES, Applied, Prepared, StateMachine
from tests.simulator.agenda import MILLISECOND, SECOND, Agenda
from tests.simulator.etcd_member import EtcdMember
from tests.simulator.lies import forge
from tests.simulator.network import Network, tell
from tests.simulator.oracle import Oracle
from tests.simulator.plan import TICK_US, Plan
from tests.simulator.trace import Trace, Violation
from tests.simulator.workers import Workers

__all__ = ["LOG_DIRECTORY", "STATE_DIRECTORY", "Keep", "Process"]

Keep = Literal["none", "prefix", "random", "all"]
Answer = Callable[[Result], None]

DIRECTORY = "/member"
LOG_DIRECTORY = f"{DIRECTORY}/log"
STATE_DIRECTORY = f"{DIRECTORY}/state-"
CALL_S = 1.0
"""The deadline that calls come with."""
DELAY_S = 0.5
"""What a service takes a call to have been under way: more than the plan's delays and two ticks."""
EXPIRY_TICKS = 5
PROMISE_OUTAGE_MS = (20, 400)
HANGING_LOOK_US = 20 * MILLISECOND
STALLS = 0.05
"""How often an engine says that it has no room, and a flush must be waited for."""


class WatchedReplica(Replica):
    """A replica that shows the oracle what it does."""

    def __init__(
        self, oracle: Oracle, stalls: random.Random, *arguments: object, **options: object
    ) -> None:
        self._oracle = oracle
        self._stalls = stalls
        # What each member was sent in a term: index, how far the log was, what it kept no more.
        self._snapshots: dict[tuple[int, int], tuple[int, int, int]] = {}
        super().__init__(*arguments, **options)  # type: ignore[arg-type]

    def _open_machine(self, path: str) -> StateMachine:
        machine = super()._open_machine(path)
        self._oracle.saw_state(self.identity.member, machine)
        stalls = self._stalls
        real = machine.has_room
        machine.has_room = lambda: stalls.random() > STALLS and real()  # type: ignore[method-assign]
        return machine

    @property
    def is_damaged(self) -> bool:
        """It lost entries, or their data, and doesn't vote, or doesn't lead, for now."""
        status = self._raft.status()
        return status.damaged or status.hollow > 0

    def _send(self, messages: list[Message]) -> None:
        for message in messages:
            if message.kind is MessageKind.SNAPSHOT:
                self._check_snapshot(message)
        super()._send(messages)

    def _check_snapshot(self, message: Message) -> None:
        """A member that has got a snapshot needs no other one soon: its entries are in the tail."""
        assert message.snapshot is not None
        written = self._log.statistics()["appended_bytes"]
        given_up = self._tail._given_up
        sent = self._snapshots.get((message.term, message.to))
        tail = self.options.log_tail_bytes - 2 * self.options.segment_bytes
        if (
            sent is not None
            and self._raft._state.progress[message.to].match >= sent[0]
            and written - sent[1] < tail
            and given_up == sent[2]
        ):
            raise Violation(f"member {message.to} needs a second snapshot after that of {sent[0]}")
        self._snapshots[message.term, message.to] = (message.snapshot.index, written, given_up)

    def _perform(self, bundle: Bundle) -> None:
        if bundle.entries:
            before = self._raft._state.log.term(bundle.entries[0].index - 1)
            self._oracle.saw_entries(self.member, before, bundle.entries)
        super()._perform(bundle)

    def _apply(self, entries: Sequence[Entry], prepared: Prepared) -> Sequence[Applied]:
        self._oracle.saw_committed(self.member, self.machine.applied_index, entries)
        answers = super()._apply(entries, prepared)
        self._oracle.saw_applied(self.member, self.machine, entries, answers)
        return answers


class Process:
    """A member's machine: its disk, its clock, and the program where it runs.

    ``gone`` says why it will never run again, None while it may.
    """

    def __init__(
        self,
        member: int,
        founders: Membership | None,
        *,
        plan: Plan,
        agenda: Agenda,
        trace: Trace,
        oracle: Oracle,
        network: Network,
        processes: Mapping[int, Process],
    ) -> None:
        self.member = member
        self.gone: str | None = None
        self.replica: WatchedReplica | None = None
        self._speed = 1.0
        # When that was set, and what its clock said then, in microseconds.
        self._sped_at, self._clock_us = 0, 0.0
        self.slowness = 1
        """Factor on the time that a sync takes."""
        self.hanging = False
        """Its disk finishes nothing of the log; what it was given is done when that ends."""
        self.fatal_promise: MessageKind | None = None
        """Power is lost as soon as it has sent one of these."""
        self.outage_ms = PROMISE_OUTAGE_MS
        """How long it is then off."""
        self.excuses: set[str] = set()
        # Its log was damaged at rest: what is older than its mark may be damaged for good.
        self.rotten = False
        # It found that when it started, and may not have again what it lost.
        self.is_healing = False
        """What was done to its disk, and explains a failure."""
        self.flipped: set[str] = set()
        """Files of its state with a bit turned, which it repairs by itself."""
        self.disk = MemoryFileSystem()
        self.restart_after_us: Callable[[], int] = lambda: 100 * MILLISECOND
        self.starts = 0
        self._founders = founders
        self._plan = plan
        self._agenda = agenda
        self._trace = trace
        self._oracle = oracle
        self._network = network
        self._processes = processes
        self._rng = random.Random(f"{plan.seed}/process/{member}")
        self._sessions = random.Random(f"{plan.seed}/sessions/{member}")
        self.workers = Workers(self.later, agenda, random.Random(f"{plan.seed}/jobs/{member}"))
        self._service: KVService | None = None
        self.etcd: EtcdMember | None = None
        """What serves etcd's API, where the program runs and the seed has it."""
        self._takes_batches = False
        self._resume_at = 0
        self._stopped_until = 0
        # It was told lies since its start.
        self._deceived = False
        self._pulses: Pulses | None = None
        self._followed = Membership()
        self._ticks = 0
        self._turn_asked = False
        self._syncing = False
        self._told: tuple[Role, int] = (Role.FOLLOWER, 0)
        # There were others that could lead, when it ran last.
        self._has_others = True

    # --- life ----------------------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        """What its directory says that it is."""
        return Identity("simulated", self.member)

    @property
    def up(self) -> bool:
        """The program runs (it may be paused)."""
        return self.replica is not None

    def start(self) -> None:
        """Run the program on what is on the disk."""
        if self.replica is not None or self.gone is not None:
            return
        self.starts += 1
        self._syncing = False
        self._turn_asked = False
        self._resume_at = 0
        self._stopped_until = 0
        self._deceived = False
        self.workers.watch(self.disk)
        try:
            replica = WatchedReplica(
                self._oracle,
                random.Random(f"{self._plan.seed}/stalls/{self.member}/{self.starts}"),
                self.identity,
                DIRECTORY,
                self,
                options=self._options(),
                rng=random.Random(f"{self._plan.seed}/member/{self.member}/{self.starts}"),
                wake=self._wake,
                founders=self._founders,
                filesystem=self.disk,
                threaded=False,
                work=self.workers,
                now=self.clock_s,
                later=self._after_s,
                wall=self.clock_s,
            )
        except Error as error:
            self._stop_for(error)
            return
        self.replica = replica
        if "bit flip" in self.excuses:
            self.excuses.discard("bit flip")
            self.is_healing = True
        self._service = KVService(
            self._route,
            now=self.clock_s,
            soon=self._soon,
            draw=self._sessions.randbytes,
            limits=Limits(delay_s=DELAY_S),
            work=self.workers,
            plain=self._draws("service"),
        )
        self._takes_batches = self._draws("front")
        if self._plan.model_after_us is not None:
            self._start_etcd(replica)
        status = replica.status()
        self._trace.note(
            f"member {self.member} starts: term {status.raft.term}, log to "
            f"{status.raft.last_index}, applied {status.applied}"
        )
        # Once it has run it is no founder any more: an empty disk would be amnesia.
        self.later(self._tick_us(), self._tick)
        if self._plan.replica.raft.pulse_ticks:
            self._start_pulses()
        self._after_step()
        self._wake()

    def _start_etcd(self, replica: Replica) -> None:
        self.etcd = EtcdMember(
            replica,
            plan=self._plan,
            agenda=self._agenda,
            network=self._network,
            find=self._find_etcd,
            now=self.monotonic_s,
            soon=self._soon,
            later=self._after_s,
            work=self.workers,
            rng=random.Random(f"{self._plan.seed}/etcd/{self.member}/{self.starts}"),
        )

    def _find_etcd(self, member: int) -> EtcdMember | None:
        process = self._processes.get(member)
        return None if process is None else process.etcd

    def _options(self) -> ReplicaOptions:
        """Any member, after any start, may work by the plain forms: nobody may notice."""
        return replace(self._plan.replica, plain_state=self._draws("state"))

    def _draws(self, part: str) -> bool:
        drawn = random.Random(f"{self._plan.seed}/forms/{part}/{self.member}/{self.starts}")
        return drawn.random() < 0.5

    def stop(self, keep: Keep, why: str) -> None:
        """End the program at once; the disk keeps what ``keep`` says."""
        self._trace.note(f"member {self.member} stops: {why}, disk keeps {keep}")
        self.starts += 1
        left = self.disk.crash(self._rng, keep)
        self.abandon()
        self.disk = left

    def abandon(self) -> None:
        """Let go of the program. What it still does to its disk, nobody will see."""
        replica, self.replica, self._service = self.replica, None, None
        etcd, self.etcd = self.etcd, None
        if etcd is not None:
            etcd.end()
        self._pulses = None
        self.workers.end()
        if replica is not None:
            with contextlib.suppress(Error):
                replica.close()

    def _stop_for(self, error: Error) -> None:
        """The program ended itself with ``error``: is there a reason for it?"""
        if isinstance(error, (InternalError, ConfigurationError)):
            raise Violation(f"member {self.member} failed: {error!r}") from error
        if isinstance(error, CorruptionError):
            if "bit flip" not in self.excuses and not (self.flipped and not self._has_others):
                raise Violation(f"member {self.member} found damage: {error}") from error
            self.gone = f"damaged: {error}"
        elif not isinstance(error, StorageError) or not self.excuses:
            raise Violation(f"member {self.member} failed: {error!r}") from error
        power_lost = self.disk.stopped
        self.disk.heal()
        self.excuses.discard("disk error")
        self.excuses.discard("power loss")
        keep: Keep = self._rng.choice(("none", "prefix", "random")) if power_lost else "all"
        self.stop(keep, str(error))
        if self.gone is None:
            self._agenda.after(self.restart_after_us(), self.start)

    @property
    def is_flawed(self) -> bool:
        """Its state was damaged, and isn't another one yet."""
        if self.flipped:
            self.flipped &= set(self.disk.files())
        return bool(self.flipped)

    def find_flaws(self) -> None:
        """Read all of the state, as a scrub does: what it finds is repaired."""
        replica = self.replica
        if replica is None or replica.repair.under_way or not self.is_flawed:
            return
        try:
            replica.machine.verify()
        except StorageError as error:
            replica.read_failed(error)
        else:
            # In a file that is being removed, or that only a start reads.
            self.flipped.clear()

    @property
    def awake(self) -> bool:
        """Neither paused nor held up."""
        return self._agenda.now >= self._resume_at

    def pause(self, duration_us: int) -> None:
        """Stand still, as with SIGSTOP; whatever comes waits."""
        self._stopped_until = max(self._stopped_until, self._agenda.now + duration_us)
        self.hold_up(duration_us)

    def hold_up(self, duration_us: int) -> None:
        """Keep its loop busy; the process lives."""
        self._resume_at = max(self._resume_at, self._agenda.now + duration_us)

    def later(self, delay_us: int, work: Callable[[], None]) -> None:
        """Do ``work`` if this very program still runs then, and look at the member afterwards."""
        incarnation = self.starts

        def run() -> None:
            if self.replica is None or self.starts != incarnation:
                return
            if self._agenda.now < self._resume_at:
                self._agenda.after(self._resume_at - self._agenda.now, run)
                return
            work()
            self._after_step()

        self._agenda.after(delay_us, run)

    def _after_s(self, delay_s: float, work: Callable[[], None]) -> None:
        """As its own clock has it."""
        self.later(int(delay_s * SECOND / self.speed), work)

    def _after_step(self) -> None:
        replica = self.replica
        if replica is None:
            return
        if replica.failure is not None:
            self._stop_for(replica.failure)
            return
        self._oracle.check_leader(replica)
        if replica.counters.log_tails_lost and not self.excuses and not self.rotten:
            raise Violation(f"member {self.member} gave up the tail of a log that is whole")
        if replica.comparing.differences:
            raise Violation(f"states differ, says {self.member}: {replica.comparing.figures()}")
        raft = replica._raft
        membership = raft.membership
        self._has_others = bool((membership.voters | membership.outgoing) - {self.member})
        if (raft.role, raft.term) != self._told:
            self._told = (raft.role, raft.term)
            self._trace.note(f"member {self.member} is {raft.role.name} in term {raft.term}")
        if replica.storage_busy and not self._syncing:
            self._syncing = True
            low, high = self._plan.sync_us
            self.later(self._rng.randint(low, high) * self.slowness, self._sync)

    # --- what drives it ------------------------------------------------------------------------

    @property
    def speed(self) -> float:
        """Of its clock: ticks come this much faster than they should."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self._clock_us = self.monotonic_s() * SECOND
        self._sped_at = self._agenda.now
        self._speed = speed

    def monotonic_s(self) -> float:
        """The machine's clock in seconds, which goes on while the program stands still."""
        return (self._clock_us + (self._agenda.now - self._sped_at) * self._speed) / SECOND

    def clock_s(self) -> float:
        """The program's clock in seconds: as fast as its ticks."""
        return self._ticks * TICK_US / SECOND

    def _tick_us(self) -> int:
        return int(TICK_US / self.speed)

    def _tick(self) -> None:
        assert self.replica is not None
        assert self._service is not None
        self._ticks += 1
        self.later(self._tick_us(), self._tick)
        if self._pulses is not None:
            for member, term in self._pulses.take().items():
                self.replica.pulse(member, term)
        self.replica.tick()
        if self.etcd is not None:
            self.etcd.tick()
        if self._ticks % EXPIRY_TICKS == 0:
            self._service.expire()

    def _wake(self) -> None:
        if not self._turn_asked:
            self._turn_asked = True
            self.later(self._rng.randint(0, 200), self._turn)

    def _turn(self) -> None:
        assert self.replica is not None
        self._turn_asked = False
        self.replica.turn()
        pulses = self._pulses
        if pulses is not None:
            pulses.stand(self.replica.term, self.replica.leader)
            if self._followed is not self.replica.membership:
                self._followed = self.replica.membership
                pulses.follow(self._followed.members - {self.member})

    def _sync(self) -> None:
        assert self.replica is not None
        if self.hanging:
            self.later(HANGING_LOOK_US, self._sync)
            return
        self._syncing = False
        self.replica.sync_storage()
        self._trace.note(f"member {self.member} synced")

    def _soon(self, work: Callable[[], None]) -> None:
        self.later(0, work)

    # --- its peers -----------------------------------------------------------------------------

    def send(self, packets: Sequence[Packet]) -> None:
        """Be the replica's transport."""
        for packet in packets:
            if isinstance(packet, Message):
                self._oracle.saw_message(packet)
                if packet.kind is self.fatal_promise:
                    self.fatal_promise = None
                    self.later(0, self._lose_power)
        self._network.send(packets)

    def _lose_power(self) -> None:
        self.stop(self._rng.choice(("none", "prefix", "random")), "power lost after a promise")
        self._agenda.after(self._rng.randint(*self.outage_ms) * MILLISECOND, self.start)
        self.outage_ms = PROMISE_OUTAGE_MS

    def receive(self, packet: Packet) -> None:
        """A packet has arrived."""
        self.later(0, lambda: self._take(packet))

    def _take(self, packet: Packet) -> None:
        assert self.replica is not None
        self._trace.note(f"{packet.sender} -> {packet.to}  {tell(packet)}")
        try:
            self.replica.receive((packet,))
        except CorruptionError as error:
            if not self._deceived:
                raise Violation(f"member {packet.sender} was taken for a liar: {error}") from error
            # It believes another one to lead that term, maybe.
            self._trace.note(f"member {self.member} believes none of it: {error}")

    def deceive(self, liar: Process, rng: random.Random) -> None:
        """``liar`` sends it something that no member sends."""
        self.later(0, lambda: self._hear_lie(liar, rng))

    def _hear_lie(self, liar: Process, rng: random.Random) -> None:
        if self.replica is None or liar.replica is None:
            return
        self._deceived = True
        packet = forge(rng, liar.replica._raft, self.replica._raft)
        self._trace.note(f"LIE {packet.sender} -> {packet.to}  {tell(packet)}")
        with contextlib.suppress(CorruptionError):
            self.replica.receive((decode_packet(encode_packet(packet)),))

    # --- its pulses ----------------------------------------------------------------------------

    def _start_pulses(self) -> None:
        """Introduce itself to all that run, and let its pulse thread go."""
        self._pulses = Pulses(self.member)
        self._followed = Membership()
        for other in self._processes.values():
            if other is not self and other._pulses is not None:
                self._pulses.learn(
                    other.member, other._pulses.key_for(self.member), other._pulses.sequence
                )
                other._pulses.learn(
                    self.member, self._pulses.key_for(other.member), self._pulses.sequence
                )
        self._beat(self._pulses)

    def _beat(self, pulses: Pulses) -> None:
        if self._pulses is not pulses:
            return
        heartbeat_ticks = self._plan.replica.raft.heartbeat_ticks
        self._agenda.after(heartbeat_ticks * TICK_US, lambda: self._beat(pulses))
        if self._agenda.now >= self._stopped_until:
            for peer, datagram in pulses.beat():
                self._send_datagram(peer, datagram)

    def _send_datagram(self, to: int, datagram: bytes) -> None:
        other = self._processes.get(to)
        if other is not None:
            self._network.send_datagram((self.member, to), datagram, other.hear)

    def hear(self, datagram: bytes) -> None:
        """A datagram has arrived; one that stands still finds it when it goes on."""
        if self._pulses is None:
            return
        if self._agenda.now < self._stopped_until:
            self._agenda.after(self._stopped_until - self._agenda.now, lambda: self.hear(datagram))
            return
        answer = self._pulses.receive(datagram)
        if answer is not None:
            asked = decode(datagram)
            assert asked is not None, "what is answered was understood"
            self._send_datagram(asked.sender, answer)

    # --- its clients ---------------------------------------------------------------------------

    def _route(self) -> Replica | Error:
        replica = self.replica
        if replica is None:
            return UnavailableError("not running")
        if replica.is_leader and replica.has_quorum_contact:
            return replica
        if replica.leader and replica.leader != self.member and replica.has_quorum_contact:
            return NotLeaderError(replica.leader)
        return UnavailableError("no leader, or no contact with a majority")

    def call(self, operation: Operation, answer: Answer) -> None:
        """A client's call has arrived; ``answer`` is called unless the program ends before."""
        incarnation = self.starts

        def done(results: Sequence[Result]) -> None:
            if self.replica is not None and self.starts == incarnation:
                answer(results[0])

        def take() -> None:
            assert self._service is not None
            deadline = self.clock_s() + CALL_S
            if self._takes_batches:
                draw = partial(self._sessions.randbytes, SESSION_BYTES)
                self._service.take(*as_calls((operation,), deadline, done, draw))
            else:
                self._service.submit((operation,), deadline, done)

        self.later(0, take)

    def ask_etcd(self, call: Callable[[EtcdMember], None]) -> None:
        """A client's call of etcd's API has arrived, or something on its stream."""

        def take() -> None:
            if self.etcd is not None:
                call(self.etcd)

        self.later(0, take)

    def read_here(self, operation: Get, answer: Answer) -> None:
        """Read through this member, whether it leads or not."""
        incarnation = self.starts

        def done(refusal: Error | None) -> None:
            replica = self.replica
            if replica is None or self.starts != incarnation:
                return
            answer(replica.machine.get(operation.key) if refusal is None else refusal)

        def take() -> None:
            assert self.replica is not None
            self.replica.read(done)

        self.later(0, take)
