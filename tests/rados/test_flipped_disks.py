"""A byte of a value flips on an OSD's disk: others have it, scrubs find it, no wrong value comes.

BlueStore has a checksum for each 4 KiB of an object's data and RocksDB one for each of its blocks,
where pairs are. The values of these tests are random, so that a disk has them once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kvstore.beyond.rados.layout import (
    Apart,
    bucket_name,
    bucket_of,
    decode_entry,
    value_name,
)
from kvstore.errors import Error
from kvstore.service import Get, Put
from tests.rados.bluestore import flip
from tests.rados.conftest import address_in
from tests.rados.foreign import foreign
from tests.rados.gateway import Gateway, gateway
from tools.rados_cluster import POOL, RadosCluster, rados_cluster

NAMESPACE = "flipped-disks"
LARGE = 100_000
SMALL = 1_000
PATIENCE_S = 60.0


@dataclass
class Placed:
    """A key, its value, and the OSDs of what has it, the primary first."""

    key: bytes
    value: bytes
    group: str
    osds: list[int]


@dataclass
class Disks:
    """Values that have been flipped: on the primary's disk, on a replica's, on all three."""

    cluster: RadosCluster
    opened: Gateway
    at_primary: Placed
    at_replica: Placed
    everywhere: Placed


def _placed(cluster: RadosCluster, opened: Gateway, key: bytes, size: int) -> Placed:
    value = random.Random(key).randbytes(size)
    assert opened.call(Put(key, value, key)) is False
    salt = opened.opened.marker.salt
    bucket = bucket_of(key, salt)
    name = bucket_name(bucket)
    with foreign(cluster, NAMESPACE) as hands:
        entry = decode_entry(key, hands.entry(key, salt))
    if isinstance(entry, Apart):
        name = value_name(bucket, entry.name)
    said = cluster.ask("osd", "map", POOL, name.decode(), NAMESPACE)
    others = [number for number in said["acting"] if number != said["acting_primary"]]
    return Placed(key, value, said["pgid"], [said["acting_primary"], *others])


@pytest.fixture(scope="module")
def disks(cluster: RadosCluster) -> Iterator[Disks]:
    with gateway(address_in(cluster, NAMESPACE)) as opened:
        one, two, three = (
            _placed(cluster, opened, name, LARGE) for name in (b"one", b"two", b"three")
        )
        for number in range(cluster.osds):
            cluster.kill(f"osd.{number}")
        flip(cluster.store(one.osds[0]), one.value)
        flip(cluster.store(two.osds[-1]), two.value)
        for number in three.osds:
            flip(cluster.store(number), three.value)
        cluster.mend()
        yield Disks(cluster, opened, one, two, three)


def get_until_answered(opened: Gateway, key: bytes) -> object:
    """As a client does."""
    until = time.monotonic() + PATIENCE_S
    result = opened.call(Get(key), timeout=5.0)
    while isinstance(result, Error) and time.monotonic() < until:
        result = opened.call(Get(key), timeout=5.0)
    return result


def test_a_flipped_byte_at_the_primary_is_not_read(disks: Disks) -> None:
    placed = disks.at_primary
    assert get_until_answered(disks.opened, placed.key) == placed.value
    assert "_verify_csum bad" in disks.cluster.log(f"osd.{placed.osds[0]}")


def test_a_deep_scrub_finds_a_flipped_byte_that_nobody_reads(disks: Disks) -> None:
    cluster, placed = disks.cluster, disks.at_replica
    assert get_until_answered(disks.opened, placed.key) == placed.value
    found = cluster.deep_scrub(placed.group)
    (shard,) = [shard for one in found for shard in one["shards"] if shard["errors"]]
    assert (shard["osd"], shard["errors"]) == (placed.osds[-1], ["read_error"])
    assert get_until_answered(disks.opened, placed.key) == placed.value


def test_what_no_disk_has_any_more_is_an_error_until_it_is_written_anew(disks: Disks) -> None:
    placed = disks.everywhere
    for _ in range(3):
        result = disks.opened.call(Get(placed.key), timeout=3.0)
        assert isinstance(result, Error)
    assert disks.opened.call(Put(placed.key, b"new", b"again"), timeout=30.0) is True
    assert get_until_answered(disks.opened, placed.key) == b"new"


def test_an_osd_whose_pairs_are_damaged_ends_and_the_others_answer() -> None:
    """On a cluster of its own: the OSD can't be repaired, an operator has a new one made."""
    with rados_cluster() as cluster, gateway(address_in(cluster, NAMESPACE)) as opened:
        placed = _placed(cluster, opened, b"small", SMALL)
        number = placed.osds[0]
        # A start takes it out of RocksDB's log, whose damaged end is taken for what a crash left.
        cluster.kill(f"osd.{number}")
        cluster.mend()
        cluster.kill(f"osd.{number}")
        flip(cluster.store(number), placed.value)
        cluster.start_osd(number)
        assert get_until_answered(opened, placed.key) == placed.value
        # It ends when it opens its database, or when it reads the pair.
        until = time.monotonic() + PATIENCE_S
        while cluster.is_running(f"osd.{number}"):
            assert time.monotonic() < until, "it goes on"
            assert opened.call(Get(placed.key), timeout=30.0) == placed.value
        assert "orruption" in cluster.log(f"osd.{number}") or (
            "block checksum mismatch" in cluster.log(f"osd.{number}")
        )
        assert get_until_answered(opened, placed.key) == placed.value
