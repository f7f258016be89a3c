"""Keys, values and orders of one run, made in advance from seeds."""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left
from hashlib import blake2b
from itertools import accumulate

__all__ = ["SHAPES", "Data"]

SHAPES = {
    "decimal": "dense decimal keys of 16 bytes",
    "random": "random keys of 16 bytes",
    "paths": "keys of 110 to 130 bytes that share prefixes",
}
_DISTINCT_VALUES = 4096
_DISTINCT_BYTES = 64 << 20
ZIPF_EXPONENT = 0.99


def _key(shape: str, number: int, dice: random.Random) -> bytes:
    if shape == "decimal":
        return b"%016d" % (2 * number)
    if shape == "random":
        return dice.randbytes(16)
    tenant = dice.randrange(200)
    project = dice.randrange(50)
    head = b"/organisations/%012d/workspaces/%08d/collections/documents/by-owner/%08d/" % (
        tenant,
        tenant * 50 + project,
        dice.randrange(100),
    )
    return head + dice.randbytes(21).hex().encode()[: dice.randrange(110, 131) - len(head)]


def _hash(places: str, rank: int) -> int:
    return int.from_bytes(blake2b(b"%s %d" % (places.encode(), rank), digest_size=8).digest())


class Data:
    """A set of keys in one shape, with values of one size.

    Dense decimal keys are the best case of an engine that compares eight bytes at once; the other
    shapes are what tenants, paths and hashes look like. Every key is a bytes object of its own.
    """

    def __init__(self, shape: str, count: int, value_bytes: int) -> None:
        dice = random.Random(42)
        self.shape, self.count, self.value_bytes = shape, count, value_bytes
        distinct = min(_DISTINCT_VALUES, max(16, _DISTINCT_BYTES // value_bytes))
        self.values = [dice.randbytes(value_bytes) for _ in range(distinct)]
        made = dict.fromkeys(_key(shape, number, dice) for number in range(count))
        while len(made) < count:
            made[_key(shape, len(made), dice)] = None
        self.ordered = sorted(made)
        # Counted here: adding up a million lengths in a turn's clock takes longer than opening.
        self.size = sum(map(len, self.ordered)) + count * value_bytes
        """Bytes of keys and values."""
        self.shuffled = self.ordered[:]
        dice.shuffle(self.shuffled)
        # Here, and not in each of the processes that are forked from this one.
        self._weights = array("d", accumulate((1 + n) ** -ZIPF_EXPONENT for n in range(count)))

    def touch(self) -> None:
        """Have a forked process copy the pages now that counting references would copy later."""
        for each in (self.ordered, self.shuffled, self.values):
            for _ in each:
                pass

    def uniform(self, seed: str, count: int) -> list[bytes]:
        """Keys that are there; another seed draws others."""
        return random.Random(seed).choices(self.ordered, k=count)

    def missing(self, seed: str, count: int) -> list[bytes]:
        """Keys between those that are there."""
        return [key[:-1] + bytes((key[-1] ^ 1,)) for key in self.uniform(seed, count)]

    def ranks(self, seed: str, count: int) -> list[int]:
        """Zipf-distributed ranks, from 0 on (YCSB, SoCC'10 §4.3), by inverting the distribution."""
        dice, weights = random.Random(seed), self._weights
        return [bisect_left(weights, dice.random() * weights[-1]) for _ in range(count)]

    def popular(self, seed: str, places: str, count: int) -> list[bytes]:
        """Scrambled Zipf: ``places`` says which keys are popular, ``seed`` when they are asked.

        A hash of the rank says which key it is, as in YCSB: shuffling ten million takes seconds.
        """
        ranks = self.ranks(seed, count)
        found = {rank: self.ordered[_hash(places, rank) % self.count] for rank in set(ranks)}
        return [found[rank] for rank in ranks]

    def added(self, seed: str, count: int) -> list[bytes]:
        """Keys that aren't there yet; decimal ones come behind those that are."""
        dice = random.Random(f"added {seed}")
        return [_key(self.shape, self.count + number, dice) for number in range(count)]
