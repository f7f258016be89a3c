"""History, differences, going back, and live watches that a browser can't follow."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.console.buffers import BUFFERS_MAX, Buffer, Buffers
from kvstore.console.formats import in_link
from kvstore.console.pages.history import CHANGES_MAX, DIFF_LINES, Difference, differences
from kvstore.errors import OverloadedError
from tests.console.process import Browser, Console, Events, wait_for
from tests.integration.process import Kvd


def test_differences_of_texts_are_lines() -> None:
    found, whole = differences(b"one\ntwo\nthree", b"one\n2\nthree")
    assert whole
    assert found[1:] == [
        Difference("", " one"),
        Difference("removed", "-two"),
        Difference("added", "+2"),
        Difference("", " three"),
    ]


def test_differences_of_bytes_are_rows() -> None:
    found, _ = differences(bytes(64), bytes(32) + b"\xff" + bytes(31))
    assert [line.kind for line in found].count("added") == 1
    assert any("ff" in line.text for line in found if line.kind == "added")


def test_only_so_much_is_compared() -> None:
    lines = b"".join(b"%d\n" % number for number in range(3 * DIFF_LINES))
    found, whole = differences(lines, lines[::-1])
    assert not whole
    assert len(found) <= 2 * DIFF_LINES + 1
    assert not differences(b"a" * (1 << 20), b"b" * (1 << 20))[1]


def test_what_became_of_a_key_and_going_back(kvd: Kvd, browser: Browser) -> None:
    with kvd.client() as client:
        for value in (b"<i>one</i>", b"two"):
            client.put(b"h", value)
        client.delete(b"h")
        client.put(b"h", b"three")
        revisions = [event.revision for event in client.history(b"h")]
        answer = browser.get(f"/history?k={in_link(b'h')}")
        assert "<i>one</i>" in answer.words
        assert f"compare with {revisions[0]}" in answer.words
        assert answer.words.count("delete") == 1
        first, second, _, last = revisions
        compared = browser.get(f"/diff?k={in_link(b'h')}&a={first}&b={second}")
        assert "-<i>one</i>" in compared.words
        assert "+two" in compared.words
        back = {"k": in_link(b"h"), "revision": str(first), "seen": str(last)}
        assert browser.post("/key/revert", back).status == 303
        assert client.get(b"h") == b"<i>one</i>"
        assert browser.post("/key/revert", back).status == 409
        missing = browser.get(f"/diff?k={in_link(b'h')}&a=1&b={second}")
        assert missing.status in (400, 404, 409)


def test_of_a_long_history_the_newest_is_shown(kvd: Kvd, browser: Browser) -> None:
    with kvd.client(timeout=60) as client:
        for number in range(CHANGES_MAX + 20):
            client.put(b"often", b"%d" % number)
    answer = browser.get(f"/history?k={in_link(b'often')}")
    assert "20 older ones are remembered as well" in answer.words
    assert answer.text.count("look at") == CHANGES_MAX


def test_a_buffer_drops_the_oldest_and_says_how_many() -> None:
    async def check() -> None:
        buffer = Buffer(most=3)
        for number in range(5):
            buffer.add(str(number))
        assert await buffer.take() == (["2", "3", "4"], 2)
        buffer.add("5")
        assert await buffer.take() == (["5"], 0)
        buffer.fail("over")
        assert await buffer.take() == ([], 0)
        assert buffer.failure == "over"

    asyncio.run(check())


def test_there_are_only_so_many_buffers() -> None:
    import contextlib

    buffers = Buffers()
    with contextlib.ExitStack() as stack:
        for _ in range(BUFFERS_MAX):
            stack.enter_context(buffers.one())
        with pytest.raises(OverloadedError), buffers.one():
            pass
    with buffers.one() as one:
        buffers.end("why")
        assert one.failure == "why"


@pytest.fixture
def events(console: Console) -> Iterator[Events]:
    one = Events(console, f"/watch/stream?p={in_link(b'w/')}")
    yield one
    one.close()


def test_a_watch_sends_changes_as_they_come(kvd: Kvd, events: Events) -> None:
    stream = iter(events)
    assert next(stream) == ("state", "Watching.")
    with kvd.client() as client:
        client.put(b"other", b"")
        client.put(b"w/\n\ndata: x", b"\r\nevent: over\n\n")
        client.delete(b"w/\n\ndata: x")
    (name, put), (_, delete) = next(stream), next(stream)
    assert name == "change"
    assert isinstance(put, dict)
    assert isinstance(delete, dict)
    assert put["key"] == "w/\\n\\ndata: x"
    assert put["value"] == "\\r\\nevent: over\\n\\n"
    assert delete["kind"] == "delete"


def test_a_browser_that_doesnt_read_costs_a_bounded_buffer(kvd: Kvd, console: Console) -> None:
    events = Events(console, f"/watch/stream?p={in_link(b'w/')}", receive_bytes=4096)
    stream = iter(events)
    assert next(stream) == ("state", "Watching.")
    value = bytes(1000)
    with kvd.client(timeout=60) as client:
        for _ in range(8):
            client.put_many((b"w/%04d" % number, value) for number in range(2_000))
        client.put(b"w/last", b"")
    dropped, seen = "", 0
    for name, said in stream:
        if name == "state":
            dropped = str(said)
        elif isinstance(said, dict):
            seen += 1
            if said["key"] == "w/last":
                break
    events.close()
    assert "left out" in dropped
    assert seen < 16_000


def test_places_of_watches_that_were_left_are_free_again(console: Console) -> None:
    path = f"/watch/stream?p={in_link(b'w/')}"
    opened = [Events(console, path) for _ in range(BUFFERS_MAX)]
    try:
        for one in opened:
            assert next(iter(one)) == ("state", "Watching.")
        refused = Events(console, path)
        name, why = next(iter(refused))
        refused.close()
        assert name == "over"
        assert "close one" in str(why)
    finally:
        for one in opened:
            one.close()

    def free() -> bool:
        again = Events(console, path)
        try:
            return next(iter(again))[0] == "state"
        finally:
            again.close()

    wait_for(free)


def test_ending_the_console_ends_its_watches(kvd: Kvd, logs: Path) -> None:
    with Console(logs, f"--addr={kvd.address}") as console:
        events = Events(console, "/watch/stream?p=")
        seen: list[tuple[str, object]] = []
        reader = threading.Thread(target=lambda: seen.extend(events))
        reader.start()
        wait_for(lambda: bool(seen))
        console.process.send_signal(signal.SIGTERM)
        assert console.process.wait(20) == 0
        reader.join(20)
        assert seen[-1] == ("over", "The watch ended: the console was ended")
        assert console.stderr == ""
        events.close()
