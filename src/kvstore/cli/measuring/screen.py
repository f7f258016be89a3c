"""The live screen of ``kvctl top``."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.widgets import DataTable, Footer, Sparkline, Static

from kvstore.cli.measuring.figures import COLUMNS, Moment, faults, heading, rows, writes

__all__ = ["Screen"]

# Looks that the line of writes goes back.
WRITES_KEPT = 120


class Screen(App[None]):
    """Asks by ``look`` every ``every_s`` seconds, in a thread, until it is closed."""

    TITLE = "kvctl top"
    BINDINGS: ClassVar[list[BindingType]] = [("q", "quit", "Quit"), ("space", "pause", "Pause")]
    CSS = """
    #heading { padding: 0 1; text-style: bold; }
    #faults { padding: 0 1; color: $text-error; }
    #writes { height: 3; margin: 1; }
    DataTable { height: auto; }
    """

    def __init__(self, look: Callable[[], Moment], every_s: float) -> None:
        super().__init__()
        self._look = look
        self._every_s = every_s
        self._before: Moment | None = None
        self._writes: list[float] = []
        self.is_paused = False
        self._is_asking = False

    def compose(self) -> ComposeResult:
        yield Static("asking…", id="heading", markup=False)
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Sparkline([], id="writes")
        yield Static("", id="faults", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(DataTable).add_columns(*COLUMNS)
        self._ask()
        self.set_interval(self._every_s, self._ask)

    def action_pause(self) -> None:
        """Stand still, and go on."""
        self.is_paused = not self.is_paused

    def _ask(self) -> None:
        # One at a time: what answers slowly is waited for.
        if not self.is_paused and not self._is_asking:
            self._is_asking = True
            self.run_worker(self._show_next, thread=True)

    def _show_next(self) -> None:
        self.call_from_thread(self._show, self._look())

    def _show(self, now: Moment) -> None:
        self._is_asking = False
        self.query_one("#heading", Static).update(heading(self._before, now))
        self.query_one("#faults", Static).update("\n".join(faults(now)))
        members = self.query_one(DataTable)
        members.clear()
        members.add_rows(rows(self._before, now))
        rate = writes(self._before, now)
        if rate is not None:
            self._writes = [*self._writes, rate][-WRITES_KEPT:]
            self.query_one("#writes", Sparkline).data = self._writes
        self._before = now
