"""The address of metrics: one path, bounded, and no figures rather than a hang."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self

import pytest

from kvstore.errors import ConfigurationError, UnavailableError
from kvstore.server.http.probes import ProbePages, Probes
from kvstore.server.metrics import endpoint as metrics_endpoint
from kvstore.server.metrics.calls import Metrics
from kvstore.server.metrics.endpoint import MetricsEndpoint, parse_metrics_address
from kvstore.server.metrics.pages import MetricsPages


@contextmanager
def served(render: Callable[[str], tuple[str, bytes]]) -> Iterator[str]:
    def page(path: str, query: object, accept: str) -> tuple[int, str, bytes] | None:
        return (200, *render(accept)) if path == "/metrics" else None

    endpoint = MetricsEndpoint("127.0.0.1:0", page)
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


def test_head_is_answered_as_get_but_for_the_body() -> None:
    with served(lambda accept: ("text/plain", b"figures")) as address:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"HEAD /metrics HTTP/1.0\r\n\r\n")
            with connection.makefile("rb") as file:
                answer = file.read()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split()[1] == b"200"
        assert b"Content-Length: 7" in head
        assert not body


def test_too_many_parameters_are_refused() -> None:
    with served(lambda accept: ("text/plain", b"figures")) as address:
        assert get(address, "/metrics?" + "a=b&" * 100)[0] == 400
        assert get(address, "/metrics?" + "a=b&" * 10)[0] == 200


def test_no_figures_are_503() -> None:
    def render(accept: str) -> tuple[str, bytes]:
        raise UnavailableError("the event loop is busy")

    with served(render) as address:
        assert get(address, "/metrics")[0] == 503


def test_connections_that_say_nothing_keep_nobody_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_endpoint, "CONNECTIONS_MAX", 8)
    with (
        served(lambda accept: ("text/plain", b"figures")) as address,
        contextlib.ExitStack() as stack,
    ):
        host, _, port = address.rpartition(":")
        silent = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            for _ in range(12)
        ]
        assert get(address, "/metrics") == (200, b"figures")
        # The oldest made room.
        assert [one.recv(1) for one in silent[:5]] == [b""] * 5


def test_a_probe_waits_for_no_scrape_and_a_scrape_for_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics_endpoint, "SCRAPES_MAX", 1)
    begun, go_on = threading.Event(), threading.Event()

    def page(path: str, query: object, accept: str) -> tuple[int, str, bytes]:
        if path == "/metrics":
            begun.set()
            assert go_on.wait(30)
        return 200, "text/plain", b"ok"

    endpoint = MetricsEndpoint("127.0.0.1:0", page)
    endpoint.start()
    with ThreadPoolExecutor() as pool:
        try:
            scrape = pool.submit(get, endpoint.address, "/metrics")
            assert begun.wait(30)
            with monkeypatch.context() as patch:
                patch.setattr(metrics_endpoint, "PLACE_S", 0.01)
                status, said = get(endpoint.address, "/metrics")
                assert (status, b"1 others are scraping" in said) == (503, True)
            second = pool.submit(get, endpoint.address, "/metrics")
            assert get(endpoint.address, "/livez") == (200, b"ok")
            go_on.set()
            assert scrape.result() == second.result() == (200, b"ok")
        finally:
            go_on.set()
            endpoint.close()


def test_one_that_sends_a_byte_now_and_then_has_no_more_time_than_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics_endpoint, "SCRAPE_S", 0.5)
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


def test_an_event_loop_that_is_held_up_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.server.metrics.pages.LOOP_WAIT_S", 0.01)
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(UnavailableError, match="busy"):
            Metrics(loop).render("")
    finally:
        loop.close()
    with pytest.raises(UnavailableError, match="closed"):
        Metrics(loop).render("")


class Probed:
    """The pages of a process whose loop runs on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.leader = 1
        self.trouble = ""
        self.pages = MetricsPages(self.loop, lambda accept: ("text/plain", b"figures"))

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def serves(self) -> Probes:
        probes = Probes(None, lambda: self.leader, lambda: self.trouble)
        self.pages.probes = ProbePages(probes)
        return probes

    def get(self, path: str, **query: list[str]) -> tuple[int, str] | None:
        found = self.pages(path, query, "")
        return None if found is None else (found[0], found[2].decode())


def test_a_process_that_starts_lives_and_is_not_ready() -> None:
    # Its loop stands still, as while it reads its log.
    probed = Probed()
    assert probed.get("/livez") == (200, "ok\n")
    assert probed.get("/readyz") == (503, "STARTING\n")
    assert probed.get("/readyz/storage") == (503, "STARTING\n")
    assert probed.get("/metrics") == (200, "figures")
    assert probed.get("/other") is None
    probed.loop.close()


def test_ready_means_that_it_can_serve() -> None:
    with Probed() as probed:
        probes = probed.serves()
        assert probed.get("/readyz") == (200, "ok\n")
        assert probed.get("/readyz", verbose=[""])[1].splitlines()[-3:] == [  # type: ignore[index]
            "[+]storage ok",
            "[+]serving ok",
            "ok",
        ]
        probed.leader = 0
        status, said = probed.get("/readyz") or (0, "")
        assert status == 503
        assert "[-]linearizable_read failed: RAFT NO LEADER\n" in said
        assert probed.get("/readyz", exclude=["linearizable_read"]) == (200, "ok\n")
        assert probed.get("/livez") == (200, "ok\n")
        probed.leader, probed.trouble = 1, "full"
        assert probed.get("/readyz/storage") == (
            503,
            "[-]storage failed: STORAGE TAKES NO WRITES\n",
        )
        probed.trouble, probes.stopping = "", True
        assert probed.get("/readyz/serving") == (503, "[-]serving failed: STOPPING\n")
        assert probed.get("/readyz/other") is None


def test_a_loop_that_stands_still_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.server.metrics.pages.LOOP_WAIT_S", 0.01)
    probed = Probed()
    probed.serves()
    with pytest.raises(UnavailableError, match="busy"):
        probed.get("/livez")
    probed.loop.close()


@pytest.mark.parametrize("address", ["", "9100", ":9100", "host", "host:", "host:70000", "a b:1"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--metrics_addr=.*; expected host:port"):
        parse_metrics_address(address)


def test_an_address_in_use_is_refused() -> None:
    with served(lambda accept: ("", b"")) as address, pytest.raises(ConfigurationError) as refused:
        MetricsEndpoint(address, lambda path, query, accept: None)
    assert str(refused.value) == f"failed to serve metrics on {address}: Address already in use"
