"""Which front a kvd gets, and what it says of it."""

from __future__ import annotations

import pytest
import structlog

from kvstore.errors import ConfigurationError
from kvstore.server.listeners import front
from kvstore.wire import available


@pytest.mark.parametrize("wanted", ["auto", "native"])
@pytest.mark.skipif(not available(), reason="built without nghttp2")
def test_the_native_front_is_the_default_where_it_is_built(wanted: str) -> None:
    chosen = front.choose_front(wanted)
    assert chosen.name == "native"
    with structlog.testing.capture_logs() as logs:
        chosen.say()
    assert logs == [{"event": "front", "log_level": "info", "name": "native"}]


def test_grpcio_can_be_asked_for() -> None:
    assert front.choose_front("grpcio").name == "grpcio"


def test_where_it_is_not_built_grpcio_serves_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(front, "available", lambda: False)
    with structlog.testing.capture_logs() as logs:
        front.choose_front("auto").say()
    assert logs == [
        {"event": "front", "log_level": "info", "name": "grpcio", "reason": front.NOT_BUILT}
    ]
    with pytest.raises(ConfigurationError, match=r"--front=native can't be had: .*nghttp2"):
        front.choose_front("native")
