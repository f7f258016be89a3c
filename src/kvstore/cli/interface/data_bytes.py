"""Bytes in from arguments and standard input, bytes out to pipes, terminals and JSON."""

from __future__ import annotations

import json
import os
import sys

import click


def read_key(argument: str, *, hexadecimal: bool) -> bytes:
    """Return the bytes that a key on the command line stands for."""
    return _from_hex(argument, "KEY") if hexadecimal else os.fsencode(argument)


def read_value(argument: str, *, hexadecimal: bool) -> bytes:
    """Return the bytes of a value on the command line, or of standard input where it is ``-``."""
    if argument == "-":
        data = sys.stdin.buffer.read()
        return _from_hex(data.decode("ascii", "replace"), "standard input") if hexadecimal else data
    return _from_hex(argument, "VALUE") if hexadecimal else os.fsencode(argument)


def _from_hex(text: str, what: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise click.UsageError(f"{what} is not hexadecimal, as --hex asks for") from None


def write_value(value: bytes, *, hexadecimal: bool) -> None:
    """Print a value: exactly its bytes into a pipe or file, made harmless on a terminal."""
    if hexadecimal:
        click.echo(value.hex())
    elif sys.stdout.isatty():
        click.echo(printable(value))
    else:
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()


def printable(data: bytes) -> str:
    """Return text that can't move a cursor or ring a bell: what isn't printable is escaped."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(
        character if character.isprintable() or character in "\n\t" else _escaped(character)
        for character in text
    )


def in_line(text: str) -> str:
    """Return ``text`` with everything escaped that isn't printable, line ends and tabs included."""
    return "".join(
        character if character.isprintable() else _escaped(character) for character in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def in_words(data: bytes, *, hexadecimal: bool) -> str:
    """Return bytes for a line of text: as hexadecimal, or with what isn't printable escaped."""
    return data.hex() if hexadecimal else in_line(data.decode("utf-8", "backslashreplace"))


def write_json(fields: dict[str, object], *, hexadecimal: bool) -> None:
    """Print one JSON object on one line; its bytes as text where all of them are UTF-8, else hex.

    ``encoding`` in the object says which of the two it is. Fields may have lists and objects.
    """
    encoding = "hex" if hexadecimal or not _all_utf8(fields) else "utf-8"
    click.echo(json.dumps({**_plain(fields, encoding), "encoding": encoding}))


def _plain(fields: dict[str, object], encoding: str) -> dict[str, object]:
    def plain(value: object) -> object:
        match value:
            case bytes():
                return value.hex() if encoding == "hex" else value.decode("utf-8")
            case dict():
                return _plain(value, encoding)
            case list():
                return [plain(one) for one in value]
            case _:
                return value

    return {name: plain(value) for name, value in fields.items()}


def _all_utf8(value: object) -> bool:
    match value:
        case bytes():
            try:
                value.decode("utf-8")
            except UnicodeDecodeError:
                return False
            return True
        case dict():
            return all(map(_all_utf8, value.values()))
        case list():
            return all(map(_all_utf8, value))
        case _:
            return True
