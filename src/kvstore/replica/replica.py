"""One member: consensus core, log, state machine, transport and timer tied together.

Driven by plain calls from one thread. Inputs (:meth:`Replica.propose`, ``read``, ``receive``,
``tick``, ``storage_ready``) only note what came and ask, through ``wake``, for one call of
:meth:`Replica.turn`, which does all the work there is: whatever arrives between two turns is one
batch.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from kvstore._engine.files.native import FileSystem, PosixFileSystem
from kvstore.errors import (
    CorruptionError,
    Error,
    InternalError,
    InvalidArgumentError,
    OutcomeUnknownError,
    StorageError,
    UnavailableError,
)
from kvstore.raft import (
    Bundle,
    Entry,
    Membership,
    Message,
    MessageKind,
    Proposed,
    Role,
    SnapshotMeta,
)
from kvstore.replica.applying import Applying, ProposalDone, ReadDone
from kvstore.replica.asked import Asked, ProposalTaken
from kvstore.replica.checkpoints import Removals
from kvstore.replica.compaction import Compaction
from kvstore.replica.comparing import Comparing
from kvstore.replica.counters import ReplicaCounters
from kvstore.replica.directory import MemberDirectory
from kvstore.replica.durations import Durations
from kvstore.replica.failing import defect_of, resign, told_of
from kvstore.replica.incoming import JudgeMembership, check_packet
from kvstore.replica.listener import Listener
from kvstore.replica.log_clock import LogClock
from kvstore.replica.log_note import NoteKeeper
from kvstore.replica.log_repair import LogRepair
from kvstore.replica.mending import Mending
from kvstore.replica.notices import CommitNotices, Later, at_once
from kvstore.replica.opening import open_member
from kvstore.replica.options import ReplicaOptions, ReplicaStatus
from kvstore.replica.pace import Pace
from kvstore.replica.packets import (
    Packet,
    RangeLoan,
    RangeWish,
    SnapshotPart,
    StateProbe,
    StateReport,
    Transport,
)
from kvstore.replica.range_lending import RangeLending
from kvstore.replica.range_repair import RangeRepair
from kvstore.replica.repair import Repair
from kvstore.replica.scrub import Scrub
from kvstore.replica.storage import Identity
from kvstore.replica.storage_watch import StorageWatch
from kvstore.replica.tail import Tail
from kvstore.replica.transfers import Transfers
from kvstore.replica.work import AtOnce, Jobs, Work, raise_unless_passing
from kvstore.state import Applied, Prepared, StateMachine, open_state

__all__ = ["ProposalDone", "ReadDone", "Replica", "ReplicaOptions", "ReplicaStatus"]

Answer = TypeVar("Answer")
_MEND, _SNAPSHOT = MessageKind.MEND, MessageKind.SNAPSHOT


class Replica:
    """One member. All calls from one thread; callbacks come from within :meth:`turn`.

    The first failure of log, state or engine fences it: it answers nobody, votes for nobody,
    acknowledges nothing more; ``on_failure`` is called once, and :attr:`failure` says why. A leader
    whose storage failed tells another voter to take over. Damage in its state, where others have
    that, is no failure but repaired (:attr:`repair`).
    """

    def __init__(
        self,
        identity: Identity,
        path: str,
        transport: Transport,
        *,
        options: ReplicaOptions,
        rng: random.Random,
        wake: Callable[[], None],
        founders: Membership | None = None,
        forgotten_term: int = 0,
        filesystem: FileSystem | None = None,
        on_failure: Callable[[Error], None] | None = None,
        threaded: bool = True,
        work: Work | None = None,
        judge_membership: JudgeMembership = lambda membership: None,
        now: Callable[[], float] = time.monotonic,
        later: Later = at_once,
        wall: Callable[[], float] = time.time,
        understands_probes: Callable[[int], bool] = lambda member: True,
        understands_mending: Callable[[int], bool] = lambda member: True,
        understands_lending: Callable[[int], bool] = lambda member: True,
    ) -> None:
        """Open the member in directory ``path`` (its parent must exist) and recover it.

        ``founders``: the members of a new cluster, where this one may be a founder that has never
        run; None for one that must have run before or joins later with nothing. ``forgotten_term``:
        the newest term of the others, where this one has run before and its log may be gone: it
        then goes on as one that lost all of it; 0 where nobody can say that. ``rng`` must not
        repeat after a restart. ``threaded``: the log writes on a thread and :attr:`notify_fd` turns
        readable; otherwise whoever drives the replica calls :meth:`sync_storage`. ``work`` does
        what takes long, at once if it isn't given. ``now``: seconds of a monotonic clock; ``later``
        makes calls after some time, at once if it isn't given; ``wall``: seconds since 1970, to
        tell people by.
        ``judge_membership`` raises CorruptionError for a list of members, come from another one,
        that this program could not follow. ``understands_probes``: whether a member is known to
        take part in comparing states; ``understands_mending``: to take MEND, and not to break off a
        stream for it; ``understands_lending``: to give rows to a member with a damaged table.

        Raises ConfigurationError (another member's directory), CorruptionError (damage),
        StorageError (can't be read or written).
        """
        self.identity = identity
        self.options = options
        self.failure: Error | None = None
        # What was found damaged; the next turn has it repaired, or fences the member for it.
        self._damages: list[StorageError] = []
        self._read_ticks: dict[str, int] = {}
        self.notify_fd = -1
        self._transport = transport
        self._understands_mending = understands_mending
        self._wake = wake
        self._on_failure = on_failure
        self._judge_membership = judge_membership
        self._filesystem = PosixFileSystem() if filesystem is None else filesystem
        self.directory = MemberDirectory(path, self._filesystem)
        opened = open_member(
            identity,
            self.directory,
            options=options,
            rng=rng,
            founders=founders,
            forgotten_term=forgotten_term,
            open_machine=self._open_machine,
        )
        self._log, self._raft = opened.log, opened.raft
        self.recovery = opened.recovery
        """What it found when it was opened, and what follows: a row of the table of recovery."""
        self._was_leader = False
        self._clock = LogClock(now)
        self._storage_watch = StorageWatch(options.raft.election_ticks)
        self.counters = ReplicaCounters()
        self.durations = Durations()
        self._log.watch_syncs(now, self.durations.log_sync.note)
        self._leader_known = 0
        # Durable, but behind a snapshot that is being installed.
        self._durable: deque[Bundle] = deque()
        self._jobs = Jobs(AtOnce() if work is None else work, wake)
        removals = Removals(self._filesystem, self._jobs)
        self._applying = Applying(
            self._raft,
            opened.state.machine,
            path=opened.state.path,
            directory=self.directory,
            open_machine=self._open_machine,
            jobs=self._jobs,
            removals=removals,
            options=options,
            apply=self._apply,
            mends=self._mends,
            wake=wake,
            now=now,
            durations=self.durations,
        )
        self._log_note = NoteKeeper(self._log, self._jobs, options.tick_s)
        self._notices = CommitNotices(self._raft, later, wake)
        self._asked = Asked(self._raft, self._applying, self._ask_core)
        self._mending = Mending(self._raft, self._log, self._jobs)
        self._pace = Pace(self._raft, options.catch_up_bytes_per_s, now)
        self._tail = Tail(self._raft, self._log, self._jobs, options, self.counters, self._pace)
        self._compaction = Compaction(
            self._raft, self._log, self._applying, self._jobs, self._tail, options.tick_s
        )
        self._transfers = Transfers(
            identity.member,
            self._raft,
            self._applying,
            directory=self.directory,
            transport=transport,
            options=options,
            counters=self.counters,
            jobs=self._jobs,
            removals=removals,
            pace=self._pace,
            now=now,
        )
        self._lending = RangeLending(
            identity.member,
            self._raft,
            self._applying,
            transport=transport,
            options=options,
            jobs=self._jobs,
            pace=self._pace,
            damaged=self.damage_found,
        )
        self._ranges = RangeRepair(
            identity.member,
            self._raft,
            self._applying,
            directory=self.directory,
            transport=transport,
            options=options,
            counters=self.counters,
            jobs=self._jobs,
            understands=understands_lending,
        )
        self.repair = Repair(
            self._raft,
            self._applying,
            self._transfers,
            self._ranges,
            directory=self.directory,
            counters=self.counters,
            log=LogRepair(
                self._raft,
                self._log,
                self._applying,
                self._compaction,
                self._tail,
                jobs=self._jobs,
                counters=self.counters,
            ),
            note=self._log_note,
            jobs=self._jobs,
            tick_s=options.tick_s,
        )
        if opened.state.damage is not None:
            self.repair.begin_opened(opened.state.damage)
        self.comparing = Comparing(
            identity.member,
            self._raft,
            self._applying,
            self._jobs,
            transport,
            options,
            understands=understands_probes,
            damaged=self.damage_found,
        )
        self.scrub = Scrub(
            self._applying,
            self.directory,
            self._jobs,
            options,
            owner=self._log.log_id,
            damaged=self.damage_found,
            gives_way=self._has_disk_work,
            wall=wall,
        )
        if threaded:
            self.notify_fd = self._log.start_writer()
        self._turn_guarded()

    def _open_machine(self, path: str) -> StateMachine:
        options = self.options
        database = open_state(path, options=options.engine, filesystem=self._filesystem)
        try:
            return StateMachine(database, memory=options.memory, plain=options.plain_state)
        except BaseException:
            database.close()
            raise

    # --- what it is ----------------------------------------------------------------------------

    @property
    def machine(self) -> StateMachine:
        """The state as of what it has applied; another one after a snapshot was installed."""
        return self._applying.machine

    @property
    def member(self) -> int:
        """Its id."""
        return self.identity.member

    @property
    def leader(self) -> int:
        """The leader it knows, 0 for none."""
        return self._raft.leader if self.failure is None else 0

    @property
    def is_leader(self) -> bool:
        """It leads, as far as it knows, and is not fenced."""
        return self.failure is None and self._raft.role is Role.LEADER

    @property
    def has_quorum_contact(self) -> bool:
        """A leader that a majority answered lately, or a follower that hears its leader."""
        return self.failure is None and self._raft.has_quorum_contact

    @property
    def membership(self) -> Membership:
        """The newest configuration in its log, committed or not."""
        return self._raft.membership

    @property
    def membership_is_committed(self) -> bool:
        """:attr:`membership` holds for good."""
        return self._raft.membership_index <= self._raft.commit

    @property
    def leaving(self) -> frozenset[int]:
        """Removed members that are to be talked to all the same; see ``Raft.leaving``."""
        return self._raft.leaving

    @property
    def term(self) -> int:
        """Its current term."""
        return self._raft.term

    @property
    def last_log(self) -> tuple[int, int]:
        """Term and index of its last entry: of two members the larger knows more."""
        return self._raft.last_entry

    def status(self) -> ReplicaStatus:
        """This moment."""
        return ReplicaStatus(
            raft=self._raft.status(),
            applied=self.machine.applied_index,
            durable=self.machine.durable_index,
            revision=self.machine.revision,
            state_hash=self.machine.state_hash,
            log=self._log.statistics(),
            engine=self.machine.statistics(),
            failure=self.failure,
            remembered=self.machine.remembered,
            storage_trouble=self.storage_trouble,
            repair=self.repair.under_way,
            model_enabled=self.machine.model_enabled,
            compacted=self.machine.compacted,
        )

    @property
    def state_is_damaged(self) -> bool:
        """It can't be read, or a majority has another one: :attr:`repair` gets another state."""
        return self._applying.damage is not None

    @property
    def storage_trouble(self) -> str:
        """Why its storage takes nothing for now: full, hanging, too slow. Empty when it does.

        Until that is over it leads only where the others can't do without it.
        """
        return self._storage_watch.trouble

    @property
    def log_short(self) -> str:
        """In which way its log lacked, at its start, what had been durable; or empty."""
        return self._log.short

    @property
    def stands_aside(self) -> bool:
        """It lost what it had acknowledged: it neither votes nor leads until it has it again."""
        return self._raft.damaged

    @property
    def vote_lost(self) -> str:
        """In which way its term and vote were damaged at its start, of the only voter; or empty."""
        return self._log.vote_lost

    @property
    def log_trouble(self) -> str:
        """Entries of its log whose data is damaged, and not had from another member yet; or empty.

        Until then it doesn't lead, and applies nothing from there on.
        """
        return self._mending.trouble

    @property
    def note_damage(self) -> str:
        """What of the note of its log's end couldn't be read when it was opened; or empty."""
        return self._log.note_damage

    @property
    def log_id(self) -> bytes:
        """The random id of its log: no other log has it, and this one always does."""
        return self._log.log_id

    @property
    def log_bytes(self) -> int:
        """What was ever written to its log, since it was opened."""
        return self._log.statistics()["appended_bytes"]

    def free_bytes(self) -> int:
        """What its disk has left, 0 where that isn't known. Asks the disk; any thread."""
        return self.directory.free_bytes()

    def log_time_ms(self) -> int:
        """The time for what this leader proposes now (:class:`LogClock`)."""
        return self._clock.read_ms(self._raft.term, self.machine.clock_ms)

    # --- what it takes -------------------------------------------------------------------------

    def propose(self, data: bytes, done: ProposalDone, taken: ProposalTaken | None = None) -> None:
        """Replicate one entry of encoded commands, or operations; ``done`` gets their results, or
        the reason. The answers of operations go to all who :meth:`listen`.

        NotLeaderError and UnavailableError mean that nothing was proposed; OutcomeUnknownError
        that it may still be applied. ``taken`` is told the entry's term once it is in this member's
        log.
        """
        if self.failure is None and self._applying.damage is not None:
            done(self._applying.refusal())
        elif self.failure is None and self.lacks_room:
            done(UnavailableError("this member's disk is full; retry later, or elsewhere"))
        elif self._asked.propose(data, done, taken):
            self._wake()

    def listen(self, listener: Listener) -> None:
        """Tell ``listener`` of what is applied from now on."""
        self._applying.listeners.append(listener)

    def unlisten(self, listener: Listener) -> None:
        """Tell it no more."""
        self._applying.listeners.remove(listener)

    def read(self, done: ReadDone) -> None:
        """Call ``done(None)`` when reading :attr:`machine` is linearizable, or with the reason."""
        if self.failure is None and self._applying.damage is not None:
            done(self._applying.refusal())
        elif self._asked.read(done):
            self._wake()

    def reads_take(self, ticks: int, reader: str = "") -> None:
        """A read of :attr:`machine` isn't done after so many ticks, 0 for none: a disk may hang.

        ``reader``: whose read it is; each has its own.
        """
        self._read_ticks[reader] = ticks

    def read_failed(self, error: StorageError) -> Error:
        """Reading :attr:`machine` raised ``error``: what to answer the one who asked.

        Unless the system merely lacked something it must not serve again from what is damaged. If
        others have the data its state is made anew from theirs, else the member is fenced.
        """
        if not error.retryable:
            self.damage_found(error)
        return told_of(error, UnavailableError, alone=self._is_alone)

    def damage_found(self, error: StorageError) -> None:
        """A file of its own was found damaged (``error.path``), though nobody has asked for that
        part: it is repaired, as what a read finds."""
        self._damages.append(error)
        self._wake()

    def check_all(self) -> None:
        """Read and check all that it holds, from now on and at once; what is damaged is repaired.

        :attr:`scrub` says how far that is.
        """
        # Of a segment that is being written nobody can say where it ends.
        if not self._jobs.start("segment", self._log.begin_next_segment, self._segment_begun):
            self.scrub.hurry()

    def _segment_begun(self, outcome: int | Error) -> None:
        if isinstance(outcome, Error):
            raise_unless_passing(outcome)
        self.scrub.hurry()

    def propose_membership(self, target: Membership, *, force: bool = False) -> Proposed:
        """Begin to change the members; raises what ``Raft.propose_membership`` raises."""
        proposed = self._ask_core(partial(self._raft.propose_membership, target, force=force))
        self._wake()
        return proposed

    def change_is_done(self, proposed: Proposed) -> bool:
        """A membership change begun here is committed; False for good once its term is over."""
        return self._raft.change_is_done(proposed)

    def transfer_leadership(self, to: int) -> None:
        """Hand leadership over; raises what ``Raft.transfer_leadership`` raises."""
        self._ask_core(partial(self._raft.transfer_leadership, to))
        self._wake()

    def unreachable(self, member: int) -> None:
        """The transport lost packets to ``member``."""
        if self.failure is None:
            self._guard(partial(self._raft.unreachable, member))

    def campaign(self) -> None:
        """Stand for election now."""
        self._guard(self._raft.campaign)
        self._wake()

    def receive(self, packets: Sequence[Packet]) -> None:
        """Take packets from other members: late, doubled or reordered, they are safe.

        Raises CorruptionError for one that no member sends (``incoming.py``): nothing of it was
        kept, and those after it were not looked at. It is no reason to stop.
        """
        if self.failure is not None:
            return
        self._wake()
        for packet in packets:
            check_packet(packet, self._judge_membership)
            if isinstance(packet, Message):
                self._listen(partial(self._raft.step, packet))
            elif isinstance(packet, SnapshotPart):
                if self._listen(partial(self._transfers.hears, packet)):
                    self._guard(partial(self._transfers.take_part, packet))
            elif isinstance(packet, StateProbe | StateReport):
                self._guard(partial(self.comparing.take, packet))
            elif isinstance(packet, RangeWish):
                self._guard(partial(self._lending.take, packet))
            elif isinstance(packet, RangeLoan):
                self._guard(partial(self._ranges.take, packet))
            else:
                self._guard(partial(self._transfers.take_progress, packet))

    def _listen(self, call: Callable[[], Answer]) -> Answer | None:
        """Let the core judge a packet: that it lies is its sender's fault, all else ends us."""
        try:
            return call() if self.failure is None else None
        except CorruptionError:
            raise
        except Error as error:
            self._fail(error)
        except Exception as defect:  # noqa: BLE001 - it says why the member ended
            self._fail(defect_of(defect))
        return None

    def pulse(self, member: int, term: int) -> None:
        """The process of ``member`` lives, in ``term``: see ``Raft.pulse``."""
        if self.failure is None:
            self._guard(partial(self._raft.pulse, member, term))

    def tick(self) -> None:
        """One tick of the clock has passed."""
        if self.failure is not None:
            return
        self._guard(self._judge_storage)
        self._guard(self._raft.tick)
        if self._log.out_of_space:
            self._log.try_again()
        self._applying.tick()
        self._guard(self._transfers.tick)
        self._guard(self._lending.tick)
        self._guard(self.repair.tick)
        if self._compaction.is_due():
            self._guard(self._compaction.compact)
        if self.lacks_room:
            self._guard(self._compaction.make_room)
        self._pace.tick(self.log_bytes)
        self._tail.tick()
        self._guard(self._log_note.tick)
        self._guard(self.comparing.tick)
        self._guard(self.scrub.tick)
        self._mending.tick()
        self._wake()

    def _has_disk_work(self) -> bool:
        """The disk is at something that others wait for, or may have to."""
        engine = self.machine.statistics()
        return bool(
            engine["frozen_memtables"]
            or float(engine["compaction_score"]) >= 1.0  # type: ignore[arg-type]
            or self._transfers.is_sending
            or self.storage_trouble
            or self.repair.under_way
        )

    def _judge_storage(self) -> None:
        self._log.tick()
        self._jobs.tick()
        lack = ""
        if self._applying.lacks_room:
            lack = "its disk has no room for the state"
        elif self._log.out_of_space:
            lack = "its disk has no room for the log"
        else:
            lack = self._transfers.lack
        watch = self._storage_watch
        oldest = max(
            self._log.oldest_ticks(),
            self._jobs.oldest_ticks,
            self._applying.flush_ticks,
            max(self._read_ticks.values(), default=0),
        )
        watch.tick(lack, oldest)
        self._raft.storage_is_well(not watch.trouble and not self.repair.state_is_damaged)

    def storage_ready(self) -> None:
        """The log has made something durable, or has failed."""
        self._wake()

    def sync_storage(self) -> None:
        """Without the log's thread: make what was saved durable."""
        if self.failure is None:
            self._guard(self._sync_log)
            self._wake()

    def _sync_log(self) -> None:
        try:
            self._log.sync()
        except StorageError as error:
            # What waits there is safe; a log that has failed says so again when it is asked.
            if not error.retryable:
                raise

    @property
    def storage_busy(self) -> bool:
        """Something saved isn't durable yet."""
        return self.failure is None and self._log.busy

    # --- what it does --------------------------------------------------------------------------

    def turn(self) -> None:
        """Do all the work there is."""
        if self.failure is None:
            self._turn_guarded()

    def _turn_guarded(self) -> None:
        self._guard(self._turn)

    def _guard(self, work: Callable[[], None]) -> None:
        if self.failure is not None:
            return
        try:
            work()
        except Error as error:
            self._fail(error)
        except Exception as defect:  # noqa: BLE001 - it says why the member ended
            self._fail(defect_of(defect))

    def _ask_core(self, call: Callable[[], Answer]) -> Answer:
        """Let the core do ``call``; its refusals are the caller's, a defect is the member's end."""
        try:
            return call()
        except (Error, InvalidArgumentError) as error:
            if isinstance(error, InternalError):
                self._fail(error)
            raise
        except Exception as exception:
            defect = defect_of(exception)
            self._fail(defect)
            raise defect from exception

    def _turn(self) -> None:
        damages, self._damages = self._damages, []
        for damage in damages:
            if not self.repair.mends(damage):
                raise damage
        self._applying.begin_turn()
        self._jobs.take()
        self._durable += self._log.take_durable()
        if self._durable:
            self._tell_stored()
        self._applying.apply_held()
        self._compaction.remove_log()
        self._asked.ask()
        self._pace.look()
        raft = self._raft
        if raft.leader != self._leader_known and raft.leader:
            self._leader_known = raft.leader
            self.counters.leader_changes += 1
        while (bundle_or_none := raft.ready()) is not None:
            self._perform(bundle_or_none)
        self.repair.look()
        leads = raft.role is Role.LEADER
        if self._was_leader and not leads:
            self._applying.forget_proposed(
                OutcomeUnknownError("leadership was lost; retry with the same id")
            )
        self._was_leader = leads
        self._notices.look()

    def _perform(self, bundle: Bundle) -> None:
        if bundle.messages:
            # First: the way over followers' disks is longer than the one over the own.
            self._send(bundle.messages)
        if bundle.must_sync:
            self._log.save(bundle)
        if bundle.snapshot is not None:
            self._transfers.asked_for(bundle.snapshot)
        if bundle.committed:
            self._applying.apply(bundle.committed)
        if bundle.fetches:
            self._tail.fetch(bundle.fetches)
        if bundle.mends:
            self._mending.take(bundle.mends)
        self._asked.confirmed(bundle)
        self._applying.serve_reads()

    def _apply(self, entries: Sequence[Entry], prepared: Prepared) -> Sequence[Applied]:
        """Apply ``entries``, which were ``prepared``."""
        return self.machine.apply_prepared(prepared)

    def _send(self, messages: list[Message]) -> None:
        for message in messages:
            if message.kind is _SNAPSHOT:
                self._transfers.begin(message)
        self._transport.send(
            [
                m
                for m in messages
                if m.kind is not _SNAPSHOT
                and (m.kind is not _MEND or self._understands_mending(m.to))
            ]
        )

    def _tell_stored(self) -> None:
        """Tell the core what is durable, in order, a snapshot when it is the state as well."""
        durable = self._durable
        number = 0
        while durable and not self._applying.is_installing:
            bundle = durable.popleft()
            if bundle.snapshot is None:
                number = bundle.number
                continue
            if number:
                self._raft.stored(number)
                number = 0
            self._install(bundle.number, bundle.snapshot)
        if number:
            # Once for all that one sync made durable: it is acknowledged by one message.
            self._raft.stored(number)

    def _install(self, number: int, mark: SnapshotMeta) -> None:
        """The log durably says that it begins after the snapshot: make that the state.

        Unless the state holds as much by itself, of a member whose log lost that. It does durably:
        the core takes no snapshot of what it knows to be committed, so it was so at the start.
        """

        def installed() -> None:
            self._compaction.installed(mark.index)
            self._raft.stored(number)

        if self._applying.machine.applied_index >= mark.index:
            self._transfers.drop_ready(mark)
            installed()
        else:
            self._transfers.take_ready(mark)
            self._applying.install(mark.index, installed)

    @property
    def lacks_room(self) -> bool:
        """Its disk is full: it takes no writes until there is room, and goes on by itself then."""
        return self._applying.lacks_room or self._log.out_of_space

    # --- ending --------------------------------------------------------------------------------

    def _mends(self, damage: StorageError) -> bool:
        """Damage was met by who applies."""
        return self.repair.mends(damage)

    def _fail(self, error: Error) -> None:
        """Fence the member: nothing it does from here on could be trusted.

        But for damage that can be mended, found by a job as a rule.
        """
        if self.failure is not None or (
            isinstance(error, CorruptionError) and self.repair.mends(error)
        ):
            return
        leads = self.is_leader
        self.failure = error
        if isinstance(error, StorageError):
            if leads:
                resign(self._raft, self._transport)
            self._asked.refuse_all(
                told_of(error, OutcomeUnknownError, alone=self._is_alone),
                told_of(error, UnavailableError, alone=self._is_alone),
            )
        else:
            self._asked.refuse_all(error, error)
        if self._on_failure is not None:
            self._on_failure(error)

    @property
    def _is_alone(self) -> bool:
        """No other member could have what this one holds."""
        # Without any list that is left, or had yet, it is one of several.
        return self._raft.membership.members == {self.member}

    def close(self) -> None:
        """Fail what waits, and close engine and log. What was acknowledged is on disk already."""
        failed = self.failure is not None
        stopping = UnavailableError("the server is stopping")
        if not failed:
            self.failure = stopping
        self._asked.refuse_all(
            OutcomeUnknownError("the server is stopping; retry with the same id"), stopping
        )
        self._jobs.close()
        self.scrub.close()
        self._transfers.close()
        self._lending.close()
        self._ranges.close()
        for close in (self.machine.close, self._log.close):
            try:
                close()
            except Error as error:
                # What a full disk didn't take was never acknowledged.
                if not failed:
                    raise_unless_passing(error)
