"""Handshakes that nothing followed are counted, and logged once in a while."""

from __future__ import annotations

import structlog

from kvstore.server.tls.handshakes import LOG_INTERVAL_S, MET_MAX, PATIENCE_S, Handshakes


def test_a_handshake_has_some_time_for_its_first_call() -> None:
    handshakes = Handshakes()
    handshakes.begin()
    handshakes.look(100.0)
    handshakes.meet("ipv4:10.0.0.1:1")
    handshakes.meet("ipv4:10.0.0.1:1")
    handshakes.look(100.0 + PATIENCE_S)
    assert (handshakes.begun, handshakes.refused) == (1, 0)


def test_those_that_nothing_followed_are_counted_and_said_once_in_a_while() -> None:
    handshakes = Handshakes()
    handshakes.look(100.0)
    with structlog.testing.capture_logs() as logs:
        for turn in range(1, 9):
            handshakes.begin()
            handshakes.look(100.0 + turn * PATIENCE_S)
    assert (handshakes.begun, handshakes.refused) == (8, 7)
    assert [entry["count"] for entry in logs] == [1, 6]
    assert 8 * PATIENCE_S < 2 * LOG_INTERVAL_S


def test_what_is_remembered_is_bounded() -> None:
    handshakes = Handshakes()
    for number in range(MET_MAX + 10):
        handshakes.meet(f"ipv4:10.0.0.1:{number}")
    assert len(handshakes._known) == MET_MAX


def test_failures_that_are_told_are_counted_and_said_once_in_a_while() -> None:
    handshakes = Handshakes()
    handshakes.exact = True
    with structlog.testing.capture_logs() as logs:
        for number in range(5):
            handshakes.begin()
            handshakes.begin()
            handshakes.refuse(f"ipv4:10.0.0.1:{number}", "NO_CERTIFICATE")
            handshakes.look(100.0 + number * PATIENCE_S)
    assert (handshakes.begun, handshakes.refused) == (10, 5)
    assert logs == [
        {
            "event": "handshakes failed",
            "log_level": "warning",
            "count": 1,
            "peer": "ipv4:10.0.0.1:0",
            "reason": "NO_CERTIFICATE",
        }
    ]
