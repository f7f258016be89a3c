"""Which keys a command is for: one, or those of a prefix or a range; and how they are shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import click

from kvstore.cli.interface.data_bytes import in_words, read_key
from kvstore.client import Event, EventKind, KeyValue

Command = TypeVar("Command", bound=Callable[..., Any])

_PREFIX = click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")
_FROM_KEY = click.option("--from-key", is_flag=True, help="All keys from KEY on.")
_END = click.argument("end", required=False)

hex_option = click.option(
    "--hex", "hexadecimal", is_flag=True, help="Read and print keys and values as hexadecimal."
)


class KeysWanted(NamedTuple):
    """``key`` for a single one; else ``prefix``, or ``start`` and ``end``."""

    key: bytes | None = None
    prefix: bytes | None = None
    start: bytes | None = None
    end: bytes | None = None


def keys_options(command: Command) -> Command:
    """Give a command that has a KEY what makes it more than one."""
    return _END(_PREFIX(_FROM_KEY(command)))


def keys_wanted(
    key: str, end: str | None, *, prefix: bool, from_key: bool, hexadecimal: bool
) -> KeysWanted:
    """What the arguments mean. Raises UsageError."""
    if (end is not None) + prefix + from_key > 1:
        raise click.UsageError("END, --prefix and --from-key are three ways to say it: take one.")
    first = read_key(key, hexadecimal=hexadecimal)
    if prefix:
        return KeysWanted(prefix=first)
    if from_key:
        return KeysWanted(start=first)
    if end is not None:
        return KeysWanted(start=first, end=read_key(end, hexadecimal=hexadecimal))
    return KeysWanted(key=first)


def entry_fields(entry: KeyValue) -> dict[str, object]:
    """An entry for JSON."""
    return {
        "key": entry.key,
        "value": entry.value,
        "create_revision": entry.create_revision,
        "mod_revision": entry.mod_revision,
        "version": entry.version,
        "lease": f"{entry.lease:x}" if entry.lease else None,
    }


def event_fields(event: Event) -> dict[str, object]:
    """An event for JSON."""
    fields: dict[str, object] = {
        "event": event.kind.value,
        "revision": event.revision,
        "key": event.key,
    }
    if event.kind is EventKind.PUT:
        fields |= entry_fields(event.entry)
    if event.previous is not None:
        fields["previous"] = entry_fields(event.previous)
    return fields


def event_line(event: Event, *, hexadecimal: bool) -> str:
    """An event as a line of text: revision, what, key and value, between tabs."""
    words = [str(event.revision), event.kind.value, in_words(event.key, hexadecimal=hexadecimal)]
    if event.kind is EventKind.PUT:
        words.append(in_words(event.value, hexadecimal=hexadecimal))
    if event.previous is not None:
        words.append(f"was {in_words(event.previous.value, hexadecimal=hexadecimal)}")
    return "\t".join(words)
