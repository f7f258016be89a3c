"""Completion at the prompt of ``kvctl shell``: what click completes, and keys of the server."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable

import click
from click.shell_completion import ShellComplete
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from kvstore.cli.interface.connection import Settings

__all__ = ["Words"]


class Words(Completer):
    """The words that may stand where the cursor is."""

    def __init__(self, group: click.Group, settings: Settings) -> None:
        self._group = group
        self._settings = settings

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        before = document.text_before_cursor
        try:
            words = shlex.split(before)
        except ValueError:
            return  # within quotes
        incomplete = "" if not before or before[-1].isspace() else words.pop()
        settings = dataclasses.replace(self._settings)
        complete = ShellComplete(self._group, {"obj": settings}, "kvctl", "")
        for item in complete.get_completions(words, incomplete):
            if item.type == "plain":
                yield Completion(
                    shlex.quote(item.value) if item.value else "",
                    start_position=-len(incomplete),
                    display=item.value,
                    display_meta=item.help or "",
                )
