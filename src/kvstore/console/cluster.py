"""The cluster as the console sees it: whom to ask, and what each member says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

from kvstore.client import AsyncClient, ClusterStatus, MemberStatus, SlowCall
from kvstore.client.options import parse_addresses
from kvstore.console.options import Options
from kvstore.errors import Error, PermissionDeniedError, UnauthenticatedError

__all__ = ["Cluster", "Report", "Reports"]

# How long a member is asked for its status, at most.
ASK_TIMEOUT_S = 2.0
# Members that are asked, at most.
MEMBERS_MAX = 32
# How long it is believed what the cluster said of whether it asks for users.
USERS_KNOWN_S = 5.0


@dataclass(frozen=True, slots=True)
class Report:
    """One member: what it said, or, without ``said``, why it didn't (``silence``)."""

    member_id: int
    address: str
    version: str = ""
    uptime_s: float = 0.0
    said: MemberStatus | None = None
    silence: str = ""


@dataclass(frozen=True, slots=True)
class Reports:
    """All members by id, at one moment. ``took_s``: of the quickest answer; ``failure``: why
    nobody answered, empty where somebody did."""

    members: tuple[Report, ...] = ()
    mode: str = ""
    warnings: tuple[str, ...] = ()
    took_s: float = 0.0
    failure: str = ""

    @property
    def heard(self) -> tuple[MemberStatus, ...]:
        return tuple(report.said for report in self.members if report.said is not None)

    @property
    def leader_id(self) -> int:
        """Whom those of the newest term believe to lead; 0: nobody."""
        believed = [(said.term, said.leader_id) for said in self.heard if said.leader_id]
        return max(believed)[1] if believed else 0

    @property
    def committed(self) -> int:
        return max((said.commit_index for said in self.heard), default=0)

    @property
    def revision(self) -> int:
        return max((said.revision for said in self.heard), default=0)

    def lag_of(self, said: MemberStatus) -> int:
        """Entries known to be committed, to any member, that this one has not applied."""
        return max(0, self.committed - said.applied_index)


class Cluster:
    """Clients of one cluster: one for all, one a member, and one for each user. For one loop."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.client = self.client_of(None, None)
        self._members: dict[str, AsyncClient] = {}
        self._asks: bool | None = None
        self._asked_at = 0.0

    def client_of(self, user: str | None, password: str | None) -> AsyncClient:
        """A client of its own for a user, or for nobody."""
        return self._client(self._options.addresses, user, password)

    def _client(self, addresses: str, user: str | None, password: str | None) -> AsyncClient:
        return AsyncClient(
            addresses,
            tls=self._options.tls,
            timeout=self._options.timeout_s,
            user=user,
            password=password,
        )

    @property
    def asks_for_users(self) -> bool | None:
        """What was heard last; None: nothing yet."""
        return self._asks

    async def learn_users(self) -> bool:
        """Whether the cluster asks for users, as of some seconds ago. Raises as calls do."""
        now = time.monotonic()
        if self._asks is None or now - self._asked_at > USERS_KNOWN_S:
            try:
                self._asks = (await self.client.auth.status()).enabled
            except (UnauthenticatedError, PermissionDeniedError):
                # It doesn't tell nobody.
                self._asks = True
            self._asked_at = now
        return self._asks

    async def reports(self) -> Reports:
        """Ask every member, all at the same time. Raises nothing that calls raise."""
        began = time.monotonic()
        given = list(parse_addresses(self._options.addresses))[:MEMBERS_MAX]
        answers = await asyncio.gather(*(self._ask(address) for address in given))
        took_s = time.monotonic() - began
        statuses = [status for status in answers if isinstance(status, ClusterStatus)]
        if not statuses:
            return Reports(failure=str(answers[0]))
        found = {report.member_id: report for status in statuses for report in _reports_of(status)}
        if statuses[0].mode == "cluster-node":
            await self._ask_others(found)
        by_id = tuple(found[member] for member in sorted(found))
        return Reports(by_id, statuses[0].mode, statuses[0].warnings, took_s)

    async def _ask_others(self, found: dict[int, Report]) -> None:
        """Members that the leader knows and that no address given led to."""
        with contextlib.suppress(Error):
            known = (await self.client.members(timeout=ASK_TIMEOUT_S)).members
            missing = [one for one in known if one.member_id not in found][:MEMBERS_MAX]
            answers = await asyncio.gather(*(self._ask(one.client_address) for one in missing))
            for member, answer in zip(missing, answers, strict=True):
                if isinstance(answer, ClusterStatus):
                    found.update((report.member_id, report) for report in _reports_of(answer))
                found.setdefault(
                    member.member_id,
                    Report(member.member_id, member.client_address, silence=_words(answer)),
                )
            await self._forget({one.client_address for one in known})

    async def slow_calls(self) -> dict[str, tuple[SlowCall, ...] | Error]:
        """What the process at each address that is known says, or why it doesn't."""

        async def ask(client: AsyncClient) -> tuple[SlowCall, ...] | Error:
            try:
                return await client.slow_calls(timeout=ASK_TIMEOUT_S)
            except Error as error:
                return error

        asked = dict(self._members)
        answers = await asyncio.gather(*map(ask, asked.values()))
        return dict(zip(asked, answers, strict=True))

    async def _ask(self, address: str) -> ClusterStatus | Error:
        client = self._members.get(address)
        if client is None:
            client = self._members[address] = self._client(address, None, None)
        try:
            return await client.status(timeout=ASK_TIMEOUT_S)
        except Error as error:
            return error

    async def _forget(self, known: set[str]) -> None:
        """Close clients of addresses that nobody names any more."""
        known |= set(parse_addresses(self._options.addresses))
        for address in [address for address in self._members if address not in known]:
            await self._members.pop(address).close()

    async def close(self) -> None:
        for client in (self.client, *self._members.values()):
            await client.close()


def _words(answer: ClusterStatus | Error) -> str:
    return str(answer) if isinstance(answer, Error) else "another member answers at its address"


def _reports_of(status: ClusterStatus) -> list[Report]:
    return [
        Report(said.member_id, said.client_address, status.version, status.uptime_s, said)
        for said in status.members
    ]
