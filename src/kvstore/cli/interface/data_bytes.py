"""Bytes in from arguments and standard input, bytes out to pipes, terminals and JSON."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO

import click

from kvstore.errors import InvalidArgumentError

INPUT_BYTES_MAX = 8 << 20
"""Of standard input, or a file, as a value: servers say what is too large, but it may have no end
at all."""


def read_key(argument: str, *, hexadecimal: bool) -> bytes:
    """Return the bytes that a key on the command line stands for."""
    return _from_hex(argument, "KEY") if hexadecimal else os.fsencode(argument)


def read_value(argument: str, *, hexadecimal: bool) -> bytes:
    """Return the bytes of a value on the command line, or of standard input where it is ``-``."""
    if argument == "-":
        data = _read(sys.stdin.buffer, "standard input")
        return _from_hex(data.decode("ascii", "replace"), "standard input") if hexadecimal else data
    return _from_hex(argument, "VALUE") if hexadecimal else os.fsencode(argument)


def read_value_file(path: Path) -> bytes:
    """Return what a file holds. Raises OSError, InvalidArgumentError."""
    with open(path, "rb") as file:
        return _read(file, str(path))


def _read(source: BinaryIO, name: str) -> bytes:
    data = source.read(INPUT_BYTES_MAX + 1)
    if len(data) > INPUT_BYTES_MAX:
        raise InvalidArgumentError(
            f"{name} has more than {INPUT_BYTES_MAX >> 20} MiB, which no value has"
        )
    return data


def _from_hex(text: str, what: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise click.UsageError(f"{what} is not hexadecimal, as --hex asks for") from None


def printable(data: bytes) -> str:
    """Return text that can't move a cursor or ring a bell: what isn't printable is escaped."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(
        character if character.isprintable() or character in "\n\t" else _escaped(character)
        for character in text
    )


def in_line(text: str, *, keep: str = "") -> str:
    """Return ``text`` with everything escaped that isn't printable, but what is to be kept.

    Line ends and tabs are escaped as well.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keep else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def in_words(data: bytes, *, hexadecimal: bool) -> str:
    """Return bytes for a line of text: as hexadecimal, or with what isn't printable escaped."""
    return data.hex() if hexadecimal else in_line(data.decode("utf-8", "backslashreplace"))


def plain_fields(fields: dict[str, object], encoding: str) -> dict[str, object]:
    """Fields whose bytes are text, ``hex`` or ``utf-8``."""

    def plain(value: object) -> object:
        match value:
            case bytes():
                return value.hex() if encoding == "hex" else value.decode("utf-8")
            case dict():
                return plain_fields(value, encoding)
            case list():
                return [plain(one) for one in value]
            case _:
                return value

    return {name: plain(value) for name, value in fields.items()}


def all_utf8(value: object) -> bool:
    """Whether all bytes in ``value`` are UTF-8."""
    match value:
        case bytes():
            try:
                value.decode("utf-8")
            except UnicodeDecodeError:
                return False
            return True
        case dict():
            return all(map(all_utf8, value.values()))
        case list():
            return all(map(all_utf8, value))
        case _:
            return True
