from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from kvstore.server.peers.pulse_datagram import (
    DATAGRAM_BYTES,
    KEY_BYTES,
    Kind,
    Pulse,
    decode,
    encode,
    is_authentic,
)
from kvstore.server.peers.pulses import Pulses

KEY = bytes(range(KEY_BYTES))
U64 = st.integers(0, (1 << 64) - 1)


@given(st.sampled_from(Kind), U64, U64, U64, U64, st.binary(min_size=32, max_size=32))
def test_a_datagram_says_what_was_said_and_only_to_who_has_the_key(
    kind: Kind, sender: int, receiver: int, term: int, sequence: int, other: bytes
) -> None:
    pulse = Pulse(kind, sender, receiver, term, sequence)
    datagram = encode(pulse, KEY)
    assert len(datagram) == DATAGRAM_BYTES == 56
    assert decode(datagram) == pulse
    assert is_authentic(datagram, KEY)
    assert is_authentic(datagram, other) == (other == KEY)


def test_no_flipped_bit_goes_unnoticed() -> None:
    datagram = encode(Pulse(Kind.PULSE, 1, 2, 3, 4), KEY)
    for bit in range(len(datagram) * 8):
        bad = bytearray(datagram)
        bad[bit // 8] ^= 1 << bit % 8
        assert decode(bytes(bad)) is None or not is_authentic(bytes(bad), KEY)


@given(st.binary(max_size=2 * DATAGRAM_BYTES))
def test_bytes_of_a_stranger_are_dropped_in_silence(datagram: bytes) -> None:
    pulses = Pulses(2)
    pulses.follow([1])
    pulses.learn(1, KEY, 0)
    pulses.stand(3, 1)
    assert pulses.receive(datagram) is None
    assert not pulses.take()
    assert (pulses.dropped, pulses.heard) == (1, 0)


def test_mutated_datagrams_are_dropped_in_silence() -> None:
    chance = random.Random(7)
    pulses = Pulses(2)
    pulses.follow([1])
    pulses.learn(1, KEY, 0)
    pulses.stand(3, 1)
    good = encode(Pulse(Kind.PULSE, 1, 2, 3, 1), KEY)
    for _ in range(3000):
        bad = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            bad[chance.randrange(len(bad))] ^= chance.randint(1, 255)
        if chance.random() < 0.2:
            del bad[chance.randrange(len(bad)) :]
        if bytes(bad) != good:
            assert pulses.receive(bytes(bad)) is None
    assert not pulses.take()
    assert pulses.receive(good) is not None
    assert pulses.take() == {1: 3}
