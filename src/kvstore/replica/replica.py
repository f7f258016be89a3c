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
from dataclasses import dataclass, field
from functools import partial

from kvstore._engine.files.native import FileSystem, PosixFileSystem
from kvstore.engine import DB
from kvstore.engine import Options as EngineOptions
from kvstore.errors import (
    CorruptionError,
    Error,
    IntegrityCode,
    InternalError,
    InvalidArgumentError,
    OutcomeUnknownError,
    StorageError,
    UnavailableError,
)
from kvstore.raft import (
    Bundle,
    Entry,
    EntryKind,
    Membership,
    Message,
    MessageKind,
    Options,
    Proposed,
    Raft,
    Role,
    SnapshotMeta,
)
from kvstore.raft import Status as RaftStatus
from kvstore.replica.counters import ReplicaCounters
from kvstore.replica.directory import MemberDirectory
from kvstore.replica.incoming import JudgeMembership, check_packet
from kvstore.replica.log_clock import LogClock
from kvstore.replica.packets import REFUSED, Packet, SnapshotPart, SnapshotProgress, Transport
from kvstore.replica.snapshots import PART_BYTES, SnapshotReceiver, SnapshotSender
from kvstore.replica.storage import Identity, MemberLog
from kvstore.state import MemoryBounds, StateMachine
from kvstore.state.machine import CommandResult

__all__ = ["ProposalDone", "ReadDone", "Replica", "ReplicaOptions", "ReplicaStatus"]

ProposalDone = Callable[[Sequence[CommandResult] | Error], None]
ReadDone = Callable[[Error | None], None]

COMPACTION_TICKS = 20
"""Ticks between two looks at what the engine has made durable and the log may forget."""

_COMMAND = EntryKind.COMMAND


@dataclass(frozen=True, slots=True)
class ReplicaOptions:
    """Settings of one member.

    ``segment_bytes``: size of a log segment. ``engine``: the engine's options (its log is always
    off: the Raft log is the log). ``snapshot_part_bytes``: what a snapshot moves at a time.
    ``memory``: what is remembered of clients; must be the same on all members.
    """

    raft: Options = field(default_factory=Options)
    engine: EngineOptions = field(
        default_factory=lambda: EngineOptions(wal=False, write_buffer_size=16 << 20)
    )
    segment_bytes: int = 16 << 20
    snapshot_part_bytes: int = PART_BYTES
    memory: MemoryBounds = field(default_factory=MemoryBounds)


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One moment of a member. ``applied`` and ``durable`` (in tables) are log indexes.

    ``remembered``: plain requests that are remembered, their bytes, and open sessions.
    """

    raft: RaftStatus
    applied: int
    durable: int
    revision: int
    state_hash: int
    log: dict[str, int]
    engine: dict[str, object]
    failure: Error | None
    remembered: tuple[int, int, int] = (0, 0, 0)


@dataclass(slots=True)
class _Waiting:
    """A proposal that waits for its entry to be applied."""

    term: int
    done: ProposalDone


class Replica:
    """One member. All calls from one thread; callbacks come from within :meth:`turn`.

    The first failure of log, state or engine fences it: it answers nobody, votes for nobody,
    acknowledges nothing more; ``on_failure`` is called once, and :attr:`failure` says why.
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
        filesystem: FileSystem | None = None,
        on_failure: Callable[[Error], None] | None = None,
        threaded: bool = True,
        judge_membership: JudgeMembership = lambda membership: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the member in directory ``path`` (its parent must exist) and recover it.

        ``founders``: the members of a new cluster, where this one may be a founder that has never
        run; None for one that must have run before or joins later with nothing. ``rng`` must not
        repeat after a restart. ``threaded``: the log writes on a thread and :attr:`notify_fd` turns
        readable; otherwise whoever drives the replica calls :meth:`sync_storage`. ``now``: seconds
        of a monotonic clock. ``judge_membership`` raises CorruptionError for a list of members,
        come from another one, that this program could not follow.

        Raises ConfigurationError (another member's directory), CorruptionError (damage),
        StorageError (can't be read or written).
        """
        self.identity = identity
        self.options = options
        self.failure: Error | None = None
        self.notify_fd = -1
        self._transport = transport
        self._wake = wake
        self._on_failure = on_failure
        self._judge_membership = judge_membership
        self._filesystem = PosixFileSystem() if filesystem is None else filesystem
        self.directory = MemberDirectory(path, self._filesystem)
        self._log = MemberLog(
            self.directory.log,
            identity,
            filesystem=self._filesystem,
            segment_bytes=options.segment_bytes,
        )
        try:
            if self._log.is_new and founders is not None:
                self._log.found(founders)
            self._state_path = self.directory.current_state(self._log.mark.index)
            self.machine = self._open_machine()
        except BaseException:
            self._log.close()
            raise
        try:
            self._raft = Raft(
                identity.member,
                options.raft,
                rng=rng,
                hard_state=self._log.hard_state,
                snapshot=self._log.mark,
                entries=self._log.entries,
                applied=self.machine.applied_index,
            )
        except BaseException:
            self.machine.close()
            self._log.close()
            raise
        self._log.entries = []
        self._was_leader = False
        self._clock = LogClock(now)
        self.counters = ReplicaCounters()
        self._leader_known = 0
        self._proposals: list[tuple[bytes, ProposalDone]] = []
        self._proposed: dict[int, _Waiting] = {}
        self._reads: list[ReadDone] = []
        self._read_context = 0
        self._reads_asked: dict[int, list[ReadDone]] = {}
        self._reads_confirmed: list[tuple[int, list[ReadDone]]] = []
        # Marks on their way to the disk: (ticket, index of the mark).
        self._marks: deque[tuple[int, int]] = deque()
        self._marked = self._log.mark.index
        self._ticks_to_compaction = COMPACTION_TICKS
        self._senders: dict[int, SnapshotSender] = {}
        self._receiver = SnapshotReceiver(self.directory, self._verify_snapshot)
        self._ready_to_install: dict[int, SnapshotMeta] = {}
        # Committed, but the engine has no room for them yet; oldest first.
        self._held: deque[Sequence[Entry]] = deque()
        self._lack: StorageError | None = None
        if threaded:
            self.notify_fd = self._log.start_writer()
        self._turn_guarded()

    def _open_machine(self) -> StateMachine:
        database = DB(self._state_path, options=self.options.engine, filesystem=self._filesystem)
        try:
            return StateMachine(database, memory=self.options.memory)
        except BaseException:
            database.close()
            raise

    # --- what it is ----------------------------------------------------------------------------

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
        """Removed members that it, the leader, still has to tell so."""
        return self._raft.leaving if self.is_leader else frozenset()

    @property
    def term(self) -> int:
        """Its current term."""
        return self._raft.term

    @property
    def last_log(self) -> tuple[int, int]:
        """Term and index of its last entry: of two members the larger knows more."""
        status = self._raft.status()
        return status.term, status.last_index

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
        )

    def log_time_ms(self) -> int:
        """The time for what this leader proposes now (:class:`LogClock`)."""
        return self._clock.read_ms(self._raft.term, self.machine.clock_ms)

    # --- what it takes -------------------------------------------------------------------------

    def propose(self, data: bytes, done: ProposalDone) -> None:
        """Replicate one entry of encoded commands; ``done`` gets their results, or the reason.

        NotLeaderError and UnavailableError mean that nothing was proposed; OutcomeUnknownError
        that it may still be applied.
        """
        if self.failure is not None:
            done(self.failure)
            return
        if self.lacks_room:
            done(UnavailableError("this member's disk is full; retry later, or elsewhere"))
            return
        self._proposals.append((data, done))
        self._wake()

    def read(self, done: ReadDone) -> None:
        """Call ``done(None)`` when reading :attr:`machine` is linearizable, or with the reason."""
        if self.failure is not None:
            done(self.failure)
            return
        self._reads.append(done)
        self._wake()

    def propose_membership(self, target: Membership, *, force: bool = False) -> Proposed:
        """Begin to change the members; raises what ``Raft.propose_membership`` raises."""
        proposed = self._raft.propose_membership(target, force=force)
        self._wake()
        return proposed

    def change_is_done(self, proposed: Proposed) -> bool:
        """A membership change begun here is committed; False for good once its term is over."""
        return self._raft.change_is_done(proposed)

    def transfer_leadership(self, to: int) -> None:
        """Hand leadership over; raises what ``Raft.transfer_leadership`` raises."""
        self._raft.transfer_leadership(to)
        self._wake()

    def unreachable(self, member: int) -> None:
        """The transport lost packets to ``member``."""
        if self.failure is None:
            self._raft.unreachable(member)

    def campaign(self) -> None:
        """Stand for election now."""
        if self.failure is None:
            self._raft.campaign()
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
                try:
                    self._raft.step(packet)
                except CorruptionError:
                    raise
                except Error as error:
                    self._fail(error)
            elif isinstance(packet, SnapshotPart):
                if self._raft.hears(_snapshot_message(packet)):
                    self._guard(partial(self._take_part, packet))
            else:
                self._guard(partial(self._take_progress, packet))

    def tick(self) -> None:
        """One tick of the clock has passed."""
        if self.failure is not None:
            return
        self._raft.tick()
        self._receiver.tick()
        if self._log.out_of_space:
            self._log.try_again()
        if self._senders:
            self._guard(self._tick_senders)
        self._ticks_to_compaction -= 1
        if self._ticks_to_compaction <= 0 or self._raft.wants_compaction:
            self._ticks_to_compaction = COMPACTION_TICKS
            self._guard(self._compact)
        self._wake()

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

    def _turn(self) -> None:
        for bundle in self._log.take_durable():
            if bundle.snapshot is not None:
                self._install(bundle.snapshot)
            self._raft.stored(bundle.number)
        if self._held:
            self._apply_held()
        self._remove_log()
        if self._proposals:
            self._propose_gathered()
        if self._reads:
            self._ask_gathered()
        raft = self._raft
        if raft.leader != self._leader_known and raft.leader:
            self._leader_known = raft.leader
            self.counters.leader_changes += 1
        while (bundle_or_none := raft.ready()) is not None:
            self._perform(bundle_or_none)
        leads = raft.role is Role.LEADER
        if self._was_leader and not leads:
            self._forget_proposed(
                OutcomeUnknownError("leadership was lost; retry with the same id")
            )
        self._was_leader = leads

    def _perform(self, bundle: Bundle) -> None:
        if bundle.must_sync:
            self._log.save(bundle)
        if bundle.messages:
            self._send(bundle.messages)
        if bundle.committed:
            self._apply(bundle.committed)
        for state in bundle.read_states:
            self._reads_confirmed.append((state.index, self._reads_asked.pop(state.context)))
        for context in bundle.reads_failed:
            for done in self._reads_asked.pop(context):
                done(UnavailableError("no majority confirmed the leader in time"))
        if self._reads_confirmed:
            self._serve_reads()

    def _propose_gathered(self) -> None:
        gathered, self._proposals = self._proposals, []
        try:
            proposed = self._raft.propose([data for data, _ in gathered])
        except (Error, InvalidArgumentError) as error:
            for _, done in gathered:
                done(error)
            return
        for index, (_, done) in enumerate(gathered, proposed.first):
            replaced = self._proposed.pop(index, None)
            self._proposed[index] = _Waiting(proposed.term, done)
            if replaced is not None:
                replaced.done(OutcomeUnknownError("leadership was lost; retry with the same id"))

    def _ask_gathered(self) -> None:
        reads, self._reads = self._reads, []
        self._read_context += 1
        try:
            self._raft.read_index(self._read_context)
        except Error as error:
            for done in reads:
                done(error)
            return
        self._reads_asked[self._read_context] = reads

    def _remove_log(self) -> None:
        """Segments that a durable mark stands for; what can't be done now a later turn does."""
        try:
            while self._marks and self._log.remove_before(self._marks[0][1] + 1, self._marks[0][0]):
                self._marks.popleft()
        except StorageError as error:
            if not error.retryable:
                raise

    @property
    def lacks_room(self) -> bool:
        """Its disk is full: it takes no writes until there is room, and goes on by itself then."""
        return self._lack is not None or self._log.out_of_space

    def _has_room(self) -> bool:
        """The engine can take a write. While a full disk keeps it from flushing it may not."""
        try:
            self.machine.make_room()
        except StorageError as error:
            if not error.retryable:
                raise
            self._lack = error
            return False
        self._lack = None
        return True

    def _apply(self, entries: Sequence[Entry]) -> None:
        if self._held or not self._has_room():
            # The core offers no more than it has room for beyond what was applied.
            self._held.append(entries)
        else:
            self._apply_now(entries)

    def _apply_held(self) -> None:
        while self._held and self._has_room():
            self._apply_now(self._held.popleft())
        if self._reads_confirmed:
            self._serve_reads()

    def _apply_now(self, entries: Sequence[Entry]) -> None:
        answers = self.machine.apply(
            [
                (index, term, data if kind is _COMMAND else b"")
                for term, index, kind, data in entries
            ]
        )
        self._raft.applied(entries[-1].index)
        proposed = self._proposed
        if not proposed:
            return
        for index, term, results in answers:
            waiting = proposed.pop(index, None)
            if waiting is None:
                continue
            if waiting.term == term:
                waiting.done(results)
            else:
                waiting.done(OutcomeUnknownError("leadership was lost; retry with the same id"))

    def _serve_reads(self) -> None:
        applied = self.machine.applied_index
        later = []
        for index, reads in self._reads_confirmed:
            if index <= applied:
                for done in reads:
                    done(None)
            else:
                later.append((index, reads))
        self._reads_confirmed = later

    def _compact(self) -> None:
        """Let the log forget what the state machine holds durably."""
        raft = self._raft
        if raft.wants_compaction:
            try:
                self.machine.flush()
            except StorageError as error:
                if not error.retryable:
                    raise
        raft.compact(min(self.machine.durable_index, self.machine.applied_index))
        gone = raft.status().first_index - 1
        if gone > self._marked:
            self._marked = gone
            self._marks.append((self._log.write_mark(raft.snapshot_meta(gone)), gone))

    # --- snapshots -----------------------------------------------------------------------------

    def _send(self, messages: list[Message]) -> None:
        for message in messages:
            if message.kind is MessageKind.SNAPSHOT:
                self._begin_transfer(message)
        self._transport.send([m for m in messages if m.kind is not MessageKind.SNAPSHOT])

    def _begin_transfer(self, message: Message) -> None:
        old = self._senders.pop(message.to, None)
        if old is not None:
            old.finish()
        path = self.directory.outgoing(message.to)
        try:
            self.machine.checkpoint(path)
        except StorageError as error:
            if not error.retryable:
                raise
            self._filesystem.remove_tree(path)
            self._raft.snapshot_status(message.to, False)
            return
        sender = SnapshotSender(
            self._filesystem,
            path,
            self.member,
            message.to,
            self._raft.term,
            self._raft.snapshot_meta(self.machine.applied_index),
            self.options.snapshot_part_bytes,
        )
        self._senders[message.to] = sender
        self._transport.send((sender.part(),))

    def _tick_senders(self) -> None:
        for sender in list(self._senders.values()):
            if sender.failed:
                self._end_transfer(sender, ok=False)
            elif sender.tick():
                self._transport.send((sender.part(),))

    def _take_progress(self, progress: SnapshotProgress) -> None:
        sender = self._senders.get(progress.sender)
        if sender is None:
            return
        if progress.next == REFUSED and progress.index == sender.meta.index:
            self._end_transfer(sender, ok=False)
            # Was it damaged here? Then this member must not lead, nor hand its state on.
            self.machine.verify()
            return
        before = sender.offset
        if not sender.answered(progress):
            return
        self.counters.snapshot_sent_bytes += max(0, sender.offset - before)
        if sender.done:
            self.counters.snapshots_sent += 1
            self._end_transfer(sender, ok=True)
        else:
            self._transport.send((sender.part(),))

    def _end_transfer(self, sender: SnapshotSender, *, ok: bool) -> None:
        del self._senders[sender.to]
        sender.finish()
        self._raft.snapshot_status(sender.to, ok)

    def _take_part(self, part: SnapshotPart) -> None:
        """A part of a snapshot; the last one makes it known to the core."""
        if part.term < self._raft.term:
            return
        before = self._receiver.received(part)
        try:
            whole = self._receiver.take(part)
        except CorruptionError:
            self._answer_part(part, REFUSED)
            return
        after = self._receiver.received(part)
        self.counters.snapshot_received_bytes += max(0, after - before)
        if whole:
            self.counters.snapshots_received += 1
            self._ready_to_install[part.meta.index] = part.meta
            self._raft.step(_snapshot_message(part))
        self._answer_part(part, after)

    def _answer_part(self, part: SnapshotPart, upto: int) -> None:
        self._transport.send(
            (SnapshotProgress(self.member, part.sender, part.term, part.meta.index, upto),)
        )

    def _verify_snapshot(self, path: str, meta: SnapshotMeta) -> None:
        """Every byte of a received state, and that it is the one it is said to be.

        Raises CorruptionError: what passes here can be opened when it is installed.
        """
        with DB(path, options=self.options.engine, filesystem=self._filesystem) as database:
            database.verify()
            state = StateMachine(database, memory=self.options.memory)
            if (state.applied_index, state.applied_term) != (meta.index, meta.term):
                raise CorruptionError(
                    f"a snapshot of index {meta.index}, term {meta.term} holds index "
                    f"{state.applied_index}, term {state.applied_term}",
                    code=IntegrityCode.INVALID_RECORD,
                    path=path,
                )

    def _install(self, mark: SnapshotMeta) -> None:
        """The log durably says that the state is the snapshot's: make it so."""
        if self._ready_to_install.pop(mark.index, None) != mark:
            raise InternalError(f"snapshot {mark.index} is to be installed but isn't here")
        # Newer ones may be on their way into the log already.
        for index in [index for index in self._ready_to_install if index < mark.index]:
            del self._ready_to_install[index]
        self._held.clear()  # all of it is before the snapshot
        self._lack = None
        old = self._state_path
        self.machine.close()
        self._state_path = self.directory.install(mark.index)
        self.machine = self._open_machine()
        if self.machine.applied_index != mark.index:
            raise InternalError(
                f"the snapshot of index {mark.index} holds index {self.machine.applied_index}"
            )
        self._filesystem.remove_tree(old)
        self._marked = mark.index
        self._marks.clear()

    # --- ending --------------------------------------------------------------------------------

    def _forget_proposed(self, error: Error) -> None:
        waiting, self._proposed = self._proposed, {}
        for proposal in waiting.values():
            proposal.done(error)

    def _fail_all(self, error: Error) -> None:
        self._forget_proposed(error)
        proposals, self._proposals = self._proposals, []
        for _, done in proposals:
            done(error)
        reads = [
            *self._reads,
            *(done for asked in self._reads_asked.values() for done in asked),
            *(done for _, confirmed in self._reads_confirmed for done in confirmed),
        ]
        self._reads = []
        self._reads_asked = {}
        self._reads_confirmed = []
        for read_done in reads:
            read_done(error)

    def _fail(self, error: Error) -> None:
        """Fence the member: nothing it does from here on could be trusted."""
        if self.failure is not None:
            return
        self.failure = error
        self._fail_all(error)
        if self._on_failure is not None:
            self._on_failure(error)

    def close(self) -> None:
        """Fail what waits, and close engine and log. What was acknowledged is on disk already."""
        self._fail_all(OutcomeUnknownError("the server is stopping; retry with the same id"))
        failed = self.failure is not None
        if not failed:
            self.failure = UnavailableError("the server is stopping")
        for sender in self._senders.values():
            sender.finish()
        self._senders.clear()
        try:
            self.machine.close()
            self._log.close()
        except Error:
            if not failed:
                raise


def _snapshot_message(part: SnapshotPart) -> Message:
    """What the core is told once the snapshot of ``part`` is whole."""
    return Message(MessageKind.SNAPSHOT, part.to, part.sender, part.term, snapshot=part.meta)
