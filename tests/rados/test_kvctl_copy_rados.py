"""``kvctl copy`` from a group to a pool and back, as an operator does it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

from kvstore._rados.native import Listing
from tests.integration.process import Kvd, command, environment, run
from tests.rados.conftest import address_in, write_config
from tests.rados.gateway import gateway
from tools.rados_cluster import RadosCluster

ALL = {b"k%04d" % n: os.urandom(100) for n in range(500)}
ALL |= {b"large%d" % n: os.urandom(50_000 * n) for n in range(1, 5)}
ALL |= {b"\0\1odd\xff": b"", b"p/a": b"1"}


def copy(*words: str, status: int = 0) -> dict[str, Any]:
    ended = run("kvctl", "copy", *words, "--timeout=30", "-o", "json")
    assert ended.returncode == status, ended.stderr
    told = json.loads(ended.stdout)
    assert isinstance(told, dict)
    return told


def held(kvd: Kvd) -> dict[bytes, bytes]:
    with kvd.client() as client:
        return {entry.key: entry.value for entry in client.range()}


def test_a_group_moves_into_a_pool_under_writers_and_back(
    cluster: RadosCluster, tmp_path: Path
) -> None:
    config = write_config(cluster, tmp_path, "copied")
    pool = f"rados:{config}"
    with Kvd(tmp_path / "old") as old, Kvd(tmp_path / "new") as new:
        with old.wait_serving().client() as client:
            client.put_many(ALL)
            begun = threading.Event()

            def write() -> None:
                with old.client() as writer:
                    for n in range(400):
                        writer.put(b"k%04d" % (n % 200), b"version %d" % n)
                        writer.delete(b"k%04d" % (200 + n % 200))
                        begun.set()

            thread = threading.Thread(target=write)
            thread.start()
            begun.wait()
            # With 1: what was copied while it was compared was not compared.
            begun_copy = run(
                "kvctl", "copy", f"--from={old.address}", f"--to={pool}", "--output=json"
            )
            assert begun_copy.returncode in (0, 1), begun_copy.stderr
            assert json.loads(begun_copy.stdout)["equal"]
            thread.join()
            told = copy(f"--from={old.address}", f"--to={pool}", "--mirror", "--until-quiet=0.1")
            assert told["safe"]
            now = held(old)
            assert told["keys"] == len(now)
        with Kvd(tmp_path / "gateway", rados=config) as gateway:
            with gateway.wait_serving().client() as client:
                # What a gateway reads, and what one wrote goes back.
                assert dict(client.get_many(now)) == now
                client.put(b"of the gateway", bytes(200_000))
                client.delete(b"p/a")
            assert gateway.terminate() == 0
        refused = run("kvctl", "copy", f"--from={old.address}", f"--to={pool}")
        assert refused.returncode == 1
        assert b"such keys already" in refused.stderr
        new.wait_serving()
        back = copy(f"--from={pool}", f"--to={new.address}")
        assert back["equal"]
        del now[b"p/a"]
        now[b"of the gateway"] = bytes(200_000)
        assert held(new) == now
        assert copy(f"--from={pool}", f"--to={new.address}", "--mirror")["copied"] == 0


def test_a_copy_that_was_broken_off_goes_on(cluster: RadosCluster, tmp_path: Path) -> None:
    pool = f"rados:{write_config(cluster, tmp_path, 'broken-off')}"
    with Kvd(tmp_path / "old") as old:
        with old.wait_serving().client() as client:
            client.put_many(ALL)
        process = subprocess.Popen(
            [*command("kvctl"), "copy", f"--from={old.address}", f"--to={pool}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        with gateway(address_in(cluster, "broken-off")) as opened:
            while process.poll() is None and not any(
                name.startswith(b"b.") for name in Listing(opened.pool).names(1024)
            ):
                pass  # until it has begun to write
        process.send_signal(signal.SIGINT)
        _, complained = process.communicate(timeout=60)
        assert process.returncode in (0, 130), complained
        told = copy(f"--from={old.address}", f"--to={pool}", "--mirror")
        assert told["equal"]
        assert told["keys"] == len(ALL)


def test_a_namespace_without_a_store_is_no_source_and_stays_as_it_is(
    cluster: RadosCluster, tmp_path: Path
) -> None:
    pool = f"rados:{write_config(cluster, tmp_path, 'nothing-there')}"
    for _ in range(2):
        ended = run("kvctl", "copy", f"--from={pool}", "--to=127.0.0.1:1", "--timeout=10")
        assert ended.returncode == 1
        assert b"holds no store of kvstore's" in ended.stderr
