"""Every request of HTTP/1.1 to the clients' port: whose it is, and who may ask at all."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from kvstore.api.handlers.etcd.maintenance import ETCD_VERSION
from kvstore.api.handlers.gateway.gateway import Gateway
from kvstore.server.http.probes import ProbePages, Probes
from kvstore.wire.http import Exchange
from kvstore.wire.http.exchange import TEXT

__all__ = ["HttpFace"]

FROM_A_PAGE: Final = "requests of web pages aren't taken\n"

_CLUSTER_VERSION: Final = ETCD_VERSION.rpartition(".")[0] + ".0"
_VERSION: Final = f'{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{_CLUSTER_VERSION}"}}'.encode()


class HttpFace:
    """A :data:`kvstore.wire.http.App`."""

    def __init__(self, probes: Probes, gateway: Gateway) -> None:
        self._probes = probes
        self._gateway = gateway
        self._probe_pages = ProbePages(probes)
        self._pages: dict[str, Callable[[Exchange], Awaitable[None]]] = {
            "/health": self._health,
            "/version": self._version,
        }

    async def __call__(self, exchange: Exchange) -> None:
        page = self._pages.get(exchange.path)
        if page is None and self._probe_pages.has(exchange.path):
            page = self._probe
        if _is_of_a_page(exchange):
            exchange.respond(HTTPStatus.FORBIDDEN, FROM_A_PAGE.encode(), TEXT)
        elif page is not None:
            if _has_method(exchange, "GET", "HEAD"):
                await page(exchange)
        elif self._gateway.has(exchange.path):
            if _has_method(exchange, "POST"):
                await self._gateway.answer(exchange)
        else:
            # Either of etcd's words for it.
            said = b"Not Found\n" if exchange.path.startswith("/v3") else b"404 page not found\n"
            exchange.respond(HTTPStatus.NOT_FOUND, said, TEXT)

    async def _health(self, exchange: Exchange) -> None:
        query = exchange.query
        serializable = query.get("serializable", [""])[0] == "true"
        why = await self._probes.health(query.get("exclude", ()), serializable)
        # Without spaces, as there are scripts that look for "health":"true".
        body = f'{{"health":"{"false" if why else "true"}","reason":{json.dumps(why)}}}'
        exchange.respond(_status(not why), body.encode())

    async def _version(self, exchange: Exchange) -> None:
        exchange.respond(HTTPStatus.OK, _VERSION)

    async def _probe(self, exchange: Exchange) -> None:
        status, said = await self._probe_pages.answer(exchange.path, exchange.query)
        exchange.respond(status, said.encode(), TEXT)


def _status(is_well: bool) -> HTTPStatus:
    return HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE


def _is_of_a_page(exchange: Exchange) -> bool:
    """A browser sends it for a page, of whatever site. Any page may ask for any address of the
    network that its reader is in, loopback included, and send a form there; behind a name that is
    made to point here it is of the same site, too (DNS rebinding). Browsers say so: every POST for
    a page has an Origin, and requests that a person hasn't typed in have that mark of fetch."""
    return any(
        name == "origin" or (name == "sec-fetch-site" and value != "none")
        for name, value in exchange.fields
    )


def _has_method(exchange: Exchange, *methods: str) -> bool:
    """Whether it is one of those; if it isn't, it was answered."""
    if exchange.method in methods:
        return True
    allowed = ("Allow", ", ".join((*methods, "OPTIONS")))
    if exchange.method == "OPTIONS":
        exchange.respond(HTTPStatus.OK, fields=(allowed,))
    else:
        body = b"Method Not Allowed\n"
        exchange.respond(HTTPStatus.METHOD_NOT_ALLOWED, body, (*TEXT, allowed))
    return False
