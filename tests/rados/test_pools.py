"""What a gateway finds when it opens a pool, and what is said where it can't."""

from __future__ import annotations

import dataclasses
import signal
import time
from pathlib import Path

import pytest

from kvstore._rados import native
from kvstore.beyond.rados import opening
from kvstore.beyond.rados.layout import MARKER_KEY, MARKER_NAME
from kvstore.beyond.rados.objects import ABSENT
from kvstore.beyond.rados.opening import OpenPool, PoolAddress, open_pool
from kvstore.errors import ConfigurationError, CorruptionError, UnavailableError
from kvstore.service import Get, Put
from tests.rados.conftest import address_in
from tests.rados.foreign import PATIENCE_S, foreign, poll
from tests.rados.gateway import Gateway, gateway
from tools.rados_cluster import POOL, RadosCluster


def test_the_first_gateway_makes_the_marker_and_the_others_find_it(cluster: RadosCluster) -> None:
    address = address_in(cluster, "first")
    with gateway(address) as first, gateway(address) as second:
        assert first.opened.made
        assert not second.opened.made
        assert first.opened.marker == second.opened.marker
        assert first.call(Put(b"k", b"v", b"1")) is False
        assert second.call(Get(b"k")) == b"v"
        assert second.call(Put(b"k", b"v", b"1", age_s=1.0)) is False
    with gateway(address_in(cluster, "second")) as other:
        assert other.opened.marker != first.opened.marker
        assert other.call(Get(b"k")) is None


def test_a_namespace_of_somebody_else_is_refused(cluster: RadosCluster) -> None:
    with foreign(cluster, "foreign") as somebody:
        somebody.set_pairs(b"theirs", {b"key": b"value"})
    with pytest.raises(ConfigurationError, match="somebody else's"):
        open_pool(address_in(cluster, "foreign"))


def test_two_first_starts_at_once_make_one_store(
    cluster: RadosCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one comes between this one's look for the marker and its look for objects."""
    address = address_in(cluster, "at-once")
    empty = opening._is_empty
    others: list[OpenPool] = []

    def is_empty(address: PoolAddress, where: str) -> bool:
        monkeypatch.undo()
        others.append(open_pool(address))
        return empty(address, where)

    monkeypatch.setattr(opening, "_is_empty", is_empty)
    opened = open_pool(address)
    (other,) = others
    assert (opened.made, other.made) == (False, True)
    assert opened.marker == other.marker
    assert opened.objects.close()
    assert other.objects.close()


def test_a_first_start_ends_in_time_where_placement_groups_do_not_answer(
    whole: RadosCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "ANSWER_S", 2.0)
    for number in range(whole.osds):
        whole.signal(f"osd.{number}", signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="did not answer in 2 s"):
        opening._is_empty(address_in(whole, "hung"), "it")
    assert time.monotonic() - began < 20.0


def test_an_erasure_coded_pool_is_refused(cluster: RadosCluster) -> None:
    cluster.ceph(
        *("osd", "erasure-code-profile", "set", "two", "k=2", "m=1"),
        "crush-failure-domain=osd",
    )
    cluster.ceph("osd", "pool", "create", "coded", "8", "8", "erasure", "two")
    address = dataclasses.replace(
        address_in(cluster, "coded"),
        pool="coded",
        user="admin",
        keyring=str(cluster.directory / "client.admin.keyring"),
    )
    with pytest.raises(ConfigurationError, match="a replicated pool"):
        open_pool(address)


def test_a_later_version_and_a_damaged_marker_are_refused(cluster: RadosCluster) -> None:
    address = address_in(cluster, "later")
    with gateway(address):
        pass
    with foreign(cluster, "later") as somebody:
        marker = somebody.pair(MARKER_NAME, MARKER_KEY)
        somebody.set_pairs(MARKER_NAME, {MARKER_KEY: marker[:12] + b"\2" + marker[13:]})
        with pytest.raises(ConfigurationError, match="version 2"):
            open_pool(address)
        damaged = marker[:-1] + bytes([marker[-1] ^ 1])
        somebody.set_pairs(MARKER_NAME, {MARKER_KEY: damaged})
        with pytest.raises(CorruptionError):
            open_pool(address)


def test_what_is_missing_is_named(
    cluster: RadosCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = address_in(cluster, "missing")
    nothing = str(tmp_path / "nothing")
    wrong_key = tmp_path / "wrong.keyring"
    wrong_key.write_text("[client.kvstore]\n\tkey = AQBAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAA==\n")
    for what, words in [
        (dataclasses.replace(address, ceph_conf=nothing), "ceph_conf"),
        (dataclasses.replace(address, keyring=nothing), "keyring"),
        (dataclasses.replace(address, keyring=str(wrong_key)), "key"),
        (dataclasses.replace(address, user="nobody"), "refuse client.nobody"),
        (dataclasses.replace(address, pool="nothing"), "no pool 'nothing'"),
    ]:
        with pytest.raises(ConfigurationError, match=words):
            open_pool(what)
    nowhere = tmp_path / "nowhere.conf"
    nowhere.write_text("[global]\nauth client required = none\n")
    with pytest.raises(ConfigurationError, match="names no monitor"):
        open_pool(dataclasses.replace(address, ceph_conf=str(nowhere)))
    silent = tmp_path / "silent.conf"
    silent.write_text("[global]\nmon host = [v2:127.0.0.1:1]\nauth client required = none\n")
    monkeypatch.setitem(opening.OPTIONS, "client_mount_timeout", "1")
    monkeypatch.setitem(opening.OPTIONS, "rados_mon_op_timeout", "1")
    with pytest.raises(UnavailableError, match="no monitor answered"):
        open_pool(dataclasses.replace(address, ceph_conf=str(silent)))


def test_a_key_that_may_not_write_the_pool_is_told_so(cluster: RadosCluster) -> None:
    cluster.ceph("osd", "pool", "create", "other", "8")
    address = dataclasses.replace(address_in(cluster, "denied"), pool="other")
    with pytest.raises(ConfigurationError, match="may not read and write pool 'other'"):
        open_pool(address)


def test_a_pool_that_is_removed_holds_no_key_that_was_not_found(cluster: RadosCluster) -> None:
    cluster.ceph("osd", "pool", "create", "doomed", "8")
    cluster.ceph("auth", "get-or-create", "client.doomed", "mon", "allow r", "osd", "allow rw")
    keyring = cluster.directory / "doomed.keyring"
    keyring.write_bytes(cluster.ceph("auth", "get", "client.doomed"))
    address = dataclasses.replace(
        address_in(cluster, "doomed"), pool="doomed", user="doomed", keyring=str(keyring)
    )
    with gateway(address) as opened:
        assert opened.call(Put(b"k", b"v", b"1")) is False
        cluster.ceph("osd", "pool", "rm", "doomed", "doomed", "--yes-i-really-really-mean-it")
        result = opened.call(Get(b"k"))
        while result == b"v":  # the map of this client is older
            result = opened.call(Get(b"k"))
        assert isinstance(result, UnavailableError)
        assert "gone" in str(result)


def test_what_librados_is_asked_wrongly_raises_and_kills_nobody(cluster: RadosCluster) -> None:
    pool = native.Pool("client.admin")
    for ask in (
        lambda: pool.read_pairs(b"o", [b"k"]),
        lambda: pool.open("nothing", ""),
        pool.is_there,
        lambda: native.Listing(pool),
        lambda: pool.set_option("no such option", "1"),
    ):
        with pytest.raises(OSError):
            ask()
    assert pool.option("no such option") == ""
    pool.read_configuration(str(cluster.configuration))
    pool.connect()
    pool.open(POOL, "wrongly")
    with pytest.raises(TypeError):
        pool.read_pairs(b"o", ["text"])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        pool.write(b"o", ABSENT, {b"k": "text"}, None, None, None)  # type: ignore[dict-item]
    with pytest.raises(ValueError):
        pool.read_data(b"o", 1 << 40, None)
    # Begun, and nobody keeps it.
    pool.write(b"o", ABSENT, {b"k": b"v"}, None, None, None)
    assert not pool.close()
    until = time.monotonic() + PATIENCE_S
    while pool.under_way:
        poll(pool, until)
    assert pool.close()
    assert pool.close()
    assert pool.drain() == []
    with pytest.raises(OSError):
        pool.is_there()
    assert isinstance(Gateway, type)
