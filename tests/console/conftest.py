"""A kvd and consoles of it that tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.process import Browser, Console
from tests.integration.process import Certificates, Kvd


@pytest.fixture(scope="module")
def kvd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kvd]:
    with Kvd(tmp_path_factory.mktemp("kvd") / "data") as server:
        yield server.wait_serving()


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("console")


@pytest.fixture(scope="module")
def console(kvd: Kvd, logs: Path) -> Iterator[Console]:
    """One that may write, of a cluster that asks nobody."""
    with Console(logs, f"--addr={kvd.address}", "--write") as one:
        yield one


@pytest.fixture
def browser(console: Console) -> Browser:
    browser = Browser(console)
    browser.get("/")
    return browser


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))
