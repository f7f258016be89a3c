"""Bytes that reach a terminal or JSON do no harm and can be told apart."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from kvstore.cli.interface.data_bytes import (
    INPUT_BYTES_MAX,
    printable,
    read_value,
    read_value_file,
)
from kvstore.cli.interface.output import document
from kvstore.errors import InvalidArgumentError


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


class Endless(io.RawIOBase):
    """As /dev/zero, but it says how much was asked for."""

    taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, into: bytearray) -> int:  # type: ignore[override]
        self.taken += len(into)
        assert self.taken < 3 * INPUT_BYTES_MAX
        return len(into)


@pytest.mark.parametrize("hexadecimal", [False, True])
def test_a_value_without_an_end_is_refused(
    monkeypatch: pytest.MonkeyPatch, hexadecimal: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Endless())))
    with pytest.raises(InvalidArgumentError, match="standard input has more than 8 MiB"):
        read_value("-", hexadecimal=hexadecimal)


def test_nor_is_a_file_without_an_end_read() -> None:
    with pytest.raises(InvalidArgumentError, match="/dev/zero has more than 8 MiB"):
        read_value_file(Path("/dev/zero"))


def test_a_file_is_read_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_bytes(bytes(range(256)))
    assert read_value_file(file) == bytes(range(256))
