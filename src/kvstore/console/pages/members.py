"""Who belongs to the cluster, and changing that: asked twice here, and guarded by the cluster."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from kvstore.addresses import HostPort
from kvstore.client import AsyncClient, Member
from kvstore.console.audit import audited
from kvstore.console.rendering import fragment, page
from kvstore.console.requests import (
    Console,
    Form,
    changes,
    console_of,
    operates,
    shown,
    whole_number,
)
from kvstore.console.sampler import EVERY_S
from kvstore.console.sessions import Session
from kvstore.errors import Error, InvalidArgumentError

__all__ = ["ROUTES"]

WORDS: Final = {
    "promote": "Let member {} vote",
    "remove": "Take member {} out for good",
    "transfer": "Let member {} lead",
}
MEANING: Final = {
    "promote": "From then on its vote counts, and it is needed for majorities. The cluster refuses "
    "while it lags or is silent.",
    "remove": "Its id can't be used again, and it stops. The cluster refuses where of the voters "
    "that stay no majority answers.",
    "transfer": "Calls wait or are tried again for a moment, by clients themselves.",
}


async def _what(console: Console, session: Session) -> dict[str, Any]:
    await console.sampler.ready()
    known: dict[int, Member] = {}
    said = ""
    try:
        found = await session.client.members(timeout=console.options.timeout_s)
        known = {member.member_id: member for member in found.members}
    except Error as error:
        # An embedded kvd has none that could change; without a leader nobody knows.
        said = str(error)
    return {
        "reports": console.sampler.reports,
        "known": known,
        "said": said,
        "every_ms": int(EVERY_S * 1000),
    }


@shown
async def members(request: Request, session: Session) -> Response:
    return page(request, "members.html", **await _what(console_of(request), session))


@shown
async def live(request: Request, session: Session) -> Response:
    console = console_of(request)
    return fragment(
        request,
        "members_live.html",
        write=console.options.write,
        **await _what(console, session),
    )


@shown
async def confirm(request: Request, session: Session) -> Response:
    """What a change would mean, and the button for it."""
    do = request.query_params.get("do", "")
    if do not in WORDS:
        raise InvalidArgumentError(f"there is no change {do[:40]!r}")
    member = whole_number(request.query_params.get("id", ""), "the member")
    reports = console_of(request).sampler.reports
    return page(
        request,
        "member_confirm.html",
        do=do,
        member=member,
        words=WORDS[do].format(member),
        meaning=MEANING[do],
        silent=[one.member_id for one in reports.members if one.said is None],
        answering=len(reports.heard),
        leads=reports.leader_id == member,
    )


@changes
async def change(request: Request, session: Session, form: Form) -> Response:
    """Promote, remove or transfer; what the cluster refuses is shown in its words."""
    await operates(request, session)
    do, member = form.text("do"), form.number("id")
    if do not in WORDS or member == 0:
        raise InvalidArgumentError("the form says no change of a member")
    if "sure" not in form:
        raise InvalidArgumentError("nothing was changed: the box wasn't ticked")
    async with audited(request, session.name, f"member {do}", member=member):
        await _change(session.client, do, member)
    return RedirectResponse("/members", 303)


async def _change(client: AsyncClient, do: str, member: int) -> None:
    match do:
        case "promote":
            await client.promote_member(member)
        case "remove":
            await client.remove_member(member)
        case "transfer":
            await client.transfer_leadership(member)


@changes
async def add(request: Request, session: Session, form: Form) -> Response:
    """Add a member, as one that doesn't vote yet."""
    await operates(request, session)
    member = form.number("id")
    addresses = [form.text(name).strip() for name in ("client_address", "peer_address")]
    for address in addresses:
        if HostPort.parse(address) is None:
            raise InvalidArgumentError(f"an address is HOST:PORT, not {address[:80]!r}")
    if member == 0:
        raise InvalidArgumentError("a member's id is 1 or more")
    what = {"member": member, "addresses": addresses}
    async with audited(request, session.name, "member add", **what):
        await session.client.add_member(member, addresses[0], addresses[1])
    return RedirectResponse("/members", 303)


ROUTES = (
    Route("/members", members),
    Route("/live/members", live),
    Route("/members/confirm", confirm),
    Route("/members/change", change, methods=["POST"]),
    Route("/members/add", add, methods=["POST"]),
)
