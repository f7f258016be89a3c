"""Addresses as everybody writes them."""

from __future__ import annotations

import pytest

from kvstore.addresses import HostPort, is_loopback, is_unix


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("db-1.example_x.org:1", "db-1.example_x.org", 1),
        ("localhost:0", "localhost", 0),
        ("h:65535", "h", 65535),
        ("[::1]:50051", "::1", 50051),
        ("[fe80::1%eth0]:7", "fe80::1%eth0", 7),
        ("[::ffff:10.0.0.1]:7", "::ffff:10.0.0.1", 7),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    parsed = HostPort.parse(text)
    assert parsed == HostPort(host, port)
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "h", "h:", ":1", "h:65536", "h:123456", "h:-1", "::1:5", "[::1]", "[]:1", "[::1:5"),
        *("a b:1", "h:1\n", "-h:1", "h/x:1", "dns:///h:1", "http://h:1", "h:1,h:2", "h:\u0663"),
    ],
)
def test_what_is_no_address_is_none(text: str) -> None:
    assert HostPort.parse(text) is None


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("LocalHost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("localhost.example.org:1", False),
        ("db:1", False),
        ("nonsense", False),
    ],
)
def test_a_loopback_address_is_known(text: str, inside: bool) -> None:
    assert is_loopback(text) is inside


@pytest.mark.parametrize(
    ("left", "right", "collide"),
    [
        ("h:1", "h:1", True),
        ("H:1", "h:1", True),
        ("h:1", "h:2", False),
        ("h:1", "g:1", False),
        ("0.0.0.0:1", "g:1", True),
        ("g:1", "[::]:1", True),
        ("0.0.0.0:1", "g:2", False),
    ],
)
def test_addresses_collide_when_one_process_cant_listen_on_both(
    left: str, right: str, collide: bool
) -> None:
    one, other = HostPort.parse(left), HostPort.parse(right)
    assert one is not None
    assert other is not None
    assert one.collides(other) is collide


def test_a_socket_has_a_path() -> None:
    assert is_unix("unix:/run/kvd/admin.sock")
    assert not any(map(is_unix, ["unix:", "unix:/a b", "127.0.0.1:1", "unixx:/a"]))


@pytest.mark.parametrize("host", ["a" * 64, f"{'a' * 64}.example", "a..b"])
def test_names_that_no_resolver_takes_are_no_addresses(host: str) -> None:
    assert HostPort.parse(f"{host}:1") is None
    assert HostPort.parse(f"{'a' * 63}.example:1") is not None
