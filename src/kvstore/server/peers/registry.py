"""What a member remembers of the others, so that none comes back with amnesia.

``PEERS`` maps each member ever heard of to the incarnation of its data directory and the highest
number of starts. It is written before the first message of a start is taken from a peer: who acted
on a member's vote or answer can tell that member from a wiped or rolled back one for ever after.

It also lists those that were taken out of the cluster. Whoever is not in this member's list is not
refused for that: a member that was away may know none of those who are the cluster by now, and must
hear them to find out (dissertation §4.1). But nothing is written for one that is no member: it is
remembered in memory, among a few, and noted when it becomes one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from kvstore.errors import CorruptionError, Error, IntegrityCode
from kvstore.replica.recovery import Findings, Peers, refused
from kvstore.replica.work import Work
from kvstore.server.config.sealed_file import read_sealed, write_sealed

FILE = "PEERS"

# Ids are never used twice, so the map grows with each member ever added.
KNOWN_MAX = 10_000

# Those that are no members (yet), the newest; more than can be added at one time.
PASSING_MAX = 64

# Starts that can have been missed, and that a directory can have in all: what is said beyond would
# lock the real member out for good, as every start of its own would be an older one.
STARTS_LEAP_MAX = 1_000
STARTS_MAX = 1 << 32


class Known(NamedTuple):
    """A member's directory: its random number and how often it was started."""

    incarnation: int
    starts: int


# A number that grows with each change, who is known, who was removed.
_Content = tuple[int, dict[int, Known], frozenset[int]]


class StaleMemberError(Error):
    """A member came back without what it had acknowledged."""


class NotNotedYetError(Error):
    """What a peer says of itself is being noted: ask again when ``PeerRegistry.saved`` tells."""


class PeerRegistry:
    """The memory, in ``directory``. Each change is durable before a method returns.

    After :meth:`save_aside` a worker writes it instead. Whoever has to wait for that is told to
    come again: a disk that hangs holds up the peers that have started since then, and nobody else.
    """

    def __init__(self, directory: Path, owner: int = 0) -> None:
        """Read what is known.

        ``owner``: the incarnation of the directory whose memory it is; 0: whoever's, to be read
        only. A file from before that was noted has none, and is taken. Raises StorageError.
        """
        self._path = directory / FILE
        self._owner = owner
        self._work: Work | None = None
        self._saving = False
        self._waiting: list[Callable[[Error | None], None]] = []
        # One writes at a time, and always the newest: (number, known, removed).
        self._writing = threading.Lock()
        self._passing: dict[int, Known] = {}
        fields = self._read()
        try:
            known, removed = fields["known"], fields["removed"]
            if owner and fields.get("owner", 0) not in (0, owner):
                raise self._refused(Peers.FOREIGN, "not this member's list of peers")
            if not isinstance(known, dict) or not isinstance(removed, list):
                raise TypeError(fields)
            self._known = {int(member): Known(*_pair(value)) for member, value in known.items()}
            self._removed = frozenset(int(member) for member in removed)
            self._number = 0
            self._newest: _Content = (0, self._known, self._removed)
        except (KeyError, TypeError, ValueError) as error:
            raise self._refused(Peers.DAMAGED, "not a list of peers") from error

    def _read(self) -> dict[str, object]:
        try:
            return read_sealed(self._path) or {"known": {}, "removed": []}
        except CorruptionError as error:
            raise refused(Findings(peers=Peers.DAMAGED), error) from None

    def _refused(self, found: Peers, said: str) -> CorruptionError:
        error = CorruptionError(said, code=IntegrityCode.INVALID_RECORD, path=str(self._path))
        return refused(Findings(peers=found), error)

    def known(self) -> dict[int, Known]:
        """A copy of everything remembered."""
        return dict(self._known)

    def admit(self, member: int, seen: Known, *, present: bool) -> None:
        """Let a member's directory pass, and remember it; durably when it is ``present``.

        Raises StaleMemberError when the member was known with another directory, or the same one
        in a later state, StorageError when it can't be noted, and NotNotedYetError.
        """
        before = self._newest[1].get(member) or self._passing.get(member)
        check(member, before, seen)
        if present or member in self._known:
            if self._known.get(member) != seen or self._newest[1].get(member) != seen:
                self._note_peer(member, seen)
        elif before != seen:
            self._passing.pop(member, None)
            self._passing[member] = seen
            if len(self._passing) > PASSING_MAX:
                del self._passing[next(iter(self._passing))]

    def settle(self, members: Iterable[int]) -> None:
        """These are members now: note those that were seen before. Raises StorageError."""
        news = {member: self._passing[member] for member in members if member in self._passing}
        if news:
            self._change(self._added(news), self._newest[2])

    def learn(self, others: Iterable[tuple[int, Known]]) -> None:
        """Take over what another member remembers, where it is more than is known here."""
        news: dict[int, Known] = {}
        for member, seen in others:
            before = self._newest[1].get(member) or self._passing.get(member)
            if seen.starts <= STARTS_MAX and (
                before is None
                or (
                    before.incarnation == seen.incarnation
                    and before.starts < seen.starts <= before.starts + STARTS_LEAP_MAX
                )
            ):
                news[member] = seen
        if news:
            self._save(self._added(news), self._newest[2])

    def knows(self, member: int) -> bool:
        """Whether anything is remembered of a member's directory."""
        return member in self._newest[1] or member in self._passing

    def forget(self, member: int) -> None:
        """Forget a member's directory: the next one that it comes with is taken.

        For an operator who knows that what is remembered is wrong. Raises StorageError and
        NotNotedYetError.
        """
        self._passing.pop(member, None)
        if member in self._newest[1]:
            known = {other: seen for other, seen in self._newest[1].items() if other != member}
            self._change(known, self._newest[2])
        self.save_again()
        if member in self._known:
            raise NotNotedYetError(f"member {member} is being forgotten")

    def is_removed(self, member: int) -> bool:
        """Whether the member was taken out of the cluster; its id never comes back."""
        return member in self._newest[2]

    def remove(self, members: Iterable[int]) -> None:
        """Note that members were taken out, once that is committed."""
        removed = self._newest[2] | frozenset(members)
        if removed != self._newest[2]:
            # Nobody waits for it: the members' own list has it as well, durably.
            self._change(self._newest[1], removed)

    def _note_peer(self, member: int, seen: Known) -> None:
        if self._newest[1].get(member) != seen:
            self._change(self._added({member: seen}), self._newest[2])
        self.save_again()
        if self._known.get(member) != seen:
            raise NotNotedYetError(f"member {member} is being noted")

    def _added(self, news: dict[int, Known]) -> dict[int, Known]:
        known = {**self._newest[1], **news}
        if len(known) > KNOWN_MAX:
            raise StaleMemberError(f"more than {KNOWN_MAX} members are remembered")
        return known

    # --- on disk -------------------------------------------------------------------------------

    def save_aside(self, work: Work) -> None:
        """Let ``work`` write from now on; :meth:`save_again` is to be called now and then."""
        self._work = work

    def save_again(self) -> None:
        """Write what isn't durable yet, as after a failure, unless that is under way."""
        if self._work is not None and not self._saving and self._number < self._newest[0]:
            self._save_newest(self._work)

    def rewrite(self) -> None:
        """Write all that is known once more, for a file that is damaged. Any thread.

        Raises StorageError.
        """
        self._write()

    def _change(self, known: dict[int, Known], removed: frozenset[int]) -> None:
        if self._work is None:
            self._save(known, removed)
        else:
            self._renew(known, removed)
            self.save_again()

    def wait(self, told: Callable[[Error | None], None]) -> None:
        """Call ``told`` when what is being written is durable, or with why it isn't."""
        self._waiting.append(told)

    def forget_waiting(self, told: Callable[[Error | None], None]) -> None:
        """Don't call it any more."""
        if told in self._waiting:
            self._waiting.remove(told)

    def _renew(self, known: dict[int, Known], removed: frozenset[int]) -> None:
        self._newest = (self._newest[0] + 1, known, removed)

    def _write(self) -> _Content:
        """Write the newest; any thread."""
        with self._writing:
            content = self._newest
            _, known, removed = content
            write_sealed(
                self._path,
                {
                    "owner": self._owner,
                    "known": {str(member): list(seen) for member, seen in known.items()},
                    "removed": sorted(removed),
                },
            )
        return content

    def _written(self, content: _Content) -> None:
        number, known, _ = content
        if number < self._number:
            return  # a newer one was written meanwhile
        self._number, self._known, self._removed = content
        for member in known:
            self._passing.pop(member, None)

    def _save(self, known: dict[int, Known], removed: frozenset[int]) -> None:
        before = self._newest
        self._renew(known, removed)
        try:
            self._written(self._write())
        except Error:
            self._newest = before
            raise

    def _save_newest(self, work: Work) -> None:
        self._saving = True
        outcomes: list[_Content | Error] = []

        def job() -> None:
            try:
                outcomes.append(self._write())
            except Error as error:
                outcomes.append(error)

        def then() -> None:
            self._saving = False
            error = None
            if isinstance(outcomes[0], Error):
                error = outcomes[0]
            else:
                self._written(outcomes[0])
                self.save_again()
            waiting, self._waiting = self._waiting, []
            for told in waiting:
                told(error)

        work.run("peers", job, then)


def check(member: int, before: Known | None, seen: Known) -> None:
    """Raise StaleMemberError unless ``seen`` may follow ``before``."""
    if seen.starts > (STARTS_MAX if before is None else before.starts + STARTS_LEAP_MAX):
        raise StaleMemberError(
            f"member {member} says that it was started {seen.starts} times, and "
            f"{0 if before is None else before.starts} are known: so many can't have been missed"
        )
    if before is None or (before.incarnation == seen.incarnation and before.starts <= seen.starts):
        return
    if before.incarnation != seen.incarnation:
        raise StaleMemberError(
            f"stale id: member {member} was known with another data directory; its disk was wiped "
            f"or replaced, and a member that forgot its votes must not vote again: take it out "
            f"with 'kvctl member remove {member}' and add it under a new id"
        )
    raise StaleMemberError(
        f"stale id: member {member} comes back with an older copy of its data directory "
        f"(start {seen.starts} after start {before.starts}): take it out with "
        f"'kvctl member remove {member}' and add it under a new id"
    )


def _pair(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(type(v) is int for v in value):
        raise ValueError(value)
    return value[0], value[1]
