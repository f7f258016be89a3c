"""What each member of a cluster says, asked one by one from any of their addresses."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kvstore.cli.interface.connection import Settings
from kvstore.client import ClusterStatus, MemberStatus
from kvstore.client.options import parse_addresses
from kvstore.errors import Error

__all__ = ["Report", "Reports", "gather", "lag_of", "merged"]

ASK_TIMEOUT_S = 2.0
"""How long the leader is asked for the members, and each member for its status, at most."""


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
    """What the first kvd that answered says of itself, and all members' reports by id."""

    asked: ClusterStatus
    members: tuple[Report, ...]


def gather(settings: Settings) -> Reports:
    """Ask every member that the leader names, or, without a leader, every address given.

    Raises what ``Client.status`` raises when no address given answers.
    """
    timeout = min(settings.timeout, ASK_TIMEOUT_S)
    members: dict[str, int] = {}
    with settings.connect() as client:
        asked = client.status()
        if asked.mode == "cluster-node":
            members = dict.fromkeys(parse_addresses(settings.addr), 0)
            with contextlib.suppress(Error):
                known = client.members(timeout=timeout).members
                members = {member.client_address: member.member_id for member in known}
    if not members:
        return Reports(asked, _reports_of(asked, settings.addr))
    with ThreadPoolExecutor(len(members)) as pool:
        answers = pool.map(
            lambda pair: _ask(settings, pair[0], pair[1], timeout), list(members.items())
        )
        reports = [report for answer in answers for report in answer]
    return Reports(asked, merged([*_reports_of(asked, settings.addr), *reports]))


def merged(reports: Sequence[Report]) -> tuple[Report, ...]:
    """One report for each member, by id: the last in which it said something, if there is one.

    A member may be reached at the address that was given and not at the one that the cluster knows,
    as through a forwarded port. Addresses whose member is unknown stand by themselves.
    """
    chosen: dict[tuple[int, str], Report] = {}
    for report in reports:
        key = (report.member_id, "" if report.member_id else report.address)
        if report.said is not None or key not in chosen:
            chosen[key] = report
    return tuple(sorted(chosen.values(), key=lambda report: report.member_id))


def _ask(settings: Settings, address: str, member: int, timeout: float) -> tuple[Report, ...]:
    try:
        with settings.connect(address) as client:
            return _reports_of(client.status(timeout=timeout), address)
    except Error as error:
        return (Report(member, address, silence=str(error)),)


def _reports_of(status: ClusterStatus, address: str) -> tuple[Report, ...]:
    return tuple(
        Report(
            member_id=said.member_id,
            address=said.client_address or address,
            version=status.version,
            uptime_s=status.uptime_s,
            said=said,
        )
        for said in status.members
    )


def lag_of(report: Report, reports: Reports) -> int | None:
    """Entries known to be committed, to any member, that this one has not applied."""
    if report.said is None:
        return None
    committed = max(other.said.commit_index for other in reports.members if other.said is not None)
    return max(0, committed - report.said.applied_index)
