"""OSDs and the monitor die, stop and come back, under a gateway."""

from __future__ import annotations

import signal
import time

from kvstore.errors import DeadlineExceededError, UnavailableError
from kvstore.service import Get, Put
from tests.rados.conftest import address_in
from tests.rados.gateway import Gateway, gateway
from tools.rados_cluster import RadosCluster


def put_until_done(opened: Gateway, put: Put, seconds: float = 60.0) -> object:
    """As a client does: again under the same id until it is answered."""
    began = time.monotonic()
    result = opened.call(put, timeout=3.0)
    while isinstance(result, (UnavailableError, DeadlineExceededError)):
        assert time.monotonic() - began < seconds, result
        again = put._replace(age_s=time.monotonic() - began)
        result = opened.call(again, timeout=3.0)
    return result


def test_nothing_acknowledged_is_lost_with_any_one_osd(whole: RadosCluster) -> None:
    with gateway(address_in(whole, "one-osd")) as opened:
        written = {}
        for number in range(whole.osds):
            whole.kill(f"osd.{number}")
            for n in range(20):
                key, value = b"%d-%d" % (number, n), b"v%d" % n
                assert put_until_done(opened, Put(key, value, key)) is False
                written[key] = value
            whole.start_osd(number)
            whole.wait_clean()
        for key, value in written.items():
            assert opened.call(Get(key)) == value


def test_below_min_size_calls_end_by_their_deadline_and_go_on_when_it_is_back(
    whole: RadosCluster,
) -> None:
    with gateway(address_in(whole, "min-size")) as opened:
        assert opened.call(Put(b"k", b"1", b"first")) is False
        whole.kill("osd.1")
        whole.kill("osd.2")
        whole.wait_up(1)
        began = time.monotonic()
        got = [
            opened.begin(Put(b"k", b"2", b"second"), timeout=3.0),
            opened.begin(Get(b"other"), timeout=3.0),
        ]
        opened.until(lambda: all(got))
        assert 2.5 < time.monotonic() - began < 6
        assert all(isinstance(each[0][0], DeadlineExceededError) for each in got)
        figures = opened.service.figures()
        assert (figures.reads, figures.turns, figures.write_bytes) == (0, 0, 0)
        assert figures.abandoned > 0
        whole.start_osd(1)
        assert put_until_done(opened, Put(b"k", b"2", b"second")) is True
        assert opened.call(Get(b"k")) == b"2"
        opened.until(lambda: opened.service.figures().abandoned == 0)


def test_a_gateway_serves_without_the_monitor(whole: RadosCluster) -> None:
    with gateway(address_in(whole, "monitor")) as opened:
        assert opened.call(Put(b"k", b"1", b"first")) is False
        whole.kill("mon.a")
        assert opened.call(Put(b"k", b"2", b"second")) is True
        assert opened.call(Get(b"k")) == b"2"


def test_an_osd_that_hangs_holds_up_what_is_its_own_and_only_for_a_time(
    whole: RadosCluster,
) -> None:
    with gateway(address_in(whole, "hangs")) as opened:
        whole.signal("osd.0", signal.SIGSTOP)
        try:
            for n in range(10):
                key = b"k%d" % n
                assert put_until_done(opened, Put(key, b"v", key)) is False
        finally:
            whole.signal("osd.0", signal.SIGCONT)
        for n in range(10):
            assert opened.call(Get(b"k%d" % n), timeout=30.0) == b"v"
