"""Which keys a command is for: some, or those of a prefix or a range."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import click
from click.shell_completion import CompletionItem

from kvstore.cli.interface.connection import settings_of
from kvstore.cli.interface.data_bytes import read_key
from kvstore.errors import Error

__all__ = [
    "DataCommand",
    "KeysWanted",
    "complete_keys",
    "hex_option",
    "keys_options",
    "keys_wanted",
    "range_options",
    "revision_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])

_PREFIX = click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")
_FROM_KEY = click.option("--from-key", is_flag=True, help="All keys from KEY on.")
_RANGE = click.option(
    "--range", "between", is_flag=True, help="All keys from the first KEY to before the second."
)

hex_option = click.option(
    "--hex", "hexadecimal", is_flag=True, help="Read and print keys and values as hexadecimal."
)
revision_option = click.option(
    "--rev",
    "--revision",
    "rev",
    type=click.IntRange(min=1),
    metavar="N",
    help="As it was at revision N.",
)


class DataCommand(click.Command):
    """A command whose arguments are data, which may well begin with ``-``."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        try:
            return super().parse_args(context, arguments)
        except click.NoSuchOption as error:
            if error.option_name.startswith("--"):
                raise
            hint = f"{error.message} A KEY or VALUE that begins with - goes after --."
            raise click.NoSuchOption(error.option_name, hint, None, error.ctx) from None


class KeysWanted(NamedTuple):
    """``keys`` by name; else ``prefix``, or ``start`` and ``end``."""

    keys: tuple[bytes, ...] = ()
    prefix: bytes | None = None
    start: bytes | None = None
    end: bytes | None = None

    @property
    def key(self) -> bytes | None:
        """The single one, if there is just one."""
        return self.keys[0] if self.keys else None


# Set, it has completion ask the server for keys, as a shell of ours that is connected does anyway;
# how many, and for how long at most.
COMPLETE_VARIABLE = "KVCTL_COMPLETE_KEYS"
COMPLETE_KEYS = 50
COMPLETE_S = 1.0


def complete_keys(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Keys that begin so, where somebody wants the server to be asked; what can't be typed is left
    out."""
    settings = settings_of(context)
    is_wanted = settings.kept is not None or os.environ.get(COMPLETE_VARIABLE)
    if not is_wanted or context.params.get("hexadecimal"):
        return []
    settings = dataclasses.replace(settings, timeout=min(settings.timeout, COMPLETE_S))
    found = []
    with contextlib.suppress(Error, UnicodeDecodeError), settings.connect() as client:
        prefix = os.fsencode(incomplete)
        for entry in client.range(prefix=prefix, limit=COMPLETE_KEYS, keys_only=True):
            key = entry.key.decode()
            if key.isprintable():
                found.append(CompletionItem(key))
    return found


def keys_options(command: Command) -> Command:
    """Give a command KEYs, and what makes more of them."""
    keys = click.argument(
        "keys", metavar="KEY...", nargs=-1, required=True, shell_complete=complete_keys
    )
    return keys(_PREFIX(_FROM_KEY(_RANGE(command))))


def range_options(command: Command) -> Command:
    """The same without KEYs, for a command that has them by itself."""
    return _PREFIX(_FROM_KEY(_RANGE(command)))


def keys_wanted(
    keys: Sequence[str],
    *,
    prefix: bool,
    from_key: bool,
    between: bool,
    hexadecimal: bool,
    many: bool = True,
) -> KeysWanted:
    """What the arguments mean; ``many``: also several keys by name. Raises UsageError."""
    if not many and len(keys) == 2 and not (prefix or from_key):
        between = True  # an END after the KEY, as etcdctl has it
    if prefix + from_key + between > 1:
        raise click.UsageError(
            "--prefix, --from-key and --range are three ways to say it: take one."
        )
    found = tuple(read_key(key, hexadecimal=hexadecimal) for key in keys)
    if between:
        if len(found) != 2:
            raise click.UsageError("--range is from a first KEY to before a second: give two.")
        return KeysWanted(start=found[0], end=found[1])
    if len(found) > 1 and (prefix or from_key or not many):
        raise click.UsageError("one KEY, or --range and two.")
    if prefix:
        return KeysWanted(prefix=found[0])
    if from_key:
        return KeysWanted(start=found[0])
    return KeysWanted(keys=found)
