"""Everything one member knows, and its outbox. The rooms beside this file hold the rules.

What must wait for durability is *held*: ``hold`` keeps a message back until all that was to be
written when it was made is durable (``durability.py``). All else goes out with the next bundle.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Sequence

from kvstore.raft import quorum
from kvstore.raft.codec import decode_membership
from kvstore.raft.log import Log
from kvstore.raft.membership import History
from kvstore.raft.messages import (
    NOBODY,
    Entry,
    EntryKind,
    Fetch,
    HardState,
    Message,
    MessageKind,
    ReadState,
    Role,
    SnapshotMeta,
)
from kvstore.raft.options import Options
from kvstore.raft.progress import Progress

__all__ = ["Reads", "State", "Write"]

# Looking up a member of an enum costs ten times as much as a name.
_MEMBERSHIP = EntryKind.MEMBERSHIP


class Write:
    """A bundle on its way to the disk: what holds once ``stored(number)`` comes.

    ``last``: the log is durable up to here, lowered when a leader overwrites entries meanwhile.
    ``held``: messages that wait for it.
    """

    __slots__ = ("held", "last", "number")

    def __init__(self, number: int, last: int, held: list[Message]) -> None:
        self.number = number
        self.last = last
        self.held = held


class Reads:
    """Reads under way (``reads.py``). Bounded by ``Options.reads_waiting_max`` each.

    ``own``: the caller's contexts -> tick at which each is given up, oldest first.
    ``queue``: own contexts that no leader was asked for yet (follower).
    ``tries``: id of a try -> (tick it was sent, its contexts) (follower).
    ``waiting``: (asker, context) that wait for the next round (leader).
    ``rounds``: (round, read index, its reads), oldest first (leader).
    """

    __slots__ = (
        "done",
        "failed",
        "own",
        "queue",
        "round",
        "rounds",
        "tries",
        "try_id",
        "waiting",
    )

    def __init__(self, try_id: int) -> None:
        self.own: dict[int, int] = {}
        self.queue: list[int] = []
        self.tries: dict[int, tuple[int, list[int]]] = {}
        self.waiting: list[tuple[int, int]] = []
        self.rounds: deque[tuple[int, int, list[tuple[int, int]]]] = deque()
        self.round = 0
        self.try_id = try_id
        self.done: list[ReadState] = []
        self.failed: list[int] = []


class State:
    """One member.

    ``now`` counts ticks. ``heard``: tick at which a leader was last heard or the election timer
    was reset; ``pulsed``: tick of its last pulse; ``timeout``: ticks from there to a campaign.
    ``term_start``: index of the first entry of a leader's own term. ``transfer_to``,
    ``transfer_deadline``, ``transfer_told``: the member that leadership goes to, the tick at which
    that is given up, the tick at which it was told last (-1: not yet). ``ailing``: this member's
    storage takes nothing for now, as its caller says. ``saved``: the hard state given out last.
    ``wrote``: when something was last given out to be written, in ticks. ``installing``: a snapshot
    to be given out with the next bundle. ``first_term``: the one that it was started with. Of
    hollow entries (``mending.py``): ``offers``, those whose data came and isn't durable yet;
    ``mends``, those of them to be given out with the next bundle; ``without``, who couldn't give
    one, and whether that is because it is damaged there too; ``next_asking``, the tick at which
    they are asked for again; ``mended_at``, that at which one was mended last; ``heard_of``, who
    was heard meanwhile.
    """

    __slots__ = (
        "ailing",
        "configurations",
        "damaged",
        "fetches",
        "first_term",
        "heard",
        "heard_of",
        "held",
        "id",
        "installing",
        "leader",
        "log",
        "mended_at",
        "mends",
        "messages",
        "next_asking",
        "next_heartbeat",
        "now",
        "number",
        "offers",
        "options",
        "progress",
        "pulsed",
        "reads",
        "rng",
        "role",
        "saved",
        "term",
        "term_start",
        "timeout",
        "transfer_deadline",
        "transfer_to",
        "transfer_told",
        "vote",
        "votes",
        "without",
        "writes",
        "wrote",
    )

    def __init__(
        self,
        member: int,
        options: Options,
        rng: random.Random,
        hard_state: HardState,
        log: Log,
        configurations: History,
    ) -> None:
        self.id = member
        self.options = options
        self.rng = rng
        self.log = log
        self.configurations = configurations
        self.term = self.first_term = hard_state.term
        self.vote = hard_state.vote
        self.damaged = hard_state.damaged
        self.saved = hard_state
        self.role = Role.FOLLOWER
        self.leader = NOBODY
        self.now = 0
        self.heard = 0
        self.pulsed = 0
        self.timeout = 0
        self.next_heartbeat = 0
        self.votes: dict[int, bool] = {}
        self.progress: dict[int, Progress] = {}
        self.term_start = 0
        self.transfer_to = NOBODY
        self.transfer_deadline = 0
        self.transfer_told = -1
        self.ailing = False
        self.reads = Reads(rng.getrandbits(62))
        self.messages: list[Message] = []
        self.fetches: list[Fetch] = []
        self.held: list[Message] = []
        self.writes: deque[Write] = deque()
        self.wrote = 0
        self.number = 0
        self.installing: SnapshotMeta | None = None
        self.offers: dict[int, Entry] = {}
        self.mends: list[Entry] = []
        self.without: dict[int, dict[int, bool]] = {}
        self.next_asking = 0
        self.mended_at = 0
        self.heard_of: set[int] = set()

    # Outbox

    def send(self, kind: MessageKind, to: int, **fields: object) -> None:
        """Put a message of this term into the next bundle."""
        self.messages.append(Message(kind, to, self.id, self.term, **fields))  # type: ignore[arg-type]

    def hold(self, message: Message) -> None:
        """Send once all that is to be written by now is durable."""
        self.held.append(message)

    # Log

    def append(self, entries: Sequence[Entry], hollow: Collection[int] = ()) -> None:
        """Put entries at their place; what was there and after it goes, with its configurations.

        Configurations in the new entries hold at once (dissertation §4.1); of those that are
        ``hollow`` once they are mended. Raises CorruptionError, with nothing changed, when one
        can't be read.
        """
        found = [
            (entry.index, decode_membership(entry.data))
            for entry in entries
            if entry[2] == _MEMBERSHIP and entry.index not in hollow
        ]
        if entries[0].index <= self.log.last:
            self._truncate(entries[0].index)
        self.log.append(entries)
        if hollow:
            self.log.hollow.update(entry.index for entry in entries if entry.index in hollow)
        for index, membership in found:
            self.configurations.append(index, membership)

    def _truncate(self, index: int) -> None:
        """Drop entries from ``index`` on, their configurations and what writes promised."""
        self.log.truncate(index)
        self.configurations.truncate(index)
        for write in self.writes:
            if write.last >= index:
                write.last = index - 1

    # Questions

    def others_suffice(self) -> bool:
        """A quorum without this member answers, is whole and has storage that is well (leader)."""
        return quorum.agreed(self.configurations.current, self._is_fit) > 0

    def _is_fit(self, member: int) -> bool:
        progress = self.progress.get(member)
        return (
            progress is not None
            and not progress.damaged
            and not progress.ailing
            and self.answers(member)
        )

    def match(self, member: int) -> int:
        """The last entry known to be durable at a member, this one included (leader)."""
        if member == self.id:
            return self.log.stable
        progress = self.progress.get(member)
        return progress.match if progress is not None else 0

    def contact(self, member: int) -> int:
        """The tick of a member's last sign of life (leader); this one always gives one."""
        if member == self.id:
            return self.now
        progress = self.progress.get(member)
        return self._sign(progress.heard, progress.pulsed) if progress is not None else -1

    def leader_contact(self) -> int:
        """The tick of the leader's last sign of life, or of the start of the election timer."""
        return self._sign(self.heard, self.pulsed)

    def _sign(self, heard: int, pulsed: int) -> int:
        """Pulses stand in for messages, for so long (``pulses.py``)."""
        return max(heard, min(pulsed, heard + self.options.pulse_ticks))

    def answers(self, member: int) -> bool:
        """A member has answered this leader, and did so within ``election_ticks``."""
        if member == self.id:
            return True
        progress = self.progress.get(member)
        return (
            progress is not None
            and (progress.match > 0 or progress.round > 0)
            and progress.heard > self.now - self.options.election_ticks
        )

    def has_quorum_contact(self) -> bool:
        """Leader: a quorum gave a sign of life within ``election_ticks``; follower: its leader."""
        since = self.now - self.options.election_ticks
        if self.role is Role.LEADER:
            return quorum.agreed(self.configurations.current, self.contact) > since
        return self.leader != NOBODY and self.leader_contact() > since

    def promotable(self) -> bool:
        """True when this member may campaign: it is a voter and its log is whole.

        A voter that an uncommitted configuration removes still counts: the others may need its
        log to commit that very configuration (dissertation §4.2.2).
        """
        if self.damaged or self.installing is not None or self.log.hollow:
            return False
        configurations = self.configurations
        if configurations.current.is_voter(self.id):
            return True
        return configurations.index > self.log.commit and configurations.before_current().is_voter(
            self.id
        )
