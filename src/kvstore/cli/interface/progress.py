"""A bar on a terminal, for what takes longer than a second."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

__all__ = ["Progress"]

QUIET_S = 1.0


class Progress:
    """Of ``what``, in ``total`` steps if that is known. Use as a context manager.

    Nothing is shown where standard error is no terminal, before a second has passed, and where the
    ``rich`` package (extra ``cli``) is not installed.
    """

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._begun = time.monotonic()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._shows = sys.stderr is not None and sys.stderr.isatty()

    def advance(self, steps: int = 1) -> None:
        """So many more are done."""
        self._done += steps
        if not self._shows:
            return
        if self._bar is None and time.monotonic() - self._begun >= QUIET_S:
            self._begin()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done)

    def _begin(self) -> None:
        try:
            from rich import progress
            from rich.console import Console
        except ImportError:
            self._shows = False
            return
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(self._what, total=self._total, completed=self._done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
