"""Where every call of etcd's API ends up: proposals, reads, and what stands in a header.

Any member serves all of them. One thread; knows no event loop. In embedded mode the five members
are one to clients: the one that leads takes the calls, and another one when that has ended.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError, Reason
from kvstore.replica.work import AtOnce, Work
from kvstore.service.etcd.calls import Deadlines
from kvstore.service.etcd.header import Header
from kvstore.service.etcd.limits import EtcdLimits
from kvstore.service.etcd.member import (
    Answers,
    Listener,
    LocalMember,
    Model,
    Passed,
    PassOn,
)
from kvstore.service.etcd.proposals import ProposalCall, Proposals
from kvstore.service.etcd.read_calls import Gone, Permit, Read, ReadCall, Render, reading
from kvstore.service.etcd.reads import Reads
from kvstore.service.etcd.replaying import Replaying
from kvstore.service.etcd.upkeep import Upkeep
from kvstore.state.mvcc.answers import Answer, HashAnswer, RangeAnswer
from kvstore.state.mvcc.checks import check
from kvstore.state.mvcc.ranges import MakeGathered
from kvstore.state.mvcc.requests import (
    LEVEL_ACCUSES,
    LEVEL_MODEL,
    LEVEL_NUMBERED,
    SERVER,
    Authenticated,
    EnableModel,
    Numbered,
    Operation,
    RaiseLevel,
    Range,
    Txn,
)

__all__ = ["EtcdService"]

_LEVELS: Final = (LEVEL_ACCUSES, LEVEL_NUMBERED, LEVEL_MODEL)

Proposed = Callable[[Answer | Error], None]
"""Gets what a proposal came to."""


class EtcdService:
    """See the module. ``cluster_id`` and ``member_id`` are those of every header."""

    def __init__(
        self,
        find: Callable[[], LocalMember | None],
        *,
        cluster_id: int,
        member_id: int,
        election_timeout_s: float,
        all_know: Callable[[int], bool],
        now: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], object],
        work: Work | None = None,
        pass_on: PassOn | None = None,
        draw: Callable[[int], bytes] = os.urandom,
        limits: EtcdLimits | None = None,
    ) -> None:
        """``find``: the replica of this process that takes calls now, None while there is none.

        ``all_know``: each member of the cluster is known to understand that level of the state
        (:class:`kvstore.state.mvcc.requests.RaiseLevel`). ``now``: the
        monotonic clock in seconds; ``soon`` calls back once, after this turn, ``later`` after so
        many seconds; ``work`` reads ranges and what lies on the disk, at once if it isn't given;
        ``pass_on``: to the leader where that is another process. ``draw`` gives random bytes.
        """
        self._find = find
        self._cluster_id = cluster_id
        self._member_id = member_id
        self.election_timeout_s = election_timeout_s
        self._all_know = all_know
        self._now = now
        self._limits = limits = limits or EtcdLimits()
        self.patience_s = limits.patience_s + 2 * election_timeout_s
        self._began = now()
        self._replaying = Replaying(self.patience_s / 2, now=now, over=lambda: soon(self._take_up))
        self._member: LocalMember | None = None
        self._listeners: list[Listener] = []
        self._at_tick: list[Callable[[], None]] = []
        self._deadlines: Deadlines[ProposalCall | ReadCall] = Deadlines(now())
        # Calls that came before keys have revisions.
        self._early: deque[ProposalCall | ReadCall] = deque()
        self._is_raising = False
        self._proposals = Proposals(
            limits, now=now, soon=soon, later=later, draw=draw, pass_on=pass_on
        )
        work = AtOnce() if work is None else work
        self._reads = Reads(limits, now=now, soon=soon, work=work)
        self._upkeep = Upkeep(work)

    # --- what it is ------------------------------------------------------------------------------

    @property
    def member(self) -> LocalMember | None:
        """The replica that takes calls; None while there is none."""
        return self._member

    @property
    def member_id(self) -> int:
        """As headers name the member that answers."""
        return self._member_id

    @property
    def machine(self) -> Model | None:
        """Its state; another object after a snapshot was installed."""
        return None if self._member is None else self._member.machine

    @property
    def waiting(self) -> int:
        """Calls that are not answered yet."""
        return len(self._early) + self._proposals.count + self._reads.count

    @property
    def has_leader(self) -> bool:
        """It leads, or hears who does."""
        member = self._member
        return member is not None and member.leader != 0 and member.has_quorum_contact

    @property
    def leader_id(self) -> int:
        """The leader it knows, as headers name members; 0 for none."""
        if not self.has_leader or self._member is None:
            return 0
        return self._member_id if self._member.is_leader else self._member.leader

    @property
    def is_leader(self) -> bool:
        return self._member is not None and self._member.is_leader

    @property
    def is_learner(self) -> bool:
        member = self._member
        return member is not None and member.member in member.membership.learners

    @property
    def term(self) -> int:
        return 0 if self._member is None else self._member.term

    @property
    def model_enabled(self) -> bool:
        """Keys have revisions, as far as this member has applied."""
        return self._member is not None and self._member.machine.model_enabled

    @property
    def asks_who(self) -> bool:
        """Users are asked for, as far as this member has applied: a call must say who makes it."""
        machine = self.machine
        return machine is not None and machine.auth.enabled

    @property
    def numbers_requests(self) -> bool:
        """Operations may have a number of their client's session, as far as this member has
        applied."""
        return self._member is not None and self._member.machine.level >= LEVEL_NUMBERED

    def header(self) -> Header:
        """Of this moment."""
        member = self._member
        if member is None:
            return Header(self._cluster_id, self._member_id, 0, 0)
        return Header(self._cluster_id, self._member_id, member.machine.revision, member.term)

    # --- what it takes ---------------------------------------------------------------------------

    def propose(
        self,
        operation: Operation,
        who: Authenticated | None,
        deadline: float | None,
        done: Proposed,
        *,
        request: Numbered | None = None,
    ) -> None:
        """Have ``operation`` done once, by way of the log; ``done`` gets what it came to here.

        ``request``: its number in the client's session, under which it is done once however often
        it is asked for. NOT_CAPABLE before all members know of such numbers, and of users where the
        operation is about these.

        ``deadline``: the client's own, None for none; beyond the service's own patience it doesn't
        count. Of an error with one of the ``TIMED_OUT`` reasons, or DEADLINE, the outcome is
        unknown. Raises nothing for what a client may ask.
        """
        try:
            check(operation)
        except EtcdError as error:
            done(error)
            return
        until, is_own = self._until(deadline)
        make = self._proposals.make
        self._begin(make(operation, who, until, is_own, done, request=request))

    def new_id(self) -> bytes:
        """For :meth:`propose_encoded`."""
        return self._proposals.new_id()

    def propose_encoded(
        self, id: bytes, encoded: bytes, deadline: float | None, done: Proposed
    ) -> None:
        """As :meth:`propose`, a Put or a Txn that is checked and encoded already, for nobody."""
        until, is_own = self._until(deadline)
        self._begin(ProposalCall(id, encoded, until, is_own, done))

    def propose_here(self, operation: Operation, done: Proposed) -> None:
        """As :meth:`propose`, but through the local member alone: NOT_LEADER if it doesn't lead.

        For what the servers themselves propose.
        """
        until, is_own = self._until(None)
        make = self._proposals.make
        self._begin(make(operation, self._who(), until, is_own, done, stays_here=True))

    def propose_for_server(self, operation: Operation, done: Proposed) -> None:
        """As :meth:`propose`, for what the servers themselves propose, whoever leads."""
        self.propose(operation, SERVER, None, done)

    def take(self, term: int, encoded: Sequence[bytes], done: Callable[[Passed], None]) -> None:
        """Propose what another member passes on; see :meth:`Proposals.take`."""
        self._proposals.take(term, encoded, done)

    def read(
        self,
        operation: Range | Txn,
        serializable: bool,
        deadline: float | None,
        done: Callable[[Any], None],
        render: Render | None = None,
        permit: Permit | None = None,
        make: MakeGathered | None = None,
        gone: Gone | None = None,
    ) -> None:
        """Read, linearizably or else what this member has; ``done`` gets the answer or an Error.

        With ``render`` it gets what that makes of the answer, on whichever thread has read it. A
        Txn has reads alone. ``permit``: who asks may have to be allowed it. ``make``: what a
        Range's keys may come in. ``gone``: asked now and then whether the caller is, and wants no
        answer. ``deadline`` as for :meth:`propose`.
        """
        try:
            check(operation)
        except EtcdError as error:
            done(error)
            return
        until, is_own = self._until(deadline)
        read, read_cached = reading(operation, render, make)
        self._begin(ReadCall(read, serializable, until, is_own, done, read_cached, permit, gone))

    def read_keys(
        self, keys: list[bytes], done: Callable[[Sequence[RangeAnswer | None] | Error], None]
    ) -> None:
        """Read single keys linearizably, from memory: None for those that are to be read alone, as
        they need the disk, or much was read with them."""

        def reached(refusal: Error | None) -> None:
            machine = self.machine
            if refusal is not None or machine is None:
                done(refusal or EtcdError(Reason.TIMED_OUT))
                return
            try:
                answers = machine.read_keys_cached(keys)
            except Error:
                # Whoever asks the disk knows what to make of it.
                answers = [None] * len(keys)
            done(answers)

        self.read_point(None, reached)

    def read_state(
        self,
        read: Read,
        serializable: bool,
        deadline: float | None,
        done: Callable[[Any], None],
        permit: Permit | None = None,
        gone: Gone | None = None,
    ) -> None:
        """As :meth:`read`, of whatever ``read`` reads; on a worker."""
        until, is_own = self._until(deadline)
        self._begin(ReadCall(read, serializable, until, is_own, done, permit=permit, gone=gone))

    def read_point(self, deadline: float | None, done: Callable[[Error | None], None]) -> None:
        """Call ``done(None)`` once what was acknowledged before, to anyone, is applied here."""
        until, is_own = self._until(deadline)
        self._begin(ReadCall(None, False, until, is_own, done))

    def reclaim(self, done: Callable[[Error | None], None]) -> None:
        """Give back the room of what is compacted, here; ``done(None)`` when that is so."""
        if self._member is None:
            done(EtcdError(Reason.TIMED_OUT))
        else:
            self._upkeep.reclaim(self._member, done)

    def hash_kv(self, revision: int, done: Callable[[HashAnswer | Error], None]) -> None:
        """Hash what this member remembers up to ``revision``, 0 for the current one."""
        if not self.model_enabled or self._member is None:
            done(EtcdError(Reason.NOT_CAPABLE))
        else:
            self._upkeep.hash(self._member, revision, done)

    def listing(self, job: Callable[[], Any], done: Callable[[Any | Error], None]) -> None:
        """Have a worker do ``job``, one at a time, which lists what it holds already."""
        if self._member is None:
            done(EtcdError(Reason.TIMED_OUT))
        else:
            self._upkeep.listing(self._member, job, done)

    def _who(self) -> Authenticated | None:
        """Who asks for what servers propose themselves."""
        machine = self.machine
        return SERVER if machine is not None and machine.auth.enabled else None

    def _until(self, deadline: float | None) -> tuple[float, bool]:
        """When a call is given up, and whether that is as its client wants it."""
        patience = self._now() + self.patience_s
        if deadline is not None and deadline < patience:
            return deadline, True
        return patience, False

    def _begin(self, call: ProposalCall | ReadCall) -> None:
        refusal = self._refusal(call)
        if refusal is not None:
            call.refuse(refusal)
            return
        self._deadlines.add(call)
        if self.model_enabled or _enables(call):
            self._start(call)
        else:
            self._early.append(call)

    def _refusal(self, call: ProposalCall | ReadCall) -> Reason | None:
        if isinstance(call, ProposalCall):
            refusal = self._proposals.refusal(call)
        else:
            refusal = self._reads.refusal()
        if refusal is not None or self.model_enabled or _enables(call):
            return refusal
        is_known = self._member is None or self._all_know(LEVEL_MODEL)
        if not is_known and self._now() - self._began > self.patience_s:
            return Reason.NOT_CAPABLE
        return Reason.TOO_MANY_REQUESTS if len(self._early) >= self._limits.waiting_max else None

    def _start(self, call: ProposalCall | ReadCall) -> None:
        if isinstance(call, ReadCall):
            self._reads.begin(call)
        elif call.is_later and not self.numbers_requests:
            call.refuse(Reason.NOT_CAPABLE)
        else:
            self._proposals.begin(call)

    # --- what happens ----------------------------------------------------------------------------

    def listen(self, listener: Listener) -> None:
        """Tell ``listener`` what the local member applies, after who waits for it."""
        self._listeners.append(listener)

    def at_tick(self, call: Callable[[], None]) -> None:
        """Make ``call`` whenever members tick."""
        self._at_tick.append(call)

    def told_by(self, member: LocalMember) -> Listener:
        """What a replica of this process is to be given to tell what it applies."""
        return _Told(self, member)

    def tick(self) -> None:
        """To be called as often as members tick."""
        self._take_up()
        for call in self._deadlines.late(self._now()):
            self._expire(call)
        self._proposals.tick()
        self._reads.tick()
        for look in self._at_tick:
            look()

    def _take_up(self) -> None:
        """Go on with the member that is to take calls, and with what it knows to be on."""
        found = self._find()
        if found is not None and found is not self._member and self._has_caught_up(found):
            self._follow(found)
        self._raise_level()

    def _has_caught_up(self, member: LocalMember) -> bool:
        """It has applied what answers and headers have told of, of this process or the one before
        it: no revision goes back."""
        former = self._member
        if former is None:
            return self._replaying.is_over(member)
        return member.machine.revision >= former.machine.revision

    def _follow(self, member: LocalMember) -> None:
        self._member = member
        self._proposals.follow(member)
        self._reads.follow(member)
        self._start_early()
        for listener in self._listeners:
            listener.installed()

    def _expire(self, call: ProposalCall | ReadCall) -> None:
        if self.has_leader and not self.model_enabled and not call.is_own:
            call.refuse(Reason.NOT_CAPABLE)
        elif isinstance(call, ProposalCall):
            self._proposals.expire(call)
        else:
            self._reads.expire(call)

    def _raise_level(self) -> None:
        """Switch on what all members know and isn't on yet, where this member leads."""
        member = self._member
        if member is None or not member.is_leader or self._is_raising:
            return
        level = member.machine.level
        known = next((one for one in _LEVELS if one <= level or self._all_know(one)), level)
        if known > level:
            self._is_raising = True
            raises = EnableModel() if known == LEVEL_MODEL else RaiseLevel(known)
            self.propose_here(raises, self._raised)

    def _raised(self, outcome: Answer | Error) -> None:
        self._is_raising = False  # if it came to nothing, the next tick tries again

    def _start_early(self) -> None:
        if not self.model_enabled:
            return
        early, self._early = self._early, deque()
        for call in early:
            if not call.is_decided:
                self._start(call)

    def applied(self, member: LocalMember, answers: Answers) -> None:
        """A replica of this process has applied a slice."""
        if member is not self._member:
            return
        machine = member.machine
        self._proposals.applied(answers, machine.applied_term)
        if self._early:
            self._start_early()
        for listener in self._listeners:
            listener.applied(answers, machine.revision)

    def installed(self, member: LocalMember) -> None:
        """A snapshot became the state of a replica of this process."""
        if member is self._member:
            self._proposals.installed()
            self._start_early()
            for listener in self._listeners:
                listener.installed()

    def close(self) -> None:
        """The members of this process do nothing any more."""
        self._proposals.close()
        self._reads.close()
        while self._early:
            self._early.popleft().refuse(Reason.STOPPED)


class _Told:
    """A :class:`kvstore.service.etcd.member.Listener` for one replica of several."""

    def __init__(self, service: EtcdService, member: LocalMember) -> None:
        self._service = service
        self._member = member

    def applied(self, answers: Answers, revision: int) -> None:
        self._service.applied(self._member, answers)

    def installed(self) -> None:
        self._service.installed(self._member)


def _enables(call: ProposalCall | ReadCall) -> bool:
    return isinstance(call, ProposalCall) and call.enables
