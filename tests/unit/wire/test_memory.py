"""Allocations of nghttp2, refused one after the other: an error or a broken connection, no leak."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from kvstore._engine.primitives import native as memory
from tests.unit.wire.conversation import PATHS, Conversation


@pytest.fixture(autouse=True)
def no_allocation_watched() -> Iterator[None]:
    yield
    memory.reset()


def talk_about_all() -> None:
    """A hot call, a stream, a cancelled call, metadata; MemoryError may come of any of it."""
    talk = Conversation()
    try:
        talk.unary(PATHS[1], b"", metadata=(("x", "y" * 100),), timeout_s=1)
        for call in talk.hot:
            call.get_answer(b"v" * 20_000)
        stream = talk.client.call("/s/M", (), None, b"x" * 70_000, False)
        talk.step()
        talk.server.start(stream, (("i", "1"),))
        talk.server.message(stream, b"m" * 300)
        talk.server.consumed(stream, 70_000)
        talk.step()
        talk.server.finish(stream, 5, "gone", (("t", "1"),))
        talk.client.cancel(talk.unary("/s/M", b""))
        talk.server.ping()
        talk.server.notify_shutdown()
        talk.server.goaway()
        talk.step()
    finally:
        talk.client.close("lost")
        talk.server.close()
        budgets = (talk.received, talk.unsent, talk.client_received, talk.client_unsent)
        assert [budget.used for budget in budgets] == [0, 0, 0, 0]
        assert (talk.server.streams, talk.client.streams) == (0, 0)


@pytest.mark.parametrize("times", [1, 3, None])
def test_each_refused_allocation_is_borne(times: int | None) -> None:
    talk_about_all()
    memory.watch_allocations()
    talk_about_all()
    total = memory.count()
    assert total > 100
    assert memory.live() == 0
    for number in range(1, total + 1):
        memory.reset()
        memory.fail_allocation(number, times)
        with contextlib.suppress(MemoryError):
            talk_about_all()
        assert memory.refused() >= 1
        assert memory.live() == 0, number
