"""The pytest plugin as those have it who test programs of theirs: by a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kvstore.testing import Cluster, MemoryClient, Server
from tests.integration.process import environment

TESTS = """
import asyncio

import kvstore
import pytest


def test_a_client_of_a_real_server(kvd, kv):
    assert kv.count() == 0
    kv.put(b"a", b"1")
    assert kv.get(b"a") == b"1"
    assert kv.status().mode == "embedded"
    with kvd.client() as whole:
        assert whole.count() >= 1


def test_each_test_has_a_namespace_of_its_own(kvd, kv, kv_namespace):
    assert kv.count() == 0
    with kvd.client() as whole:
        assert whole.count(prefix=b"test/") == 0

    async def ask():
        async with kvd.async_client(namespace=kv_namespace) as client:
            await client.put(b"b", b"2")

    asyncio.run(ask())
    assert kv.get(b"b") == b"2"


def test_the_server_is_killed_in_the_middle(kvd, kv):
    kv.put(b"a", b"1")
    kvd.kill()


def test_the_server_is_paused_in_the_middle(kvd, kv):
    assert kv.count() == 0
    kvd.pause()


def test_a_leader_is_killed(kv_cluster):
    with kvstore.Client(kv_cluster.url, timeout=60) as client:
        leader = kv_cluster.leader()
        client.put(b"a", b"1")
        kv_cluster.kill(leader)
        client.put(b"a", b"2")
        assert kv_cluster.leader() != leader
        kv_cluster.restart(leader)
        kv_cluster.pause(kv_cluster.leader())
        client.put(b"a", b"3")
        kv_cluster.kill(leader)


def test_all_members_serve_again(kv_cluster):
    with kv_cluster.client() as client:
        assert [one.serving for one in client.health()] == [True, True, True]
        assert client.get(b"a") == b"3"
"""


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def test_fixtures_give_real_servers(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_mine.py").write_text(TESTS)
    done = run(f"--basetemp={tmp_path / 'base'}", "test_mine.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


def test_who_uses_no_fixture_loads_nothing(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_mine.py").write_text(
        "import sys\n\n\n"
        "def test_it(pytestconfig):\n"
        "    assert pytestconfig.pluginmanager.has_plugin('kvstore')\n"
        "    loaded = {name for name in sys.modules if name.partition('.')[0] == 'kvstore'}\n"
        "    own = {'kvstore', 'kvstore.testing', 'kvstore.testing.pytest_plugin'}\n"
        "    assert loaded - {'kvstore.extras'} == own\n"
        "    assert not {'grpc', 'google.protobuf', 'structlog'} & set(sys.modules)\n"
    )
    done = run("test_mine.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    left_out = run("-p", "no:kvstore", "--fixtures", cwd=tmp_path)
    assert "kv_cluster" not in left_out.stdout


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="No such option") as raised:
        Server(tmp_path / "kvd", "--nosuch=1").start()
    assert str(tmp_path / "kvd" / "kvd.log") in str(raised.value)


def test_a_server_is_the_same_wherever_it_was_hurt(tmp_path: Path) -> None:
    with Server(tmp_path / "kvd") as server:
        address = server.address
        with server.client(namespace=b"app/") as client:
            client.put(b"a", b"1")
            server.kill()
            assert not server.runs
            server.restart()
            server.restart()
            server.pause()
            server.resume()
            assert client.get(b"a") == b"1"
        assert server.address == address
    assert not server.runs


def test_a_cluster_of_one_will_do(tmp_path: Path) -> None:
    with Cluster(tmp_path, size=1) as cluster:
        assert cluster.leader() == 1
        cluster.restart(1)
        assert cluster.leader() == 1


def test_memory_and_kvd_say_the_same_of_what_they_refuse(tmp_path: Path) -> None:
    def said(client: object, *asked: str) -> list[str]:
        found = []
        for each in asked:
            with pytest.raises(Exception) as raised:
                eval(each, {"client": client})
            found.append(f"{type(raised.value).__name__}: {raised.value}")
        return found

    asked = (
        "client.put(b'', b'')",
        "client.put(b'k' * 1025, b'')",
        "client.put(b'k', bytes((1 << 20) + 1))",
        "client.get_entry(b'k', revision=10 ** 9)",
        "client.compact(10 ** 9)",
        "client.revoke_lease(77)",
        "client.put(b'k', b'v', lease=77)",
        "client.put(b'k', b'v', request_id='')",
        "client.auth.enable()",
        "client.auth.delete_user('nobody')",
        "client.transfer_leadership(9) and None",
    )
    with Server(tmp_path / "kvd") as server, server.client() as client, MemoryClient() as memory:
        *real, _ = said(client, *asked)
        *same, _ = said(memory, *asked)
    assert same == real


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text("import sys\nsys.modules['grpc'] = None\n")
    (tmp_path / "test_it.py").write_text("def test_it(kv): pass\n")
    ran = run("test_it.py", cwd=tmp_path)
    assert ran.returncode == 1
    assert "kvstore.testing.Server needs the 'grpc' package: pip install" in ran.stdout
