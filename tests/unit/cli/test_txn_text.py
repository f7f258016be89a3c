"""Transactions as text and as JSON."""

from __future__ import annotations

import json

import click
import pytest

from kvstore.cli.interface.txn_text import parse_compare, parse_json, parse_operation, parse_text
from kvstore.client import Compare, Delete, Get, Put
from kvstore.client.keys import Field, KeyRange, Relation


@pytest.mark.parametrize(
    ("line", "key", "field", "relation", "operand"),
    [
        ('mod("a") > "0"', b"a", "mod_revision", ">", 0),
        ('create("a") = "0"', b"a", "create_revision", "==", 0),
        ("c(a) == 0", b"a", "create_revision", "==", 0),
        ('ver("a b") != "3"', b"a b", "version", "!=", 3),
        ('  version( "a" )<"3"  ', b"a", "version", "<", 3),
        ('val("a") = "x y"', b"a", "value", "==", b"x y"),
        ('value("a\\x00\\"\\u00e9") = ""', 'a\0"é'.encode(), "value", "==", b""),
        ("value('a\\x') = '\"'", b"a\\x", "value", "==", b'"'),
        ('lease("a") = "5c3a"', b"a", "lease", "==", 0x5C3A),
    ],
)
def test_conditions_are_those_of_etcdctl(
    line: str, key: bytes, field: Field, relation: Relation, operand: int | bytes
) -> None:
    assert parse_compare(line) == Compare(KeyRange(key), field, relation, operand)


@pytest.mark.parametrize(
    "line",
    [
        "a",
        'mod("a")',
        'mod("a") ~ "1"',
        'size("a") = "1"',
        'mod("a") = "x"',
        'mod("") = "1"',
        'value("\\q") = "1"',
        'mod("a) = "1"',
    ],
)
def test_what_is_no_condition_is_named(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse_compare(line)


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("put a b", Put(b"a", b"b")),
        ("put \"a b\"c 'd e'", Put(b"a bc", b"d e")),
        ('put a ""', Put(b"a", b"")),
        ('put --lease=5c3a a "\\xff\\101\\n"', Put(b"a", b"\xffA\n", lease=0x5C3A)),
        ("put --prev-kv a b", Put(b"a", b"b", previous=True)),
        ("put -- -a -b", Put(b"-a", b"-b")),
        ("get a", Get(b"a")),
        ("get a b", Get(start=b"a", end=b"b")),
        ("get --prefix a --limit 3 --keys-only", Get(prefix=b"a", limit=3, keys_only=True)),
        ('get "" --from-key --count-only', Get(start=b"", count_only=True)),
        ("del a", Delete(b"a")),
        ("del --prefix a --prev", Delete(prefix=b"a", previous=True)),
    ],
)
def test_operations_are_those_of_etcdctl(line: str, same: Put | Get | Delete) -> None:
    parsed = parse_operation(line)
    assert type(parsed) is type(same)
    assert parsed.message == same.message


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("putt a b", "no put, get or del"),
        ("put a", "Missing argument"),
        ("get --sideways a", "No such option"),
        ("get b a", "the range is empty"),
        ('get ""', "at least one byte"),
        ('put a "b', "a quote without its end"),
        ("put --lease x a b", "no lease's id"),
        ("get --help", "No such option"),
    ],
)
def test_what_is_no_operation_is_named_with_its_line(line: str, why: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        parse_operation(line)
    assert why in caught.value.format_message()
    assert line.split()[0] in caught.value.format_message()


def test_parts_end_with_empty_lines() -> None:
    text = 'mod("a") = "1"\n\nput a b\nget c\n\ndel a\n\nnot read\n'
    parsed = parse_text(text.splitlines())
    assert [len(part) for part in parsed] == [1, 2, 1]
    assert [len(part) for part in parse_text([])] == [0, 0, 0]
    assert [len(part) for part in parse_text(["", "get a"])] == [0, 1, 0]


def test_json_says_the_same() -> None:
    parsed = parse_json(
        json.dumps(
            {
                "if": [
                    {"key": "a", "field": "mod_revision", "is": "==", "than": 17},
                    {"prefix": "b", "field": "value", "is": "!=", "than": "x"},
                    {"key": "c", "field": "lease", "is": "=", "than": "5c3a"},
                ],
                "then": [
                    {"put": {"key": "a", "value": "1", "lease": "5c3a", "previous": True}},
                    {"get": {"prefix": "b", "limit": 3}},
                    {"del": {"start": "c", "end": "d"}},
                ],
                "else": [{"get": {"key": "a"}}],
            }
        )
    )
    assert parsed.compares == [
        Compare(KeyRange(b"a"), "mod_revision", "==", 17),
        Compare(KeyRange(b"b", b"c"), "value", "!=", b"x"),
        Compare(KeyRange(b"c"), "lease", "==", 0x5C3A),
    ]
    put, get, delete = parsed.then
    assert put.message == Put(b"a", b"1", lease=0x5C3A, previous=True).message
    assert get.message == Get(prefix=b"b", limit=3).message
    assert delete.message == Delete(start=b"c", end=b"d").message
    assert parsed.else_[0].message == Get(b"a").message


def test_json_has_any_bytes_as_hexadecimal() -> None:
    parsed = parse_json('{"encoding": "hex", "then": [{"put": {"key": "00ff", "value": "01"}}]}')
    assert parsed.then[0].message == Put(b"\x00\xff", b"\x01").message


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"iff": []}',
        '{"if": [{"key": "a"}]}',
        '{"if": [{"key": "a", "field": "mod_revision", "is": "==", "than": "x"}]}',
        '{"if": [{"key": "a", "field": "value", "is": "==", "than": "x", "more": 1}]}',
        '{"if": [{"key": "", "field": "value", "is": "==", "than": "x"}]}',
        '{"then": [{"put": {"key": "a"}}]}',
        '{"then": [{"put": {"key": "a", "value": 1}}]}',
        '{"then": [{"put": {"prefix": "a", "value": "1"}}]}',
        '{"then": [{"get": {"key": "a", "limit": "x"}}]}',
        '{"then": [{"get": {"key": "a"}, "put": {}}]}',
        '{"then": [{"jump": {"key": "a"}}]}',
        '{"then": ["get a"]}',
        '{"encoding": "hex", "then": [{"get": {"key": "xx"}}]}',
    ],
)
def test_what_is_no_transaction_is_a_wrong_usage(text: str) -> None:
    with pytest.raises(click.UsageError):
        parse_json(text)
