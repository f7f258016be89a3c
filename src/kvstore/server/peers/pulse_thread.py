"""The thread that sends and answers pulses, and its sockets.

It shares nothing with the event loop but :class:`Pulses`, so that a loop that is busy is still
known to live. A process that stands still sends and answers nothing. (So does one that is in a call
which keeps the GIL; none of ours does for long.)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from kvstore.addresses import HostPort
from kvstore.server.peers.pulse_datagram import DATAGRAM_BYTES
from kvstore.server.peers.pulses import Pulses

__all__ = ["PulseFigures", "PulseThread"]

# A flood takes no more than this of the process: what comes beyond it is dropped by the kernel.
BATCH_MAX = 64
FLOOD_PAUSE_S = 0.01

# Between two tries to find out where a member is reached; and how long what was found is believed:
# a resolver may have said where it was before.
RESOLVE_PAUSE_S = 1.0
BELIEVED_S = 30.0

Address = tuple[str | int | bytes, ...]
# An address family, and an address of it.
Place = tuple[int, Address]

log = structlog.get_logger("kvstore.peer")


@dataclass(frozen=True, slots=True)
class PulseFigures:
    """One moment: whether pulses are sent and answered at all, and counts since the start."""

    listening: bool
    sent: int
    heard: int
    dropped: int


class PulseThread:
    """Sends and answers ``pulses`` every ``interval_s``, once it is started.

    Used on the event loop's thread; :meth:`_run` and what it calls are the pulse thread's. The
    routes are replaced as a whole, never changed in place.
    """

    def __init__(self, pulses: Pulses, interval_s: float) -> None:
        self._pulses = pulses
        self._interval_s = interval_s
        self._sockets: dict[int, socket.socket] = {}
        self._addresses: Mapping[int, str] = {}
        self._routes: Mapping[int, tuple[socket.socket, Address]] = {}
        # With which key of a member it was looked up, and when it is to be done again.
        self._looked_up: dict[int, tuple[bytes, float]] = {}
        self._resolving = False
        self._thread: threading.Thread | None = None
        self._waker = -1
        self._stopping = False

    @property
    def listening(self) -> bool:
        """Whether pulses are sent and answered."""
        return self._thread is not None and self._thread.is_alive()

    def figures(self) -> PulseFigures:
        """This moment."""
        pulses = self._pulses
        return PulseFigures(self.listening, pulses.sent, pulses.heard, pulses.dropped)

    def start(self, address: str) -> None:
        """Listen at the peer listener's ``host:port``, over UDP. Where that can't be had, go on
        without: then a loop that is busy for too long costs a leader its office, nothing else."""
        try:
            self._sockets = _listen(address)
        except OSError as error:
            reason = error.strerror or str(error)
            log.warning("no pulses", address=address, protocol="udp", reason=reason)
            return
        self._waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run_guarded, name="pulse", daemon=True)
        self._thread.start()

    def follow(self, addresses: Mapping[int, str]) -> None:
        """These are the other members, and where their peer listeners are."""
        self._routes = {
            member: route
            for member, route in self._routes.items()
            if addresses.get(member) == self._addresses.get(member)
        }
        self._looked_up = {m: known for m, known in self._looked_up.items() if m in self._routes}
        self._addresses = dict(addresses)
        self._pulses.follow(addresses)

    def look_up(self) -> None:
        """Find out where members are that came, or came again, one at a time. To be called often.

        A member that told another key was started anew: perhaps somewhere else.
        """
        if not self._sockets or self._resolving:
            return
        loop = asyncio.get_running_loop()
        for member, address in self._addresses.items():
            key = self._pulses.key_of(member)
            with_key, again_at = self._looked_up.get(member, (None, 0.0))
            if key is not None and (key != with_key or again_at <= loop.time()):
                self._resolving = _resolve_aside(
                    loop, address, partial(self._resolved, member, address, key)
                )
                return

    def _resolved(self, member: int, address: str, key: bytes, places: Sequence[Place]) -> None:
        self._resolving = False
        if self._stopping or self._addresses.get(member) != address:
            return
        found = next((place for place in places if place[0] in self._sockets), None)
        if found is not None:
            family, where = found
            self._routes = {**self._routes, member: (self._sockets[family], where)}
        pause_s = RESOLVE_PAUSE_S if found is None else BELIEVED_S
        self._looked_up[member] = key, asyncio.get_running_loop().time() + pause_s

    def close(self) -> None:
        """Send and answer nothing any more."""
        self._stopping = True
        if self._thread is not None:
            os.eventfd_write(self._waker, 1)
            self._thread.join()
            os.close(self._waker)
            self._thread = None
        for one in self._sockets.values():
            one.close()
        self._sockets = {}

    # --- the pulse thread ------------------------------------------------------------------------

    def _run_guarded(self) -> None:
        try:
            self._run()
        except Exception:
            log.exception("no pulses any more")

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._waker, selectors.EVENT_READ)
            for one in self._sockets.values():
                selector.register(one, selectors.EVENT_READ)
            due = time.monotonic()
            while not self._stopping:
                ready = selector.select(max(0.0, due - time.monotonic()))
                for chosen, _ in ready:
                    if isinstance(chosen.fileobj, socket.socket):
                        self._hear(chosen.fileobj)
                now = time.monotonic()
                if now >= due:
                    due = now + self._interval_s
                    for peer, datagram in self._pulses.beat():
                        self._send(peer, datagram)

    def _hear(self, one: socket.socket) -> None:
        for _ in range(BATCH_MAX):
            try:
                datagram, place = one.recvfrom(DATAGRAM_BYTES + 1)
            except BlockingIOError:
                return
            except OSError as error:
                log.debug("a pulse can't be received", reason=str(error))
                break
            answer = self._pulses.receive(datagram)
            if answer is not None:
                with contextlib.suppress(OSError):  # lost, like any datagram
                    one.sendto(answer, place)
        time.sleep(FLOOD_PAUSE_S)

    def _send(self, peer: int, datagram: bytes) -> None:
        route = self._routes.get(peer)
        if route is not None:
            one, place = route
            with contextlib.suppress(OSError):  # lost, like any datagram
                one.sendto(datagram, place)


def _resolve_aside(
    loop: asyncio.AbstractEventLoop, address: str, done: Callable[[Sequence[Place]], None]
) -> bool:
    """Find out where ``address`` is; ``done`` gets it on the loop, nothing where there is nothing.
    False, and nothing happens, where the system has no more threads.

    On a daemon thread, not the loop's own pool: a resolver can hang for half a minute, and nothing
    that ends is to wait for it.
    """
    dialled = HostPort.parse(address)
    assert dialled is not None, "member lists are checked"

    def resolve() -> None:
        places: Sequence[Place] = ()
        try:
            found = socket.getaddrinfo(dialled.host, dialled.port, type=socket.SOCK_DGRAM)
            places = [(family, place) for family, _, _, _, place in found]
        except (OSError, ValueError) as error:  # ValueError: a name that no resolver takes
            log.debug("a member isn't found for pulses", address=address, reason=str(error))
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(done, places)

    try:
        threading.Thread(target=resolve, name="pulse-resolver", daemon=True).start()
    except RuntimeError:
        return False
    return True


def _listen(address: str) -> dict[int, socket.socket]:
    """Sockets by address family. Raises OSError unless the most important one is among them."""
    sockets: dict[int, socket.socket] = {}
    try:
        for family, place in _places(address):
            if family in sockets:
                continue
            try:
                sockets[family] = _bound(family, place)
            except OSError:
                if not sockets:
                    raise
    except OSError:
        for one in sockets.values():
            one.close()
        raise
    return sockets


def _places(address: str) -> list[Place]:
    """Where to listen for ``address``, the most important first.

    gRPC listens to both families where it is given the wildcard of either.
    """
    asked = HostPort.parse(address)
    assert asked is not None, "the peer listener is bound to it"
    if asked.is_wildcard:
        places: list[Place] = [
            (socket.AF_INET, ("0.0.0.0", asked.port)),
            (socket.AF_INET6, ("::", asked.port)),
        ]
        return places if asked.host == "0.0.0.0" else places[::-1]
    found = socket.getaddrinfo(
        asked.host, asked.port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
    )
    return [(family, place) for family, _, _, _, place in found]


def _bound(family: int, place: Address) -> socket.socket:
    one = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.setblocking(False)
        one.bind(place)
    except OSError:
        one.close()
        raise
    return one
