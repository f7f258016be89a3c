"""What serves etcd's API on a simulated member, and the calls that members make of each other for
it: proposals and questions about leases, passed on to the one that leads."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kvstore.errors import Error
from kvstore.etcd_errors import EtcdError
from kvstore.replica import Replica
from kvstore.replica.work import Work
from kvstore.service.etcd import EtcdLimits, EtcdService, Passed
from kvstore.service.etcd.hub import WatchBounds, WatchHub
from kvstore.service.etcd.lease_calls import Answers, LeaseCalls, Questions
from kvstore.service.etcd.leases import Leases
from kvstore.service.etcd.proposals import ProposalCall
from kvstore.service.etcd.watch_following import Following
from kvstore.state.mvcc.answers import Answer, RangeAnswer, TxnAnswer
from kvstore.state.mvcc.checks import check
from kvstore.state.mvcc.operations import encode_proposal
from kvstore.state.mvcc.requests import Operation, Proposal, Put, Range, Txn
from tests.simulator.agenda import SECOND, Agenda
from tests.simulator.network import Network
from tests.simulator.plan import TICK_US, Plan

__all__ = ["EtcdMember", "Find"]

PATIENCE_S = 2.0
"""So long, and two election timeouts, a service has for a call."""

Find = Callable[[int], "EtcdMember | None"]
"""What serves etcd's API on a member now; None while it is down."""


class EtcdMember:
    """As :class:`kvstore.server.nodes.cluster_node.ClusterNode` puts it together, for one run of a
    member's program. ``is_over``: that has ended."""

    def __init__(
        self,
        replica: Replica,
        *,
        plan: Plan,
        agenda: Agenda,
        network: Network,
        find: Find,
        now: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], object],
        work: Work,
        rng: random.Random,
    ) -> None:
        """``now``, ``soon``, ``later`` and ``work`` are the member's own."""
        self.member = replica.member
        self.is_over = False
        self.soon = soon
        self._later = later
        self._network = network
        self._find = find
        load, known_at = plan.etcd, plan.levels_after_us
        self.service = EtcdService(
            lambda: replica,
            cluster_id=1,
            member_id=replica.member,
            election_timeout_s=plan.replica.raft.election_ticks * TICK_US / SECOND,
            all_know=lambda level: known_at is not None and agenda.now >= known_at[level],
            now=now,
            soon=soon,
            later=later,
            work=work,
            pass_on=self._pass_on,
            draw=rng.randbytes,
            limits=EtcdLimits(
                entry_operations_max=load.entry_operations_max, patience_s=PATIENCE_S
            ),
        )
        self._leases = Leases(self.service, now=now, soon=soon, ask_leader=self._ask_leader)
        following = Following(self.service, now=now, soon=soon, work=work, rng=rng)
        self.hub: WatchHub = following.hub
        self.hub.bounds = WatchBounds(stream=load.stream_bytes, held=load.held_bytes)
        replica.listen(self.service.told_by(replica))
        self._rng = rng
        self._made: list[bytes] = []
        self._note_ids()

    def _note_ids(self) -> None:
        """Of proposals: clients don't learn them, but the oracle knows operations by them."""
        proposals = self.service._proposals
        make = proposals.make

        def noted(*arguments: Any, **options: Any) -> ProposalCall:
            call = make(*arguments, **options)
            self._made.append(call.id)
            return call

        proposals.make = noted  # type: ignore[method-assign]

    @property
    def leases(self) -> LeaseCalls:
        """Renewals, and questions."""
        return self._leases.calls

    def tick(self) -> None:
        """The member ticks."""
        self.service.tick()

    def end(self) -> None:
        """The program has ended."""
        self.is_over = True

    def propose(
        self, operation: Operation, deadline: float, done: Callable[[bytes, Answer | Error], None]
    ) -> None:
        """Have ``operation`` done, by either way in; ``done`` gets the id of its proposal, empty
        where it was never made, and what it came to."""
        if isinstance(operation, Put | Txn) and self._rng.random() < 0.5:
            self._propose_encoded(operation, deadline, done)
            return
        made = self._made = []

        def told(outcome: Answer | Error) -> None:
            done(made[0] if made else b"", outcome)

        self.service.propose(operation, None, deadline, told)
        self._made = []

    def _propose_encoded(
        self, operation: Put | Txn, deadline: float, done: Callable[[bytes, Answer | Error], None]
    ) -> None:
        """As what comes natively is proposed."""
        try:
            check(operation)
        except EtcdError as error:
            done(b"", error)
            return
        id = self.service.new_id()
        encoded = encode_proposal(Proposal(id, operation))
        self.service.propose_encoded(id, encoded, deadline, partial(done, id))

    def read(
        self,
        operation: Range | Txn,
        serializable: bool,
        deadline: float,
        done: Callable[[RangeAnswer | TxnAnswer | Error], None],
    ) -> None:
        """Read, by either way in."""
        service = self.service

        def told(answers: Sequence[RangeAnswer | None] | Error) -> None:
            if isinstance(answers, Error):
                done(answers)
            elif answers[0] is not None:
                done(answers[0])
            else:
                service.read(operation, serializable, deadline, done)

        is_native = not serializable and self._rng.random() < 0.5
        if is_native and isinstance(operation, Range) and operation == Range(operation.key):
            service.read_keys([operation.key], told)
        else:
            service.read(operation, serializable, deadline, done)

    # --- calls of other members ------------------------------------------------------------------

    def _pass_on(
        self,
        leader: int,
        term: int,
        proposals: Sequence[bytes],
        timeout_s: float,
        done: Callable[[Passed], None],
    ) -> None:
        told = _Once(done)
        self._later(timeout_s, lambda: told(Passed.LOST))

        def take(peer: EtcdMember) -> None:
            peer.service.take(term, proposals, lambda passed: peer._tell(self, told, passed))

        def arrive() -> None:
            peer = self._find(leader)
            if peer is not None:
                peer.soon(lambda: take(peer))

        self._network.call((self.member, leader), arrive)

    def _ask_leader(
        self,
        leader: int,
        questions: Questions,
        timeout_s: float,
        done: Callable[[Answers | None], None],
    ) -> None:
        told = _Once(done)
        self._later(timeout_s, lambda: told(None))

        def take(peer: EtcdMember) -> None:
            peer.leases.answer(questions, lambda answers: peer._tell(self, told, answers))

        def arrive() -> None:
            peer = self._find(leader)
            if peer is not None:
                peer.soon(lambda: take(peer))

        self._network.call((self.member, leader), arrive, doubles=True)

    def _tell(self, asker: EtcdMember, told: _Once, answer: Any) -> None:
        """Answer another member's call."""

        def arrive() -> None:
            if not asker.is_over:
                asker.soon(lambda: told(answer))

        self._network.call((self.member, asker.member), arrive)


class _Once:
    """Tells the first outcome of a call."""

    def __init__(self, done: Callable[[Any], None]) -> None:
        self._done: Callable[[Any], None] | None = done

    def __call__(self, outcome: Any) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(outcome)
