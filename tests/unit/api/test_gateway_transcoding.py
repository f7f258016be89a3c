"""JSON as etcd's gateway has it: as protobuf's json_format, but for what that is lenient about."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from google.protobuf import json_format

from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.api.etcd.methods import SERVICES
from kvstore.api.handlers.gateway.routes import ROUTES
from kvstore.api.handlers.gateway.transcoding import messages_of, only_message_of, pieces_of
from kvstore.errors import InvalidArgumentError

SHAPES = sorted(set(ROUTES.values()), key=lambda shape: shape.path)


def filled(kind: Any, chance: random.Random, depth: int = 0) -> Any:
    """A message with anything in it."""
    message = kind()
    chosen: set[str] = set()
    for field in kind.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if chance.random() < 0.3 or (oneof is not None and oneof.name in chosen):
            continue
        if oneof is not None:
            chosen.add(oneof.name)
        value = getattr(message, field.name)
        is_list = hasattr(value, "append")
        for _ in range(chance.randrange(3) if is_list else 1):
            if field.message_type is not None:
                if depth > 4:
                    continue
                inner = value.add() if is_list else value
                inner.CopyFrom(filled(type(inner), chance, depth + 1))
                continue
            one = scalar(field, chance)
            if is_list:
                value.append(one)
            else:
                setattr(message, field.name, one)
    return message


def scalar(field: Any, chance: random.Random) -> Any:
    if field.enum_type is not None:
        return chance.choice(field.enum_type.values).number
    return {
        field.TYPE_BYTES: chance.randbytes(chance.randrange(9)),
        field.TYPE_STRING: chance.choice(["", "a", 'ö"\\\n\u2028<\U0001f600']),
        field.TYPE_BOOL: chance.random() < 0.5,
        field.TYPE_UINT32: chance.choice([0, 1, (1 << 32) - 1]),
        field.TYPE_INT32: chance.choice([0, 1, -1 << 31]),
        field.TYPE_UINT64: chance.choice([0, 1, (1 << 64) - 1]),
        field.TYPE_INT64: chance.choice([0, 1, -1, (1 << 63) - 1, -1 << 63]),
    }[field.type]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.path)
def test_messages_go_there_and_back_as_json_format_has_them(shape: Any) -> None:
    chance = random.Random(shape.path)
    for kind in (shape.request, shape.response):
        for _ in range(40):
            message = filled(kind, chance)
            text = "".join(pieces_of(message))
            expected = json_format.MessageToDict(message, preserving_proto_field_name=True)
            assert json.loads(text) == expected
            assert only_message_of(kind, text.encode()) == message
            in_camel_case = json_format.MessageToJson(message).encode()
            assert only_message_of(kind, in_camel_case) == message


def test_every_method_but_hash_has_its_paths() -> None:
    routed = {shape.path for shape in ROUTES.values()}
    every = {shape.path for methods in SERVICES.values() for shape in methods.values()}
    # etcd's .proto has no path for it.
    assert every - routed == {"/etcdserverpb.Maintenance/Hash"}
    assert {path.split("/")[1] for path in ROUTES} == {"v3", "v3beta"}
    assert ROUTES["/v3/kv/lease/revoke"].name == ROUTES["/v3beta/lease/revoke"].name


def test_pieces_are_no_larger_than_what_is_innermost() -> None:
    kvs = [pb.KeyValue(key=b"%d" % n, value=bytes(1000)) for n in range(500)]
    inner = pb.ResponseOp(response_range=pb.RangeResponse(kvs=kvs))
    pieces = list(pieces_of(pb.TxnResponse(responses=[inner, inner])))
    assert max(map(len, pieces)) < 2000
    assert len(json.loads("".join(pieces))["responses"][1]["response_range"]["kvs"]) == 500


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"[]", "an object is expected"),
        (b"1", "an object is expected"),
        (b"nul", "the request is no JSON: "),
        (b'{"key": }', "the request is no JSON: "),
        (b'{"key": "YQ=="', "the request is no JSON: "),
        (b"\xff\xfe", "the request is no JSON: "),
        (b"[" * 100_000, "the request is no JSON: maximum recursion depth"),
        (b'{"limit": ' + b"1" * 5000 + b"}", "the request is no JSON: "),
        (b'{"limit": NaN}', "the request is no JSON: NaN isn't JSON"),
        (b'{"limit": Infinity}', "the request is no JSON: "),
        (b"{} x", "the request is no JSON: "),
        (b"{}{}", "one JSON object, and nothing after it"),
        (b'{"key": 1}', "key: a string is expected"),
        (b'{"key": ["YQ=="]}', "key: a string is expected"),
        (b'{"key": "foo"}', "key: bytes in base64 are expected: Incorrect padding"),
        (b'{"key": "Zm9v\\n"}', "key: bytes in base64 are expected: "),
        (b'{"key": "-_-_"}', "key: bytes in base64 are expected: "),
        (b'{"key": "Zg==Zg=="}', "key: bytes in base64 are expected: "),
        (b'{"key": "\xc3\xa4"}', "key: bytes in base64 are expected: "),
        (b'{"key": "\\ud800"}', "key: half of a character"),
        (b'{"limit": 1.0}', "limit: an integer is expected"),
        (b'{"limit": true}', "limit: an integer is expected"),
        (b'{"limit": "1e3"}', "limit: an integer is expected"),
        (b'{"limit": "--1"}', "limit: an integer is expected"),
        (b'{"limit": "\xd9\xa1"}', "limit: an integer is expected"),
        (b'{"limit": 9223372036854775808}', "limit: an integer of -9223372036854775808 to "),
        (b'{"serializable": 1}', "serializable: true or false is expected"),
        (b'{"sort_order": "UP"}', "sort_order: one of NONE, ASCEND, DESCEND is expected"),
        (b'{"sort_order": 4294967296}', "sort_order: an integer of "),
    ],
)
def test_what_no_field_has_is_refused_with_its_name(body: bytes, error: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        only_message_of(pb.RangeRequest, body)
    assert str(refused.value).startswith(error)


def test_errors_deep_inside_say_where() -> None:
    body = b'{"success": [{"request_put": {"key": "YQ=="}}, {"requestPut": {"lease": "x"}}]}'
    with pytest.raises(InvalidArgumentError, match=r"^success: requestPut: lease: an integer"):
        only_message_of(pb.TxnRequest, body)
    both = b'{"success": [{"request_put": {}, "request_range": {}}]}'
    with pytest.raises(InvalidArgumentError, match="more than one of request"):
        only_message_of(pb.TxnRequest, both)
    with pytest.raises(InvalidArgumentError, match="success: a list is expected"):
        only_message_of(pb.TxnRequest, b'{"success": {}}')


def test_transactions_are_nested_so_deep_and_no_deeper() -> None:
    def nested(depth: int) -> bytes:
        body = "{}"
        for _ in range(depth):
            body = f'{{"success": [{{"request_txn": {body}}}]}}'
        return body.encode()

    assert only_message_of(pb.TxnRequest, nested(31)).SerializeToString()
    with pytest.raises(InvalidArgumentError, match="objects in objects, more than 64"):
        only_message_of(pb.TxnRequest, nested(32))
    with pytest.raises(InvalidArgumentError, match="recursion"):
        only_message_of(pb.TxnRequest, nested(10_000))


def test_what_nobody_knows_and_null_are_passed_over() -> None:
    body = b' {"key": "YQ==", "limit": null, "of_a_later_version": [1, {"a": 2}]}\r\n'
    assert only_message_of(pb.RangeRequest, body) == pb.RangeRequest(key=b"a")
    assert only_message_of(pb.RangeRequest, b" \n") == pb.RangeRequest()


def test_streams_have_any_number_of_objects() -> None:
    found = messages_of(pb.LeaseKeepAliveRequest, b'{"ID": 1}{"ID": "2"}\n\n {}')
    assert [one.ID for one in found] == [1, 2, 0]
    assert [*messages_of(pb.LeaseKeepAliveRequest, b"")] == []


def test_an_object_of_a_stream_is_read_when_it_is_asked_for() -> None:
    found = messages_of(pb.LeaseKeepAliveRequest, b'{"ID": 1} x')
    assert next(found).ID == 1
    with pytest.raises(InvalidArgumentError, match="is no JSON"):
        next(found)


@pytest.mark.parametrize(
    "many",
    [
        b"{}" * 1_500_000,
        b'{"success":[' + b"{}," * 1_000_000,
        b'{"success":[' + b'{"request_txn":{"success":[{},{},{},{},{}]}},' * 50_000,
        b'{"unknown":' + b"[[]," * 200_000,
        b'{"unknown":[' + b"0," * 1_500_000,
    ],
    ids=["messages", "operations", "transactions", "lists", "numbers"],
)
def test_values_are_counted_before_any_is_made(many: bytes) -> None:
    # None is whole: reading would come upon that only after the many.
    for read in (only_message_of, lambda kind, body: [*messages_of(kind, body)]):
        with pytest.raises(InvalidArgumentError, match="at most 131072 values"):
            read(pb.TxnRequest, many + b"x")


def test_the_largest_transaction_is_within_the_bound_of_values() -> None:
    put = b'{"requestPut": {"key": "YQ==", "value": "YQ==", "lease": "7", "prev_kv": true}}'
    body = b'{"success": [' + b",".join([put] * 16_384) + b"]}"
    assert len(only_message_of(pb.TxnRequest, body).success) == 16_384


@pytest.mark.parametrize("seed", range(3))
def test_nothing_raises_anything_else(seed: int) -> None:
    chance = random.Random(seed)
    atoms = [b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b"1", b"-", b"null", b"true", b" "]
    names = [name.encode() for shape in SHAPES for name in shape.request.DESCRIPTOR.fields_by_name]
    for _ in range(3000):
        shape = chance.choice(SHAPES)
        if chance.random() < 0.5:
            body = bytearray("".join(pieces_of(filled(shape.request, chance))).encode())
            for _ in range(chance.randrange(4)):
                place = chance.randrange(len(body))
                body[place : place + chance.randrange(3)] = chance.choice([*atoms, b"\xff", b"0"])
        else:
            words = [*atoms, *(b'"%b":' % name for name in chance.sample(names, 4))]
            body = bytearray(b"".join(chance.choices(words, k=chance.randrange(30))))
        try:
            for message in messages_of(shape.request, bytes(body)):
                message.SerializeToString()
        except InvalidArgumentError:
            pass
