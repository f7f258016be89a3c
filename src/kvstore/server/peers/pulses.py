"""What pulses say, and to whom they are believed: no socket, thread or clock of its own.

A leader's process pulses "I lead term T"; a follower's process that knows so answers. The event
loop says in which term the member is and whom it follows, and takes what was noted; a thread that
isn't held up by the loop's work (``pulse_thread``) says and hears the rest.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Iterable, Mapping

from kvstore.server.peers.pulse_datagram import (
    KEY_BYTES,
    Kind,
    Pulse,
    decode,
    encode,
    is_authentic,
)

__all__ = ["Pulses"]

# Keys of those that introduced themselves and are no members (yet): the newest.
PASSING_MAX = 64

_DOMAIN = b"kvstore pulse 1\0"


class Pulses:
    """The pulses of one member's process.

    The event loop's thread calls the first part, the pulse thread the second. What the one gives
    the other is replaced as a whole, never changed in place; what was noted goes under a lock,
    which is held for a moment.

    Each process draws a secret, and tells each other member a key of its own made of it. So none
    can speak for another one, and what a former process said can't be said again.
    """

    def __init__(self, member: int) -> None:
        self.member = member
        self.sent = 0
        """Datagrams made."""
        self.heard = 0
        """Datagrams that were authentic, and new."""
        self.dropped = 0
        """Datagrams of strangers, or said before."""
        self._secret = secrets.token_bytes(KEY_BYTES)
        self._duty = (0, 0)
        self._own_keys: Mapping[int, bytes] = {}
        # Of each peer the key that it told, and the sequence that it had reached by then.
        self._told: Mapping[int, tuple[bytes, int]] = {}
        self._lock = threading.Lock()
        self._noted: dict[int, int] = {}
        # The pulse thread's own.
        self._sequence = 0
        self._newest: dict[int, tuple[bytes, int]] = {}

    # --- the event loop's side -------------------------------------------------------------------

    def key_for(self, peer: int) -> bytes:
        """What datagrams from here to ``peer`` are authenticated with; to be told to it alone."""
        return hmac.digest(self._secret, _DOMAIN + peer.to_bytes(8, "little"), "sha256")

    @property
    def sequence(self) -> int:
        """That of the last datagram made; to be told with the key."""
        return self._sequence

    def learn(self, peer: int, key: bytes, sequence: int) -> None:
        """A peer that was let in told its key, and the ``sequence`` that it has reached.

        What it said up to there it said to a former process of this member, perhaps. A key of
        another size is none.
        """
        if len(key) != KEY_BYTES:
            return
        told = {**self._told, peer: (key, sequence)}
        passing = [other for other in told if other not in self._own_keys and other != peer]
        for other in passing[: max(0, len(passing) + 1 - PASSING_MAX)]:
            del told[other]
        self._told = told

    def key_of(self, peer: int) -> bytes | None:
        """What ``peer`` told last."""
        told = self._told.get(peer)
        return None if told is None else told[0]

    def follow(self, members: Iterable[int]) -> None:
        """These are the other members: nobody else is heard or told anything."""
        self._own_keys = {member: self.key_for(member) for member in members}

    def stand(self, term: int, leader: int) -> None:
        """This member is in ``term``, where ``leader`` leads (0: nobody knows)."""
        self._duty = (term, leader)

    def take(self) -> dict[int, int]:
        """The members that gave a sign of life since the last call, and the term of each."""
        with self._lock:
            noted, self._noted = self._noted, {}
        return noted

    # --- the pulse thread's side -----------------------------------------------------------------

    def beat(self) -> list[tuple[int, bytes]]:
        """What to send now, and to whom: a leader's pulses."""
        term, leader = self._duty
        if leader != self.member:
            return []
        return [
            (peer, self._datagram(Kind.PULSE, peer, term, key))
            for peer, key in self._own_keys.items()
        ]

    def receive(self, datagram: bytes) -> bytes | None:
        """Note what it says; the answer to where it came from, no longer than itself, if any."""
        pulse = decode(datagram)
        if pulse is None or not self._is_believed(pulse, datagram):
            self.dropped += 1
            return None
        self.heard += 1
        term, leader = self._duty
        if pulse.term != term:
            return None
        if pulse.kind == Kind.PULSE and pulse.sender == leader:
            self._note(pulse)
            key = self._own_keys.get(pulse.sender)
            return None if key is None else self._datagram(Kind.ANSWER, leader, term, key)
        if pulse.kind == Kind.ANSWER and leader == self.member:
            self._note(pulse)
        return None

    def _is_believed(self, pulse: Pulse, datagram: bytes) -> bool:
        """It comes from a present member, who says it for the first time."""
        sender = pulse.sender
        told = self._told.get(sender)
        if pulse.receiver != self.member or sender not in self._own_keys or told is None:
            return False
        key, reached = told
        if pulse.sequence <= reached or not is_authentic(datagram, key):
            return False
        with_key, newest = self._newest.get(sender, (key, 0))
        if with_key == key and pulse.sequence <= newest:
            return False
        self._newest[sender] = (key, pulse.sequence)
        return True

    def _note(self, pulse: Pulse) -> None:
        with self._lock:
            self._noted[pulse.sender] = pulse.term

    def _datagram(self, kind: Kind, peer: int, term: int, key: bytes) -> bytes:
        self._sequence += 1
        self.sent += 1
        return encode(Pulse(kind, self.member, peer, term, self._sequence), key)
