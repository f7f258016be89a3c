"""What operators ask: how servers are, who the members are, and what is to become of them."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING

from kvstore.api.v1 import admin_pb2
from kvstore.client.background import drawn
from kvstore.client.calls import Calls

# Imported where they are asked for; see kvstore.client.asynchronous.
if TYPE_CHECKING:
    from kvstore.client.health import Health
    from kvstore.client.status import ClusterStatus, Members, Repairs, SlowCall
    from kvstore.client.work import Work

__all__ = ["AsyncOperating", "Operating"]


class AsyncOperating:
    """The part of :class:`kvstore.AsyncClient` that is for operators; see :class:`Operating`."""

    calls: Calls

    async def status(self, *, timeout: float | None = None) -> ClusterStatus:
        """Return what the server knows of itself and its members."""
        from kvstore.client.status import ClusterStatus

        answer = await self.calls.call(
            lambda server: server.admin.Status, admin_pb2.StatusRequest(), timeout
        )
        return ClusterStatus.from_message(answer)

    async def health(self, *, timeout: float | None = None) -> tuple[Health, ...]:
        """Ask each server whether it can serve now; see :meth:`Client.health`."""
        from kvstore.client.health import check

        return await check(self.calls, timeout)

    async def members(self, *, timeout: float | None = None) -> Members:
        """Return who belongs to the cluster. Raises as :meth:`put` does."""
        from kvstore.client.status import Members

        answer = await self.calls.call(
            lambda server: server.admin.Members, admin_pb2.MembersRequest(), timeout
        )
        return Members.from_message(answer)

    async def add_member(
        self,
        member_id: int,
        client_address: str,
        peer_address: str,
        *,
        timeout: float | None = None,
    ) -> Members:
        """Add a member under an id never used, as a learner. Returns when that is committed.

        Raises InvalidArgumentError for an id or address that is taken, UnavailableError while
        another change is under way, and as :meth:`put` does.
        """
        new = admin_pb2.Member(
            member_id=member_id, client_address=client_address, peer_address=peer_address
        )
        return await self._change(admin_pb2.ChangeMembersRequest(add=new), timeout)

    async def promote_member(
        self, member_id: int, *, force: bool = False, timeout: float | None = None
    ) -> Members:
        """Let a learner vote; see :meth:`Client.promote_member`."""
        return await self._change(
            admin_pb2.ChangeMembersRequest(promote=member_id, force=force), timeout
        )

    async def remove_member(
        self, member_id: int, *, force: bool = False, timeout: float | None = None
    ) -> Members:
        """Take a member out for good; see :meth:`Client.remove_member`."""
        return await self._change(
            admin_pb2.ChangeMembersRequest(remove=member_id, force=force), timeout
        )

    async def _change(
        self, request: admin_pb2.ChangeMembersRequest, timeout: float | None
    ) -> Members:
        from kvstore.client.status import Members

        return Members.from_message(
            await self.calls.call(lambda server: server.admin.ChangeMembers, request, timeout)
        )

    async def forget_introduction(self, member_id: int, *, timeout: float | None = None) -> bool:
        """Let the member that answers forget what it remembers of another one's data directory.

        Returns whether there was anything. For when it refuses a member whose directory is whole.
        """
        request = admin_pb2.ForgetIntroductionRequest(member_id=member_id)
        return (
            await self.calls.call(lambda server: server.admin.ForgetIntroduction, request, timeout)
        ).known

    async def repair(
        self, *, begin: bool = False, timeout: float | None = None
    ) -> tuple[Repairs, ...]:
        """What the members of the process that answers repair; see :meth:`Client.repair`."""
        from kvstore.client.status import Repairs

        request = admin_pb2.RepairRequest(begin=begin)
        answer = await self.calls.call(lambda server: server.admin.Repair, request, timeout)
        return tuple(Repairs.from_message(member) for member in answer.members)

    async def slow_calls(self, *, timeout: float | None = None) -> tuple[SlowCall, ...]:
        """The newest slow calls of the process that answers; see :meth:`Client.slow_calls`."""
        from kvstore.client.status import SlowCall

        request = admin_pb2.SlowCallsRequest()
        answer = await self.calls.call(lambda server: server.admin.SlowCalls, request, timeout)
        return tuple(SlowCall.from_message(slow) for slow in answer.calls)

    async def transfer_leadership(self, to: int = 0, *, timeout: float | None = None) -> int:
        """Hand leadership to a voter (0: the one that is furthest); returns who leads then."""
        request = admin_pb2.TransferLeadershipRequest(to=to)
        return (
            await self.calls.call(lambda server: server.admin.TransferLeadership, request, timeout)
        ).leader_id

    def save_snapshot(
        self, *, stale: bool = False, timeout: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield a backup file of the member that answers; see :meth:`Client.save_snapshot`."""
        return self.calls.save_snapshot(stale, timeout)


class Operating:
    """The part of :class:`kvstore.Client` that is for operators.

    Each call is answered by the member that is reached: give the client one address to choose.
    """

    @abstractmethod
    def _begun(self) -> Work: ...

    def _operating(self) -> Work:
        """The same, with all loaded that answers are read with: by this thread, not by the loop's.

        Raises ClosedError.
        """
        for room in ("health", "status"):
            importlib.import_module(f"kvstore.client.{room}")
        return self._begun()

    def status(self, *, timeout: float | None = None) -> ClusterStatus:
        """Return what the server knows of itself and its members."""
        work = self._operating()
        return work.run(work.client.status(timeout=timeout))

    def health(self, *, timeout: float | None = None) -> tuple[Health, ...]:
        """Ask each server that it knows, by itself, whether it can serve now.

        ``timeout``: of each, 2 s if nothing is said. Raises ClosedError; of a server that can't be
        reached the error is in what is returned.
        """
        work = self._operating()
        return work.run(work.client.health(timeout=timeout))

    def members(self, *, timeout: float | None = None) -> Members:
        """Return who belongs to the cluster. Raises as :meth:`put` does."""
        work = self._operating()
        return work.run(work.client.members(timeout=timeout))

    def add_member(
        self,
        member_id: int,
        client_address: str,
        peer_address: str,
        *,
        timeout: float | None = None,
    ) -> Members:
        """Add a member under an id never used, as a learner. Returns when that is committed.

        Raises InvalidArgumentError for an id or address that is taken, UnavailableError while
        another change is under way, and as :meth:`put` does.
        """
        work = self._operating()
        return work.run(
            work.client.add_member(member_id, client_address, peer_address, timeout=timeout)
        )

    def promote_member(
        self, member_id: int, *, force: bool = False, timeout: float | None = None
    ) -> Members:
        """Let a learner vote.

        Raises UnavailableError while it lacks too much of the log or wasn't heard from lately, or
        when no majority of the voters to be was; with ``force`` it is done all the same.
        """
        work = self._operating()
        return work.run(work.client.promote_member(member_id, force=force, timeout=timeout))

    def remove_member(
        self, member_id: int, *, force: bool = False, timeout: float | None = None
    ) -> Members:
        """Take a member out for good: its id can't be used again.

        Raises UnavailableError when no majority of the voters that stay was heard from lately;
        with ``force`` it is done all the same.
        """
        work = self._operating()
        return work.run(work.client.remove_member(member_id, force=force, timeout=timeout))

    def forget_introduction(self, member_id: int, *, timeout: float | None = None) -> bool:
        """Let the member that answers forget what it remembers of another one's data directory.

        Returns whether there was anything. For when it refuses a member whose directory is whole.
        """
        work = self._operating()
        return work.run(work.client.forget_introduction(member_id, timeout=timeout))

    def repair(self, *, begin: bool = False, timeout: float | None = None) -> tuple[Repairs, ...]:
        """What the members of the process that answers repair, by id.

        With ``begin`` each begins to read and check all that it holds, without regard to what that
        costs, and what it finds damaged is repaired. Ask again, without, until ``checks`` has grown
        and ``repairing`` is empty. Give the client one address: who answers is who is meant.
        """
        work = self._operating()
        return work.run(work.client.repair(begin=begin, timeout=timeout))

    def slow_calls(self, *, timeout: float | None = None) -> tuple[SlowCall, ...]:
        """The newest calls that took long at the process that answers, the newest last.

        Sizes and times, never keys or values. kvd's ``--slow_call_ms`` says what is long. For
        operators; give the client one address: who answers is who is meant.
        """
        work = self._operating()
        return work.run(work.client.slow_calls(timeout=timeout))

    def transfer_leadership(self, to: int = 0, *, timeout: float | None = None) -> int:
        """Hand leadership to a voter (0: the one that is furthest); returns who leads then."""
        work = self._operating()
        return work.run(work.client.transfer_leadership(to, timeout=timeout))

    def save_snapshot(
        self, *, stale: bool = False, timeout: float | None = None
    ) -> Iterator[bytes]:
        """Yield a backup file of the member that answers, piece by piece (docs/storage-format.md).

        It holds every write that was acknowledged, to anyone, before the call. With ``stale`` it is
        what that member has, for when a majority is lost. ``timeout`` bounds finding a member that
        can begin, not the transfer; members are only changed before the first piece.

        Raises CorruptionError when the member's data is damaged, and as :meth:`put` does.
        """
        work = self._operating()
        yield from drawn(work.run, work.client.save_snapshot(stale=stale, timeout=timeout))
