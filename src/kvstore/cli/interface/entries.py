"""How keys with their values, and changes of them, are printed."""

from __future__ import annotations

import click

from kvstore.cli.interface.data_bytes import in_words
from kvstore.cli.interface.output import Results
from kvstore.client import Event, EventKind, KeyValue

__all__ = [
    "add_entry",
    "add_event",
    "entry_fields",
    "entry_results",
    "event_results",
]


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


def entry_results(context: click.Context, *, keys_only: bool, hexadecimal: bool) -> Results:
    """For :func:`add_entry`."""
    columns = ("key",) if keys_only else ("key", "value")
    return Results(context, columns, hexadecimal=hexadecimal)


def add_entry(results: Results, entry: KeyValue, *, keys_only: bool, hexadecimal: bool) -> None:
    """A key, and its value unless only keys are wanted; raw it is the one or the other."""
    fields = entry_fields(entry)
    key = in_words(entry.key, hexadecimal=hexadecimal)
    if keys_only:
        del fields["value"]
        results.add(fields, (key,), entry.key)
    else:
        value = in_words(entry.value, hexadecimal=hexadecimal)
        results.add(fields, (key, value), entry.value)


def event_results(context: click.Context, *, hexadecimal: bool, live: bool) -> Results:
    """For :func:`add_event`."""
    columns = ("revision", "event", "key", "value", "before")
    return Results(context, columns, hexadecimal=hexadecimal, live=live)


def add_event(results: Results, event: Event, *, hexadecimal: bool) -> None:
    """A change: its revision, what was done, the key, its value and what was there before."""
    fields: dict[str, object] = {
        "event": event.kind.value,
        "revision": event.revision,
        "key": event.key,
    }
    cells = [str(event.revision), event.kind.value, in_words(event.key, hexadecimal=hexadecimal)]
    if event.kind is EventKind.PUT:
        fields |= entry_fields(event.entry)
        cells.append(in_words(event.value, hexadecimal=hexadecimal))
    if event.previous is not None:
        fields["previous"] = entry_fields(event.previous)
        cells.append(f"was {in_words(event.previous.value, hexadecimal=hexadecimal)}")
    results.add(fields, cells, event.value)
