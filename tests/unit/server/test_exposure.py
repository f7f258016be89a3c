"""What a kvd is open to, and how loudly it says so."""

from __future__ import annotations

import pytest
import structlog

from kvstore.server.config.options import ServerOptions
from kvstore.server.exposure import exposures, say

SECURE = {"tls_profile": "secure", "tls_cert": "c", "tls_key": "k"}


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, []),
        ({"listen_addr": "localhost:1"}, []),
        ({"listen_addr": "[::1]:1", "metrics_addr": "127.0.0.1:2"}, []),
        ({"listen_addr": "0.0.0.0:1"}, ["clients"]),
        ({"listen_addr": "[::]:1"}, ["clients"]),
        ({"listen_addr": "db1:1", "admin": "everybody"}, ["clients", "admin"]),
        ({"admin": "everybody"}, ["admin"]),
        ({"listen_addr": "0.0.0.0:1", **SECURE}, []),
        ({"listen_addr": "0.0.0.0:1", "admin": "everybody", **SECURE}, ["admin"]),
        ({"metrics_addr": "0.0.0.0:2"}, ["metrics"]),
    ],
)
def test_what_others_than_this_machine_reach_is_named(options: dict[str, str], what: list[str]):
    assert list(exposures(ServerOptions(**options))) == what  # type: ignore[arg-type]


@pytest.mark.parametrize(("asked", "level"), [(False, "error"), (True, "warning")])
def test_plain_text_that_nobody_asked_for_is_an_error(asked: bool, level: str):
    options = ServerOptions(listen_addr="0.0.0.0:1", insecure_clients=asked)
    with structlog.testing.capture_logs() as logs:
        say(options, exposures(options))
    assert [(line["event"], line["log_level"]) for line in logs] == [("exposed", level)]
