"""JSON over HTTP/1.1: asked from tests, and recorded against the distribution's etcd.

``python -m tests.integration.gateway`` starts an etcd of one member for each ``*.script`` of
``tests/golden/gateway`` and writes beside it what was said. A line of a script is a path and a
body, which is posted, or with ``GET`` before it a path; ``[2]`` before it: of a stream two lines
are read, and then it is closed.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.integration.etcdctl import empty_etcd

__all__ = ["SCRIPTS", "Reply", "ask", "connect", "post", "transcript", "wait_ready"]

SCRIPTS = Path(__file__).resolve().parent.parent / "golden" / "gateway"
TIMEOUT_S = 30.0

_LINE = re.compile(r"(?:\[(?P<lines>\d+)\] )?(?P<get>GET )?(?P<path>/\S+)(?: (?P<body>.*))?")

# Differ between clusters.
_OWN = {"cluster_id", "member_id", "raft_term", "hash"}


class Reply(NamedTuple):
    """What a request came to."""

    status: int
    body: bytes
    headers: http.client.HTTPMessage

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        """Of a stream."""
        return [json.loads(line) for line in self.body.splitlines()]


def connect(address: str, tls: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
    """A connection to ``host:port``."""
    if tls is None:
        return http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    return http.client.HTTPSConnection(address, timeout=TIMEOUT_S, context=tls)


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | str | None = None,
    *,
    lines: int | None = None,
    **headers: str,
) -> Reply:
    """One request; of a stream so many ``lines``, after which the connection is closed.

    ``headers`` have ``_`` for ``-``.
    """
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    response = connection.getresponse()
    if lines is None:
        return Reply(response.status, response.read(), response.headers)
    said = b"".join(response.readline() for _ in range(lines))
    connection.close()
    return Reply(response.status, said, response.headers)


def post(connection: http.client.HTTPConnection, path: str, **fields: Any) -> Any:
    """What a call in JSON is answered with, of which the status must be 200."""
    reply = ask(connection, "POST", path, json.dumps(fields))
    assert reply.status == 200, reply.body
    return reply.json


def wait_ready(connection: http.client.HTTPConnection) -> None:
    """Return once the member says that it is: a moment after it has a leader."""
    end = time.monotonic() + TIMEOUT_S
    while (reply := ask(connection, "GET", "/readyz")).status != 200:
        assert time.monotonic() < end, reply.body


def transcript(script: Path, address: str) -> str:
    """What is said to each line of a script, without what differs between clusters."""
    connection = connect(address)
    parts = []
    for line in script.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        assert found is not None, line
        method = "GET" if found["get"] else "POST"
        lines = int(found["lines"]) if found["lines"] else None
        reply = ask(connection, method, found["path"], found["body"], lines=lines)
        text = "\n".join(_masked(one) for one in reply.body.decode().splitlines())
        parts.append(f"$ {line}\n{reply.status}\n{text}\n")
    connection.close()
    return "\n".join(parts)


def _masked(text: str) -> str:
    if text.startswith("{"):
        return json.dumps(_without_own(json.loads(text)), sort_keys=True)
    return text


def _without_own(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: "..." if k in _OWN else _without_own(v) for k, v in value.items()}
    return [_without_own(item) for item in value] if isinstance(value, list) else value


def _record() -> None:
    for script in sorted(SCRIPTS.glob("*.script")):
        with empty_etcd() as url:
            said = transcript(script, urlsplit(url).netloc)
            script.with_suffix(".said").write_text(said)


if __name__ == "__main__":
    _record()
