"""The pulse thread over real sockets of this machine."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
import structlog

from kvstore.server.peers.pulse_thread import BATCH_MAX, FLOOD_PAUSE_S, PulseThread
from kvstore.server.peers.pulses import Pulses

TERM = 3
INTERVAL_S = 0.005
WAIT_S = 10.0


def free_address(host: str = "127.0.0.1") -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.bind((host.strip("[]"), 0))
        return f"{host}:{one.getsockname()[1]}"


class Member:
    def __init__(self, member: int, address: str) -> None:
        self.pulses = Pulses(member)
        self.thread = PulseThread(self.pulses, INTERVAL_S)
        self.address = address
        self.felt: set[int] = set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.thread.look_up()
                self.felt |= self.pulses.take().keys()
                await asyncio.sleep(INTERVAL_S)


def acquaint(*members: Member) -> None:
    for one in members:
        others = [other for other in members if other is not one]
        one.thread.follow({other.pulses.member: other.address for other in others})
        one.pulses.stand(TERM, 1)
        for other in others:
            one.pulses.learn(other.pulses.member, other.pulses.key_for(one.pulses.member), 0)


def run(story: Callable[[Member, Member], Coroutine[Any, Any, None]], host: str) -> None:
    async def play() -> None:
        one, two = Member(1, free_address(host)), Member(2, free_address(host))
        try:
            for member in (one, two):
                member.thread.start(member.address)
            acquaint(one, two)
            await story(one, two)
        finally:
            one.thread.close()
            two.thread.close()
        assert not one.thread.listening

    asyncio.run(play())


def has(family: int, host: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.bind((host, 0))
            return True
    except OSError:
        return False


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_leader_and_follower_feel_each_other(host: str) -> None:
    if host == "[::1]" and not has(socket.AF_INET6, "::1"):
        pytest.skip("no IPv6 here")

    async def story(one: Member, two: Member) -> None:
        await one.until(lambda: one.felt == {2})
        await two.until(lambda: two.felt == {1})

    run(story, host)


def test_one_that_listens_to_everything_is_reached_at_any_address() -> None:
    async def story(one: Member, two: Member) -> None:
        two.thread.close()
        port = two.address.rpartition(":")[2]
        again = Member(2, f"127.0.0.1:{port}")
        again.thread.start(f"0.0.0.0:{port}")
        acquaint(one, again)
        try:
            await one.until(lambda: one.felt == {2})
            await again.until(lambda: again.felt == {1})
        finally:
            again.thread.close()

    run(story, "127.0.0.1")


def test_one_that_was_started_anew_at_another_place_is_found() -> None:
    async def story(one: Member, two: Member) -> None:
        await one.until(lambda: one.felt == {2})
        two.thread.close()
        again = Member(2, free_address())
        again.thread.start(again.address)
        acquaint(one, again)
        one.pulses.take()
        one.felt.clear()
        await one.until(lambda: one.felt == {2})
        again.thread.close()

    run(story, "127.0.0.1")


def test_one_whose_name_led_to_its_former_place_is_found_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It came back elsewhere, and the resolver hadn't heard of that when its key was told."""
    monkeypatch.setattr("kvstore.server.peers.pulse_thread.BELIEVED_S", 0.05)

    real = socket.getaddrinfo
    late = 3

    def resolve(host: str, port: int, *args: Any, **words: Any) -> Any:
        nonlocal late
        if threading.current_thread().name != "pulse-resolver":
            return real(host, port, *args, **words)
        late -= 1
        return real(host, port if late < 0 else 9, *args, **words)

    async def story(one: Member, two: Member) -> None:
        monkeypatch.setattr("socket.getaddrinfo", resolve)
        one.thread.follow({2: two.address})
        await one.until(lambda: one.felt == {2})

    run(story, "127.0.0.1")


def test_a_busy_event_loop_holds_up_nothing() -> None:
    async def story(one: Member, two: Member) -> None:
        await one.until(lambda: one.felt == {2})
        heard = two.pulses.heard
        one.pulses.take()
        while two.pulses.heard < heard + 3 or not one.pulses.take():
            pass  # this thread's loop gets no turn

    run(story, "127.0.0.1")


def test_an_address_that_cannot_be_had_is_said_and_is_no_failure() -> None:
    async def play() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            member = Member(1, f"127.0.0.1:{taken.getsockname()[1]}")
            with structlog.testing.capture_logs() as logs:
                member.thread.start(member.address)
            member.thread.follow({2: "127.0.0.1:1"})
            member.pulses.learn(2, bytes(32), 0)
            member.thread.look_up()
            assert not member.thread.figures().listening
            assert [line["event"] for line in logs] == ["no pulses"]
            assert logs[0]["reason"] == "Address already in use"
            member.thread.close()

    asyncio.run(play())


def test_a_name_that_leads_nowhere_keeps_nobody_else_from_being_found() -> None:
    async def story(one: Member, two: Member) -> None:
        one.thread.follow({9: "nowhere.invalid:1", 2: two.address})
        one.pulses.learn(9, bytes(32), 0)
        await one.until(lambda: one.felt == {2})

    run(story, "127.0.0.1")


def test_a_resolver_that_hangs_holds_up_nothing_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> Any:
        asked.set()
        answer.wait(WAIT_S)
        raise socket.gaierror("no answer")

    async def play() -> None:
        member = Member(1, free_address())
        member.thread.start(member.address)
        member.thread.follow({2: "elsewhere.invalid:1"})
        member.pulses.learn(2, bytes(32), 0)
        monkeypatch.setattr("socket.getaddrinfo", hang)
        await member.until(asked.is_set)
        member.thread.close()

    asyncio.run(play())
    resolving = [one for one in threading.enumerate() if one.name == "pulse-resolver"]
    answer.set()
    assert resolving, "it was waited for"
    for one in resolving:
        one.join(WAIT_S)
        assert not one.is_alive(), "an answer for a loop that has ended is dropped"


def test_without_threads_a_member_is_looked_up_later(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    refused = 0

    def refuse_once(thread: threading.Thread) -> None:
        nonlocal refused
        if thread.name == "pulse-resolver" and not refused:
            refused += 1
            raise RuntimeError("can't start new thread")
        start(thread)

    async def story(one: Member, two: Member) -> None:
        await one.until(lambda: one.felt == {2})
        assert refused

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    run(story, "127.0.0.1")


def test_strangers_are_counted_not_answered_and_a_flood_leaves_the_pulse_going() -> None:
    async def story(one: Member, two: Member) -> None:
        await one.until(lambda: one.felt == {2})
        host, _, port = one.address.rpartition(":")
        with socket.socket(type=socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.1", 0))
            stranger.setblocking(False)
            for size in (0, 1, 55, 56, 57, 1400):
                stranger.sendto(bytes(size), (host, int(port)))
            await one.until(lambda: one.pulses.dropped == 6)
            for _ in range(20 * BATCH_MAX):
                stranger.sendto(bytes(56), (host, int(port)))
            one.felt.clear()
            sent = one.pulses.sent
            await one.until(lambda: one.pulses.sent >= sent + 3)
            await one.until(lambda: one.felt == {2})
            with pytest.raises(BlockingIOError):
                stranger.recv(100)

    run(story, "127.0.0.1")


def test_a_flood_costs_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that always has something: how much is read before the thread rests?"""

    class Flooded:
        def __init__(self) -> None:
            self.read = 0

        def recvfrom(self, size: int) -> tuple[bytes, object]:
            self.read += 1
            return bytes(size), None

    pauses: list[float] = []
    monkeypatch.setattr("kvstore.server.peers.pulse_thread.time.sleep", pauses.append)
    flooded = Flooded()
    PulseThread(Pulses(1), INTERVAL_S)._hear(flooded)  # type: ignore[arg-type]
    assert flooded.read == BATCH_MAX
    assert pauses == [FLOOD_PAUSE_S]


def test_a_thread_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> Sequence[Any]:
        member = Member(1, free_address())

        def fail() -> list[tuple[int, bytes]]:
            raise ValueError("planted")

        monkeypatch.setattr(member.pulses, "beat", fail)
        with structlog.testing.capture_logs() as logs:
            member.thread.start(member.address)
            await member.until(lambda: not member.thread.listening)
        member.thread.close()
        return logs

    (line,) = asyncio.run(play())
    assert line["event"] == "no pulses any more"
    assert line["log_level"] == "error"
