"""Snapshots on their way out and in, between the core, the state and the other members."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kvstore.errors import (
    CorruptionError,
    Error,
    IntegrityCode,
    InternalError,
    InvalidArgumentError,
)
from kvstore.raft import Message, MessageKind, Raft, Role, SnapshotMeta
from kvstore.replica.applying import Applying
from kvstore.replica.checkpoint_stream import CheckpointReader
from kvstore.replica.checkpoints import Removals, read_checkpoint
from kvstore.replica.counters import ReplicaCounters
from kvstore.replica.directory import MemberDirectory
from kvstore.replica.hold_off import HoldOff
from kvstore.replica.options import ReplicaOptions
from kvstore.replica.pace import Pace
from kvstore.replica.packets import (
    HAS_ROOM,
    NO_ROOM,
    REFUSED,
    WANTED,
    SnapshotPart,
    SnapshotProgress,
    Transport,
)
from kvstore.replica.room import RoomWanted
from kvstore.replica.snapshots import SnapshotReceiver, SnapshotSender
from kvstore.replica.tail import TRANSFER_TAILS
from kvstore.replica.work import Jobs, Progress, raise_unless_passing
from kvstore.state import StateMachine, StoredState, open_state

__all__ = ["VERIFY_PAUSE_S", "Transfers"]

VERIFY_PAUSE_S = 600.0
"""Between two verifications of the whole state, however many snapshots are refused: whoever refuses
each one has a bad disk itself, and reading everything costs this member's disk all that it has."""

PART_PATIENCE = 10
"""So much longer than a read may a part take: it is a megabyte, and what is left of an earlier
snapshot is removed before the first is written."""


class Transfers:
    """The snapshots that one member sends, receives, and has ready to install."""

    def __init__(
        self,
        member: int,
        raft: Raft,
        applying: Applying,
        *,
        directory: MemberDirectory,
        transport: Transport,
        options: ReplicaOptions,
        counters: ReplicaCounters,
        jobs: Jobs,
        removals: Removals,
        pace: Pace,
        now: Callable[[], float],
    ) -> None:
        self._member = member
        self._raft = raft
        self._applying = applying
        self._directory = directory
        self._filesystem = directory.filesystem
        self._transport = transport
        self._options = options
        self._counters = counters
        self._jobs = jobs
        self._removals = removals
        self._pace = pace
        self._now = now
        self._verified_at = -VERIFY_PAUSE_S
        self._hold_off = HoldOff(now)
        self._room = RoomWanted(directory.free_bytes, jobs, self._room_came, options.tick_s)
        self._senders: dict[int, SnapshotSender] = {}
        self._receiver = SnapshotReceiver(directory, self._verify_snapshot, options.tick_s)
        self._ready_to_install: dict[int, SnapshotMeta] = {}
        # Those of them that the log is about to say it of.
        self._asked_for: set[int] = set()

    def tick(self) -> None:
        """One tick has passed."""
        self._receiver.tick()
        self._room.tick(self._raft.commit)
        for sender in list(self._senders.values()):
            if sender.failed:
                self._end(sender, ok=False)
            elif sender.waits or sender.tick():
                self._send_part(sender)

    @property
    def is_sending(self) -> bool:
        """Somebody is getting the state."""
        return bool(self._senders)

    @property
    def lack(self) -> str:
        """The disk was too full for the snapshot that this member needs, when it came last."""
        return self._room.lack

    # --- out -----------------------------------------------------------------------------------

    def begin(self, message: Message) -> None:
        """Send the state to the member whom the core wants to get a snapshot.

        Where the checkpoint can't be made now, the one before is still being made, or the member
        refused one lately, the core is told that it failed, and asks again. A damaged state is
        handed to nobody: what takes its place says of which index it is, and holds nothing.
        """
        to = message.to
        self._drop(to)
        damaged = self._applying.damage is not None
        if damaged or self._hold_off.holds(to) or not self._begin(to):
            self._raft.snapshot_status(to, False)

    def _begin(self, to: int) -> bool:
        """Have a checkpoint made for ``to``, and sent; False while one is made already."""
        machine = self._applying.machine
        path = self._directory.outgoing(to)

        def checkpoint() -> tuple[StoredState, CheckpointReader] | None:
            machine.checkpoint(path)
            stored = read_checkpoint(path, self._filesystem)
            return stored and (stored, CheckpointReader(self._filesystem, path))

        done = partial(self._checkpointed, machine, path, to, self._raft.term)
        return self._jobs.start(f"checkpoint for {to}", checkpoint, done)

    def _checkpointed(
        self,
        machine: StateMachine,
        path: str,
        to: int,
        term: int,
        outcome: tuple[StoredState, CheckpointReader] | Error | None,
    ) -> None:
        """The checkpoint is there, or isn't; the world may be another one by now."""
        raft = self._raft
        stream = meta = None
        if isinstance(outcome, Error):
            if machine is self._applying.machine:
                raft.snapshot_status(to, False)
                raise_unless_passing(outcome)
        elif outcome is not None:
            stored, stream = outcome
            meta = self._mark_of(stored)
        if raft.role is not Role.LEADER or raft.term != term:
            self._removals.remove(path)
        elif stream is None or meta is None:
            self._removals.remove(path)
            raft.snapshot_status(to, False)
        else:
            self._drop(to)
            options = self._options
            sender = SnapshotSender(
                stream,
                path,
                self._member,
                to,
                term,
                meta,
                options.snapshot_part_bytes,
                options.tick_s,
            )
            self._senders[to] = sender
            kept = TRANSFER_TAILS * options.log_tail_bytes or options.raft.transfer_bytes
            self._pace.outrun(sender.total, kept)
            self._send_part(sender)

    def _send_part(self, sender: SnapshotSender) -> None:
        """Have what stands next read, and send it then. Where the pace doesn't allow it, or a
        descriptor is lacking, a later tick does it."""
        sender.waits = not self._pace.allows
        if not sender.waits:
            self._jobs.start(
                f"part for {sender.to}",
                partial(sender.part, sender.offset),
                partial(self._part_read, sender),
                Progress(PART_PATIENCE),
            )

    def _part_read(self, sender: SnapshotSender, outcome: SnapshotPart | Error) -> None:
        """What was to be sent next is here; by now that may be another part, or snapshot."""
        now = self._senders.get(sender.to)
        if now is None:
            return
        if isinstance(outcome, Error):
            if now is sender:
                raise_unless_passing(outcome)
        elif now is sender and outcome.offset == sender.offset:
            self._pace.spend(len(outcome.data))
            self._transport.send((outcome,))
            return
        if now is not sender or isinstance(outcome, SnapshotPart):
            self._send_part(now)

    def _mark_of(self, stored: StoredState) -> SnapshotMeta | None:
        """The mark of a checkpoint; None when the log has gone beyond it meanwhile."""
        try:
            meta = self._raft.snapshot_meta(stored.applied_index)
        except InvalidArgumentError:
            return None
        if meta.term != stored.applied_term:
            raise InternalError(
                f"entry {meta.index} is of term {meta.term} in the log, and was applied as one of "
                f"term {stored.applied_term}"
            )
        return meta

    def _drop(self, to: int) -> None:
        sender = self._senders.pop(to, None)
        if sender is not None:
            self._removals.remove(sender.path)

    def take_progress(self, progress: SnapshotProgress) -> None:
        """The receiver's answer to a part, or its wish for a snapshot."""
        if progress.next == HAS_ROOM:
            self._hold_off.may_take(progress.sender)
            return
        if progress.next == WANTED:
            self._wanted(progress)
            return
        sender = self._senders.get(progress.sender)
        if sender is None:
            return
        if progress.next in (REFUSED, NO_ROOM) and progress.index == sender.meta.index:
            self._hold_off.refused(sender.to)
            self._end(sender, ok=False)
            if progress.next == REFUSED:
                self._verify()
            return
        before = sender.offset
        if not sender.answered(progress):
            return
        self._counters.snapshot_sent_bytes += max(0, sender.offset - before)
        if sender.done:
            self._counters.snapshots_sent += 1
            self._hold_off.took(sender.to)
            self._end(sender, ok=True)
        else:
            self._send_part(sender)

    def _wanted(self, progress: SnapshotProgress) -> None:
        """A member's state is damaged: send it this leader's, unless that is under way.

        The entries go on to it meanwhile, as to any follower. Where nothing is possible now it asks
        again.
        """
        raft, applying, to = self._raft, self._applying, progress.sender
        if (
            raft.role is not Role.LEADER
            or raft.term != progress.term
            or to not in raft.membership.members
            or applying.damage is not None
            or to in self._senders
            or self._hold_off.holds(to)
        ):
            return
        applied = applying.machine.applied_index
        if applied >= progress.index:
            self._begin(to)
        elif applied + 1 == progress.index:
            raft.propose_nothing()

    def _verify(self) -> None:
        """Was it damaged here? Then this member must not lead, nor hand its state on."""
        now = self._now()
        if now - self._verified_at < VERIFY_PAUSE_S:
            return
        machine = self._applying.machine

        def done(outcome: Error | None) -> None:
            if machine is self._applying.machine and outcome is not None:
                raise_unless_passing(outcome)

        if self._jobs.start("verify", machine.verify, done):
            self._verified_at = now

    def _end(self, sender: SnapshotSender, *, ok: bool) -> None:
        self._drop(sender.to)
        self._raft.snapshot_status(sender.to, ok)

    def close(self) -> None:
        """Send no more. The next start removes the checkpoints."""
        self._senders.clear()

    # --- in ------------------------------------------------------------------------------------

    def hears(self, part: SnapshotPart) -> bool:
        """Whether to :meth:`take_part`. Raises CorruptionError for what no leader sends."""
        return self._raft.hears(_told_to_core(part))

    def take_part(self, part: SnapshotPart) -> None:
        """A part that this member :meth:`hears`: it is written, and when all is here checked,
        beside the loop.

        Meanwhile each part that comes again is answered with what was here before it: the sender
        knows then that it was not forgotten.
        """
        keep = self._receiver.take(part)
        if keep is not None:
            kept, progress = partial(self._kept, part), Progress(PART_PATIENCE)
            if not self._jobs.start("keep part", keep, kept, progress):
                raise InternalError("a part is to be kept while another one is")
            return
        received = self._receiver.received(part)
        if received == part.total and self._ready_to_install.get(part.meta.index) == part.meta:
            # It was checked in a term gone by, maybe, when the core didn't listen any more.
            self._raft.step(_told_to_core(part))
        self._answer_part(part, received)

    def _kept(self, part: SnapshotPart, outcome: Error | None) -> None:
        """A part is written, or couldn't be."""
        if outcome is None:
            self._room.found()
        if self._receiver.kept(part, ok=outcome is None):
            check = partial(self._receiver.check, part.meta)
            self._jobs.start("check received", check, partial(self._checked, part))
        elif outcome is not None:
            self._refuse(part, outcome)
        else:
            self._counters.snapshot_received_bytes += len(part.data)
            self._answer_part(part, self._receiver.received(part))

    def _checked(self, part: SnapshotPart, outcome: Error | None) -> None:
        """The snapshot that ``part`` completed is right and durable, or isn't."""
        self._receiver.checked(ok=outcome is None)
        if outcome is not None:
            self._refuse(part, outcome)
        else:
            self._counters.snapshots_received += 1
            self._counters.snapshot_received_bytes += len(part.data)
            self._ready_to_install[part.meta.index] = part.meta
            if self.hears(part):
                self._raft.step(_told_to_core(part))
                self._answer_part(part, part.total)

    def _refuse(self, part: SnapshotPart, error: Error) -> None:
        if self._applying.damage is not None:
            self._counters.repairs_failed += 1
        if isinstance(error, CorruptionError):
            self._answer_part(part, REFUSED)
            return
        raise_unless_passing(error)
        self._room.want(part.meta.index, part.total)
        self._answer_part(part, NO_ROOM)

    def _room_came(self, index: int) -> None:
        """There is room for the snapshot that found none: its leader need not wait any longer."""
        raft = self._raft
        if raft.leader not in (0, self._member):
            told = SnapshotProgress(self._member, raft.leader, raft.term, index, HAS_ROOM)
            self._transport.send((told,))

    def _answer_part(self, part: SnapshotPart, upto: int) -> None:
        self._transport.send(
            (SnapshotProgress(self._member, part.sender, part.term, part.meta.index, upto),)
        )

    def _verify_snapshot(self, path: str, meta: SnapshotMeta) -> None:
        """Every byte of a received state, and that it is the one it is said to be.

        Raises CorruptionError: what passes here can be opened when it is installed.
        """
        with open_state(
            path, options=self._options.engine, filesystem=self._filesystem
        ) as database:
            database.verify()
            state = StateMachine(database, memory=self._options.memory)
            if (state.applied_index, state.applied_term) != (meta.index, meta.term):
                raise CorruptionError(
                    f"a snapshot of index {meta.index}, term {meta.term} holds index "
                    f"{state.applied_index}, term {state.applied_term}",
                    code=IntegrityCode.INVALID_RECORD,
                    path=path,
                )

    def asked_for(self, mark: SnapshotMeta) -> None:
        """The core wants the snapshot, which is ready: once the log durably says so."""
        self._asked_for.add(mark.index)

    def want(self, least: int) -> None:
        """Ask the leader for a snapshot of index ``least`` or later, beside what the core asks for.

        Once it is here, :meth:`usable` has it.
        """
        raft = self._raft
        if raft.leader:
            self._transport.send(
                (SnapshotProgress(self._member, raft.leader, raft.term, least, WANTED),)
            )

    def usable(self, least: int) -> SnapshotMeta | None:
        """A snapshot that is ready, of ``least`` or later, after which the log goes on."""
        for index in sorted(self._ready_to_install.keys() - self._asked_for, reverse=True):
            mark = self._ready_to_install[index]
            if index >= least and self._raft.goes_on_after(mark):
                return mark
        return None

    def drop_unwanted(self, kept_from: int | None = None) -> None:
        """Remove what is ready and never will be asked for. After all that the core gave out.

        While it was received and checked the entries came, from another leader maybe. What lies
        beyond the commit index may be sent again, and is here then. What is of ``kept_from`` or
        later may be :meth:`usable` soon.
        """
        commit = self._raft.commit
        for index in [*self._ready_to_install.keys() - self._asked_for]:
            if index <= commit and (kept_from is None or index < kept_from):
                self._drop_ready(index)

    def drop_ready(self, mark: SnapshotMeta) -> None:
        """The log durably begins after the snapshot, and the state needs nothing of it."""
        self._asked_for.discard(mark.index)
        self._drop_ready(mark.index)

    def take_ready(self, mark: SnapshotMeta) -> None:
        """The log durably says that the state is the snapshot's: it is about to be installed."""
        self._asked_for.discard(mark.index)
        if self._ready_to_install.pop(mark.index, None) != mark:
            raise InternalError(f"snapshot {mark.index} is to be installed but isn't here")
        # Newer ones may be on their way into the log already.
        for index in [index for index in self._ready_to_install if index < mark.index]:
            self._drop_ready(index)

    def _drop_ready(self, index: int) -> None:
        del self._ready_to_install[index]
        directory = self._directory
        self._removals.remove(directory.withdrawn(index), partial(directory.withdraw, index))


def _told_to_core(part: SnapshotPart) -> Message:
    return Message(MessageKind.SNAPSHOT, part.to, part.sender, part.term, snapshot=part.meta)
