"""What somebody alters in the pool itself is DATA_LOSS at a gateway, and never another value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from kvstore.api.metadata_keys import INTEGRITY_CODE_KEY
from kvstore.api.v1 import kv_pb2, kv_pb2_grpc
from kvstore.beyond.rados.layout import (
    HEAD_KEY,
    Apart,
    bucket_name,
    bucket_of,
    decode_entry,
    value_name,
)
from kvstore.beyond.rados.opening import open_pool
from tests.integration.process import Kvd
from tests.integration.test_contract import get, put
from tests.rados.conftest import address_in, write_config
from tests.rados.foreign import Foreign, foreign
from tools.rados_cluster import RadosCluster

NAMESPACE = "foreign-hands"
DAMAGE = grpc.StatusCode.DATA_LOSS


class Store:
    """A gateway's store, and whoever reaches around the gateway."""

    def __init__(self, kv: kv_pb2_grpc.KVStub, hands: Foreign, salt: bytes) -> None:
        self._kv = kv
        self.hands = hands
        self.salt = salt

    def call(self, asked: tuple[str, Any]) -> Any:
        """The answer, or the status and the integrity code."""
        method, request = asked
        try:
            return getattr(self._kv, method)(request, timeout=30)
        except grpc.RpcError as error:
            trailers: Any = error.trailing_metadata() or ()
            return error.code(), dict(trailers).get(INTEGRITY_CODE_KEY)

    def bucket(self, key: bytes) -> bytes:
        return bucket_name(bucket_of(key, self.salt))

    def value(self, key: bytes) -> bytes:
        """The object that has it."""
        apart = decode_entry(key, self.hands.entry(key, self.salt))
        assert isinstance(apart, Apart)
        return value_name(bucket_of(key, self.salt), apart.name)


@pytest.fixture(scope="module")
def store(cluster: RadosCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    directory = tmp_path_factory.mktemp("hands")
    config = write_config(cluster, directory, NAMESPACE)
    opened = open_pool(address_in(cluster, NAMESPACE))
    salt = opened.marker.salt
    opened.objects.close()
    with (
        Kvd(directory / "gateway", rados=config) as kvd,
        foreign(cluster, NAMESPACE) as hands,
        kvd.wait_serving().channel() as channel,
    ):
        yield Store(kv_pb2_grpc.KVStub(channel), hands, salt)


def flipped(data: bytes) -> bytes:
    """Its last bit is another."""
    return data[:-1] + bytes([data[-1] ^ 1])


def entry_flipped(store: Store, one: bytes, two: bytes) -> None:
    store.hands.set_entry(one, store.salt, flipped(store.hands.entry(one, store.salt)))


def entry_cut(store: Store, one: bytes, two: bytes) -> None:
    store.hands.set_entry(one, store.salt, store.hands.entry(one, store.salt)[:4])


def entry_of_the_other(store: Store, one: bytes, two: bytes) -> None:
    store.hands.set_entry(one, store.salt, store.hands.entry(two, store.salt))


def value_flipped(store: Store, one: bytes, two: bytes) -> None:
    store.hands.set_data(store.value(one), flipped(store.hands.data(store.value(one))))


def value_cut(store: Store, one: bytes, two: bytes) -> None:
    store.hands.set_data(store.value(one), store.hands.data(store.value(one))[:-1])


def value_of_the_other(store: Store, one: bytes, two: bytes) -> None:
    store.hands.set_data(store.value(one), store.hands.data(store.value(two)))


def value_gone(store: Store, one: bytes, two: bytes) -> None:
    store.hands.remove(store.value(one))


@pytest.mark.parametrize(
    ("alter", "size", "code"),
    [
        (entry_flipped, 100, "CHECKSUM_MISMATCH"),
        (entry_cut, 100, "TRUNCATED_RECORD"),
        (entry_of_the_other, 100, "CHECKSUM_MISMATCH"),
        (entry_flipped, 100_000, "CHECKSUM_MISMATCH"),
        (entry_of_the_other, 100_000, "CHECKSUM_MISMATCH"),
        (value_flipped, 100_000, "CHECKSUM_MISMATCH"),
        (value_cut, 100_000, "TRUNCATED_RECORD"),
        (value_of_the_other, 100_000, "CHECKSUM_MISMATCH"),
        (value_gone, 100_000, "INVALID_RECORD"),
    ],
)
def test_what_is_altered_is_damage_until_it_is_written_anew(
    store: Store, alter: Callable[[Store, bytes, bytes], None], size: int, code: str
) -> None:
    one, two = (f"{alter.__name__}-{size}-{number}".encode() for number in (1, 2))
    values = {one: b"1" * size, two: b"2" * size}
    for key, value in values.items():
        answer = store.call(put(key, value, f"first of {key!r}"))
        assert answer == kv_pb2.PutResponse(overwritten=False)
    alter(store, one, two)
    assert store.call(get(one)) == (DAMAGE, code)
    assert store.call(get(two)).value == values[two]
    answer = store.call(put(one, b"3" * size, f"again {one!r}"))
    assert answer == kv_pb2.PutResponse(overwritten=True)
    assert store.call(get(one)).value == b"3" * size


@pytest.mark.parametrize("altered", ["flipped", "of another bucket"])
def test_a_bucket_whose_head_is_altered_takes_no_write_and_gives_its_values(
    store: Store, altered: str
) -> None:
    one, two = (f"head {altered} {number}".encode() for number in (1, 2))
    for key in (one, two):
        store.call(put(key, b"value", f"first of {key!r}"))
    head = store.hands.pair(store.bucket(one if altered == "flipped" else two), HEAD_KEY)
    changed = flipped(head) if altered == "flipped" else head
    store.hands.set_pairs(store.bucket(one), {HEAD_KEY: changed})
    assert store.call(put(one, b"new", f"second of {one!r}")) == (DAMAGE, "CHECKSUM_MISMATCH")
    assert store.call(get(one)).value == b"value"
