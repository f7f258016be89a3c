"""Snapshots on their way out and in, between the core, the state and the other members."""

from __future__ import annotations

from kvstore.engine import DB
from kvstore.errors import CorruptionError, IntegrityCode, InternalError, StorageError
from kvstore.raft import Message, MessageKind, Raft, SnapshotMeta
from kvstore.replica.applying import Applying
from kvstore.replica.counters import ReplicaCounters
from kvstore.replica.directory import MemberDirectory
from kvstore.replica.options import ReplicaOptions
from kvstore.replica.packets import REFUSED, SnapshotPart, SnapshotProgress, Transport
from kvstore.replica.snapshots import SnapshotReceiver, SnapshotSender
from kvstore.state import StateMachine

__all__ = ["Transfers"]


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
    ) -> None:
        self._member = member
        self._raft = raft
        self._applying = applying
        self._directory = directory
        self._filesystem = directory.filesystem
        self._transport = transport
        self._options = options
        self._counters = counters
        self._senders: dict[int, SnapshotSender] = {}
        self._receiver = SnapshotReceiver(directory, self._verify_snapshot)
        self._ready_to_install: dict[int, SnapshotMeta] = {}

    def tick(self) -> None:
        """One tick has passed."""
        self._receiver.tick()
        for sender in list(self._senders.values()):
            if sender.failed:
                self._end(sender, ok=False)
            elif sender.tick():
                self._transport.send((sender.part(),))

    # --- out -----------------------------------------------------------------------------------

    def begin(self, message: Message) -> None:
        """Send the state as it is to the member whom the core wants to get a snapshot."""
        old = self._senders.pop(message.to, None)
        if old is not None:
            old.finish()
        path = self._directory.outgoing(message.to)
        machine = self._applying.machine
        try:
            machine.checkpoint(path)
        except StorageError as error:
            if not error.retryable:
                raise
            self._filesystem.remove_tree(path)
            self._raft.snapshot_status(message.to, False)
            return
        sender = SnapshotSender(
            self._filesystem,
            path,
            self._member,
            message.to,
            self._raft.term,
            self._raft.snapshot_meta(machine.applied_index),
            self._options.snapshot_part_bytes,
        )
        self._senders[message.to] = sender
        self._transport.send((sender.part(),))

    def take_progress(self, progress: SnapshotProgress) -> None:
        """The receiver's answer to a part."""
        sender = self._senders.get(progress.sender)
        if sender is None:
            return
        if progress.next == REFUSED and progress.index == sender.meta.index:
            self._end(sender, ok=False)
            # Was it damaged here? Then this member must not lead, nor hand its state on.
            self._applying.machine.verify()
            return
        before = sender.offset
        if not sender.answered(progress):
            return
        self._counters.snapshot_sent_bytes += max(0, sender.offset - before)
        if sender.done:
            self._counters.snapshots_sent += 1
            self._end(sender, ok=True)
        else:
            self._transport.send((sender.part(),))

    def _end(self, sender: SnapshotSender, *, ok: bool) -> None:
        del self._senders[sender.to]
        sender.finish()
        self._raft.snapshot_status(sender.to, ok)

    def close(self) -> None:
        """Remove the checkpoints that were being sent."""
        for sender in self._senders.values():
            sender.finish()
        self._senders.clear()

    # --- in ------------------------------------------------------------------------------------

    def take_part(self, part: SnapshotPart) -> None:
        """A part of a snapshot; the last one makes it known to the core."""
        message = Message(MessageKind.SNAPSHOT, part.to, part.sender, part.term, snapshot=part.meta)
        if not self._raft.hears(message) or part.term < self._raft.term:
            return
        before = self._receiver.received(part)
        try:
            whole = self._receiver.take(part)
        except CorruptionError:
            self._answer_part(part, REFUSED)
            return
        after = self._receiver.received(part)
        self._counters.snapshot_received_bytes += max(0, after - before)
        if whole:
            self._counters.snapshots_received += 1
            self._ready_to_install[part.meta.index] = part.meta
            self._raft.step(message)
        self._answer_part(part, after)

    def _answer_part(self, part: SnapshotPart, upto: int) -> None:
        self._transport.send(
            (SnapshotProgress(self._member, part.sender, part.term, part.meta.index, upto),)
        )

    def _verify_snapshot(self, path: str, meta: SnapshotMeta) -> None:
        """Every byte of a received state, and that it is the one it is said to be.

        Raises CorruptionError: what passes here can be opened when it is installed.
        """
        with DB(path, options=self._options.engine, filesystem=self._filesystem) as database:
            database.verify()
            state = StateMachine(database, memory=self._options.memory)
            if (state.applied_index, state.applied_term) != (meta.index, meta.term):
                raise CorruptionError(
                    f"a snapshot of index {meta.index}, term {meta.term} holds index "
                    f"{state.applied_index}, term {state.applied_term}",
                    code=IntegrityCode.INVALID_RECORD,
                    path=path,
                )

    def take_ready(self, mark: SnapshotMeta) -> None:
        """The log durably says that the state is the snapshot's: it is about to be installed."""
        if self._ready_to_install.pop(mark.index, None) != mark:
            raise InternalError(f"snapshot {mark.index} is to be installed but isn't here")
        # Newer ones may be on their way into the log already.
        for index in [index for index in self._ready_to_install if index < mark.index]:
            del self._ready_to_install[index]
