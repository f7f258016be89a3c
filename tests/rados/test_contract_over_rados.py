"""The contract of a service, over a real pool."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.service_contract import ServiceContract
from tests.rados.conftest import address_in
from tests.rados.gateway import Gateway, gateway
from tools.rados_cluster import RadosCluster


@pytest.fixture(scope="module")
def stage(cluster: RadosCluster) -> Iterator[Gateway]:
    with gateway(address_in(cluster, "contract")) as opened:
        yield opened


class TestRados(ServiceContract):
    pass
