"""Slow calls of a real kvd, as operators see them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kvstore.client import Client
from kvstore.errors import PermissionDeniedError
from tests.integration.etcd_calls import EtcdCalls
from tests.integration.process import Kvd


def test_a_slow_write_is_told_of_with_its_times_and_without_its_key(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data", "--slow_call_ms=1", front="native") as kvd:
        kvd.wait_serving()
        with kvd.client() as client, pytest.raises(PermissionDeniedError):
            client.slow_calls()
        with kvd.client() as client, Client(f"unix:{tmp_path}/data/admin.sock") as operator:
            until = time.monotonic() + 60
            puts = []
            while not puts and time.monotonic() < until:
                # A large one takes its millisecond on any disk.
                client.put(b"secret key", b"secret value" * 80_000)
                puts = [slow for slow in operator.slow_calls() if slow.method == "Put"]
            slow = puts[-1]
            assert slow.code == "OK"
            assert slow.request_bytes > 12 * 80_000
            assert slow.seconds >= 0.001
            assert None not in (slow.queue_s, slow.commit_s, slow.apply_s)
            parts = (slow.queue_s or 0) + (slow.commit_s or 0) + (slow.apply_s or 0)
            assert 0 < parts <= slow.seconds + 0.001
        assert kvd.terminate() == 0
    assert "slow call" in kvd.stderr
    assert "secret" not in kvd.stderr


def test_calls_of_etcds_api_and_of_ordinary_handlers_are_told_of_too(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data", "--slow_call_ms=1", front="native") as kvd:
        kvd.wait_serving()
        wanted = {"etcdserverpb.KV/Put", "etcdserverpb.KV/DeleteRange"}
        with (
            EtcdCalls(kvd.address) as calls,
            Client(f"unix:{tmp_path}/data/admin.sock") as operator,
        ):
            until = time.monotonic() + 60
            seen: set[str] = set()
            while not wanted <= seen and time.monotonic() < until:
                calls.Put(key=b"k", value=b"v" * 900_000)
                calls.DeleteRange(key=b"k")
                seen = {slow.method for slow in operator.slow_calls()}
            assert wanted <= seen
        assert kvd.terminate() == 0


def test_0_tells_of_none(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data", "--slow_call_ms=0", front="native") as kvd:
        kvd.wait_serving()
        with kvd.client() as client:
            client.put(b"k", b"v" * 1_000_000)
        with Client(f"unix:{tmp_path}/data/admin.sock") as operator:
            assert operator.slow_calls() == ()
    assert "slow call" not in kvd.stderr
