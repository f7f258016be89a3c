"""The file of a gateway to RADOS, and the flags beside it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvstore.beyond.rados.opening import PoolAddress
from kvstore.cli.kvd_check import kvd_check, rados_overrides
from kvstore.errors import ConfigurationError
from kvstore.server.checks import configuration
from kvstore.server.config.rados_config import OVERRIDES, RadosConfig, load_rados_config

ALL = """\
ceph_conf = "/c.conf"
user = "u"
keyring = "/k"
pool = "p"
namespace = "n"
client_addr = "127.0.0.1:0"
tls_profile = "secure"
tls_cert = "/c.pem"
tls_key = "/k.pem"
tls_client_ca = "/a.pem"
metrics_address = "127.0.0.1:9100"
log_level = "debug"
log_format = "json"
admin = "everybody"
front = "grpcio"
slow_call_ms = 7
"""


def write(directory: Path, text: str) -> str:
    path = directory / "gateway.toml"
    path.write_text(text)
    return str(path)


def test_a_pool_is_all_that_must_be_said(tmp_path: Path) -> None:
    config = load_rados_config(write(tmp_path, 'pool = "p"'))
    assert config == RadosConfig(pool="p")
    assert config.address == PoolAddress("/etc/ceph/ceph.conf", "kvstore", None, "p", "kvstore")
    options = config.options("file")
    assert (options.mode, options.data_dir, options.etcd_api) == ("rados", "rados:p/kvstore", False)


def test_each_key_is_read(tmp_path: Path) -> None:
    config = load_rados_config(write(tmp_path, ALL))
    default = RadosConfig(pool="")
    for field in dataclasses.fields(RadosConfig):
        if field.name != "insecure_clients":  # contradicts TLS
            assert getattr(config, field.name) != getattr(default, field.name), field.name
    assert config.address == PoolAddress("/c.conf", "u", "/k", "p", "n")


@pytest.mark.parametrize("key", OVERRIDES)
def test_a_flag_wins(tmp_path: Path, key: str) -> None:
    others = {
        "tls_profile": "dev",
        "front": "native",
        "admin": "operators",
        "log_level": "error",
        "log_format": "console",
        "insecure_clients": "true",
        "slow_call_ms": "9",
    }
    text = 'pool = "p"\n' if key in ("tls_profile", "insecure_clients") else ALL
    value = others.get(key, "127.0.0.1:1" if key == "client_addr" else "/other")
    config = load_rados_config(write(tmp_path, text), {key: value})
    assert str(getattr(config, key)).lower() == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "pool is missing"),
        ('pool = ""', "not empty"),
        ('pool = "a/b"', "a name without '/'"),
        (f'pool = "p"\nnamespace = "{"x" * 257}"', "more than 256 bytes"),
        ('pool = "p"\nuser = "client.kv"', "without 'client.'"),
        ('pool = "p"\nclient_addr = "nowhere"', 'must be "host:port"'),
        ('pool = "p"\npol = "q"', "unknown key pol; did you mean pool?"),
        ('pool = "p"\ntls_profile = "secure"', "requires both"),
        ('pool = "p"\ntls_cert = "/c"', "no effect with --tls_profile=dev"),
        ('pool = "p"\nslow_call_ms = -1', "a number from 0"),
        ("pool = ", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load_rados_config(write(tmp_path, text))


@pytest.mark.parametrize("flag", ["data_dir", "history_s", "quota_mib", "etcd_api", "self_id"])
def test_what_only_a_group_has_is_refused_as_a_flag(flag: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--{flag} has no effect with --mode=rados"):
        rados_overrides({"mode": "rados", "config": "f", flag: "1"})


def test_kvd_check_says_what_is_wrong_without_asking_the_cluster(tmp_path: Path) -> None:
    path = write(tmp_path, f'pool = "p"\nceph_conf = "{tmp_path}/none"\npol = "q"')
    done = CliRunner().invoke(kvd_check, ["--mode=rados", path, "--data_dir=/x"])
    assert done.exit_code == 2
    assert "unknown key pol" in done.output
    assert "failed to read ceph_conf" in done.output
    assert "--data_dir has no effect" in done.output


@pytest.mark.parametrize(
    "words", [["{}"], ["--config={}"], ["--running", "{}"], ["--running", "--config={}"]]
)
def test_kvd_check_takes_a_sound_file_however_it_is_given(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration, "find_librados", lambda: None)
    conf = tmp_path / "ceph.conf"
    conf.write_text("[global]\n")
    text = f'pool = "p"\nceph_conf = "{conf}"\nclient_addr = "0.0.0.0:0"\n'
    path = write(tmp_path, text)
    done = CliRunner().invoke(kvd_check, ["--mode=rados", *(word.format(path) for word in words)])
    assert done.exit_code == 0, done.output
    assert "clients talk in plain text on 0.0.0.0:0" in done.output
    assert "nothing wrong, 1 warning" in done.output
