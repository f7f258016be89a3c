"""docs/clients.md: its samples run, in their order, and give what stands beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from tests.integration.model_server import ModelServer, started
from tests.samples.python import check

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with started("kvd", tmp_path_factory.mktemp("docs")) as running:
        yield running


def test_the_samples_run(server: ModelServer) -> None:
    # The first one connects to a cluster that there isn't here.
    _, *samples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    looked_at = 0
    with server.client() as client:
        shared: dict[str, Any] = {
            name: getattr(kvstore, name) for name in ("Get", "Put", "KeyValue")
        }
        shared |= {"client": client, "kvstore": kvstore}
        for sample in samples:
            looked_at += check(sample, shared)
    assert looked_at >= 20
