"""kvctl top: what it shows of a real kvd, on a screen that is driven without a terminal."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Sparkline, Static

from kvstore.cli.interface.connection import Settings
from kvstore.cli.measuring.figures import Moment, look
from kvstore.cli.measuring.screen import Screen
from tests.integration.cluster import free_addresses
from tests.integration.process import Kvd, run


async def shown(pilot: Pilot[None], is_there: Callable[[], bool]) -> None:
    """Wait for what comes on the screen."""
    async with asyncio.timeout(60):
        while not is_there():
            await pilot.pause(0.05)


def heading_of(app: Screen) -> str:
    return str(app.query_one("#heading", Static).render())


def test_members_and_their_writes_are_shown_until_q(kvd: Kvd) -> None:
    app = Screen(partial(look, Settings(address=kvd.address), ()), 0.2)

    async def drive() -> None:
        async with app.run_test(size=(160, 40)) as pilot:
            members = app.query_one(DataTable)
            await shown(pilot, lambda: members.row_count == 5)
            assert "leader" in heading_of(app)
            with kvd.client() as client:
                client.put_many((b"top/%d" % n, b"") for n in range(50))
            await shown(pilot, lambda: max(app.query_one("#writes", Sparkline).data or [0]) > 0)
            row = members.get_row_at(0)
            assert row[0] == "1"
            assert row[1] in ("leader", "follower")
            await pilot.press("space")
            assert app.is_paused
            await pilot.press("q")

    asyncio.run(drive())
    assert app.return_code in (None, 0)


def test_a_server_that_goes_and_comes_back_is_shown(tmp_path: Path) -> None:
    (address,) = free_addresses(1)
    settings = Settings(address=address, timeout=0.5)
    app = Screen(partial(look, settings, ()), 0.2)

    async def drive() -> None:
        async with app.run_test(size=(160, 40)) as pilot:
            await shown(pilot, lambda: heading_of(app).startswith("no answer"))
            with await asyncio.to_thread(Kvd, tmp_path / "data", listen=address) as server:
                await asyncio.to_thread(server.wait_serving)
                await shown(pilot, lambda: "leader 1" in heading_of(app) or _leads(app))
            await shown(pilot, lambda: heading_of(app).startswith("no answer"))
            assert app.query_one(DataTable).row_count == 0

    asyncio.run(drive())


def _leads(app: Screen) -> bool:
    return "leader" in heading_of(app) and "no leader" not in heading_of(app)


def test_what_a_server_says_is_no_markup() -> None:
    app = Screen(lambda: Moment(0.0, None, "[bold red]of others[/]"), 5.0)

    async def drive() -> None:
        async with app.run_test() as pilot:
            await shown(pilot, lambda: "[bold red]of others[/]" in heading_of(app))

    asyncio.run(drive())


def test_once_prints_it_without_a_terminal(tmp_path: Path) -> None:
    (metrics,) = free_addresses(1)
    with Kvd(tmp_path / "data", f"--metrics_addr={metrics}") as kvd:
        kvd.wait_serving()
        words = ("top", "--once", "--every=0.5", f"--metrics={metrics},127.0.0.1:1")
        done = run("kvctl", f"--addr={kvd.address}", *words)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.decode().splitlines()
        assert "calls/s" in lines[0]
        assert lines[1].split()[:3] == ["member", "role", "term"]
        assert len(lines) == 7
        fields = json.loads(run("kvctl", f"--addr={kvd.address}", *words, "-o", "json").stdout)
        assert [one["member"] for one in fields["members"]] == ["1", "2", "3", "4", "5"]


def test_without_a_terminal_or_the_package_it_says_so(
    kvd: Kvd, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("kvctl", f"--addr={kvd.address}", "top")
    assert done.returncode == 2
    assert b"--once" in done.stderr
    assert run("kvctl", "top", "--once", "--metrics=nowhere").returncode == 2
    monkeypatch.setitem(sys.modules, "kvstore.cli.measuring.screen", None)
    monkeypatch.setattr("kvstore.cli.measuring.top._has_terminal", lambda: True)
    missing = run("kvctl", f"--addr={kvd.address}", "top")
    assert missing.returncode == 1
    assert b"pip install 'kvstore-raft[cli]'" in missing.stderr
