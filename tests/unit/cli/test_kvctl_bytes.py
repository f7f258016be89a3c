"""Bytes that reach a terminal or JSON do no harm and can be told apart."""

from __future__ import annotations

import json

import pytest

from kvstore.cli.interface.data_bytes import printable
from kvstore.cli.interface.output import document


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"plain", "plain"),
        ("grün".encode(), "grün"),
        (b"two\nlines\tand a tab", "two\nlines\tand a tab"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"\x07", "\\x07"),
        (b"\r", "\\r"),
        (b"\xff\x00", "\\xff\\x00"),
        ("\u202eright to left".encode(), "\\u202eright to left"),
    ],
)
def test_what_could_harm_a_terminal_is_escaped(data: bytes, shown: str) -> None:
    assert printable(data) == shown


def test_json_has_text_where_everything_is_text() -> None:
    fields = {"key": b"k", "value": "grün".encode(), "found": True}
    assert json.loads(document(fields, hexadecimal=False)) == {
        "key": "k",
        "value": "grün",
        "found": True,
        "encoding": "utf-8",
    }


def test_json_is_all_hexadecimal_where_one_thing_is_not_text() -> None:
    fields = {"key": b"k", "value": b"\xff", "found": True}
    assert json.loads(document(fields, hexadecimal=False)) == {
        "key": "6b",
        "value": "ff",
        "found": True,
        "encoding": "hex",
    }
