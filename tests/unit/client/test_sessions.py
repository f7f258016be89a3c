"""How a client numbers its writes."""

from __future__ import annotations

import pytest

from kvstore.api.v1 import session_pb2
from kvstore.client import forks
from kvstore.client.sessions import (
    REFUSED_S,
    PlainWrite,
    Session,
    Sessions,
    SessionWrite,
)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def answer(name: str = "ab", window: int = 4) -> session_pb2.OpenSessionResponse:
    return session_pb2.OpenSessionResponse(session=name, idle_timeout_ms=60_000, window=window)


def test_the_floor_is_the_oldest_write_that_is_not_done() -> None:
    session = Session(answer(), now=Clock())
    first, second = session.begin(), session.begin()
    assert first is not None
    assert second is not None
    assert (first.request_id, second.request_id) == ("kvs1/ab/1/1", "kvs1/ab/2/1")
    first.done()
    third = session.begin()
    assert third is not None
    assert third.request_id == "kvs1/ab/3/2"
    second.done()
    third.done()
    fourth = session.begin()
    assert fourth is not None
    assert fourth.request_id == "kvs1/ab/4/4"


def test_a_write_beyond_the_window_gets_an_id_of_its_own() -> None:
    sessions = Sessions(now=Clock())
    assert sessions.claim()
    sessions.opened(answer(window=3), refused=False)
    stuck = [sessions.begin() for _ in range(3)]
    assert all(isinstance(write, SessionWrite) for write in stuck)
    assert isinstance(sessions.begin(), PlainWrite)
    stuck[1].done()
    assert isinstance(sessions.begin(), PlainWrite)
    stuck[0].done()
    assert isinstance(sessions.begin(), SessionWrite)


def test_one_call_opens_the_session_and_the_others_do_not_wait() -> None:
    sessions = Sessions(now=Clock())
    assert sessions.claim()
    assert not sessions.claim()
    assert isinstance(sessions.begin(), PlainWrite)
    sessions.opened(None, refused=False)  # it failed: the next one tries
    assert sessions.claim()


def test_a_server_without_sessions_is_asked_again_later() -> None:
    now = Clock()
    sessions = Sessions(now=now)
    assert sessions.claim()
    sessions.opened(None, refused=True)
    assert not sessions.claim()
    now.seconds = REFUSED_S
    assert sessions.claim()


def test_a_session_that_rested_for_half_its_time_is_left() -> None:
    now = Clock()
    sessions = Sessions(now=now)
    assert sessions.claim()
    sessions.opened(answer(), refused=False)
    now.seconds = 29
    sessions.begin().done()
    now.seconds = 58
    assert not sessions.claim()
    now.seconds = 60
    assert sessions.claim()


def test_an_expired_session_is_left_and_a_newer_one_is_not() -> None:
    sessions = Sessions(now=Clock())
    sessions.claim()
    sessions.opened(answer("old"), refused=False)
    write = sessions.begin()
    assert isinstance(write, SessionWrite)
    sessions.expired(write.session)
    assert sessions.claim()
    sessions.opened(answer("new"), refused=False)
    sessions.expired(write.session)
    assert sessions.begin().request_id == "kvs1/new/1/1"


def test_a_child_of_fork_does_not_go_on_with_its_parents_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions = Sessions(now=Clock())
    assert sessions.claim()
    sessions.opened(answer(), refused=False)
    assert not sessions.claim()
    monkeypatch.setattr(forks, "process", forks.process + 1)
    assert sessions.claim()


def test_the_floor_passes_what_was_done_out_of_order() -> None:
    session = Session(answer(window=8), now=Clock())
    writes = [session.begin() for _ in range(4)]
    for done in (2, 1, 0):
        write = writes[done]
        assert write is not None
        write.done()
    last = session.begin()
    assert last is not None
    assert last.request_id == "kvs1/ab/5/4"
