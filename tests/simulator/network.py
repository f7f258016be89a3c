"""The network between members: late, lossy, doubling, cut, clogged, as the plan and trouble say."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence

from kvstore.errors import CorruptionError
from kvstore.raft import Message
from kvstore.replica.packets import (
    Packet,
    RangeLoan,
    RangeWish,
    SnapshotPart,
    StateProbe,
    StateReport,
    decode_packet,
    encode_packet,
)
from tests.simulator.agenda import MILLISECOND, SECOND, Agenda
from tests.simulator.plan import Plan
from tests.simulator.trace import Trace, Violation

__all__ = ["Network", "tell"]

CLOGGED_MAX = 2_000
"""Packets kept on one clogged link; more are dropped."""

CLOGGED_LOOK_US = 20 * MILLISECOND

Link = tuple[int, int]


def tell(packet: Packet) -> str:
    """A packet in words."""
    if isinstance(packet, Message):
        words = f"{packet.kind.name} term {packet.term}"
        if packet.entries:
            words += f" entries {packet.entries[0].index}-{packet.entries[-1].index}"
        if packet.log_index:
            words += f" at {packet.log_index}"
        return words + (" reject" if packet.reject else "")
    if isinstance(packet, SnapshotPart):
        return f"snapshot {packet.meta.index} from byte {packet.offset} of {packet.total}"
    if isinstance(packet, StateProbe):
        return f"asks for the state at {packet.index}, rows from {packet.start!r}"
    if isinstance(packet, StateReport):
        return f"tells of the state at {packet.index}: {packet.state}, {packet.rows}"
    if isinstance(packet, RangeWish):
        return f"wants rows of {packet.moment} from {packet.start!r} to {packet.stop!r}"
    if isinstance(packet, RangeLoan):
        what = f"{len(packet.part)} bytes of" if packet.given else "no"
        return f"lends {what} rows of {packet.moment} from {packet.start!r} to {packet.stop!r}"
    return f"has snapshot {packet.index} up to byte {packet.next}"


class Network:
    """Links between members, each direction by itself. ``deliver`` gets what arrives."""

    def __init__(
        self, plan: Plan, agenda: Agenda, trace: Trace, deliver: Callable[[Packet], None]
    ) -> None:
        self._plan = plan
        self._agenda = agenda
        self._trace = trace
        self._deliver = deliver
        self._rng = random.Random(f"{plan.seed}/network")
        self._datagrams = random.Random(f"{plan.seed}/datagrams")
        self._calls = random.Random(f"{plan.seed}/calls")
        self._calm = False
        # How many troubles hold a link cut, or clogged.
        self._cut: dict[Link, int] = defaultdict(int)
        self._clogged: dict[Link, list[Packet]] = {}
        self._last_arrival: dict[Link, int] = defaultdict(int)

    def send(self, packets: Sequence[Packet]) -> None:
        """Take packets on their way."""
        for packet in packets:
            self._send_one(packet)

    def _send_one(self, packet: Packet) -> None:
        plan, rng = self._plan, self._rng
        link = (packet.sender, packet.to)
        if self._cut[link]:
            return
        if link in self._clogged:
            if len(self._clogged[link]) < CLOGGED_MAX:
                self._clogged[link].append(packet)
            return
        if self._calm:
            self._schedule(packet, rng.randint(*plan.delay_us))
            return
        if rng.random() < plan.loss:
            return
        if rng.random() < plan.corruption:
            self._corrupt(packet)
            return
        self._schedule(packet, rng.randint(*plan.delay_us))
        if rng.random() < plan.doubling:
            self._schedule(packet, rng.randint(*plan.delay_us))
        if rng.random() < plan.replay:
            self._schedule(packet, rng.randint(100 * MILLISECOND, 4 * SECOND))

    def _schedule(self, packet: Packet, delay_us: int) -> None:
        link = (packet.sender, packet.to)
        if not self._plan.reordering and delay_us < 100 * MILLISECOND:
            arrival = max(self._agenda.now + delay_us, self._last_arrival[link])
            self._last_arrival[link] = arrival
            delay_us = arrival - self._agenda.now
        self._agenda.after(delay_us, lambda: self._arrive(packet))

    def _arrive(self, packet: Packet) -> None:
        if self._cut[packet.sender, packet.to]:
            return
        if self._plan.over_the_wire:
            data = encode_packet(packet)
            received = decode_packet(data)
            if encode_packet(received) != data:
                raise Violation(f"{packet} became {received} on the wire")
            packet = received
        self._deliver(packet)

    def send_datagram(self, link: Link, datagram: bytes, arrive: Callable[[bytes], None]) -> None:
        """Send what waits behind nothing, on a way of its own: a clogged link lets it pass."""
        plan, rng = self._plan, self._datagrams
        if self._cut[link]:
            return
        if not self._calm:
            if rng.random() < plan.loss:
                return
            if rng.random() < plan.corruption:
                place = rng.randrange(8 * len(datagram))
                flipped = bytearray(datagram)
                flipped[place // 8] ^= 1 << place % 8
                datagram = bytes(flipped)
            if rng.random() < plan.replay:
                delay_us = rng.randint(100 * MILLISECOND, 4 * SECOND)
                self._agenda.after(delay_us, lambda: arrive(datagram))
        self._agenda.after(rng.randint(*plan.delay_us), lambda: arrive(datagram))

    def call(self, link: Link, arrive: Callable[[], None], *, doubles: bool = False) -> None:
        """Send half of a call that one member makes of another: the request, or its answer.

        As gRPC has it: it comes at most once, unless ``doubles``, and a clogged link holds it back.
        """
        plan, rng = self._plan, self._calls
        if self._cut[link]:
            return
        if not self._calm and rng.random() < plan.loss:
            return

        def come() -> None:
            if link in self._clogged:
                self._agenda.after(CLOGGED_LOOK_US, come)
            elif not self._cut[link]:
                arrive()

        late = not self._calm and rng.random() < plan.replay
        delay_us = rng.randint(100 * MILLISECOND, 4 * SECOND) if late else 0
        self._agenda.after(delay_us + rng.randint(*plan.delay_us), come)
        if doubles and not self._calm and rng.random() < plan.doubling:
            self._agenda.after(rng.randint(*plan.delay_us), come)

    def _corrupt(self, packet: Packet) -> None:
        """Flip a bit: the receiver must notice."""
        data = bytearray(encode_packet(packet))
        place = self._rng.randrange(len(data))
        data[place] ^= 1 << self._rng.randrange(8)
        try:
            received = decode_packet(bytes(data))
        except CorruptionError:
            return
        raise Violation(f"a flipped bit in byte {place} of {packet} went unnoticed: {received}")

    def cut(self, links: Sequence[Link]) -> None:
        """Lose what is sent over ``links``, and what is on its way there."""
        for link in links:
            self._cut[link] += 1

    def mend(self, links: Sequence[Link]) -> None:
        """Undo one :meth:`cut`."""
        for link in links:
            self._cut[link] = max(0, self._cut[link] - 1)

    def clog(self, link: Link) -> None:
        """Hold back what is sent over ``link``."""
        self._clogged.setdefault(link, [])

    def free(self, link: Link) -> None:
        """Let through what was held back, all at once."""
        for packet in self._clogged.pop(link, []):
            self._schedule(packet, self._rng.randint(*self._plan.delay_us))

    def calm(self) -> None:
        """Nothing is lost, doubled or held back from now on."""
        self._calm = True
        self._cut.clear()
        for link in sorted(self._clogged):
            self.free(link)
