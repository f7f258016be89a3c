"""What a client in a namespace sends, and what it hands on of what comes."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import grpc
import pytest

from kvstore.api.etcd import etcd_pb2
from kvstore.client import AsyncClient, Client, Delete, Get, Put
from kvstore.client.keys import KeyRange, between, single, with_prefix
from kvstore.client.namespaces import Namespace, namespace_of
from kvstore.errors import ConfigurationError, InvalidArgumentError, Outcome
from tests.unit.client.fake_etcd import FakeEtcd, WatchSession, answer, event, header

ALL = KeyRange(b"\0", b"\0")


@pytest.mark.parametrize(
    ("prefix", "keys", "stored"),
    [
        (b"a/", single(b"k"), KeyRange(b"a/k")),
        (b"a/", ALL, KeyRange(b"a/\0", b"a0")),
        (b"a/", with_prefix(b""), KeyRange(b"a/\0", b"a0")),
        (b"a/", with_prefix(b"k"), KeyRange(b"a/k", b"a/l")),
        (b"a/", with_prefix(b"\xff"), KeyRange(b"a/\xff", b"a0")),
        (b"a/", between(b"k", None), KeyRange(b"a/k", b"a0")),
        (b"a/", between(None, b"k"), KeyRange(b"a/\0", b"a/k")),
        (b"a\xff", ALL, KeyRange(b"a\xff\0", b"b")),
        (b"\xff", ALL, KeyRange(b"\xff\0", b"\0")),
        (b"\xff\xff", with_prefix(b"\xff"), KeyRange(b"\xff\xff\xff", b"\0")),
        (b"\0", ALL, KeyRange(b"\0\0", b"\1")),
    ],
)
def test_ranges_end_with_the_namespace(prefix: bytes, keys: KeyRange, stored: KeyRange) -> None:
    assert Namespace(prefix).range(keys) == stored


def test_what_is_in_a_namespace_has_a_key_of_its_own() -> None:
    inside = Namespace(b"a/")
    assert [key for key in (b"a/", b"a/k", b"b", b"a") if inside.holds(key)] == [b"a/k"]
    assert inside.stripped(b"a/k") == b"k"


def test_an_empty_namespace_is_none() -> None:
    assert namespace_of(b"") is None
    assert namespace_of(None) is None


def test_the_longest_key_is_told_in_the_callers_terms() -> None:
    inside = Namespace(bytes(1000))
    assert len(inside.key(b"k" * 24)) == 1024
    said = "key has 25 bytes; expected 1 to 24 bytes in a namespace of 1000"
    with pytest.raises(InvalidArgumentError, match=said):
        inside.key(b"k" * 25)
    with pytest.raises(InvalidArgumentError, match="key is empty; expected 1 to 24 bytes"):
        inside.key(b"")
    with pytest.raises(ConfigurationError, match="a namespace of 1024 bytes leaves no room"):
        Namespace(bytes(1024))


def test_a_namespace_is_bytes() -> None:
    text: Any = "app/"
    with pytest.raises(TypeError, match="namespace must be bytes-like, not str"):
        Client(namespace=text)


def kv(key: bytes, **fields: Any) -> etcd_pb2.KeyValue:
    return etcd_pb2.KeyValue(key=key, value=b"v", mod_revision=7, version=1, **fields)


def test_every_key_of_a_request_is_inside_and_every_key_of_an_answer_stripped() -> None:
    nested = etcd_pb2.TxnResponse(
        succeeded=True,
        responses=[
            etcd_pb2.ResponseOp(response_range=etcd_pb2.RangeResponse(kvs=[kv(b"a/n")], count=1)),
        ],
    )
    said = etcd_pb2.TxnResponse(
        header=header(7),
        succeeded=True,
        responses=[
            etcd_pb2.ResponseOp(response_put=etcd_pb2.PutResponse(prev_kv=kv(b"a/k"))),
            etcd_pb2.ResponseOp(
                response_delete_range=etcd_pb2.DeleteRangeResponse(deleted=1, prev_kvs=[kv(b"a/x")])
            ),
            etcd_pb2.ResponseOp(response_txn=nested),
        ],
    )

    async def run() -> None:
        async with FakeEtcd(Txn=answer(said)) as server:
            client = AsyncClient(server.address, timeout=30, namespace=b"a/")
            put, delete, get = Put(b"k", b"v", previous=True), Delete(prefix=b"x"), Get(b"n")
            inner = client.transaction().if_(client.key(b"c").absent()).then(get)
            result = await (
                client.transaction()
                .if_(client.keys().lease == 0)
                .then(put, delete, inner)
                .else_(Get(start=b"s"))
                .commit()
            )
            before = result[put].previous
            assert before is not None
            assert before.key == b"k"
            assert [entry.key for entry in result[delete].previous] == [b"x"]
            entry = result[inner][get].entry
            assert entry is not None
            assert entry.key == b"n"
            ((name, sent),) = [one for one in server.asked if one[0] == "Txn"]
            assert name == "Txn"
            compare = sent.compare[0]
            assert (compare.key, compare.range_end) == (b"a/\0", b"a0")
            assert sent.success[0].request_put.key == b"a/k"
            deletion = sent.success[1].request_delete_range
            assert (deletion.key, deletion.range_end) == (b"a/x", b"a/y")
            assert sent.success[2].request_txn.compare[0].key == b"a/c"
            assert sent.success[2].request_txn.success[0].request_range.key == b"a/n"
            otherwise = sent.failure[0].request_range
            assert (otherwise.key, otherwise.range_end) == (b"a/s", b"a0")
            await client.close()

    asyncio.run(run())


def test_a_request_that_is_sent_again_is_put_inside_once() -> None:
    async def refused(request: etcd_pb2.RangeRequest, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")

    async def run() -> None:
        found = answer(etcd_pb2.RangeResponse(header=header(7), kvs=[kv(b"a/k")], count=1))
        async with FakeEtcd(Range=[refused, refused, found]) as server:
            client = AsyncClient(server.address, timeout=30, namespace=b"a/")
            entry = await client.get_entry(b"k")
            assert entry is not None
            assert entry.key == b"k"
            assert [sent.key for _, sent in server.asked] == [b"a/k"] * 3
            await client.close()

    asyncio.run(run())


def test_a_watch_sees_stripped_keys() -> None:
    async def watched(session: WatchSession) -> None:
        created = await session.create()
        assert (created.key, created.range_end) == (b"a/j", b"a/k")
        change = event(2, b"a/j1")
        change.prev_kv.CopyFrom(kv(b"a/j1"))
        await session.send(change)
        await session.stay()

    async def run() -> None:
        async with FakeEtcd(watched) as server:
            client = AsyncClient(server.address, timeout=30, namespace=b"a/")
            async with client.watch(prefix=b"j", previous=True) as changes:
                change = await changes.next(timeout=30)
                assert change is not None
                assert change.previous is not None
                assert (change.key, change.previous.key) == (b"j1", b"j1")
            await client.close()

    asyncio.run(run())


def test_keys_of_a_lease_that_are_elsewhere_are_none_of_the_callers() -> None:
    said = etcd_pb2.LeaseTimeToLiveResponse(
        header=header(7), ID=5, TTL=3, grantedTTL=9, keys=[b"a/k", b"b/k", b"a/"]
    )

    async def run() -> None:
        async with FakeEtcd(LeaseTimeToLive=answer(said)) as server:
            client = AsyncClient(server.address, timeout=30, namespace=b"a/")
            status = await client.lease_status(5, keys=True)
            assert status is not None
            assert status.keys == (b"k",)
            await client.close()

    asyncio.run(run())


def test_a_key_that_is_too_long_is_refused_before_anything_is_sent() -> None:
    async def run() -> None:
        async with FakeEtcd() as server:
            client = AsyncClient(server.address, timeout=30, namespace=bytes(1000))
            for write in (partial(client.put, b"k" * 25, b""), partial(client.delete, b"")):
                with pytest.raises(InvalidArgumentError) as raised:
                    await write()
                assert raised.value.outcome is Outcome.NOT_APPLIED
            with pytest.raises(InvalidArgumentError):
                await client.get(b"k" * 25)
            with pytest.raises(InvalidArgumentError):
                await client.get_entry(b"k" * 25)
            with pytest.raises(InvalidArgumentError):
                await client.transaction().then(Put(b"k" * 25, b"")).commit()
            assert server.asked == []
            await client.close()

    asyncio.run(run())
