"""The address of metrics: one path, bounded, and no figures rather than a hang."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kvstore.errors import ConfigurationError, UnavailableError
from kvstore.server.metrics import endpoint as metrics_endpoint
from kvstore.server.metrics.calls import Metrics
from kvstore.server.metrics.endpoint import MetricsEndpoint, parse_metrics_address

# What a client sees of a connection that is closed on it: never its own TimeoutError.
HUNG_UP = (ConnectionError, http.client.RemoteDisconnected)


@contextmanager
def served(render: Callable[[str], tuple[str, bytes]]) -> Iterator[str]:
    endpoint = MetricsEndpoint("127.0.0.1:0", render)
    endpoint.start()
    try:
        yield endpoint.address
    finally:
        endpoint.close()


def get(address: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_only_metrics_is_answered() -> None:
    with served(lambda accept: ("text/plain", b"figures")) as address:
        assert get(address, "/metrics") == (200, b"figures")
        assert get(address, "/metrics?name=x") == (200, b"figures")
        assert get(address, "/")[0] == 404
        assert get(address, "/metrics/")[0] == 404


def test_no_figures_are_503() -> None:
    def render(accept: str) -> tuple[str, bytes]:
        raise UnavailableError("the event loop is busy")

    with served(render) as address:
        assert get(address, "/metrics")[0] == 503


def test_a_scrape_beyond_the_bound_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_endpoint, "SCRAPES_MAX", 1)
    with served(lambda accept: ("text/plain", b"figures")) as address:
        host, _, port = address.rpartition(":")
        # Accepted in order: the first takes the only place and says nothing.
        with socket.create_connection((host, int(port))), pytest.raises(HUNG_UP):
            get(address, "/metrics")


def test_one_that_sends_a_byte_now_and_then_has_no_more_time_than_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics_endpoint, "SCRAPE_S", 0.5)
    monkeypatch.setattr(metrics_endpoint, "SCRAPES_MAX", 1)
    with served(lambda accept: ("text/plain", b"figures")) as address:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=0.05) as slow:
            began = time.monotonic()
            slow.sendall(b"GET /metrics HTTP/1.1\r\n")
            while time.monotonic() < began + 20:
                try:
                    slow.sendall(b"a: b\r\n")
                    if not slow.recv(100):
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
            assert 0.4 < time.monotonic() - began < 10
        # Its place is free again.
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(OSError, http.client.HTTPException):
                assert get(address, "/metrics")[0] == 200
                return
        raise AssertionError("never answered")


def test_an_event_loop_that_is_held_up_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.server.metrics.calls.LOOP_WAIT_S", 0.01)
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(UnavailableError, match="busy"):
            Metrics(loop).render("")
    finally:
        loop.close()
    with pytest.raises(UnavailableError, match="closed"):
        Metrics(loop).render("")


@pytest.mark.parametrize("address", ["", "9100", ":9100", "host", "host:", "host:70000", "a b:1"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--metrics_addr=.*; expected host:port"):
        parse_metrics_address(address)


def test_an_address_in_use_is_refused() -> None:
    with served(lambda accept: ("", b"")) as address, pytest.raises(ConfigurationError) as refused:
        MetricsEndpoint(address, lambda accept: ("", b""))
    assert str(refused.value) == f"failed to serve metrics on {address}: Address already in use"
