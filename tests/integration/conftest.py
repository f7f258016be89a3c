"""Servers that tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvstore.client import channels
from kvstore.wire import available
from tests.integration.process import Certificates, Kvd


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def kvd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kvd]:
    """A kvd in the dev profile; tests of a module share it and use keys of their own."""
    with Kvd(tmp_path_factory.mktemp("kvd") / "data") as server:
        yield server.wait_serving()


@pytest.fixture(params=["native", "grpcio"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What clients use that weren't told, each in turn."""
    if request.param == "native" and not available():
        pytest.skip("built without the native wire")
    monkeypatch.setattr(channels, "default_transport", lambda: request.param)
    return str(request.param)
