"""Groups whose commands are imported when one of them is used, and that understand what is meant.

``kvctl get`` is called from scripts, again and again: it begins without what only others need.
"""

from __future__ import annotations

import difflib
import gc
import importlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

import click
from click.shell_completion import CompletionItem

__all__ = ["LazyCommand", "LazyGroup", "hyphens"]

# Of a word that was mistyped: so alike is what is suggested.
LIKENESS_MIN = 0.6


class LazyCommand(NamedTuple):
    """Where a command is, ``module:name``, and what a list of commands says of it."""

    home: str
    short_help: str

    def load(self) -> click.Command:
        module, _, name = self.home.partition(":")
        # Nothing that is made meanwhile is garbage; looking for some takes a tenth of the time.
        gc.disable()
        try:
            command: click.Command = getattr(importlib.import_module(module), name)
        finally:
            gc.freeze()  # nor is it to be looked through again
            gc.enable()
        return command


def hyphens(word: str) -> str:
    """An option or a command as it is called, however it was typed."""
    return word.replace("_", "-")


class LazyGroup(click.Group):
    """``sections``: a heading, and its commands by name. ``aliases``: what people type as well.

    ``meant``: words that are no command's, and what to say of them.
    """

    def __init__(
        self,
        *arguments: Any,
        sections: Mapping[str, Mapping[str, LazyCommand]],
        aliases: Mapping[str, str],
        meant: Mapping[str, str],
        **attributes: Any,
    ) -> None:
        super().__init__(*arguments, **attributes)
        self.sections = sections
        self.aliases = aliases
        self.meant = meant
        self._homes = {name: it for section in sections.values() for name, it in section.items()}

    def list_commands(self, context: click.Context) -> list[str]:
        return [*self._homes]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        name = self.aliases.get(name, name)
        if name not in self.commands and name in self._homes:
            self.commands[name] = self._homes[name].load()
        return self.commands.get(name)

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = arguments[0]
        name = hyphens(word)
        command = self.get_command(context, name)
        if command is None:
            if context.resilient_parsing:
                return None, None, arguments[1:]  # of words to be completed
            if not word.startswith("-"):
                self._refuse(context, name)
            return super().resolve_command(context, arguments)
        return command.name, command, arguments[1:]

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        # Loading every command to ask for its help would take as long as all of them together.
        names = [
            CompletionItem(name, help=it.short_help)
            for name, it in self._homes.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, context, incomplete)]

    def _refuse(self, context: click.Context, word: str) -> NoReturn:
        said = f"No such command {word!r}."
        if word in self.meant:
            said += f" {self.meant[word]}"
        elif alike := self._alike(word):
            said += f" Did you mean {' or '.join(alike)}?"
        context.fail(said)

    def _alike(self, word: str) -> list[str]:
        known = [*self._homes, *self.aliases]
        found = difflib.get_close_matches(word, known, n=2, cutoff=LIKENESS_MIN)
        return [*dict.fromkeys(f"{self.aliases.get(name, name)!r}" for name in found)]

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self._homes))
        for heading, section in self.sections.items():
            with formatter.section(heading):
                rows: Iterable[tuple[str, str]] = [
                    (name.ljust(width), it.short_help) for name, it in section.items()
                ]
                formatter.write_dl([*rows])
