"""What stands before every page: who is asked for, from where, and how long anything may take.

A page of another site that a browser has open can send requests here: by another name that it has
lead to this machine (the Host check), or as forms and links (the Origin, SameSite cookies, and the
token in each form). What pages show was written by others; it is escaped, and the policy below
lets a browser run and load nothing but what is served from here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kvstore.addresses import HostPort

__all__ = ["SEND_S", "Guard"]

logger = logging.getLogger("kvstore.console")

# For a browser to take what was sent, and to send the next piece of a request.
SEND_S: Final = 30.0
RECEIVE_S: Final = 30.0

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
# With no-referrer browsers would say "null" for the origin of our own forms.
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """ASGI around the console."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self.app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await asyncio.wait_for(send(message), SEND_S)

        async def guarded_receive() -> Message:
            return await asyncio.wait_for(receive(), RECEIVE_S)

        refusal = self._refusal(Headers(scope=scope), scope["method"])
        if refusal is not None:
            await refusal(scope, receive, guarded_send)
            return
        # What streams listens for the browser's leaving, for as long as it takes.
        patient = scope["method"] != "POST"
        try:
            await self.app(scope, receive if patient else guarded_receive, guarded_send)
        except Exception:
            # A defect was answered and logged inside; a browser that took nothing more for
            # SEND_S loses its connection by the answer's not being finished.
            logger.debug("a request ended early", exc_info=True)

    def _refusal(self, headers: Headers, method: str) -> PlainTextResponse | None:
        if method not in ("GET", "HEAD", "POST"):
            return PlainTextResponse(f"there is no {method} here\n", 405)
        host = headers.get("host", "")
        if host_name(host) not in self._hosts:
            return PlainTextResponse(
                "this console isn't called that; start it with --host NAME for names of yours\n",
                421,
            )
        if method == "POST" and not _from_here(headers, host):
            return PlainTextResponse("a form of another site\n", 403)
        return None


def host_name(host: str) -> str:
    """The name in a Host header, without its port, in lower case."""
    parsed = HostPort.parse(host) or HostPort.parse(f"{host}:80")
    return "" if parsed is None else parsed.host.lower()


def _from_here(headers: Headers, host: str) -> bool:
    """Browsers say where a form was; what says nothing has the token alone to show."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2].lower() == host.lower()
