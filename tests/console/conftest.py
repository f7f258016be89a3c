"""Servers and consoles that all tests here share: each costs seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.process import Browser, Console
from tests.integration.cluster import Cluster
from tests.integration.process import Certificates, Kvd
from tests.integration.users import ask_for_users


@pytest.fixture(scope="session")
def kvd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kvd]:
    """One that asks nobody; each test has keys of its own in it."""
    with Kvd(tmp_path_factory.mktemp("kvd") / "data") as server:
        yield server.wait_serving()


@pytest.fixture(scope="session")
def users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kvd]:
    """One that asks for users."""
    with Kvd(tmp_path_factory.mktemp("users") / "data") as server:
        server.wait_serving()
        ask_for_users(server.address)
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three members, all of which run between tests."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as three:
        three.start()
        yield three


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("console")


@pytest.fixture(scope="session")
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
