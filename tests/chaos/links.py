"""A user-space proxy before each member's peer address: links that stall, lag, or get narrow."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

CHUNK_BYTES = 64 << 10
CHUNKS_MAX = 64
"""Under way on one direction of one connection; the sender then waits, as for a full window."""


@dataclass
class Rule:
    """What happens to bytes of one direction between two members."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    delay_s: float = 0.0
    bytes_per_s: float = 0.0

    def __post_init__(self) -> None:
        self.open.set()


class Links:
    """Proxies on loopback, in a thread of their own. ``fronts`` is where members dial each other.

    ``sender_of`` says which member has a local port, so that each link has a rule of its own.
    Stalled bytes stay in order and arrive once the link is open again, as with TCP over a network
    that was cut.
    """

    def __init__(self, backs: dict[int, str], sender_of: Callable[[int], int | None]) -> None:
        self.fronts: dict[int, str] = {}
        self.backs = backs
        self._sender_of = sender_of
        self._rules: dict[tuple[int, int], Rule] = {}
        self._successors: dict[int, int] = {}
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._call(self._listen())
        except BaseException:
            self.close()
            raise

    def _call(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        for member in self.backs:
            server = await asyncio.start_server(
                lambda reader, writer, to=member: self._accept(to, reader, writer), "127.0.0.1", 0
            )
            port = server.sockets[0].getsockname()[1]
            self.fronts[member] = f"127.0.0.1:{port}"

    async def _accept(
        self, to: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        to = self._successors.get(to, to)
        port = writer.get_extra_info("peername")[1]
        sender = await self._loop.run_in_executor(None, self._sender_of, port)
        if sender is None:
            writer.close()
            return
        host, _, back_port = self.backs[to].rpartition(":")
        try:
            back_reader, back_writer = await asyncio.open_connection(host, int(back_port))
        except OSError:
            writer.close()
            return
        for source, sink, rule in (
            (reader, back_writer, self._rule(sender, to)),
            (back_reader, writer, self._rule(to, sender)),
        ):
            task = self._loop.create_task(self._pump(source, sink, rule))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _rule(self, sender: int, to: int) -> Rule:
        return self._rules.setdefault((sender, to), Rule())

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, rule: Rule
    ) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_MAX)

        async def deliver() -> None:
            while True:
                due, data = await queue.get()
                if not data:
                    return
                await asyncio.sleep(due - time.monotonic())
                await rule.open.wait()
                sink.write(data)
                await sink.drain()
                if rule.bytes_per_s:
                    await asyncio.sleep(len(data) / rule.bytes_per_s)

        delivery = self._loop.create_task(deliver())
        try:
            with contextlib.suppress(OSError):
                while data := await source.read(CHUNK_BYTES):
                    await queue.put((time.monotonic() + rule.delay_s, data))
                await queue.put((0.0, b""))
                await delivery
        finally:
            delivery.cancel()
            sink.close()

    def succeed(self, old: int, new: int) -> None:
        """Another member is at the address of ``old`` from now on."""
        first = next((a for a, b in self._successors.items() if b == old), old)
        self._successors[first] = new
        self.fronts[new] = self.fronts.pop(old)
        self.backs[new] = self.backs.pop(old)

    # --- for other threads -----------------------------------------------------------------------

    def stall(self, links: Iterable[tuple[int, int]]) -> None:
        """Let nothing through from each first to each second member."""
        for sender, to in links:
            self._loop.call_soon_threadsafe(lambda rule: rule.open.clear(), self._rule(sender, to))

    def slow(self, links: Iterable[tuple[int, int]], delay_s: float, bytes_per_s: float) -> None:
        """Delay what is sent, and let only so much through (0: as much as comes)."""
        for link in links:
            rule = self._rule(*link)
            rule.delay_s, rule.bytes_per_s = delay_s, bytes_per_s

    def heal(self) -> None:
        """All links as at first."""
        for rule in list(self._rules.values()):
            rule.delay_s = rule.bytes_per_s = 0.0
            self._loop.call_soon_threadsafe(rule.open.set)

    def close(self) -> None:
        async def end() -> None:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def between(first: Iterable[int], second: Iterable[int]) -> list[tuple[int, int]]:
    """Both directions of every link between two groups."""
    second = list(second)
    return [link for a in first for b in second for link in ((a, b), (b, a))]
