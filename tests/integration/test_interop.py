"""Clients that share no code with ours: grpc-js, etcd3 of npm, and h2load's bare HTTP/2.

Skipped where they aren't installed: ``npm install --prefix tests/integration/node``, and Debian's
package nghttp2-client.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.api.v1 import kv_pb2
from tests.integration.process import FRONTS, Certificates, Kvd

NODE = Path(__file__).parent / "node"
PROTOS = Path(__file__).parents[2] / "proto"


@pytest.fixture(
    scope="module", params=[(front, profile) for front in FRONTS for profile in ("dev", "secure")]
)
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    certificates: Certificates,
) -> Iterator[Kvd]:
    front, profile = request.param
    data_dir = tmp_path_factory.mktemp(f"{front}-{profile}") / "data"
    secured = certificates if profile == "secure" else None
    with Kvd(data_dir, certificates=secured, front=front, admin="everybody") as started:
        yield started.wait_serving()


needs_npm_packages = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE / "node_modules/etcd3").is_dir(),
    reason="no grpc-js and etcd3: npm install --prefix tests/integration/node",
)


@needs_npm_packages
def test_grpc_js_is_served(server: Kvd) -> None:
    authority = [] if server.certificates is None else [str(server.certificates.ca)]
    address = server.address.replace("127.0.0.1", "localhost" if authority else "127.0.0.1")
    ended = subprocess.run(
        ["node", str(NODE / "client.js"), address, str(PROTOS), *authority],
        capture_output=True,
        timeout=60,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "well\n"), ended.stderr


@needs_npm_packages
@pytest.mark.parametrize("front", FRONTS)
def test_npms_etcd3_does_its_tour(front: str, tmp_path: Path) -> None:
    with Kvd(tmp_path / "data", front=front) as server:
        server.wait_serving()
        ended = subprocess.run(
            ["node", str(NODE / "etcd3_tour.js"), f"http://{server.address}"],
            capture_output=True,
            timeout=60,
            text=True,
            check=False,
        )
    assert (ended.returncode, ended.stdout) == (0, "well\n"), ended.stderr


@pytest.mark.skipif(shutil.which("h2load") is None, reason="no h2load: install nghttp2-client")
def test_bare_http2_is_served(server: Kvd, tmp_path: Path) -> None:
    message = kv_pb2.GetRequest(key=b"k").SerializeToString()
    body = tmp_path / "body"
    body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    scheme = "http" if server.certificates is None else "https"
    ended = subprocess.run(
        [
            # Who offers HTTP/1.1 as well gets it.
            *("h2load", "--npn-list=h2", "-n", "3000", "-c", "4", "-m", "50", "-d", str(body)),
            *("-H", "content-type: application/grpc", "-H", "te: trailers"),
            f"{scheme}://{server.address}/kvstore.v1.KV/Get",
        ],
        capture_output=True,
        timeout=60,
        text=True,
        check=False,
    )
    assert re.search(r"3000 succeeded, 0 failed, 0 errored, 0 timeout", ended.stdout), ended.stdout
