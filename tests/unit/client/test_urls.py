"""Connection strings: what they say, and what is said of those that can't be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvstore.client import TLS, AsyncClient, Client
from kvstore.client.urls import Target, parse_url, target_of
from kvstore.errors import ConfigurationError

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("kv://db1:1", Target(("db1:1",))),
        ("KV://db1", Target(("db1:50051",))),
        ("kv://db1:1,db2,[::1]/", Target(("db1:1", "db2:50051", "[::1]:50051"))),
        ("kv://[fe80::1%25eth0]:7", Target(("[fe80::1%eth0]:7",))),
        ("kv:///run/kvd%20one.sock", None),
        ("kv:///run/kvd.sock?user=me", Target(("unix:/run/kvd.sock",), user="me")),
        ("kv://a?timeout=2.5", Target(("a:50051",), timeout=2.5)),
        ("kv://a?timeout=500ms&", Target(("a:50051",), timeout=0.5)),
        ("kv://a?timeout=2m", Target(("a:50051",), timeout=120.0)),
        ("kv://a?namespace=app%2F%ff", Target(("a:50051",), namespace=b"app/\xff")),
        ("kv://a?namespace=app/", Target(("a:50051",), namespace=b"app/")),
        ("kv://a?namespace=", Target(("a:50051",), namespace=b"")),
        ("kv://a?transport=grpcio", Target(("a:50051",), transport="grpcio")),
        ("kv://a?tls=true", Target(("a:50051",), tls=TLS())),
        ("kv://a?tls=false", Target(("a:50051",))),
        ("kv://a?tls-ca=ca.pem", Target(("a:50051",), tls=TLS(ca="ca.pem"))),
        (
            "kv://a?tls_ca=/x/ca.pem&tls-cert=c&tls-key=k&tls-server-name=db",
            Target(("a:50051",), tls=TLS(ca="/x/ca.pem", cert="c", key="k", server_name="db")),
        ),
        ("kv://me:p%40%2Fss@a", Target(("a:50051",), user="me", password="p@/ss")),
        ("kv://me:p@ss@a", Target(("a:50051",), user="me", password="p@ss")),
        ("kv://me@a", Target(("a:50051",), user="me")),
    ],
)
def test_a_string_says(text: str, target: Target | None) -> None:
    if target is None:  # an address has no blanks
        with pytest.raises(ConfigurationError, match="malformed server address"):
            target_of(text, Target(()))
    else:
        assert parse_url(text) == target


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://a", "the scheme 'http'; expected kv://"),
        (
            "kv://a?tls-certificate=x",
            "unknown parameter 'tls-certificate'; did you mean 'tls-cert'",
        ),
        ("kv://a?time_out=x", "unknown parameter 'time_out'; did you mean 'timeout'"),
        ("kv://a?ca=x", "unknown parameter 'ca'; did you mean 'tls-ca'"),
        ("kv://a?zebra=x", "unknown parameter 'zebra'; there are namespace, password-file,"),
        ("kv://a?password=hunter2", "a password goes before the host"),
        ("kv://a?timeout=1&timeout=2", "timeout is given twice"),
        ("kv://a?timeout", "timeout has no value"),
        ("kv://a?tls-ca=", "tls-ca has no value"),
        ("kv://a?timeout=0", "timeout=0 is no positive number of seconds"),
        ("kv://a?timeout=-1", "timeout=-1 is no positive number of seconds"),
        ("kv://a?timeout=soon", "timeout=soon is no positive number of seconds"),
        ("kv://a?tls=maybe", "tls=maybe is neither true nor false"),
        ("kv://a?tls=false&tls-ca=x", "tls=false, but tls-ca is given"),
        ("kv://a?tls-cert=x", "a client certificate needs its key"),
        ("kv://a?transport=pigeon", "unknown transport 'pigeon'; expected native or grpcio"),
        ("kv://a/app", "a path has no meaning after hosts; a namespace is given by ?namespace="),
        ("kv://", "it has no host"),
        ("kv:///", "it has no host"),
        ("kv://a,,b", "malformed server address ''"),
        ("kv://::1", "an address of IPv6 stands in brackets: [::1]:50051"),
        ("kv://a:99999", "malformed server address 'a'"),
        ("kv://a?namespace=%zz", "a % begins %XX, and stands for itself as %25"),
        ("kv://a#b", "a # is written %23"),
        ("kv://:hunter2@a", "a password has no user before it"),
        ("kv://me:hunter2@a?user=you", "a user before the host, and one by user="),
        ("kv://me:hunter2@a?password-file=x", "a password and password-file"),
        ("kv://a?user=me&password-file=/nowhere", "password-file /nowhere: No such file"),
        # What may be a password that wasn't escaped, or lacks its host, is in no message.
        ("kv://me:hunter2", "malformed server address 'me'"),
        ("kv://me:hunter2@", "in a user's name or password @, / and ? are written"),
        ("kv://me:x/hunter2@a", "in a user's name or password @, / and ? are written"),
        ("kv://me:x?hunter2@a", "in a user's name or password @, / and ? are written"),
        ("kv://me:x#hunter2@a", "a # is written %23"),
        ("kv://me:hunter2@a?tls=maybe", "tls=maybe is neither"),
        ("kv://me:hunter2@-", "malformed server address '-'"),
        ("postgres://me:hunter2@a", "the scheme 'postgres'; expected kv://"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Client(text)
    assert said in str(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("addresses", [["kv://me:hunter2@a:1"], "me:hunter2@a:1", "a:1,kv://b:1"])
def test_a_string_in_a_list_is_refused_without_its_password(addresses: Any) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Client(addresses)
    assert "one connection string, kv://" in str(raised.value)
    assert SECRET not in str(raised.value)


def test_a_password_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\nand a note\n")
    target = parse_url(f"kv://me@a?password-file={file}")
    assert (target.user, target.password) == ("me", SECRET)
    file.write_text("")
    with pytest.raises(ConfigurationError, match="its first line is empty"):
        parse_url(f"kv://me@a?password-file={file}")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="it is no text"):
        parse_url(f"kv://me@a?password-file={file}")


def test_an_argument_counts_more_than_the_string() -> None:
    given = Target((), timeout=7.0, namespace=b"", tls=TLS(ca="mine"))
    target = target_of("kv://me:p@a?timeout=1&namespace=x&tls-ca=theirs", given)
    assert target == Target(
        ("a:50051",), tls=TLS(ca="mine"), timeout=7.0, namespace=b"", user="me", password="p"
    )
    assert target_of("a:1, unix:/run/a@b.sock", given).addresses == ("a:1", "unix:/run/a@b.sock")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_shows_what_it_is_of_and_no_password(kind: type[Client | AsyncClient]) -> None:
    made = kind(f"kv://me:{SECRET}@a:1,b:2?namespace=app/&timeout=3")
    assert repr(made) == f"<{kind.__name__} a:1,b:2 namespace=b'app/' user='me'>"
    assert SECRET not in repr(Target(("a:1",), user="me", password=SECRET))
    assert repr(kind("a:1")) == f"<{kind.__name__} a:1>"
