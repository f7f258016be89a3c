from __future__ import annotations

import datetime
import gc
import threading
from pathlib import Path

import pytest
import structlog

from kvstore.errors import ConfigurationError
from kvstore.server.tls import pki
from kvstore.server.tls.certificate_files import CertificateFiles, Credentials
from kvstore.server.tls.pem_files import check_authorities, check_pair
from kvstore.server.tls.validity import not_after


@pytest.fixture
def authority(tmp_path: Path) -> pki.Authority:
    made = pki.init(tmp_path / "pki", "c", 3000)
    made.issue_member(1, ["a"], 100)
    made.issue_member(2, ["a"], 100)
    return made


def files_of(authority: pki.Authority) -> CertificateFiles:
    stem = authority.directory / "member-1/server"
    return CertificateFiles(cert=f"{stem}.pem", key=f"{stem}.key")


def look(files: CertificateFiles) -> bytes:
    files.look()
    return files.current().cert


@pytest.mark.parametrize("days", [1, 365, 2999, 365 * 30])
def test_the_end_of_a_certificate_is_read_as_others_read_it(tmp_path: Path, days: int) -> None:
    # Ends past 2049 have another form (RFC 5280 §4.1.2.5).
    authority = pki.init(tmp_path / "pki", "c", 365 * 31)
    (path,) = authority.issue_client("x", days)
    assert not_after(path.read_bytes()) == pki.facts(path).not_after


def test_no_cut_of_a_certificate_is_taken_for_one(authority: pki.Authority) -> None:
    pem = (authority.directory / "ca.pem").read_bytes()
    for end in range(0, len(pem) - 2, 7):
        with pytest.raises(ConfigurationError, match="not a certificate in PEM form"):
            not_after(pem[:end])


def test_replaced_files_are_read_again(authority: pki.Authority) -> None:
    files = files_of(authority)
    before = files.current().cert
    authority.renew(authority.directory / "member-1/server.pem", 100)
    assert files.current().cert == before  # nobody has looked
    renewed = look(files)
    assert renewed == (authority.directory / "member-1/server.pem").read_bytes() != before


@pytest.mark.parametrize("damage", ["garbage", "gone", "key of another"])
def test_files_that_are_no_good_leave_the_last_good_ones(
    authority: pki.Authority, damage: str
) -> None:
    files = files_of(authority)
    before = files.current()
    directory = authority.directory / "member-1"
    match damage:
        case "garbage":
            (directory / "server.pem").write_text("not a certificate")
        case "gone":
            (directory / "server.key").unlink()
        case "key of another":
            (authority.directory / "member-2/server.key").rename(directory / "server.key")
    with structlog.testing.capture_logs() as logs:
        assert look(files) == before.cert
        assert look(files) == before.cert
    assert [entry["event"] for entry in logs] == [
        "changed certificate files are no good; keeping the old"
    ]
    authority.issue_member(1, ["a"], 100)
    assert look(files) == (directory / "server.pem").read_bytes()


@pytest.mark.parametrize(("days", "level"), [(100, None), (10, "warning"), (-1, "error")])
def test_an_end_that_is_near_is_logged(
    authority: pki.Authority,
    monkeypatch: pytest.MonkeyPatch,
    days: int,
    level: str | None,
) -> None:
    monkeypatch.setattr(pki, "_BACKDATED", datetime.timedelta(days=10))
    authority.issue_member(1, ["a"], days)
    with structlog.testing.capture_logs() as logs:
        files_of(authority)
    assert [entry["log_level"] for entry in logs] == ([] if level is None else [level])


def test_a_certificate_that_nobody_renews_is_warned_of_again(
    authority: pki.Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.issue_member(1, ["a"], 10)
    files = files_of(authority)
    with structlog.testing.capture_logs() as logs:
        files.look()
        assert not logs
        monkeypatch.setattr("kvstore.server.tls.certificate_files.WARNING_INTERVAL_S", 0.0)
        files.look()
    assert [entry["log_level"] for entry in logs] == ["warning"]


def test_a_missing_file_is_named_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"certificate PEM from .*none\.pem"):
        CertificateFiles(cert=str(tmp_path / "none.pem"), key="k")


def test_who_asks_never_waits_for_a_look_that_hangs(
    authority: pki.Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(authority)
    before = files.current()
    hung, let_go = threading.Event(), threading.Event()

    def read() -> Credentials:
        hung.set()
        assert let_go.wait(10)
        return before

    monkeypatch.setattr(files, "_read", read)
    authority.renew(authority.directory / "member-1/server.pem", 100)
    looking = threading.Thread(target=files.look)
    looking.start()
    try:
        assert hung.wait(10)
        assert files.current() is before
        assert files.channel_credentials() is not None
        files.look()  # another thread is at it
    finally:
        let_go.set()
        looking.join()


def test_files_that_vanish_in_the_middle_of_a_look_leave_the_last_good_ones(
    authority: pki.Authority,
) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        check_pair(str(authority.directory / "member-1/server.pem"), "/nope")
    with pytest.raises(ConfigurationError, match="authority PEM from /nope"):
        check_authorities("/nope")


def test_a_listeners_files_are_looked_at_by_a_thread_until_it_is_gone(
    authority: pki.Authority,
) -> None:
    others = set(threading.enumerate())
    files = files_of(authority)
    files.look_interval_s = 0.01
    looked = threading.Event()
    files.look = looked.set  # type: ignore[method-assign]
    assert files.server_credentials() is not None
    assert looked.wait(10)
    (thread,) = (
        each for each in set(threading.enumerate()) - others if each.name == "certificates"
    )
    del files
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
