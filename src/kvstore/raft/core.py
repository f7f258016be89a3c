"""The consensus core as its caller sees it: inputs in, one bundle of work out.

No clock, thread, socket, file or randomness of its own. The caller feeds ticks, messages,
proposals and storage acknowledgements, then takes ``ready()`` until it gives None.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from kvstore.raft.messages import (
    Bundle,
    Entry,
    HardState,
    Membership,
    Message,
    Proposed,
    Role,
    SnapshotMeta,
)
from kvstore.raft.options import Options
from kvstore.raft.status import Status

__all__ = ["Raft", "bootstrap"]


def bootstrap(membership: Membership) -> tuple[HardState, tuple[Entry, ...]]:
    """The records that each founding member of a new cluster makes durable before it starts.

    All founders must write the same. A member that joins later starts with nothing: no hard
    state, no entries; it learns everything from the leader and never campaigns before.
    """


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
        hard_state: HardState = HardState(),
        snapshot: SnapshotMeta = SnapshotMeta(),
        entries: Sequence[Entry] = (),
        applied: int = 0,
        damaged: bool = False,
    ) -> None:
        """Start or restart from what is durable.

        ``rng`` gives election timeouts and makes read ids unique; a restarted member must not
        get one that repeats the last one's values. ``snapshot`` is the newest durable snapshot
        mark (all zero when there is none) and ``entries`` follow it without a gap (entries at or
        below it are accepted and ignored). ``applied`` is what the state machine durably holds:
        at least ``snapshot.index``; the core offers everything committed after it again.
        ``damaged``: entries that were synced here may be missing (faults.md, decision 3): the
        member doesn't vote or campaign until a leader of a later term has brought it up to date;
        keep the mark durable until ``damaged`` turns False.

        Raises CorruptionError when the records contradict each other.
        """

    # Inputs

    def tick(self) -> None:
        """One tick of the caller's clock has passed."""

    def step(self, message: Message) -> None:
        """Take a message from a peer. Any message, however old or wrong, is safe.

        A SNAPSHOT is stepped when the snapshot has arrived whole and was verified, with the meta
        of what arrived. If it is wanted the next bundle has it in ``snapshot``; if not (it is
        older than what is committed here) nothing comes and the bytes can go.
        """

    def propose(self, payloads: Sequence[bytes]) -> Proposed:
        """Append commands, all or none, in this order.

        Raises NotLeaderError, UnavailableError (leadership is being handed over, no contact with
        a quorum, too much uncommitted or unapplied: nothing was proposed, a retry is safe) or
        InvalidArgumentError (empty batch, a payload over ``Options.proposal_bytes_max``).
        """

    def propose_membership(self, target: Membership) -> Proposed:
        """Change the members to ``target`` (never joint itself; dissertation §4).

        A change of at most one voter is one step (§4.1), any other goes through a joint
        configuration that ends by itself (§4.3). One change at a time. It holds from the moment
        that it is in a member's log. Completed when ``membership == target`` and
        ``membership_index <= commit``.

        Raises NotLeaderError, UnavailableError (another change is under way, this leader has not
        committed in its term yet, a learner to be promoted lags more than
        ``Options.promote_lag_max`` behind) or InvalidArgumentError (no voters, more than 9, a
        voter that is also a learner, not a change).
        """

    def read_index(self, context: int) -> None:
        """Ask for a linearizable read point (dissertation §6.4); works on every member.

        ``context`` is the caller's number for the read (or batch of reads); it comes back in
        ``Bundle.read_states``, or in ``Bundle.reads_failed`` when no leader could confirm it in
        time. Lost messages and changes of leader are retried inside, each try with a fresh id.

        Raises UnavailableError when ``Options.reads_waiting_max`` reads wait already or the
        member knows that it can't be served (a member removed, no voters known).
        """

    def transfer_leadership(self, to: int) -> None:
        """Hand leadership to a voter (dissertation §3.10); proposals are refused meanwhile.

        Given up after ``election_ticks``. Raises NotLeaderError, or InvalidArgumentError when
        ``to`` is not another voter that can take it.
        """

    def campaign(self) -> None:
        """Start an election now, as if the timeout had passed (used after start and in tests)."""

    # Storage and state machine

    def stored(self, number: int) -> None:
        """Everything that bundles up to ``number`` gave to be written is durable."""

    def applied(self, index: int) -> None:
        """The state machine has applied everything up to ``index``."""

    def compact(self, index: int) -> None:
        """The log up to ``index`` isn't needed for this member's own restart any more.

        The core forgets it except for a tail for slow followers (``Options.tail_*``). ``index``
        must be at most what was applied; lower than before does nothing.
        """

    @property
    def wants_compaction(self) -> bool:
        """True when the log in memory is past half of its bound: compact soon."""

    def snapshot_meta(self, index: int) -> SnapshotMeta:
        """The mark for a snapshot of the state machine that has applied exactly ``index``.

        ``index`` from the one before the first entry kept to the last applied one; else
        InvalidArgumentError.
        """

    def snapshot_status(self, to: int, ok: bool) -> None:
        """The snapshot for ``to`` was delivered whole, or failed and must be tried again."""

    def unreachable(self, to: int) -> None:
        """The transport lost messages to ``to``: stop streaming and probe."""

    # Output

    def ready(self) -> Bundle | None:
        """What must be done now; None when there is nothing.

        Takes the work: it is not given again. The next bundle may be taken before this one is
        durable.
        """

    # Observation

    @property
    def id(self) -> int:
        """This member's id."""

    @property
    def role(self) -> Role:
        """Its role in ``term``."""

    @property
    def term(self) -> int:
        """Its current term."""

    @property
    def leader(self) -> int:
        """The leader it knows in ``term``, or 0."""

    @property
    def commit(self) -> int:
        """The highest index known to be committed."""

    @property
    def membership(self) -> Membership:
        """The newest configuration in its log, committed or not (dissertation §4.1)."""

    @property
    def membership_index(self) -> int:
        """Where ``membership`` stands in the log; it holds for good once this is committed."""

    @property
    def damaged(self) -> bool:
        """True while synced entries may be missing here; see ``__init__``."""

    @property
    def has_quorum_contact(self) -> bool:
        """The gate for serving: leader heard by a quorum, or follower that hears its leader,
        within ``election_ticks``."""

    def status(self) -> Status:
        """Everything above and each peer's progress at this moment."""
