"""The consensus core as its caller sees it: inputs in, one bundle of work out.

No clock, thread, socket, file or randomness of its own. The caller feeds ticks, messages,
proposals and storage acknowledgements, then takes ``ready()`` until it gives None.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from itertools import repeat
from typing import Any

from kvstore.errors import (
    InternalError,
    InvalidArgumentError,
    NotLeaderError,
    UnavailableError,
)
from kvstore.raft import (
    admission,
    changes,
    damage,
    durability,
    election,
    mending,
    older,
    pulses,
    reads,
    replication,
    restart,
    roles,
    snapshots,
    status,
    transfer,
)
from kvstore.raft import membership as rules
from kvstore.raft.codec import encode_membership
from kvstore.raft.messages import (
    NO_HARD_STATE,
    NO_SNAPSHOT,
    NOBODY,
    Bundle,
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    MessageKind,
    Proposed,
    Role,
    SnapshotMeta,
)
from kvstore.raft.options import Options
from kvstore.raft.progress import PeerState
from kvstore.raft.state import State
from kvstore.raft.status import Status

__all__ = ["Raft", "bootstrap"]

_ELECTION = frozenset((MessageKind.PRE_VOTE, MessageKind.VOTE))
# Of entries, which are what they are in any term.
_MENDING: dict[MessageKind, Callable[[State, Message], None]] = {
    MessageKind.MEND: mending.answer,
    MessageKind.MEND_RESPONSE: mending.take,
}
_FROM_LEADER = frozenset((MessageKind.APPEND, MessageKind.HEARTBEAT, MessageKind.SNAPSHOT))
_HANDLERS: dict[MessageKind, Callable[[State, Message], None]] = {
    MessageKind.PRE_VOTE: election.handle_pre_vote,
    MessageKind.PRE_VOTE_RESPONSE: election.handle_pre_vote_response,
    MessageKind.VOTE: election.handle_vote,
    MessageKind.VOTE_RESPONSE: election.handle_vote_response,
    MessageKind.TIMEOUT_NOW: election.handle_timeout_now,
    MessageKind.READ: reads.handle_read,
    MessageKind.READ_RESPONSE: reads.handle_read_response,
}
# Looking up a member of an enum costs ten times as much as a name: these are on every entry's way.
_LEADER = Role.LEADER
_COMMAND = EntryKind.COMMAND
_new_entry: Callable[..., Any] = tuple.__new__


def bootstrap(membership: Membership) -> tuple[HardState, tuple[Entry, ...]]:
    """The records that each founding member of a new cluster makes durable before it starts.

    All founders must write the same. A member that joins later starts with nothing: no hard
    state, no entries; it learns everything from the leader and never campaigns before.
    """
    rules.check(membership)
    entry = Entry(1, 1, EntryKind.MEMBERSHIP, encode_membership(membership))
    return HardState(term=1), (entry,)


class Raft:
    """One member. Not thread-safe: one caller at a time.

    After any call that may have produced work, take ``ready()`` until it is None.
    """

    def __init__(
        self,
        member: int,
        options: Options,
        *,
        rng: random.Random,
        hard_state: HardState = NO_HARD_STATE,
        snapshot: SnapshotMeta = NO_SNAPSHOT,
        entries: Sequence[Entry] = (),
        applied: int = 0,
        damaged: bool = False,
        hollow: Collection[int] = (),
    ) -> None:
        """Start or restart from what is durable.

        ``rng`` gives election timeouts and makes read ids unique; a restarted member must not
        get one that repeats the last one's values. ``snapshot`` is the newest durable snapshot
        mark (all zero when there is none) and ``entries`` follow it without a gap (entries at or
        below it are accepted and ignored). ``applied`` is what the state machine durably holds:
        at least ``snapshot.index``; the core offers everything committed after it again.
        ``damaged``: entries that were synced here may be missing (faults.md, decision 3): the
        member doesn't vote or campaign until a leader of a later term has brought it up to date;
        keep the mark durable until ``damaged`` turns False. ``hollow``: indexes of ``entries``
        whose data is damaged and left empty (``mending.py``); those that ``applied`` covers don't
        matter, but for lists of members: the log counts as ending before such a one.

        Raises CorruptionError when the records contradict each other.
        """
        self._state = restart.load(
            member,
            options,
            rng,
            hard_state=hard_state,
            snapshot=snapshot,
            entries=entries,
            applied=applied,
            damaged=damaged,
            hollow=hollow,
        )

    # Inputs

    def tick(self) -> None:
        """One tick of the caller's clock has passed."""
        state = self._state
        state.now += 1
        if state.log.hollow:
            mending.ask(state)
        if state.role is not _LEADER:
            election.tick(state)
        elif not state.has_quorum_contact():
            # CheckQuorum: somebody else may lead by now (dissertation §6.2).
            roles.become_follower(state, state.term, NOBODY)
        else:
            transfer.tick(state)
            if state.role is _LEADER and state.now >= state.next_heartbeat:
                state.next_heartbeat = state.now + state.options.heartbeat_ticks
                roles.let_leave(state)
                reads.begin_round(state)
                reads.confirm(state)
        reads.tick(state)

    def pulse(self, member: int, term: int) -> None:
        """The process of ``member`` lives, in ``term``, however busy it may be.

        Told beside the messages, by whatever way (``pulses.py``), just before a tick, of what came
        since the last one. What another term or a member that isn't watched here says is nothing.
        """
        pulses.take(self._state, member, term)

    def step(self, message: Message) -> None:
        """Take a message from a peer: late, doubled, reordered or from a former member, it is safe.

        One that isn't in the configuration is heard only where that is needed (``admission.py``).

        A SNAPSHOT is stepped when the snapshot has arrived whole and was verified, with the meta
        of what arrived. If it is wanted the next bundle has it in ``snapshot``; if not (it is
        older than what is committed here) nothing comes and the bytes can go.

        Raises CorruptionError, with the log as it was, for what no member sends: a membership entry
        that can't be read, a term that leaps, a second leader of one term, an acknowledgement that
        this member would remember.
        """
        state = self._state
        if message.to != state.id or message.sender in (NOBODY, state.id):
            return
        if not admission.hears(state, message) and not mending.expects(state, message):
            return
        if state.log.hollow:
            mending.note(state, message.sender)
        if message.kind in _MENDING:
            _MENDING[message.kind](state, message)
            return
        if message.term != state.term:
            admission.check_term(state, message.term)
            if not self._settle_term(message):
                return
        self._dispatch(message)
        if state.damaged:
            damage.heal(state)

    def hears(self, message: Message) -> bool:
        """Whether ``message`` is of the leader that this member follows, in its term.

        For a SNAPSHOT before its bytes are taken: whoever else offers one would take room, and the
        place of the leader's. Raises CorruptionError as :meth:`step` would.
        """
        state = self._state
        admission.check_term(state, message.term)
        if not admission.hears(state, message):
            return False
        admission.check_leader(state, message)
        return message.term == state.term and message.sender == state.leader

    def _settle_term(self, message: Message) -> bool:
        """Compare terms first (Raft §5.1); False when the message goes no further."""
        state = self._state
        kind = message.kind
        if message.term > state.term:
            if kind in _ELECTION and not message.forced and election.hears_leader(state):
                # A member that was removed or cut off doesn't disturb (dissertation §4.2.3).
                return False
            if kind is MessageKind.PRE_VOTE:
                return True
            if kind is MessageKind.PRE_VOTE_RESPONSE and not message.reject:
                return True
            roles.become_follower(state, message.term, NOBODY)
            return True
        if kind in _FROM_LEADER:
            # The old leader learns of the new term (Raft §5.1), also one that a member here
            # reached alone and that the others never heard of.
            state.send(
                MessageKind.APPEND_RESPONSE,
                message.sender,
                reject=True,
                log_index=message.log_index,
                damaged=state.damaged,
            )
        elif kind is MessageKind.PRE_VOTE:
            state.send(MessageKind.PRE_VOTE_RESPONSE, message.sender, reject=True)
        elif kind is MessageKind.VOTE:
            state.send(MessageKind.VOTE_RESPONSE, message.sender, reject=True)
        return False

    def _dispatch(self, message: Message) -> None:
        route = _ROUTES.get(message.kind)
        if route is not None:
            route(self, message)
        else:
            _HANDLERS[message.kind](self._state, message)

    def _on_append(self, message: Message) -> None:
        self._hear_leader(message)
        replication.handle_append(self._state, message)

    def _on_append_response(self, message: Message) -> None:
        replication.handle_append_response(self._state, message)
        self._advance()

    def _on_heartbeat(self, message: Message) -> None:
        state = self._state
        self._hear_leader(message)
        if replication.handle_heartbeat(state, message):
            damage.check_claim(state, message)
            damage.found(state)
            state.send(MessageKind.APPEND_RESPONSE, message.sender, reject=True, damaged=True)
        elif state.log.hollow and mending.is_passed(state, message):
            roles.become_follower(state, state.term + 1, NOBODY)
            state.send(MessageKind.APPEND_RESPONSE, message.sender, reject=True)

    def _on_heartbeat_response(self, message: Message) -> None:
        replication.handle_heartbeat_response(self._state, message)
        reads.confirm(self._state)

    def _on_snapshot(self, message: Message) -> None:
        self._hear_leader(message)
        snapshots.handle_snapshot(self._state, message)

    def _hear_leader(self, message: Message) -> None:
        """A message of this term's leader: follow it (Raft §5.2)."""
        state = self._state
        if state.leader == message.sender:
            state.heard = state.now
            return
        admission.check_leader(state, message)
        roles.become_follower(state, state.term, message.sender)

    def _advance(self) -> None:
        """Let the commit index follow, and the membership change that waits for it."""
        state = self._state
        committed = state.log.commit
        if state.role is not _LEADER or not replication.advance_commit(state):
            return
        if committed < state.configurations.index <= state.log.commit:
            # Members act on who belongs to them, and one that was removed hears nothing later.
            replication.tell_commit(state)
        if not changes.proceed(state) and changes.may_leave(state):
            transfer.resign(state)
            replication.flush(state)
            roles.become_follower(state, state.term, NOBODY)

    def propose(self, payloads: Sequence[bytes]) -> Proposed:
        """Append commands, all or none, in this order.

        Raises NotLeaderError, UnavailableError (leadership is being handed over, too
        much waits for commit or for a compaction: nothing was proposed, a retry is safe) or
        InvalidArgumentError (empty batch, a payload over ``Options.proposal_bytes_max``).
        """
        state = self._state
        if state.role is not _LEADER:
            raise NotLeaderError(state.leader)
        if state.transfer_to != NOBODY:
            raise UnavailableError(f"leadership is being handed to member {state.transfer_to}")
        options = state.options
        log = state.log
        count = len(payloads)
        sizes = list(map(len, payloads))
        if not count or max(sizes) > options.proposal_bytes_max:
            raise InvalidArgumentError(
                f"{count} commands, the largest of {max(sizes, default=0)} bytes; "
                f"1 or more of at most {options.proposal_bytes_max} are possible"
            )
        size = sum(sizes)
        waiting = log.bytes_between(log.commit, log.last)
        if waiting and waiting + size > options.uncommitted_bytes_max:
            raise UnavailableError(f"{waiting} bytes wait for commit already")
        if log.size + size > options.log_bytes_max or len(log.entries) >= options.log_entries_max:
            raise UnavailableError(
                f"{len(log.entries)} entries of {log.size} bytes wait for a compaction"
            )
        first = log.last + 1
        term = state.term
        # Entry(...) for each, without a Python call for each.
        entries: list[Entry] = list(
            map(
                _new_entry,
                repeat(Entry),
                zip(
                    repeat(term),
                    range(first, first + count),
                    repeat(_COMMAND),
                    payloads,
                    strict=False,
                ),
            )
        )
        log.append(entries)
        return Proposed(term, first, log.last)

    def propose_membership(self, target: Membership, *, force: bool = False) -> Proposed:
        """Change the members to ``target`` (never joint itself; dissertation §4).

        A change of at most one voter is one step (§4.1), any other goes through a joint
        configuration that ends by itself (§4.3). One change at a time. It holds from the moment
        that it is in a member's log. Completed when ``membership == target`` and
        ``membership_index <= commit``.

        Raises NotLeaderError, UnavailableError (another change is under way, this leader has not
        committed in its term yet; without ``force`` also: a learner to be promoted was not heard
        from lately or lags more than ``Options.promote_lag_max`` behind, or of the new voters no
        majority was heard from lately) or InvalidArgumentError (no voters, more than 9, a
        voter that is also a learner, not a change).
        """
        state = self._state
        if state.role is not _LEADER:
            raise NotLeaderError(state.leader)
        if state.transfer_to != NOBODY:
            raise UnavailableError(f"leadership is being handed to member {state.transfer_to}")
        return changes.propose(state, target, force=force)

    def read_index(self, context: int) -> None:
        """Ask for a linearizable read point (dissertation §6.4); works on every member.

        ``context`` is the caller's number for the read (or batch of reads); it comes back in
        ``Bundle.read_states``, or in ``Bundle.reads_failed`` when no leader could confirm it in
        time. Lost messages and changes of leader are retried inside, each try with a fresh id.

        Raises UnavailableError when ``Options.reads_waiting_max`` reads wait already or the
        member knows that it can't be served (a member removed, no voters known).
        """
        reads.request(self._state, context)

    def transfer_leadership(self, to: int) -> None:
        """Hand leadership to a voter (dissertation §3.10); proposals are refused meanwhile.

        Given up after ``election_ticks``. Raises NotLeaderError, or InvalidArgumentError when
        ``to`` is not another voter that can take it.
        """
        state = self._state
        if state.role is not _LEADER:
            raise NotLeaderError(state.leader)
        transfer.start(state, to)

    def resign(self) -> None:
        """Stop leading at once, because this member is about to stop; the best other is told.

        The next bundle's messages say so; nothing else of it matters. Does nothing on a follower.
        """
        state = self._state
        if state.role is _LEADER:
            transfer.resign(state)
            roles.become_follower(state, state.term, NOBODY)

    def hand_over(self) -> None:
        """As :meth:`transfer_leadership`, to the voter that has most and can lead.

        Does nothing on a follower, while leadership is being handed over, and where nobody can.
        """
        if self._state.role is _LEADER:
            transfer.hand_over(self._state)

    def campaign(self) -> None:
        """Start an election now, as if the timeout had passed (used after start and in tests)."""
        state = self._state
        if state.role is not _LEADER and state.promotable():
            election.campaign(state)

    # Storage and state machine

    def stored(self, number: int) -> None:
        """Everything that bundles up to ``number`` gave to be written is durable."""
        state = self._state
        if number > state.number:
            raise InternalError(f"bundle {number} was never given")
        released = durability.stored(state, number)
        self._advance()
        if state.damaged:
            damage.heal(state)
        for message in released:
            if message.to != state.id:
                state.messages.append(message)
            elif message.term == state.term:
                self._dispatch(message)

    def storage_is_well(self, well: bool) -> None:
        """Whether storage takes what it is given: False while it is full, hangs or is far too slow.

        While it isn't, this member leads only where a quorum of the others can't do without it: as
        a leader it hands over to the voter that has most, or steps down if that one doesn't take
        over within ``election_ticks``. As a follower it refuses leadership that is handed to it,
        and campaigns only when nobody has led for four of its timeouts. It goes on voting: what it
        says is held until it is durable in any case.
        """
        self._state.ailing = not well

    def applied(self, index: int) -> None:
        """The state machine has applied everything up to ``index``."""
        log = self._state.log
        if index > log.offered:
            raise InternalError(f"entry {index} was never offered")
        if index > log.applied:
            log.applied = index

    def goes_on_after(self, mark: SnapshotMeta) -> bool:
        """What ``mark`` stands for is committed, and durable in this log."""
        return snapshots.goes_on_after(self._state, mark)

    def state_replaced(self, mark: SnapshotMeta) -> None:
        """The state machine was replaced by another member's of ``mark``, which the log goes on
        after: entries up to there count as applied. The log stays as it is."""
        snapshots.state_replaced(self._state, mark)

    def propose_nothing(self) -> None:
        """On a leader with nothing under way: append an empty entry, so that the state comes to an
        index that it never had."""
        state = self._state
        log = state.log
        if state.role is _LEADER and log.commit == log.last:
            state.append([Entry(state.term, log.last + 1, EntryKind.EMPTY, b"")])

    def compact(self, index: int) -> None:
        """The log up to ``index`` isn't needed for this member's own restart any more.

        The core forgets it except for a tail for slow followers (``Options.tail_*``). ``index``
        must be at most what was applied; lower than before does nothing.
        """
        snapshots.compact(self._state, index)

    def kept_after(self, index: int) -> int:
        """Up to where of ``index`` the log isn't needed by followers that get, or got, a snapshot.

        For whoever removes it from the disk.
        """
        return snapshots.kept_after(self._state, index)

    def keeps_from(self, index: int) -> None:
        """Entries from ``index`` on can be read back from the disk, those before it can't.

        To be called at the start by a caller that answers ``Bundle.fetches``, and again before
        it removes any, or finds that some can't be read: a follower that needs those gets a
        snapshot. Installing a snapshot makes all entries before it unreadable by itself.
        """
        older.keeps_from(self._state, index)

    def fetched(self, member: int, first: int, entries: Sequence[Entry]) -> None:
        """The answer to a ``Fetch``: entries from ``first`` on, none when they can't be had.

        Raises CorruptionError when these can't be what stands there; nothing of it was taken.
        """
        older.fetched(self._state, member, first, entries)

    def mended(self, entry: Entry, *, right: bool) -> None:
        """The answer to one of ``Bundle.mends``: its data is durable in its place.

        Or it wasn't ``right``: another one is asked for.
        """
        mending.mended(self._state, entry, right=right)

    @property
    def commit_untold(self) -> bool:
        """True when :meth:`tell_commit` would have something to say."""
        return replication.commit_untold(self._state)

    @property
    def wants_compaction(self) -> bool:
        """True when the log in memory is past half of its bound: compact soon."""
        log = self._state.log
        options = self._state.options
        return (
            2 * log.size > options.log_bytes_max or 2 * len(log.entries) > options.log_entries_max
        )

    def snapshot_meta(self, index: int) -> SnapshotMeta:
        """The mark for a snapshot of the state machine that has applied exactly ``index``.

        ``index`` from the one before the first entry kept to the last applied one; else
        InvalidArgumentError.
        """
        return snapshots.mark(self._state, index)

    def tell_commit(self) -> None:
        """Let followers know of the commit index without waiting for what carries it anyway.

        A hint, for a leader: the commit index travels with the next entries or heartbeat; a caller
        that has time tells here that none were sent for a while, so that followers needn't wait for
        a heartbeat to apply what is committed.
        """
        replication.tell_commit(self._state)

    def snapshot_status(self, to: int, ok: bool) -> None:
        """The snapshot for ``to`` was delivered whole, or failed and must be tried again."""
        snapshots.reported(self._state, to, ok)

    def unreachable(self, to: int) -> None:
        """The transport lost messages to ``to``: stop streaming and probe."""
        progress = self._state.progress.get(to)
        if progress is not None and progress.state is PeerState.REPLICATE:
            progress.become_probe()
            progress.paused = True

    # Output

    def ready(self) -> Bundle | None:
        """What must be done now; None when there is nothing.

        Takes the work: it is not given again. The next bundle may be taken before this one is
        durable.
        """
        state = self._state
        log = state.log
        if state.role is _LEADER:
            replication.flush(state)
            if state.transfer_to != NOBODY:
                transfer.flush(state)
        waiting = state.reads
        if waiting.waiting or waiting.queue:
            reads.flush(state)
        if not self._has_work():
            return None
        state.number += 1
        bundle = Bundle(state.number, committed=log.take_committed(state.options.apply_bytes_max))
        durability.record(state, bundle, log.take_unwritten())
        if state.messages:
            bundle.messages += state.messages
            state.messages = []
        if waiting.done or waiting.failed:
            bundle.read_states, waiting.done = waiting.done, []
            bundle.reads_failed, waiting.failed = waiting.failed, []
        if state.fetches:
            bundle.fetches, state.fetches = state.fetches, []
        if state.mends:
            bundle.mends, state.mends = state.mends, []
        return bundle

    def _has_work(self) -> bool:
        """True when a bundle would not be empty; asked far more often than there is one."""
        state = self._state
        log = state.log
        if state.messages or state.held or log.handed != log.last:
            return True
        if log.has_committed(state.options.apply_bytes_max):
            return True
        saved = state.saved
        return (
            state.term != saved.term
            or state.vote != saved.vote
            or state.damaged != saved.damaged
            or state.installing is not None
            or bool(state.reads.done)
            or bool(state.reads.failed)
            or bool(state.fetches)
            or bool(state.mends)
            or durability.commit_is_to_be_saved(state)
        )

    # Observation

    @property
    def id(self) -> int:
        """This member's id."""
        return self._state.id

    @property
    def role(self) -> Role:
        """Its role in ``term``."""
        return self._state.role

    @property
    def term(self) -> int:
        """Its current term."""
        return self._state.term

    @property
    def leader(self) -> int:
        """The leader it knows in ``term``, or 0."""
        return self._state.leader

    @property
    def commit(self) -> int:
        """The highest index known to be committed."""
        return self._state.log.commit

    @property
    def membership(self) -> Membership:
        """The newest configuration in its log, committed or not (dissertation §4.1)."""
        return self._state.configurations.current

    @property
    def membership_index(self) -> int:
        """Where ``membership`` stands in the log; it holds for good once this is committed."""
        return self._state.configurations.index

    @property
    def leaving(self) -> frozenset[int]:
        """Those that the newest configuration removed and that are to be talked to all the same.

        By everybody until it is committed: a leader that takes itself out has to hear that the
        others have it. And by a leader until they were told so.
        """
        state = self._state
        gone = {member for member, progress in state.progress.items() if progress.leaving}
        configurations = state.configurations
        if configurations.index > state.log.commit:
            gone |= configurations.before_current().members - configurations.members - {state.id}
        return frozenset(gone)

    def change_is_done(self, proposed: Proposed) -> bool:
        """The membership change that ``propose_membership`` began is committed, to its end.

        Whatever others were begun after it. False as well where its entry was overwritten.
        """
        log = self._state.log
        if log.term(proposed.first) not in (-1, proposed.term):
            return False
        history = self._state.configurations
        return any(
            proposed.first <= index <= log.commit and not configuration.joint
            for index, configuration in zip(history.indexes, history.configurations, strict=True)
        )

    @property
    def damaged(self) -> bool:
        """True while synced entries may be missing here; see ``__init__``."""
        return self._state.damaged

    @property
    def has_quorum_contact(self) -> bool:
        """The gate for serving: leader heard by a quorum, or follower that hears its leader,
        within ``election_ticks``."""
        return self._state.has_quorum_contact()

    @property
    def last_entry(self) -> tuple[int, int]:
        """Term and index of the last entry of its log (Raft §5.4.1), (0, 0) for none."""
        return self._state.log.last_term, self._state.log.last

    def status(self) -> Status:
        """Everything above and each peer's progress at this moment."""
        return status.take(self._state)


_ROUTES: dict[MessageKind, Callable[[Raft, Message], None]] = {
    MessageKind.APPEND: Raft._on_append,
    MessageKind.APPEND_RESPONSE: Raft._on_append_response,
    MessageKind.HEARTBEAT: Raft._on_heartbeat,
    MessageKind.HEARTBEAT_RESPONSE: Raft._on_heartbeat_response,
    MessageKind.SNAPSHOT: Raft._on_snapshot,
}
